"""Ends connections whose clients take too long to say what they want, notes who has gone, and answers in one packet.

uvicorn bounds how long a connection may be idle between requests, but not how long the head of a request may take.
A few thousand clients that send a byte now and then would take all the connections there are. It also sends the head
and the body of an answer each by itself, and to send is what costs most of all that is done for a request.
"""

import asyncio
import weakref
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = b"HTTP/1.1 200 "

_open: "weakref.WeakSet[PatientProtocol]" = weakref.WeakSet()


class InOneGo:
    """A transport that keeps the head of an answer until its body comes, or the event loop has nothing else to do."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, or keep what looks like a head; if it was none, it is late by a turn of the loop and no more."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD) and data.endswith(b"\r\n\r\n"):
            self._head = data
            self._loop.call_soon(self._send_head)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # which of two it is shows when it is imported
    """uvicorn's protocol, and since when the client is sending the head of a request."""

    head_since: tuple[Any, float] | None = None

    def connection_made(self, transport: Any) -> None:
        """Remember the connection, and have what is written to it sent at once.

        By default uvloop sends what it has to when a turn of the loop ends: answers that were searched for together
        would all wait for the last of them to be written, and their clients would ask anew all at once.
        """
        transport.set_write_buffer_limits(high=0)
        super().connection_made(InOneGo(transport, asyncio.get_running_loop()))
        _open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and say of a request whose answer has not begun that nobody waits for it."""
        _open.discard(self)
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.scope["state"]["gone"] = True
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
