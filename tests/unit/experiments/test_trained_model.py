"""Fewer views at inference."""

import numpy as np
import pytest
import torch

from trainer.dataset import Dataset
from trainer.experiments.runs import load_embeddings, train_once
from trainer.experiments.trained_model import TrainedModel
from trainer.recipe import Recipe
from trainer.training import Listener


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, np.ndarray, Recipe]:
    recipe = Recipe(width=8, batch_size=256, epochs=2, neighbours=5, linear=0, item_tempering=0.3, learning_rate=0.01)
    folder, cpu = tmp_path_factory.mktemp("run"), torch.device("cpu")
    train_once(folder, dataset, recipe, 0, cpu, Listener())
    return TrainedModel(folder, dataset, recipe, 0, cpu), load_embeddings(folder), recipe


def tempered(embeddings: np.ndarray, users: int, power: float) -> np.ndarray:
    out = embeddings.copy()
    for row in range(users, len(out)):
        norm = np.sqrt((out[row] ** 2).sum())
        out[row] = out[row] / norm**power if norm > 0 else out[row]
    return out


def test_with_all_views_it_is_what_was_exported(trained) -> None:
    model, exported, _ = trained
    assert np.allclose(model.student({"id", "image", "text"}), exported, atol=1e-6)


def test_with_one_view_it_is_that_views_representation(trained, dataset: Dataset) -> None:
    """A single content view shares everything with itself, so that Eq. 19-21 leave it as it is."""
    model, _, recipe = trained
    views = {name: view.numpy() for name, view in model.student_views().items()}
    users = len(dataset.user_ids)
    for name in ("id", "image", "text"):
        expected = tempered(views[name], users, recipe.item_tempering)
        assert np.allclose(model.student({name}), expected, atol=1e-6)
    both = tempered(views["id"] + views["image"], users, recipe.item_tempering)
    assert np.allclose(model.student({"id", "image"}), both, atol=1e-6)


def test_teachers_are_not_the_student(trained) -> None:
    model, _, _ = trained
    student, teachers = model.student_views(), model.teacher_views()
    assert student.keys() == teachers.keys() == {"id", "image", "text"}
    assert all(not torch.equal(student[name], teachers[name]) for name in student)
