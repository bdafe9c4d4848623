"""What the console keeps between requests: what it read of the live model, and of the versions it compared."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.console.facets import Facet, facets
from service.console.search import Search
from service.console.versions import Versions
from shared.artifact import Artifact


@dataclass(frozen=True)
class Reading:
    """One reading of an artefact's catalogue."""

    artifact: Artifact
    search: Search
    facets: list[Facet]


class Desk:
    """Read when first asked for, and kept until another model is live. Safe from any number of threads."""

    def __init__(self, store: Path) -> None:
        """Look at ``store`` for versions; it need not exist yet."""
        self.versions = Versions(store)
        self._night = store / ".nightly"
        self._reading: Reading | None = None
        self._lock = threading.Lock()

    def read(self, artifact: Artifact) -> Reading:
        """What there is to search and to filter by in an artefact; seconds for a million items, once."""
        with self._lock:
            if self._reading is None or self._reading.artifact is not artifact:
                self._reading = Reading(artifact, Search(artifact), facets(artifact))
            return self._reading

    def night(self) -> dict[str, Any] | None:
        """The status that ``mts4mm nightly`` left of its last run; None where there is none that can be read."""
        try:
            status = json.loads((self._night / "status.json").read_bytes())
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) else None
