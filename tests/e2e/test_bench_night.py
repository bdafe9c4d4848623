"""``mts4mm bench night`` with real nights: what it prints, and what is left of it when it is ended half-way."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from shared import artifact
from tests.e2e.conftest import Cli, Trained
from tests.processes import started

WORDS = (
    "--events",
    200,
    "--recipe",
    "demo",
    "--set",
    "epochs=1",
    "--first-epochs",
    1,
    "--warm-epochs",
    1,
    "--watch-seconds",
    0,
)


@pytest.mark.slow
def test_a_night_is_measured_by_step(cli: Cli, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.store, tmp_path / "models")  # whose model is the champion
    run = cli("bench", "night", trained.shop, *WORDS, "--models", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["events"] == 200
    assert found["base_interactions"] == artifact.load(trained.store).manifest.dataset.interactions
    assert pl.scan_parquet(tmp_path / "base" / "interactions.parquet").select(pl.len()).collect().item() == (
        found["base_interactions"] - 200
    )
    assert found["outcome"] in ("promoted", "refused"), found["reason"]
    assert found["data"]["interactions"] == found["base_interactions"], "the base's and the events'"
    assert found["training"]["epochs"] == 1
    names = [step["name"] for step in found["steps"]]
    assert len(names) == len(set(names)) > 3
    assert 0 < sum(step["seconds"] for step in found["steps"]) <= found["seconds"]


@pytest.mark.slow
def test_ended_half_way_it_takes_its_night_and_its_folder_with_it(trained: Trained, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer.cli", "bench", "night", trained.shop, *WORDS]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with started(command, env=environment) as bench:
        while not _processes_of(tmp_path):
            assert bench.poll() is None
            time.sleep(0.05)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(60) == 128 + signal.SIGTERM
    assert _processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _processes_of(folder: Path) -> list[str]:
    """The command lines that name a folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended
    return [line for line in lines if str(folder) in line and "nightly" in line]
