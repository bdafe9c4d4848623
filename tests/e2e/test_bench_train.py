"""``mts4mm bench train`` as a stranger gives it: on a shop of files, and on synthetic ones."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Cli, Trained
from tests.processes import started

pytestmark = pytest.mark.slow
SMALL = ("--set", "width=8", "--set", "neighbours=5", "--set", "linear_candidates=30")


def test_a_dataset_is_measured_by_stage(cli: Cli, trained: Trained) -> None:
    run = cli("bench", "train", trained.shop, "--recipe", "demo", "--epochs", 2, "--json")
    assert run.returncode == 0, run.stderr
    cost = json.loads(run.stdout)
    assert cost["epochs"] == 2
    assert cost["users"] == 300
    assert cost["width"] == 64
    for part in ("preparation", "epoch"):
        assert sum(stage["share"] for stage in cost[part]) == pytest.approx(1)
        assert all(stage["seconds"] > 0 for stage in cost[part])
    assert 0 < cost["bandwidth"]["least_share"] < cost["bandwidth"]["most_share"]
    assert 100 < cost["peak_memory_mb"] < 4000


def test_to_best_says_when_the_best_epoch_ended(cli: Cli, trained: Trained) -> None:
    words = ("--recipe", "demo", "--set", "epochs=4", "--set", "patience=2", *SMALL)
    run = cli("bench", "train", trained.shop, *words, "--to-best")
    assert run.returncode == 0, run.stderr
    assert "seconds to its end" in run.stdout
    assert "with consolidation and test" in run.stdout


def test_synthetic_shops_grow_and_say_what_is_not_measured(cli: Cli) -> None:
    sizes = ("--interactions", 10_000, "--interactions", 20_000)
    run = cli("bench", "train", "--synthetic", *sizes, "--epochs", 1, *SMALL, "--json")
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    small, large = document["sizes"]
    assert (small["interactions"], large["interactions"]) == (10_000, 20_000)
    assert (small["steps"], large["steps"]) == (60, 60)
    assert "quadratic" in document["remark"]
    slope = math.log2(large["epoch_seconds"] / small["epoch_seconds"])
    assert document["exponents"]["epoch_seconds"] == pytest.approx(slope)


def test_synthetic_shops_as_a_table(cli: Cli) -> None:
    run = cli("bench", "train", "--synthetic", "--interactions", 10_000, "--epochs", 1, *SMALL)
    assert run.returncode == 0, run.stderr
    assert "10,000" in run.stdout
    assert "500 x 150" in run.stdout
    assert "quadratic" in run.stdout
    assert "grows like" not in run.stdout


def test_a_killed_training_is_said_to_be_and_leaves_no_files(trained: Trained, tmp_path: Path) -> None:
    words = ["bench", "train", str(trained.shop), "--recipe", "demo", "--epochs", "300"]
    command = [sys.executable, "-m", "trainer.cli", *words]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with started(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("mts4mm-bench-*/metrics.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (trainer,) = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        os.kill(int(trainer), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "exit code -9" in said
    assert not list(tmp_path.glob("mts4mm-bench-*"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "--synthetic"),
        (["{shop}", "--synthetic"], 2, "--synthetic"),
        (["--synthetic", "--interactions", "9"], 2, "10000"),
        (["{shop}", "--interactions", "20000"], 2, "--interactions"),
        (["{shop}", "--to-best", "--epochs", "3"], 2, "--to-best"),
        (["--synthetic", "--to-best"], 2, "--to-best"),
        (["no-such-folder"], 1, "no-such-folder"),
        (["{shop}", "--set", "modalities=[smell]"], 1, "smell"),
        (["{shop}", "--device", "tpu"], 2, "tpu"),
    ],
)
def test_mistakes_end_in_a_message(cli: Cli, trained: Trained, words: list[str], code: int, said: str) -> None:
    run = cli("bench", "train", *(word.format(shop=trained.shop) for word in words))
    assert run.returncode == code, run.stderr
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_folding_in_is_compared_with_training(cli: Cli, trained: Trained) -> None:
    words = ("--recipe", "demo", "--set", "epochs=3", "--share", 0.2, *SMALL)
    run = cli("bench", "fold-in", trained.shop, *words, "--json")
    assert run.returncode == 0, run.stderr
    loss = json.loads(run.stdout)
    assert 0 < loss["users"] <= 60
    assert loss["kept"] == pytest.approx(loss["folded_in"]["recall@20"] / loss["trained"]["recall@20"])
