"""Which items a filter lets through, by the attributes that the catalogue gives them.

An attribute is a key of an item's metadata whose value is text, a number, true or false, or a list of these. The
columns are read from the artefact when an attribute is first asked for, and kept.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = str | bool | int | float


@dataclass(frozen=True)
class OneOf:
    """The attribute is one of these values; of a list, one of its elements."""

    values: Sequence[Value]


@dataclass(frozen=True)
class Between:
    """The attribute is a number from ``low`` to ``high``, both included; None is no bound."""

    low: float | None = None
    high: float | None = None


Condition = OneOf | Between


class UnknownAttributeError(LookupError):
    """An attribute is named that no item has."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = known


class NoNumbersError(LookupError):
    """A range is asked of an attribute that is a number of no item."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Attributes:
    """The attributes of items by their metadata; safe from any number of threads."""

    def __init__(self, items: int, metadata: Callable[[int], Mapping[str, Any] | None]) -> None:
        """Take how many items there are, and what gives the metadata of each."""
        self._items = items
        self._metadata = metadata
        self._columns: dict[str, _Column] | None = None
        self._reading = threading.Lock()

    def allowed(self, conditions: Mapping[str, Condition]) -> NDArray[np.bool_]:
        """Which items meet every condition, bool [items]; an item without an attribute meets none on it.

        Raises:
            UnknownAttributeError: no item has the attribute.
            NoNumbersError: a range is asked of it, and it is a number of no item.
        """
        self.require(conditions)
        require_numbers(conditions, self.numbers)
        return self.meeting(conditions)

    def require(self, names: Collection[str]) -> None:
        """Check that there are attributes of these names.

        Raises:
            UnknownAttributeError: no item has one of them.
        """
        require_known(names, self.names)

    def names(self) -> Set[str]:
        """The attributes that an item has."""
        return self._read().keys()

    def numbers(self) -> Set[str]:
        """Those of them that are a number of an item."""
        return {name for name, column in self._read().items() if column.has_numbers}

    def meeting(self, conditions: Mapping[str, Condition]) -> NDArray[np.bool_]:
        """As ``allowed``, but nothing meets a condition on an attribute that no item has."""
        columns = self._read()
        met = np.ones(self._items, dtype=bool)
        for name, condition in conditions.items():
            met &= columns[name].meets(condition) if name in columns else False
        return met

    def _read(self) -> "dict[str, _Column]":
        with self._reading:
            if self._columns is None:
                self._columns = _read_columns(self._items, self._metadata)
            return self._columns


def require_known(names: Collection[str], read: Callable[[], Set[str]]) -> None:
    """Check names against those of the attributes, which are read only if there is something to check.

    Raises:
        UnknownAttributeError: one is none of them.
    """
    if not names:
        return
    known = read()
    for name in names:
        if name not in known:
            raise UnknownAttributeError(name, sorted(known))


def require_numbers(conditions: Mapping[str, Condition], read: Callable[[], Set[str]]) -> None:
    """Check the names of ranges against the attributes with numbers, which are read only if there is a range.

    Raises:
        NoNumbersError: one is none of them.
    """
    ranges = [name for name, condition in conditions.items() if isinstance(condition, Between)]
    if not ranges:
        return
    numbers = read()
    for name in ranges:
        if name not in numbers:
            raise NoNumbersError(name)


def elements(value: object) -> Iterator[tuple[bool, Value]]:
    """What a value of an attribute is compared by: itself, or the elements of a list; nothing where it is neither."""
    for element in value if isinstance(value, list) else [value]:
        if isinstance(element, str | bool | int | float):
            yield _key(element)


class _Column:
    """One attribute: which items have which value."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._rows: dict[tuple[bool, Value], list[int]] = {}
        self._numbers: list[tuple[int, float]] = []

    def add(self, item: int, value: object) -> None:
        for key in elements(value):
            self._rows.setdefault(key, []).append(item)
            is_bool, element = key
            if isinstance(element, int | float) and not is_bool:
                self._numbers.append((item, element))

    @property
    def has_numbers(self) -> bool:
        return bool(self._numbers)

    def meets(self, condition: Condition) -> NDArray[np.bool_]:
        met = np.zeros(self._items, dtype=bool)
        if isinstance(condition, OneOf):
            for value in condition.values:
                met[self._rows.get(_key(value), [])] = True
            return met
        low = -np.inf if condition.low is None else condition.low
        high = np.inf if condition.high is None else condition.high
        met[[item for item, number in self._numbers if low <= number <= high]] = True
        return met


def _key(value: Value) -> tuple[bool, Value]:
    """True is not 1, as in JSON; 1 is 1.0."""
    return isinstance(value, bool), value


def _read_columns(items: int, metadata: Callable[[int], Mapping[str, Any] | None]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    for item in range(items):
        for name, value in (metadata(item) or {}).items():
            if value is not None:
                columns.setdefault(name, _Column(items)).add(item, value)
    return columns
