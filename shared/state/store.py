"""The user state in Redis: every key it uses, and all that is ever done to them.

======================================  ========================================================  ================
key                                     value                                                     lives for
======================================  ========================================================  ================
``mts4mm:recent:<digest of user id>``   sorted set of events, the ``MOST_RECENT`` newest          ``STATE_TTL``
``mts4mm:hidden:<digest of user id>``   sorted set of items, the ``MOST_HIDDEN`` last hidden      ``HIDDEN_TTL``
``mts4mm:event:<digest of event id>``   empty: the event has been counted                         ``EVENT_TTL``
``mts4mm:forgotten:<digest of user>``   when the user was forgotten, and the user id              ``TOMBSTONE_TTL``
``mts4mm:forgotten``                    sorted set of digests of users, by when                   ``TOMBSTONE_TTL``
``mts4mm:arrivals``                     counts events, for the order among equal timestamps       ``STATE_TTL``
``mts4mm:events``                       stream of all events counted, ``MOST_LOGGED`` at most     the nightly job
``mts4mm:retired``                      set of item ids; at most the items there ever were        ever
``mts4mm:retired:version``              changes with the set                                      ever
``mts4mm:items``...                     see :mod:`shared.state.live_items`                        ever
``mts4mm:trial``                        empty: Redis took a write                                 ``TRIAL_TTL``
======================================  ========================================================  ================

The stream has an entry an event with one field, ``e``: the event as :func:`shared.events.encode` writes it. The
nightly job moves it into files and then trims it; where that does not happen for so long that it is full, events are
refused rather than dropped. Whoever changes retired items, live items or models says so on the channel
``mts4mm:changes``.

An id from outside is in a key as the hexadecimal BLAKE2b digest (160 bits) of its UTF-8 bytes: of one length, of
plain characters, and no two ids share a key. Redis must not evict (``maxmemory-policy noeviction``, its
default): an evicted tombstone would bring a forgotten user back. Scripts touch keys of several users at once, so
it is one Redis, not a cluster.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import blake2b
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from uuid import uuid4

import redis

from shared.events import DEFAULT_WEIGHTS, FULL_WEIGHT, Event, encode
from shared.state.breaker import Breaker
from shared.state.changes import Changes
from shared.state.embedded import EmbeddedServer
from shared.state.event_stream import EVENT_STREAM, EventStream
from shared.state.item_scripts import CHANGES, ITEM_KEYS, RETIRE, RETIRED, RETIRED_VERSION
from shared.state.live_items import LiveItems

MOST_RECENT = 200
"""Events kept of a user; the training has the others."""
STATE_TTL = timedelta(days=30)
"""How long a user's events outlive the last of them. By then the training has had them thirty times."""
MOST_HIDDEN = 1000
"""Items kept that a user does not want to see."""
HIDDEN_TTL = timedelta(days=365)
"""How long they outlive the last of them: no training knows of them, so they must last."""
MOST_LOGGED = 5_000_000
"""Events that wait for the nightly job at most; with ids of usual length they take about 1.5 GB."""
MOST_READ = 64
"""Users read in one round trip: with all that is kept of each it takes Redis some 15 ms, in which it answers nobody."""
EVENT_TTL = timedelta(days=7)
"""How long an event that is sent again is recognised."""
TOMBSTONE_TTL = timedelta(days=365)
"""How long a forgotten user is known as one.

It has to outlive every model that still knows the user: nights that failed for weeks, and a rollback to an older
model. A night that does not fail takes the user out of the live model, so a year does, and bounds what is kept of
somebody who asked to be forgotten.
"""
TRIAL_TTL = timedelta(minutes=1)
"""How long a trial outlives the last of them, see :meth:`UserState.try_write`."""

_RECENT, _HIDDEN, _EVENT, _FORGOTTEN = "mts4mm:recent:", "mts4mm:hidden:", "mts4mm:event:", "mts4mm:forgotten:"
_FORGOTTEN_LAST = "mts4mm:forgotten"
_ARRIVALS, _TRIAL = "mts4mm:arrivals", "mts4mm:trial"
_SCAN_COUNT = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Answer = TypeVar("_Answer")

