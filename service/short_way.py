"""The short way of a plain request for recommendations, past the framework, which would cost more than the search does.

Plain is what is sound JSON and asks for no more than a user's or a visitor's best items. All else goes the general way
with all that was read of it, and so does whatever comes to grief here: that way says what is wrong.
"""

from collections import deque

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.routes import recommendations
from service.routes.base import loaded_engine, refuse_deep
from service.schemas import RecommendRequest
from shared.api_keys import Scope as KeyScope

_ROUTES = {
    route.path: route
    for route in recommendations.router.routes
    if isinstance(route, APIRoute) and route.endpoint is recommendations.recommend
}
_JSON = (b"content-type", b"application/json")


class ShortWay:
    """Answers plain requests, and hands on the others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        route = _ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or _JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        heard = _Heard(receive)
        try:
            answer = await _answer(scope, await heard.body())
        except Exception:  # whatever it is, the general way meets it again and answers with what is wrong
            await self._app(scope, heard.again, send)
            return
        scope["route"] = route
        headers = [(b"content-length", b"%d" % len(answer)), _JSON]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class _NotPlainError(Exception):
    """Takes the general way."""


async def _answer(scope: Scope, body: bytes) -> bytes:
    state, request = scope["app"].state, Request(scope)
    refuse_deep(body, state.max_body_depth)
    wanted = RecommendRequest.model_validate_json(body)
    if wanted.filter or wanted.weights or wanted.at_most:
        raise _NotPlainError  # it may name what the model does not have
    engine = await loaded_engine(request)
    state.access.admit(request, KeyScope.READ)
    return await recommendations.answer_one(wanted, engine, state.overlay, scope)


class _Heard:
    """What a client has sent, to be heard once more."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: deque[Message] = deque()
        self._failed: HTTPException | None = None

    async def body(self) -> bytes:
        """The body, when all of it is there.

        Raises:
            _NotPlainError: the client has gone.
            HTTPException: it may not go on.
        """
        while True:
            try:
                message = await self._receive()
            except HTTPException as error:
                self._failed = error
                raise
            self._messages.append(message)
            if message["type"] != "http.request":
                raise _NotPlainError
            if not message.get("more_body", False):
                return b"".join(message.get("body", b"") for message in self._messages)

    async def again(self) -> Message:
        """The next message, from the first on."""
        if self._messages:
            return self._messages.popleft()
        if self._failed is not None:
            raise self._failed
        return await self._receive()
