"""Takes events back: out of the log that is trained on, and out of what the service knows of their users."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from shared.events import Event
from shared.state import UserState
from trainer.nightly.drain import StateOpener, drain, patiently, waiting
from trainer.nightly.event_log import SCHEMA, EventLog, Selection, as_frame

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

    A dry run counts them all, and leaves those that wait where they are.

    Raises:
        UserError: Redis does not answer.
    """
    with open_state() as state:
        if dry_run:
            return _counted(pl.concat([log.remove(selection, dry_run=True), _waiting(state, log, selection)]))
        drain(state, log)
        found = log.remove(selection, dry_run=True)
        known = _retract(state, found)
    log.remove(selection)
    return _counted(found, known)


def _waiting(state: UserState, log: EventLog, selection: Selection) -> pl.DataFrame:
    """What a drain would bring of the selection."""
    found = [as_frame(events).filter(selection.matches()) for events in waiting(state)]
    return log.new_among(pl.concat([pl.DataFrame(schema=SCHEMA), *found]))


def _counted(found: pl.DataFrame, known: int = 0) -> Removed:
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
