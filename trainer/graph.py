"""The graphs, Eq. 4-7, and the user-item incidence of Eq. 13, as scipy matrices.

Knows ids, edges and degrees; knows nothing of torch or of learning. A user or item without edges keeps an
all-zero row: a degree of zero becomes a factor of zero, never a division by it.
"""

from typing import cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from trainer.exact_search import ExactSearch

KNN_ROWS_PER_SEARCH = 4096


def bipartite_adjacency(interactions: sp.csr_matrix) -> sp.csr_matrix:
    """Eq. 4: ``[[0, Y], [Y^T, 0]]`` of shape (users + items, users + items) from Y (users, items)."""
    return cast(sp.csr_matrix, sp.bmat([[None, interactions], [interactions.T, None]], format="csr"))


def symmetric_normalisation(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """Eq. 5 and 7: ``D^-1/2 A D^-1/2`` with D the row sums of the square matrix A.

    A kNN graph is directed. As Eq. 7 has one degree matrix, its row sums serve on both sides.
    """
    factor = _inverse_square_root(_row_sums(adjacency))
    return _scale(adjacency, factor, factor)


def normalised_incidence(interactions: sp.csr_matrix, present: NDArray[np.bool_] | None = None) -> sp.csr_matrix:
    """Eq. 13's ``D_u^-1/2 Y D_i^-1/2``, (users, items).

    ``present`` (items,) restricts Y to the items that have a modality: a user's degree then counts only
    those, so that a user's view averages over what exists instead of over zeros.
    """
    observed = interactions
    if present is not None and not present.all():
        observed = (interactions @ sp.diags(present.astype(np.float32))).tocsr()
        observed.eliminate_zeros()
    users = _inverse_square_root(_row_sums(observed))
    items = _inverse_square_root(_row_sums(observed.T.tocsr()))
    return _scale(observed, users, items)


def nearest_neighbours(
    features: NDArray[np.float32],
    present: NDArray[np.bool_],
    count: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Eq. 6: the exact ``count`` nearest items by cosine, the item itself first.

    Args:
        features: (items, d_m).
        present: (items,) which items have the modality; the others get no neighbours and are nobody's.
        count: neighbours an item, itself included.

    Returns:
        Neighbours (items, count), -1 where there are fewer, and their cosines (items, count). Only blocks of
        ``KNN_ROWS_PER_SEARCH`` rows are ever compared at once, never items x items.
    """
    rows = np.flatnonzero(present)
    unit = np.ascontiguousarray(features[rows], dtype=np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    search = ExactSearch(unit)
    neighbours = np.full((len(present), count), -1, dtype=np.int32)
    cosines = np.zeros((len(present), count), dtype=np.float32)
    others = min(count, len(rows))
    for start in range(0, len(rows), KNN_ROWS_PER_SEARCH):
        block = np.arange(start, min(start + KNN_ROWS_PER_SEARCH, len(rows)))
        similarity, found = search.nearest(unit[block], others)
        similarity, found = _item_itself_first(block, similarity, found)
        neighbours[rows[block], :others] = rows[found]
        cosines[rows[block], :others] = similarity
    return neighbours, cosines


def item_graph(
    neighbours: NDArray[np.int32],
    cosines: NDArray[np.float32] | None,
    *,
    self_neighbour: bool,
) -> sp.csr_matrix:
    """Eq. 6-7: the normalised kNN graph (items, items) of neighbour lists (items, k), -1 meaning none.

    Args:
        neighbours: nearest items of each item, itself possibly among them.
        cosines: edge weights (items, k), or None for the paper's weight of 1. Negative ones count as 0.
        self_neighbour: whether an item stays its own neighbour.
    """
    return symmetric_normalisation(_neighbour_matrix(neighbours, cosines, self_neighbour=self_neighbour))


def undirected_item_graph(neighbours: NDArray[np.int32], cosines: NDArray[np.float32] | None) -> sp.csr_matrix:
    """Neighbour lists as a symmetric graph without loops, normalised like Eq. 7, (items, items).

    Two items are joined if either is the other's neighbour, by their cosine where it is known. Not the paper's:
    the linear teacher's view of the content.

    Args:
        neighbours: nearest items of each item (items, k), -1 meaning none.
        cosines: the same pairs' cosines, or None for weight 1. Negative ones count as 0.
    """
    directed = _neighbour_matrix(neighbours, cosines, self_neighbour=False)
    return symmetric_normalisation(directed.maximum(directed.T).tocsr())


def drop_edges(interactions: sp.csr_matrix, share: float, generator: np.random.Generator) -> sp.csr_matrix:
    """Keep ``1 - share`` of the interactions, drawn without replacement with odds 1 / sqrt(d_u d_i).

    Edges between popular nodes go first (degree-sensitive edge pruning of FREEDOM, Zhou and Shen 2023).
    """
    kept = round(interactions.nnz * (1 - share))
    edges = interactions.tocoo()
    user_degree = _row_sums(interactions)
    item_degree = _row_sums(interactions.T.tocsr())
    odds = 1 / np.sqrt(user_degree[edges.row] * item_degree[edges.col])
    arrival = generator.exponential(size=interactions.nnz) / odds
    first = np.argpartition(arrival, kept)[:kept] if kept < interactions.nnz else slice(None)
    return sp.csr_matrix((edges.data[first], (edges.row[first], edges.col[first])), shape=interactions.shape)


def _neighbour_matrix(
    neighbours: NDArray[np.int32], cosines: NDArray[np.float32] | None, *, self_neighbour: bool
) -> sp.csr_matrix:
    items, count = neighbours.shape
    row = np.repeat(np.arange(items), count)
    column = neighbours.ravel()
    weight = np.ones(len(row), np.float32) if cosines is None else np.maximum(cosines.ravel(), 0)
    keep = column >= 0
    if not self_neighbour:
        keep &= column != row
    adjacency = sp.csr_matrix((weight[keep].astype(np.float32), (row[keep], column[keep])), shape=(items, items))
    adjacency.eliminate_zeros()
    return adjacency


def _item_itself_first(
    own: NDArray[np.int64], similarity: NDArray[np.float32], found: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Move each row's own index to the front: among identical items the search may rank it anywhere, or out."""
    is_self = found == own[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    order = np.argsort(~is_self, axis=1, kind="stable")
    found = np.take_along_axis(found, order, axis=1)
    similarity = np.take_along_axis(similarity, order, axis=1)
    found[:, 0] = own
    similarity[:, 0] = 1.0
    return similarity, found


def _row_sums(matrix: sp.csr_matrix) -> NDArray[np.float32]:
    return np.asarray(matrix.sum(axis=1), dtype=np.float32).ravel()


def _inverse_square_root(degree: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)


def _scale(matrix: sp.csr_matrix, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> sp.csr_matrix:
    scaled = (sp.diags(rows) @ matrix @ sp.diags(columns)).tocsr().astype(np.float32)
    scaled.sort_indices()
    return cast(sp.csr_matrix, scaled)
