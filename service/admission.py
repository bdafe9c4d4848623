"""Which requests are worked on, which wait, and which are turned away before everybody waits too long.

A worker works on so many requests at once; some more wait, in the order of their arrival, and no longer than is set.
The others are answered 503 at once, which costs a fraction of what a recommendation does: at twice the load that a
worker can bear it goes on answering as much as it can, in bounded time.

Places are for work, not for clients: a request takes one when its body is whole, and leaves it when its answer begins.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.access import Access
from service.metrics import Metrics
from service.stopping import Work, awaiting_threads

Refusal = Literal["full", "late"]

WATCH_SECONDS = 0.25
"""How often it is looked for requests that take too long."""

ALWAYS_ADMITTED = frozenset({"/livez", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Paths of those who ask how the service is; they must hear it above all when it is busy."""

_UNTIMED = "/admin/"
"""Begins the paths where a large model may be read, which takes its time; they need no body."""
_MOST_HELD = 1_000
_RETRY_AFTER = {"Retry-After": "1"}


class Admission:
    """Counts what a worker works on. Belongs to one event loop, and is not for other threads.

    Attributes:
        in_flight: how many requests are worked on.
        waiting: how many wait for their turn.
        timeout_seconds: how long one may take in all.
    """

    def __init__(self, max_in_flight: int, max_waiting: int, max_wait_seconds: float, timeout_seconds: float) -> None:
        """Nobody is there yet.

        Args:
            max_in_flight: how many requests are worked on at once.
            max_waiting: how many wait.
            max_wait_seconds: how long one waits.
            timeout_seconds: how long one may take in all.
        """
        self.in_flight = 0
        self.waiting = 0
        self.timeout_seconds = timeout_seconds
        self._held = 0
        self._uploads = 0
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._queue: deque[asyncio.Future[None]] = deque()
        self._round_began: float | None = None
        self._timed: set[Work] = set()

    async def enter(self) -> Refusal | None:
        """Wait for one's turn, or say why there will be none; who got in must :meth:`leave`."""
        if self._is_late():
            return "late"
        if self.in_flight < self._max_in_flight:
            self.in_flight += 1
            return None
        if self.waiting >= self._max_waiting:
            return "full"
        return await self._wait()

    async def hold_back(self) -> None:
        """Let who was turned away at the door wait a moment for the answer, or they would be back at once.

        A few hundred clients that try again without a pause would keep the worker busy with turning them away.
        """
        if self._held >= _MOST_HELD:
            return
        self._held += 1
        try:
            await asyncio.sleep(self._max_wait_seconds)
        finally:
            self._held -= 1

    def leave(self) -> None:
        """Make room for the next one."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)  # takes the place over
                return
        self.in_flight -= 1

    @contextmanager
    def upload(self) -> Iterator[Refusal | None]:
        """A request that comes without all of its body, until its end, or why it cannot come in.

        As many may be there as requests in all; each has a body in memory.
        """
        if self._uploads >= self._max_in_flight + self._max_waiting:
            yield "full"
            return
        self._uploads += 1
        try:
            yield None
        finally:
            self._uploads -= 1

    def begin(self, since: float | None = None, *, timed: bool) -> Work:
        """Have what the current task does stopped when it takes too long, if it is ``timed``; :meth:`end` it.

        Args:
            since: when the request began, by the monotonic clock; now by default.
            timed: whether it may take too long.
        """
        work = Work()
        if since is not None:
            work.since = since
        if timed:
            self._timed.add(work)
        return work

    def end(self, work: Work) -> None:
        """It has ended, in time or not."""
        self._timed.discard(work)

    async def watch(self, also: Callable[[float], None]) -> None:
        """Stop what takes too long, from now on; calls ``also`` with the time each time it looks."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for work in self._timed:
                if now - work.since > self.timeout_seconds and not work.stopped:
                    work.stop()
            also(now)

    def _is_late(self) -> bool:
        """Whether the event loop itself is so far behind that a request has waited too long before it came here.

        What a round of the loop handles had arrived when the round began. So the time since then is the least
        that a request has waited, and it needs no clock for each.
        """
        now = time.monotonic()
        if self._round_began is None:
            self._round_began = now
            asyncio.get_running_loop().call_soon(self._next_round)
            return False
        return now - self._round_began > self._max_wait_seconds

    def _next_round(self) -> None:
        self._round_began = None

    async def _wait(self) -> Refusal | None:
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._max_wait_seconds):
                await waiter
        except TimeoutError:
            return self._gave_up(waiter)
        except asyncio.CancelledError:
            if self._gave_up(waiter) is None:
                self.leave()
            raise
        finally:
            self.waiting -= 1
        return None

    def _gave_up(self, waiter: asyncio.Future[None]) -> Refusal | None:
        """Leave the queue; the place may have been handed over at this very moment."""
        if waiter.done() and not waiter.cancelled():
            return None
        if waiter in self._queue:
            self._queue.remove(waiter)
        return "late"


