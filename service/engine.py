"""From a user's id to ranked items: the service without HTTP.

A user whom the training knew gets the student's ranking of the items that are new to them. Everybody else gets
the most popular items: ids the artefact does not have, and also users it has without a training interaction,
whose embedding no interaction ever moved.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.index import ExactIndex, Ranking
from shared.artifact import Artifact

Strategy = Literal["personal", "popular"]


@dataclass(frozen=True)
class RankedItem:
    """An item of a recommendation.

    ``score`` is the inner product with the user (personal) or the number of training interactions (popular);
    ``rank`` counts from 1.
    """

    item_id: str
    score: float
    rank: int
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class Recommendation:
    """The ranked items for one user, and how they were found."""

    strategy: Strategy
    items: list[RankedItem]


class Engine:
    """Answers from one artefact. Holds no state of its own between calls; safe from any number of threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Index the artefact's items."""
        self.artifact = artifact
        self.index = ExactIndex(artifact.item_embeddings)
        self._most_popular = _most_popular(artifact.popularity)

    def recommend(self, user_id: str, k: int) -> Recommendation:
        """Rank the best ``k`` items for a user, without those of their training interactions.

        Args:
            user_id: an id from outside, known or not.
            k: how many items are wanted, at least 1.

        Returns:
            Exactly ``min(k, items left)`` items, each once; equal scores in the order of the item table.
        """
        user = self.artifact.users.dense(user_id)
        seen = None if user is None else self.artifact.seen(user)
        if user is None or seen is None or len(seen) == 0:
            top = Ranking(self._most_popular.items[:k], self._most_popular.scores[:k])
            return Recommendation("popular", self._named(top))
        ranking = self.index.top_k(self.artifact.user_embeddings[user], k, seen)
        return Recommendation("personal", self._named(ranking))

    def _named(self, ranking: Ranking) -> list[RankedItem]:
        return [
            RankedItem(self.artifact.items.outside(item), score, rank, self.artifact.item_metadata(item))
            for rank, (item, score) in enumerate(
                zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True), start=1
            )
        ]


def _most_popular(popularity: NDArray[np.int64]) -> Ranking:
    order = np.argsort(-popularity, kind="stable")
    return Ranking(order, popularity[order].astype(np.float64))
