"""Frozen content features, reduced once, and hidden from some items."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.dataset import Dataset
from trainer.distill import Distillation
from trainer.inputs import TrainingInputs, hide_content, prepare_inputs, principal_components
from trainer.recipe import Recipe

RECIPE = Recipe(width=8, neighbours=5, linear=0.0)


def features_of_rank(rank: int, rows: int = 60, columns: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator) + 3


def test_features_of_low_rank_keep_every_distance() -> None:
    features = features_of_rank(6)
    reduced = principal_components(features, 6)
    assert reduced.shape == (60, 6)
    assert torch.allclose(torch.pdist(reduced), torch.pdist(features), atol=1e-3)


def test_the_directions_are_those_of_the_singular_value_decomposition() -> None:
    features = features_of_rank(30)
    singular_values = torch.linalg.svdvals(features - features.mean(dim=0))[:8]
    assert torch.allclose(principal_components(features, 8).norm(dim=0), singular_values, rtol=0.02)


@pytest.mark.parametrize("most", [40, 50])
def test_narrow_features_stay_as_they_are(most: int) -> None:
    features = features_of_rank(6)
    assert principal_components(features, most) is features


def test_fewer_items_than_directions_leave_columns_of_zeros() -> None:
    reduced = principal_components(features_of_rank(6, rows=4), 10)
    assert reduced.shape == (4, 10)
    assert torch.equal(reduced[:, 4:], torch.zeros(4, 6))


def test_it_neither_depends_on_the_global_seed_nor_changes_it() -> None:
    features = features_of_rank(30)
    torch.manual_seed(1)
    first, drawn = principal_components(features, 8), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    assert torch.equal(principal_components(features, 8), first)


def test_items_without_content_have_no_part_in_the_directions(small_dataset: Dataset) -> None:
    """They are zeros in the features, which is no content; the others are reduced as if these were not there."""
    name, modality = next(iter(small_dataset.modalities.items()))
    count = len(small_dataset.item_ids)
    features = features_of_rank(20, rows=count).numpy() + 10
    present = np.arange(count) % 2 == 0
    features[~present] = 0
    some = replace(modality, features=features, present=present, neighbours=None, cosine=None)
    recipe = RECIPE.model_copy(update={"feature_width": 8, "modalities": (name,)})
    dataset = replace(small_dataset, modalities={name: some})
    reduced = prepare_inputs(dataset, recipe, torch.device("cpu")).modalities[name].features
    assert torch.equal(reduced[~present], torch.zeros(int((~present).sum()), 8))
    expected = principal_components(torch.from_numpy(features[present]), 8)
    assert torch.equal(reduced[present], expected)


def hidden_items(inputs: TrainingInputs, share: float, seed: int) -> dict[str, set[int]]:
    views = hide_content(inputs, RECIPE, share, np.random.default_rng(seed))
    users = inputs.interactions.shape[0]
    return {
        name: set(np.flatnonzero((inputs.modalities[name].present & ~view.present)[users:].numpy()))
        for name, view in views.items()
    }


def test_so_many_items_lose_a_modality_as_asked_and_more_of_them_include_the_fewer(small_dataset: Dataset) -> None:
    inputs = prepare_inputs(small_dataset, RECIPE, torch.device("cpu"))
    half, most = hidden_items(inputs, 0.5, 1), hidden_items(inputs, 0.75, 1)
    for name, modality in small_dataset.modalities.items():
        owners = int(modality.present.sum())
        assert (len(half[name]), len(most[name])) == (round(0.5 * owners), round(0.75 * owners))
        assert half[name] < most[name]
    assert half["image"] != half["text"]
    assert hidden_items(inputs, 0.5, 2) != half


def test_hidden_content_says_nothing_to_any_node(small_dataset: Dataset) -> None:
    """Whatever the hidden items' features and tables are, nobody's embedding depends on them."""
    inputs = prepare_inputs(small_dataset, RECIPE, torch.device("cpu"))
    model = Distillation(inputs, RECIPE, seed=0)
    views = hide_content(inputs, RECIPE, 0.5, np.random.default_rng(0))
    users = inputs.interactions.shape[0]
    before = model.student_embeddings_given(views)
    garbled = {}
    for (name, view), encoder in zip(views.items(), model.student.encoders.content, strict=True):
        gone = ~view.present[users:]
        features = view.features.clone()
        features[gone] = 1e3
        garbled[name] = replace(view, features=features)
        with torch.no_grad():
            encoder.table[gone] = -7.0
    assert torch.equal(model.student_embeddings_given(garbled), before)
    assert not torch.allclose(model.student_embeddings(), before)


def test_without_any_content_what_is_left_is_the_collaborative_view(small_dataset: Dataset) -> None:
    recipe = RECIPE.model_copy(update={"item_tempering": 0.0})
    inputs = prepare_inputs(small_dataset, recipe, torch.device("cpu"))
    model = Distillation(inputs, recipe, seed=0)
    views = hide_content(inputs, recipe, 1.0, np.random.default_rng(0))
    assert not any(view.present.any() for view in views.values())
    assert torch.equal(model.student_embeddings_given(views), model.student.encoders.id(inputs.bipartite).detach())


def test_nothing_hidden_leaves_every_view_as_it_was(small_dataset: Dataset) -> None:
    inputs = prepare_inputs(small_dataset, RECIPE, torch.device("cpu"))
    model = Distillation(inputs, RECIPE, seed=0)
    views = hide_content(inputs, RECIPE, 0.0, np.random.default_rng(0))
    assert torch.equal(model.student_embeddings_given(views), model.student_embeddings())
