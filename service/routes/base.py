"""What the routers share: the engine of the request, JSON bodies, and the problems that routes answer with."""

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

from anyio import to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from service.engine import Engine
from service.overlay import Overlay
from service.schemas import Problem
from service.stopping import awaiting_threads

Found = TypeVar("Found")


class _IdConvertor(Convertor[str]):
    """Takes all that is left of a path for an id, ``{name:id}``: slashes, and line ends, at which ``path`` stops."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _IdConvertor())


class WholePathRoute(APIRoute):
    """A route whose path ends where it says, also before a line end, which Starlette's patterns overlook."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave a path alone that ends in a line end, unless that belongs to an id."""
        if scope["path"].endswith("\n") and not self.path.endswith("}"):
            return Match.NONE, {}
        return super().matches(scope)


class JsonRoute(WholePathRoute):
    """A route that takes JSON and refuses other bodies by what they say they are."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if request.method in _WITH_BODY and media_type != "application/json":
                raise HTTPException(415, "Send the body as application/json.")
            if request.method in _WITH_BODY:
                refuse_deep(await whole_body(request), request.app.state.max_body_depth)
            return await handle(request)

        return handle_json


class LiteralTailRoute(WholePathRoute):
    """A route ``/.../{name:id}/tail`` that leaves alone the ids that end in its tail.

    The slash before the tail is one of the path; an encoded one, ``%2F``, belongs to the id.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look at the path also as it was sent."""
        tail = unquote(scope.get("raw_path", b"").decode("latin-1").rpartition("/")[2])
        if tail and tail != self.path.rpartition("/")[2]:
            return Match.NONE, {}
        return super().matches(scope)


_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


async def whole_body(request: Request) -> bytes:
    """Return the body, or answer 400 where the client went away before the end of it; nobody hears that."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "The body did not arrive.") from None


def refuse_deep(body: bytes, most: int) -> None:
    """Answer 400 where the JSON of a body is nested more deeply than it may be, or in another encoding than UTF-8.

    JSON is UTF-8, where it has no zero bytes; in UTF-16 and UTF-32, which Python reads too, it is full of them.
    """
    if b"\0" in body:
        raise HTTPException(400, "The body is not JSON in UTF-8.")
    if body.count(b"[") + body.count(b"{") <= most:
        return  # the usual case, without looking at the structure
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(body):
        if found[0] in (b"[", b"{"):
            depth += 1
            if depth > most:
                raise HTTPException(400, f"The body is nested more than {most} deep.")
        elif found[0] in (b"]", b"}"):
            depth -= 1


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON."},
    413: {"model": Problem, "description": "The body is too large."},
    415: {"model": Problem, "description": "The body is not said to be JSON."},
    422: {"model": Problem, "description": "A field is missing, wrong or unknown."},
    503: {"model": Problem, "description": "No model is loaded."},
}
LOOK_UP_PROBLEMS: dict[int | str, dict[str, Any]] = {status: PROBLEMS[status] for status in (422, 503)}
STATE_AWAY = "The user state is away; try again later."
ITEM_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The model knows no such item, or it is retired."},
    **LOOK_UP_PROBLEMS,
}
PUT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    404: {"model": Problem, "description": "The path names no item: an id of dots alone is not sent as one."},
    409: {"model": Problem, "description": "The model cannot place items by their content."},
    503: {"model": Problem, "description": f"No model is loaded. {STATE_AWAY}"},
    507: {"model": Problem, "description": "There is no room for another live item: train, or delete some."},
}
RETIREMENT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The model knows no such item."},
    422: PROBLEMS[422],
    503: {"model": Problem, "description": f"No model is loaded. {STATE_AWAY}"},
}
USER_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such user."},
    422: PROBLEMS[422],
    503: {"model": Problem, "description": f"No model is loaded. {STATE_AWAY}"},
}
FORGET_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "The path names no user: an id of dots alone is not sent as one."},
    422: PROBLEMS[422],
    503: {"model": Problem, "description": STATE_AWAY},
}
EVENT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    422: {"model": Problem, "description": "None of the events can be taken; each is named with what is wrong."},
    503: {"model": Problem, "description": STATE_AWAY},
}
ADMIN_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such version."},
    409: {"model": Problem, "description": "The version cannot be served, or another is live by now, which stays."},
    422: PROBLEMS[422],
    503: {"model": Problem, "description": "The object store cannot be reached, and its version comes back."},
}


async def loaded_engine(request: Request) -> Engine:
    """Return the engine with the live items, or answer 503 where no model is loaded."""
    engine: Engine | None = request.app.state.live.engine
    if engine is None:
        raise HTTPException(503, "No model is loaded: publish one to the service's models folder.")
    overlay: Overlay = request.app.state.overlay
    joined = overlay.live_items.at_hand(engine)
    if joined is None:
        with awaiting_threads():
            joined = await to_thread.run_sync(overlay.live_items.joined, engine)
    return joined


async def current_overlay(request: Request) -> Overlay:
    """Return what has changed since the training."""
    overlay: Overlay = request.app.state.overlay
    return overlay


CurrentOverlay = Annotated[Overlay, Depends(current_overlay)]
LoadedEngine = Annotated[Engine, Depends(loaded_engine)]


def known(look_up: Callable[[], Found], kind: str) -> Found:
    """Look something up, or answer 404 where it is not there."""
    try:
        return look_up()
    except KeyError:
        raise HTTPException(404, f"The model knows no such {kind}.") from None


def refuse_retired(overlay: Overlay, item_id: str) -> None:
    """Answer 404 for an item that is not to be shown any more."""
    if item_id in overlay.retired.item_ids:
        raise HTTPException(404, "The item is retired.")
