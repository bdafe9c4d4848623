"""Which attributes of the catalogue are worth filtering by: numbers, and texts of which there are few."""

from collections import Counter
from dataclasses import dataclass, field

from shared.artifact import Artifact

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


def facets(artifact: Artifact) -> list[Facet]:
    """The facets of the items' metadata, in the order in which attributes are met."""
    columns: dict[str, _Column] = {}
    for item in range(len(artifact.items)):
        for name, value in (artifact.item_metadata(item) or {}).items():
            columns.setdefault(name, _Column()).add(value)
    found = (column.facet(name) for name, column in columns.items())
    return [facet for facet in found if facet is not None]


class _Column:
    def __init__(self) -> None:
        self._counts: Counter[Value] | None = Counter()
        self._low, self._high = float("inf"), float("-inf")

    def add(self, value: object) -> None:
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, int | float) and not isinstance(element, bool):
                self._low, self._high = min(self._low, element), max(self._high, element)
            elif isinstance(element, str | bool) and element != "" and self._counts is not None:
                self._counts[element] += 1
                if len(self._counts) > MOST_VALUES:
                    self._counts = None

    def facet(self, name: str) -> Facet | None:
        if self._low <= self._high:
            return Facet(name, low=self._low, high=self._high)
        if self._counts is None or len(self._counts) < 2:
            return None
        return Facet(name, [value for value, _ in self._counts.most_common()])
