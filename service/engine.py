"""From who is asking to ranked items: the service without HTTP.

Whoever has items has a vector: the student's embedding for a user whom the training knew, moved by what is new since
then; for everybody else their items folded in (``shared/fold_in.py``). Who has none gets the most popular items, of
late where the artefact knows (``shared/trending.py``): ids the artefact does not have, and also users it has without a
training interaction, whose embedding no interaction ever moved.
"""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.content import Content
from service.filters import Attributes
from service.index import open_index
from service.live_table import Items, JoinedAttributes, JoinedIndex, LiveTable
from service.lookalikes import Lookalikes, Near, nearest
from service.picking import Best, Picking
from service.queries import (
    ID,
    STUDENT,
    KnownItem,
    KnownUser,
    PartOfScore,
    Query,
    RankedItem,
    RankedRows,
    Reason,
    Recommendation,
    Strategy,
    UnknownLikenessError,
    UnknownPartError,
)
from service.recent import NOTHING, SinceTraining
from shared.artifact import Artifact
from shared.fold_in import item_weights, profile
from shared.forgotten import forgotten_until
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.ranking import Asked, Ranking, lengths
from shared.trending import load_trending, order

WHOLE = "whole"
"""The one part of the user vectors of an artefact that does not say what they are the sum of."""

_NO_ITEMS = np.empty(0, dtype=np.int64)
_Counts = NDArray[np.int64] | NDArray[np.float64]
_QUICK_NUMBERS = 50_000 * 64
"""A table of so many numbers is searched in about a millisecond."""
_MOST_EXCLUDED = 1000
"""Retired items up to here are searched past; more are masked."""


class _Taste(NamedTuple):
    """What is known of who asks.

    Attributes:
        user: the row of a user whom the training knew, or None.
        known: whether nothing is missing: the user is known, or nobody was named.
        trained: (any,) rows of the items of the training, rising.
        new: (any,) rows of the items taken since, rising, none of them in ``trained``.
        strengths: (new,) how much each of these counts; None where each counts 1.
    """

    user: int | None
    known: bool
    trained: NDArray[np.int64]
    new: NDArray[np.int64]
    strengths: NDArray[np.float32] | None

    @property
    def strategy(self) -> Strategy | None:
        """None: nothing that the answer could be made of."""
        return "personal" if len(self.trained) else "history" if len(self.new) else None

    @property
    def reason(self) -> Reason:
        if len(self.trained):
            return "trained_and_new_events" if len(self.new) else "trained"
        if len(self.new):
            return "folded_in"
        return "no_events" if self.known else "unknown_user"

    def whole(self) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """All items, and their strengths; None where each counts 1."""
        items = np.concatenate([self.trained, self.new])
        if self.strengths is None:
            return items, None
        return items, np.concatenate([np.ones(len(self.trained), dtype=np.float32), self.strengths])


class Begun(NamedTuple):
    """A question to the index that is still to be asked, and what else its answer says."""

    asked: Asked
    strategy: Strategy
    reason: Reason
    unknown: list[str]

    def answer(self, best: Ranking, explanations: list[list[PartOfScore]] | None = None) -> RankedRows:
        """What is answered once the index has."""
        rows, scores = best.items.tolist(), best.scores.tolist()
        return RankedRows(self.strategy, self.reason, rows, scores, explanations, self.unknown)


