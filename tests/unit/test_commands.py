"""What commands print, and what they make of options that cannot be."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shared.errors import UsageError
from trainer.cli import output
from trainer.cli.app import app
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


def test_a_simulation_begins_in_a_new_folder(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for out, said in ((taken, "cannot be made"), (tmp_path, "is not empty")):
        outcome = CliRunner().invoke(app, ["simulate", "--out", str(out)])
        assert isinstance(outcome.exception, UsageError)
        assert said in str(outcome.exception)
