"""What commands print, and what they make of options that cannot be."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from shared.errors import UsageError, UserError
from trainer.cli import output, training
from trainer.cli.app import app, main
from trainer.dataset import Dataset, SplitSpec
from trainer.packaged_recipes import packaged_recipes
from trainer.seeds import MOST_SEED


def test_json_has_null_for_what_is_no_finite_number(capsys: pytest.CaptureFixture[str]) -> None:
    odd = float("nan"), float("inf"), 1.5
    output.print_json({"figures": [odd, {"spread": float("nan")}], "at": Path("x")})

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"figures": [[None, None, 1.5], {"spread": None}], "at": "x"}


@pytest.mark.parametrize(
    "command",
    [
        ("train", "shop"),
        ("tune", "shop", "--out", "study"),
        ("bench", "encoders", "shop"),
        ("bench", "fold-in", "shop"),
        ("bench", "cold", "shop"),
        ("bench", "train", "shop"),
        ("encoders", "fit", "image", "shop"),
    ],
)
def test_a_seed_that_torch_could_not_take_is_a_wrong_option(command: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(app, [*command, "--seed", str(MOST_SEED + 1)])
    assert (outcome.exit_code, type(outcome.exception)) == (2, SystemExit)
    assert "--seed" in outcome.output


def test_an_interruption_is_told_with_what_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_and_publish", interrupt)
    shop = little_shop(tmp_path, labelled=False)
    table = tmp_path / "interactions.csv"
    table.write_text(table.read_text().replace("timestamp", "rating").replace(",160000000", ","))
    monkeypatch.setattr(sys, "argv", ["mts4mm", "train", shop])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    said = " ".join(capsys.readouterr().err.split())
    assert "interrupted; give the same command again: train, encode, tune, nightly and experiment go on" in said
    assert "weights are not used; --set draw_by_weight=true" in said


def test_the_help_of_train_names_every_packaged_recipe() -> None:
    said = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in said for name in packaged_recipes())


def test_a_recipe_that_is_not_there_is_told_without_an_error_number() -> None:
    outcome = CliRunner().invoke(app, ["train", "shop", "--recipe", "no.yaml"])
    assert str(outcome.exception).startswith("recipe 'no.yaml' cannot be read (No such file or directory); give")


def test_a_port_that_cannot_be_is_a_wrong_option() -> None:
    outcome = CliRunner().invoke(app, ["serve", "--port", "99999"])
    assert outcome.exit_code == 2
    assert "--port" in outcome.output


def test_a_simulation_begins_in_a_new_folder(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for out, said in ((taken, "cannot be made"), (tmp_path, "is not empty")):
        outcome = CliRunner().invoke(app, ["simulate", "--out", str(out)])
        assert isinstance(outcome.exception, UsageError)
        assert said in str(outcome.exception)


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[SplitSpec]:
    """The splits of the data that would be trained on."""
    splits: list[SplitSpec] = []

    def stop(data: Dataset, *rest: object, **options: object) -> None:
        splits.append(data.split)
        raise UserError("seen")

    monkeypatch.setattr(training, "train_and_publish", stop)
    return splits


def little_shop(folder: Path, *, labelled: bool) -> str:
    header = "user_id,item_id,timestamp" + ",x_label" * labelled
    rows = [f"u{user},i{item},{1_600_000_000 + item}" + f",{item % 3}" * labelled for user, item in np.ndindex(6, 6)]
    (folder / "interactions.csv").write_text("\n".join([header, *rows]))
    return str(folder)


@pytest.mark.parametrize(
    ("options", "labelled", "split"),
    [
        (["--split-seed", "7"], False, SplitSpec("random", 7)),
        (["--split", "random", "--split-seed", "7"], True, SplitSpec("random", 7)),
        (["--split", "random"], True, SplitSpec("random", 0)),
        ([], True, SplitSpec("given")),
    ],
)
def test_a_split_seed_is_that_of_a_random_split(
    tmp_path: Path, trained_on: list[SplitSpec], options: list[str], labelled: bool, split: SplitSpec
) -> None:
    outcome = CliRunner().invoke(app, ["train", little_shop(tmp_path, labelled=labelled), *options])
    assert trained_on == [split], outcome.exception


@pytest.mark.parametrize(
    ("options", "labelled", "said"),
    [
        ([], True, "brings its own split"),
        (["--split", "given"], True, "--split given draws nothing"),
        (["--split", "global_time"], False, "--split global_time draws nothing"),
    ],
)
def test_a_split_seed_of_what_is_not_drawn_is_a_wrong_option(
    tmp_path: Path, trained_on: list[SplitSpec], options: list[str], labelled: bool, said: str
) -> None:
    shop = little_shop(tmp_path, labelled=labelled)
    outcome = CliRunner().invoke(app, ["train", shop, *options, "--split-seed", "7"])
    assert isinstance(outcome.exception, UsageError)
    assert "--split-seed 7" in str(outcome.exception)
    assert said in str(outcome.exception)


def test_what_is_wrong_with_a_split_is_listed_by_the_command_that_train_names(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu1,i1\nu1,i2\nu1,i3\n")
    refused = CliRunner().invoke(app, ["train", str(tmp_path), "--split", "global_time"])
    command = f"validate {tmp_path} --split global_time"
    assert f"'mts4mm {command}' lists them" in str(refused.exception)
    listed = CliRunner().invoke(app, [*command.split(), "--json"])
    assert listed.exit_code == 1
    assert "missing_timestamp" in {finding["code"] for finding in json.loads(listed.stdout)["findings"]}
