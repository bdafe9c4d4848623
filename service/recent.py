"""What a user's recent events say: which items were taken, and how much that counts; which are not wanted."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shared.events import FULL_WEIGHT
from shared.state import RecentEvents


@dataclass(frozen=True)
class SinceTraining:
    """What a user did since the training.

    Attributes:
        taken: item ids, and how much each counts as taste, above zero; 1 is an interaction of the training.
        seen: item ids that count as seen and say nothing of taste.
        hidden: item ids that the user does not want to see.
        forgotten_at: when the user was last forgotten, if ever.
    """

    taken: Mapping[str, float] = field(default_factory=dict)
    seen: Collection[str] = ()
    hidden: Collection[str] = ()
    forgotten_at: datetime | None = None

    def outdates(self, forgotten_until: datetime | None) -> bool:
        """Whether the user was forgotten since a model was trained, so that nothing it knows of them is used.

        ``forgotten_until`` is the model's, see ``shared/forgotten.py``; one that does not say is not trusted.
        """
        if self.forgotten_at is None:
            return False
        return forgotten_until is None or self.forgotten_at > forgotten_until


NOTHING = SinceTraining()


def since_training(recent: RecentEvents, weights: Mapping[str, float]) -> SinceTraining:
    """Weigh a user's events.

    An item counts as much as the strongest event on it. One that the user hid counts not at all, until an event of
    full weight on it that is as new.

    Args:
        recent: the events.
        weights: by event type, see :data:`shared.events.DEFAULT_WEIGHTS`; a type without one is of weight 0.
    """
    if not recent.events and not recent.hidden:
        return NOTHING if recent.forgotten_at is None else SinceTraining(forgotten_at=recent.forgotten_at)
    hidden = set(recent.hidden)
    taken: dict[str, float] = {}
    seen: set[str] = set()
    for item_id, type_, timestamp, weight in recent.events:
        of_type = weights.get(type_, 0.0)
        if of_type >= FULL_WEIGHT and item_id in hidden and timestamp >= recent.hidden[item_id]:
            hidden.discard(item_id)
        if of_type > 0:
            strength = of_type if weight is None else of_type * weight
            taken[item_id] = max(strength, taken.get(item_id, 0.0))
        else:
            seen.add(item_id)
    for item_id in hidden:
        taken.pop(item_id, None)
    return SinceTraining(taken, seen, hidden, recent.forgotten_at)
