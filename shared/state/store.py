"""The user state in Redis: every key it uses, and all that is ever done to them.

======================================  ========================================================  ================
key                                     value                                                     lives for
======================================  ========================================================  ================
``mts4mm:recent:<digest of user id>``   sorted set of events, the ``MOST_RECENT`` newest          ``STATE_TTL``
``mts4mm:event:<digest of event id>``   empty: the event has been counted                         ``EVENT_TTL``
``mts4mm:forgotten:<digest of user>``   when the user was forgotten, and the user id              ``TOMBSTONE_TTL``
``mts4mm:arrivals``                     counts events, for the order among equal timestamps       ``STATE_TTL``
``mts4mm:retired``                      set of item ids; at most the items there ever were        ever
``mts4mm:retired:version``              changes with the set                                      ever
``mts4mm:items``...                     see :mod:`shared.state.live_items`                        ever
======================================  ========================================================  ================

An id from outside is in a key as the hexadecimal BLAKE2b digest (160 bits) of its UTF-8 bytes: of one length, of
plain characters, and no two ids share a key. Redis must not evict (``maxmemory-policy noeviction``, its
default): an evicted tombstone would bring a forgotten user back. Scripts touch keys of several users at once, so
it is one Redis, not a cluster.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

import redis
from redis.client import Pipeline

from shared.events import Event
from shared.state.breaker import Breaker
from shared.state.embedded import EmbeddedServer
from shared.state.live_items import LiveItems

MOST_RECENT = 200
"""Events kept of a user; the training has the others."""
STATE_TTL = timedelta(days=30)
"""How long a user's events outlive the last of them. By then the training has had them thirty times."""
EVENT_TTL = timedelta(days=7)
"""How long an event that is sent again is recognised."""
TOMBSTONE_TTL = timedelta(days=365)
"""How long a forgotten user is known as one.

It has to outlive every model that still knows the user: a nightly training that failed for weeks, and a rollback to
an older model. A year does, and bounds what is kept of somebody who asked to be forgotten.
"""

_RECENT, _EVENT, _FORGOTTEN = "mts4mm:recent:", "mts4mm:event:", "mts4mm:forgotten:"
_ARRIVALS, _RETIRED, _RETIRED_VERSION = "mts4mm:arrivals", "mts4mm:retired", "mts4mm:retired:version"
_SCAN_COUNT = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Answer = TypeVar("_Answer")

# The one write that can fail for what is stored already, ZADD, comes before the one that marks the event as counted.
_RECORD = """
local recorded = {}
for i = 1, (#KEYS - 1) / 3 do
  local event, recent, tombstone = KEYS[3 * i - 1], KEYS[3 * i], KEYS[3 * i + 1]
  local timestamp, payload = ARGV[2 * i + 2], ARGV[2 * i + 3]
  local forgotten = redis.call('GET', tombstone)
  recorded[i] = 0
  if redis.call('EXISTS', event) == 0
      and not (forgotten and tonumber(timestamp) <= tonumber(string.match(forgotten, '^%d+'))) then
    local arrival = string.format('%016d', redis.call('INCR', KEYS[1]))
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    redis.call('ZADD', recent, timestamp, arrival .. payload)
    redis.call('ZREMRANGEBYRANK', recent, 0, -ARGV[1] - 1)
    redis.call('EXPIRE', recent, ARGV[2])
    redis.call('SET', event, '', 'EX', ARGV[3])
    recorded[i] = 1
  end
end
return recorded
"""

# One string for all events of a user: the client takes long to read many short ones.
_READ = """
local answers = {}
for i = 1, #KEYS, 2 do
  local events = redis.call('ZREVRANGE', KEYS[i], 0, -1)
  for j, member in ipairs(events) do
    events[j] = string.sub(member, 17)
  end
  answers[i] = table.concat(events, ',')
  answers[i + 1] = redis.call('GET', KEYS[i + 1])
end
return answers
"""


class RecentEvent(NamedTuple):
    """What the state keeps of an :class:`~shared.events.Event`."""

    item_id: str
    type: str
    timestamp: datetime
    weight: float | None


@dataclass(frozen=True, slots=True)
class RecentEvents:
    """A user's newest events, by timestamp and then arrival, and when the user was last forgotten, if ever."""

    events: list[RecentEvent]
    forgotten_at: datetime | None


@dataclass(frozen=True, slots=True)
class RetiredItems:
    """The items that are not to be recommended any more, and the version of that set (``None``: never changed)."""

    item_ids: frozenset[str]
    version: str | None


