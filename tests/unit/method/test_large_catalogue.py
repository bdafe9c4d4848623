"""A run over the bounds that keep the cost linear: what the linear teacher does not cover, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import consolidation, linear_teacher
from trainer.dataset import TRAIN, Dataset
from trainer.distill import Distillation, make_batch
from trainer.evaluation import Holdout, evaluate
from trainer.inputs import prepare_inputs
from trainer.recipe import Recipe
from trainer.sampler import TripletSampler, epoch_generator
from trainer.training import Listener, TrainingRun

CPU = torch.device("cpu")
RECIPE = Recipe(
    width=8,
    batch_size=64,
    epochs=2,
    neighbours=5,
    rank_candidates=16,
    linear_candidates=12,
    linear_ridge=20.0,
    learning_rate=0.01,
    consolidated_width=11,
)
MOST_ITEMS = 20


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch, small_dataset: Dataset) -> set[int]:
    monkeypatch.setattr(linear_teacher, "MOST_ITEMS", MOST_ITEMS)
    return set(linear_teacher.covered_items(small_dataset.interactions(TRAIN)).tolist())


def trained(dataset: Dataset, folder: Path, recipe: Recipe = RECIPE) -> tuple:
    told: list[str] = []
    return TrainingRun(dataset, recipe, 0, folder, CPU, Listener(stage=told.append)).finish(), told


def test_only_covered_items_are_ranked(small_dataset: Dataset, covered: set[int]) -> None:
    inputs = prepare_inputs(small_dataset, RECIPE, CPU)
    triplets = next(TripletSampler(inputs.interactions).batches(64, epoch_generator(0, 1)))
    users, items = inputs.interactions.shape
    batch = make_batch(triplets, (users, items), RECIPE, epoch_generator(0, 2), CPU, inputs.linear.items)
    ranked = (batch.nodes[batch.linear_candidates] - users).tolist()
    assert len(set(ranked)) == RECIPE.linear_candidates
    assert set(ranked) <= covered
    assert len(covered) == MOST_ITEMS < items


def test_a_run_over_the_bound_of_items_exports_the_student_as_it_is(
    small_dataset: Dataset, covered: set[int], tmp_path: Path
) -> None:
    student, told = trained(small_dataset, tmp_path)
    assert student.user_embeddings.shape[1] == RECIPE.width
    assert student.validation == student.alone["validation"]
    embeddings = torch.from_numpy(np.concatenate([student.user_embeddings, student.item_embeddings]))
    test = Holdout(small_dataset.interactions(0), small_dataset.interactions(2))
    assert evaluate(embeddings, test) == student.test == student.alone["test"]
    assert sum("too many" in stage for stage in told) == 1
    assert not any("consolidated" in stage for stage in told)
    assert 0 < student.teachers["linear"]["test"]["recall@20"] < 1


def test_a_run_over_the_bound_of_pairs_starts_from_scratch_and_exports_the_student(
    small_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_scratch, quiet = trained(
        small_dataset,
        tmp_path / "scratch",
        RECIPE.model_copy(update={"linear_start": False, "consolidated_width": 0}),
    )
    monkeypatch.setattr(consolidation, "MOST_PAIRS", len(small_dataset.user_ids) * len(small_dataset.item_ids) - 1)
    student, told = trained(small_dataset, tmp_path / "over")
    assert np.array_equal(student.user_embeddings, from_scratch.user_embeddings)
    assert np.array_equal(student.item_embeddings, from_scratch.item_embeddings)
    assert sum("too many" in stage for stage in told) == 1
    assert not any("too many" in stage for stage in quiet)


def test_a_step_learns_from_the_covered_items(small_dataset: Dataset, covered: set[int]) -> None:
    inputs = prepare_inputs(small_dataset, RECIPE, CPU)
    model = Distillation(inputs, RECIPE, seed=0)
    model.start_from_linear_teacher(seed=0)
    generator = epoch_generator(0, 1)
    model.start_epoch(generator)
    terms = model.step(next(TripletSampler(inputs.interactions).batches(64, generator)), generator)
    assert terms["linear"] > 0
