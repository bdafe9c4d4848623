"""From who is asking to ranked items: the service without HTTP.

Whoever has items has a vector: the student's embedding for a user whom the training knew, moved by what is new since
then; for everybody else their items folded in (``shared/fold_in.py``). Who has none gets the most popular items: ids
the artefact does not have, and also users it has without a training interaction, whose embedding no interaction ever
moved.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.diversity import candidate_count, diversified
from service.filters import Attributes
from service.index import ExactIndex, Ranking
from service.queries import KnownItem, KnownUser, Query, RankedItem, Reason, Recommendation, Strategy
from shared.artifact import Artifact
from shared.fold_in import item_weights, profile

_NO_ITEMS = np.empty(0, dtype=np.int64)


class Engine:
    """Answers from one artefact. Holds no state of its own between calls; safe from any number of threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Index the artefact's items."""
        self.artifact = artifact
        self.index = ExactIndex(artifact.item_embeddings)
        self._attributes = Attributes(artifact)
        self._weights = item_weights(artifact.popularity)
        self._by_popularity = np.argsort(-artifact.popularity, kind="stable")
        lengths = np.linalg.norm(artifact.item_embeddings, axis=1)
        self._lengths = np.maximum(lengths, np.finfo(np.float32).tiny)

    def recommend(self, query: Query) -> Recommendation:
        """Rank the best items for whoever asks.

        Returns:
            Exactly ``min(k, eligible items)`` items, each once; without diversity by falling score, equal scores in
            the order of the item table.

        Raises:
            UnknownAttributeError: the filter names an attribute that no item has.
        """
        user = None if query.user_id is None else self.artifact.users.dense(query.user_id)
        trained = _NO_ITEMS if user is None else self.artifact.seen(user).astype(np.int64)
        history, unknown = self._dense(query.history)
        new = np.setdiff1d(history, trained)
        excluded = self._dense(query.exclude_items)[0]
        if query.exclude_seen:
            excluded = np.union1d(excluded, np.union1d(trained, new))
        allowed = self._attributes.allowed(query.filter) if query.filter else None
        strategy, reason = _strategy(known=query.user_id is None or user is not None, trained=trained, new=new)
        if strategy == "popular":
            ranking = self._popular(query.k, excluded, allowed)
        else:
            ranking = self._ranked(self._vector(user, trained, new), query, excluded, allowed)
        return Recommendation(strategy, reason, self._named(ranking), unknown)

    def similar(self, item_id: str, k: int) -> list[RankedItem]:
        """The ``min(k, items - 1)`` items most like one, by the cosine of the student's embeddings.

        Raises:
            KeyError: there is no such item.
        """
        item = self._require_item(item_id)
        embedding = self.artifact.item_embeddings[item]
        cosines = (self.artifact.item_embeddings @ embedding) / (self._lengths * self._lengths[item])
        cosines[item] = -np.inf
        best = np.lexsort((np.arange(len(cosines)), -cosines))[: min(k, len(cosines) - 1)]
        return self._named(Ranking(best, cosines[best].astype(np.float64)))

    def item(self, item_id: str) -> KnownItem:
        """What is known of an item.

        Raises:
            KeyError: there is no such item.
        """
        item = self._require_item(item_id)
        return KnownItem(item_id, int(self.artifact.popularity[item]), self.artifact.item_metadata(item))

    def user(self, user_id: str) -> KnownUser:
        """What is known of a user.

        Raises:
            KeyError: there is no such user.
        """
        user = self.artifact.users.dense(user_id)
        if user is None:
            raise KeyError(user_id)
        return KnownUser(user_id, [self.artifact.items.outside(item) for item in self.artifact.seen(user).tolist()])

    def _require_item(self, item_id: str) -> int:
        item = self.artifact.items.dense(item_id)
        if item is None:
            raise KeyError(item_id)
        return item

    def _dense(self, item_ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Indices of the known ids, rising, each once; and the unknown ids, each once."""
        found = {item_id: self.artifact.items.dense(item_id) for item_id in item_ids}
        known = sorted(item for item in found.values() if item is not None)
        return np.array(known, dtype=np.int64), [item_id for item_id, item in found.items() if item is None]

    def _vector(self, user: int | None, trained: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.float32]:
        if user is None or len(trained) == 0:
            return self._folded_in(new)
        own: NDArray[np.float32] = self.artifact.user_embeddings[user]
        if len(new) == 0:
            return own
        moved: NDArray[np.float32] = own + self._folded_in(np.union1d(trained, new)) - self._folded_in(trained)
        return moved

    def _folded_in(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        own = profile(items, self.artifact.item_embeddings, self._weights)
        folded: NDArray[np.float32] = own @ self.artifact.fold_in
        return folded

    def _ranked(
        self,
        vector: NDArray[np.float32],
        query: Query,
        excluded: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
    ) -> Ranking:
        if query.diversity == 0:
            return self.index.top_k(vector, query.k, excluded, allowed)
        candidates = self.index.top_k(vector, candidate_count(query.k), excluded, allowed)
        embeddings = self.artifact.item_embeddings[candidates.items]
        picked = diversified(candidates.scores, embeddings, query.k, query.diversity)
        return Ranking(candidates.items[picked], candidates.scores[picked])

    def _popular(self, k: int, excluded: NDArray[np.int64], allowed: NDArray[np.bool_] | None) -> Ranking:
        if allowed is None:
            order = self._by_popularity[: k + len(excluded)]
        else:
            order = self._by_popularity[allowed[self._by_popularity]]
        best = order[~np.isin(order, excluded)][:k]
        return Ranking(best, self.artifact.popularity[best].astype(np.float64))

    def _named(self, ranking: Ranking) -> list[RankedItem]:
        return [
            RankedItem(self.artifact.items.outside(item), score, rank, self.artifact.item_metadata(item))
            for rank, (item, score) in enumerate(
                zip(ranking.items.tolist(), ranking.scores.tolist(), strict=True), start=1
            )
        ]


def _strategy(*, known: bool, trained: NDArray[np.int64], new: NDArray[np.int64]) -> tuple[Strategy, Reason]:
    if len(trained):
        return "personal", "trained_and_new_events" if len(new) else "trained"
    if len(new):
        return "history", "folded_in"
    return "popular", "no_events" if known else "unknown_user"
