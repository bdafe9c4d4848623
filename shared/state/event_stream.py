"""The reading end of the stream of events: what the nightly job takes out of Redis, and then away.

The writing end is the script of :mod:`shared.state.store` that counts an event.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import redis

EVENT_STREAM = "mts4mm:events"
"""The stream that the nightly job reads."""
EVENT_FIELD = "e"
"""The field of an entry that holds the event."""
ENTRIES_PER_READ = 1000

_Answer = TypeVar("_Answer")


class Entry(NamedTuple):
    """An entry of the stream: its id, and the event as :func:`shared.events.encode` wrote it."""

    position: str
    line: bytes


class _Call(Protocol):
    def __call__(self, work: Callable[[], _Answer]) -> _Answer: ...


class EventStream:
    """The stream; part of :class:`~shared.state.UserState`, and as safe and as unavailable as that."""

    def __init__(self, client: redis.Redis, call: _Call) -> None:
        """Take the state's client, and how the state calls it."""
        self._client = client
        self._call = call

    def __len__(self) -> int:
        """How many entries wait."""
        return int(self._call(lambda: self._client.xlen(EVENT_STREAM)))

    def read(self, after: str | None) -> list[Entry]:
        """The next entries after a position, or the first ones, in order; ``ENTRIES_PER_READ`` at most."""
        start = "-" if after is None else f"({after}"
        found: Any = self._call(lambda: self._client.xrange(EVENT_STREAM, start, "+", ENTRIES_PER_READ))
        return [Entry(key.decode(), fields.get(EVENT_FIELD.encode(), b"")) for key, fields in found]

    def trim(self, until: str) -> int:
        """Take away all entries up to a position, that one too; returns how many they were."""
        milliseconds, _, number = until.partition("-")
        beyond = f"{milliseconds}-{int(number) + 1}"
        return int(self._call(lambda: self._client.xtrim(EVENT_STREAM, minid=beyond, approximate=False)))
