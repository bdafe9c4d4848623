"""The number tables of an artefact and what must hold among them, both before publishing and after loading.

Knows nothing of files: whoever checks says how a flaw is reported.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError

Flaw = Callable[[str, str], UserError]
"""Makes the error of a flawed table from the table's name and what is wrong with it."""

_ROWS_PER_BLOCK = 4096
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Tables:
    """The student's embeddings, and the training interactions in CSR form.

    Attributes:
        user_embeddings: float32 [users, width].
        item_embeddings: float32 [items, width].
        train_indptr: int64 [users + 1], row starts.
        train_indices: int32 [training interactions], item indices, rising within a row.
    """

    user_embeddings: NDArray[np.float32]
    item_embeddings: NDArray[np.float32]
    train_indptr: NDArray[np.int64]
    train_indices: NDArray[np.int32]

    def check(self, users: int, items: int, flaw: Flaw) -> None:
        """Check the tables against the number of ids and against each other.

        Raises:
            UserError: what ``flaw`` makes, for a wrong shape, numbers that are not finite or would overflow as
                inner products, or interactions that are no sorted CSR of ``users`` x ``items``.
        """
        _check_shape("user_embeddings", self.user_embeddings, users, flaw)
        _check_shape("item_embeddings", self.item_embeddings, items, flaw)
        width, item_width = self.user_embeddings.shape[1], self.item_embeddings.shape[1]
        if item_width != width:
            raise flaw("item_embeddings", f"has {item_width} columns, and user_embeddings {width}")
        largest_user = _largest("user_embeddings", self.user_embeddings, flaw)
        largest_item = _largest("item_embeddings", self.item_embeddings, flaw)
        if width * largest_user * largest_item > float(np.finfo(np.float32).max):
            raise flaw("user_embeddings", "is so large that scores overflow: the training has diverged")
        _check_rows(self.train_indptr, self.train_indices, users, flaw)
        _check_items(self.train_indptr, self.train_indices, items, flaw)


def floats(table: str, values: NDArray[np.floating], flaw: Flaw) -> NDArray[np.float32]:
    """Convert floats of any width to float32; what does not fit becomes infinite, which the check refuses.

    Raises:
        UserError: what ``flaw`` makes, for values that are not floats.
    """
    if not np.issubdtype(values.dtype, np.floating):
        raise flaw(table, f"holds {values.dtype}: embeddings are floats")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def integers(table: str, values: NDArray[np.integer], dtype: type[_Scalar], flaw: Flaw) -> NDArray[_Scalar]:
    """Convert integers to ``dtype``.

    Raises:
        UserError: what ``flaw`` makes, for values that are not integers or do not fit.
    """
    if not np.issubdtype(values.dtype, np.integer):
        raise flaw(table, f"holds {values.dtype}: it must hold integers")
    converted = np.ascontiguousarray(values, dtype=dtype)
    if not np.array_equal(converted, values):
        raise flaw(table, f"holds numbers that do not fit {np.dtype(dtype)}")
    return converted


def _check_shape(table: str, embeddings: NDArray[np.float32], rows: int, flaw: Flaw) -> None:
    if embeddings.ndim != 2 or len(embeddings) != rows:
        raise flaw(table, f"has the shape {embeddings.shape}, and there are {rows} ids: it needs a row for each")
    if embeddings.size == 0:
        raise flaw(table, f"is empty (shape {embeddings.shape})")


def _largest(table: str, embeddings: NDArray[np.float32], flaw: Flaw) -> float:
    """Return the largest magnitude. NaN and infinity show in min and max, so no mask of the table is made.

    By blocks that fit the processor's cache: the table is read once.
    """
    blocks = [embeddings[start : start + _ROWS_PER_BLOCK] for start in range(0, len(embeddings), _ROWS_PER_BLOCK)]
    extremes = np.array([(block.min(), block.max()) for block in blocks])
    low, high = float(extremes[:, 0].min()), float(extremes[:, 1].max())
    if not (np.isfinite(low) and np.isfinite(high)):
        row = next(row for row, values in enumerate(embeddings) if not np.isfinite(values).all())
        raise flaw(table, f"row {row} holds NaN or infinity: the training has diverged")
    return max(-low, high)


def _check_rows(indptr: NDArray[np.int64], indices: NDArray[np.int32], users: int, flaw: Flaw) -> None:
    if indptr.shape != (users + 1,):
        raise flaw("train_indptr", f"has the shape {indptr.shape}, and {users} users need ({users + 1},)")
    if indices.ndim != 1:
        raise flaw("train_indices", f"has the shape {indices.shape}: it must be a vector")
    if indptr[0] != 0 or indptr[-1] != len(indices) or np.any(indptr[1:] < indptr[:-1]):
        raise flaw("train_indptr", f"must rise from 0 to the {len(indices)} training interactions")


def _check_items(indptr: NDArray[np.int64], indices: NDArray[np.int32], items: int, flaw: Flaw) -> None:
    if len(indices) == 0:
        return
    if indices.min() < 0 or indices.max() >= items:
        raise flaw("train_indices", f"names an item outside 0 to {items - 1}")
    rises = indices[1:] > indices[:-1]
    starts = indptr[(indptr > 0) & (indptr < len(indices))]
    rises[starts - 1] = True
    if not rises.all():
        at = int(np.flatnonzero(~rises)[0])
        user = int(np.searchsorted(indptr, at, side="right")) - 1
        raise flaw("train_indices", f"the items of user {user} do not rise: sort them, and name each once")
