"""The routes: thin, over one engine."""

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from service import queries
from service.engine import Engine
from service.filters import UnknownAttributeError
from service.schemas import (
    DEFAULT_K,
    MAX_K,
    BatchRequest,
    BatchResponse,
    HealthResponse,
    ItemResponse,
    Problem,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarResponse,
    UserResponse,
)

Found = TypeVar("Found")

_MOST_NAMED = 20


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
_LOOK_UP_PROBLEMS: dict[int | str, dict[str, Any]] = {status: _PROBLEMS[status] for status in (422, 503)}
_PROBLEMS_OF_ITEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The model knows no such item."},
    **_LOOK_UP_PROBLEMS,
}
_PROBLEMS_OF_USERS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The model knows no such user."},
    **_LOOK_UP_PROBLEMS,
}


def loaded_engine(request: Request) -> Engine:
    """Return the engine, or answer 503 where no model is loaded."""
    engine: Engine | None = request.app.state.live.engine
    if engine is None:
        raise HTTPException(503, "No model is loaded: publish one to the service's models folder.")
    return engine


@router.post("/recommend", operation_id="recommend", responses=_PROBLEMS)
@router.post("/v1/recommend", operation_id="recommend_v1", responses=_PROBLEMS)
def recommend(wanted: RecommendRequest, engine: Annotated[Engine, Depends(loaded_engine)]) -> RecommendResponse:
    """Recommend items to a user, or to an anonymous visitor by what they have taken.

    Whoever has taken something gets the items that suit them best, by default without those they already had.
    Anybody else gets the most popular items, with `"strategy": "popular"`.
    """
    return _answer(engine, wanted.query(wanted.user_id, wanted.history))


@router.post("/recommend:batch", operation_id="recommend_batch", responses=_PROBLEMS)
@router.post("/v1/recommend:batch", operation_id="recommend_batch_v1", responses=_PROBLEMS)
def recommend_batch(wanted: BatchRequest, engine: Annotated[Engine, Depends(loaded_engine)]) -> BatchResponse:
    """Recommend items to many users at once; all answers are from the same model."""
    return BatchResponse(recommendations=[_answer(engine, wanted.query(user_id)) for user_id in wanted.user_ids])


@router.get("/items/{item_id:path}/similar", operation_id="similar_items", responses=_PROBLEMS_OF_ITEMS)
def similar(
    item_id: str,
    engine: Annotated[Engine, Depends(loaded_engine)],
    k: Annotated[int, Query(ge=1, le=MAX_K)] = DEFAULT_K,
) -> SimilarResponse:
    """The items most like one, by the cosine of the student's embeddings."""
    items = _known(lambda: engine.similar(item_id, k), "item")
    return SimilarResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in items],
    )


@router.get("/items/{item_id:path}", operation_id="item", responses=_PROBLEMS_OF_ITEMS)
def item(item_id: str, engine: Annotated[Engine, Depends(loaded_engine)]) -> ItemResponse:
    """What the model knows of an item."""
    known = _known(lambda: engine.item(item_id), "item")
    return ItemResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        popularity=known.popularity,
        metadata=known.metadata,
    )


@router.get("/users/{user_id:path}", operation_id="user", responses=_PROBLEMS_OF_USERS)
def user(user_id: str, engine: Annotated[Engine, Depends(loaded_engine)]) -> UserResponse:
    """What the model knows of a user."""
    known = _known(lambda: engine.user(user_id), "user")
    return UserResponse(model_version=engine.artifact.manifest.version, user_id=user_id, items=known.items)


@router.get(
    "/health",
    operation_id="health",
    responses={503: {"model": HealthResponse, "description": "No model is loaded."}},
)
def health(request: Request, response: Response) -> HealthResponse:
    """Say whether recommendations can be had, and from which model."""
    uptime = time.monotonic() - request.app.state.started
    engine: Engine | None = request.app.state.live.engine
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


def _answer(engine: Engine, query: queries.Query) -> RecommendResponse:
    try:
        recommendation = engine.recommend(query)
    except UnknownAttributeError as error:
        raise RequestValidationError([_unknown("filter", "attribute", error)]) from None
    except queries.UnknownPartError as error:
        raise RequestValidationError([_unknown("weights", "part", error)]) from None
    return RecommendResponse(
        recommendation_id=uuid4().hex,
        model_version=engine.artifact.manifest.version,
        strategy=recommendation.strategy,
        reason=recommendation.reason,
        user_id=query.user_id,
        unknown_items=recommendation.unknown_items,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in recommendation.items],
    )


def _known(look_up: Callable[[], Found], kind: str) -> Found:
    try:
        return look_up()
    except KeyError:
        raise HTTPException(404, f"The model knows no such {kind}.") from None


def _unknown(field: str, kind: str, error: UnknownAttributeError | queries.UnknownPartError) -> dict[str, Any]:
    known = ", ".join(error.known[:_MOST_NAMED]) or "none"
    message = f"The model knows no {kind} of this name. It knows: {known}"
    return {"type": f"unknown_{kind}", "loc": ("body", field, error.name), "msg": message}
