"""Who may call what, and how often: API keys with scopes (``shared/api_keys.py``), and a rate limit a key.

Calls are counted in this process. To count them in Redis would cost every request a round trip before the one it
needs; so several workers together let a key call as many times more often.
"""

import hmac
import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException

from shared.api_keys import ApiKey, Scope, digest, load_keys
from shared.errors import UsageError, UserError

ANONYMOUS = "anonymous"
"""Who calls where no keys are asked for."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a keys file has changed."""

_CHANGES_NOTHING = frozenset({"GET", "HEAD"})
_OWN_PAGES = frozenset({"same-origin", "none"})
"""What browsers say, in ``Sec-Fetch-Site``, of a request that no other site has caused."""

_log = logging.getLogger(__name__)


class KeysFile:
    """The keys of a file, read again when it changes. While its new content cannot be used, the old one stays."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UserError: it cannot be read or is no keys file.
        """
        self._path = path
        self._seen = self._identity()
        self._keys = load_keys(path)
        self._problem: str | None = None
        self._look_at = time.monotonic() + LOOK_SECONDS

    def __call__(self) -> Sequence[ApiKey]:
        """The keys as of the last look, which is at most ``LOOK_SECONDS`` ago."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._look()
        return self._keys

    def _look(self) -> None:
        found = self._identity()
        if found == self._seen:
            return
        try:
            self._keys = load_keys(self._path)
        except UserError as error:
            if str(error) != self._problem:
                _log.error("the keys stay as they were: %s", error)
            self._problem = str(error)
        else:
            self._seen, self._problem = found, None
            _log.info("read %d keys from %s", len(self._keys), self._path)

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


class Access:
    """Decides about every request; safe from any number of threads."""

    def __init__(
        self, keys: Callable[[], Sequence[ApiKey]] | None, rate: str | None, origins: Sequence[str] = ()
    ) -> None:
        """Access by keys, or for everybody.

        Args:
            keys: gives those who may call; None lets everybody do everything.
            rate: how often a key may call, such as ``100/second``; None sets no limit.
            origins: whose pages may change something where no keys are asked for, as ``Origin`` names them; ``*``: all.

        Raises:
            UsageError: the rate makes no sense.
        """
        self._keys = keys
        self._origins = frozenset(origins)
        self._rate = None if rate is None else _rate(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    @property
    def asks_for_keys(self) -> bool:
        """Whether who calls needs a key."""
        return self._keys is not None

    def admit(self, request: Request, scope: Scope) -> None:
        """Let a request through, or raise what answers it: 401, 403 or 429.

        It counts once in the limit, also when it is admitted twice since another part of the service takes it over.
        """
        caller, state = ANONYMOUS, request.scope.setdefault("state", {})
        if self._keys is not None:
            caller = self._allowed(_presented(request), scope).name
            state["key_name"] = caller
        elif scope is not Scope.READ:
            self._refuse_other_pages(request)
        if self._rate is None or state.get("counted"):
            return
        if self._limiter.hit(self._rate, caller):
            state["counted"] = True
            return
        # the moving window says when its oldest call falls out of it
        seconds = max(1, math.ceil(self._limiter.get_window_stats(self._rate, caller).reset_time - time.time()))
        raise HTTPException(429, f"More than {self._rate} with this key.", {"Retry-After": str(seconds)})

    def refuse_strangers(self, request: Request) -> None:
        """Raise what answers a request without a valid key, 401, whatever it asks for; its body need not be there."""
        if self._keys is not None:
            self._valid(_presented(request))

    def _allowed(self, presented: str | None, scope: Scope) -> ApiKey:
        key = self._valid(presented)
        if scope not in key.scopes:
            raise HTTPException(403, f"This API key lacks the scope '{scope}'.")
        return key

    def _valid(self, presented: str | None) -> ApiKey:
        key = None if presented is None else self._find(presented)
        if key is None:
            raise HTTPException(
                401,
                "Send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
                if presented is None
                else "This API key is not known here: it is wrong, or was revoked.",
                {"WWW-Authenticate": "Bearer"},
            )
        if key.expires is not None and key.expired:
            raise HTTPException(
                401,
                f"This API key expired on {key.expires.astimezone(UTC):%Y-%m-%d at %H:%M} UTC. Ask for a new one.",
                {"WWW-Authenticate": 'Bearer error="invalid_token", error_description="The key has expired"'},
            )
        return key

    def _refuse_other_pages(self, request: Request) -> None:
        """No key tells a page of somebody else's, open in the browser of whoever reaches the service, from its own."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if request.method in _CHANGES_NOTHING or not {origin, "*"}.isdisjoint(self._origins):
            return
        if site:
            own = site in _OWN_PAGES
        else:
            own = origin is None or origin.partition("://")[2] == request.headers.get("host")
        if not own:
            raise HTTPException(
                403, "A page of another site may change nothing: MTS4MM_CORS_ORIGINS names those that may."
            )

    def _find(self, presented: str) -> ApiKey | None:
        """Compare with every key, in a time that tells nothing of any."""
        presented_digest = digest(presented)
        found = None
        for key in () if self._keys is None else self._keys():
            if hmac.compare_digest(key.sha256, presented_digest):
                found = key
        return found


class Requires:
    """A dependency for routes that need a scope; the application keeps its ``Access`` as ``app.state.access``."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> None:
        """Let the request through, or raise what answers it."""
        access: Access = request.app.state.access
        access.admit(request, self.scope)


def requires(scope: Scope) -> Any:
    """What a router or a route lists among its ``dependencies`` to be called with a key of this scope alone."""
    return Depends(Requires(scope))


def _presented(request: Request) -> str | None:
    kind, _, credentials = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and credentials:
        return credentials.strip()
    return request.headers.get("x-api-key")


def _rate(text: str) -> RateLimitItem:
    try:
        return parse(text)
    except ValueError:
        raise UsageError(f"the rate limit {text!r} makes no sense: write it as 100/second or 5000/hour") from None
