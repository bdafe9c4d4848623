"""Recommendations, one user or many at once."""

from os import urandom
from typing import Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from starlette.types import Scope as ASGIScope

from service.access import requires
from service.answers import written
from service.engine import Begun, Engine
from service.filters import NoNumbersError, UnknownAttributeError
from service.metrics import Metrics
from service.overlay import Overlay
from service.queries import Query, RankedRows, UnknownPartError
from service.routes.base import PROBLEMS, CurrentOverlay, JsonRoute, LoadedEngine
from service.schemas import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from service.stopping import awaiting_threads, go_on
from shared.api_keys import Scope

_MOST_NAMED = 20
_NO_NUMBERS = "No item has a number here: ask for values instead of a range, or write the items' values as numbers"
_SEARCHING = CapacityLimiter(8)
"""More threads would only contend for one interpreter."""
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
    state = scope["app"].state
    if engine.is_quick(query):
        begun = engine.begin(query, retired)
        ranked = begun.answer(await state.searches(engine, begun.asked)) if isinstance(begun, Begun) else begun
    else:
        with awaiting_threads():
            ranked = await to_thread.run_sync(_ranked, engine, query, retired, limiter=_SEARCHING)
    id_ = urandom(16).hex()
    scope["state"]["recommendation_id"] = id_
    return _answer(engine, query, ranked, id_, complete, state.metrics)


@router.post("/recommend:batch", operation_id="recommend_batch", response_model=BatchResponse, responses=PROBLEMS)
@router.post("/v1/recommend:batch", operation_id="recommend_batch_v1", response_model=BatchResponse, responses=PROBLEMS)
def recommend_batch(wanted: BatchRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request) -> Response:
    """Recommend items to many users at once; all answers are from the same model."""
    since, complete = overlay.since(wanted.user_ids)
    retired = overlay.retired_rows(engine)
    metrics: Metrics = request.app.state.metrics
    queries = [wanted.query(user_id, (), known) for user_id, known in zip(wanted.user_ids, since, strict=True)]
    answers = [
        _answer(engine, query, _ranked(engine, query, retired), urandom(16).hex(), complete, metrics)
        for query in queries
    ]
    return Response(b'{"recommendations":[%s]}' % b",".join(answers), media_type=_JSON)


def _ranked(engine: Engine, query: Query, retired: NDArray[np.int64]) -> RankedRows:
    go_on()
    try:
        return engine.rank(query, retired)
    except UnknownAttributeError as error:
        field = "filter" if error.name in query.filter else "at_most"
        raise RequestValidationError([_unknown(field, "attribute", error)]) from None
    except NoNumbersError as error:
        flaw = {"type": "no_numbers", "loc": ("body", "filter", error.name), "msg": _NO_NUMBERS}
        raise RequestValidationError([flaw]) from None
    except UnknownPartError as error:
        raise RequestValidationError([_unknown("weights", "part", error)]) from None


def _answer(engine: Engine, query: Query, ranked: RankedRows, id_: str, complete: bool, metrics: Metrics) -> bytes:
    metrics.recommendation(ranked.strategy, ranked.reason)
    return written(
        ranked,
        engine.items,
        recommendation_id=id_,
        model_version=engine.artifact.manifest.version,
        user_id=query.user_id,
        degraded=not complete,
    )


def _unknown(field: str, kind: str, error: UnknownAttributeError | UnknownPartError) -> dict[str, Any]:
    known = ", ".join(error.known[:_MOST_NAMED]) or "none"
    message = f"The model knows no {kind} of this name. It knows: {known}"
    return {"type": f"unknown_{kind}", "loc": ("body", field, error.name), "msg": message}
