"""Consolidation against numpy's decomposition."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import consolidation
from trainer.consolidation import (
    BLEND_WEIGHTS,
    blended,
    can_decompose,
    consolidate,
    joined_parts,
    nearest_embeddings,
    standardised,
)
from trainer.evaluation import Holdout, evaluate
from trainer.linear_teacher import LinearTeacher, fit_linear_teacher

CPU = torch.device("cpu")


class Dense:
    """Scores that are there as a whole."""

    device = CPU

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = torch.from_numpy(matrix.astype(np.float32))
        self.shape = matrix.shape

    def times(self, of_items: torch.Tensor) -> torch.Tensor:
        return self._matrix @ of_items

    def transposed_times(self, of_users: torch.Tensor) -> torch.Tensor:
        return self._matrix.T @ of_users


def truncated(matrix: np.ndarray, width: int) -> np.ndarray:
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :width] * singular[:width]) @ right[:width]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))
def test_products_are_the_truncated_decomposition(users: int, items: int, width: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).normal(size=(users, items))
    of_users, of_items = nearest_embeddings(Dense(matrix), width, seed)
    assert of_users.shape == (users, width)
    assert of_items.shape == (items, width)
    assert np.allclose((of_users @ of_items.T).numpy(), truncated(matrix, width), atol=1e-3)


def test_columns_are_sorted_orthonormal_and_zero_beyond_the_rank() -> None:
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(3000, 4)) @ generator.normal(size=(4, 60))
    of_users, of_items = nearest_embeddings(Dense(matrix), 6, 0)
    strength = of_users.norm(dim=0).numpy()
    assert np.all(np.diff(strength) <= 1e-3)
    assert np.allclose((of_items.T @ of_items).numpy()[:4, :4], np.eye(4), atol=1e-4)
    assert np.allclose((of_users @ of_items.T).numpy(), matrix, atol=1e-2)


def test_the_seed_decides_every_bit() -> None:
    matrix = np.random.default_rng(2).normal(size=(50, 90))
    first, again = (nearest_embeddings(Dense(matrix), 5, 3) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_scores_that_are_all_zero_make_zero_embeddings() -> None:
    of_users, of_items = nearest_embeddings(Dense(np.zeros((7, 9))), 3, 0)
    assert not of_users.any()
    assert torch.isfinite(of_items).all()


def test_standardised_rows() -> None:
    rows = standardised(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]))
    assert rows[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert rows[0].std(correction=0).item() == pytest.approx(1)
    assert not rows[1].any()


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1234.567])
def test_scores_that_are_all_equal_are_standardised_to_zero(value: float) -> None:
    assert not standardised(torch.full((3, 18_357), value)).any()


def test_blend_weighs_the_linear_teacher() -> None:
    student, linear = torch.tensor([[0.0, 10.0]]), torch.tensor([[1.0, -1.0]])
    assert blended(student, linear, torch.tensor([0.4])).tolist() == [[pytest.approx(-0.6), pytest.approx(0.6)]]


@pytest.mark.parametrize("focus", [0, 10])
def test_consolidation_finds_what_only_the_linear_teacher_knows(focus: int) -> None:
    """A student of noise beside pairs of items that are always bought together."""
    generator = np.random.default_rng(4)
    pairs = generator.integers(0, 20, size=(120, 3))
    bought = np.zeros((120, 40), np.float32)
    for user, chosen in enumerate(pairs):
        bought[user, chosen * 2] = bought[user, chosen * 2 + 1] = 1
    held_out = np.zeros_like(bought)
    for user in range(120):
        last = np.flatnonzero(bought[user])[-1]
        held_out[user, last], bought[user, last] = 1, 0
    holdout = Holdout(sp.csr_matrix(bought), sp.csr_matrix(held_out))
    noise = torch.from_numpy(generator.normal(size=(160, 8)).astype(np.float32))
    teacher = fit_linear_teacher(holdout.training, [], 0.0, 5.0, CPU)
    joined = consolidate(noise, teacher, holdout, 40, focus, 0)
    assert joined.shape == (160, 40)
    assert evaluate(joined, holdout)["ndcg@10"] > 1.5 * evaluate(noise, holdout)["ndcg@10"]
    student_scores, linear_scores = noise[:120] @ noise[120:].T, teacher.scores(np.arange(120))
    taken = bought.sum(axis=1)
    by_history = torch.from_numpy(np.sqrt(taken / taken.mean()))
    blends = [blended(student_scores, linear_scores, weight * by_history) for weight in BLEND_WEIGHTS]
    assert any(torch.allclose(joined[:120] @ joined[120:].T, blend, atol=1e-2) for blend in blends)


def test_only_a_whole_catalogue_with_not_too_many_users_is_decomposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consolidation, "MOST_PAIRS", 60)
    whole = LinearTeacher(sp.csr_matrix((20, 3)), sp.csr_matrix((3, 3)), np.arange(3), 3, torch.device("cpu"))
    part = LinearTeacher(sp.csr_matrix((20, 3)), sp.csr_matrix((3, 3)), np.array([0, 2, 3]), 4, torch.device("cpu"))
    assert can_decompose(whole, 20)
    assert not can_decompose(whole, 21)
    assert not can_decompose(part, 2)


def test_joined_parts_score_as_parts_of_the_standardised_scores() -> None:
    """With joined items that span all items nothing is lost, so that scores can be compared one by one."""
    generator = torch.Generator().manual_seed(0)
    parts = {name: torch.randn(9, 4, generator=generator) for name in ("id", "shared", "image")}
    parts["image"][3:] = 0
    student_items = torch.randn(7, 4, generator=generator)
    joined_items = torch.linalg.qr(torch.randn(7, 7, generator=generator)).Q
    joined = joined_parts(parts, student_items, joined_items)
    whole = standardised(sum(parts.values()) @ student_items.T)
    deviation = (sum(parts.values()) @ student_items.T).std(dim=1, correction=0, keepdim=True)
    assert torch.allclose(sum(joined.values()) @ joined_items.T, whole, atol=1e-4)
    for name, part in parts.items():
        scores = part @ student_items.T
        expected = (scores - scores.mean(dim=1, keepdim=True)) / deviation
        assert torch.allclose(joined[name] @ joined_items.T, expected, atol=1e-4)


def test_a_user_whose_scores_are_all_equal_has_joined_parts_of_zero() -> None:
    joined = joined_parts({"id": torch.zeros(2, 3)}, torch.randn(5, 3), torch.randn(5, 4))
    assert torch.equal(joined["id"], torch.zeros(2, 4))
