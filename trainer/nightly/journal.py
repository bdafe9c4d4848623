"""What a night has done so far, so that a rerun goes on from there.

A step is done when the journal says so; what a step was killed in is done again, and every step is such that doing it
again is doing it once.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shared import durable
from shared.errors import UserError
from trainer.nightly import fault
from trainer.own_process import forget_peak, own_memory_mb

FILE = "journal.json"
_NAME = "%Y%m%dT%H%M%S%fZ"
"""Of a night: when it began, to the microsecond."""
COST = ("seconds", "peak_mb")
"""What is noted of every step besides its result."""

Result = dict[str, Any]


@dataclass
class Journal:
    """The journal in a night's folder.

    Attributes:
        folder: of the night; its name is the night's.
        identity: what the night is made from and by; another one is another night.
        started: when it began first.
        steps: of those that are done the result, seconds and the highest resident memory while they were.
        outcome: how it ended; None while it has not.
        notes: what a step noted in the middle of its work.
    """

    folder: Path
    identity: Mapping[str, Any]
    started: str
    steps: dict[str, Result] = field(default_factory=dict)
    outcome: str | None = None
    notes: dict[str, Result] = field(default_factory=dict)

    @classmethod
    def begin(cls, runs: Path, identity: Mapping[str, Any]) -> "Journal":
        """Begin a new night. Its name comes after those before, also where the clock was set back."""
        now = datetime.now(UTC)
        folder = runs / max(now, _last_named(runs) + timedelta(microseconds=1)).strftime(_NAME)
        folder.mkdir(parents=True)
        journal = cls(folder, identity, now.isoformat())
        journal.save()
        return journal

    @classmethod
    def read(cls, folder: Path) -> "Journal":
        """Read a night's journal.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        path = folder / FILE
        try:
            document = json.loads(path.read_bytes())
            return cls(folder, **document)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove the folder to begin anew") from error

    @property
    def name(self) -> str:
        """The night's name."""
        return self.folder.name

    def step(self, name: str, work: Callable[[], Result]) -> Result:
        """Do a step that is not done yet; returns its result, of now or of then."""
        if name not in self.steps:
            fault.point(f"{name}:begin")
            forget_peak()
            started = time.perf_counter()
            result = work()
            fault.point(f"{name}:end")
            took = {"seconds": time.perf_counter() - started, "peak_mb": round(own_memory_mb(peak=True))}
            self.steps[name] = {**result, **took}
            self.save()
        return self.steps[name]

    def note(self, name: str, work: Callable[[], Result]) -> Result:
        """Note, durably, what is not noted yet; returns what is, of now or of then."""
        if name not in self.notes:
            self.notes[name] = work()
            self.save()
        return self.notes[name]

    def end(self, outcome: str) -> None:
        """Note how the night ended."""
        self.outcome = outcome
        self.save()

    def save(self) -> None:
        """Write it, durably."""
        document = {name: value for name, value in vars(self).items() if name != "folder"}
        with durable.replacing(self.folder / FILE) as file:
            file.write(json.dumps(document, indent=1).encode())


def _last_named(runs: Path) -> datetime:
    times = [datetime.min.replace(tzinfo=UTC)]
    for path in runs.glob("*"):
        with suppress(ValueError):
            times.append(datetime.strptime(path.name, _NAME).replace(tzinfo=UTC))
    return max(times)


def unfinished(runs: Path) -> Journal | None:
    """The last night, if it has not ended."""
    folders = sorted(path for path in runs.glob("*") if (path / FILE).exists())
    last = Journal.read(folders[-1]) if folders else None
    return last if last is not None and last.outcome is None else None


def cost(steps: Mapping[str, Result]) -> list[Result]:
    """What each step took, for reports."""
    return [{"step": name, "seconds": done["seconds"], "peak_mb": done.get("peak_mb")} for name, done in steps.items()]


def tidy(runs: Path, latest: str) -> None:
    """Take away what earlier nights needed to go on: of those that ended only the journals stay."""
    for folder in runs.glob("*"):
        if folder.name == latest or not (folder / FILE).exists():
            continue
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != FILE:
                path.unlink()
