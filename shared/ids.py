"""The border between ids from outside (strings) and ids inside (dense integers).

An :class:`IdMap` is three flat arrays, so that millions of ids are memory-mapped instead of held as Python
objects. It knows nothing of files, users or items.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError

ARRAY_NAMES = ("bytes", "offsets", "order")
"""The keys of :meth:`IdMap.to_arrays`."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


class IdMap:
    """Outside string ids <-> dense integers ``0 .. n-1``, both ways, without a dict.

    Looking an id up is a binary search over the sorted ids; naming an index is a slice. Ids are compared code
    point by code point: nothing is trimmed, folded or normalised.

    >>> ids = IdMap.from_ids(["b", "a"])
    >>> ids.dense("a"), ids.dense("c"), ids.outside(0)
    (1, None, 'b')
    """

    __slots__ = ("_begins", "_blob", "_offsets", "_order", "_sorted", "_view")

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64], order: NDArray[np.int64]) -> None:
        """Wrap arrays known to be sound; see :meth:`from_ids` and :meth:`from_arrays`."""
        self._blob = blob
        self._offsets = offsets
        self._order = order
        # Views, whose elements are plain numbers: numpy's take three times as long to get.
        self._view, self._begins, self._sorted = blob.data, offsets.data, order.data

    @classmethod
    def from_ids(cls, ids: Sequence[str]) -> "IdMap":
        """Map ``ids[i]`` to ``i``.

        Raises:
            UserError: an id is empty, given twice, not a string, or not encodable text.
        """
        encoded = [_encode(id_, position) for position, id_ in enumerate(ids)]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(id_) for id_ in encoded], out=offsets[1:])
        order = sorted(range(len(encoded)), key=encoded.__getitem__)
        for first, second in pairwise(order):
            if encoded[first] == encoded[second]:
                raise UserError(f"id {ids[first]!r} is given twice (positions {first} and {second}): give each id once")
        blob = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return cls(blob, offsets, np.asarray(order, dtype=np.int64))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "IdMap":
        """Take the map that :meth:`to_arrays` gave, without copying (the arrays may be memory-mapped).

        Checks what can be checked in a few passes over the arrays; :meth:`check_order` does the rest.

        Args:
            arrays: ``bytes`` uint8 [total length], ``offsets`` int64 [n + 1], ``order`` int64 [n].

        Raises:
            UserError: the arrays are not an id map; the message names the array.
        """
        blob = _typed(arrays, "bytes", np.uint8)
        offsets = _typed(arrays, "offsets", np.int64)
        order = _typed(arrays, "order", np.int64)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(blob):
            raise UserError(f"id offsets: must run from 0 to the {len(blob)} bytes of the ids")
        if np.any(offsets[1:] <= offsets[:-1]):
            raise UserError("id offsets: must rise at every id (an id is empty or the offsets are out of order)")
        if not _is_permutation(order, len(offsets) - 1):
            raise UserError(f"id order: must hold each of 0 to {len(offsets) - 2} once")
        if not _is_text(blob, offsets):
            raise UserError("id bytes: not UTF-8 text")
        return cls(blob, offsets, order)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give the map as plain arrays, see :meth:`from_arrays`."""
        return {"bytes": self._blob, "offsets": self._offsets, "order": self._order}

    def dense(self, outside: str) -> int | None:
        """Return the dense index of an outside id, ``None`` if it is unknown."""
        try:
            wanted = outside.encode()
        except UnicodeEncodeError:
            return None
        at = bisect_left(self._sorted, wanted, key=self._bytes)
        if at == len(self._sorted):
            return None
        index = self._sorted[at]
        return index if self._bytes(index) == wanted else None

    def outside(self, index: int) -> str:
        """Return the outside id of a dense index.

        Raises:
            IndexError: ``index`` is not in ``0 .. n-1``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no id has the dense index {index}: there are {len(self)}")
        return self._bytes(index).decode()

    def outside_many(self, indices: Iterable[int]) -> list[str]:
        """Return the outside ids of dense indices, in the order given."""
        return [self.outside(int(index)) for index in indices]

    def starting_with(self, prefix: str) -> Iterator[int]:
        """Iterate over the dense indices of the outside ids that start like this, in the order of the ids.

        >>> list(IdMap.from_ids(["b2", "a", "b1"]).starting_with("b"))
        [2, 0]
        """
        try:
            wanted = prefix.encode()
        except UnicodeEncodeError:
            return iter(())
        at = bisect_left(self._sorted, wanted, key=self._bytes)
        return takewhile(lambda index: self._bytes(index).startswith(wanted), self._sorted[at:])

    def check_order(self) -> None:
        """Check that the sorted order is sorted and no id is there twice; reads every id once.

        Raises:
            UserError: look-ups in this map could miss ids.
        """
        previous = b""
        for index in self._order:
            current = self._bytes(index)
            if current <= previous:
                raise UserError(f"id order: not sorted, or an id given twice, at id {current.decode()!r}")
            previous = current

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the outside ids in dense order."""
        return (self.outside(index) for index in range(len(self)))

    def _bytes(self, index: int) -> bytes:
        return bytes(self._view[self._begins[index] : self._begins[index + 1]])


def _encode(id_: str, position: int) -> bytes:
    if not isinstance(id_, str):
        raise UserError(f"id at position {position} is a {type(id_).__name__}, not a string: give ids as text")
    if not id_:
        raise UserError(f"id at position {position} is empty: every user and item needs an id")
    try:
        return id_.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"id at position {position} ({id_!r}) holds half a surrogate pair, which is no character: "
            "read the source with its right encoding"
        ) from error


def _typed(arrays: Mapping[str, NDArray[np.generic]], name: str, dtype: type[_Scalar]) -> NDArray[_Scalar]:
    array = arrays[name]
    if array.dtype != dtype or array.ndim != 1:
        raise UserError(f"id {name}: must be a vector of {np.dtype(dtype)}, is {array.dtype} {array.shape}")
    return array  # type: ignore[return-value]


def _is_permutation(order: NDArray[np.int64], count: int) -> bool:
    if len(order) != count:
        return False
    if count == 0:
        return True
    if order.min() < 0 or order.max() >= count:
        return False
    met = np.zeros(count, dtype=np.bool_)
    met[order] = True
    return bool(met.all())


def _is_text(blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    """Whether the blob is UTF-8 and no id begins inside a character (0b10xxxxxx bytes continue one)."""
    try:
        str(blob.data, "utf-8")
    except UnicodeDecodeError:
        return False
    return not np.any((blob[offsets[:-1]] & 0xC0) == 0x80)
