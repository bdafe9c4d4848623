"""Rankings, and the exact scores that they are made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FEW = 1_000
"""Up to so many are looked up in a set, which takes less than the calls of numpy do."""
_ROWS_PER_BLOCK = 65_536
_MOST_TOGETHER = 4_096
"""Embeddings to be scored in one piece, which fit a processor's cache."""


class Ranking(NamedTuple):
    """Items best first: ``items`` int64 [n], ``scores`` float64 [n]."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]

    def first(self, count: int) -> "Ranking":
        """The ``count`` best of it, or all if it has fewer."""
        return Ranking(self.items[:count], self.scores[:count])


class Asked(NamedTuple):
    """Who is to be ranked for whom: a query, float32 [width], ``k`` items at most, and indices of those left out."""

    query: NDArray[np.float32]
    k: int
    excluded: NDArray[np.integer]


NOTHING = Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
"""The ranking of no items."""


def ranked(embeddings: NDArray[np.float32], query: NDArray[np.float32], items: NDArray[np.int64]) -> Ranking:
    """Rank some items by their inner product with a query in float64, equal scores by rising item index.

    Args:
        embeddings: float32 [all items, width].
        query: float32 [width].
        items: int64 [n], each once.
    """
    # A sum along each row, unlike a matrix product, adds the terms of every row in the same order.
    scores: NDArray[np.float64] = (embeddings[items] * query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((items, -scores))
    return Ranking(items[order], scores[order])


def ranked_each(
    embeddings: NDArray[np.float32],
    queries: NDArray[np.float32],
    items: NDArray[np.int64],
    excluded: Sequence[NDArray[np.integer]],
) -> list[Ranking]:
    """As :func:`ranked`, for several queries, and without what each of them excludes.

    Args:
        embeddings: float32 [all items, width].
        queries: float32 [n, width].
        items: int64 [n, m], each once in its row.
        excluded: n arrays of items, in any order.
    """
    if items.size > _MOST_TOGETHER:
        return [
            ranked(embeddings, query, without(row, gone))
            for query, row, gone in zip(queries, items, excluded, strict=True)
        ]
    scores = (embeddings[items] * queries.astype(np.float64)[:, None]).sum(axis=2)
    order = np.lexsort((items, -scores))
    best, scores = np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return [_kept(Ranking(*each), gone) for *each, gone in zip(best, scores, excluded, strict=True)]


def _kept(ranking: Ranking, excluded: NDArray[np.integer]) -> Ranking:
    gone = set(excluded.tolist())
    kept = [place for place, item in enumerate(ranking.items.tolist()) if item not in gone]
    return Ranking(ranking.items[kept], ranking.scores[kept])


def narrowed(
    items: int, excluded: NDArray[np.integer], allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[np.integer], int]:
    """What a search among ``allowed`` of so many items meets: excluded ones, rising, each once, and items in all."""
    excluded = np.unique(excluded)
    if allowed is None:
        return excluded, items
    return excluded[allowed[excluded]], int(np.count_nonzero(allowed))


def without(items: NDArray[np.int64], excluded: NDArray[np.integer]) -> NDArray[np.int64]:
    """Leave some items out, given in any order; the others keep their order."""
    if len(excluded) == 0:
        return items
    if len(excluded) <= _FEW:
        gone = set(excluded.tolist())
        return np.array([item for item in items.tolist() if item not in gone], dtype=np.int64)
    return items[np.isin(items, excluded, invert=True)]


def lengths(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """The Euclidean length of each row, float64 [rows]; never has more than a block of the table in memory twice."""
    squares = np.empty(len(embeddings), dtype=np.float64)
    for start in range(0, len(embeddings), _ROWS_PER_BLOCK):
        block = embeddings[start : start + _ROWS_PER_BLOCK]
        np.einsum("ij,ij->i", block, block, out=squares[start : start + len(block)], dtype=np.float64)
    return np.sqrt(squares, out=squares)
