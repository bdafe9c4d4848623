"""From the best items to an answer where score alone does not decide: diverse, or at most so many of one kind."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.diversity import candidate_count, diversified
from service.filters import Attributes, OneOf, Value, elements
from service.live_table import Items, JoinedAttributes
from service.stopping import go_on
from shared.index.ranking import Ranking

Best = Callable[[int, NDArray[np.bool_] | None], Ranking]
"""The best so many of the items that are allowed, bool [items], None for all; fewer only if there are no more."""


class Picking:
    """Picks from what is best, until there are as many as wanted or no item is left that may be had."""

    def __init__(
        self,
        items: Items,
        attributes: Attributes | JoinedAttributes,
        *,
        at_most: Mapping[str, int],
        diversity: float = 0.0,
    ) -> None:
        """Take what is wanted, see ``Query``.

        Raises:
            UnknownAttributeError: ``at_most`` names an attribute that no item has.
        """
        self._items = items
        self._attributes = attributes
        self._diversity = diversity
        self._caps = at_most
        attributes.require(at_most)
        self._had: Counter[tuple[str, tuple[bool, Value]]] = Counter()

    def pick(self, best: Best, k: int, allowed: NDArray[np.bool_] | None) -> Ranking:
        """``k`` items in the order in which they are picked; fewer only if no more may be had.

        Without diversity that is the order of the scores, and an item is passed over where another of its kind would be
        one too many.
        """
        picked = Ranking(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))
        while True:
            wanted = k - len(picked.items)
            count = candidate_count(wanted)
            candidates = best(count, allowed)
            places = self._places(candidates, wanted, picked)
            picked = Ranking(
                np.concatenate([picked.items, candidates.items[places]]),
                np.concatenate([picked.scores, candidates.scores[places]]),
            )
            if len(places) == wanted or len(candidates.items) < count:
                return picked
            allowed = self._left(candidates, allowed)

    def _places(self, candidates: Ranking, wanted: int, before: Ranking) -> NDArray[np.int64]:
        """Of at most ``wanted`` candidates, in the order in which they are picked."""

        def is_taken(place: int) -> bool:
            return self._takes(int(candidates.items[place]))

        if self._diversity == 0:
            return np.fromiter(islice(filter(is_taken, range(len(candidates.items))), wanted), dtype=np.int64)
        vectors = self._items.vectors(np.concatenate([before.items, candidates.items]))
        return diversified(
            candidates.scores,
            vectors[len(before.items) :],
            wanted,
            self._diversity,
            before=vectors[: len(before.items)],
            is_taken=is_taken,
        )

    def _takes(self, row: int) -> bool:
        """Whether an item is not one too many of its kind; if so, it is counted."""
        go_on()
        kinds = set(self._kinds(row)) if self._caps else set()
        if any(self._had[kind] >= self._caps[kind[0]] for kind in kinds):
            return False
        self._had.update(kinds)
        return True

    def _kinds(self, row: int) -> Iterator[tuple[str, tuple[bool, Value]]]:
        metadata = self._items.metadata(row) or {}
        for name in self._caps:
            for element in elements(metadata.get(name)):
                yield name, element

    def _left(self, seen: Ranking, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """What may be had besides the candidates that were looked at: nothing of which there is enough already."""
        left = np.ones(len(self._items), dtype=bool) if allowed is None else allowed
        left[seen.items] = False
        for name, cap in self._caps.items():
            full = [value for (named, (_, value)), had in self._had.items() if named == name and had >= cap]
            if full:
                left &= ~self._attributes.allowed({name: OneOf(full)})
        return left
