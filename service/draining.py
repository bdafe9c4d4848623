"""The end of a process, without a failed request: first it says that it is leaving, then it leaves.

On SIGTERM ``/readyz`` answers 503 at once, while requests are still taken in, so that whoever sends them has time to
notice; every answer then ends its connection. After that uvicorn takes in no more and finishes those in flight. It
leaves no later than it said, whatever threads are still at work.
"""

import asyncio
import logging
import os
import signal
import threading
import time
from types import FrameType

from shared.errors import ExitCode

_CLOSING_SECONDS = 1.5
"""How long, after the time for requests, state and models may take to be closed."""

_log = logging.getLogger(__name__)


class Draining:
    """Whether the process is leaving."""

    def __init__(self, seconds: float, grace_seconds: float) -> None:
        """Not yet.

        Args:
            seconds: between the signal and taking in no more.
            grace_seconds: between that and the end of requests in flight.
        """
        self.active = False
        self._seconds = seconds
        self._at_most = seconds + grace_seconds + _CLOSING_SECONDS

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the handler that ends the server on SIGTERM; a second signal is not held up."""
        if threading.current_thread() is not threading.main_thread():
            return  # an application in a test: signals are not its business
        leave = signal.getsignal(signal.SIGTERM)
        if not callable(leave):
            return

        def begin(number: int, frame: FrameType | None) -> None:
            threading.Thread(target=self._leave_anyway, name="leaving", daemon=True).start()
            if self.active or self._seconds == 0:
                leave(number, frame)
                return
            self.active = True
            loop.call_soon_threadsafe(loop.call_later, self._seconds, leave, number, frame)

        signal.signal(signal.SIGTERM, begin)

    def _leave_anyway(self) -> None:
        """A process waits at its end for its threads; what is written to the disk bears being cut off."""
        time.sleep(self._at_most)
        _log.warning("Left while threads were still at work")
        os._exit(ExitCode.OK)
