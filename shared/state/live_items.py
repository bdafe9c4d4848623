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
them, takes them away with :meth:`LiveItems.drop`. So does :meth:`~shared.state.UserState.retire_items`.
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

from shared.state.item_scripts import (
    CHANGED,
    CHANGES,
    DROP,
    ITEM_KEYS,
    ITEMS,
    ITEMS_VERSION,
    NOTE,
    PICTURES,
    PUT,
    TOO_MANY_BYTES,
    TOO_MANY_ITEMS,
)

MOST_ITEMS = 10_000
"""Live items at once."""
MOST_BYTES = 256 * 2**20
"""Bytes of live items, their pictures included."""

_ITEMS_PER_CALL = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


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
        self._put = client.register_script(PUT)
        self._note = client.register_script(NOTE)
        self._drop = client.register_script(DROP)

    def put(self, item: LiveItem, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES) -> datetime:
        """Keep an item, in the place of one of the same id, restore it if it is retired, and tell every service.

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
            CHANGES,
        ]
        answer: int = self._call(lambda: self._put(ITEM_KEYS, args))
        if answer == TOO_MANY_ITEMS:
            raise LiveItemsFull(f"there are {most_items} live items already: {_REMEDY}")
        if answer == TOO_MANY_BYTES:
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
            self._call(partial(self._note, ITEM_KEYS, args))

    def drop(self, item_ids: Iterable[str], changed_until: datetime | None = None) -> int:
        """Take items away, each of them only if it has not been put again after ``changed_until``.

        Returns:
            How many there were of them.
        """
        until = "" if changed_until is None else str(_microseconds(changed_until))
        dropped = 0
        for some in _batched(list(item_ids)):
            args: list[Any] = [uuid4().hex, until, *map(_bytes, some)]
            dropped += self._call(partial(self._drop, ITEM_KEYS, args))
        return dropped

    def version(self) -> str | None:
        """What changes whenever a live item does; ``None`` where there never was one."""
        version: Any = self._call(lambda: self._client.get(ITEMS_VERSION))
        return None if version is None else str(version, "ascii")

    def changes(self) -> dict[str, datetime]:
        """When each live item was last put."""
        found: Any = self._call(lambda: self._client.zrange(CHANGED, 0, -1, withscores=True))
        return {_text(item_id): _time(int(score)) for item_id, score in found}

    def get(self, item_ids: Sequence[str], *, pictures: bool = False) -> list[LiveItem]:
        """Read those of some items that are there, with their pictures if wanted."""
        if not item_ids:
            return []
        fields = [_bytes(item_id) for item_id in item_ids]
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(ITEMS, fields)
        pipeline.zmscore(CHANGED, fields)  # type: ignore[arg-type]
        if pictures:
            pipeline.hmget(PICTURES, fields)
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
        found: Any = self._call(lambda: self._client.hget(PICTURES, _bytes(item_id)))
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
