"""Which attributes of the catalogue are worth filtering by: numbers, and texts of which there are few."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Value = str | bool | int | float

MOST_VALUES = 40
"""An attribute with more different texts is a title or a description."""


@dataclass(frozen=True)
class Facet:
    """An attribute: either the values that it has, most frequent first, or the bounds of a number."""

    name: str
    values: list[Value] = field(default_factory=list)
    low: float | None = None
    high: float | None = None


class Facets:
    """Gathers them from one item after another."""

    def __init__(self) -> None:
        """No item has been met."""
        self._columns: dict[str, _Column] = {}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Meet an item."""
        for name, value in metadata.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column()
            column.add(value)

    def found(self) -> list[Facet]:
        """The facets of all items met, in the order in which attributes were met."""
        found = (column.facet(name) for name, column in self._columns.items())
        return [facet for facet in found if facet is not None]


class _Column:
    def __init__(self) -> None:
        self._counts: Counter[Value] | None = Counter()
        self._low, self._high = float("inf"), float("-inf")

    def add(self, value: object) -> None:
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, str | bool):
                if self._counts is not None and element != "":
                    self._counts[element] += 1
                    if len(self._counts) > MOST_VALUES:
                        self._counts = None
            elif isinstance(element, int | float):
                self._low, self._high = min(self._low, element), max(self._high, element)

    def facet(self, name: str) -> Facet | None:
        if self._low <= self._high:
            return Facet(name, low=self._low, high=self._high)
        if self._counts is None or len(self._counts) < 2:
            return None
        return Facet(name, [value for value, _ in self._counts.most_common()])
