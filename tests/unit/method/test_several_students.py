"""Several students, trained one after another and joined: what comes out, and that a stop changes nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import zscore

from tests.unit.method.test_training import CPU, RECIPE, StopAt, StoppedError, run, same
from trainer.consolidation import StudentTables, side_by_side
from trainer.dataset import Dataset
from trainer.evaluation import Holdout, evaluate_scores
from trainer.sampler import TripletSampler
from trainer.training import Listener, TrainingRun, forget_checkpoints, forget_weights

THREE = RECIPE.model_copy(update={"students": 3, "epochs": 4})
WEAK = {"linear_start": False, "learning_rate": 0.001, "linear_ridge": 400.0}


def trained_alone(dataset: Dataset, folder: Path, seed: int) -> np.ndarray:
    """Scores (users, items) of the one student of a seed before anything is joined."""
    alone = run(dataset, folder, THREE.model_copy(update={"students": 1, "consolidated_width": 0}), seed)
    return alone.user_embeddings @ alone.item_embeddings.T


def epochs_in(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_side_by_side_they_score_as_the_sum_of_standardised_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    users, items, students, expected = 7, 11, [], np.zeros((7, 11))
    for width in (2, 5):
        parts = {name: torch.randn(users, width, generator=generator) for name in ("id", "text")}
        of_users, of_items = (
            torch.stack(list(parts.values())).sum(dim=0),
            torch.randn(items, width, generator=generator),
        )
        students.append(StudentTables(torch.cat([of_users, of_items + 3]), parts))
        expected += zscore((of_users @ (of_items + 3).T).numpy(), axis=1)
    joined = side_by_side(students, users)
    assert joined.embeddings.shape == (users + items, 7)
    scores = (joined.embeddings[:users] @ joined.embeddings[users:].T).numpy()
    assert np.allclose(scores, expected, atol=1e-4)
    assert torch.allclose(sum(joined.user_parts.values(), torch.zeros(users, 7)), joined.embeddings[:users], atol=1e-5)


def test_the_figures_alone_are_those_of_all_their_scores_together(small_dataset: Dataset, tmp_path: Path) -> None:
    """Against the students of those seeds, each trained by itself, and numpy."""
    several = run(small_dataset, tmp_path / "three", THREE, seed=2)
    together = sum(zscore(trained_alone(small_dataset, tmp_path / str(seed), seed), axis=1) for seed in (6, 7, 8))
    scores = torch.from_numpy(np.asarray(together, np.float32))
    for name, label in (("validation", 1), ("test", 2)):
        holdout = Holdout(small_dataset.interactions(0), small_dataset.interactions(label))
        expected = evaluate_scores(lambda users: scores[users], holdout)
        assert several.alone[name] == pytest.approx(expected, rel=1e-3)


def test_the_exported_embeddings_come_from_all_of_them(small_dataset: Dataset, tmp_path: Path) -> None:
    recipe = THREE.model_copy(update=WEAK | {"consolidated_width": 16})
    three = run(small_dataset, tmp_path / "three", recipe)
    one = run(small_dataset, tmp_path / "one", recipe.model_copy(update={"students": 1}))
    assert three.user_embeddings.shape == one.user_embeddings.shape == (len(small_dataset.user_ids), 16)
    assert not same(three, one)
    assert list(three.user_parts) == ["id", "shared", "image", "text", "linear"]
    total = sum(three.user_parts.values())
    assert np.allclose(total, three.user_embeddings, atol=1e-4 * np.abs(three.user_embeddings).max())
    assert (three.best_epoch, three.epochs, three.teachers) == (one.best_epoch, one.epochs, one.teachers)


def test_stopped_in_any_student_and_resumed_is_as_if_never_stopped(small_dataset: Dataset, tmp_path: Path) -> None:
    undisturbed = run(small_dataset, tmp_path / "undisturbed", THREE)
    steps = -(-len(TripletSampler(small_dataset.interactions(0))) // THREE.batch_size)
    for epoch in (1, 5, 10):
        folder = tmp_path / str(epoch)
        with pytest.raises(StoppedError):
            run(small_dataset, folder, THREE, listener=Listener(step=StopAt(epoch * steps + 1)))
        resumed = run(small_dataset, folder, THREE)
        assert same(resumed, undisturbed)
        assert resumed.alone == undisturbed.alone
        assert all(epochs_in(folder / student) == [1, 2, 3, 4] for student in (".", "student-2", "student-3"))


def test_one_that_the_time_runs_out_for_does_not_count(small_dataset: Dataset, tmp_path: Path) -> None:
    one = run(small_dataset, tmp_path / "one", THREE.model_copy(update={"students": 1}))
    asked: list[int] = []

    def so_often(times: int) -> bool:
        asked.append(1)
        return len(asked) <= times

    after_the_first = TrainingRun(small_dataset, THREE, 0, tmp_path / "a", CPU).finish(lambda: so_often(3))
    assert same(after_the_first, one)
    assert not (tmp_path / "a" / "student-2").exists()
    asked.clear()
    in_the_second = TrainingRun(small_dataset, THREE, 0, tmp_path / "b", CPU).finish(lambda: so_often(5))
    assert same(in_the_second, one)
    assert epochs_in(tmp_path / "b" / "student-2") == [1, 2]


@pytest.mark.parametrize("nothing_joined", [{"consolidated_width": 0}, {"linear": 0.0}])
def test_where_nothing_is_joined_there_is_one(small_dataset: Dataset, tmp_path: Path, nothing_joined) -> None:
    run(small_dataset, tmp_path, THREE.model_copy(update=nothing_joined))
    assert not list(tmp_path.glob("student-*"))


def test_forgotten_checkpoints_are_of_all_students(small_dataset: Dataset, tmp_path: Path) -> None:
    first = run(small_dataset, tmp_path, THREE)
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 3
    forget_checkpoints(tmp_path)
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert same(run(small_dataset, tmp_path, THREE), first)
    assert len(list(tmp_path.rglob("best.pt"))) == 3
    forget_weights(tmp_path)
    assert not list(tmp_path.rglob("*.pt"))
