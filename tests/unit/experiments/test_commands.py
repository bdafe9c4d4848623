"""``mts4mm experiment``: every command on a very small shop, and what it leaves behind."""

import csv
import json
import multiprocessing
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from shared.errors import UsageError, UserError
from trainer.cli.app import app
from trainer.dataset import Dataset, load_dataset
from trainer.experiments.conduct import Setting, Watch
from trainer.experiments.conduct import conduct as run_experiment
from trainer.experiments.definitions import experiment, experiment_names
from trainer.experiments.plans import SENSITIVITY_GRID, modalities_plan, sensitivity_plan
from trainer.experiments.report import gather
from trainer.recipe import Recipe

CPU = torch.device("cpu")
SETTINGS = ("width=8", "epochs=1", "neighbours=5", "linear_ridge=20", "consolidated_width=16", "rank_candidates=16")


def conduct(name: str, shop: Path, out: Path, *more: str):
    arguments = ["experiment", name, str(shop), "--out", str(out)]
    for setting in SETTINGS:
        arguments += ["--set", setting]
    outcome = CliRunner().invoke(app, [*arguments, *more])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome


def rows(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_files(out: Path, name: str) -> str:
    """The figure is a picture with something on it, the section has a table; returns the section."""
    with Image.open(out / f"{name}.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert 800 <= picture.width <= 4000
        assert 300 <= picture.height <= 3000
        assert (out / f"{name}.png").stat().st_size < 100_000
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 20
    text = (out / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith("## ")
    assert f"`mts4mm experiment {name} shop --out shop --recipe default --set width=8" in text
    assert "80 users, 60 items" in text
    assert f"torch {torch.__version__}" in next(line for line in text.splitlines() if line.startswith("- Machine: "))
    assert "- Time: " in text
    assert "| ---: |" in text
    assert f"({name}.png)" in text
    assert not list(out.glob(".tmp-*"))
    return text


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiments") / "shop"


def test_main_reports_every_seed_and_its_mean(shop: Path, out: Path) -> None:
    outcome = conduct("main", shop, out, "--seeds", "2", "--json")
    text = check_files(out, "main")
    found = rows(out, "main")
    models = {"student", "student alone", "LightGCN", "ID teacher", "image teacher", "text teacher", "linear teacher"}
    assert Counter(row["model"] for row in found) == dict.fromkeys(models, 2)
    document = json.loads(outcome.stdout)
    metrics = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    for line in document["summary"]:
        seeds = [{name: float(row[name]) for name in metrics} for row in found if row["model"] == line["model"]]
        cells = []
        for name in metrics:
            values = [figures[name] for figures in seeds]
            assert line[name]["mean"] == pytest.approx(np.mean(values))
            assert line[name]["deviation"] == pytest.approx(np.std(values, ddof=1))
            cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}")
        assert f"| {line['model']} | {' | '.join(cells)} |" in text
        for seed, figures in enumerate(seeds):
            shown = " | ".join(f"{figures[name]:.4f}" for name in metrics)
            assert f"| {line['model']} | {seed} | {shown} |" in text
    assert Path(document["files"]["csv"]) == out / "main.csv"


def test_a_training_that_is_wanted_alone_is_done_alone(shop: Path, tmp_path: Path) -> None:
    alone = tmp_path / "shop"
    conduct("main", shop, alone, "--only", "student")
    assert "student" in {row["model"] for row in rows(alone, "main")}
    assert "LightGCN" not in {row["model"] for row in rows(alone, "main")}
    text = check_files(alone, "main")
    assert "--only student`" in text
    assert "Left out on demand: LightGCN." in text
    conduct("ablation", shop, alone, "--only", "without gates")
    assert [row["variant"] for row in rows(alone, "ablation")] == ["without gates"]
    with pytest.raises(UsageError, match=r"--only teacher: .* it has: student; LightGCN"):
        conduct("main", shop, alone, "--only", "teacher")


def test_trainings_side_by_side_give_what_one_after_another_gives(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    beside, single = tmp_path / "beside" / "shop", tmp_path / "single" / "shop"
    conduct("main", shop, beside, "--jobs", "2")
    conduct("main", shop, single)
    assert rows(beside, "main") == rows(single, "main")
    check_files(beside, "main")


def test_a_training_that_fails_beside_another_is_named_and_ends_all(shop: Path, tmp_path: Path) -> None:
    setting = Setting(tmp_path / "gone", load_dataset(shop), Recipe(epochs=1), 3, tmp_path / "out", CPU, jobs=2)
    with pytest.raises(UserError, match=r"^(student|LightGCN), seed \d: .*gone"):
        run_experiment(experiment("main"), setting, Watch())
    assert not multiprocessing.active_children()


def test_the_same_command_again_trains_nothing(shop: Path, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.glob(".runs/*/*.*")}
    text = (out / "main.csv").read_bytes()
    (out / "main.csv").unlink()
    conduct("main", shop, out, "--seeds", "2")
    assert {path: path.stat().st_mtime_ns for path in out.glob(".runs/*/*.*")} == before
    assert (out / "main.csv").read_bytes() == text


@pytest.mark.slow
def test_ablation_takes_one_part_away_at_a_time(shop: Path, out: Path) -> None:
    conduct("ablation", shop, out)
    check_files(out, "ablation")
    found = {row["variant"]: row for row in rows(out, "ablation")}
    assert list(found) == [
        "full",
        "without the consolidation",
        "without rank KD",
        "without embedding KD",
        "without gates",
        "without these three",
        "without the linear teacher",
        "without its start tables",
        "without all of these",
    ]
    assert len(rows(out, "ablation")) == 9
    main = {row["model"]: row for row in rows(out, "main") if row["seed"] == "0"}
    assert found["full"]["recall@20"] == main["student"]["recall@20"]
    assert found["without the consolidation"]["recall@20"] == main["student alone"]["recall@20"]
    recipes = [json.loads(path.read_bytes())["recipe"] for path in out.glob(".runs/*/result.json")]
    changed = [
        {key: recipe[key] for key in ("rank", "embedding", "gates", "linear", "linear_start")} for recipe in recipes
    ]
    own = Recipe()
    start = {key: getattr(own, key) for key in ("rank", "embedding", "gates", "linear", "linear_start")}
    three = {"rank": 0, "embedding": 0, "gates": False}
    for difference in (
        {"rank": 0},
        {"embedding": 0},
        {"gates": False},
        three,
        {"linear": 0},
        {"linear_start": False},
        {**three, "linear": 0},
    ):
        assert start | difference in changed


@pytest.mark.slow
def test_modalities_are_taken_away_at_inference_and_in_training(shop: Path, out: Path) -> None:
    conduct("modalities", shop, out)
    check_files(out, "modalities")
    found = {(row["setting"], row["views"]): row for row in rows(out, "modalities")}
    single, pairs = ("id", "image", "text"), ("id + image", "id + text")
    assert set(found) == {
        ("student", "all"),
        *(("inferred with", views) for views in (*single, *pairs)),
        *(("trained with", views) for views in ("id", *pairs)),
        *(("teacher", views) for views in single),
    }
    main = {row["model"]: row for row in rows(out, "main") if row["seed"] == "0"}
    assert found["student", "all"]["recall@20"] == main["student alone"]["recall@20"]
    assert found["teacher", "image"]["ndcg@20"] == main["image teacher"]["ndcg@20"]


def test_modalities_compare_what_one_student_knows(dataset: Dataset, recipe: Recipe) -> None:
    several = modalities_plan(recipe.model_copy(update={"students": 3}), dataset)
    one = modalities_plan(recipe, dataset)
    assert several.trials == one.trials
    assert (several.remarks, one.remarks) == (["One student of the recipe's 3 was trained."], [])


@pytest.mark.slow
def test_sensitivity_varies_one_value_at_a_time(shop: Path, out: Path) -> None:
    conduct("sensitivity", shop, out)
    check_files(out, "sensitivity")
    found = rows(out, "sensitivity")
    full = {row["model"]: row for row in rows(out, "main") if row["seed"] == "0"}["student"]["recall@20"]
    own = Recipe(neighbours=5)
    for factor, grid in SENSITIVITY_GRID.items():
        figures = {float(row["value"]): row["recall@20"] for row in found if row["factor"] == factor}
        assert set(figures) == {*grid, getattr(own, factor)}
        assert figures[getattr(own, factor)] == full


def test_sensitivity_asks_for_no_more_neighbours_than_there_are(dataset: Dataset) -> None:
    lists = {
        name: replace(modality, neighbours=np.zeros((len(dataset.item_ids), 10), np.int32), cosine=None)
        for name, modality in dataset.modalities.items()
    }
    plan = sensitivity_plan(Recipe(), replace(dataset, modalities=lists))
    values = [trial.labels["value"] for trial in plan.trials if trial.labels["factor"] == "neighbours"]
    assert values == ["3", "5", "10"]
    assert plan.remarks == ["There are 10 neighbours an item; `neighbours` 20 was left out."]


@pytest.mark.slow
def test_efficiency_measures_every_model_in_its_own_process(shop: Path, out: Path) -> None:
    conduct("efficiency", shop, out)
    check_files(out, "efficiency")
    found = {row["model"]: row for row in rows(out, "efficiency")}
    assert list(found) == ["student and teachers", "LightGCN", "BPR"]
    for row in found.values():
        assert float(row["epoch_seconds"]) > 0
        assert 100 < float(row["peak_memory_mb"]) < 4000
    table = (80 + 60) * 8 / 1e6
    assert float(found["BPR"]["student_parameters_millions"]) == pytest.approx(table)
    assert float(found["student and teachers"]["served_parameters_millions"]) == pytest.approx(2 * table)
    main = {row["model"]: row for row in rows(out, "main") if row["seed"] == "0"}
    assert float(found["LightGCN"]["recall@20"]) == pytest.approx(float(main["LightGCN"]["recall@20"]), abs=1e-9)


@pytest.mark.slow
def test_robustness_damages_each_modality_in_every_share(shop: Path, out: Path) -> None:
    conduct("robustness", shop, out)
    check_files(out, "robustness")
    found = {(row["damage"], row["share"], row["model"]): row for row in rows(out, "robustness")}
    models = ("student", "without distillation")
    assert set(found) == {
        *(("content missing", share, model) for share in ("0", "0.25", "0.5", "0.75") for model in models),
        *(
            (f"{name} shuffled", share, model)
            for name in ("image", "text")
            for share in ("0", "0.25", "0.5", "1")
            for model in models
        ),
    }
    untouched = {found[damage, "0", "student"]["recall@20"] for damage in ("content missing", "image shuffled")}
    assert untouched == {next(row["recall@20"] for row in rows(out, "main") if row["model"] == "student")}


@pytest.mark.slow
def test_tsne_maps_every_view_that_an_item_has(shop: Path, out: Path, dataset: Dataset) -> None:
    conduct("tsne", shop, out)
    text = check_files(out, "tsne")
    found = rows(out, "tsne")
    counts = Counter(row["map"] for row in found)
    own = {"id": 60, **{name: int(modality.present.sum()) for name, modality in dataset.modalities.items()}}
    both = int(np.all([modality.present for modality in dataset.modalities.values()], axis=0).sum())
    assert counts == {
        **{f"{holder}, {name}": count for holder in ("teacher", "student") for name, count in own.items()},
        "student, fused": 60,
        "student, all views": 4 * both,
    }
    places = np.array([[float(row["x"]), float(row["y"])] for row in found])
    assert np.isfinite(places).all()
    assert len(np.unique(places, axis=0)) > 0.9 * len(places)
    assert all(f"| {name} |" in text for name in counts)


@pytest.mark.slow
def test_a_report_holds_all_sections_and_their_figures(shop: Path, out: Path, tmp_path: Path) -> None:
    for name in experiment_names():
        if not (out / f"{name}.md").exists():  # the other tests of this module may have conducted it
            conduct(name, shop, out)
    document = tmp_path / "docs" / "results.md"
    outcome = CliRunner().invoke(app, ["experiment", "report", str(out), "--out", str(document)])
    assert outcome.exit_code == 0, outcome.output
    text = document.read_text(encoding="utf-8")
    assert text.startswith("<!-- Generated by `mts4mm experiment report shop --out results.md`")
    assert str(tmp_path) not in text
    for name in experiment_names():
        section = (out / f"{name}.md").read_text(encoding="utf-8")
        assert section.splitlines()[0] in text
        copy = document.parent / "images" / "results" / f"shop-{name}.png"
        assert f"(images/results/{copy.name})" in text
        assert copy.read_bytes() == (out / f"{name}.png").read_bytes()


def test_a_report_tells_recipes_and_datasets_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("baby", "baby-paper", "sports")]
    for folder in folders:
        folder.mkdir()
        (folder / "main.md").write_text(f"## Accuracy of {folder.name}\n\n![drawn](main.png)\n", encoding="utf-8")
        (folder / "main.png").write_bytes(folder.name.encode())
    document = tmp_path / "docs" / "results.md"
    document.parent.mkdir()
    assert gather(folders, document, "the command") == [folder / "main.md" for folder in folders]
    text = document.read_text(encoding="utf-8")
    places = [text.index(f"## Accuracy of {folder.name}\n") for folder in folders]
    assert places == sorted(places)
    for folder in folders:
        shown = f"images/results/{folder.name}-main.png"
        assert text.count(f"![drawn]({shown})") == 1
        assert (document.parent / shown).read_text() == folder.name


def test_a_report_keeps_what_it_has_of_other_folders_and_replaces_its_own(tmp_path: Path) -> None:
    document = tmp_path / "results.md"

    def write(folder: str, name: str, text: str) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.md").write_text(f"## {text}\n\n![drawn]({name}.png)\n", encoding="utf-8")
        (tmp_path / folder / f"{name}.png").write_bytes(text.encode())
        return tmp_path / folder

    def headings() -> list[str]:
        return [line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]

    gather([write("shop-a", "main", "a main"), write("shop", "tsne", "tsne")], document, "first")
    for path in (tmp_path / "shop-a").iterdir():
        path.unlink()
    (tmp_path / "shop" / "tsne.md").unlink()
    gather([write("shop-a", "ablation", "a ablation"), write("shop", "main", "main")], document, "second")
    assert headings() == ["## a main", "## a ablation", "## main", "## tsne"]
    once = document.read_bytes()
    gather([tmp_path / "shop"], document, "second")
    assert document.read_bytes() == once
    gather([write("shop", "main", "main anew")], document, "third")
    assert headings() == ["## a main", "## a ablation", "## main anew", "## tsne"]
    assert (tmp_path / "images" / "results" / "shop-main.png").read_text() == "main anew"


def test_a_document_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "main.md").write_text("## Accuracy\n\n![drawn](main.png)\n", encoding="utf-8")
    (tmp_path / "x" / "main.png").write_bytes(b"drawn")
    document = tmp_path / "thesis.md"
    for text, complaint in (
        ("# My thesis\n", "was not made by"),
        ("<!-- Generated by `x`; do not edit. -->\n\n# Results\n\n## Lost\n\ntext\n", "lost its figure, '## Lost'"),
    ):
        document.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=complaint):
            gather([tmp_path / "x"], document, "")
        assert document.read_text(encoding="utf-8") == text


