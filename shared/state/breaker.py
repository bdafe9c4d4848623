"""Keeps requests from waiting, one after the other, for a Redis that does not answer."""

import logging
import math
import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import redis

OPEN_SECONDS = 1.0
"""How long nothing is tried after Redis did not answer, and the least time between two attempts until it does."""

_Answer = TypeVar("_Answer")
_CODES = ("LOGFULL", "OOM", "MISCONF", "READONLY", "NOPERM", "NOREPLICAS", "WRONGTYPE")
_log = logging.getLogger(__name__)


class StateUnavailable(Exception):  # noqa: N818 - the condition that callers handle, not a mistake of theirs
    """Redis did not answer, or answered that it cannot.

    What was to be written may have been written all the same where Redis was slow: send events again with the
    same ids, nothing is counted twice.

    Attributes:
        retry_after_seconds: the earliest it makes sense to ask again, at least 1.
    """

    def __init__(self, reason: str, retry_after_seconds: int) -> None:
        """Say why; ``reason`` holds nothing of the connection's address."""
        super().__init__(f"the user state is unavailable: {reason}")
        self.retry_after_seconds = retry_after_seconds


class Breaker:
    """Lets calls to Redis through until one finds it dead; then one attempt every ``OPEN_SECONDS``.

    Only a lost connection and a timeout count as dead. Another error, such as "out of memory", came quickly from
    a Redis that may still answer the next call. Safe from any number of threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed. ``clock`` gives seconds that never run backwards."""
        self._clock = clock
        self._lock = Lock()
        self._retry_at: float | None = None

    @property
    def closed(self) -> bool:
        """Whether Redis answered last."""
        return self._retry_at is None

    @property
    def refuses(self) -> bool:
        """Whether a call would be refused now, without being tried."""
        retry_at = self._retry_at
        return retry_at is not None and self._clock() < retry_at

    def call(self, work: Callable[[], _Answer]) -> _Answer:
        """Do ``work``, or refuse to while Redis is known to be dead.

        Raises:
            StateUnavailable: Redis is or was found dead, or refused the work.
        """
        self._enter()
        try:
            answer = work()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            reason = _reason(error)
            self._open(reason)
            raise StateUnavailable(reason, math.ceil(OPEN_SECONDS)) from None
        except redis.RedisError as error:
            self._close()
            raise StateUnavailable(_reason(error), math.ceil(OPEN_SECONDS)) from None
        self._close()
        return answer

    def _enter(self) -> None:
        with self._lock:
            if self._retry_at is None:
                return
            now = self._clock()
            if now < self._retry_at:
                raise StateUnavailable("it did not answer a moment ago", math.ceil(self._retry_at - now))
            # This caller tries; the others stay out until it has an answer or its time is up.
            self._retry_at = now + OPEN_SECONDS

    def _open(self, reason: str) -> None:
        with self._lock:
            was_closed = self._retry_at is None
            self._retry_at = self._clock() + OPEN_SECONDS
        if was_closed:
            _log.warning("the user state in Redis does not answer: %s", reason)

    def _close(self) -> None:
        if self._retry_at is None:
            return
        with self._lock:
            was_closed, self._retry_at = self._retry_at is None, None
        if not was_closed:
            _log.info("the user state in Redis answers again")


def _reason(error: Exception) -> str:
    """Name the kind of the error and no more: an old server's complaint of an AUTH quotes the password."""
    cause = error.__cause__ or error.__context__
    kind = type(cause if isinstance(cause, OSError) else error).__name__
    return next((f"{kind} {code}" for code in _CODES if code in str(error)), kind)
