"""Users folded in from their items."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import fold_in

WIDTH = 6


def shop(users: int, items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item embeddings, and training interactions as CSR rows of one to five items."""
    generator = np.random.default_rng(seed)
    rows = [np.sort(generator.permutation(items)[: generator.integers(1, 6)]) for _ in range(users)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    embeddings = generator.normal(size=(items, WIDTH)).astype(np.float32)
    return embeddings, indptr, np.concatenate(rows).astype(np.int32)


def profile_by_hand(history: np.ndarray, embeddings: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    total = np.zeros(WIDTH)
    for item in history:
        total += embeddings[item] / max(popularity[item], 1) ** 0.25
    return total / len(history) ** 0.5


def test_a_profile_is_the_weighed_and_normalised_sum() -> None:
    embeddings, _, indices = shop(30, 12)
    popularity = np.bincount(indices, minlength=12)
    popularity[4] = 0
    weights = fold_in.item_weights(popularity)
    for history in ([3], [4, 0], [1, 2, 5, 11]):
        expected = profile_by_hand(np.array(history), embeddings, popularity)
        assert np.allclose(fold_in.profile(np.array(history), embeddings, weights), expected, atol=1e-5)


@given(st.integers(0, 50))
def test_embeddings_that_are_linear_in_the_profiles_come_back(seed: int) -> None:
    embeddings, indptr, indices = shop(400, 20, seed)
    popularity = np.bincount(indices, minlength=20)
    truth = np.random.default_rng(seed + 1).normal(size=(WIDTH, WIDTH))
    profiles = [profile_by_hand(indices[indptr[u] : indptr[u + 1]], embeddings, popularity) for u in range(400)]
    users = (np.array(profiles) @ truth).astype(np.float32)
    found = np.array(profiles) @ fold_in.fit_map(users, embeddings, indptr, indices)
    assert np.corrcoef(found.ravel(), users.ravel())[0, 1] > 0.99


def test_the_matrix_is_the_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_in, "USERS_PER_BLOCK", 7)
    embeddings, indptr, indices = shop(50, 20)
    users = np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
    popularity = np.bincount(indices, minlength=20)
    x = np.array([profile_by_hand(indices[indptr[u] : indptr[u + 1]], embeddings, popularity) for u in range(50)])
    ridge = 0.1 * np.trace(x.T @ x) / WIDTH
    rows = np.concatenate([x, np.sqrt(ridge) * np.eye(WIDTH)])
    expected = np.linalg.lstsq(rows, np.concatenate([users, np.zeros((WIDTH, WIDTH))]), rcond=None)[0]
    assert np.allclose(fold_in.fit_map(users, embeddings, indptr, indices), expected, atol=1e-4)


def test_it_learns_from_a_bounded_number_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_in, "MOST_USERS", 10)
    embeddings, indptr, indices = shop(25, 20)
    users = np.random.default_rng(1).normal(size=(25, WIDTH)).astype(np.float32)
    changed = users.copy()
    changed[1::3] = 9  # every third user is learned from, these are not
    first, second = (fold_in.fit_map(table, embeddings, indptr, indices) for table in (users, changed))
    assert np.array_equal(first, second)


def test_without_interactions_or_without_length_there_is_nothing_to_learn() -> None:
    embeddings, _, _ = shop(3, 20)
    nobody = fold_in.fit_map(np.ones((3, WIDTH), np.float32), embeddings, np.zeros(4, np.int64), np.empty(0, np.int32))
    assert np.array_equal(nobody, np.zeros((WIDTH, WIDTH)))
