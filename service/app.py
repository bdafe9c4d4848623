"""Puts the service together: engine, routes, errors."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI

from service import problems
from service.console.desk import Desk
from service.live_model import LiveModel
from service.overlay import Overlay
from service.pictures import PictureFolder
from service.requests import BodyLimit, RequestId
from service.routes import ROUTERS
from service.settings import Settings
from shared.errors import UserError
from shared.state import check_url, open_state

POLL_SECONDS = 2.0
"""How often the store is looked at for a new model, and the state for retired items."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings) -> FastAPI:
    """Load the current model and make the application that serves it, and the models that take its place.

    A store without a current model is no error: the service then answers 503 and says so in ``/health``, until a model
    is published.

    Raises:
        UserError: the current model is damaged, or the state's settings make no sense. A state that is away is no
            error.
    """
    live = LiveModel(settings.models, POLL_SECONDS)
    first = live.refresh()
    if first.reason is not None:
        raise UserError(first.reason)
    overlay = _overlay(settings, live)
    app = _described_app(lifespan=_following(live, overlay))
    app.state.live = live
    app.state.overlay = overlay
    app.state.event_weights = settings.event_weights
    app.state.pictures = None if settings.catalogue is None else PictureFolder(settings.catalogue)
    app.state.desk = Desk(settings.models)
    app.state.started = time.monotonic()
    problems.install(app)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    app.add_middleware(RequestId)
    return app


def openapi() -> dict[str, Any]:
    """The description of the API, which needs no model."""
    return _described_app().openapi()


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Describe the API; FastAPI cannot be told that an error model has a media type of its own."""
        schema = super().openapi()
        for path in schema["paths"].values():
            for operation in path.values():
                for response in operation["responses"].values():
                    content = response.get("content", {})
                    if content.get("application/json", {}).get("schema") == {"$ref": _PROBLEM}:
                        content[problems.MEDIA_TYPE] = content.pop("application/json")
        return schema


_PROBLEM = "#/components/schemas/Problem"


def _overlay(settings: Settings, live: LiveModel) -> Overlay:
    url, folder = settings.redis_server, settings.state_folder(settings.models)
    if url is not None:
        check_url(url)
    return Overlay(lambda: open_state(url, folder, settings.event_weights), POLL_SECONDS, on_change=live.wake)


def _following(live: LiveModel, overlay: Overlay) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        live.start()
        await to_thread.run_sync(overlay.start)
        yield
        await to_thread.run_sync(overlay.stop)
        await to_thread.run_sync(live.stop)

    return lifespan


def _described_app(lifespan: Lifespan | None = None) -> FastAPI:
    app = _Application(
        title="MTS4MM recommendations",
        description="The top items for a user, by a student distilled from ID, image and text teachers.",
        version="0.1.0",
        redirect_slashes=False,
        lifespan=lifespan,
    )
    for router in ROUTERS:
        app.include_router(router)
    return app
