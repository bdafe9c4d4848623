"""A small shop whose last purchases come as events, and nights that run in processes of their own."""

import csv
import multiprocessing
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from shared.events import Event
from shared.state import open_state
from trainer.demo_shop import make_shop

SETTINGS = {
    "train": {"recipe": "demo", "set": ["epochs=12"], "warm_epochs": 5},
    "gate": {"ndcg_margin": 0.25, "teacher_margin": 0.2, "slice_margin": 0.5, "concentration_margin": 2.0},
    "least_new": 50,
    "watch_seconds": 0,
}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["trainer.nightly.job", "trainer.cli.nightly", "trainer.linear_teacher"])


@dataclass(frozen=True)
class Shop:
    """A shop that opened with the first purchases; the others are still to come.

    Attributes:
        base: the dataset that it opened with.
        later: what came after, in order of time.
    """

    base: Path
    later: list[Event]


def opened_shop(folder: Path, *, users: int = 300, items: int = 120, share: float = 0.7, seed: int = 3) -> Shop:
    """Make a demo shop, and take its last purchases out of the base."""
    base = folder / "shop"
    make_shop(base, users=users, items=items, seed=seed)
    with (base / "interactions.csv").open() as file:
        rows = list(csv.DictReader(file))
    first = int(share * len(rows))
    with (base / "interactions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:first])
    later = [
        Event(
            event_id=f"e{place}",
            user_id=row["user_id"],
            item_id=row["item_id"],
            type="purchase",
            timestamp=datetime.fromtimestamp(int(row["timestamp"]), UTC),
        )
        for place, row in enumerate(rows[first:])
    ]
    return Shop(base, later)


def settings_file(folder: Path, **changes: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | changes))
    return path


def send(store: Path, events: Iterable[Event]) -> None:
    """Record events as the service does."""
    with open_state(None, store / ".state") as state:
        state.record(list(events))


def night(
    base: Path,
    store: Path,
    settings: Path,
    *,
    fault: str | None = None,
    service: str | None = None,
    dry_run: bool = False,
) -> int:
    """Run a night in a process of its own; returns its exit code, below 0 for the signal that ended it."""
    process = _processes.Process(target=_run, args=(base, store, settings, fault, service, dry_run))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the night hangs"
    return process.exitcode


def _run(base: Path, store: Path, settings: Path, fault: str | None, service: str | None, dry_run: bool) -> None:
    import typer

    from trainer.cli.nightly import nightly

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("MTS4MM_FAULT", None)
    if fault is not None:
        os.environ["MTS4MM_FAULT"] = fault
    try:
        nightly(
            base,
            models=store,
            log=None,
            settings=settings,
            service=service,
            device="cpu",
            dry_run=dry_run,
            fresh=False,
            print_settings=False,
            json_=False,
        )
    except typer.Exit as end:
        raise SystemExit(int(end.exit_code)) from None
