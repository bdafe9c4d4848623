"""The linear teacher: a fourth specialist, in closed form. It is off the paper's path.

It scores an item by a weighted sum over the items that a user already has, ``Y B``. B is the item-item regression
with a zero diagonal of EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019), with the
content's item graphs as additional rows of the data, in the manner of Jeunen et al. (RecSys 2020):

    min_B  ||Y' (I - B)||^2 + sum_m c_m ||(S_m + I) (I - B)||^2 + ridge ||B||^2,  diag(B) = 0

Y' is Y with users and items weighed down by powers of their degree. Graph convolution is a low-pass filter and
forgets which few items are bought together; this teacher remembers exactly that, and an item's own presence never
raises its own score. It has no embeddings and cannot be served as an inner product: the student learns its
rankings (``losses.rank_distillation``).

With ``G`` the sum of the Gram matrices, ``P = (G + ridge I)^-1`` and ``B_ij = -P_ij / P_jj``. P is never formed:
its columns are found by conjugate gradients, a block at a time, and only the largest entries are kept, so that
memory grows with the items, not with their square. Stopped at a residual of 1e-2 the columns rank better than solved
to 1e-4, for half the time (validation recall@20 on Amazon Baby 0.1017 against 0.0997, on Sports 0.1172 against
0.1157): stopping early is regularisation too. From 2.5e-2 on they rank worse.

Its cost is bounded, so that the whole training's grows with the interactions and no faster: it covers the
``MOST_ITEMS`` most popular items and learns from so many users, drawn at random, that they have ``MOST_INTERACTIONS``
with those. Of the other items it says nothing. Below both bounds nothing is left out.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.evaluation import chunks
from trainer.propagation import SparseRows, sparse_rows

USER_DEGREE_POWER = 0.25
ITEM_DEGREE_POWER = 0.1
KEPT_ENTRIES = 200
COLUMNS_PER_SOLVE = 256
RESIDUAL_TOLERANCE = 1e-2
MOST_ITERATIONS = 500
MOST_ITEMS = 20_000
MOST_INTERACTIONS = 1_000_000
SAMPLE_SEED = 0
ROUNDED = 8
"""A deviation of so many times what a mean is rounded by is none."""

Fraction = Callable[[float], None]


class LinearTeacher:
    """Rankings of ``Y B``, standardised for each user over the items that it covers.

    Attributes:
        items: (covered,) the items that it covers, rising.
        catalogue: how many items there are.
        device: that its scores are on.
    """

    def __init__(
        self,
        interactions: sp.csr_matrix,
        weights: sp.csr_matrix,
        items: NDArray[np.int64],
        catalogue: int,
        device: torch.device,
    ) -> None:
        """A teacher from its parts.

        Args:
            interactions: Y of the training split, (users, covered).
            weights: B, (covered, covered).
            items: (covered,) which items these are, rising.
            catalogue: how many items there are.
            device: to score on.
        """
        self._interactions = interactions
        self._weights = weights
        self.items = items
        self.catalogue = catalogue
        self.device = device
        self._of_items = None if device.type == "cpu" else sparse_rows(weights.T.tocsr(), device)

    def standardisation(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Each user's mean of ``Y B`` over the covered items and 1 / its standard deviation (0 for 0), (users,) each.

        ``scores(users)`` is ``(Y B - mean) * scale`` of these users.
        """
        users, items = self._interactions.shape
        mean, square = np.zeros(users), np.zeros(users)
        for chunk in chunks(np.arange(users), items):
            raw = self._interactions[chunk] @ self._weights
            mean[chunk] = np.asarray(raw.sum(axis=1), dtype=np.float64).ravel() / items
            square[chunk] = np.asarray(raw.power(2).sum(axis=1), dtype=np.float64).ravel() / items
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        rounding = ROUNDED * np.finfo(np.float32).eps * np.abs(mean)
        scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > rounding)
        return mean.astype(np.float32), scale.astype(np.float32)

    def factors(self) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """Y (users, covered) and B (covered, covered)."""
        return self._interactions, self._weights

    @property
    def covers_all(self) -> bool:
        """Whether it has a score for every item."""
        return len(self.items) == self.catalogue

    def scores(self, users: NDArray[np.int64]) -> Tensor:
        """(users, covered), each row with mean 0 and standard deviation 1; all zero for a user it knows nothing of."""
        return standardised(self._raw(self._interactions[users]))

    def scores_of_catalogue(self, users: NDArray[np.int64]) -> Tensor:
        """(users, items), -inf for items that it does not cover: it never recommends them."""
        covered = self.scores(users)
        if self.covers_all:
            return covered
        scores = covered.new_full((len(users), self.catalogue), -torch.inf)
        scores[:, torch.as_tensor(self.items, device=self.device)] = covered
        return scores

    def ranking(self, users: NDArray[np.int64], candidates: Tensor, temperature: float) -> Tensor:
        """Distribution over the candidates as in Eq. 16, (users, candidates).

        Args:
            users: indices of users.
            candidates: indices of items that it covers, on its device.
            temperature: in standard deviations of a user's scores.
        """
        places = torch.searchsorted(torch.as_tensor(self.items, device=self.device), candidates)
        return torch.softmax(self.scores(users).index_select(1, places) / temperature, dim=1)

    def _raw(self, taken: sp.csr_matrix) -> Tensor:
        """``taken @ B`` of some users' rows; on a CPU as a product of two sparse matrices, which a GPU is slow at."""
        if self._of_items is None:
            return torch.from_numpy((taken @ self._weights).toarray())
        return densely_multiplied(taken, self._of_items, self.device)


