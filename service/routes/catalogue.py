"""What the model knows of items, which are alike, and which are not to be recommended any more."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service import drafts
from service.access import requires
from service.queries import STUDENT, UnknownLikenessError
from service.routes.base import (
    ITEM_PROBLEMS,
    PUT_PROBLEMS,
    RETIREMENT_PROBLEMS,
    CurrentOverlay,
    JsonRoute,
    LiteralTailRoute,
    LoadedEngine,
    WholePathRoute,
    known,
    refuse_retired,
)
from service.schemas import (
    DEFAULT_K,
    MAX_K,
    ItemResponse,
    PutItemRequest,
    PutItemResponse,
    RecommendedItem,
    RetiredResponse,
    SimilarResponse,
)
from shared.api_keys import Scope
from shared.state import LiveItemsFull

likes = APIRouter(route_class=LiteralTailRoute, dependencies=[requires(Scope.READ)])
router = APIRouter(dependencies=[requires(Scope.READ)])
changes = APIRouter(route_class=WholePathRoute, dependencies=[requires(Scope.ADMIN)])
puts = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.ADMIN)])


@likes.get("/items/{item_id:id}/similar", operation_id="similar_items", responses=ITEM_PROBLEMS)
def similar(
    item_id: str,
    engine: LoadedEngine,
    overlay: CurrentOverlay,
    k: Annotated[int, Query(ge=1, le=MAX_K)] = DEFAULT_K,
    by: Annotated[
        str,
        Query(
            description="`student`: the vectors that recommendations are made of. `id`: who took them in the "
            "training. A modality, such as `image` or `text`: its content.",
            examples=["student", "image"],
        ),
    ] = STUDENT,
) -> SimilarResponse:
    """The items most like one, by a cosine.

    By the student there are always `k`, as far as there are other items. By anything else there may be fewer: only
    items that somebody took together with this one, or that have the modality as this one has.

    An id that itself ends in `/similar` or `/image` is sent with that slash encoded: `/items/a%2Fsimilar` is the item
    `a/similar`, and `/items/a%2Fsimilar/similar` are those like it.
    """
    refuse_retired(overlay, item_id)
    try:
        items = known(lambda: engine.similar(item_id, k, overlay.retired_rows(engine), by), "item")
    except UnknownLikenessError as error:
        message = f"The model cannot compare items by this. It can by: {', '.join(error.known)}"
        raise RequestValidationError([{"type": "unknown_likeness", "loc": ("query", "by"), "msg": message}]) from None
    return SimilarResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        by=by,
        items=[RecommendedItem.model_validate(item, from_attributes=True) for item in items],
    )


@changes.post("/items/{item_id:id}:restore", operation_id="restore_item", responses=RETIREMENT_PROBLEMS)
def restore(item_id: str, engine: LoadedEngine, overlay: CurrentOverlay) -> RetiredResponse:
    """Take a retirement back; of an item that is not retired, nothing changes.

    A retired item that nobody has taken is in no model since the night that followed; it is again after the next one.
    """
    if item_id not in overlay.retired.item_ids:
        known(lambda: engine.item(item_id), "item")
    overlay.call("restore", lambda state: state.restore_items([item_id]))
    overlay.look()
    return RetiredResponse(item_id=item_id, retired=False)


@router.get("/items/{item_id:id}", operation_id="item", responses=ITEM_PROBLEMS)
def item(item_id: str, engine: LoadedEngine, overlay: CurrentOverlay) -> ItemResponse:
    """What the model knows of an item."""
    refuse_retired(overlay, item_id)
    found = known(lambda: engine.item(item_id), "item")
    return ItemResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        popularity=found.popularity,
        metadata=found.metadata,
    )


@puts.put("/items/{item_id:id}", operation_id="put_item", responses=PUT_PROBLEMS)
def put(item_id: str, wanted: PutItemRequest, engine: LoadedEngine, overlay: CurrentOverlay) -> PutItemResponse:
    """Add an item, or say anew what is known of one; it can be recommended at once, without a training.

    Its vector is made from its content by every model that does not know it from the training, now and after a swap.
    Of an item that the model knows, the metadata are replaced and the vector stays. An item that was retired is
    restored. Other processes follow within two seconds.
    """
    row = engine.artifact.items.dense(item_id)
    item = drafts.draft(item_id, wanted, engine.content, known=row is not None)
    try:
        changed = overlay.call("put_item", lambda state: state.live_items.put(item))
    except LiveItemsFull as error:
        raise HTTPException(507, f"There is no room: {error}.") from None
    overlay.look()
    return PutItemResponse(
        model_version=engine.artifact.manifest.version,
        item_id=item_id,
        known=row is not None,
        modalities=[] if row is not None else list(engine.content.features(item)),
        changed=changed,
    )


@changes.delete("/items/{item_id:id}", operation_id="retire_item", responses=RETIREMENT_PROBLEMS)
def retire(item_id: str, engine: LoadedEngine, overlay: CurrentOverlay) -> RetiredResponse:
    """Retire an item: it is in no answer from now on, whichever model is live, until it is restored.

    Other processes follow within two seconds. Retiring an item twice is retiring it once. What was put of it is
    deleted, also where the model could not place it.
    """
    if item_id not in overlay.live_items:
        known(lambda: engine.item(item_id), "item")
    overlay.call("retire", lambda state: state.retire_items([item_id]))
    overlay.look()
    return RetiredResponse(item_id=item_id, retired=True)
