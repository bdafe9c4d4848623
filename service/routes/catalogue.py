"""What the model knows of items, and which are alike."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.access import requires
from service.routes.base import ITEM_PROBLEMS, JsonRoute, LoadedEngine, known
from service.schemas import DEFAULT_K, MAX_K, ItemResponse, RecommendedItem, SimilarResponse
from shared.api_keys import Scope

router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.READ)])


@router.get("/items/{item_id:path}/similar", operation_id="similar_items", responses=ITEM_PROBLEMS)
def similar(
    item_id: str,
    engine: LoadedEngine,
    k: Annotated[int, Query(ge=1, le=MAX_K)] = DEFAULT_K,
) -> SimilarResponse:
    """The items most like one, by the cosine of the student's embeddings."""
    items = known(lambda: engine.similar(item_id, k), "item")
    return SimilarResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in items],
    )


@router.get("/items/{item_id:path}", operation_id="item", responses=ITEM_PROBLEMS)
def item(item_id: str, engine: LoadedEngine) -> ItemResponse:
    """What the model knows of an item."""
    found = known(lambda: engine.item(item_id), "item")
    return ItemResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        popularity=found.popularity,
        metadata=found.metadata,
    )
