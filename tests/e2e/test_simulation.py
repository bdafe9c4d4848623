"""Some simulated days over the real service, a real Redis and real nights."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.slow


def test_nights_beat_the_first_model_find_new_items_and_hold_against_poison(cli: Cli, tmp_path: Path) -> None:
    run = cli(
        "simulate", "--days", 3, "--users", 600, "--items", 200, "--epochs", 30, "--out", tmp_path / "w", "--json"
    )
    assert run.returncode == 0, run.stderr
    days = json.loads(run.stdout[run.stdout.index('{\n  "folder"') :])["days"]
    *calm, poisoned = days
    assert "promoted" in {day["outcome"] for day in calm}
    assert sum(day["live"] for day in calm) > sum(day["static"] for day in calm)
    assert calm[-1]["new_found"] > 0
    assert poisoned["poisoned"]
    assert poisoned["outcome"] == "refused"
    assert poisoned["version"] == calm[-1]["version"]
    assert (tmp_path / "w" / "simulation.png").stat().st_size > 0
