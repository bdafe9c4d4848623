"""The exact top K of inner products over the items (Eq. 31), by faiss.

Knows embeddings and item indices; nothing of users, ids or HTTP.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ranking:
    """Items best first: ``items`` int64 [n], ``scores`` float64 [n]."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]


class ExactIndex:
    """Ranks every item by its inner product with a query; nothing is approximated.

    faiss narrows the items down in float32, whose rounding depends on where an item lies in the table. The few
    that are left are scored again in float64, one by one, so that equal items get equal scores and ties go to
    the lower item index. Reading is safe from any number of threads.
    """

    kind = "flat inner product"

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        """Index ``embeddings``, finite float32 [items, width]; faiss keeps a copy, the table stays in use."""
        self._embeddings = embeddings
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(np.ascontiguousarray(embeddings))
        squares = np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64)
        self._longest = float(np.sqrt(squares.max()))

    def __len__(self) -> int:
        return len(self._embeddings)

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
        excluded = np.unique(excluded)
        searched, parameters = len(self), None
        if allowed is not None:
            excluded = excluded[allowed[excluded]]
            searched = int(np.count_nonzero(allowed))
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters()
            parameters.sel = selector  # faiss points to it and to the bits; both live until this function returns
        wanted = min(k, searched - len(excluded))
        if wanted == 0:
            return Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
        rounding = self._rounding(query)
        fetched = wanted + len(excluded) + 1
        while True:
            fetched = min(fetched, searched)
            approximate, found = self._index.search(query[None, :], fetched, params=parameters)
            ranking = self._ranked(query, found[0][~np.isin(found[0], excluded, assume_unique=True)])
            # An item that faiss left out scores at most the last one it found, give or take the rounding.
            if fetched == searched or ranking.scores[wanted - 1] > approximate[0, -1] + rounding:
                return Ranking(ranking.items[:wanted], ranking.scores[:wanted])
            fetched *= 4

    def _ranked(self, query: NDArray[np.float32], items: NDArray[np.int64]) -> Ranking:
        # A sum along each row, unlike a matrix product, adds the terms of every row in the same order.
        scores = (self._embeddings[items] * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((items, -scores))
        return Ranking(items[order], scores[order])

    def _rounding(self, query: NDArray[np.float32]) -> float:
        """Bound what float32 can be off: width x epsilon x |query| x |item|, and what underflows to 0."""
        single = np.finfo(np.float32)
        width = int(self._embeddings.shape[1])
        length = float(np.linalg.norm(query.astype(np.float64)))
        return width * (float(single.eps) * length * self._longest + float(single.tiny))
