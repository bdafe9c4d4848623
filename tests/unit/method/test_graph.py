"""Eq. 4-7 and 13's incidence against dense formulas written out."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.index.exact import ExactIndex
from trainer import graph

binary = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0, 1]))


def dense_normalisation(matrix: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """sum by sum: entry / sqrt(row degree) / sqrt(column degree), 0 where a degree is 0."""
    result = np.zeros_like(matrix, dtype=np.float64)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if matrix[i, j]:
                result[i, j] = matrix[i, j] / np.sqrt(rows[i]) / np.sqrt(columns[j])
    return result


@given(binary)
def test_bipartite_graph_is_equation_4_and_5(interactions: np.ndarray) -> None:
    users, items = interactions.shape
    expected = np.zeros((users + items, users + items))
    expected[:users, users:] = interactions
    expected[users:, :users] = interactions.T
    degree = expected.sum(axis=1)

    adjacency = graph.bipartite_adjacency(sp.csr_matrix(interactions))
    assert np.array_equal(adjacency.toarray(), expected)
    normalised = graph.symmetric_normalisation(adjacency).toarray()
    assert np.allclose(normalised, dense_normalisation(expected, degree, degree), atol=1e-6)
    assert np.isfinite(normalised).all()


@given(binary, st.data())
def test_incidence_is_equation_13_over_existing_items(interactions: np.ndarray, data: st.DataObject) -> None:
    present = data.draw(hnp.arrays(np.bool_, interactions.shape[1]))
    observed = interactions * present
    expected = dense_normalisation(observed, observed.sum(axis=1), observed.sum(axis=0))
    incidence = graph.normalised_incidence(sp.csr_matrix(interactions), present)
    assert np.allclose(incidence.toarray(), expected, atol=1e-6)


def brute_force_cosines(features: np.ndarray) -> np.ndarray:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


def test_neighbours_are_the_nearest_by_cosine_itself_first() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    neighbours, cosines = graph.nearest_neighbours(features, np.ones(50, bool), 4)
    similarity = brute_force_cosines(features)
    np.fill_diagonal(similarity, 2)
    assert np.array_equal(neighbours, np.argsort(-similarity, axis=1)[:, :4])
    np.fill_diagonal(similarity, 1)
    assert np.allclose(cosines, np.take_along_axis(similarity, neighbours.astype(np.int64), 1), atol=1e-5)


def test_identical_items_do_not_push_an_item_out_of_its_own_list() -> None:
    neighbours, _ = graph.nearest_neighbours(np.ones((9, 3), np.float32), np.ones(9, bool), 2)
    assert np.array_equal(neighbours[:, 0], np.arange(9))
    assert (neighbours[:, 1] != np.arange(9)).all()


def test_search_in_blocks_equals_one_search(monkeypatch) -> None:
    features = np.random.default_rng(1).normal(size=(33, 5)).astype(np.float32)
    whole = graph.nearest_neighbours(features, np.ones(33, bool), 6)
    monkeypatch.setattr(graph, "KNN_ROWS_PER_SEARCH", 7)
    blocks = graph.nearest_neighbours(features, np.ones(33, bool), 6)
    assert np.array_equal(whole[0], blocks[0])


def test_an_index_made_before_changes_no_bit() -> None:
    """It has faiss multiply matrices for few queries, which rounds otherwise."""
    features = np.random.default_rng(3).normal(size=(300, 96)).astype(np.float32)
    _, before = graph.nearest_neighbours(features, np.ones(300, bool), 6)
    lowered = ExactIndex(features)
    _, after = graph.nearest_neighbours(features, np.ones(300, bool), 6)
    assert len(lowered) == 300
    assert np.array_equal(before, after)


def test_items_without_the_modality_have_no_neighbours_and_are_nobodys() -> None:
    features = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    present = np.array([True, False, True, True, False, True])
    neighbours, _ = graph.nearest_neighbours(features, present, 3)
    assert (neighbours[~present] == -1).all()
    assert not np.isin(neighbours, np.flatnonzero(~present)).any()
    assert (neighbours[present] >= 0).all()


def test_fewer_items_than_neighbours_leaves_the_rest_empty() -> None:
    neighbours, _ = graph.nearest_neighbours(np.eye(2, dtype=np.float32), np.ones(2, bool), 5)
    assert np.array_equal(neighbours, [[0, 1, -1, -1, -1], [1, 0, -1, -1, -1]])


def test_item_graph_is_equation_7_with_row_degrees() -> None:
    neighbours = np.array([[0, 1, 2], [1, 0, -1], [2, 3, 1], [-1, -1, -1]], dtype=np.int32)
    adjacency = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=np.float64)
    degree = adjacency.sum(axis=1)
    factor = np.divide(1, np.sqrt(degree), out=np.zeros(4), where=degree > 0)
    normalised = graph.item_graph(neighbours, None, self_neighbour=True).toarray()
    assert np.allclose(normalised, factor[:, None] * adjacency * factor[None, :])


def test_item_graph_without_self_and_with_cosines() -> None:
    neighbours = np.array([[0, 1], [1, 0]], dtype=np.int32)
    cosines = np.array([[1.0, 0.25], [1.0, 0.25]], dtype=np.float32)
    assert np.allclose(graph.item_graph(neighbours, cosines, self_neighbour=False).toarray(), [[0, 1], [1, 0]])
    with_self = np.array([[1.0, 0.25], [0.25, 1.0]]) / 1.25
    assert np.allclose(graph.item_graph(neighbours, cosines, self_neighbour=True).toarray(), with_self)


def test_dropped_edges_are_a_subset_of_the_right_size_and_favour_rare_nodes() -> None:
    generator = np.random.default_rng(3)
    interactions = sp.random(80, 60, density=0.3, random_state=4, format="csr", dtype=np.float32)
    interactions.data[:] = 1
    interactions = sp.vstack([interactions, sp.csr_matrix(([1.0], ([0], [0])), shape=(1, 60))]).tocsr()
    survived = 0
    for _ in range(200):
        kept = graph.drop_edges(interactions, 0.8, generator)
        assert kept.nnz == round(interactions.nnz * 0.2)
        assert (kept > interactions).nnz == 0
        survived += kept[80, 0] > 0
    assert survived / 200 > 0.5  # the one edge of a user of degree 1; a uniform draw would keep it 20% of the time
