"""Puts the service together: engine, routes, errors."""

import time
from typing import Any

from fastapi import FastAPI

from service import problems
from service.engine import Engine
from service.requests import BodyLimit, RequestId
from service.routes import router
from service.settings import Settings
from shared import artifact


def create_app(settings: Settings) -> FastAPI:
    """Load the current model and make the application that serves it.

    A store without a current model is no error: the service then answers 503 and says so in ``/health``.

    Raises:
        UserError: the current model is damaged.
    """
    app = _described_app()
    app.state.engine = _load_engine(settings)
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


def _described_app() -> FastAPI:
    app = _Application(
        title="MTS4MM recommendations",
        description="The top items for a user, by a student distilled from ID, image and text teachers.",
        version="0.1.0",
        redirect_slashes=False,
    )
    app.include_router(router)
    return app


def _load_engine(settings: Settings) -> Engine | None:
    version = artifact.current_version(settings.models)
    return None if version is None else Engine(artifact.load(settings.models, version))
