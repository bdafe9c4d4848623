"""The live items of one service process: followed in Redis, and made into tables for the models that answer."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from service.engine import Engine
from service.live_table import LiveTable
from shared.errors import UserError
from shared.item_tower import Features
from shared.state import Encoded, LiveItem, LiveItems

ENCODE_SECONDS = 5.0
"""How long is encoded before what was made of it is shown: each time makes the table anew."""

_log = logging.getLogger(__name__)


class _Joined(NamedTuple):
    """Live items, and the engine that they were joined to.

    Attributes:
        base: the engine without them.
        items: by id.
        engine: the one with them; the base where there is a problem.
        problem: why they could not be joined; None if they could.
    """

    base: Engine
    items: Mapping[str, LiveItem]
    engine: Engine
    problem: str | None


class LiveCatalogue:
    """The live items as of the last look; safe from any number of threads."""

    def __init__(self) -> None:
        self._items: Mapping[str, LiveItem] = {}
        self._version: str | None = None
        self._changing = threading.Lock()
        self._joining = threading.Lock()
        self._looked_at: tuple[Engine, Mapping[str, LiveItem]] | None = None
        self._joined: _Joined | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    @property
    def problem(self) -> str | None:
        """Why the live items are in no answer; None if they are, as far as they can be placed."""
        known = self._joined
        return None if known is None else known.problem

    def get(self, item_id: str) -> LiveItem | None:
        """An item as it was put, without its picture; None if it was not."""
        return self._items.get(item_id)

    def follow(self, state: LiveItems, engine: Engine | None) -> None:
        """Read what has changed, and have the engine's table ready.

        Raises:
            StateUnavailable: the items stay as they were.
        """
        version = state.version()
        if version != self._version:
            changes, known = state.changes(), self._items
            new = [name for name, changed in changes.items() if name not in known or known[name].changed != changed]
            found = {item.item_id: item for item in state.get(new)}
            with self._changing:
                kept = {name: item for name, item in self._items.items() if changes.get(name) == item.changed}
                self._items = kept | found
            self._version = version
        if engine is not None:
            self.joined(engine)

    def encode(self, state: LiveItems, engine: Engine, stopping: threading.Event) -> bool:
        """Encode, for some seconds, what only other models' encoders have; it is kept for the other processes.

        Returns:
            Whether there is more of it.

        Raises:
            StateUnavailable: the pictures cannot be had, or what was made is known here alone.
        """
        items = self._items
        if self._looked_at is not None and self._looked_at[0] is engine and self._looked_at[1] is items:
            return False
        made, more = {}, False
        deadline = time.monotonic() + ENCODE_SECONDS
        for item in items.values():
            if more := stopping.is_set() or time.monotonic() >= deadline:
                break
            if missing := engine.content.missing(item):
                made[item.item_id] = _encoded(state, engine, item, missing)
        if made:
            with self._changing:
                self._items = {
                    name: made[name] if item is items.get(name) and name in made else item
                    for name, item in self._items.items()
                }
            self.joined(engine)
            state.note(made.values())
        elif not more:
            self._looked_at = (engine, items)
        return more

    def at_hand(self, engine: Engine) -> Engine | None:
        """The engine with the live items as they were last joined to it; None if none were yet. At once.

        Who puts an item waits in :meth:`follow` until it is among them; nobody else needs to.
        """
        known = self._joined
        if not self._items:
            return engine
        return known.engine if known is not None and known.base is engine else None

    def joined(self, engine: Engine) -> Engine:
        """The engine with the live items; itself if there are none, and then no other is held any longer.

        It is itself, too, where the model comes to grief over them, see ``problem``; every look tries again.
        """
        with self._joining:
            items, known = self._items, self._joined
            if not items:
                self._joined = None
                return engine
            if known is None or known.base is not engine or known.items is not items or known.problem:
                known = self._joined = self._join(engine, items)
            return known.engine

    def _join(self, engine: Engine, items: Mapping[str, LiveItem]) -> _Joined:
        try:
            return _Joined(engine, items, engine.with_live(_table(engine, items, self._joined)), None)
        except Exception as error:  # whatever is wrong with a model's tower, all that it knows can be answered
            problem = str(error) if isinstance(error, UserError) else repr(error)
            if problem != self.problem:
                _log.exception("live items are in no answer")
            return _Joined(engine, items, engine, problem)


def _table(engine: Engine, items: Mapping[str, LiveItem], last: _Joined | None) -> LiveTable:
    """The table of all items. Of those that stand as they are in the last one of the same engine, it has the rows."""
    before, kept = engine.live, {}
    if last is not None and last.base is engine:
        before = last.engine.live
        kept = {name: row for row, name in enumerate(before.ids) if items.get(name) is last.items[name]}
    features: list[Features] = []
    ids, rows, metadata, changed = [], [], [], {}
    for item_id, item in items.items():
        if (known := kept.get(item_id)) is not None:
            ids.append(item_id)
            rows.append(known)
            metadata.append(before.metadata[known])
        elif (trained := engine.artifact.items.dense(item_id)) is not None:
            changed[trained] = dict(item.metadata)
        elif found := engine.content.features(item):
            ids.append(item_id)
            rows.append(len(before.ids) + len(features))
            metadata.append(dict(item.metadata))
            features.append(found)
    order = np.array(rows, np.int64)
    vectors = np.concatenate([before.vectors, engine.content.vectors(features)])[order]
    units = {
        name: np.concatenate([before.units.get(name, made[:0]), made])[order]
        for name, made in engine.lookalikes.units(features).items()
    }
    return LiveTable(ids, vectors, metadata, changed, units)


def _encoded(state: LiveItems, engine: Engine, item: LiveItem, modalities: Sequence[str]) -> LiveItem:
    """The item with what the engine's encoders make of it: nothing where one cannot, so that it is not asked again."""
    whole = replace(item, picture=state.picture(item.item_id))
    encoded = dict(item.encoded)
    for name in modalities:
        try:
            encoded[name] = engine.content.encoded(whole, name)
        except UserError as error:
            _log.error("%s of item %s is not encoded anew: %s", name, item.item_id, error)
            encoded[name] = Encoded(engine.content.encoder_name(name), None)
    return replace(item, encoded=encoded)
