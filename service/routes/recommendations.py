"""Recommendations, one user or many at once."""

from os import urandom
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from starlette.types import Scope as ASGIScope

from service import queries
from service.access import requires
from service.answers import written
from service.engine import Engine
from service.filters import UnknownAttributeError
from service.metrics import Metrics
from service.overlay import Overlay
from service.routes.base import PROBLEMS, CurrentOverlay, JsonRoute, LoadedEngine
from service.schemas import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from shared.api_keys import Scope

_MOST_NAMED = 20
_JSON = "application/json"

router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.READ)])


@router.post("/recommend", operation_id="recommend", response_model=RecommendResponse, responses=PROBLEMS)
@router.post("/v1/recommend", operation_id="recommend_v1", response_model=RecommendResponse, responses=PROBLEMS)
async def recommend(
    wanted: RecommendRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request
) -> Response:
    """Recommend items to a user, or to an anonymous visitor by what they have taken.

    Whoever has taken something, in the training or by an event since, gets the items that suit them best, by default
    without those they already had, and never those that they hid or disliked.
    Anybody else gets the most popular items: lately, with `"strategy": "trending"`, where the training data have
    times, else of all times, with `"popular"`.
    """
    return Response(await answer_one(wanted, engine, overlay, request.scope), media_type=_JSON)


async def answer_one(wanted: RecommendRequest, engine: Engine, overlay: Overlay, scope: ASGIScope) -> bytes:
    """The answer of :func:`recommend` as JSON; leaves its id for the log."""
    since, complete = await overlay.since_soon(wanted.user_id)
    query, retired = wanted.query(wanted.user_id, wanted.history, since), overlay.retired_rows(engine)
    metrics: Metrics = scope["app"].state.metrics
    if engine.is_quick(query):
        id_, answer = _answer(engine, query, retired, complete, metrics)
    else:
        id_, answer = await to_thread.run_sync(_answer, engine, query, retired, complete, metrics)
    scope["state"]["recommendation_id"] = id_
    return answer


@router.post("/recommend:batch", operation_id="recommend_batch", response_model=BatchResponse, responses=PROBLEMS)
@router.post("/v1/recommend:batch", operation_id="recommend_batch_v1", response_model=BatchResponse, responses=PROBLEMS)
def recommend_batch(wanted: BatchRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request) -> Response:
    """Recommend items to many users at once; all answers are from the same model."""
    since, complete = overlay.since(wanted.user_ids)
    retired = overlay.retired_rows(engine)
    metrics: Metrics = request.app.state.metrics
    answers = [
        _answer(engine, wanted.query(user_id, (), known), retired, complete, metrics)[1]
        for user_id, known in zip(wanted.user_ids, since, strict=True)
    ]
    return Response(b'{"recommendations":[%s]}' % b",".join(answers), media_type=_JSON)


def _answer(
    engine: Engine, query: queries.Query, retired: NDArray[np.int64], complete: bool, metrics: Metrics
) -> tuple[str, bytes]:
    """The id of the answer, and the answer as JSON."""
    try:
        ranked = engine.rank(query, retired)
    except UnknownAttributeError as error:
        raise RequestValidationError([_unknown("filter", "attribute", error)]) from None
    except queries.UnknownPartError as error:
        raise RequestValidationError([_unknown("weights", "part", error)]) from None
    metrics.recommendation(ranked.strategy, ranked.reason)
    id_ = urandom(16).hex()
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