class Admit:
    """Lets requests in as :class:`Admission` says, bounds the size of their bodies and the time they take."""

    def __init__(
        self, app: ASGIApp, admission: Admission, access: Access, metrics: Metrics, max_body_bytes: int
    ) -> None:
        self._app = app
        self._admission = admission
        self._access = access
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in when its body is there, or answer 401, 408 or 503."""
        if scope["type"] != "http" or scope["path"] in ALWAYS_ADMITTED:
            await self._app(scope, receive, send)
        elif "whole" in scope["state"] or not _has_body(scope):
            await self._in_turn(scope, receive, send)
        else:
            await self._when_whole(scope, receive, send)

    async def _when_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the rest of the body of who has a key: without one nobody may keep the service waiting."""
        since = time.monotonic()
        try:
            self._access.refuse_strangers(Request(scope))
        except HTTPException as error:
            await _answer(scope, receive, send, error.status_code, error.detail, error.headers)
            return
        with self._admission.upload() as refusal:
            if refusal is not None:
                await self._turn_away(scope, receive, send, refusal)
                return
            try:
                async with asyncio.timeout(self._admission.timeout_seconds):
                    whole = await self._whole(receive)
            except TimeoutError:
                self._metrics.timeout()
                await _answer(scope, receive, send, 408, "The body did not arrive in time.", {"Connection": "close"})
                return
            if whole is not None:
                await self._in_turn(scope, _hearing(whole, receive), send, since)

    async def _whole(self, receive: Receive) -> Message | None:
        """The body as one message, no more of a too large one than shows that it is; None where its client went."""
        body, more = bytearray(), True
        while more and len(body) <= self._max_body_bytes:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send, since: float | None = None) -> None:
        refusal = await self._admission.enter()
        if refusal is None:
            await self._bounded(scope, receive, send, since)
        else:
            await self._turn_away(scope, receive, send, refusal)

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
        self._metrics.shed(refusal)
        scope["state"]["shed"] = refusal
        if refusal == "full":
            await self._admission.hold_back()
        await _answer(scope, receive, send, 503, "The service is busy. Ask again in a moment.", _RETRY_AFTER)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, since: float | None) -> None:
        """Answer a request that has a place, and leave that when the answer begins: who takes it may take his time."""
        read, in_place, started = 0, True, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_body_bytes:
                raise HTTPException(413, f"The body has more than {self._max_body_bytes} bytes.")
            return message

        async def noted(message: Message) -> None:
            nonlocal in_place, started
            if in_place:
                in_place = False
                self._admission.leave()
            await send(message)
            started = True

        work = self._admission.begin(since, timed=not scope["path"].startswith(_UNTIMED))
        try:
            await self._app(scope, counted, noted)
        except asyncio.CancelledError:
            if not work.stopped:  # the process is leaving
                work.stopped = True
                raise
            work.resume()
            self._metrics.timeout()
            if not started:
                await _answer(
                    scope, receive, noted, 503, "The answer took too long. Ask again in a moment.", _RETRY_AFTER
                )
        finally:
            self._admission.end(work)
            if in_place:
                self._admission.leave()


class AwaitThreads:
    """Keeps the place of a request that is stopped until the thread has ended that works for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on."""
        with awaiting_threads():
            await self._app(scope, receive, send)


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _hearing(first: Message, receive: Receive) -> Receive:
    """Hears one message, and then what else there is."""
    heard = False

    async def hear() -> Message:
        nonlocal heard
        if heard:
            return await receive()
        heard = True
        return first

    return hear


async def _answer(
    scope: Scope, receive: Receive, send: Send, status: int, detail: str, headers: Mapping[str, str] | None
) -> None:
    response = problems.problem(Request(scope), status, detail, headers=headers)
    await response(scope, receive, send)