class UserState:
    """The user state; a method is one round trip, and raises :class:`StateUnavailable` where Redis fails.

    Safe from any number of threads. Recovers by itself when Redis does; an embedded server that died is started.

    Attributes:
        live_items: items that came after the training.
    """

    def __init__(self, client: redis.Redis, server: EmbeddedServer | None = None) -> None:
        """Take a client that gives bytes; nothing is sent before the first call.

        Args:
            client: connects with short timeouts and does not retry.
            server: the embedded server behind the client, if it is one.
        """
        self._client = client
        self._server = server
        self._breaker = Breaker()
        self._record = client.register_script(_RECORD)
        self._read = client.register_script(_READ)
        self.live_items = LiveItems(client, self._call)

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._breaker.closed

    def ping(self) -> None:
        """Ask Redis whether it is there."""
        self._call(self._client.ping)

    def record(self, events: Sequence[Event]) -> list[bool]:
        """Count events, each entirely or not at all, and all of them at once for a reader.

        Returns:
            ``[len(events)]``: ``False`` for an event whose id was counted before, in this list too, and for one from
            before its user was last forgotten, which stays forgotten.
        """
        if not events:
            return []
        keys = [_ARRIVALS]
        args: list[int | str] = [MOST_RECENT, _seconds(STATE_TTL), _seconds(EVENT_TTL)]
        for event in events:
            user = _digest(event.user_id)
            keys += [_EVENT + _digest(event.event_id), _RECENT + user, _FORGOTTEN + user]
            microseconds = _microseconds(event.timestamp)
            args += [microseconds, _compact([event.item_id, event.type, microseconds, event.weight])]
        recorded: list[int] = self._call(lambda: self._record(keys, args))
        return [flag == 1 for flag in recorded]

    def recent(self, user_ids: Sequence[str]) -> list[RecentEvents]:
        """Return what is known of users, in the order asked for; of an unknown one, nothing."""
        if not user_ids:
            return []
        digests = [_digest(user_id) for user_id in user_ids]
        keys = [prefix + digest for digest in digests for prefix in (_RECENT, _FORGOTTEN)]
        answers: list[Any] = self._call(lambda: self._read(keys))
        return [
            RecentEvents(_events(events), None if tombstone is None else _tombstone(tombstone)[1])
            for events, tombstone in zip(answers[::2], answers[1::2], strict=True)
        ]

    def forget(self, user_id: str) -> datetime:
        """Delete all that is known of a user, and remember when, see ``TOMBSTONE_TTL``.

        Returns:
            The time: what the user did up to then, a model has to be newer to have left out.
        """
        now = datetime.now(UTC)
        digest = _digest(user_id)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.delete(_RECENT + digest)
        pipeline.set(_FORGOTTEN + digest, b"%d %s" % (_microseconds(now), _bytes(user_id)), ex=TOMBSTONE_TTL)
        self._call(pipeline.execute)
        return now

    def forgotten(self) -> Iterator[tuple[str, datetime]]:
        """Iterate over the users that were forgotten and when, for the training to leave them out.

        Reads through all keys, a thousand a round trip: for a nightly job, not for a request. A user who is there
        throughout comes at least once, and twice if Redis rearranges its keys meanwhile.
        """
        cursor, keys = self._scan(0)
        yield from self._tombstones(keys)
        while cursor != 0:
            cursor, keys = self._scan(cursor)
            yield from self._tombstones(keys)

    def retire_items(self, item_ids: Iterable[str]) -> None:
        """Mark items as not to be recommended any more. Retiring one twice is retiring it once."""
        self._change_retired(lambda pipeline, items: pipeline.sadd(_RETIRED, *items), item_ids)

    def restore_items(self, item_ids: Iterable[str]) -> None:
        """Take the mark of :meth:`retire_items` away."""
        self._change_retired(lambda pipeline, items: pipeline.srem(_RETIRED, *items), item_ids)

    def retired(self) -> RetiredItems:
        """Return the retired items, and the version to compare :meth:`retired_version` with."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.smembers(_RETIRED)
        pipeline.get(_RETIRED_VERSION)
        items, version = self._call(pipeline.execute)
        return RetiredItems(frozenset(_text(item) for item in items), None if version is None else _text(version))

    def retired_version(self) -> str | None:
        """Return the version of the retired items alone, for who asks often."""
        version: Any = self._call(lambda: self._client.get(_RETIRED_VERSION))
        return None if version is None else _text(version)

    def close(self) -> None:
        """Let go of the connections, and of the embedded server if it is one."""
        self._client.close()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, work: Callable[[], _Answer]) -> _Answer:
        return self._breaker.call(lambda: self._attempt(work))

    def _attempt(self, work: Callable[[], _Answer]) -> _Answer:
        if self._server is not None and not self._breaker.closed:
            self._server.ensure_running()
        return work()

    def _scan(self, cursor: int) -> tuple[int, list[bytes]]:
        found: Any = self._call(lambda: self._client.scan(cursor, f"{_FORGOTTEN}*", _SCAN_COUNT))
        return found[0], found[1]

    def _tombstones(self, keys: list[bytes]) -> list[tuple[str, datetime]]:
        values: Any = self._call(lambda: self._client.mget(keys)) if keys else []
        return [_tombstone(value) for value in values if value is not None]

    def _change_retired(self, change: Callable[[Pipeline, list[bytes]], object], item_ids: Iterable[str]) -> None:
        items = [_bytes(item_id) for item_id in item_ids]
        if not items:
            return
        pipeline = self._client.pipeline(transaction=True)
        change(pipeline, items)
        # A counter would start again where Redis lost its data, and might then repeat a version.
        pipeline.set(_RETIRED_VERSION, uuid4().hex)
        self._call(pipeline.execute)


def _bytes(text: str) -> bytes:
    """Encode text; half a surrogate pair, which no event has but a look-up may, is no error."""
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def _digest(id_: str) -> str:
    return blake2b(_bytes(id_), digest_size=20).hexdigest()


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _events(joined: bytes) -> list[RecentEvent]:
    return [
        RecentEvent(item_id, type_, _EPOCH + timedelta(microseconds=microseconds), weight)
        for item_id, type_, microseconds, weight in json.loads(b"[%s]" % joined)
    ]


def _tombstone(stored: bytes) -> tuple[str, datetime]:
    microseconds, _, user_id = stored.partition(b" ")
    return _text(user_id), _EPOCH + timedelta(microseconds=int(microseconds))
