"""Ends connections whose clients take too long to say what they want.

uvicorn bounds how long a connection may be idle between requests, but not how long the head of a request may take.
A few thousand clients that send a byte now and then would take all the connections there are.
"""

import weakref
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_open: "weakref.WeakSet[PatientProtocol]" = weakref.WeakSet()


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # which of two it is shows when it is imported
    """uvicorn's protocol, and since when the client is sending the head of a request."""

    head_since: tuple[Any, float] | None = None

    def connection_made(self, transport: Any) -> None:
        """Remember the connection."""
        super().connection_made(transport)
        _open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        _open.discard(self)
        super().connection_lost(exc)

    def wait_no_longer_than(self, seconds: float, now: float) -> None:
        """Close the connection if its client has been sending a head for longer, or connected and said nothing."""
        in_request = self.cycle is not None and not self.cycle.response_complete
        if in_request or self.timeout_keep_alive_task is not None:
            self.head_since = None
        elif self.head_since is None or self.head_since[0] is not self.cycle:
            self.head_since = (self.cycle, now)
        elif now - self.head_since[1] > seconds:
            self.transport.abort()


def close_slow(seconds: float, now: float) -> None:
    """Close the connections whose clients have been sending the head of a request for longer than ``seconds``."""
    for connection in list(_open):
        connection.wait_no_longer_than(seconds, now)
