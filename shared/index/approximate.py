"""The top K by an index that looks at some of the items: always as many as wanted, and as a rule the best ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.index.exact import ExactIndex
from shared.index.ranking import NOTHING, Asked, Ranking, narrowed, ranked, without
from shared.index.searchers import Effort, Searcher, Wanted

FEWEST_ALLOWED = 1 / 8
"""The share of the items that a filter must let through for an approximate search to be worth it."""


class ApproximateIndex:
    """Ranks candidates that a searcher proposes, by their exact scores.

    Which items are candidates is approximate; how they rank is not: scores are those of :class:`ExactIndex`, and
    ties go the same way. Where the candidates are fewer than the items wanted, under a narrow filter or with most of
    the catalogue excluded, the exact index answers instead.
    """

    def __init__(self, exact: ExactIndex, kind: str, searcher: Searcher, effort: Effort) -> None:
        """Search with ``searcher`` what ``exact`` holds."""
        self.kind = kind
        self.lengths = exact.lengths
        self._exact = exact
        self._searcher = searcher
        self._effort = effort

    def __len__(self) -> int:
        return len(self._exact)

    def top_k(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.integer],
        allowed: NDArray[np.bool_] | None = None,
    ) -> Ranking:
        """Rank ``min(k, eligible items)`` items that are, as a rule, the best; see :meth:`ExactIndex.top_k`."""
        excluded, searched = narrowed(len(self), excluded, allowed)
        count = min(k, searched - len(excluded))
        if count == 0:
            return NOTHING
        if searched < FEWEST_ALLOWED * len(self):
            return self._exact.top_k(query, k, excluded, allowed)
        candidates = np.unique(self._searcher.search(Wanted(query, count, excluded, allowed), self._effort))
        candidates = without(candidates[np.searchsorted(candidates, 0) :], excluded)
        if len(candidates) < count:
            return self._exact.top_k(query, k, excluded, allowed)
        return ranked(self._exact.embeddings, query, candidates).first(count)

    def top_k_of_each(self, asked: Sequence[Asked]) -> list[Ranking]:
        """As :meth:`top_k`, for several."""
        return [self.top_k(*each) for each in asked]
