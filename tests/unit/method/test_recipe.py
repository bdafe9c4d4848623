"""Recipes: packaged, from a file, overridden; mistakes are named."""

from pathlib import Path

import pytest

from shared.errors import UsageError
from trainer.packaged_recipes import packaged_recipes
from trainer.recipe import load_recipe


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_is_valid(name: str) -> None:
    load_recipe(name)


def test_overrides_are_read_as_yaml_and_scientific_notation_is_a_number() -> None:
    recipe = load_recipe("default", ["learning_rate=1e-3", "modalities=[text]", "student_pooling=mean"])
    assert recipe.learning_rate == 0.001
    assert recipe.modalities == ("text",)
    assert recipe.student_pooling == "mean"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("learning_rte=1", "learning_rte"),
        ("learning_rate=fast", "learning_rate"),
        ("learning_rate=.nan", "learning_rate"),
        ("width=0", "width"),
        ("width", "key=value"),
        ("width=[", "YAML"),
    ],
)
def test_a_mistake_is_named(override: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load_recipe("default", [override])


def test_a_file_works_and_a_broken_one_is_named(tmp_path: Path) -> None:
    good = tmp_path / "mine.yaml"
    good.write_text("width: 16\n")
    assert load_recipe(str(good)).width == 16
    for content in (b"- a list", b"width: [", b"\xff\xfe"):
        bad = tmp_path / "bad.yaml"
        bad.write_bytes(content)
        with pytest.raises(UsageError, match=r"bad\.yaml"):
            load_recipe(str(bad))
    with pytest.raises(UsageError, match="default"):
        load_recipe("no-such-recipe")


def test_a_recipe_builds_on_another(tmp_path: Path) -> None:
    assert load_recipe("best") == load_recipe("baby", ["students=3"])
    mine, over_mine = tmp_path / "mine.yaml", tmp_path / "over-mine.yaml"
    mine.write_text("base: baby\nepochs: 7\n")
    over_mine.write_text("base: mine.yaml\nepochs: 9\nwidth: 16\n")
    assert load_recipe(str(mine)) == load_recipe("baby", ["epochs=7"])
    assert load_recipe(str(over_mine), ["width=8"]) == load_recipe("baby", ["epochs=9", "width=8"])


@pytest.mark.parametrize(
    ("base", "said"),
    [("mine.yaml", "builds on this recipe itself"), ("[baby]", "write the name"), ("none.yaml", r"none\.yaml.*give")],
)
def test_a_base_that_is_none_is_named(tmp_path: Path, base: str, said: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: {base}\n")
    with pytest.raises(UsageError, match=said):
        load_recipe(str(mine))


def test_two_recipes_that_build_on_each_other_are_refused(tmp_path: Path) -> None:
    for one, other in (("one", "other"), ("other", "one")):
        (tmp_path / f"{one}.yaml").write_text(f"base: {other}.yaml\n")
    with pytest.raises(UsageError, match=r"other\.yaml: base: one\.yaml builds on this recipe itself"):
        load_recipe(str(tmp_path / "one.yaml"))
