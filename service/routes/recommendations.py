"""Recommendations, one user or many at once."""

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from pydantic import ValidationError

from service import queries
from service.access import Access, requires
from service.answers import written
from service.engine import Engine
from service.filters import UnknownAttributeError
from service.metrics import Metrics
from service.routes.base import PROBLEMS, CurrentOverlay, JsonRoute, LoadedEngine, loaded_engine, sound_body
from service.schemas import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from shared.api_keys import Scope

_MOST_NAMED = 20
_JSON = "application/json"


class _ShortRoute(JsonRoute):
    """Takes a sound request to :func:`recommend` directly; FastAPI's general way has all others, to say what is wrong.

    What that way does besides costs more than a search: it makes Python objects of the body before they are
    validated, and solves dependencies.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Put the short way before the general one."""
        general = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.headers.get("content-type") != "application/json":
                return await general(request)
            try:
                wanted = RecommendRequest.model_validate_json(await sound_body(request))
            except ValidationError:
                return await general(request)
            state = request.app.state
            access: Access = state.access
            access.admit(request, Scope.READ)
            return await recommend(wanted, await loaded_engine(request), state.overlay, request)

        return handle


single = APIRouter(route_class=_ShortRoute, dependencies=[requires(Scope.READ)])
router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.READ)])


@single.post("/recommend", operation_id="recommend", response_model=RecommendResponse, responses=PROBLEMS)
@single.post("/v1/recommend", operation_id="recommend_v1", response_model=RecommendResponse, responses=PROBLEMS)
async def recommend(
    wanted: RecommendRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request
) -> Response:
    """Recommend items to a user, or to an anonymous visitor by what they have taken.

    Whoever has taken something, in the training or by an event since, gets the items that suit them best, by default
    without those they already had, and never those that they hid or disliked.
    Anybody else gets the most popular items, with `"strategy": "popular"`.
    """
    since, complete = await overlay.since_soon(wanted.user_id)
    query = wanted.query(wanted.user_id, wanted.history, since)
    if engine.is_quick(query):
        id_, answer = _answer(engine, query, overlay.retired_rows(engine), complete, request)
    else:
        id_, answer = await to_thread.run_sync(
            lambda: _answer(engine, query, overlay.retired_rows(engine), complete, request)
        )
    request.scope["state"]["recommendation_id"] = id_
    return Response(answer, media_type=_JSON)


@router.post("/recommend:batch", operation_id="recommend_batch", response_model=BatchResponse, responses=PROBLEMS)
@router.post("/v1/recommend:batch", operation_id="recommend_batch_v1", response_model=BatchResponse, responses=PROBLEMS)
def recommend_batch(wanted: BatchRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request) -> Response:
    """Recommend items to many users at once; all answers are from the same model."""
    since, complete = overlay.since(wanted.user_ids)
    retired = overlay.retired_rows(engine)
    answers = [
        _answer(engine, wanted.query(user_id, (), known), retired, complete, request)[1]
        for user_id, known in zip(wanted.user_ids, since, strict=True)
    ]
    return Response(b'{"recommendations":[%s]}' % b",".join(answers), media_type=_JSON)


def _answer(
    engine: Engine, query: queries.Query, retired: NDArray[np.int64], complete: bool, request: Request
) -> tuple[str, bytes]:
    """The id of the answer, and the answer as JSON."""
    try:
        ranked = engine.rank(query, retired)
    except UnknownAttributeError as error:
        raise RequestValidationError([_unknown("filter", "attribute", error)]) from None
    except queries.UnknownPartError as error:
        raise RequestValidationError([_unknown("weights", "part", error)]) from None
    metrics: Metrics = request.app.state.metrics
    metrics.recommendation(ranked.strategy, ranked.reason)
    id_ = uuid4().hex
    answer = written(
        ranked,
        engine.items,
        recommendation_id=id_,
        model_version=engine.artifact.manifest.version,
        user_id=query.user_id,
        degraded=not complete,
    )
    return id_, answer


def _unknown(field: str, kind: str, error: UnknownAttributeError | queries.UnknownPartError) -> dict[str, Any]:
    known = ", ".join(error.known[:_MOST_NAMED]) or "none"
    message = f"The model knows no {kind} of this name. It knows: {known}"
    return {"type": f"unknown_{kind}", "loc": ("body", field, error.name), "msg": message}
