"""Puts the service together: engine, routes, errors."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service import problems, tracing
from service.access import Access, KeysFile
from service.admission import Admission, Admit, AwaitThreads
from service.connections import close_slow
from service.console.desk import Desk
from service.description import completed
from service.draining import Draining
from service.live_model import LiveModel, SwapResult
from service.logs import AccessLog
from service.metrics import Metrics
from service.model_mirror import ModelMirror
from service.overlay import Overlay
from service.pictures import PictureFolder
from service.requests import REQUEST_ID_HEADER, Front
from service.routes import ROUTERS
from service.searches import Searches
from service.settings import Settings
from service.short_way import ShortWay
from service.vitals import Vitals
from shared.artifact import activations
from shared.errors import UserError
from shared.state import check_url, open_state

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

POLL_SECONDS = 2.0
"""How often the store is looked at for a new model, and the state for retired items."""

_log = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings, log: AccessLog | None = None, last_good: Path | None = None) -> FastAPI:
    """Load the current model and make the application that serves it, and the models that take its place.

    A store without a current model is no error: the service then answers 503 and says so in ``/health``, until a model
    is published.

    Args:
        settings: what the operator decided.
        log: where answered requests are written; nowhere by default.
        last_good: a file, of all workers of a service, that holds the version they serve. Where the current version
            is refused at the start, this is what is fallen back to, and then what was live before.

    Raises:
        UserError: the current model is damaged and none before it is sound, or a setting makes no sense. A state that
            is away is no error.
    """
    metrics, draining = Metrics(settings.event_weights), Draining(settings.drain_seconds, settings.grace_seconds)
    access = Access(
        None if settings.keys is None else KeysFile(settings.keys), settings.rate_limit, settings.cors_origins
    )
    live = LiveModel(settings.models, POLL_SECONDS, on_swap=_noting(metrics, last_good))
    mirror = _mirror(settings, live)
    _load(live, settings.models, last_good)
    overlay = _overlay(settings, live, metrics)
    admission = Admission(
        settings.max_in_flight, settings.max_waiting, settings.max_wait_seconds, settings.request_timeout_seconds
    )

    pictures = _pictures(settings)

    def watch(now: float) -> None:
        metrics.load(admission.in_flight, admission.waiting)
        for reason, count in close_slow(settings.head_timeout_seconds, now).items():
            metrics.cut(reason, count)

    tracer = tracing.tracer_provider() if settings.tracing else None

    def layers(app: ASGIApp) -> ASGIApp:
        app = AwaitThreads(app)
        if tracer is None:  # it is the framework that tells of its spans
            app = ShortWay(app)
        app = Admit(app, admission, access, metrics, settings.max_body_bytes)
        if settings.cors_origins:
            app = _cross_origin(app, settings.cors_origins)
        return Front(app, metrics, log, draining)

    following = _following(live, overlay, mirror, draining, tracer, lambda: admission.watch(watch))
    app = _described_app(following, layers, tracing.telemetry(tracer))
    app.state.live = live
    app.state.overlay = overlay
    app.state.searches = Searches()
    app.state.mirror = mirror
    app.state.models = settings.models
    app.state.pictures = pictures
    app.state.desk = Desk(settings.models)
    app.state.access = access
    app.state.metrics = metrics
    app.state.vitals = Vitals(live, overlay, mirror, pictures, draining, settings.models, settings.workers)
    app.state.max_body_depth = settings.max_body_depth
    metrics.add_facts(app.state.vitals.metrics)
    problems.install(app)
    return app


def openapi() -> dict[str, Any]:
    """The description of the API, which needs no model."""
    return _described_app().openapi()


class _Application(FastAPI):
    def __init__(self, layers: Callable[[ASGIApp], ASGIApp], **described: Any) -> None:
        super().__init__(**described)
        self._layers = layers

    def build_middleware_stack(self) -> ASGIApp:
        """Put our layers around everything, the answers to unexpected errors included."""
        return self._layers(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        """Describe the API whole."""
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi(), ROUTERS)
        return self.openapi_schema


def _mirror(settings: Settings, live: LiveModel) -> ModelMirror | None:
    """What follows the object store, if there is one, after a first look."""
    if settings.models_url is None:
        return None
    # fsspec is an extra's, and takes its time to import
    from shared.object_store import ObjectStore

    objects = ObjectStore(settings.models_url, settings.models)
    mirror = ModelMirror(objects, on_look=live.wake, serving=lambda: live.version)
    mirror.look()
    return mirror


def _load(live: LiveModel, models: Path, last_good: Path | None) -> None:
    """Make the current version live, or else one that was so before."""
    first = live.refresh()
    if first.reason is None or any(live.fall_back(version) for version in _before(models, last_good)):
        return
    raise UserError(first.reason)


def _before(models: Path, last_good: Path | None) -> Iterator[str]:
    """The versions to fall back to, best first: the one that the other workers serve, then the store's trail."""
    with suppress(OSError):
        if last_good is not None:
            yield last_good.read_text()
    with suppress(UserError):
        yield from activations(models)[1:]


def _noting(metrics: Metrics, last_good: Path | None) -> Callable[[SwapResult], None]:
    def note(result: SwapResult) -> None:
        metrics.swap(result)
        if last_good is not None and result.outcome == "swapped" and result.after is not None:
            temporary = last_good.with_suffix(f".{os.getpid()}")
            temporary.write_text(result.after)
            temporary.replace(last_good)

    return note


def _overlay(settings: Settings, live: LiveModel, metrics: Metrics) -> Overlay:
    url, folder = settings.redis_server, settings.state_folder(settings.models)
    if url is not None:
        check_url(url)
    weights = settings.event_weights
    return Overlay(
        lambda: open_state(url, folder, weights),
        weights,
        POLL_SECONDS,
        on_change=live.wake,
        on_call=metrics.state_call,
        engine=lambda: live.engine,
        folder=folder,
    )


def _pictures(settings: Settings) -> PictureFolder | None:
    if settings.catalogue is None:
        return None
    pictures = PictureFolder(settings.catalogue)
    if pictures.problem is not None:
        _log.warning("no pictures are served: %s", pictures.problem)
    return pictures


def _cross_origin(app: ASGIApp, origins: list[str]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "X-API-Key", REQUEST_ID_HEADER],
        expose_headers=[REQUEST_ID_HEADER, "Retry-After"],
        allow_credentials=False,
    )


def _following(
    live: LiveModel,
    overlay: Overlay,
    mirror: ModelMirror | None,
    draining: Draining,
    tracer: "TracerProvider | None",
    watch: Callable[[], Coroutine[Any, Any, None]],
) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        draining.watch(asyncio.get_running_loop())
        live.start()
        await to_thread.run_sync(overlay.start)
        if mirror is not None:
            mirror.start()
        watching = asyncio.create_task(watch())
        yield
        watching.cancel()
        if mirror is not None:
            await to_thread.run_sync(mirror.stop)
        await to_thread.run_sync(overlay.stop)
        await to_thread.run_sync(live.stop)
        if tracer is not None:
            await to_thread.run_sync(tracer.shutdown)

    return lifespan


def _described_app(
    lifespan: Lifespan | None = None,
    layers: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    telemetry: TelemetryConfig = tracing.OFF,
) -> FastAPI:
    app = _Application(
        layers,
        title="MTS4MM recommendations",
        description="The top items for a user, by a student distilled from ID, image and text teachers.",
        version="0.1.0",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=telemetry,
    )
    for router in ROUTERS:
        app.include_router(router)
    return app
