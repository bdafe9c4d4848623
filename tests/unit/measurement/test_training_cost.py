"""What is measured of a training, against what the training itself reports."""

import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from trainer.dataset import load_dataset
from trainer.demo_shop import make_shop
from trainer.measurement.bandwidth import measure_bandwidth
from trainer.measurement.training_cost import TrainingCost, cost_of_epochs, cost_to_best
from trainer.recipe import Recipe
from trainer.training import Listener, TrainingRun

pytestmark = pytest.mark.slow
RECIPE = Recipe(
    width=8,
    batch_size=256,
    epochs=300,
    patience=2,
    neighbours=5,
    rank_candidates=16,
    linear_candidates=30,
    linear_ridge=20.0,
    consolidated_width=16,
    learning_rate=0.01,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    make_shop(folder, users=80, items=60, seed=0)
    return folder


class Records:
    """Keeps the epochs' records."""

    def __init__(self) -> None:
        self.records = []
        self.listener = Listener(epoch=lambda record, progress: self.records.append(record))


@pytest.fixture(scope="module")
def told() -> Records:
    return Records()


@pytest.fixture(scope="module")
def cost(shop: Path, told: Records, tmp_path_factory: pytest.TempPathFactory) -> TrainingCost:
    return cost_of_epochs(shop, RECIPE, 3, 0, "cpu", tmp_path_factory.mktemp("run"), told.listener)


def test_it_trains_as_many_epochs_as_asked_whatever_the_patience(cost: TrainingCost, told: Records) -> None:
    assert cost.epochs == len(told.records) == 3
    assert cost.to_best is None
    trained = sorted(record.seconds["training"] for record in told.records)
    assert cost.epoch_seconds == trained[1]


def test_sizes_are_those_of_the_dataset_and_the_model(cost: TrainingCost, shop: Path, tmp_path: Path) -> None:
    dataset = load_dataset(shop)
    assert (cost.users, cost.items, cost.interactions) == (80, len(dataset.item_ids), len(dataset.users))
    assert cost.steps == -(-int((dataset.labels == 0).sum()) // RECIPE.batch_size)
    run = TrainingRun(dataset, RECIPE, 0, tmp_path, torch.device("cpu"))
    for side, count in ((run._model.student, cost.student_parameters), (run._model.teachers, cost.teacher_parameters)):
        assert count == sum(parameter.numel() for parameter in side.parameters())


def test_stages_add_up_to_the_whole(cost: TrainingCost, told: Records) -> None:
    assert sum(cost.preparation.values()) == pytest.approx(cost.preparation_seconds)
    assert {"linear teacher", "user-item graph", "content graphs", "neighbours"} <= set(cost.preparation)
    assert {"sampler", "backward", "optimiser", "validation"} <= set(cost.epoch)
    assert "linear teacher" not in cost.epoch
    whole = np.mean([sum(record.seconds.values()) for record in told.records])
    assert whole <= sum(cost.epoch.values()) < 3 * whole + 0.5
    for stages in (cost.preparation, cost.epoch):
        assert list(stages.values()) == sorted(stages.values(), reverse=True)
        assert min(stages.values()) > 0
    assert 0 < cost.evaluation_seconds <= max(record.seconds["validation"] for record in told.records)


def test_memory_is_that_of_this_process(cost: TrainingCost) -> None:
    assert 50 < cost.loaded_memory_mb <= cost.peak_memory_mb


@pytest.mark.parametrize("students", [1, 2])
def test_to_best_ends_with_the_patience_and_consolidates(shop: Path, tmp_path: Path, students: int) -> None:
    told = Records()
    began = time.perf_counter()
    recipe = RECIPE.model_copy(update={"students": students})
    cost = cost_to_best(shop, recipe, 0, "cpu", tmp_path, told.listener)
    elapsed = time.perf_counter() - began
    assert cost.to_best is not None
    assert cost.epochs == cost.to_best.epoch + RECIPE.patience
    assert cost.preparation_seconds < cost.to_best.seconds < cost.to_best.total_seconds < elapsed
    trained = [record.student["recall@20"] for record in told.records[: cost.epochs]]
    assert (len(told.records) > cost.epochs) == (students > 1)
    assert cost.validation["recall@20"] == max(trained) == trained[cost.to_best.epoch - 1]
    assert cost.to_best.validation["recall@20"] >= cost.validation["recall@20"]


def test_what_a_propagation_moves_by_hand() -> None:
    """3 interactions are 6 edges of 8 + 4 bytes, and 2 + 3 nodes have 8 bytes and a result of 64."""
    interactions = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 1]], np.float32))
    found = measure_bandwidth(interactions, 16, torch.device("cpu"))
    assert found.least_mb == pytest.approx((6 * 12 + 5 * 72 + 5 * 64) / 1e6)
    assert found.most_mb == pytest.approx((6 * 12 + 5 * 72 + 6 * 64) / 1e6)
    assert 0.1 < found.copy_gb_s < 10_000
    assert found.least_share == pytest.approx(found.least_mb / found.propagation_ms / found.copy_gb_s)
    assert found.most_share == pytest.approx(found.most_mb / found.propagation_ms / found.copy_gb_s)