# What can fail for what is stored already comes before what marks the event as counted: sent again, it is counted.
# The log may then have it twice, which whoever reads the log tells by its id.
_RECORD = """
local arrivals, stream = KEYS[1], KEYS[2]
if redis.call('XLEN', stream) + (#KEYS - 2) / 4 > tonumber(ARGV[6]) then
  return redis.error_reply('LOGFULL the log of events is full: run mts4mm nightly')
end
local recorded = {}
for i = 1, (#KEYS - 2) / 4 do
  local event, recent, hidden, tombstone = KEYS[4 * i - 1], KEYS[4 * i], KEYS[4 * i + 1], KEYS[4 * i + 2]
  local timestamp, payload, entry = ARGV[5 * i + 2], ARGV[5 * i + 3], ARGV[5 * i + 4]
  local item, effect = ARGV[5 * i + 5], ARGV[5 * i + 6]
  local forgotten = redis.call('GET', tombstone)
  if redis.call('EXISTS', event) == 1 then
    recorded[i] = 0
  elseif forgotten and tonumber(timestamp) <= tonumber(string.match(forgotten, '^%d+')) then
    recorded[i] = 2
  else
    local arrival = string.format('%016d', redis.call('INCR', arrivals))
    redis.call('EXPIRE', arrivals, ARGV[2])
    redis.call('ZADD', recent, timestamp, arrival .. payload)
    redis.call('ZREMRANGEBYRANK', recent, 0, -ARGV[1] - 1)
    redis.call('EXPIRE', recent, ARGV[2])
    if effect == 'hide' then
      redis.call('ZADD', hidden, 'GT', timestamp, item)
      redis.call('ZREMRANGEBYRANK', hidden, 0, -ARGV[4] - 1)
      redis.call('EXPIRE', hidden, ARGV[5])
    elseif effect == 'show' and tonumber(redis.call('ZSCORE', hidden, item) or 'inf') <= tonumber(timestamp) then
      redis.call('ZREM', hidden, item)
    end
    redis.call('XADD', stream, '*', 'e', entry)
    redis.call('SET', event, '', 'EX', ARGV[3])
    recorded[i] = 1
  end
end
return recorded
"""

_TRY_WRITE = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then
  return redis.error_reply('LOGFULL the log of events is full: run mts4mm nightly')
end
redis.call('SET', KEYS[2], '', 'EX', ARGV[2])
"""

# A member of a user's events is 16 digits of arrival and the payload.
_RETRACT = """
local retracted = 0
for i = 1, #KEYS / 2 do
  local recent, hidden = KEYS[2 * i - 1], KEYS[2 * i]
  local timestamp, payload, item = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', recent, timestamp, timestamp)) do
    if string.sub(member, 17) == payload then
      redis.call('ZREM', recent, member)
      retracted = retracted + 1
      break
    end
  end
  if item ~= '' and tonumber(redis.call('ZSCORE', hidden, item) or '-1') == tonumber(timestamp) then
    redis.call('ZREM', hidden, item)
  end
end
return retracted
"""

# One string for all events of a user: the client takes long to read many short ones.
_READ = """
local answers = {}
for i = 1, #KEYS, 3 do
  local events = redis.call('ZREVRANGE', KEYS[i], 0, -1)
  for j, member in ipairs(events) do
    events[j] = string.sub(member, 17)
  end
  answers[i] = table.concat(events, ',')
  answers[i + 1] = table.concat(redis.call('ZRANGE', KEYS[i + 1], 0, -1, 'WITHSCORES'), ',')
  answers[i + 2] = redis.call('GET', KEYS[i + 2])
