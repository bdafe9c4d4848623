"""The console: its files, and what they ask that is no part of the public API.

These routes are for the page of the same version; they are not in the API's description.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from service.access import Access, requires
from service.console.desk import Desk
from service.console.versions import Version, ranked
from service.engine import Engine
from service.lookalikes import Near
from service.overlay import Overlay
from service.queries import UnknownLikenessError
from service.routes.base import CurrentOverlay, LoadedEngine, WholePathRoute, whole_body
from shared.api_keys import Scope
from shared.encoders import PictureError, encoder_modalities
from shared.errors import UserError

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
"""What the page may load and do: its own files and the service, and no text ever becomes HTML."""

_MOST_FOUND = 100
_MOST_ITEMS = 1_000
_MOST_PLACES = 100
_NEAR = 12
_FILES = StaticFiles(packages=[("service.console", "static")])

_WITH_KEY = [requires(Scope.READ)]

router = APIRouter(prefix="/console", route_class=WholePathRoute, include_in_schema=False)


class Item(BaseModel):
    """An item as the page shows it."""

    item_id: str
    popularity: int
    metadata: dict[str, Any] | None
    live: bool = False
    """Whether something was put of it since the training."""


class Items(BaseModel):
    """Items in the order asked for."""

    model_version: str
    items: list[Item]


class Wanted(BaseModel):
    """Ids of items to look up."""

    model_config = ConfigDict(extra="forbid", strict=True)

    item_ids: list[str] = Field(max_length=_MOST_ITEMS)


class Words(BaseModel):
    """Words to find items by."""

    model_config = ConfigDict(extra="forbid", strict=True)

    words: str = Field(min_length=1, max_length=2_000)
    k: int = Field(_NEAR, ge=1, le=_MOST_FOUND)


@router.get("")
def without_slash() -> Response:
    """The page's links are relative to the folder, so that it also works behind a path of a proxy."""
    return RedirectResponse("console/", 308)


@router.get("/api/settings")
def settings(request: Request) -> dict[str, Any]:
    """What the page has to know before anything else; needs no key."""
    access: Access = request.app.state.access
    return {"pictures": request.app.state.pictures is not None, "keys": access.asks_for_keys}


@router.get("/api/model", dependencies=_WITH_KEY)
def model(engine: LoadedEngine, request: Request) -> dict[str, Any]:
    """The parts to weigh and the attributes to filter by."""
    reading = _desk(request).read(engine.artifact)
    tower, encoded = engine.content.tower, encoder_modalities(engine.artifact)
    return {
        "model_version": engine.artifact.manifest.version,
        "parts": list(engine.part_names),
        "attributes": [vars(facet) for facet in reading.facets],
        "modalities": engine.lookalikes.modalities,
        "searched_by": engine.lookalikes.searched_by,
        "placed_by": [
            {"modality": name, "width": width, "encoder": name in encoded}
            for name, width in ({} if tower is None else tower.modalities).items()
        ],
    }


@router.get("/api/users", dependencies=_WITH_KEY)
def users(
    engine: LoadedEngine,
    overlay: CurrentOverlay,
    request: Request,
    q: Annotated[str, Parameter(max_length=512)] = "",
    limit: Annotated[int, Parameter(ge=1, le=_MOST_FOUND)] = 20,
) -> dict[str, Any]:
    """Users whose id starts with ``q``, without those who were forgotten."""
    overlay.look()  # else who was just forgotten at another process would be there

    def is_forgotten(user_id: str) -> bool:
        return overlay.remembered(user_id).outdates(engine.forgotten_until)

    found = _desk(request).read(engine.artifact).search.users(q, limit, is_forgotten)
    return {"model_version": engine.artifact.manifest.version, "users": [vars(user) for user in found]}


@router.get("/api/items", dependencies=_WITH_KEY)
def items(
    engine: LoadedEngine,
    overlay: CurrentOverlay,
    request: Request,
    q: Annotated[str, Parameter(max_length=512)] = "",
    limit: Annotated[int, Parameter(ge=1, le=_MOST_FOUND)] = 20,
) -> Items:
    """Items with words that start as those of ``q``, live ones among them, and no retired ones."""
    search, lines = _desk(request).read(engine.artifact).search, _desk(request).added(engine).lines
    return _items(engine, overlay, search.items(q, limit, lines, _hidden(engine, overlay)))


@router.get("/api/shelf", dependencies=_WITH_KEY)
def shelf(
    engine: LoadedEngine,
    overlay: CurrentOverlay,
    request: Request,
    limit: Annotated[int, Parameter(ge=1, le=_MOST_FOUND)] = 24,
) -> Items:
    """Items of all kinds, from the popular half of the catalogue."""
    found = _desk(request).read(engine.artifact).search.shelf(limit, _hidden(engine, overlay))
    return _items(engine, overlay, found)


@router.post("/api/items", dependencies=_WITH_KEY)
def look_up(wanted: Wanted, engine: LoadedEngine, overlay: CurrentOverlay) -> Items:
    """Look items up by id, to name what users did: retired ones too; unknown ones are left out."""
    found = (engine.items.dense(item_id) for item_id in wanted.item_ids)
    return _items(engine, overlay, [item for item in found if item is not None])