class Engine:
    """Answers from one artefact. Holds no state of its own between calls; safe from any number of threads.

    Attributes:
        impersonal: the strategy for whoever nothing is known of.
        demand: (items,), what that strategy ranks by.
        forgotten_until: up to when forgotten users are not in the artefact; None where it does not say.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Index the artefact's items."""
        self.artifact = artifact
        self.opened = open_index(artifact)
        self.index: ExactIndex | ApproximateIndex | JoinedIndex = self.opened.index
        self.content = Content(artifact)
        self.part_names = (WHOLE,) if artifact.parts is None else artifact.parts.names
        self.lookalikes = Lookalikes(artifact, self.content)
        self.live = LiveTable.empty(artifact.width)
        self.items = Items(artifact, self.live)
        self._attributes: Attributes | JoinedAttributes = Attributes(len(artifact.items), artifact.item_metadata)
        self.forgotten_until = forgotten_until(artifact)
        self._factors_of_1 = np.ones(len(self.part_names), np.float32)
        self._weights = item_weights(artifact.popularity)
        self._popularity = artifact.popularity
        trending = load_trending(artifact)
        self.impersonal: Strategy = "popular" if trending is None else "trending"
        self.demand: _Counts = artifact.popularity if trending is None else trending
        self._by_demand = order(artifact.popularity, trending)
        self._lengths = _not_zero(self.opened.index.lengths)

    def with_live(self, live: LiveTable) -> "Engine":
        """The same engine with live items besides, which were made for its artefact; this one stays as it is."""
        if isinstance(self.index, JoinedIndex) or isinstance(self._attributes, JoinedAttributes):
            raise ValueError("this engine has live items already: take the one that it was made of")
        joined, count = copy(self), len(live.ids)
        joined.live, joined.items = live, Items(self.artifact, live)
        joined.index = JoinedIndex(self.index, live.vectors)
        joined._attributes = JoinedAttributes(self._attributes, live)
        none_yet = np.zeros(count, dtype=self._popularity.dtype)
        joined._weights = np.concatenate([self._weights, item_weights(none_yet)])
        joined._popularity = np.concatenate([self._popularity, none_yet])
        joined.demand = np.concatenate([self.demand, none_yet])
        joined._by_demand = np.concatenate([self._by_demand, len(self.items) + np.arange(count)])
        joined._lengths = np.concatenate([self._lengths, _not_zero(lengths(live.vectors))])
        return joined

    def recommend(self, query: Query, retired: NDArray[np.int64] = _NO_ITEMS) -> Recommendation:
        """Rank the best items for whoever asks.

        Args:
            query: who asks, and for what.
            retired: rows of items that nobody is to get, of :meth:`rows`.

        Returns:
            Exactly ``min(k, eligible items)`` items, each once, or, with ``at_most``, as many of them as may be had;
            without diversity by falling score, equal scores in the order of the item table.

        Raises:
            UnknownAttributeError: the filter, or ``at_most``, names an attribute that no item has.
            NoNumbersError: the filter asks a range of an attribute that is a number of no item.
            UnknownPartError: a weight names a part that the model does not have.
        """
        found = self.rank(query, retired)
        items = self._named(found.rows, found.scores, found.explanations)
        return Recommendation(found.strategy, found.reason, items, found.unknown_items)

    def is_quick(self, query: Query) -> bool:
        """Whether an answer takes so little that handing it to another thread would cost more than it spares."""
        picky = query.filter or query.diversity or query.at_most
        elaborate = picky or query.weights or query.explain or len(query.history) > query.k
        return not elaborate and len(self.items) * self.artifact.width <= _QUICK_NUMBERS

    def rank(self, query: Query, retired: NDArray[np.int64] = _NO_ITEMS) -> RankedRows:
        """As :meth:`recommend`, without looking up what the items are called."""
        begun = self.begin(query, retired)
        return begun.answer(self.index.top_k(*begun.asked)) if isinstance(begun, Begun) else begun

    def begin(self, query: Query, retired: NDArray[np.int64] = _NO_ITEMS) -> "Begun | RankedRows":
        """Find out what ``index`` is to be asked; what needs more than that, or less, is ranked at once."""
        factors = self._factors(query.weights)
        taste, unknown = self._taste(query)
        excluded = self._excluded(query, taste)
        allowed = self._attributes.allowed(query.filter) if query.filter else None
        if len(retired) > _MOST_EXCLUDED:
            allowed = np.ones(len(self.items), dtype=bool) if allowed is None else allowed
            allowed[retired] = False
        elif len(retired):
            excluded = np.concatenate([excluded, retired])
        if taste.strategy is None:
            best = self._popular(query, excluded, allowed)
            return RankedRows(self.impersonal, taste.reason, best.items.tolist(), best.scores.tolist(), None, unknown)
        parts = None
        if query.weights or query.explain:
            parts = factors[:, None] * self._part_vectors(taste)
        vector = self._vector(taste) if parts is None else parts.sum(axis=0)
        begun = Begun(Asked(vector, query.k, excluded), taste.strategy, taste.reason, unknown)
        if allowed is None and not query.diversity and not query.at_most and not query.explain:
            return begun
        best = self._ranked(query, begun.asked, allowed)
        if query.explain and parts is not None:
            return begun.answer(best, self._explanations(best, parts, factors, taste))
        return begun.answer(best)

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """The rows of those items that the artefact has, int64 [any], rising, each once."""
        found = {self.items.dense(item_id) for item_id in item_ids}
        return np.array(sorted(row for row in found if row is not None), dtype=np.int64)

    @property
    def likenesses(self) -> list[str]:
        """What items can be compared by."""
        return [STUDENT, ID, *(name for name in self.lookalikes.modalities if name not in (STUDENT, ID))]

    def similar(
        self, item_id: str, k: int, retired: NDArray[np.int64] = _NO_ITEMS, by: str = STUDENT
    ) -> list[RankedItem]:
        """The items most like one, see :meth:`near`.

        Args:
            item_id: the item, which may be retired itself.
            k: how many are wanted, at least 1.
            retired: rows of items that nobody is to get, of :meth:`rows`.
            by: one of ``likenesses``.

        Raises:
            KeyError: there is no such item.
            UnknownLikenessError: there is no such likeness.
        """
        near = self.near(self._require_item(item_id), k, retired, by)
        return self._named(near.items, near.cosines)

    def near(self, item: int, k: int, retired: NDArray[np.int64], by: str = STUDENT) -> Near:
        """Rows of the items most like one by a cosine: of the student's embeddings, of who took them, or of content.

        By the student all others can be had. By the rest only those of which there is something to compare: who were
        taken by one user at least that took both, or have the modality as the item itself has.

        Raises:
            UnknownLikenessError: ``by`` is none of ``likenesses``.
        """
        cosines = self._cosines(item, by)
        cosines[item] = -np.inf
        return nearest(cosines, k, retired)

    def _cosines(self, item: int, by: str) -> NDArray[np.float32]:
        if by == STUDENT:
            embedding = self.items.vectors(np.array([item]))[0]
            products = np.concatenate([self.artifact.item_embeddings @ embedding, self.live.vectors @ embedding])
            of_student: NDArray[np.float32] = products / (self._lengths * self._lengths[item])
            return of_student
        if by == ID:
            return self.lookalikes.taken_with(item, self.live)
        if by not in self.lookalikes.modalities:
            raise UnknownLikenessError(by, self.likenesses)
        return self.lookalikes.to_item(item, by, self.live)

    def item(self, item_id: str) -> KnownItem:
        """What is known of an item.

        Raises:
            KeyError: there is no such item.
        """
        item = self._require_item(item_id)
        return KnownItem(item_id, int(self._popularity[item]), self.items.metadata(item))

    def user(self, user_id: str, since: SinceTraining = NOTHING) -> KnownUser | None:
        """What the training knew of a user; None if it knew none, or the user was forgotten since."""
        user = self._user(user_id, since)
        if user is None:
            return None
        return KnownUser(user_id, [self.items.outside(item) for item in self.artifact.seen(user).tolist()])

    def _require_item(self, item_id: str) -> int:
        item = self.items.dense(item_id)
        if item is None:
            raise KeyError(item_id)
        return item

    def _user(self, user_id: str | None, since: SinceTraining) -> int | None:
        """The row of a user whom the training knew, and who was not forgotten since; else None."""
        user = None if user_id is None else self.artifact.users.dense(user_id)
        return None if since.outdates(self.forgotten_until) else user

    def _taste(self, query: Query) -> "tuple[_Taste, list[str]]":
        """What is known of who asks, and the items of the history that are unknown."""
        user = self._user(query.user_id, query.since)
        trained = _NO_ITEMS if user is None else self.artifact.seen(user).astype(np.int64)
        known = query.user_id is None or user is not None
        if not query.history and not query.since.taken:
            return _Taste(user, known, trained, _NO_ITEMS, None), []
        taken = query.since.taken
        strengths = {**taken, **{item_id: max(1.0, taken.get(item_id, 0.0)) for item_id in query.history}}
        rows = {item_id: self.items.dense(item_id) for item_id in strengths}
        strength_of = {row: strengths[item_id] for item_id, row in rows.items() if row is not None}
        new = np.setdiff1d(np.fromiter(strength_of, dtype=np.int64, count=len(strength_of)), trained)
        given = np.array([strength_of[row] for row in new.tolist()], dtype=np.float32)
        unknown = [item_id for item_id in dict.fromkeys(query.history) if rows[item_id] is None]
        return _Taste(user, known, trained, new, None if (given == 1).all() else given), unknown

    def _excluded(self, query: Query, taste: "_Taste") -> NDArray[np.int64]:
        """Rows to leave out, in any order and not each once."""
        ids = [*query.exclude_items, *query.since.hidden]
        if not query.exclude_seen:
            return self.rows(ids) if ids else _NO_ITEMS
        ids += query.since.seen
        if not ids and not len(taste.new):
            return taste.trained
        return np.concatenate([self.rows(ids), taste.trained, taste.new])

    def _vector(self, taste: "_Taste") -> NDArray[np.float32]:
        if not len(taste.trained):
            folded: NDArray[np.float32] = self._profile(taste.new, taste.strengths) @ self.artifact.fold_in
            return folded
        own: NDArray[np.float32] = self.artifact.user_embeddings[taste.user]
        if not len(taste.new):
            return own
        moved: NDArray[np.float32] = own + self._move(taste) @ self.artifact.fold_in
        return moved

    def _part_vectors(self, taste: "_Taste") -> NDArray[np.float32]:
        """What ``_vector`` is the sum of, (parts, width); one part, the whole, where the artefact does not say."""
        parts = self.artifact.parts
        if parts is None:
            return self._vector(taste)[None, :]
        if not len(taste.trained):
            return self._profile(taste.new, taste.strengths) @ parts.fold_in
        own: NDArray[np.float32] = parts.users[:, taste.user]
        if not len(taste.new):
            return own
        moved: NDArray[np.float32] = own + self._move(taste) @ parts.fold_in
        return moved

    def _move(self, taste: "_Taste") -> NDArray[np.float32]:
        """How far what is new moves the profile of what was trained, (width,)."""
        return self._profile(*taste.whole()) - self._profile(taste.trained)

    def _factors(self, weights: Mapping[str, float]) -> NDArray[np.float32]:
        if not weights:
            return self._factors_of_1
        for name in weights:
            if name not in self.part_names:
                raise UnknownPartError(name, self.part_names)
        return np.array([weights.get(name, 1.0) for name in self.part_names], dtype=np.float32)

    def _explanations(
        self,
        best: Ranking,
        parts: NDArray[np.float32],
        factors: NDArray[np.float32],
        taste: "_Taste",
    ) -> list[list[PartOfScore]]:
        embeddings = self.items.vectors(best.items).astype(np.float64)
        scores = embeddings @ parts.T.astype(np.float64)
        # The vector that was searched with is the sum of the parts in single precision.
        scores[np.arange(len(scores)), np.abs(scores).argmax(axis=1)] += best.scores - scores.sum(axis=1)
        reasons = self._reasons(embeddings, factors, taste)
        return [
            [
                PartOfScore(name, float(score), reason)
                for name, score, reason in zip(self.part_names, scores[place], reasons[place], strict=True)
            ]
            for place in range(len(scores))
        ]

    def _reasons(
        self, embeddings: NDArray[np.float64], factors: NDArray[np.float32], taste: "_Taste"
    ) -> list[list[str | None]]:
        """For each item and part the history's item that adds most to the score when folded in, if it adds at all."""
        maps = self.artifact.fold_in[None] if self.artifact.parts is None else self.artifact.parts.fold_in
        history, strengths = taste.whole()
        taken = self._weights[history, None] * self.items.vectors(history)
        if strengths is not None:
            taken *= strengths[:, None]
        reasons: list[list[str | None]] = [[] for _ in embeddings]
        for factor, matrix in zip(factors, maps, strict=True):
            gains = factor * ((taken @ matrix) @ embeddings.T)
            for row, best in enumerate(gains.argmax(axis=0)):
                known = self.items.outside(int(history[best])) if gains[best, row] > 0 else None
                reasons[row].append(known)
        return reasons

    def _profile(self, items: NDArray[np.int64], strengths: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        return profile(np.arange(len(items)), self.items.vectors(items), self._weights[items], strengths)

    def _ranked(self, query: Query, asked: Asked, allowed: NDArray[np.bool_] | None) -> Ranking:
        def best(count: int, allowed: NDArray[np.bool_] | None) -> Ranking:
            return self.index.top_k(asked.query, count, asked.excluded, allowed)

        return self._picked(query, best, allowed)

    def _popular(self, query: Query, excluded: NDArray[np.int64], allowed: NDArray[np.bool_] | None) -> Ranking:
        def best(count: int, allowed: NDArray[np.bool_] | None) -> Ranking:
            if allowed is None:
                candidates = self._by_demand[: count + len(excluded)]
            else:
                candidates = self._by_demand[allowed[self._by_demand]]
            rows = candidates[~np.isin(candidates, excluded)][:count]
            return Ranking(rows, self.demand[rows].astype(np.float64))

        return self._picked(query, best, allowed)

    def _picked(self, query: Query, best: Best, allowed: NDArray[np.bool_] | None) -> Ranking:
        if not query.diversity and not query.at_most:
            return best(query.k, allowed)
        picking = Picking(self.items, self._attributes, at_most=query.at_most, diversity=query.diversity)
        return picking.pick(best, query.k, allowed)

    def _named(
        self, rows: list[int], scores: list[float], explanations: list[list[PartOfScore]] | None = None
    ) -> list[RankedItem]:
        return [
            RankedItem(
                self.items.outside(row),
                score,
                rank,
                self.items.metadata(row),
                self.items.reason(row),
                None if explanations is None else explanations[rank - 1],
            )
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
        ]


def _not_zero(lengths_: NDArray[np.float64]) -> NDArray[np.float32]:
    """To divide by."""
    return np.maximum(lengths_, np.finfo(np.float32).tiny).astype(np.float32)