end
return answers
"""


class Recorded(IntEnum):
    """What became of an event."""

    REPEATED = 0
    """Its id was counted before, in the same list too."""
    COUNTED = 1
    FORGOTTEN = 2
    """It is from before its user was last forgotten, and stays forgotten."""


class RecentEvent(NamedTuple):
    """What the state keeps of an :class:`~shared.events.Event`."""

    item_id: str
    type: str
    timestamp: datetime
    weight: float | None


@dataclass(frozen=True, slots=True)
class RecentEvents:
    """What is known of a user.

    Attributes:
        events: the newest ones first, by timestamp and then arrival.
        forgotten_at: when the user was last forgotten, if ever.
        hidden: the items that the user does not want to see, and since when.
    """

    events: list[RecentEvent]
    forgotten_at: datetime | None
    hidden: Mapping[str, datetime] = field(default_factory=dict)


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
        event_stream: what the nightly job has not taken yet.
    """

    def __init__(
        self,
        client: redis.Redis,
        server: EmbeddedServer | None = None,
        weights: Mapping[str, float] = DEFAULT_WEIGHTS,
    ) -> None:
        """Take a client that gives bytes; nothing is sent before the first call.

        Args:
            client: connects with short timeouts and does not retry.
            server: the embedded server behind the client, if it is one.
            weights: the types of events that hide an item (below 0), and that take that back (of full weight).
        """
        self._weights = weights
        self._client = client
        self._server = server
        self._breaker = Breaker()
        self._record = client.register_script(_RECORD)
        self._retract = client.register_script(_RETRACT)
        self._read = client.register_script(_READ)
        self._retire = client.register_script(RETIRE)
        self._try_write = client.register_script(_TRY_WRITE)
        self.live_items = LiveItems(client, self._call)
        self.event_stream = EventStream(client, self._call)

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked."""
        return self._breaker.closed

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused at once, because Redis did not answer a moment ago."""
        return self._breaker.refuses

    @property
    def refusal(self) -> str | None:
        """What keeps Redis from taking writes, as it said last; None if nothing is known to. See :meth:`try_write`."""
        return self._breaker.refusal

    def try_write(self) -> None:
        """Write what is worth nothing, to see whether Redis would take an event.

        Raises:
            StateRefused: it would not, which ``refusal`` says from now on.
        """
        self._call(lambda: self._try_write([EVENT_STREAM, _TRIAL], [MOST_LOGGED, _seconds(TRIAL_TTL)]))
        self._breaker.wrote()

    def ping(self) -> None:
        """Ask Redis whether it is there."""
        self._call(self._client.ping)

    def record(self, events: Sequence[Event]) -> list[Recorded]:
        """Count events and log them, each entirely or not at all, and all of them at once for a reader.

        Returns:
            ``[len(events)]``: what became of each.
        """
        if not events:
            return []
        keys = [_ARRIVALS, EVENT_STREAM]
        args: list[int | str] = [MOST_RECENT, _seconds(STATE_TTL), _seconds(EVENT_TTL)]
        args += [MOST_HIDDEN, _seconds(HIDDEN_TTL), MOST_LOGGED]
        for event in events:
            user = digest(event.user_id)
            keys += [_EVENT + digest(event.event_id), _RECENT + user, _HIDDEN + user, _FORGOTTEN + user]
            args += [_microseconds(event.timestamp), _payload(event), encode(event)]
            args += [_compact(event.item_id), self._effect(event.type)]
        recorded: list[int] = self._call(lambda: self._record(keys, args))
        return [Recorded(outcome) for outcome in recorded]

    def retract(self, events: Sequence[Event]) -> int:
        """Take events out of what is known of their users; their ids stay counted, so that none comes in again.

        Returns:
            How many of them were still known.
        """
        keys: list[str] = []
        args: list[int | str] = []
        for event in events:
            user, hides = digest(event.user_id), self._effect(event.type) == "hide"
            keys += [_RECENT + user, _HIDDEN + user]
            args += [_microseconds(event.timestamp), _payload(event), _compact(event.item_id) if hides else ""]
        retracted: int = self._call(lambda: self._retract(keys, args)) if keys else 0
        return retracted

    def recent(self, user_ids: Sequence[str]) -> list[RecentEvents]:
        """Return what is known of users, in the order asked for; of an unknown one, nothing.

        One round trip for ``MOST_READ`` of them.
        """
        starts = range(0, len(user_ids), MOST_READ)
        return [known for start in starts for known in self._recent(user_ids[start : start + MOST_READ])]

    def _recent(self, user_ids: Sequence[str]) -> list[RecentEvents]:
        digests = [digest(user_id) for user_id in user_ids]
        keys = [prefix + user for user in digests for prefix in (_RECENT, _HIDDEN, _FORGOTTEN)]
        answers: list[Any] = self._call(lambda: self._read(keys))
        return [
            RecentEvents(_events(events), None if tombstone is None else _tombstone(tombstone)[1], _hidden(hidden))
            for events, hidden, tombstone in zip(answers[::3], answers[1::3], answers[2::3], strict=True)
        ]

    def forget(self, user_id: str) -> datetime:
        """Delete all that is known of a user, and remember when, see ``TOMBSTONE_TTL``.

        Returns:
            The time: what the user did up to then, a model has to be newer to have left out.
        """
        now = datetime.now(UTC)
        key = digest(user_id)
        pipeline = self._client.pipeline(transaction=True)
        pipeline.delete(_RECENT + key, _HIDDEN + key)
        pipeline.set(_FORGOTTEN + key, b"%d %s" % (_microseconds(now), _bytes(user_id)), ex=TOMBSTONE_TTL)
        pipeline.zadd(_FORGOTTEN_LAST, {key: _microseconds(now)})
        pipeline.zremrangebyscore(_FORGOTTEN_LAST, "-inf", _microseconds(now - TOMBSTONE_TTL))
        pipeline.expire(_FORGOTTEN_LAST, TOMBSTONE_TTL)
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

    def forgotten_after(self, moment: datetime) -> dict[str, datetime]:
        """When users were forgotten, by the :func:`digest` of their ids, if it was after ``moment``.

        Of one round trip, for who asks often; ids are not told, and a year's users take some 100 bytes each.
        """
        found: Any = self._call(
            lambda: self._client.zrange(
                _FORGOTTEN_LAST, f"({_microseconds(moment)}", "+inf", byscore=True, withscores=True
            )
        )
        return {key.decode(): _EPOCH + timedelta(microseconds=int(score)) for key, score in found}

    def retire_items(self, item_ids: Iterable[str]) -> None:
        """Mark items as not to be recommended any more, let go of what was put of them, and tell every service.

        Retiring one twice is retiring it once.
        """
        items = [_bytes(item_id) for item_id in item_ids]
        if items:
            self._call(lambda: self._retire(ITEM_KEYS, [_new_version(), CHANGES, *items]))

    def restore_items(self, item_ids: Iterable[str]) -> None:
        """Take the mark of :meth:`retire_items` away, and tell every service; what was put is not there again."""
        items = [_bytes(item_id) for item_id in item_ids]
        if not items:
            return
        pipeline = self._client.pipeline(transaction=True)
        pipeline.srem(RETIRED, *items)
        pipeline.set(RETIRED_VERSION, _new_version())
        pipeline.publish(CHANGES, b"")
        self._call(pipeline.execute)

    def retired(self) -> RetiredItems:
        """Return the retired items, and the version to compare :meth:`retired_version` with."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.smembers(RETIRED)
        pipeline.get(RETIRED_VERSION)
        items, version = self._call(pipeline.execute)
        return RetiredItems(frozenset(_text(item) for item in items), None if version is None else _text(version))

    def retired_version(self) -> str | None:
        """Return the version of the retired items alone, for who asks often."""
        version: Any = self._call(lambda: self._client.get(RETIRED_VERSION))
        return None if version is None else _text(version)

    def announce(self) -> None:
        """Tell every service that something has changed: models, or items."""
        self._call(lambda: self._client.publish(CHANGES, b""))

    def changes(self) -> Changes:
        """Listen to what :meth:`announce` tells; for one thread."""
        return Changes(self._client, CHANGES)

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

    def _effect(self, type_: str) -> str:
        weight = self._weights.get(type_, 0.0)
        return "hide" if weight < 0 else "show" if weight >= FULL_WEIGHT else ""

    def _scan(self, cursor: int) -> tuple[int, list[bytes]]:
        found: Any = self._call(lambda: self._client.scan(cursor, f"{_FORGOTTEN}*", _SCAN_COUNT))
        return found[0], found[1]

    def _tombstones(self, keys: list[bytes]) -> list[tuple[str, datetime]]:
        values: Any = self._call(lambda: self._client.mget(keys)) if keys else []
        return [_tombstone(value) for value in values if value is not None]


def _new_version() -> str:
    """A counter would start again where Redis lost its data, and might then repeat a version."""
    return uuid4().hex


def _bytes(text: str) -> bytes:
    """Encode text; half a surrogate pair, which no event has but a look-up may, is no error."""
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def digest(id_: str) -> str:
    """What stands for an id in keys, see above."""
    return blake2b(_bytes(id_), digest_size=20).hexdigest()


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _payload(event: Event) -> str:
    return _compact([event.item_id, event.type, _microseconds(event.timestamp), event.weight])


def _events(joined: bytes) -> list[RecentEvent]:
    return [
        RecentEvent(item_id, type_, _EPOCH + timedelta(microseconds=microseconds), weight)
        for item_id, type_, microseconds, weight in json.loads(b"[%s]" % joined)
    ]


def _hidden(joined: bytes) -> dict[str, datetime]:
    if not joined:
        return {}
    flat = json.loads(b"[%s]" % joined)
    return {
        item_id: _EPOCH + timedelta(microseconds=microseconds)
        for item_id, microseconds in zip(flat[::2], flat[1::2], strict=True)
    }


def _tombstone(stored: bytes) -> tuple[str, datetime]:
    microseconds, _, user_id = stored.partition(b" ")
    return _text(user_id), _EPOCH + timedelta(microseconds=int(microseconds))
