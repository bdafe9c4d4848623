"""Recommendations, one user or many at once."""

from typing import Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray

from service import queries
from service.access import requires
from service.engine import Engine
from service.filters import UnknownAttributeError
from service.metrics import Metrics
from service.routes.base import PROBLEMS, CurrentOverlay, JsonRoute, LoadedEngine
from service.schemas import BatchRequest, BatchResponse, RecommendedItem, RecommendRequest, RecommendResponse
from shared.api_keys import Scope

_MOST_NAMED = 20

router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.READ)])


@router.post("/recommend", operation_id="recommend", responses=PROBLEMS)
@router.post("/v1/recommend", operation_id="recommend_v1", responses=PROBLEMS)
def recommend(
    wanted: RecommendRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request
) -> RecommendResponse:
    """Recommend items to a user, or to an anonymous visitor by what they have taken.

    Whoever has taken something, in the training or by an event since, gets the items that suit them best, by default
    without those they already had, and never those that they hid or disliked.
    Anybody else gets the most popular items, with `"strategy": "popular"`.
    """
    since, complete = overlay.since([] if wanted.user_id is None else [wanted.user_id])
    query = wanted.query(wanted.user_id, wanted.history, *since)
    answer = _answer(engine, query, overlay.retired_rows(engine), complete, request)
    request.state.recommendation_id = answer.recommendation_id
    return answer


@router.post("/recommend:batch", operation_id="recommend_batch", responses=PROBLEMS)
@router.post("/v1/recommend:batch", operation_id="recommend_batch_v1", responses=PROBLEMS)
def recommend_batch(
    wanted: BatchRequest, engine: LoadedEngine, overlay: CurrentOverlay, request: Request
) -> BatchResponse:
    """Recommend items to many users at once; all answers are from the same model."""
    since, complete = overlay.since(wanted.user_ids)
    retired = overlay.retired_rows(engine)
    answers = [
        _answer(engine, wanted.query(user_id, (), known), retired, complete, request)
        for user_id, known in zip(wanted.user_ids, since, strict=True)
    ]
    return BatchResponse(recommendations=answers)


def _answer(
    engine: Engine, query: queries.Query, retired: NDArray[np.int64], complete: bool, request: Request
) -> RecommendResponse:
    try:
        recommendation = engine.recommend(query, retired)
    except UnknownAttributeError as error:
        raise RequestValidationError([_unknown("filter", "attribute", error)]) from None
    except queries.UnknownPartError as error:
        raise RequestValidationError([_unknown("weights", "part", error)]) from None
    metrics: Metrics = request.app.state.metrics
    metrics.recommendation(recommendation.strategy, recommendation.reason)
    return RecommendResponse(
        recommendation_id=uuid4().hex,
        model_version=engine.artifact.manifest.version,
        strategy=recommendation.strategy,
        reason=recommendation.reason,
        degraded=not complete,
        user_id=query.user_id,
        unknown_items=recommendation.unknown_items,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in recommendation.items],
    )


def _unknown(field: str, kind: str, error: UnknownAttributeError | queries.UnknownPartError) -> dict[str, Any]:
    known = ", ".join(error.known[:_MOST_NAMED]) or "none"
    message = f"The model knows no {kind} of this name. It knows: {known}"
    return {"type": f"unknown_{kind}", "loc": ("body", field, error.name), "msg": message}
