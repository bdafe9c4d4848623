"""A training is done once, goes on after a kill, and its figures are those of what it exported."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from shared import durable
from shared.errors import UserError
from tests.processes import started
from trainer.cli.app import app
from trainer.dataset import TEST, TRAIN, Dataset
from trainer.experiments.own_process import train_in_own_process
from trainer.experiments.runs import load_embeddings, load_result, run_folder, train_once
from trainer.recipe import Recipe
from trainer.training import Listener

QUIET = Listener()


def metrics_by_hand(embeddings: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Recall and NDCG by sorting every user's whole list."""
    users = len(dataset.user_ids)
    training, test = (dataset.interactions(label).toarray() > 0 for label in (TRAIN, TEST))
    scores = embeddings[:users].astype(np.float64) @ embeddings[users:].astype(np.float64).T
    scores[training] = -np.inf
    figures: dict[str, list[float]] = {f"{name}@{k}": [] for name in ("recall", "ndcg") for k in (10, 20)}
    for user in range(users):
        relevant = set(np.flatnonzero(test[user]))
        if not relevant or not training[user].any():
            continue
        ranked = np.argsort(-scores[user], kind="stable")
        for k in (10, 20):
            gains = [1 / np.log2(rank + 2) for rank, item in enumerate(ranked[:k]) if item in relevant]
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(relevant))))
            figures[f"recall@{k}"].append(len(gains) / len(relevant))
            figures[f"ndcg@{k}"].append(sum(gains) / ideal)
    return {name: float(np.mean(values)) for name, values in figures.items()}


def test_the_figures_are_those_of_the_exported_embeddings(
    dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path, dataset, recipe, 0)
    result = train_once(folder, dataset, recipe, 0, cpu, QUIET)
    embeddings = load_embeddings(folder)
    assert result.test == pytest.approx(metrics_by_hand(embeddings, dataset), abs=1e-9)
    users, items, width = len(dataset.user_ids), len(dataset.item_ids), recipe.width
    assert result.served_parameters == embeddings.size
    views = (users + items) * width + 2 * items * width
    columns = [min(modality.features.shape[1], recipe.feature_width) for modality in dataset.modalities.values()]
    gates = sum((count + 1) * width for count in columns)
    fusion = (width * width + width) + width + 2 * (width * width + width)
    assert result.teacher_parameters == views + gates
    assert result.student_parameters == views + gates + fusion


def test_a_finished_training_is_remembered_and_not_done_again(
    dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path, dataset, recipe, 0)
    first = train_once(folder, dataset, recipe, 0, cpu, QUIET)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}
    steps: list[int] = []
    again = train_once(folder, dataset, recipe, 0, cpu, Listener(step=lambda done, total: steps.append(done)))
    assert again == first
    assert not steps
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"} == before
    assert "checkpoint.pt" not in before


