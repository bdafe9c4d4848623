"""The routes: thin, over one engine."""

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service.engine import Engine
from service.schemas import (
    HealthResponse,
    Problem,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
)


class JsonRoute(APIRoute):
    """A route that takes JSON and refuses other bodies by what they say they are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method == "POST" and media_type != "application/json":
                raise HTTPException(415, "Send the body as application/json.")
            return await handle(request)

        return handle_json


router = APIRouter(route_class=JsonRoute)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    413: {"model": Problem, "description": "The body is too large."},
    415: {"model": Problem, "description": "The body is not said to be JSON."},
    422: {"model": Problem, "description": "A field is missing, wrong or unknown."},
    503: {"model": Problem, "description": "No model is loaded."},
}


def loaded_engine(request: Request) -> Engine:
    """Return the engine, or answer 503 where no model is loaded."""
    engine: Engine | None = request.app.state.engine
    if engine is None:
        raise HTTPException(503, "No model is loaded: publish one to the service's models folder and restart it.")
    return engine


@router.post("/recommend", operation_id="recommend", responses=_PROBLEMS)
def recommend(wanted: RecommendRequest, engine: Annotated[Engine, Depends(loaded_engine)]) -> RecommendResponse:
    """Recommend items to a user.

    A user of the training data gets the items that suit them best, without those they already had. Anybody else
    gets the most popular items, with `"strategy": "popular"`.
    """
    recommendation = engine.recommend(wanted.user_id, wanted.k)
    return RecommendResponse(
        recommendation_id=uuid4().hex,
        model_version=engine.artifact.manifest.version,
        strategy=recommendation.strategy,
        user_id=wanted.user_id,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in recommendation.items],
    )


@router.get(
    "/health",
    operation_id="health",
    responses={503: {"model": HealthResponse, "description": "No model is loaded."}},
)
def health(request: Request, response: Response) -> HealthResponse:
    """Say whether recommendations can be had, and from which model."""
    uptime = time.monotonic() - request.app.state.started
    engine: Engine | None = request.app.state.engine
    if engine is None:
        response.status_code = 503
        return HealthResponse(status="unavailable", uptime_seconds=uptime)
    artifact = engine.artifact
    return HealthResponse(
        status="ok",
        uptime_seconds=uptime,
        model_version=artifact.manifest.version,
        model_created=artifact.manifest.created,
        model_age_seconds=(datetime.now(UTC) - artifact.manifest.created).total_seconds(),
        users=len(artifact.users),
        items=len(artifact.items),
        index=engine.index.kind,
    )
