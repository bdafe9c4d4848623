"""Frozen content features, reduced once."""

import pytest
import torch

from trainer.inputs import principal_components


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
