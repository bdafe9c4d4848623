"""The benchmark of loading starts real services and reads their memory from outside."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Cli


@pytest.mark.slow
def test_each_worker_has_the_model_and_its_memory_is_told(cli: Cli, tmp_path: Path) -> None:
    sizes = ("--users", 3000, "--items", 500, "--width", 16)
    command = ("bench", "load", "--out", tmp_path / "store", *sizes, "--workers", 2, "--json")
    run = cli(*command)

    assert run.returncode == 0, run.stderr
    load = json.loads(run.stdout)["loads"][0]
    assert load["ready_seconds"] > 0
    assert len(load["workers"]) == load["workers_wanted"] == 2
    for worker in load["workers"]:
        assert worker["resident"] > worker["proportional"] > worker["private"] > 10


@pytest.mark.slow
def test_a_store_with_another_model_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    small = ("bench", "load", "--out", tmp_path, "--users", 300, "--width", 8, "--workers", 1)
    assert cli(*small, "--items", 50).returncode == 0

    run = cli(*small, "--items", 51)

    assert run.returncode == 1
    assert "another size" in run.stderr