def test_a_report_of_nothing_of_two_folders_alike_or_of_odd_names_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path / "a" / "x", tmp_path / "b" / "x"):
        folder.mkdir(parents=True)
    with pytest.raises(UserError, match="no experiment was written here"):
        gather([tmp_path / "a" / "x"], tmp_path / "results.md", "")
    with pytest.raises(UsageError, match="same name"):
        gather([tmp_path / "a" / "x", tmp_path / "b" / "x"], tmp_path / "results.md", "")
    with pytest.raises(UsageError, match=r"x \(2\): a folder whose name has parentheses"):
        gather([tmp_path / "x (2)"], tmp_path / "results.md", "")
    with pytest.raises(UsageError, match=r"--out: .* is a folder"):
        gather([tmp_path / "a" / "x"], tmp_path / "b", "")
    (tmp_path / "a" / "x" / "main.md").write_text("## Accuracy\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"main\.png"):
        gather([tmp_path / "a" / "x"], tmp_path / "results.md", "")
    assert not (tmp_path / "results.md").exists()


def test_unknown_names_and_options_are_usage_errors(shop: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["experiment", "abalation", str(shop), "--out", str(tmp_path)]).exit_code == 2
    with pytest.raises(UsageError, match="abalation"):
        experiment("abalation")
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for more in (
        ["--out", str(tmp_path), "--seeds", "2"],
        ["--out", str(taken)],
        ["--out", str(tmp_path), "--set", "x=1"],
    ):
        outcome = CliRunner().invoke(app, ["experiment", "tsne", str(shop), *more])
        assert isinstance(outcome.exception, UsageError), more
    timed = CliRunner().invoke(app, ["experiment", "efficiency", str(shop), "--out", str(tmp_path), "--jobs", "2"])
    assert isinstance(timed.exception, UsageError)


def test_experiments_about_content_refuse_a_dataset_without(dataset: Dataset) -> None:
    bare = replace(dataset, modalities={})
    for name in ("modalities", "robustness"):
        with pytest.raises(UserError, match="there is none"):
            experiment(name).plan(Recipe(), bare)
    factors = {trial.labels["factor"] for trial in experiment("sensitivity").plan(Recipe(), bare).trials}
    assert factors == set(SENSITIVITY_GRID) - {"item_layers", "neighbours"}