def test_another_seed_recipe_or_dataset_is_another_folder(dataset: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    folders = {
        run_folder(tmp_path, dataset, recipe, 0),
        run_folder(tmp_path, dataset, recipe, 1),
        run_folder(tmp_path, dataset, recipe.model_copy(update={"gates": False}), 0),
        run_folder(tmp_path, replace(dataset, fingerprint="f" * 64), recipe, 0),
        run_folder(tmp_path, dataset, recipe, 0, own_process=True),
    }
    assert len(folders) == 5


@pytest.mark.parametrize("damage", [b"", b'{"result"', b"{}", b"[]", b'{"result": {"test": {}}}', b"\xff\xfe"])
def test_a_damaged_result_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(damage)
    with pytest.raises(UserError, match=r"result\.json"):
        load_result(tmp_path)


def test_two_at_once_are_refused(dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path) -> None:
    with durable.exclusive(tmp_path / "lock"), pytest.raises(UserError, match="another process"):
        train_once(tmp_path, dataset, recipe, 0, cpu, QUIET)


@pytest.mark.slow
def test_a_killed_experiment_goes_on_where_it_was(shop: Path, tmp_path: Path) -> None:
    arguments = ["experiment", "main", str(shop), "--recipe", "lightgcn"]
    for setting in ("width=8", "epochs=40", "patience=40", "batch_size=64"):
        arguments += ["--set", setting]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    command = [sys.executable, "-m", "trainer.cli", *arguments, "--out", str(killed)]
    with started(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            logs = list(killed.glob(".runs/*/metrics.jsonl"))
            if logs and len(logs[0].read_bytes().splitlines()) >= 5:
                break
            time.sleep(0.01)
        process.kill()
        process.wait()
    (checkpoint,) = killed.glob(".runs/*/checkpoint.pt")
    done = (checkpoint.parent / "metrics.jsonl").read_bytes().splitlines()[:4]
    assert not (killed / "main.csv").exists()
    for out in (killed, undisturbed):
        assert CliRunner().invoke(app, [*arguments, "--out", str(out)]).exit_code == 0
    assert (checkpoint.parent / "metrics.jsonl").read_bytes().splitlines()[:4] == done  # not trained anew: times agree
    assert (killed / "main.csv").read_bytes() == (undisturbed / "main.csv").read_bytes()


def test_killed_while_another_student_noted_an_epoch_it_goes_on(
    dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    two = recipe.model_copy(update={"students": 2, "consolidated_width": 8, "linear": 1.0})
    undisturbed = train_once(tmp_path / "undisturbed", dataset, two, 0, cpu, QUIET)
    noted = tmp_path / "killed" / "student-2" / "metrics.jsonl"

    def killed(_epoch: object, _progress: object) -> None:
        if noted.exists():
            noted.write_bytes(noted.read_bytes() + b'{"epoch": 2, "los')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_once(tmp_path / "killed", dataset, two, 0, cpu, Listener(epoch=killed))
    resumed = train_once(tmp_path / "killed", dataset, two, 0, cpu, QUIET)
    assert resumed.test == undisturbed.test
    assert resumed.student_parameters == undisturbed.student_parameters


@pytest.mark.slow
def test_a_process_of_its_own_is_measured_alone_and_may_be_killed(
    shop: Path, dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    ballast = np.ones(150_000_000)
    assert ballast.nbytes > 1e9
    folder = tmp_path / "run"
    longer = recipe.model_copy(update={"epochs": 4})

    def kill_after_two(record, progress) -> None:
        if record.epoch == 2:
            (child,) = multiprocessing.active_children()
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(UserError, match="exit code -9"):
        train_in_own_process(folder, shop, dataset.fingerprint, longer, 0, cpu, Listener(epoch=kill_after_two))
    epochs: list[int] = []
    told = Listener(epoch=lambda record, progress: epochs.append(record.epoch))
    result = train_in_own_process(folder, shop, dataset.fingerprint, longer, 0, cpu, told)
    assert epochs
    assert epochs[0] >= 3
    assert 100 < result.peak_memory_mb < 1000
    assert result.test == train_once(tmp_path / "here", dataset, longer, 0, cpu, QUIET).test
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert result.epoch_seconds == pytest.approx(np.median([record["seconds"]["training"] for record in records]))


@pytest.mark.slow
def test_an_error_in_the_process_is_the_callers(
    shop: Path, dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    wrong = recipe.model_copy(update={"modalities": ("smell",)})
    with pytest.raises(UserError, match="smell"):
        train_in_own_process(tmp_path / "run", shop, dataset.fingerprint, wrong, 0, cpu, QUIET)


@pytest.mark.slow
def test_a_process_of_its_own_trains_on_no_other_data_than_the_experiment_began_with(
    shop: Path, dataset: Dataset, recipe: Recipe, cpu: torch.device, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(shop, tmp_path / "shop"))
    lines = (changed / "interactions.csv").read_text().splitlines(keepends=True)
    (changed / "interactions.csv").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="has changed since the experiment began"):
        train_in_own_process(tmp_path / "run", changed, dataset.fingerprint, recipe, 0, cpu, QUIET)
    assert not (tmp_path / "run").exists()
