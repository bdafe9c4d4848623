"""Takes events back: out of the log that is trained on, and out of what the service knows of their users."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from shared.events import Event
from shared.state import UserState
from trainer.nightly.drain import StateOpener, drain, patiently
from trainer.nightly.event_log import EventLog, Selection

_EVENTS_PER_CALL = 500


@dataclass(frozen=True)
class Removed:
    """How many events, users and items there were, and how many events still counted in answers."""

    events: int
    users: int
    items: int
    known: int = 0


def remove_events(open_state: StateOpener, log: EventLog, selection: Selection, *, dry_run: bool = False) -> Removed:
    """Remove events, those too that wait to be drained; killed and run again, it does what is left.

    Raises:
        UserError: Redis does not answer.
    """
    with open_state() as state:
        drain(state, log)
        found = log.remove(selection, dry_run=True)
        known = 0 if dry_run else _retract(state, found)
    if not dry_run:
        log.remove(selection)
    return Removed(len(found), found["user_id"].n_unique(), found["item_id"].n_unique(), known)


def _retract(state: UserState, found: pl.DataFrame) -> int:
    known = 0
    for some in found.iter_slices(_EVENTS_PER_CALL):
        events = [_event(row) for row in some.iter_rows(named=True)]
        known += patiently(partial(state.retract, events))
    return known


def _event(row: dict[str, Any]) -> Event:
    """As it was when it was taken: what is refused by now can be removed too."""
    return Event.model_construct(**{name: value for name, value in row.items() if value is not None})
