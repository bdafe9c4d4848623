"""Items that came after the training, and what changed about those it knew: raw inputs, in Redis.

======================================  ============================================================  ==========
key                                     value                                                         lives for
======================================  ============================================================  ==========
``mts4mm:items``                        hash, by item id: metadata and features as JSON               ever
``mts4mm:items:pictures``               hash, by item id: the picture, for those that have one        ever
``mts4mm:items:changed``                sorted set of item ids by the microsecond of their last put   ever
``mts4mm:items:bytes``                  what the two hashes hold in all                               ever
``mts4mm:items:version``                changes with any of them                                      ever
======================================  ============================================================  ==========

Bounded by ``MOST_ITEMS`` and ``MOST_BYTES``. What is kept are inputs, never the student's vectors, which are worth
something with one model only: every reader makes its own from them. A vector that an encoder made is kept with the
encoder's name, so that as long as that is in use nobody encodes again.

The nightly training reads all with :meth:`LiveItems.all`, adds them to its dataset, and, once the models in use know
them, takes them away with :meth:`LiveItems.drop`.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import numpy as np
import redis
from numpy.typing import NDArray

MOST_ITEMS = 10_000
"""Live items at once."""
MOST_BYTES = 256 * 2**20
"""Bytes of live items, their pictures included."""

_ITEMS, _PICTURES, _CHANGED = "mts4mm:items", "mts4mm:items:pictures", "mts4mm:items:changed"
_BYTES, _VERSION = "mts4mm:items:bytes", "mts4mm:items:version"
_KEYS = (_ITEMS, _PICTURES, _CHANGED, _BYTES, _VERSION)
_ITEMS_PER_CALL = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TOO_MANY_ITEMS, _TOO_MANY_BYTES = -1, -2
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")

_PUT = """
local id, item, picture = ARGV[1], ARGV[2], ARGV[3]
local before = redis.call('HSTRLEN', KEYS[1], id)
local grown = #item + #picture - before - redis.call('HSTRLEN', KEYS[2], id)
if before == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
if grown > 0 and tonumber(redis.call('GET', KEYS[4]) or '0') + grown > tonumber(ARGV[5]) then
  return -2
end
redis.call('HSET', KEYS[1], id, item)
if picture == '' then
  redis.call('HDEL', KEYS[2], id)
else
  redis.call('HSET', KEYS[2], id, picture)
