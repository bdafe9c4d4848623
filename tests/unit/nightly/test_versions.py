"""Old versions go, the live one and the one before never; and how far two differ is a figure."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from shared import artifact, durable
from trainer.cli.app import app
from trainer.nightly.difference import difference, rank_biased_overlap


def published(store: Path, items: np.ndarray) -> str:
    count = len(items)
    model = artifact.StudentModel(
        ["ann", "bob"],
        [f"i{place}" for place in range(count)],
        np.array([[1.0, 0.0], [0.0, 1.0]]),
        items,
        np.array([0, 1, 1]),
        np.array([0]),
    )
    info = artifact.DatasetInfo(
        name="shop", fingerprint="f", users=2, items=count, interactions=1, split=artifact.Split(kind="given")
    )
    return artifact.publish(store, model, artifact.Provenance(info, {}, 0, {}))


def test_prune_keeps_the_newest_the_live_one_and_the_one_before(tmp_path: Path) -> None:
    items = np.random.default_rng(0).normal(size=(30, 2))
    names = [published(tmp_path, items) for _ in range(5)]
    names.sort()
    for name in (names[1], names[0]):
        artifact.activate(tmp_path, name)
    removed = artifact.prune(tmp_path, keep=2)
    assert removed == [names[2]]
    assert sorted(entry.version for entry in artifact.list_versions(tmp_path)) == [names[0], names[1], *names[3:]]
    assert artifact.rollback(tmp_path) == names[1]
    assert names[2] not in artifact.activations(tmp_path)
    assert artifact.prune(tmp_path, keep=5) == []
    assert not list(tmp_path.glob(".tmp-*"))


def test_prune_lets_go_of_interrupted_runs_that_are_older_than_every_version_that_stays(tmp_path: Path) -> None:
    published(tmp_path, np.eye(2))
    weights = ("checkpoint.pt", "best.pt", "student-2/best.pt")
    for name in ("old", "held", "late"):
        for path in (tmp_path / ".runs" / name / each for each in (*weights, "metrics.jsonl")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            if name != "late":
                os.utime(path, (0, 0))
    with durable.exclusive(tmp_path / ".runs" / "held" / "lock"):
        outcome = CliRunner().invoke(app, ["models", "prune", str(tmp_path), "--json"])
    assert json.loads(outcome.stdout)["runs"] == [".runs/old"]
    left = {path.parts[-2:] for path in tmp_path.glob(".runs/*/*") if path.is_file() and path.name != "lock"}
    assert left == {("old", "metrics.jsonl")} | {
        (name, file) for name in ("held", "late") for file in ("checkpoint.pt", "best.pt", "metrics.jsonl")
    }
    assert not list(tmp_path.glob(".runs/old/*/*.pt"))


def test_lists_are_compared_for_the_same_users(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    items = rng.normal(size=(40, 2))
    turned = items.copy()
    turned[:, 1] *= -1
    one, other = (artifact.load(tmp_path, published(tmp_path, table)) for table in (items, turned))
    same = difference(one, one, 10)
    assert (same.users, same.overlap, same.rank_biased_overlap, same.churn, same.unchanged) == (2, 1, 1, 0, 1)
    found = difference(one, other, 10)
    best, worst = set(np.argsort(-items[:, 1])[:20]), set(np.argsort(items[:, 1])[:20])
    assert found.overlap == pytest.approx((1 + len(best & worst) / 20) / 2)
    assert found.churn == found.unchanged == 0.5


def test_rank_biased_overlap_by_hand() -> None:
    assert rank_biased_overlap(["a", "b", "c"], ["b", "a", "c"]) == pytest.approx((0 + 0.9 + 0.81) / 2.71)
