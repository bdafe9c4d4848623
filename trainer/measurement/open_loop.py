"""Latency as users see it: requests are sent when they are due, whether or not those before are answered.

A request's time counts from when it was due, so that a server that falls behind cannot hide it. Where the load itself
stood still, as a process does that is not alone on its core, nothing was due meanwhile: clients elsewhere would not
have stood still with it, nor asked all at once afterwards. For how long it did is said with the latencies.
"""

import asyncio
import math
import random
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared.errors import UserError

CONNECTIONS = 64
LATE_SECONDS = 10.0
"""How long after the last request its answer is waited for."""
STOOD_STILL_SECONDS = 1e-3
"""So late are requests not sent because of the answers that came in between: the process itself was stopped."""


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
    # select alone waits in microseconds; the others round up to milliseconds
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(_Load(port, bodies, rate, seconds).run())


class _Load:
    def __init__(self, port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> None:
        self._port, self._rate, self._count = port, rate, int(rate * seconds)
        self._requests = [_request(body) for body in bodies]
        self._free: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()
        self._random = random.Random(0)  # noqa: S311 (which user asks next)
        self._taken: list[tuple[float, float]] = []
        self._trouble: str | None = None
        self._done = asyncio.Event()

    async def run(self) -> Latencies:
        loop = asyncio.get_running_loop()
        # they are taken in turn, each about once a second or more often: a server closes those that idle
        for _ in range(min(CONNECTIONS, math.ceil(self._rate))):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._answered, self._lost), "127.0.0.1", self._port
            )
            self._free.append(connection)
        started, stood_still = time.perf_counter(), 0.0
        for number in range(self._count):
            due = started + stood_still + number / self._rate
            await asyncio.sleep(due - time.perf_counter())
            if (late := time.perf_counter() - due) > STOOD_STILL_SECONDS:
                stood_still, due = stood_still + late, due + late
            if self._trouble is not None:
                break
            self._waiting.append(due)
            self._send()
        try:
            async with asyncio.timeout(LATE_SECONDS):
                await self._done.wait()
        except TimeoutError:
            raise UserError(f"{self._count - len(self._taken)} of {self._count} requests had no answer") from None
        if self._trouble is not None:
            raise UserError(f"{self._trouble} at {self._rate:.0f} requests a second")
        return Latencies([taken for _, taken in sorted(self._taken)], stood_still)

    def _send(self) -> None:
        while self._waiting and self._free:
            self._free.popleft().send(self._waiting.popleft(), self._random.choice(self._requests))

    def _answered(self, connection: "_Connection", due: float, status: bytes) -> None:
        if status != b"200":
            self._end(f"a request was answered {status.decode()}")
            return
        self._taken.append((due, time.perf_counter() - due))
        self._free.append(connection)
        self._send()
        if len(self._taken) == self._count:
            self._done.set()

    def _lost(self) -> None:
        if len(self._taken) < self._count:
            self._end("a connection was closed")

    def _end(self, trouble: str) -> None:
        self._trouble = self._trouble or trouble
        self._done.set()


class _Connection(asyncio.Protocol):
    """One request at a time over one connection."""

    def __init__(self, answered: Callable[["_Connection", float, bytes], None], lost: Callable[[], None]) -> None:
        self._answered, self._lost = answered, lost
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 (of create_connection)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost()

    def send(self, due: float, request: bytes) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._received = b""
            self._answered(self, self._due, head[9:12])


def _request(body: bytes) -> bytes:
    head = f"POST /recommend HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
