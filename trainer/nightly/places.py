"""Where a night finds everything, and where it keeps its own."""

from dataclasses import dataclass
from pathlib import Path

from shared.last_night import FOLDER


@dataclass(frozen=True)
class Places:
    """Where everything is.

    Attributes:
        base: the dataset that the shop began with.
        store: of models; the night's own folder is in it.
        log: of events.
        service: URL of the running service; None where there is none to ask.
        models_url: the object store that the store is a copy of; None where there is none.
    """

    base: Path
    store: Path
    log: Path
    service: str | None = None
    models_url: str | None = None

    @property
    def own(self) -> Path:
        """The night's own folder."""
        return self.store / FOLDER
