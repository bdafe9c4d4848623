"""What can be asked of the engine, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from service.filters import Condition
from service.recent import NOTHING, SinceTraining

ItemReason = Literal["cold_item"]
Strategy = Literal["personal", "history", "trending", "popular"]
Reason = Literal["trained", "trained_and_new_events", "folded_in", "unknown_user", "no_events"]

STUDENT = "student"
"""Items are alike by the student's vectors, which the item tower gives for what the training did not see."""
ID = "id"
"""Items are alike by who took them in the training."""


@dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
        user_id: an id from outside, known or not; None for an anonymous visitor.
        history: item ids that count as taken, besides those of the training; unknown ones are ignored.
        k: how many items are wanted, at least 1.
        exclude_seen: whether items of the training and of the history are left out.
        exclude_items: further item ids to leave out; unknown ones are ignored.
        filter: conditions on attributes, all of which an item must meet.
        diversity: 0 ranks by score, 1 by being unlike the items ranked before.
        at_most: by attribute, how many items of one value there may be.
        weights: a factor by part of the user's vector; 1 for those not named.
        explain: whether items come with what their score is the sum of.
        since: what the user did since the training.
    """

    user_id: str | None = None
    history: Sequence[str] = ()
    k: int = 20
    exclude_seen: bool = True
    exclude_items: Sequence[str] = ()
    filter: Mapping[str, Condition] = field(default_factory=dict)
    diversity: float = 0.0
    at_most: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    explain: bool = False
    since: SinceTraining = NOTHING


class UnknownPartError(LookupError):
    """A weight names a part that the model does not have."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = known


class UnknownLikenessError(LookupError):
    """Items are to be compared by something that the model does not have of them."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.known = known


@dataclass(frozen=True)
class PartOfScore:
    """What one part of the user's vector adds to an item's score.

    ``because`` is the item of the user's that the part owes most of that to; None where none speaks for it.
    """

    part: str
    score: float
    because: str | None


@dataclass(frozen=True)
class RankedItem:
    """An item of a recommendation.

    ``score`` is the inner product with the user's vector, or the number of training interactions (popular), older ones
    counting less (trending); of similar items it is the cosine. ``rank`` counts from 1. ``reason`` is ``cold_item`` for
    one that came after the training, whose vector its content alone gives.
    """

    item_id: str
    score: float
    rank: int
    metadata: dict[str, Any] | None
    reason: ItemReason | None = None
    explanation: list[PartOfScore] | None = None


@dataclass(frozen=True)
class Recommendation:
    """The ranked items for one user, how and why they were found, and the ids of the history that are unknown."""

    strategy: Strategy
    reason: Reason
    items: list[RankedItem]
    unknown_items: list[str]


class RankedRows(NamedTuple):
    """The same before the items are named: rows of the engine's items, best first, and the scores of each.

    ``explanations`` are there where they were asked for and there are any, an item's at the place of its row.
    """

    strategy: Strategy
    reason: Reason
    rows: list[int]
    scores: list[float]
    explanations: list[list[PartOfScore]] | None
    unknown_items: list[str]


@dataclass(frozen=True)
class KnownItem:
    """What the artefact knows of an item; ``popularity`` counts its training interactions."""

    item_id: str
    popularity: int
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class KnownUser:
    """What the artefact knows of a user: the items of their training interactions."""

    user_id: str
    items: list[str]
