"""Keeps requests from waiting, one after the other, for a Redis that does not answer; remembers what one refused."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TypeVar

import redis

OPEN_SECONDS = 1.0
"""How long nothing is tried after Redis did not answer, and the least time between two attempts until it does."""

_Answer = TypeVar("_Answer")
_REFUSALS: Mapping[str, str] = {
    "LOGFULL": "the log of events is full: run mts4mm nightly",
    "OOM": "Redis is full: it has reached its maxmemory",
    "MISCONF": "Redis cannot write to its disk",
    "READONLY": "Redis is read-only",
    "NOREPLICAS": "Redis has too few replicas to take writes",
    "NOPERM": "Redis does not permit this to its user",
}
"""What Redis means, by the code of its error."""
_CODES: Mapping[type[redis.RedisError], str] = {
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.ReadOnlyError: "READONLY",
    redis.exceptions.NoPermissionError: "NOPERM",
}
"""Of the errors from whose text the client takes the code away."""
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


class StateRefused(StateUnavailable):
    """Redis answered that it cannot.

    Attributes:
        reason: what it said, in plain words.
    """

    def __init__(self, reason: str, retry_after_seconds: int) -> None:
        """Say why, as above."""
        super().__init__(reason, retry_after_seconds)
        self.reason = reason


class Breaker:
    """Lets calls to Redis through until one finds it dead; then one attempt every ``OPEN_SECONDS``.

    Only a lost connection and a timeout count as dead. Another error, such as "out of memory", came quickly from
    a Redis that may still answer the next call. Safe from any number of threads.

    Attributes:
        refusal: what keeps Redis from taking writes, as it said last; None if nothing is known to. It stays until
            :meth:`wrote`, since what is read, or makes room, succeeds meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed. ``clock`` gives seconds that never run backwards."""
        self._clock = clock
        self._lock = Lock()
        self._retry_at: float | None = None
        self.refusal: str | None = None

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
            StateUnavailable: Redis is or was found dead.
            StateRefused: it refused the work.
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
            refusal = _refusal(error)
            if refusal is not None:
                self._refused(refusal)
            reason = refusal or f"Redis answered with {_reason(error)}"
            raise StateRefused(reason, math.ceil(OPEN_SECONDS)) from None
        self._close()
        return answer

    def wrote(self) -> None:
        """Say that a write of the kind that was refused has succeeded."""
        with self._lock:
            refusal, self.refusal = self.refusal, None
        if refusal is not None:
            _log.info("the user state in Redis takes writes again")

    def _refused(self, refusal: str) -> None:
        with self._lock:
            before, self.refusal = self.refusal, refusal
        if before != refusal:
            _log.warning("the user state in Redis takes no writes: %s", refusal)

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


def _refusal(error: redis.RedisError) -> str | None:
    """What Redis means by an error; None for one that is no state of Redis. A script's error quotes the code."""
    said = next((code for kind, code in _CODES.items() if isinstance(error, kind)), str(error))
    return next((refusal for code, refusal in _REFUSALS.items() if code in said), None)


def _reason(error: Exception) -> str:
    """Name the kind of the error and no more: an old server's complaint of an AUTH quotes the password."""
    cause = error.__cause__ or error.__context__
    return type(cause if isinstance(cause, OSError) else error).__name__
