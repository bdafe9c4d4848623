"""The pictures of items."""

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.access import requires
from service.overlay import Overlay
from service.pictures import Picture, PictureFolder
from service.routes.base import ITEM_PROBLEMS, CurrentOverlay, LiteralTailRoute, LoadedEngine, known, refuse_retired
from shared.api_keys import Scope
from shared.kept_pictures import kept_picture
from shared.state import StateUnavailable

_KEEP = "private, max-age=3600"

router = APIRouter(route_class=LiteralTailRoute, dependencies=[requires(Scope.READ)])


@router.get(
    "/items/{item_id:id}/image",
    operation_id="item_image",
    response_class=Response,
    responses={
        **ITEM_PROBLEMS,
        200: {"description": "The picture.", "content": {"image/*": {"schema": {"type": "string"}}}},
        304: {"description": "The picture is the one that the caller has, by its ETag."},
        404: {
            **ITEM_PROBLEMS[404],
            "description": "The model knows no such item, it is retired, or there is no picture of it.",
        },
    },
)
def image(item_id: str, engine: LoadedEngine, overlay: CurrentOverlay, request: Request) -> Response:
    """The picture of an item: the one it was put with, else from the catalogue's folder (`MTS4MM_CATALOGUE`)."""
    metadata = known(lambda: engine.item(item_id), "item").metadata or {}
    refuse_retired(overlay, item_id)
    picture = _as_put(overlay, request.app.state.models, item_id) or _from_catalogue(
        request.app.state.pictures, metadata.get("image")
    )
    if picture is None:
        raise HTTPException(404, "There is no picture of this item.")
    headers = {"ETag": picture.etag, "Cache-Control": _KEEP}
    if picture.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(picture.content, media_type=picture.media_type, headers=headers)


def _as_put(overlay: Overlay, store: Path, item_id: str) -> Picture | None:
    """What an item was last put with: in the state, and beside the models once a night has taken the item over."""
    if item_id in overlay.live_items:
        try:
            live = overlay.call("picture", lambda state: state.live_items.get([item_id], pictures=True))
        except StateUnavailable:
            live = []
        if live:  # else a night has taken it over since this process last looked
            return _jpeg(live[0].picture)
    return _jpeg(kept_picture(store, item_id))


def _jpeg(content: bytes | None) -> Picture | None:
    return None if content is None else Picture(content, "image/jpeg", f'"{sha256(content).hexdigest()}"')


def _from_catalogue(folder: PictureFolder | None, path: object) -> Picture | None:
    return folder.read(path) if folder is not None and isinstance(path, str) and path else None
