"""The fit that counts the best items more, against dense least squares."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from trainer import focus
from trainer.consolidation import blended, nearest_embeddings
from trainer.focus import ELSEWHERE, Entries, best_entries, focused
from trainer.joined_scores import JoinedScores
from trainer.linear_teacher import LinearTeacher, fit_linear_teacher

CPU = torch.device("cpu")
USERS, ITEMS = 70, 30
WEIGHTS = torch.linspace(0.2, 0.9, USERS)


@pytest.fixture(scope="module")
def student() -> torch.Tensor:
    return torch.randn(USERS + ITEMS, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def linear() -> LinearTeacher:
    taken = np.random.default_rng(2).random((USERS, ITEMS)) < 0.2
    taken[3] = False
    return fit_linear_teacher(sp.csr_matrix(taken.astype(np.float32)), [], 0.0, 5.0, CPU)


@pytest.fixture(scope="module")
def dense(student: torch.Tensor, linear: LinearTeacher) -> torch.Tensor:
    scores = linear.scores(np.arange(USERS))
    return blended(student[:USERS] @ student[USERS:].T, scores, WEIGHTS)


def weighted_error(dense: torch.Tensor, product: torch.Tensor, count: int) -> float:
    rank = dense.argsort(dim=1, descending=True).argsort(dim=1)
    weights = torch.where(rank < count, 1.0, ELSEWHERE)
    return float((weights * (dense - product).square()).sum())


def test_joined_scores_multiply_like_the_matrix_of_both(
    student: torch.Tensor, linear: LinearTeacher, dense: torch.Tensor
) -> None:
    joined = JoinedScores(student, linear, WEIGHTS)
    of_items, of_users = torch.randn(ITEMS, 5), torch.randn(USERS, 5)
    assert torch.allclose(joined.times(of_items), dense @ of_items, atol=1e-3)
    assert torch.allclose(joined.transposed_times(of_users), dense.T @ of_users, atol=1e-3)


def test_entries_by_column_are_the_transposed_matrix() -> None:
    matrix = sp.random(9, 14, density=0.3, format="csr", random_state=0, dtype=np.float32)
    by_row = Entries(
        *(
            torch.from_numpy(part.astype(kind))
            for part, kind in zip(
                (matrix.indptr, matrix.indices, matrix.data), (np.int64, np.int64, np.float32), strict=True
            )
        )
    )
    by_column = by_row.transposed(14)
    rebuilt = sp.csr_matrix((by_column.values, by_column.columns, by_column.offsets), shape=(14, 9))
    assert np.array_equal(rebuilt.toarray(), matrix.toarray().T)


def test_blocks_hold_every_entry_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus, "NUMBERS_PER_BLOCK", 40)
    matrix = sp.random(25, 14, density=0.3, format="csr", random_state=3, dtype=np.float32)
    entries = Entries(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data),
    )
    rebuilt, seen = np.zeros((25, 14), np.float32), []
    for rows, columns, values, real in entries.blocks(4):
        seen += rows.tolist()
        assert len(rows) == 1 or columns.numel() * 4 <= 40
        for row, places, numbers, mask in zip(rows, columns, values, real, strict=True):
            rebuilt[row, places[mask]] += numbers[mask].numpy()
    assert sorted(seen) == list(range(25))
    assert np.array_equal(rebuilt, matrix.toarray())


def test_best_entries_are_each_users_highest_scores(dense: torch.Tensor) -> None:
    best = best_entries(lambda users: dense[torch.from_numpy(users)], (USERS, ITEMS), 4, CPU)
    expected = torch.sort(dense, dim=1, descending=True)
    assert torch.equal(best.columns.reshape(USERS, 4), expected.indices[:, :4])
    assert torch.equal(best.values.reshape(USERS, 4), expected.values[:, :4])


def test_focused_tables_are_close_to_the_least_weighted_error(
    monkeypatch: pytest.MonkeyPatch, student: torch.Tensor, linear: LinearTeacher, dense: torch.Tensor
) -> None:
    """Compared with gradient descent on the dense objective, from the same start."""
    monkeypatch.setattr(focus, "SWEEPS", 60)
    scores = lambda users: dense[torch.from_numpy(users)]  # noqa: E731
    start = nearest_embeddings(JoinedScores(student, linear, WEIGHTS), 5, 0)
    tables = focused(JoinedScores(student, linear, WEIGHTS), best_entries(scores, (USERS, ITEMS), 6, CPU), *start)
    rank = dense.argsort(dim=1, descending=True).argsort(dim=1)
    weights = torch.where(rank < 6, 1.0, ELSEWHERE)
    free = [table.clone().requires_grad_() for table in start]
    optimiser = torch.optim.LBFGS(free, max_iter=600, tolerance_change=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        error = (weights * (dense - free[0] @ free[1].T).square()).sum()
        error.backward()
        return error

    optimiser.step(loss)
    best = float(loss().detach())
    reached = weighted_error(dense, tables[0] @ tables[1].T, 6)
    assert reached < weighted_error(dense, start[0] @ start[1].T, 6)
    assert reached <= 1.05 * best


def test_a_few_sweeps_already_help_and_leave_orthonormal_sorted_columns(
    student: torch.Tensor, linear: LinearTeacher, dense: torch.Tensor
) -> None:
    scores = lambda users: dense[torch.from_numpy(users)]  # noqa: E731
    start = nearest_embeddings(JoinedScores(student, linear, WEIGHTS), 8, 0)
    of_users, of_items = focused(
        JoinedScores(student, linear, WEIGHTS), best_entries(scores, (USERS, ITEMS), 5, CPU), *start
    )
    assert weighted_error(dense, of_users @ of_items.T, 5) < 0.8 * weighted_error(dense, start[0] @ start[1].T, 5)
    assert torch.allclose(of_items.T @ of_items, torch.eye(8), atol=1e-4)
    assert bool((of_users.norm(dim=0).diff() <= 1e-4).all())


def test_when_all_items_are_best_the_decomposition_is_already_nearest(
    student: torch.Tensor, linear: LinearTeacher, dense: torch.Tensor
) -> None:
    scores = lambda users: dense[torch.from_numpy(users)]  # noqa: E731
    start = nearest_embeddings(JoinedScores(student, linear, WEIGHTS), 5, 0)
    every = best_entries(scores, (USERS, ITEMS), ITEMS, CPU)
    of_users, of_items = focused(JoinedScores(student, linear, WEIGHTS), every, *start)
    assert torch.allclose(of_users @ of_items.T, start[0] @ start[1].T, atol=2e-2)


def test_embeddings_wider_than_the_rank_stay_finite(
    student: torch.Tensor, linear: LinearTeacher, dense: torch.Tensor
) -> None:
    scores = lambda users: dense[torch.from_numpy(users)]  # noqa: E731
    nearest = nearest_embeddings(JoinedScores(student, linear, WEIGHTS), 30, 0)
    start = tuple(torch.nn.functional.pad(table, (0, 10)) for table in nearest)
    of_users, of_items = focused(
        JoinedScores(student, linear, WEIGHTS), best_entries(scores, (USERS, ITEMS), 5, CPU), *start
    )
    assert (of_users.shape, of_items.shape) == ((USERS, 40), (ITEMS, 40))
    assert torch.allclose(of_users @ of_items.T, dense, atol=2e-2)
