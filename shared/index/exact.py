"""The exact top K of inner products over the items (Eq. 31), by faiss.

Knows embeddings and item indices; nothing of users, ids, files or HTTP.
"""

import math
from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from shared.index.ranking import NOTHING, Asked, Ranking, lengths, narrowed, ranked, ranked_each, without

FEWEST_FOR_BLAS = 4
"""From so many queries on a matrix product and a selection take less time than one scan a query."""

_NO_ITEMS = np.empty(0, dtype=np.int64)
_EPSILON, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)


class ExactIndex:
    """Ranks every item by its inner product with a query; nothing is approximated.

    faiss narrows the items down in float32, whose rounding depends on where an item lies in the table. The few
    that are left are scored again in float64, one by one, so that equal items get equal scores and ties go to
    the lower item index. The table is searched where it lies: nothing of it is copied, and processes that map the
    same file share it. Reading is safe from any number of threads.

    Attributes:
        embeddings: float32 [items, width], what is searched.
        lengths: float64 [items], of the embeddings.
    """

    kind = "flat"

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        """Search ``embeddings``, finite float32 [items, width], row after row in memory."""
        self.embeddings = np.ascontiguousarray(embeddings)
        self.lengths = lengths(self.embeddings)
        self._longest = float(self.lengths.max())
        # faiss's own, for the whole process: 128,000 numbers in the queries, made for batches of thousands.
        faiss.cvar.distance_compute_blas_threshold = FEWEST_FOR_BLAS * self.embeddings.shape[1]

    def __len__(self) -> int:
        return len(self.embeddings)

    def top_k(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.integer],
        allowed: NDArray[np.bool_] | None = None,
    ) -> Ranking:
        """Rank the best ``min(k, eligible items)`` items, each of them once.

        Args:
            query: float32 [width].
            k: how many items are wanted, at least 1.
            excluded: indices of items to leave out, in any order.
            allowed: bool [items], the items to choose from; all by default.

        Returns:
            The ranking by falling score, then by rising item index.
        """
        searched, selector = len(self), None
        if allowed is not None or k + len(excluded) > searched:  # else nobody needs to know how many they are
            excluded, searched = narrowed(searched, excluded, allowed)
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))  # points to the bits, which live on here
        wanted = min(k, searched - len(excluded))
        if wanted == 0:
            return NOTHING
        fetched = wanted + len(excluded) + 1
        while True:
            fetched = min(fetched, searched)
            approximate, found = nearest(self.embeddings, query, fetched, selector)
            ranking = ranked(self.embeddings, query, without(found, excluded))
            if fetched == searched or self._is_certain(query, ranking.scores[wanted - 1], approximate[-1]):
                return ranking.first(wanted)
            fetched *= 4

    def top_k_of_many(self, queries: NDArray[np.float32], k: int) -> list[Ranking]:
        """Rank the best ``min(k, items)`` items for each of float32 [n, width], much faster than one by one."""
        return self.top_k_of_each([Asked(query, k, _NO_ITEMS) for query in queries])

    def top_k_of_each(self, asked: Sequence[Asked]) -> list[Ranking]:
        """As :meth:`top_k`, for several in one pass over the table."""
        if len(asked) == 1:
            return [self.top_k(*asked[0])]
        fetched = min(max(each.k + len(each.excluded) for each in asked) + 1, len(self))
        queries = np.stack([each.query for each in asked])
        approximate, found = faiss.knn(queries, self.embeddings, fetched, metric=faiss.METRIC_INNER_PRODUCT)
        rankings = ranked_each(self.embeddings, queries, found, [each.excluded for each in asked])
        rankings = [ranking.first(each.k) for each, ranking in zip(asked, rankings, strict=True)]
        if fetched == len(self):
            return rankings
        return [
            ranking if self._is_certain(each.query, ranking.scores[each.k - 1], scores[-1]) else self.top_k(*each)
            for each, ranking, scores in zip(asked, rankings, approximate, strict=True)
        ]

    def _is_certain(self, query: NDArray[np.float32], last: np.float64, last_found: np.float32) -> bool:
        """Whether no item that faiss left out is as good as the last one wanted.

        Such an item scores at most the last one that faiss found, give or take the rounding: width x epsilon x
        |query| x |item|, and what underflows to 0.
        """
        exact = query.astype(np.float64)
        rounding = len(query) * (_EPSILON * math.sqrt(exact @ exact) * self._longest + _TINY)
        return bool(last > last_found + rounding)


def nearest(
    embeddings: NDArray[np.float32], query: NDArray[np.float32], count: int, selector: faiss.IDSelector | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scan a table and return the scores, float32 [count], and rows, int64 [count], of the best, as faiss finds them.

    Args:
        embeddings: float32 [rows, width], row after row in memory.
        query: float32 [width].
        count: of rows wanted, as many as the selector lets through at most.
        selector: of rows.
    """
    scores, rows = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.int64)
    query = np.ascontiguousarray(query, dtype=np.float32)
    faiss.knn_inner_product(
        faiss.swig_ptr(query),
        faiss.swig_ptr(embeddings),
        embeddings.shape[1],
        1,
        len(embeddings),
        count,
        faiss.swig_ptr(scores),
        faiss.swig_ptr(rows),
        selector,
    )
    return scores, rows
