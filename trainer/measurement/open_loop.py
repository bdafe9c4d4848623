"""Latency as users see it: requests are sent when they are due, whether or not those before are answered.

A request's time counts from when it was due, so that a server that falls behind cannot hide it. Where the load itself
stood still, as a process does that is not alone on its core, nothing was due meanwhile: clients elsewhere would not
have stood still with it, nor asked all at once afterwards. For how long it did is said with the latencies.

The load never sleeps: to be woken up takes a virtual machine longer than many an answer takes the server, which would
also have to do the waking.
"""

import gc
import math
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from shared.errors import UserError

CONNECTIONS = 64
LATE_SECONDS = 10.0
"""How long after the last request its answer is waited for."""
STOOD_STILL_SECONDS = 1e-3
"""So late are requests not sent because of the answers that came in between: the process itself was stopped."""
_AT_ONCE = 1 << 16
"""Bytes of an answer that are read in one go."""


@dataclass(frozen=True)
class Latencies:
    """What a load found.

    Attributes:
        taken: seconds from when each request was due to its whole answer, in the order in which they were due.
        stood_still: seconds in which the load itself was stopped, and nothing was due.
    """

    taken: list[float]
    stood_still: float


def latencies(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> Latencies:
    """Put a load on a server.

    Args:
        port: of a server on this machine.
        bodies: of ``POST /recommend``; each request takes one of them at random.
        rate: requests a second, at even distances.
        seconds: for how long, the load's own stops not counted.

    Raises:
        UserError: a request was not answered with 200, or not at all.
    """
    with ExitStack() as opened, _without_garbage_collection():
        selector = opened.enter_context(selectors.DefaultSelector())
        load = _Load(selector, bodies, rate, int(rate * seconds))
        # they are taken in turn, each about once a second or more often: a server closes those that idle
        for _ in range(min(CONNECTIONS, math.ceil(rate))):
            load.connect(opened.enter_context(closing(socket.create_connection(("127.0.0.1", port)))))
        try:
            return load.run()
        except (_TroubleError, OSError) as error:
            raise UserError(f"{error} at {rate:.0f} requests a second") from None


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection stops the load for longer than many requests take."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _TroubleError(Exception):
    """Why a load cannot go on."""


class _Connection:
    """One request at a time over one connection."""

    def __init__(self, to: socket.socket) -> None:
        to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = to
        self._received = b""
        self.due = 0.0

    def send(self, due: float, request: bytes) -> None:
        self.due = due
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """The status of the answer, once all of it is there."""
        if not (data := self._socket.recv(_AT_ONCE)):
            raise _TroubleError("a connection was closed")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return None
        self._received = b""
        return head[9:12]


class _Load:
    def __init__(self, selector: selectors.BaseSelector, bodies: Sequence[bytes], rate: float, count: int) -> None:
        self._selector, self._rate, self._count = selector, rate, count
        self._requests = [_request(body) for body in bodies]
        self._free: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()
        self._random = random.Random(0)  # noqa: S311 (which user asks next)
        self._taken: list[tuple[float, float]] = []

    def connect(self, to: socket.socket) -> None:
        connection = _Connection(to)
        self._selector.register(to, selectors.EVENT_READ, connection)
        self._free.append(connection)

    def run(self) -> Latencies:
        started, stood_still = time.perf_counter(), 0.0
        for number in range(self._count):
            due = started + stood_still + number / self._rate
            self._receive()
            while (late := time.perf_counter() - due) < 0:
                self._receive()
            if late > STOOD_STILL_SECONDS:
                stood_still, due = stood_still + late, due + late
            self._waiting.append(due)
            self._send()
        last = time.perf_counter()
        while len(self._taken) < self._count:
            self._receive()
            if time.perf_counter() - last > LATE_SECONDS:
                raise _TroubleError(f"{self._count - len(self._taken)} of {self._count} requests had no answer")
        return Latencies([taken for _, taken in sorted(self._taken)], stood_still)

    def _send(self) -> None:
        while self._waiting and self._free:
            self._free.popleft().send(self._waiting.popleft(), self._random.choice(self._requests))

    def _receive(self) -> None:
        """Take what has come by now."""
        for key, _ in self._selector.select(0):
            connection: _Connection = key.data
            if (status := connection.receive()) is None:
                continue
            if status != b"200":
                raise _TroubleError(f"a request was answered {status.decode()}")
            self._taken.append((connection.due, time.perf_counter() - connection.due))
            self._free.append(connection)
            self._send()


def _request(body: bytes) -> bytes:
    head = f"POST /recommend HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
