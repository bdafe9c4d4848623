"""What the console keeps between requests: what it read of the live model, and of the versions it compared."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.console.facets import Facet, Facets
from service.console.search import Lines, Search, line
from service.console.versions import Versions
from service.engine import Engine
from shared import last_night
from shared.artifact import Artifact


@dataclass(frozen=True)
class Reading:
    """One reading of an artefact's catalogue."""

    artifact: Artifact
    search: Search
    facets: list[Facet]


@dataclass(frozen=True)
class Added:
    """One reading of what was put since the training, as an engine has it."""

    engine: Engine
    lines: Lines


class Desk:
    """Read when first asked for, and kept until another model is live. Safe from any number of threads."""

    def __init__(self, store: Path) -> None:
        """Look at ``store`` for versions; it need not exist yet."""
        self.versions = Versions(store)
        self._night = store / last_night.FOLDER
        self._reading: Reading | None = None
        self._added: Added | None = None
        self._lock = threading.Lock()

    def read(self, artifact: Artifact) -> Reading:
        """What there is to search and to filter by in an artefact; seconds for a million items, once."""
        with self._lock:
            if self._reading is None or self._reading.artifact is not artifact:
                facets = Facets()
                search = Search(artifact, facets.add)
                self._reading = Reading(artifact, search, facets.found())
            return self._reading

    def prepare(self, artifact: Artifact) -> None:
        """Read in the background, if that has not been done: who looks at the overview will look for items next."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            if self._reading is None or self._reading.artifact is not artifact:
                threading.Thread(target=self.read, args=(artifact,), daemon=True).start()

    def added(self, engine: Engine) -> Added:
        """What was put since the training, to search beside the artefact of an engine that has it."""
        with self._lock:
            if self._added is None or self._added.engine is not engine:
                self._added = _added(engine)
            return self._added

    def night(self) -> dict[str, Any] | None:
        """The status that ``mts4mm nightly`` left of its last run; None where there is none that can be read."""
        return _document(self._night / "status.json")

    def night_report(self) -> dict[str, Any] | None:
        """The report of the last run that wrote one; None where there is none that can be read."""
        path = self._report()
        return None if path is None else _document(path)

    def night_page(self) -> bytes | None:
        """The same as a page for people; None where there is none."""
        path = self._report()
        try:
            return None if path is None else path.with_suffix(".html").read_bytes()
        except OSError:
            return None

    def _report(self) -> Path | None:
        """Where the status says that the report is, if that is a place for reports."""
        named = last_night.REPORT.fullmatch(str((self.night() or {}).get("report")))
        return None if named is None else self._night / named[0]


def _added(engine: Engine) -> Added:
    items, rows = engine.items, engine.items.put()
    return Added(engine, Lines(rows, [line(items.outside(row), items.metadata(row)) for row in rows]))


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
