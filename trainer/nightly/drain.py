"""Moves events from the Redis stream into the log: at least once out of Redis, exactly once in the log.

A round reads some of the stream from its beginning, commits them in one step, and only then trims the stream of them.
Whatever is in the stream was not read, or not trimmed since the last kill; the log knows its events by their ids.
Positions tell nothing across drains: another Redis, or a clock that was set back, begins with smaller ones.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared.errors import UserError
from shared.events import Event, decode
from shared.state import StateUnavailable, UserState
from shared.state.event_stream import Entry
from trainer.nightly import fault
from trainer.nightly.event_log import EventLog, as_frame

EVENTS_PER_COMMIT = 50_000
PATIENCE_SECONDS = 60.0
"""How long Redis may be away before the night is given up."""
UNREADABLE = "unreadable.jsonl"
"""Where entries of the stream go that are no events: beside the log, for somebody to look at."""

StateOpener = Callable[[], AbstractContextManager[UserState]]

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Drained:
    """Events that were new to the log, that it had already, and entries that were no events."""

    new: int = 0
    repeated: int = 0
    unreadable: int = 0

    def __add__(self, other: "Drained") -> "Drained":
        return Drained(self.new + other.new, self.repeated + other.repeated, self.unreadable + other.unreadable)


def drain(state: UserState, log: EventLog) -> Drained:
    """Move all that waits.

    Raises:
        UserError: Redis does not answer.
    """
    done = Drained()
    for entries in _rounds(state):
        events, unreadable = _decoded(entries)
        if unreadable:
            _set_aside(log.folder / UNREADABLE, unreadable)
        last = entries[-1].position
        appended = log.append(as_frame(events), last)
        patiently(partial(state.event_stream.trim, last))
        fault.point("log:trimmed")
        done += Drained(appended.new, appended.repeated, len(unreadable))
    return done


def waiting(state: UserState) -> Iterator[list[Event]]:
    """All events that wait, in portions; they go on waiting.

    Raises:
        UserError: Redis does not answer.
    """
    for entries in _rounds(state):
        yield _decoded(entries)[0]


def patiently(call: Callable[[], _Answer], patience: float = PATIENCE_SECONDS) -> _Answer:
    """Ask Redis again until it answers.

    Raises:
        UserError: it does not, for so long.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except StateUnavailable as error:
            if time.monotonic() > deadline:
                raise UserError(f"{error}; is Redis running, and is MTS4MM_REDIS_URL right?") from error
            time.sleep(min(1.0, error.retry_after_seconds))


def _rounds(state: UserState) -> Iterator[list[Entry]]:
    """The stream from its beginning, in portions of a commit."""
    after: str | None = None
    while True:
        portion: list[Entry] = []
        while len(portion) < EVENTS_PER_COMMIT:
            last = portion[-1].position if portion else after
            entries = patiently(partial(state.event_stream.read, last))
            if not entries:
                break
            portion += entries
        if not portion:
            return
        yield portion
        after = portion[-1].position


def _decoded(entries: list[Entry]) -> tuple[list[Event], list[bytes]]:
    events, unreadable = [], []
    for entry in entries:
        try:
            events.append(decode(entry.line))
        except UserError:
            unreadable.append(entry.line)
    return events, unreadable


def _set_aside(path: Path, lines: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
