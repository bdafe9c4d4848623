"""The live items of one service process: followed in Redis, and made into tables for the models that answer."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from service.engine import Engine
from service.live_table import LiveTable
from shared.errors import UserError
from shared.state import Encoded, LiveItem, LiveItems

_log = logging.getLogger(__name__)


class LiveCatalogue:
    """The live items as of the last look; safe from any number of threads."""

    def __init__(self) -> None:
        self._items: Mapping[str, LiveItem] = {}
        self._version: str | None = None
        self._joining = threading.Lock()
        self._joined: tuple[Engine, Mapping[str, LiveItem], Engine] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str) -> LiveItem | None:
        """An item as it was put, without its picture; None if it was not."""
        return self._items.get(item_id)

    def follow(self, state: LiveItems, engine: Engine | None) -> None:
        """Read what has changed, encode what the engine's encoders have not yet, and have its table ready.

        Raises:
            StateUnavailable: the items stay as they were.
        """
        version = state.version()
        if version != self._version:
            changes = state.changes()
            kept = {item_id: item for item_id, item in self._items.items() if changes.get(item_id) == item.changed}
            found = state.get([item_id for item_id in changes if item_id not in kept])
            self._items = kept | {item.item_id: item for item in found}
            self._version = version
        if engine is None or not self._items:
            return
        encoded = {
            item.item_id: replace(item, encoded={**item.encoded, **_encoded(state, engine, item)})
            for item in self._items.values()
            if engine.content.missing(item)
        }
        if encoded:
            self._items = {**self._items, **encoded}
        self.joined(engine)

    def at_hand(self, engine: Engine) -> Engine | None:
        """What :meth:`joined` gives, if that is ready; at once."""
        items, known = self._items, self._joined
        if not items:
            return engine
        return known[2] if known is not None and known[0] is engine and known[1] is items else None

    def joined(self, engine: Engine) -> Engine:
        """The engine with the live items; itself if there are none."""
        ready = self.at_hand(engine)
        if ready is not None:
            return ready
        items = self._items
        with self._joining:
            known = self._joined
            if known is None or known[0] is not engine or known[1] is not items:
                known = self._joined = (engine, items, engine.with_live(_table(engine, items)))
            return known[2]


def _table(engine: Engine, items: Mapping[str, LiveItem]) -> LiveTable:
    ids, features, metadata, changed = [], [], [], {}
    for item_id, item in items.items():
        row = engine.artifact.items.dense(item_id)
        if row is not None:
            changed[row] = dict(item.metadata)
        elif found := engine.content.features(item):
            ids.append(item_id)
            features.append(found)
            metadata.append(dict(item.metadata))
    units = engine.lookalikes.units(features)
    return LiveTable(ids, engine.content.vectors(features), metadata, changed, units)


def _encoded(state: LiveItems, engine: Engine, item: LiveItem) -> Mapping[str, Encoded]:
    """What another model than the one at its put makes of an item."""
    try:
        return engine.content.encoded(replace(item, picture=state.picture(item.item_id)))
    except UserError as error:
        _log.error("item %s is not encoded anew: %s", item.item_id, error)
        return {}
