"""Ways to find most of the best items without scoring all of them, each around an index of faiss.

A searcher proposes candidates; :mod:`shared.index.approximate` scores them exactly and sees to it that nothing is
missing, there twice or forbidden. How hard a searcher looks is its :class:`Effort`, which the trainer measures.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from shared.index.exact import nearest

USUAL_COUNT = 50
"""Items wanted and excluded, up to which an effort is enough that was measured with 20 wanted ones."""

_FIRST_ROWS = 2048
_LISTFULS = 4
"""The lists probed hold so many items for each candidate, at the mean, since the nearest lists may be short ones."""


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        depth: the largest cosine that is reckoned with (norm-ordered), lists probed (ivf), nodes kept in view (hnsw);
            means nothing where all codes are scanned.
        refine: candidates that are scored exactly for each item wanted.
    """

    depth: float
    refine: int


@dataclass(frozen=True)
class Wanted:
    """What candidates are wanted for.

    Attributes:
        query: float32 [width].
        count: of items, at least 1.
        excluded: items that do not count, rising.
        allowed: bool [items], the only items that count; all if None.
    """

    query: NDArray[np.float32]
    count: int
    excluded: NDArray[np.integer]
    allowed: NDArray[np.bool_] | None = None


class Searcher(Protocol):
    """Proposes candidates from an index of all items."""

    def search(self, wanted: Wanted, effort: Effort) -> NDArray[np.int64]:
        """Items that may be among the best, in any order, excluded ones too; -1 is no item.

        There may be fewer than are wanted.
        """
        ...


