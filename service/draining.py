"""The end of a process, without a failed request: first it says that it is leaving, then it leaves.

On SIGTERM ``/readyz`` answers 503 at once, while requests are still taken in, so that whoever sends them has time to
notice; every answer then ends its connection. After that uvicorn takes in no more and finishes those in flight.
"""

import asyncio
import signal
import threading
from types import FrameType


class Draining:
    """Whether the process is leaving."""

    def __init__(self, seconds: float) -> None:
        """Not yet.

        Args:
            seconds: between the signal and taking in no more.
        """
        self.active = False
        self._seconds = seconds

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand before the handler that ends the server on SIGTERM; a second signal is not held up."""
        if threading.current_thread() is not threading.main_thread():
            return  # an application in a test: signals are not its business
        leave = signal.getsignal(signal.SIGTERM)
        if not callable(leave):
            return

        def begin(number: int, frame: FrameType | None) -> None:
            if self.active or self._seconds == 0:
                leave(number, frame)
                return
            self.active = True
            loop.call_soon_threadsafe(loop.call_later, self._seconds, leave, number, frame)

        signal.signal(signal.SIGTERM, begin)