def densely_multiplied(rows: sp.csr_matrix, transposed: SparseRows, device: torch.device) -> Tensor:
    """``rows @ B`` by way of ``(B^T @ rows^T)^T``, with ``rows^T`` dense: (n, columns of B).

    Args:
        rows: (n, rows of B), few enough to be made dense.
        transposed: B^T.
        device: that it is on.
    """
    entries = rows.tocoo()
    row, column, value = (torch.as_tensor(each, device=device) for each in (entries.row, entries.col, entries.data))
    dense = torch.zeros(rows.shape[1], rows.shape[0], device=device)
    dense[column, row] = value
    return transposed.product(dense).T


def standardised(scores: Tensor) -> Tensor:
    """Rows (n, items) with mean 0 and standard deviation 1; zeros where all scores are equal."""
    mean = scores.mean(dim=1, keepdim=True)
    centred = scores - mean
    deviation = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / scores.shape[1] ** 0.5  # std_mean is slow
    rounding = ROUNDED * torch.finfo(scores.dtype).eps * mean.abs()
    return centred.mul_(torch.where(deviation > rounding, 1 / deviation, 0.0))


def fit_linear_teacher(
    interactions: sp.csr_matrix,
    item_graphs: Sequence[sp.csr_matrix],
    content: float,
    ridge: float,
    device: torch.device,
    progress: Fraction = lambda done: None,
) -> LinearTeacher:
    """Solve for B, over the items of ``covered_items`` and from the users of ``sampled_users``.

    Args:
        interactions: Y of the training split, (users, items).
        item_graphs: a symmetric normalised graph without loops for each modality, (items, items).
        content: weight of all graphs together, shared out by their lift.
        ridge: L2 weight.
        device: where to compute.
        progress: told the share of the columns that is done.
    """
    covered = covered_items(interactions)
    known = interactions[:, covered].astype(np.float32)
    sample = known[sampled_users(known)]
    graphs = [item_graph[covered][:, covered] for item_graph in item_graphs]
    users, items = (_relative_degree(sample, axis) for axis in (1, 0))
    weighed = _keep_energy(sp.diags(users**-USER_DEGREE_POWER) @ sample) @ sp.diags(items**-ITEM_DEGREE_POWER)
    rows = [weighed]
    lifts = [lift(sample, item_graph) for item_graph in graphs]
    for share, item_graph in zip(lifts, graphs, strict=True):
        if share > 0:
            weight = content * share / sum(lifts)
            rows.append(np.sqrt(weight) * (item_graph + sp.eye(len(items), dtype=np.float32)))
    weights = regression(sp.vstack(rows, format="csr", dtype=np.float32), ridge, device, progress)
    scaled = sp.diags(items**-ITEM_DEGREE_POWER) @ weights @ sp.diags(items**ITEM_DEGREE_POWER)
    return LinearTeacher(known, scaled.tocsr().astype(np.float32), covered, interactions.shape[1], device)


def covered_items(interactions: sp.csr_matrix) -> NDArray[np.int64]:
    """The ``MOST_ITEMS`` items with the most interactions, ties by the lower index, in rising order."""
    taken = np.bincount(interactions.indices, minlength=interactions.shape[1])
    return np.sort(np.argsort(-taken, kind="stable")[:MOST_ITEMS])


def sampled_users(interactions: sp.csr_matrix) -> NDArray[np.int64]:
    """As many users, in rising order, as have ``MOST_INTERACTIONS`` together, in a random order that never changes."""
    if interactions.nnz <= MOST_INTERACTIONS:
        return np.arange(interactions.shape[0])
    order = np.random.default_rng(SAMPLE_SEED).permutation(interactions.shape[0])
    reached = np.cumsum(np.diff(interactions.indptr)[order])
    return np.sort(order[: np.searchsorted(reached, MOST_INTERACTIONS, side="right")])


def lift(interactions: sp.csr_matrix, item_graph: sp.csr_matrix) -> float:
    """How many times more often than two items at large a graph's neighbours are taken together; 0 without edges.

    "How often" is the mean inner product of the items' columns of ``D_u^-1/2 Y D_i^-1/2``.
    """
    edges = item_graph.tocoo()
    users, items = (_relative_degree(interactions, axis) for axis in (1, 0))
    normalised = (sp.diags(users**-0.5) @ interactions @ sp.diags(items**-0.5)).tocsc()
    total = float(np.square(np.asarray(normalised.sum(axis=1))).sum() - normalised.power(2).sum())
    if edges.nnz == 0 or total <= 0:
        return 0.0
    pairs = len(items) * (len(items) - 1)
    return float(_co_occurrence(normalised, edges.row, edges.col).mean() / (total / pairs))


