"""Ends connections whose clients never say what they want or never take the answer; answers in one packet.

uvicorn bounds how long a connection may be idle between requests, but neither how long the head of a request may take
nor how large it may be: a few thousand clients that send a byte now and then would take all the connections there
are, and one that sends a head without an end all the worker's time, as its parser copies the head with each piece.
Nor does it end connections whose clients do not read. It also sends the head and the body of an answer each by
itself, and to send is what costs most of all that is done for a request.
"""

import asyncio
import logging
import weakref
from collections import Counter
from typing import Any, Literal, get_args

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CutReason = Literal["large_head", "slow_head", "unread_answer"]
CUT_REASONS: tuple[CutReason, ...] = get_args(CutReason)

MOST_HEAD_BYTES = 64 * 1024
"""The largest head of a request, and the most that may come between two pieces of a body."""

LEAST_TAKEN_BYTES = 4 * 1024
"""What a client must take of an answer, each time in as many seconds as it has for a head."""

_HEAD = b"HTTP/1.1 200 "
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 45\r\nconnection: close\r\n\r\nThe head of the request is larger than 64 KiB"
)
_log = logging.getLogger(__name__)

_open: "weakref.WeakSet[PatientProtocol]" = weakref.WeakSet()
_cut: Counter[CutReason] = Counter()


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
        self._send(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._send(head)

    def _send(self, data: bytes) -> None:
        """Not to nobody: of requests that are sent together, uvicorn tells the last alone that its client has gone."""
        if not self._transport.is_closing():
            self._transport.write(data)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, and since when its client is sending a head, or has taken nothing of an answer."""

    head_since: tuple[Any, float] | None = None
    unread_since: tuple[int, float] | None = None
    head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Remember the connection, and have what is written to it sent at once.

        By default uvloop sends what it has to when a turn of the loop ends: answers that were searched for together
        would all wait for the last of them to be written, and their clients would ask anew all at once.
        """
        transport.set_write_buffer_limits(high=0)
        super().connection_made(InOneGo(transport, asyncio.get_running_loop()))  # type: ignore[arg-type]
        _open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and say of a request whose answer has not begun that nobody waits for it."""
        _open.discard(self)
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.scope["state"]["gone"] = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Have the parser see no more of a head than it may have."""
        while True:
            part = data[: MOST_HEAD_BYTES - self.head_bytes]
            self.head_bytes += len(part)
            super().data_received(part)
            data = data[len(part) :]
            if not data or self.transport.is_closing():
                return
            if self.head_bytes == MOST_HEAD_BYTES:
                self._refuse_head()
                return

    def on_headers_complete(self) -> None:
        """The head is over."""
        self.head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What came was body; but what is between its chunks, and after them, grows in the parser as a head does."""
        self.head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole, which the request's state says (``whole``), and the next head may come."""
        self.head_bytes = 0
        self.cycle.scope["state"]["whole"] = True
        super().on_message_complete()

    def resume_writing(self) -> None:
        """The client has taken all that was written."""
        self.unread_since = None
        super().resume_writing()

    def cut_if_slow(self, seconds: float, now: float) -> None:
        """Close the connection if its client has been sending a head for longer, or connected and said nothing.

        Likewise if it takes an answer more slowly than ``LEAST_TAKEN_BYTES`` each time.
        """
        if self.flow.write_paused:
            self.head_since = None
            if self._is_unread(seconds, now):
                self._cut("unread_answer")
        elif self._is_slow_head(seconds, now):
            self._cut("slow_head")

    @property
    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_slow_head(self, seconds: float, now: float) -> bool:
        if self._in_request or self.timeout_keep_alive_task is not None:
            self.head_since = None
        elif self.head_since is None or self.head_since[0] is not self.cycle:
            self.head_since = (self.cycle, now)
        else:
            return now - self.head_since[1] > seconds
        return False

    def _is_unread(self, seconds: float, now: float) -> bool:
        left = self.transport.get_write_buffer_size()
        if self.unread_since is None or left <= self.unread_since[0] - LEAST_TAKEN_BYTES:
            self.unread_since = (left, now)
        return now - self.unread_since[1] > seconds

    def _refuse_head(self) -> None:
        if self._in_request:  # another answer is under way
            self._cut("large_head")
            return
        _cut["large_head"] += 1
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _cut(self, reason: CutReason) -> None:
        _cut[reason] += 1
        self.transport.abort()


def close_slow(seconds: float, now: float) -> Counter[CutReason]:
    """Close the connections whose clients take longer than ``seconds`` for the head of a request, or for its answer.

    Returns:
        How many connections were cut since the last call, by why.
    """
    for connection in list(_open):
        connection.cut_if_slow(seconds, now)
    cut = _cut.copy()
    _cut.clear()
    if cut:
        _log.info("Cut connections: %s", ", ".join(f"{reason} {count}" for reason, count in cut.items()))
    return cut