@router.get("/api/near", dependencies=_WITH_KEY)
def near(
    engine: LoadedEngine,
    overlay: CurrentOverlay,
    item_id: str,
    by: str,
    k: Annotated[int, Parameter(ge=1, le=_MOST_FOUND)] = 12,
) -> dict[str, Any]:
    """The items nearest to one by a modality's content."""
    item = engine.items.dense(item_id)
    if item is None:
        raise HTTPException(404, "The model knows no such item.")
    try:
        return _near(engine, overlay, engine.near(item, k, overlay.retired_rows(engine), by))
    except UnknownLikenessError:
        raise HTTPException(404, "The model knows no such modality.") from None


@router.post("/api/search/words", dependencies=_WITH_KEY)
def search_words(wanted: Words, engine: LoadedEngine, overlay: CurrentOverlay) -> dict[str, Any]:
    """The items nearest to words, by modality."""
    found = engine.lookalikes.of_words(wanted.words, wanted.k, engine.live, overlay.retired_rows(engine))
    return {"near": {name: _near(engine, overlay, near) for name, near in found.items()}}


@router.post("/api/search/picture", dependencies=_WITH_KEY)
async def search_picture(engine: LoadedEngine, overlay: CurrentOverlay, request: Request) -> dict[str, Any]:
    """The items nearest to the picture that is the body, by modality."""
    picture = await whole_body(request)

    def search() -> dict[str, Near]:
        return engine.lookalikes.of_picture(picture, _NEAR, engine.live, overlay.retired_rows(engine))

    try:
        found = await to_thread.run_sync(search)
    except PictureError as error:
        raise HTTPException(422, f"The picture {error}.") from None
    return {"near": {name: _near(engine, overlay, near) for name, near in found.items()}}


@router.get("/api/versions", dependencies=_WITH_KEY)
def versions(request: Request) -> dict[str, Any]:
    """The newest versions of the store and what each says of itself, without the lists of files."""
    engine: Engine | None = request.app.state.live.engine
    if engine is not None:
        _desk(request).prepare(engine.artifact)
    return {"versions": [_summary(version) for version in _desk(request).versions.newest()]}


@router.get("/api/night", dependencies=_WITH_KEY)
def night(request: Request) -> dict[str, Any]:
    """What the last nightly run says of itself; null where there was none."""
    return {"night": _desk(request).night()}


@router.get("/api/night/report", dependencies=_WITH_KEY)
def night_report(request: Request) -> dict[str, Any]:
    """The report of the last nightly run."""
    report = _desk(request).night_report()
    if report is None:
        raise HTTPException(404, "The last night left no report.")
    return report


@router.get("/api/night/page", dependencies=_WITH_KEY)
def night_page(request: Request) -> Response:
    """The same as a page, to keep; it has styles in it, so that it is never shown as part of the console."""
    page = _desk(request).night_page()
    if page is None:
        raise HTTPException(404, "The last night left no report.")
    headers = {"Content-Disposition": "attachment; filename=night.html", "Content-Security-Policy": "sandbox"}
    return Response(page, media_type="text/html", headers=headers)


@router.get("/api/compare", dependencies=_WITH_KEY)
def compare(
    request: Request,
    overlay: CurrentOverlay,
    user_id: Annotated[str, Parameter(min_length=1, max_length=512)],
    before: str,
    after: str,
    k: Annotated[int, Parameter(ge=1, le=_MOST_PLACES)] = 20,
) -> dict[str, Any]:
    """What two versions recommend to a user by their embeddings alone, side by side, without retired items."""
    ((since,), _) = overlay.since([user_id])

    def listed(version: str) -> dict[str, Any]:
        try:
            artifact = _desk(request).versions.open(version)
            found = ranked(artifact, user_id, k, since, overlay.retired.item_ids)
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        return {
            "version": version,
            "known": found is not None,
            "items": [
                {"item_id": artifact.items.outside(row), "metadata": artifact.item_metadata(row)} for row in found or []
            ],
        }

    return {"user_id": user_id, "before": listed(before), "after": listed(after)}


@router.get("/{path:path}")
async def file(path: str, request: Request) -> Response:
    """A file of the page."""
    found = await _FILES.get_response(path or "index.html", request.scope)
    found.headers["Content-Security-Policy"] = POLICY
    found.headers["Cache-Control"] = "no-cache"
    return found


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _hidden(engine: Engine, overlay: Overlay) -> frozenset[int]:
    return frozenset(overlay.retired_rows(engine).tolist())


def _items(engine: Engine, overlay: Overlay, found: Sequence[int]) -> Items:
    known = (engine.item(engine.items.outside(row)) for row in found)
    return Items(
        model_version=engine.artifact.manifest.version,
        items=[
            Item(
                item_id=item.item_id,
                popularity=item.popularity,
                metadata=item.metadata,
                live=item.item_id in overlay.live_items,
            )
            for item in known
        ],
    )


def _near(engine: Engine, overlay: Overlay, near: Near) -> dict[str, Any]:
    items = _items(engine, overlay, near.items).items
    return {"items": [item.model_dump() | {"score": score} for item, score in zip(items, near.cosines, strict=True)]}


def _summary(version: Version) -> dict[str, Any]:
    said = version.manifest
    summary: dict[str, Any] = {"version": version.version, "current": version.current, "damage": version.damage}
    if said is not None:
        summary |= said.model_dump(mode="json", exclude={"version", "files", "digest"})
        summary |= {"files": len(said.files), "bytes": sum(entry.size for entry in said.files.values())}
    return summary
