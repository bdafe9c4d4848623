"""The linear teacher against dense linear algebra and loops."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer import linear_teacher
from trainer.graph import undirected_item_graph
from trainer.linear_teacher import (
    LinearTeacher,
    covered_items,
    densely_multiplied,
    fit_linear_teacher,
    lift,
    regression,
    sampled_users,
)
from trainer.propagation import BagRows, SparseRows, TorchSparseRows

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _solved_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_teacher, "RESIDUAL_TOLERANCE", 1e-4)


def random_matrix(rows: int, columns: int, seed: int, density: float = 0.3) -> sp.csr_matrix:
    generator = np.random.default_rng(seed)
    return sp.csr_matrix((generator.random((rows, columns)) < density).astype(np.float32))


def ease(rows: np.ndarray, ridge: float) -> np.ndarray:
    """Column by column: ridge regression of each item on all others, which is what the zero diagonal means."""
    items = rows.shape[1]
    weights = np.zeros((items, items))
    for item in range(items):
        others = np.delete(np.arange(items), item)
        design = rows[:, others]
        system = design.T @ design + ridge * np.eye(items - 1)
        weights[others, item] = np.linalg.solve(system, design.T @ rows[:, item])
    return weights


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 30), st.integers(2, 25), st.integers(0, 1000), st.sampled_from([0.5, 5.0, 100.0]))
def test_regression_is_a_ridge_regression_of_each_item_on_the_others(
    rows: int, items: int, seed: int, ridge: float
) -> None:
    data = random_matrix(rows, items, seed)
    found = regression(data, ridge, CPU).toarray()
    assert np.allclose(found, ease(data.toarray().astype(float), ridge), atol=2e-3)
    assert np.all(np.diag(found) == 0)


def test_blocks_of_columns_and_kept_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_matrix(40, 17, 3)
    whole = regression(data, 5.0, CPU).toarray()
    monkeypatch.setattr(linear_teacher, "COLUMNS_PER_SOLVE", 5)
    told: list[float] = []
    assert np.allclose(regression(data, 5.0, CPU, told.append).toarray(), whole, atol=1e-4)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 4
    monkeypatch.setattr(linear_teacher, "KEPT_ENTRIES", 6)
    cut = regression(data, 5.0, CPU).toarray()
    kept = cut != 0
    assert np.all(kept.sum(axis=1) <= 6)
    assert np.allclose(cut[kept], whole[kept], atol=1e-4)
    largest = np.sort(np.abs(whole), axis=1)[:, ::-1][:, :6].sum(axis=1)
    assert np.all(np.abs(cut).sum(axis=1) > 0.95 * largest)


def test_content_and_degree_weights_enter_the_regression() -> None:
    interactions = random_matrix(30, 9, 5)
    item_graph = undirected_item_graph(np.array([[i, (i + 1) % 9] for i in range(9)], np.int32), None)
    content, ridge = 4.0, 3.0
    teacher = fit_linear_teacher(interactions, [item_graph], content, ridge, CPU)

    y = interactions.toarray().astype(float)
    of_users, of_items = y.sum(axis=1), y.sum(axis=0)
    weighed = y * (np.maximum(of_users, 1) / of_users.mean())[:, None] ** -0.25
    weighed *= np.sqrt(y.sum() / np.square(weighed).sum())
    scale = (of_items / of_items.mean()) ** -0.1
    data = np.concatenate([weighed * scale, np.sqrt(content) * (item_graph.toarray() + np.eye(9))])
    weights = scale[:, None] * ease(data, ridge) / scale
    raw = y @ weights
    raw = raw[of_users > 0]
    expected = (raw - raw.mean(axis=1, keepdims=True)) / raw.std(axis=1, keepdims=True)
    assert np.allclose(teacher.scores(np.flatnonzero(of_users)), expected, atol=5e-3)


def test_graphs_share_the_content_weight_by_their_lift() -> None:
    """A graph whose neighbours are never taken together has no say beside one whose neighbours are."""
    interactions = sp.csr_matrix(np.repeat(np.eye(4, dtype=np.float32), 2, axis=1).repeat(5, axis=0))
    together = undirected_item_graph(np.array([[i ^ 1] for i in range(8)], np.int32), None)
    apart = undirected_item_graph(np.array([[(i + 2) % 8] for i in range(8)], np.int32), None)
    assert lift(interactions, apart) == 0
    alone = fit_linear_teacher(interactions, [together], 5.0, 2.0, CPU)
    both = fit_linear_teacher(interactions, [together, apart], 5.0, 2.0, CPU)
    assert np.array_equal(alone.scores(np.arange(20)), both.scores(np.arange(20)))


def test_lift_against_a_loop() -> None:
    interactions = random_matrix(25, 8, 9)
    item_graph = undirected_item_graph(np.array([[(i + 3) % 8, (i + 1) % 8] for i in range(8)], np.int32), None)
    y = interactions.toarray().astype(float)
    normalised = y / np.sqrt(np.maximum(y.sum(axis=1, keepdims=True), 1)) / np.sqrt(y.sum(axis=0))
    together = normalised.T @ normalised
    joined = [together[i, j] for i in range(8) for j in range(8) if item_graph[i, j] > 0]
    at_large = [together[i, j] for i in range(8) for j in range(8) if i != j]
    assert lift(interactions, item_graph) == pytest.approx(np.mean(joined) / np.mean(at_large), rel=1e-4)


def test_ranking_is_a_softmax_of_standardised_scores_over_the_candidates() -> None:
    interactions = random_matrix(6, 10, 2)
    teacher = fit_linear_teacher(interactions, [], 0.0, 1.0, CPU)
    candidates = torch.tensor([7, 0, 3])
    scores = teacher.scores(np.array([4, 1]))[:, candidates].numpy() / 2.0
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert np.allclose(teacher.ranking(np.array([4, 1]), candidates, 2.0), expected, atol=1e-6)


def test_a_user_it_knows_nothing_of_gets_a_uniform_ranking() -> None:
    nothing, none = sp.csr_matrix((2, 4), dtype=np.float32), sp.csr_matrix((4, 4), dtype=np.float32)
    teacher = LinearTeacher(nothing, none, np.arange(4), 4, torch.device("cpu"))
    assert np.array_equal(teacher.scores(np.array([1])), np.zeros((1, 4), np.float32))
    assert np.allclose(teacher.ranking(np.array([1]), torch.arange(4), 2.0), 0.25)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (4, 6)])
def test_isolated_users_and_items_make_no_nan(shape: tuple[int, int]) -> None:
    interactions = np.zeros(shape, np.float32)
    interactions[0, 1:2] = 1
    lonely = undirected_item_graph(np.full((shape[1], 3), -1, np.int32), None)
    teacher = fit_linear_teacher(sp.csr_matrix(interactions), [lonely], 13.0, 400.0, CPU)
    assert teacher.scores(np.arange(shape[0])).isfinite().all()


def test_undirected_item_graph_joins_neighbours_of_either_side_by_cosine() -> None:
    neighbours = np.array([[0, 1], [1, 2], [2, -1]], np.int32)
    cosines = np.array([[1, 0.5], [1, -0.2], [1, 0]], np.float32)
    assert np.allclose(undirected_item_graph(neighbours, cosines).toarray(), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    unweighted = undirected_item_graph(neighbours, None).toarray()
    half = 0.5**0.5
    assert np.allclose(unweighted, [[0, half, 0], [half, 0, half], [0, half, 0]])


def test_the_most_taken_items_are_covered_and_of_equals_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_teacher, "MOST_ITEMS", 3)
    taken = np.zeros((4, 6), np.float32)
    for item, times in enumerate([1, 2, 0, 4, 2, 2]):
        taken[:times, item] = 1
    assert covered_items(sp.csr_matrix(taken)).tolist() == [1, 3, 4]


@pytest.mark.parametrize("kind", [BagRows, TorchSparseRows])
def test_a_gpus_product_is_that_of_the_sparse_matrices(kind: Callable[..., SparseRows]) -> None:
    rows, weights = random_matrix(5, 12, 6), sp.csr_matrix(random_matrix(12, 12, 7) * 0.3)
    product = densely_multiplied(rows, kind(weights.T.tocsr(), CPU), CPU)
    assert np.allclose(product, (rows @ weights).toarray(), atol=1e-6)


def test_a_large_catalogue_is_learnt_from_its_covered_items_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_matrix(40, 12, 6)
    item_graph = undirected_item_graph(np.array([[(i + 5) % 12] for i in range(12)], np.int32), None)
    monkeypatch.setattr(linear_teacher, "MOST_ITEMS", 7)
    covered = covered_items(interactions)
    small = (interactions[:, covered], item_graph[covered][:, covered])
    teacher = fit_linear_teacher(interactions, [item_graph], 4.0, 3.0, CPU)
    alone = fit_linear_teacher(small[0], [small[1]], 4.0, 3.0, CPU)
    users = np.arange(40)
    assert alone.covers_all
    assert not teacher.covers_all
    assert np.array_equal(teacher.items, covered)
    assert np.array_equal(teacher.scores(users), alone.scores(users))
    of_catalogue = teacher.scores_of_catalogue(users)
    assert np.array_equal(of_catalogue[:, covered], alone.scores(users))
    assert np.all(np.isneginf(np.delete(of_catalogue.numpy(), covered, axis=1)))
    candidates = torch.from_numpy(covered[[4, 0, 6]])
    assert torch.equal(teacher.ranking(users, candidates, 2.0), alone.ranking(users, torch.tensor([4, 0, 6]), 2.0))


def test_many_interactions_are_learnt_from_a_sample_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = random_matrix(300, 9, 7)
    assert np.array_equal(sampled_users(interactions), np.arange(300))
    monkeypatch.setattr(linear_teacher, "MOST_INTERACTIONS", 200)
    sample = sampled_users(interactions)
    largest = np.diff(interactions.indptr).max()
    assert 200 - largest < interactions[sample].nnz <= 200
    assert np.all(np.diff(sample) > 0)
    assert sample.min() < 100  # not simply the last or the first ones
    assert sample.max() > 200
    assert np.array_equal(sampled_users(interactions), sample)
    teacher = fit_linear_teacher(interactions, [], 0.0, 3.0, CPU)
    of_sample = fit_linear_teacher(interactions[sample], [], 0.0, 3.0, CPU)
    assert np.array_equal(teacher.scores(sample), of_sample.scores(np.arange(len(sample))))
    others = np.setdiff1d(np.arange(300), sample)
    known = others[np.diff(interactions.indptr)[others] > 0]
    assert teacher.scores(known).any(dim=1).all()