end
local time = redis.call('TIME')
local now = string.format('%d%06d', time[1], time[2])
redis.call('ZADD', KEYS[3], now, id)
redis.call('INCRBY', KEYS[4], grown)
redis.call('SET', KEYS[5], ARGV[6])
return tonumber(now)
"""

# What encoders made may take a little more than the bytes that there are to be: it is bounded by the items.
_NOTE = """
for i = 1, #ARGV, 3 do
  local id, item = ARGV[i], ARGV[i + 2]
  if tonumber(redis.call('ZSCORE', KEYS[3], id) or '-1') == tonumber(ARGV[i + 1]) then
    redis.call('INCRBY', KEYS[4], #item - redis.call('HSTRLEN', KEYS[1], id))
    redis.call('HSET', KEYS[1], id, item)
  end
end
"""

_DROP = """
local dropped = 0
for i = 3, #ARGV do
  local changed = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if changed and (ARGV[2] == '' or tonumber(changed) <= tonumber(ARGV[2])) then
    local freed = redis.call('HSTRLEN', KEYS[1], ARGV[i]) + redis.call('HSTRLEN', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
    redis.call('DECRBY', KEYS[4], freed)
    dropped = dropped + 1
  end
end
if dropped > 0 then
  redis.call('SET', KEYS[5], ARGV[1])
end
return dropped
"""


@dataclass(frozen=True)
class Encoded:
    """What an encoder made of an item's words or picture.

    Attributes:
        encoder: which encoder, with its revision.
        values: float32 [width]; None where it found nothing in them.
    """

    encoder: str
    values: NDArray[np.float32] | None


@dataclass(frozen=True)
class LiveItem:
    """An item as it was put.

    Attributes:
        item_id: its outside id.
        metadata: as in a row of the items table.
        features: by modality float32 [d_m], those that were given.
        encoded: by modality, those that an encoder made.
        picture: a JPEG file; None if there is none, or if it was not asked for.
        changed: when it was last put; before it is, anything.
    """

    item_id: str
    metadata: Mapping[str, Any]
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    encoded: Mapping[str, Encoded] = field(default_factory=dict)
    picture: bytes | None = None
    changed: datetime = _EPOCH


class LiveItemsFull(Exception):  # noqa: N818 - the condition that callers handle, not a mistake of theirs
    """There is no room for another live item; the message says what to do."""


class _Call(Protocol):
    def __call__(self, work: Callable[[], _Answer]) -> _Answer: ...


class LiveItems:
    """The live items; part of :class:`~shared.state.UserState`, and as safe and as unavailable as that."""

    def __init__(self, client: redis.Redis, call: _Call) -> None:
        """Take the state's client, and how the state calls it."""
        self._client = client
        self._call = call
        self._put = client.register_script(_PUT)
        self._note = client.register_script(_NOTE)
        self._drop = client.register_script(_DROP)

    def put(self, item: LiveItem, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES) -> datetime:
        """Keep an item, in the place of one of the same id.

        Returns:
            When that was, by the clock of Redis.

        Raises:
            LiveItemsFull: there are too many items or bytes already; the one of the same id stays as it was.
        """
        args: list[Any] = [
            _bytes(item.item_id),
            _payload(item),
            item.picture or b"",
            most_items,
            most_bytes,
            uuid4().hex,
        ]
        answer: int = self._call(lambda: self._put(_KEYS, args))
        if answer == _TOO_MANY_ITEMS:
            raise LiveItemsFull(f"there are {most_items} live items already: {_REMEDY}")
        if answer == _TOO_MANY_BYTES:
            raise LiveItemsFull(f"the live items would take more than {most_bytes} bytes: {_REMEDY}")
        return _time(answer)

    def note(self, items: Iterable[LiveItem]) -> None:
        """Keep what was encoded of items, of those that have not been put again meanwhile.

        Nobody is told: what others know of them stays right, and who reads them anew need not encode them.
        """
        for some in _batched(list(items)):
            args: list[Any] = []
            for item in some:
                args += [_bytes(item.item_id), _microseconds(item.changed), _payload(item)]
            self._call(partial(self._note, _KEYS, args))

    def drop(self, item_ids: Iterable[str], changed_until: datetime | None = None) -> int:
        """Take items away, each of them only if it has not been put again after ``changed_until``.

        Returns:
            How many there were of them.
        """
        until = "" if changed_until is None else str(_microseconds(changed_until))
        dropped = 0
        for some in _batched(list(item_ids)):
            args: list[Any] = [uuid4().hex, until, *map(_bytes, some)]
            dropped += self._call(partial(self._drop, _KEYS, args))
        return dropped

    def version(self) -> str | None:
        """What changes whenever a live item does; ``None`` where there never was one."""
        version: Any = self._call(lambda: self._client.get(_VERSION))
        return None if version is None else str(version, "ascii")

    def changes(self) -> dict[str, datetime]:
        """When each live item was last put."""
        found: Any = self._call(lambda: self._client.zrange(_CHANGED, 0, -1, withscores=True))
        return {_text(item_id): _time(int(score)) for item_id, score in found}

    def get(self, item_ids: Sequence[str], *, pictures: bool = False) -> list[LiveItem]:
        """Read those of some items that are there, with their pictures if wanted."""
        if not item_ids:
            return []
        fields = [_bytes(item_id) for item_id in item_ids]
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(_ITEMS, fields)
        pipeline.zmscore(_CHANGED, fields)  # type: ignore[arg-type]
        if pictures:
            pipeline.hmget(_PICTURES, fields)
        answers: list[list[Any]] = self._call(pipeline.execute)
        payloads, scores = answers[0], answers[1]
        shown = answers[2] if pictures else [None] * len(fields)
        return [
            _item(item_id, payload, picture, _time(int(score)))
            for item_id, payload, picture, score in zip(item_ids, payloads, shown, scores, strict=True)
            if payload is not None
        ]

    def picture(self, item_id: str) -> bytes | None:
        """The picture of an item; ``None`` if there is no such item or it has none."""
        found: Any = self._call(lambda: self._client.hget(_PICTURES, _bytes(item_id)))
        return None if found is None else bytes(found)

    def all(self, *, pictures: bool = False) -> Iterator[LiveItem]:
        """Iterate over the live items, in the order in which they were last put, a hundred a round trip."""
        for some in _batched(list(self.changes())):
            yield from self.get(some, pictures=pictures)


_REMEDY = "train, so that the model knows them, or delete some"


def _payload(item: LiveItem) -> bytes:
    document = {
        "metadata": item.metadata,
        "features": {name: _packed(values) for name, values in item.features.items()},
        "encoded": {
            name: [made.encoder, None if made.values is None else _packed(made.values)]
            for name, made in item.encoded.items()
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _item(item_id: str, payload: bytes, picture: bytes | None, changed: datetime) -> LiveItem:
    document = json.loads(payload)
    return LiveItem(
        item_id=item_id,
        metadata=document["metadata"],
        features={name: _unpacked(values) for name, values in document["features"].items()},
        encoded={
            name: Encoded(encoder, None if values is None else _unpacked(values))
            for name, (encoder, values) in document["encoded"].items()
        },
        picture=picture,
        changed=changed,
    )


def _batched(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _ITEMS_PER_CALL):
        yield items[start : start + _ITEMS_PER_CALL]


def _packed(values: NDArray[np.float32]) -> str:
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


def _unpacked(packed: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(packed), dtype="<f4")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
