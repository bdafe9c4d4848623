"""Stops the work for a request that has taken too long. A thread cannot be ended: it has to ask whether to go on.

Knows nothing of HTTP. What may take long in a thread calls :func:`go_on` now and then.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from anyio import CancelScope


class StoppedError(asyncio.CancelledError):
    """Raised in a thread whose request was stopped; as one of asyncio's it is nobody's to answer but who stopped it."""


class Work:
    """What the current task does for one request, itself and in threads. Belongs to one event loop.

    Attributes:
        since: when it began, by the monotonic clock.
        stopped: whether it is to end; threads read it.
    """

    __slots__ = ("_scope", "_task", "since", "stopped")

    def __init__(self) -> None:
        """Begin, and be what :func:`go_on` is about in this task and the threads that it starts."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a request is always handled in a task)
        self._task = task
        self._scope: CancelScope | None = None
        self.since = time.monotonic()
        self.stopped = False
        _WORK.set(self)

    def stop(self) -> None:
        """Cancel the task: at once, or, in :func:`awaiting_threads`, when the thread has ended that it waits for."""
        self.stopped = True
        if self._scope is None:
            self._task.cancel()
        else:
            self._scope.cancel()

    def resume(self) -> None:
        """Let the task, which has been cancelled by :meth:`stop`, await something once more."""
        self._task.uncancel()

    @contextmanager
    def awaiting_threads(self) -> Iterator[None]:
        """See the function of this name."""
        outer = self._scope
        with CancelScope() as self._scope:
            try:
                yield
            finally:
                self._scope = outer
        go_on()


_WORK: ContextVar[Work | None] = ContextVar("work", default=None)


def go_on() -> None:
    """Do nothing, or end a thread whose request was stopped.

    Raises:
        StoppedError: nobody waits for what is done here.
    """
    work = _WORK.get()
    if work is not None and work.stopped:
        raise StoppedError


@contextmanager
def awaiting_threads() -> Iterator[None]:
    """Have the task that is stopped in here wait for its thread to end.

    A task that is cancelled leaves its thread behind, unless it is by a scope of anyio's; such a scope costs too much
    to have one around every request.
    """
    work = _WORK.get()
    if work is None:
        yield
    else:
        with work.awaiting_threads():
            yield
