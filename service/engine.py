"""From who is asking to ranked items: the service without HTTP.

Whoever has items has a vector: the student's embedding for a user whom the training knew, moved by what is new since
then; for everybody else their items folded in (``shared/fold_in.py``). Who has none gets the most popular items: ids
the artefact does not have, and also users it has without a training interaction, whose embedding no interaction ever
moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.diversity import candidate_count, diversified
from service.filters import Attributes
from service.index import ExactIndex, Ranking
from service.queries import (
    KnownItem,
    KnownUser,
    PartOfScore,
    Query,
    RankedItem,
    Reason,
    Recommendation,
    Strategy,
    UnknownPartError,
)
from shared.artifact import Artifact
from shared.fold_in import item_weights, profile

WHOLE = "whole"
"""The one part of the user vectors of an artefact that does not say what they are the sum of."""

_NO_ITEMS = np.empty(0, dtype=np.int64)


class Engine:
    """Answers from one artefact. Holds no state of its own between calls; safe from any number of threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Index the artefact's items."""
        self.artifact = artifact
        self.index = ExactIndex(artifact.item_embeddings)
        self.part_names = (WHOLE,) if artifact.parts is None else artifact.parts.names
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
            UnknownPartError: a weight names a part that the model does not have.
        """
        factors = self._factors(query.weights)
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
            return Recommendation(strategy, reason, self._named(self._popular(query.k, excluded, allowed)), unknown)
        parts = None
        if query.weights or query.explain:
            parts = factors[:, None] * self._part_vectors(user, trained, new)
        vector = self._vector(user, trained, new) if parts is None else parts.sum(axis=0)
        items = self._named(self._ranked(vector, query, excluded, allowed))
        if query.explain and parts is not None:
            items = self._explained(items, parts, factors, np.union1d(trained, new))
        return Recommendation(strategy, reason, items, unknown)

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

    def _part_vectors(
        self, user: int | None, trained: NDArray[np.int64], new: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """What ``_vector`` is the sum of, (parts, width); one part, the whole, where the artefact does not say."""
        parts = self.artifact.parts
        if parts is None:
            return self._vector(user, trained, new)[None, :]
        if user is None or len(trained) == 0:
            return self._profile(new) @ parts.fold_in
        own: NDArray[np.float32] = parts.users[:, user]
        if len(new) == 0:
            return own
        before, after = (self._profile(items) @ parts.fold_in for items in (trained, np.union1d(trained, new)))
        moved: NDArray[np.float32] = own + after - before
        return moved

    def _factors(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        for name in weights:
            if name not in self.part_names:
                raise UnknownPartError(name, self.part_names)
        return np.array([weights.get(name, 1.0) for name in self.part_names], dtype=np.float32)

    def _explained(
        self,
        items: list[RankedItem],
        parts: NDArray[np.float32],
        factors: NDArray[np.float32],
        history: NDArray[np.int64],
    ) -> list[RankedItem]:
        indices = [self._require_item(item.item_id) for item in items]
        embeddings = self.artifact.item_embeddings[indices].astype(np.float64)
        scores = embeddings @ parts.T.astype(np.float64)
        reasons = self._reasons(embeddings, factors, history)
        return [
            replace(
                item,
                explanation=[
                    PartOfScore(name, float(score), reason)
                    for name, score, reason in zip(self.part_names, scores[row], reasons[row], strict=True)
                ],
            )
            for row, item in enumerate(items)
        ]

    def _reasons(
        self, embeddings: NDArray[np.float64], factors: NDArray[np.float32], history: NDArray[np.int64]
    ) -> list[list[str | None]]:
        """For each item and part the history's item that adds most to the score when folded in, if it adds at all."""
        maps = self.artifact.fold_in[None] if self.artifact.parts is None else self.artifact.parts.fold_in
        taken = self._weights[history, None] * self.artifact.item_embeddings[history]
        reasons: list[list[str | None]] = [[] for _ in embeddings]
        for factor, matrix in zip(factors, maps, strict=True):
            gains = factor * ((taken @ matrix) @ embeddings.T)
            for row, best in enumerate(gains.argmax(axis=0)):
                known = self.artifact.items.outside(int(history[best])) if gains[best, row] > 0 else None
                reasons[row].append(known)
        return reasons

    def _folded_in(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        folded: NDArray[np.float32] = self._profile(items) @ self.artifact.fold_in
        return folded

    def _profile(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        return profile(items, self.artifact.item_embeddings, self._weights)

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
