"""The kinds of index there are, and how each is built from the item embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from shared.index.searchers import Codes, Graph, Lists, NormOrdered, Searcher, augmented

FLAT = "flat"
"""The kind of the exact index, which is none of ``KINDS``: it is the table itself."""

_SEED = 5
_POINTS_PER_LIST = 40
_FEWEST_POINTS = 65_536
_ROWS_PER_BLOCK = 65_536
_LISTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_REFINES = (2, 5, 10, 20, 50)

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """A kind of approximate index.

    Attributes:
        name: of the kind.
        factory: the specification of faiss for so many items of such a width.
        augmented: whether it holds augmented vectors and compares distances, rather than inner products.
        searcher: makes what searches an index of this kind.
        depths: of effort, rising; what is measured until one is enough.
        refines: likewise.
    """

    name: str
    factory: Callable[[int, int], str]
    searcher: Callable[[Any], Searcher]
    depths: tuple[float, ...] = (0.0,)
    refines: tuple[int, ...] = (1,)
    augmented: bool = False

    def blank(self, items: int, width: int) -> Any:
        """An index without items, not trained."""
        metric = faiss.METRIC_L2 if self.augmented else faiss.METRIC_INNER_PRODUCT
        columns = width + 1 if self.augmented else width
        index: Any = faiss.index_factory(columns, self.factory(items, width), metric)
        learners: tuple[Any, ...] = (index, getattr(index, "pq", None))
        for learner in learners:
            if hasattr(learner, "cp"):
                learner.cp.min_points_per_centroid = 1  # faiss would print a warning
        return index

    def build(self, embeddings: Embeddings, on_progress: Callable[[int, int], None] | None = None) -> Any:
        """An index of the rows of ``embeddings``, float32 [items, width], trained on a sample of them.

        Args:
            embeddings: finite; row ``i`` becomes item ``i``.
            on_progress: told how many items are in it, and of how many.
        """
        items, width = embeddings.shape
        squares = np.einsum("ij,ij->i", embeddings, embeddings, dtype=np.float64)
        longest = float(squares.max())
        index = self.blank(items, width)
        if not index.is_trained:
            index.train(self._vectors(embeddings[_sample(squares, _training_points(index))], longest))
        order = np.argsort(-squares, kind="stable") if isinstance(index, faiss.IndexIDMap) else None
        for start in range(0, items, _ROWS_PER_BLOCK):
            stop = min(start + _ROWS_PER_BLOCK, items)
            if order is None:
                index.add(self._vectors(embeddings[start:stop], longest))
            else:
                index.add_with_ids(embeddings[order[start:stop]], order[start:stop])
            if on_progress is not None:
                on_progress(stop, items)
        return index

    def _vectors(self, embeddings: Embeddings, longest: float) -> Embeddings:
        return augmented(embeddings, longest) if self.augmented else np.ascontiguousarray(embeddings)


def _lists(items: int) -> int:
    return int(np.clip(2 * np.sqrt(items), 1, max(1, items // 8)))


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "norm-ordered",
            lambda items, width: "IDMap,Flat",
            NormOrdered,
            depths=(0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0),
        ),
        Kind(
            "ivf-flat",
            lambda items, width: f"IVF{_lists(items)},Flat",
            Lists,
            depths=_LISTS,
            augmented=True,
        ),
        Kind(
            "ivf-sq8",
            lambda items, width: f"IVF{_lists(items)},SQ8",
            Lists,
            depths=_LISTS,
            refines=(2, 5),
            augmented=True,
        ),
        Kind(
            "pq-fastscan",
            lambda items, width: f"PQ{width}x4fs",
            lambda index: Codes(index, filters=False),
            refines=_REFINES,
        ),
        Kind("sq8", lambda items, width: "SQ8", lambda index: Codes(index, filters=True), refines=(2, 5)),
        Kind(
            "hnsw",
            lambda items, width: "HNSW32,Flat",
            Graph,
            depths=(16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
        ),
    )
}
"""By name, those first that are built sooner.

Fast-scan codes in IVF lists are not among them: faiss reads the lengths of such lists unchecked, so that one wrong bit
in a file ends the process, and they lost against the others wherever they were measured.
"""


def _training_points(index: Any) -> int:
    lists = index.nlist if isinstance(index, faiss.IndexIVF) else 0
    return max(_FEWEST_POINTS, _POINTS_PER_LIST * lists)


def _sample(squares: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Rows to train on, rising: drawn by squared length, as long ones are most of what is ever found."""
    if count >= len(squares):
        return np.arange(len(squares))
    reached = np.cumsum(squares)
    drawn = np.random.default_rng(_SEED).random(count) * reached[-1]
    rows: NDArray[np.int64] = np.unique(np.minimum(np.searchsorted(reached, drawn), len(squares) - 1))
    return rows