class NormOrdered:
    """Scans items by falling length of their embeddings, and ends where the rest can hardly be good enough.

    An item's score is at most ``cosine |query| |item|``. Once ``count`` items are found, whatever is shorter than
    ``worst score found / (cosine |query|)`` cannot be better. With a cosine of 1 nothing is missed (but for what
    float32 rounds); below that it is a bet that the trainer has measured. Embeddings of popular items are long, which
    is what makes this fast.
    """

    def __init__(self, index: Any) -> None:
        """Search an ``IDMap,Flat`` whose rows are the items by falling length."""
        self._index = index  # owns the memory of the rows
        flat: Any = faiss.downcast_index(index.index)
        rows = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d)
        self._rows = rows.reshape(index.ntotal, index.d)
        self._items = faiss.vector_to_array(index.id_map)
        squares = np.concatenate(
            [np.einsum("ij,ij->i", block, block) for block in np.array_split(self._rows, -(-index.ntotal // 65_536))]
        )
        self._lengths = -np.sqrt(squares)  # rising, as np.searchsorted wants them

    def search(self, wanted: Wanted, effort: Effort) -> NDArray[np.int64]:
        """See :class:`Searcher`."""
        scanned, found = 0, np.empty(0, dtype=np.int64)
        scores, end = np.empty(0, dtype=np.float32), _FIRST_ROWS
        while scanned < end:
            end = min(end, len(self._rows))
            more_scores, more = self._scan(wanted, scanned, end)
            scores, found, scanned = np.concatenate([scores, more_scores]), np.concatenate([found, more]), end
            if len(found) < wanted.count:
                end = scanned * 8
            else:
                end = self._end(wanted.query, np.partition(scores, -wanted.count)[-wanted.count], effort.depth)
            end = min(end, len(self._rows))
        return found

    def _scan(self, wanted: Wanted, start: int, end: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and items of the best that count among some rows."""
        selector, available = None, end - start
        if wanted.allowed is not None:
            allowed = wanted.allowed[self._items[start:end]]
            available = int(np.count_nonzero(allowed))
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))  # points to the bits, which live on here
        count = min(wanted.count + len(wanted.excluded), available)
        if count == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        scores, rows = nearest(self._rows[start:end], wanted.query, count, selector)
        items = self._items[start + rows]
        if len(wanted.excluded) == 0:
            return scores, items
        kept = ~np.isin(items, wanted.excluded, assume_unique=True)
        return scores[kept], items[kept]

    def _end(self, query: NDArray[np.float32], worst: float, cosine: float) -> int:
        """How many rows are long enough to matter."""
        length = float(np.linalg.norm(query))
        if worst <= 0 or length == 0:
            return len(self._rows)
        return int(np.searchsorted(self._lengths, -worst / (cosine * length), side="right"))


class Lists:
    """Scans the lists of an IVF index whose centroids are the nearest to the query."""

    def __init__(self, index: Any) -> None:
        """Search an index of augmented vectors by distance."""
        self._index = index

    def search(self, wanted: Wanted, effort: Effort) -> NDArray[np.int64]:
        """See :class:`Searcher`; more lists are probed where more items are wanted, or few are allowed."""
        parameters = faiss.SearchParametersIVF()
        allowed = self._index.ntotal if wanted.allowed is None else int(np.count_nonzero(wanted.allowed))
        least = _LISTFULS * _count(self._index, wanted, effort) * self._index.nlist / self._index.ntotal
        lists = max(effort.depth * _more(wanted), least) * self._index.ntotal / max(allowed, 1)
        parameters.nprobe = int(min(np.ceil(lists), self._index.nlist))
        return _found(self._index, wanted, effort, parameters)


class Graph:
    """Follows the links of an HNSW graph towards better items."""

    def __init__(self, index: Any) -> None:
        """Search an index by inner product."""
        self._index = index

    def search(self, wanted: Wanted, effort: Effort) -> NDArray[np.int64]:
        """See :class:`Searcher`; more nodes are kept in view where more items are wanted."""
        parameters = faiss.SearchParametersHNSW()  # type: ignore[attr-defined]
        parameters.efSearch = int(max(effort.depth * _more(wanted), _count(self._index, wanted, effort)))
        return _found(self._index, wanted, effort, parameters)


class Codes:
    """Scans codes of all items, each much smaller than its embedding."""

    def __init__(self, index: Any, *, filters: bool) -> None:
        """Search an index by inner product; ``filters`` says whether it can search among allowed items."""
        self._index = index
        self._filters = filters

    def search(self, wanted: Wanted, effort: Effort) -> NDArray[np.int64]:
        """See :class:`Searcher`."""
        if self._filters:
            return _found(self._index, wanted, effort, faiss.SearchParameters())
        if wanted.allowed is not None:
            return np.empty(0, dtype=np.int64)
        return _found(self._index, wanted, effort, None)


def augmented(items: NDArray[np.float32], squared_length: float) -> NDArray[np.float32]:
    """Add a column, so that the nearest to a query with 0 there, by distance, are the best by inner product.

    The column completes each squared length of float32 [n, width] to ``squared_length``, that of the longest item.
    """
    squares = np.einsum("ij,ij->i", items, items, dtype=np.float64)
    column = np.sqrt(np.maximum(squared_length - squares, 0)).astype(np.float32)
    return np.hstack([items, column[:, None]])


def _found(
    index: Any,
    wanted: Wanted,
    effort: Effort,
    parameters: faiss.SearchParameters | None,
) -> NDArray[np.int64]:
    selector = None
    if wanted.allowed is not None and parameters is not None:
        bits = np.packbits(wanted.allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        parameters.sel = selector  # faiss points to it and to the bits; both live until this function returns
    query = np.zeros((1, index.d), dtype=np.float32)
    query[0, : len(wanted.query)] = wanted.query  # and 0 in the columns that augment items
    items: NDArray[np.int64] = index.search(query, _count(index, wanted, effort), params=parameters)[1][0]
    return items


def _count(index: Any, wanted: Wanted, effort: Effort) -> int:
    return int(min(wanted.count * effort.refine + len(wanted.excluded), index.ntotal))


def _more(wanted: Wanted) -> float:
    """A factor for what was measured with the usual number of items and is not enough for many."""
    return float(np.sqrt(max(1.0, (wanted.count + len(wanted.excluded)) / USUAL_COUNT)))
