"""The exact nearest of vectors by inner product, the same bits in every process."""

import faiss
import numpy as np
from numpy.typing import NDArray

QUERIES_FOR_BLAS = 128_000
"""Numbers in the queries from which faiss multiplies matrices, which rounds otherwise; its own default."""


class ExactSearch:
    """faiss's exact search, rounded as in a new process.

    Where faiss begins to multiply matrices is a setting of the whole process, which ``shared.index`` lowers for the few
    queries of a service. Trainings before and after that would differ in their last bits.
    """

    def __init__(self, others: NDArray[np.float32]) -> None:
        """Search ``others``, (items, width)."""
        self._index = faiss.IndexFlatIP(others.shape[1])
        self._index.add(np.ascontiguousarray(others))

    def nearest(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inner products and indices (queries, count) of the nearest ones, falling; -1 where there are fewer."""
        before = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = QUERIES_FOR_BLAS
        try:
            products, found = self._index.search(np.ascontiguousarray(queries), count)
        finally:
            faiss.cvar.distance_compute_blas_threshold = before
        return products, found
