"""What happens to every request, before and after its route.

:class:`Front` is the outermost layer: it gives each request an id to find it by, and once it is answered counts it
and writes it to the log. It is one class, and plain ASGI, because whatever stands here costs every request.
"""

import logging
import re
import time
from os import urandom
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.draining import Draining
from service.logs import REQUEST_ID, AccessLog
from service.metrics import GONE, UNMATCHED, Metrics

REQUEST_ID_HEADER = "X-Request-ID"

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_ID_NAME = REQUEST_ID_HEADER.lower().encode()
_CLOSE = (b"connection", b"close")
_FOR_ALL = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_CSP_NAME = b"content-security-policy"
_CSP_OF_PAGES = (
    _CSP_NAME,
    b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
)
_log = logging.getLogger(__name__)


def request_id(scope: Scope) -> str:
    """Return the id of the request that :class:`Front` let in."""
    state: dict[str, Any] = scope["state"]
    return str(state["request_id"])


class Front:
    """Echoes the client's ``X-Request-ID``, or makes one where it is missing or could garble a log line.

    Routes may leave in ``request.state`` what the log shall name: ``key_name``, ``recommendation_id``. Load shedding
    says there that it was it (``shed``), and the connection that the client has gone (``gone``).
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: AccessLog | None, draining: Draining) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in with its id, and report how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        id_ = _given_id(scope) or urandom(16).hex().encode()
        name = id_.decode()
        scope.setdefault("state", {})["request_id"] = name
        REQUEST_ID.set(name)  # of this request's task alone
        status = GONE

        async def send_stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = [*message.get("headers", ()), (_ID_NAME, id_), *_FOR_ALL]
                if _is_page(headers):
                    headers.append(_CSP_OF_PAGES)
                if self._draining.active:
                    headers.append(_CLOSE)
            await send(message)

        try:
            await self._app(scope, receive, send_stamped)
        except Exception:
            _log.exception("request %s failed", name)  # who asked has been told, in an answer without details
        finally:
            self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        route = _template(scope)
        state = scope["state"]
        if "gone" in state:
            status = GONE
        method = scope["method"]
        self._metrics.request(method, route, status, seconds, shed="shed" in state)
        if self._log is not None:
            key, recommendation = state.get("key_name"), state.get("recommendation_id")
            self._log.answered(state["request_id"], method, route, status, seconds, key, recommendation)


def _template(scope: Scope) -> str:
    """The route's path as the API's description has it; of what is asked for itself there is no bound."""
    route = scope.get("route")
    return UNMATCHED if route is None else str(route.path_format)


def _given_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == _ID_NAME:
            return value if _ACCEPTED_ID.fullmatch(value) else None
    return None


def _is_page(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether an answer is HTML that does not say itself what it may load."""
    page = False
    for name, value in headers:
        if name == b"content-type":
            page = value.startswith(b"text/html")
        elif name == _CSP_NAME:
            return False
    return page