def regression(
    rows: sp.csr_matrix, ridge: float, device: torch.device, progress: Fraction = lambda done: None
) -> sp.csr_matrix:
    """EASE's B of data X (rows, items), each row of B cut to its ``KEPT_ENTRIES`` largest entries by magnitude.

    Args:
        rows: X.
        ridge: L2 weight.
        device: where to compute.
        progress: told the share of the columns that is done.
    """
    items = rows.shape[1]
    gram = _GramPlusRidge(rows, ridge, device)
    kept = min(KEPT_ENTRIES, items)
    columns = np.empty((items, kept), np.int64)
    values = np.empty((items, kept), np.float32)
    diagonal = np.empty(items, np.float32)
    for start in range(0, items, COLUMNS_PER_SOLVE):
        block = torch.arange(start, min(start + COLUMNS_PER_SOLVE, items), device=device)
        solved = gram.solve_columns(block)
        place = slice(start, start + len(block))
        diagonal[place] = solved[block, torch.arange(len(block), device=device)].cpu().numpy()
        solved[block, torch.arange(len(block), device=device)] = 0
        likely = (solved * gram.diagonal.unsqueeze(1)).abs()  # 1 / P_jj is close to G_jj + ridge
        best = likely.topk(kept, dim=0).indices
        columns[place] = best.T.cpu().numpy()
        values[place] = solved.gather(0, best).T.cpu().numpy()
        progress((start + len(block)) / items)
    values /= -diagonal[columns]
    offsets = np.arange(0, items * kept + 1, kept)
    return sp.csr_matrix((values.ravel(), columns.ravel(), offsets), shape=(items, items))


class _GramPlusRidge:
    """``X^T X + ridge I`` as an operator, with its diagonal."""

    def __init__(self, rows: sp.csr_matrix, ridge: float, device: torch.device) -> None:
        self._rows = sparse_rows(rows, device)
        self._columns = sparse_rows(rows.T.tocsr(), device)
        self._ridge = ridge
        energy = np.asarray(rows.power(2).sum(axis=0), dtype=np.float32).ravel()
        self.diagonal = torch.as_tensor(energy + ridge, device=device)

    def solve_columns(self, wanted: Tensor) -> Tensor:
        """Columns of the inverse, (items, wanted), by conjugate gradients preconditioned with the diagonal."""
        residual = torch.zeros(len(self.diagonal), len(wanted), device=wanted.device)
        residual[wanted, torch.arange(len(wanted), device=wanted.device)] = 1
        solution = torch.zeros_like(residual)
        inverse_diagonal = (1 / self.diagonal).unsqueeze(1)
        scaled = residual * inverse_diagonal
        direction = scaled.clone()
        energy = (residual * scaled).sum(dim=0)
        goal = RESIDUAL_TOLERANCE**2 * energy
        for _ in range(MOST_ITERATIONS):
            unsolved = energy > goal
            if not bool(unsolved.any()):
                break
            image = self._columns.product(self._rows.product(direction)).add_(direction, alpha=self._ridge)
            step = torch.where(unsolved, energy / (direction * image).sum(dim=0), 0.0)
            solution += step * direction
            residual -= step * image
            scaled = residual * inverse_diagonal
            previous, energy = energy, (residual * scaled).sum(dim=0)
            direction.mul_(torch.where(unsolved, energy / previous, 0.0)).add_(scaled)
        return solution


def _relative_degree(interactions: sp.csr_matrix, axis: int) -> NDArray[np.float32]:
    """Degrees over their mean; 1 for a user or item without interactions, whose weight nothing depends on."""
    degree = np.asarray(interactions.sum(axis=axis), dtype=np.float32).ravel()
    return np.where(degree > 0, degree / max(degree.mean(), np.finfo(np.float32).tiny), 1).astype(np.float32)


def _keep_energy(weighed: sp.csr_matrix) -> sp.csr_matrix:
    """Scale to a sum of squares equal to the number of interactions, so that ``ridge`` keeps its meaning."""
    energy = float(np.square(weighed.data).sum())
    return cast(sp.csr_matrix, weighed * (weighed.nnz / energy) ** 0.5 if energy > 0 else weighed)


def _co_occurrence(
    columns: sp.csc_matrix, first: NDArray[np.int32], second: NDArray[np.int32], pairs_per_block: int = 65536
) -> NDArray[np.float64]:
    """Inner products of pairs of columns."""
    blocks = [
        columns[:, first[start : start + pairs_per_block]]
        .multiply(columns[:, second[start : start + pairs_per_block]])
        .sum(axis=0)
        for start in range(0, len(first), pairs_per_block)
    ]
    return np.concatenate([np.asarray(block).ravel() for block in blocks])
