"""What a night costs, by step: the newest interactions of a dataset come as events, and the real job runs on them.

Everything is as in production: a model of the older part is published by a first night, the service answers with it in
a process of its own, the events are sent to it over HTTP, and the night is ``mts4mm nightly`` in its own process, which
confirms and watches that service.
"""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from shared import artifact
from shared.errors import UserError
from shared.events import Event, encode
from trainer.dataset import Dataset
from trainer.nightly.outcome import Outcome
from trainer.nightly.report import read_status

EVENTS_PER_REQUEST = 1000
"""As many as the service takes at once."""
ANSWER_SECONDS = 60.0
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
APART = timedelta(seconds=60)
"""Between two interactions of a dataset without times, which are put into an order drawn at random."""

_INTERACTIONS = "interactions.parquet"

RunningService = Callable[[Path, Path], Any]
"""From the store and the base to a context manager that gives the URL of the service that runs on them."""


@dataclass(frozen=True)
class Opening:
    """A dataset as of some time ago, and what happened since.

    Attributes:
        base: the dataset's folder with the older interactions alone.
        events: the others, in order of time.
    """

    base: Path
    events: list[Event]


@dataclass(frozen=True)
class Step:
    """A step of the night: seconds, and the highest resident memory of the job while it ran, in MB."""

    name: str
    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class NightCost:
    """The measurement.

    Attributes:
        base_interactions: that the first model was trained on.
        events: that came after.
        sending_seconds: until the service had accepted them all.
        steps: of the night, in order.
        seconds: from the start of the night's process to its end.
        outcome: of the night, with the reason.
        training: what the night's report says of it.
        data: likewise.
    """

    base_interactions: int
    events: int
    sending_seconds: float
    steps: list[Step]
    seconds: float
    outcome: str
    reason: str
    training: dict[str, Any]
    data: dict[str, Any]


def open_shop(source: Path, dataset: Dataset, base: Path, events: int, seed: int) -> Opening:
    """Write what was known before the newest interactions, and make events of these.

    Args:
        source: the dataset's folder; all but its interactions is linked.
        dataset: read from it.
        base: folder to make.
        events: how many interactions come as events.
        seed: of the order, where the dataset has no times.

    Raises:
        UserError: the dataset has not enough interactions, or the folder cannot be made.
    """
    count = len(dataset.users)
    if events >= count:
        raise UserError(f"{source}: has {count:,} interactions; take fewer than that as --events")
    times, order = _times(dataset, seed)
    pairs = pl.DataFrame(
        {
            "user_id": pl.Series(dataset.user_ids, dtype=pl.String).gather(dataset.users[order]),
            "item_id": pl.Series(dataset.item_ids, dtype=pl.String).gather(dataset.items[order]),
            "timestamp": times[order],
        }
    )
    base.mkdir(parents=True, exist_ok=True)
    old = _interaction_files(source)
    for entry in sorted(source.iterdir()):
        if entry.name not in old and not entry.name.startswith(".") and not (base / entry.name).exists():
            (base / entry.name).symlink_to(entry.resolve())
    pairs.head(count - events).write_parquet(base / _INTERACTIONS)
    later = [
        Event(
            event_id=f"bench-{place}",
            user_id=user,
            item_id=item,
            type="purchase",
            timestamp=datetime.fromtimestamp(timestamp, UTC),
        )
        for place, (user, item, timestamp) in enumerate(pairs.tail(events).iter_rows())
    ]
    return Opening(base, later)


def _times(dataset: Dataset, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Seconds since 1970 of each interaction, and their order; made up where there are none."""
    if dataset.timestamps is not None and np.isfinite(dataset.timestamps).all():
        return dataset.timestamps, np.argsort(dataset.timestamps, kind="stable")
    order = np.random.default_rng(seed).permutation(len(dataset.users))
    times = np.empty(len(order))
    times[order] = FIRST_DAY.timestamp() + APART.total_seconds() * np.arange(len(order))
    latest = datetime.now(UTC).timestamp()
    return times - max(0.0, float(times.max()) - latest), order


def _interaction_files(source: Path) -> set[str]:
    return {path.name for path in source.iterdir() if path.suffix == ".inter" or path.stem == "interactions"}


def measure_night(
    opening: Opening, store: Path, settings: dict[str, Any], first: dict[str, Any], service: RunningService
) -> NightCost:
    """Publish a first model if the store has none, send the events, run the night.

    Args:
        opening: the shop.
        store: of models; one that is live already is the champion.
        settings: of the night.
        first: of the night that publishes the first model.
        service: starts the service.

    Raises:
        UserError: a night failed, or the service does not accept an event.
    """
    store.mkdir(parents=True, exist_ok=True)
    if artifact.current_version(store) is None:
        code = _night(opening.base, store, first, None)
        if code != Outcome.PROMOTED:
            reason = read_status(store / ".nightly").get("reason")
            raise UserError(f"the first model was not published, train it longer: {reason}")
    base_interactions = artifact.load(store).manifest.dataset.interactions
    with service(store, opening.base) as url:
        started = time.perf_counter()
        _send(url, opening.events)
        sending = time.perf_counter() - started
        started = time.perf_counter()
        _night(opening.base, store, settings, url)
        seconds = time.perf_counter() - started
    status = read_status(store / ".nightly")
    if status.get("report") is None:
        raise UserError(f"the night failed: {status.get('reason')}")
    report = json.loads((store / ".nightly" / status["report"]).read_bytes())
    return NightCost(
        base_interactions=base_interactions,
        events=len(opening.events),
        sending_seconds=sending,
        steps=[Step(each["step"], each["seconds"], each["peak_mb"]) for each in report["steps"]],
        seconds=seconds,
        outcome=report["outcome"],
        reason=report["reason"],
        training=report["training"] or {},
        data=report["data"],
    )


def _night(base: Path, store: Path, settings: dict[str, Any], url: str | None) -> int:
    path = store / ".bench-night.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "trainer.cli", "nightly", str(base)]
    command += ["--models", str(store), "--settings", str(path), *([] if url is None else ["--service", url])]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - our own


def _send(url: str, events: Sequence[Event]) -> None:
    for start in range(0, len(events), EVENTS_PER_REQUEST):
        some = events[start : start + EVENTS_PER_REQUEST]
        body = f'{{"events":[{",".join(map(encode, some))}]}}'.encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{url}/events", body, headers)  # noqa: S310 - our own loopback address
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:  # noqa: S310
            answer = json.load(response)
        if answer["rejected"]:
            raise UserError(f"an event is not accepted: {answer['rejected'][0]['detail']}")
