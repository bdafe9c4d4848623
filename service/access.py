"""Who may call what, and how often: API keys with scopes (``shared/api_keys.py``), and a rate limit a key."""

import hmac
import time
from collections.abc import Callable

from fastapi import Request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException

from shared.api_keys import ApiKey, Scope, digest
from shared.errors import UsageError

_ANONYMOUS = "anonymous"


class Access:
    """Decides about every request; safe from any number of threads."""

    def __init__(self, keys: list[ApiKey] | None, rate: str | None) -> None:
        """Access by keys, or for everybody.

        Args:
            keys: who may call; None lets everybody do everything.
            rate: how often a key may call, such as ``100/second``; None sets no limit.

        Raises:
            UsageError: the rate makes no sense.
        """
        self._keys = keys
        self._rate = None if rate is None else _rate(rate)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def admit(self, request: Request, scope: Scope) -> None:
        """Let a request through, or raise what answers it: 401, 403 or 429."""
        caller = _ANONYMOUS
        if self._keys is not None:
            caller = self._allowed(_presented(request), scope).name
        if self._rate is None or self._limiter.hit(self._rate, caller):
            return
        # the moving window says when its oldest call falls out of it
        seconds = max(1, round(self._limiter.get_window_stats(self._rate, caller).reset_time - time.time()))
        raise HTTPException(429, f"More than {self._rate} with this key.", {"Retry-After": str(seconds)})

    def _allowed(self, presented: str | None, scope: Scope) -> ApiKey:
        key = None if presented is None else self._find(presented)
        if key is None:
            raise HTTPException(
                401,
                "Send a valid API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
                {"WWW-Authenticate": "Bearer"},
            )
        if scope not in key.scopes:
            raise HTTPException(403, f"This API key lacks the scope '{scope}'.")
        return key

    def _find(self, presented: str) -> ApiKey | None:
        """Compare with every key, in a time that tells nothing of any."""
        presented_digest = digest(presented)
        found = None
        for key in self._keys or []:
            if hmac.compare_digest(key.sha256, presented_digest):
                found = key
        return found


def requires(scope: Scope) -> Callable[[Request], None]:
    """A dependency for routes that need a scope; the application keeps its ``Access`` as ``app.state.access``."""

    def admitted(request: Request) -> None:
        access: Access = request.app.state.access
        access.admit(request, scope)

    return admitted


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
