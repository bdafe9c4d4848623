"""How the service is: one truth for the probes, for ``/health`` and for Prometheus."""

import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric

from service.draining import Draining
from service.engine import Engine
from service.live_model import LiveModel, Refusal
from service.model_mirror import ModelMirror
from service.overlay import Overlay
from service.pictures import PictureFolder
from service.queries import Query
from shared import last_night

_MOMENTS = {
    "started": ("start", "When the last nightly run began."),
    "last_success": ("success", "When the last nightly run that succeeded had ended."),
}


class Vitals:
    """Looks at the parts of the service when asked, and keeps nothing of its own but when it began."""

    def __init__(
        self,
        live: LiveModel,
        overlay: Overlay,
        mirror: ModelMirror | None,
        pictures: PictureFolder | None,
        draining: Draining,
        store: Path,
        workers: int,
    ) -> None:
        self._live = live
        self._overlay = overlay
        self._mirror = mirror
        self._pictures = pictures
        self._draining = draining
        self._store = store
        self._workers = workers
        self._started = time.time()

    @property
    def engine(self) -> Engine | None:
        """What answers now."""
        return self._live.engine

    @property
    def last_refusal(self) -> Refusal | None:
        """Why the version that ``CURRENT`` names is not live, if it is not."""
        return self._live.last_refusal

    @property
    def uptime_seconds(self) -> float:
        """Since when this process answers."""
        return time.time() - self._started

    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        found = [] if self._live.engine is not None else ["Model: none is loaded."]
        engine = self._live.engine
        if engine is not None and engine.opened.fallback is not None:
            found.append(f"Index: searched exactly, since {engine.opened.fallback}.")
        refusal = self._live.last_refusal
        if refusal is not None:
            found.append(f"Model: {refusal.version or 'the current version'} is refused: {refusal.reason}.")
        if self._overlay.problem is not None:
            found.append(f"User state: {self._overlay.problem}.")
        if self._overlay.live_items.problem is not None:
            found.append(f"Live items: they are in no answer: {self._overlay.live_items.problem}.")
        if self._mirror is not None and self._mirror.problem is not None:
            found.append(f"Object store: {self._mirror.problem}.")
        if self._pictures is not None and self._pictures.problem is not None:
            found.append(f"Pictures: {self._pictures.problem}.")
        return found

    def why_not_ready(self) -> str | None:
        """Why no requests shall be sent here; None if they may, which a search has shown."""
        if self._draining.active:
            return "The service is leaving."
        engine = self._live.engine
        if engine is None:
            return "No model is loaded: publish one to the service's models folder."
        items = engine.artifact.items
        query = Query(history=[items.outside(0)], exclude_seen=False, k=1)
        try:
            found = engine.recommend(query).items
        except Exception as error:  # whatever it is, this worker must get no requests
            return f"A search failed: {type(error).__name__}."
        return None if found else "A search found nothing."

    def metrics(self) -> Iterable[Metric]:
        """What Prometheus is told of this moment."""
        yield _gauge("start_time_seconds", "When this worker began.", self._started)
        yield _gauge("workers", "How many workers there shall be.", self._workers)
        yield _gauge("ready", "Whether requests may be sent here.", self.why_not_ready() is None)
        yield _gauge("redis_up", "Whether the user state in Redis answers.", self._overlay.answers)
        yield _gauge("redis_writable", "Whether it takes events, too.", self._overlay.problem is None)
        yield _gauge("model_refused", "Whether the current version is refused.", self._live.last_refusal is not None)
        engine = self._live.engine
        if engine is not None:
            yield from _of_the_model(engine)
        yield from _of_the_nightly_job(self._store / last_night.STATUS)


def _of_the_model(engine: Engine) -> Iterable[Metric]:
    manifest = engine.artifact.manifest
    created = manifest.created.timestamp()
    info = {"version": manifest.version, "index": engine.index.kind}
    yield InfoMetricFamily("mts4mm_model", "The model that answers.", info)
    yield _gauge("model_created_timestamp_seconds", "When the model was made.", created)
    yield _gauge("model_age_seconds", "How old the model is.", time.time() - created)
    yield _gauge("index_recall", "The share of the exact best items that the index found.", engine.opened.recall)
    yield _gauge("index_fell_back", "Whether the model's own index would not do.", engine.opened.fallback is not None)
    yield _gauge("model_users", "Users that the model knows.", len(engine.artifact.users))
    yield _gauge("model_items", "Items that the model knows.", len(engine.artifact.items))


def _of_the_nightly_job(path: Path) -> Iterable[Metric]:
    """What the job wrote; nothing where it has not run, or wrote what cannot be read."""
    try:
        status = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(status, dict):
        return
    for field, (name, what) in _MOMENTS.items():
        moment = _moment(status.get(field))
        if moment is not None:
            yield _gauge(f"nightly_last_{name}_timestamp_seconds", what, moment.timestamp())
    seconds = status.get("seconds")
    if isinstance(seconds, int | float):
        yield _gauge("nightly_last_duration_seconds", "How long the last nightly run took.", seconds)
    for name, label, what in (
        ("ndcg", "model", "NDCG@20 on the last judged night's holdout."),
        ("drift", "of", "How far what users did before the last night is from what the live model was trained on."),
    ):
        yield from _by_label(f"nightly_last_{name}", label, what, status.get(name))
    if isinstance(status.get("outcome"), str):
        verdict = {"verdict": status["outcome"]}
        yield InfoMetricFamily("mts4mm_nightly_last_verdict", "How the last nightly run ended.", verdict)


def _by_label(name: str, label: str, what: str, values: object) -> Iterable[Metric]:
    found = GaugeMetricFamily(f"mts4mm_{name}", what, labels=[label])
    for key, value in (values if isinstance(values, dict) else {}).items():
        if isinstance(value, int | float):
            found.add_metric([str(key)], value)
    if found.samples:
        yield found


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"mts4mm_{name}", what, value=float(value))
