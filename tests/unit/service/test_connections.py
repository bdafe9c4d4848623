"""Answers in one go, whatever is no answer's head or has no body too; and clients that never end, or never read."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.app import create_app
from service.connections import MOST_HEAD_BYTES, InOneGo, PatientProtocol, close_slow
from service.settings import Settings
from shared.api_keys import Scope as KeyScope
from shared.api_keys import new_key, save_keys

HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"body"


class _Transport:
    """Notes what is written, and that it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes | None] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(None)

    def is_closing(self) -> bool:
        return None in self.written

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def turn(work: Callable[[InOneGo], None]) -> tuple[list[bytes | None], list[bytes | None]]:
    """What is written at once, and what by the end of the loop's turn."""

    async def run() -> tuple[list[bytes | None], list[bytes | None]]:
        transport = _Transport()
        work(InOneGo(transport, asyncio.get_running_loop()))
        at_once = list(transport.written)
        await asyncio.sleep(0)
        return at_once, transport.written

    return asyncio.run(run())


def writes(*pieces: bytes) -> Callable[[InOneGo], None]:
    def work(transport: InOneGo) -> None:
        for piece in pieces:
            transport.write(piece)

    return work


def test_a_head_waits_for_its_body_and_no_longer_than_a_turn_of_the_loop() -> None:
    assert turn(writes(HEAD, BODY)) == ([HEAD + BODY], [HEAD + BODY])
    assert turn(writes(HEAD)) == ([], [HEAD])
    assert turn(writes(HEAD, BODY, HEAD)) == ([HEAD + BODY], [HEAD + BODY, HEAD])
    assert turn(writes(HEAD, HEAD, BODY)) == ([HEAD + HEAD, BODY], [HEAD + HEAD, BODY])


@pytest.mark.parametrize(
    "other", [BODY, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", HEAD[:-1], b""]
)
def test_everything_else_goes_at_once_and_in_order(other: bytes) -> None:
    assert turn(writes(other))[0] == [other]
    assert b"".join(piece or b"" for piece in turn(writes(HEAD, other, BODY))[1]) == HEAD + other + BODY


def test_closing_sends_what_is_kept_and_all_else_is_the_transports() -> None:
    def work(transport: InOneGo) -> None:
        transport.write(HEAD)
        transport.close()
        assert transport.get_extra_info("peer") == "the peer"

    assert turn(work) == ([HEAD, None], [HEAD, None])


def test_the_loop_that_the_service_runs_on_would_send_twice() -> None:
    """Else there is nothing to gain, and the class can go."""

    async def run() -> tuple[bytes, bytes]:
        listening, transports = asyncio.get_running_loop(), asyncio.Queue[Any]()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.put_nowait(transport)

        async with await listening.create_server(Protocol, "127.0.0.1", 0) as server:
            with socket.create_connection(server.sockets[0].getsockname()) as client:
                client.setblocking(False)
                transport = await transports.get()
                transport.write(HEAD)
                plain = client.recv(1000)
                in_one_go = InOneGo(transport, listening)
                in_one_go.write(HEAD)
                in_one_go.write(BODY)
                together = client.recv(1000)
                transport.close()
        return plain, together

    assert uvloop.run(run()) == (HEAD, HEAD + BODY)


LARGE_ANSWER = b"x" * 20_000_000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers how many bytes the body had; a large answer at ``/large``."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = LARGE_ANSWER if scope["path"] == "/large" else b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class _Server:
    """uvicorn's server as the service has it, in this loop."""

    def __init__(self, port: int, state: ServerState) -> None:
        self._port = port
        self.tasks = state.tasks
        self.connections = state.connections

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=500_000)

    async def said(self, *pieces: bytes) -> bytes:
        """All that is said until the end of a connection on which something was sent in pieces."""
        reader, writer = await self.connect()
        heard = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            heard = await reader.read(1000)
            heard += await reader.read()
        except ConnectionError:
            pass
        writer.transport.abort()
        return heard


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[_Server]:
    state, config = ServerState(), uvicorn.Config(app, ws="none", log_config=None, access_log=False)
    async with await asyncio.get_running_loop().create_server(
        lambda: PatientProtocol(config, state, {}), "127.0.0.1", 0
    ) as server:
        yield _Server(server.sockets[0].getsockname()[1], state)
        for connection in list(state.connections):
            connection.transport.abort()


def tell(story: Callable[[_Server], Awaitable[None]], app: ASGIApp = app) -> None:
    async def run() -> None:
        close_slow(60.0, 0.0)  # what other tests have left
        async with asyncio.timeout(20), serving(app) as server:
            await story(server)

    uvloop.run(run())


CLOSING = b"GET / HTTP/1.1\r\nconnection: close\r\nx: "
CHUNKED = b"POST / HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
REST = b"\r\n\r\n"
MOST = b"a" * (MOST_HEAD_BYTES - len(CLOSING) - len(REST))


@pytest.mark.parametrize(
    "pieces",
    [
        [CLOSING + MOST + b"a" + REST],
        [CLOSING, MOST, b"a", REST],
        [b"POST / HTTP/1.1\r\ncontent-length: 70000\r\n\r\n" + b"b" * 70_000, CLOSING + MOST + b"a" + REST],
    ],
    ids=["at-once", "in-pieces", "second"],
)
def test_a_head_that_is_too_large_is_refused(pieces: list[bytes]) -> None:
    async def story(server: _Server) -> None:
        assert b"HTTP/1.1 431 " in await server.said(*pieces)
        assert close_slow(60.0, 0.0) == Counter(large_head=1)
        assert not close_slow(60.0, 0.0)

    tell(story)


@pytest.mark.parametrize(
    "pieces", [[CLOSING, b"a" * 1_000_000], [b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n\r\n"]], ids=["header", "url"]
)
def test_a_head_without_an_end_is_cut_whether_its_client_listens_or_not(pieces: list[bytes]) -> None:
    async def story(server: _Server) -> None:
        assert b" 200 " not in await server.said(*pieces)
        assert close_slow(60.0, 0.0) == Counter(large_head=1)

    tell(story)


@pytest.mark.parametrize("piece", [b"0\r\nx: ", b"1;x=", b"1\r\nb\r\n0\r\nx: "], ids=["trailer", "extension", "late"])
def test_what_is_in_a_body_and_no_part_of_it_has_an_end_too(piece: bytes) -> None:
    async def story(server: _Server) -> None:
        assert await server.said(CHUNKED, piece, b"a" * 300_000) == b""
        assert close_slow(60.0, 0.0) == Counter(large_head=1)

    tell(story)


@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ([CLOSING + MOST + REST], 0),
        ([CLOSING, MOST, REST], 0),
        ([CLOSING.replace(b"GET", b"POST") + b"a\r\ncontent-length: 500000" + REST + b"b" * 500_000], 500_000),
        ([CHUNKED, *[b"40000\r\n" + b"b" * 0x40000 + b"\r\n"] * 3, b"0\r\n\r\n"], 3 * 0x40000),
        ([CHUNKED, b"1\r\nb\r\n" * 50_000, b"0\r\n\r\n"], 50_000),
    ],
    ids=["at-once", "in-pieces", "body", "chunks", "small-chunks"],
)
def test_the_largest_head_and_larger_bodies_are_taken(pieces: list[bytes], size: int) -> None:
    async def story(server: _Server) -> None:
        assert (await server.said(*pieces)).endswith(REST + b"%d" % size)
        assert not close_slow(60.0, 0.0)

    tell(story)


def test_who_does_not_read_is_cut_with_all_that_was_asked_for_and_who_reads_slowly_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(server: _Server) -> None:
        (_, asking), (reader, reading) = await server.connect(), await server.connect()
        asking.write(b"GET /large HTTP/1.1\r\n\r\n" * 30)
        reading.write(b"GET /large HTTP/1.1\r\nconnection: close\r\n\r\n")
        started, heard, cut = time.monotonic(), 0, Counter[str]()
        while time.monotonic() - started < 0.8:
            heard += len(await reader.readexactly(300_000))
            cut += Counter(close_slow(0.3, time.monotonic()))
            await asyncio.sleep(0.02)
        assert cut == Counter(unread_answer=1)
        assert len(server.tasks) == 0
        while part := await reader.read(1_000_000):
            heard += len(part)
        assert heard > len(LARGE_ANSWER)
        assert not caplog.records
        asking.transport.abort()
        reading.close()

    tell(story)


def test_it_is_said_of_a_request_that_its_client_has_gone() -> None:
    states: list[dict[str, Any]] = []

    async def slow(scope: Scope, receive: Receive, _send: Send) -> None:
        assert not (await receive())["more_body"]
        states.append(scope["state"])
        await receive()

    async def story(server: _Server) -> None:
        _, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        while not states:
            await asyncio.sleep(0.01)
        assert "gone" not in states[0]
        writer.close()
        while server.tasks:
            await asyncio.sleep(0.01)
        assert states[0]["gone"]

    tell(story, slow)


def test_who_never_ends_a_head_is_cut_and_counted() -> None:
    async def story(server: _Server) -> None:
        reader, writer = await server.connect()
        writer.write(b"GET / HT")
        await asyncio.sleep(0.05)
        assert [close_slow(1.0, now) for now in (10.0, 11.0, 11.1)] == [{}, {}, {"slow_head": 1}]
        assert await reader.read() == b""
        writer.close()

    tell(story)


ASK = b'{"user_id": "ann"}'


def asking(*headers: bytes, length: int = len(ASK)) -> bytes:
    """The head of a request for recommendations that is the last of its connection."""
    return b"\r\n".join(
        [
            b"POST /recommend HTTP/1.1",
            b"connection: close",
            b"content-type: application/json",
            b"content-length: %d" % length,
            *headers,
            b"\r\n",
        ]
    )


@pytest.fixture
def narrow(store: Path, tmp_path: Path) -> tuple[ASGIApp, bytes]:
    """A service that works on one request at a time and has no room to wait; and the header with its key."""
    secret, entry = new_key("shop", [KeyScope.READ])
    save_keys(tmp_path / "keys.json", [entry])
    settings = Settings(
        models=store,
        keys=tmp_path / "keys.json",
        max_in_flight=1,
        max_waiting=0,
        max_wait_seconds=0.05,
        request_timeout_seconds=1.5,
    )
    return create_app(settings), b"x-api-key: " + secret.encode()


def test_a_body_that_is_on_its_way_takes_no_place_and_without_a_key_it_is_not_waited_for(
    narrow: tuple[ASGIApp, bytes],
) -> None:
    service, key = narrow

    async def story(server: _Server) -> None:
        unfinished = asyncio.create_task(server.said(asking(key), ASK[:1]))
        await asyncio.sleep(0.05)
        for stranger in (asking(), asking(b"x-api-key: guess"), asking(length=10**9)):
            assert (await server.said(stranger)).startswith(b"HTTP/1.1 401 ")
            assert (await server.said(stranger + ASK[:1])).startswith(b"HTTP/1.1 401 ")
        assert (await server.said(asking(key) + ASK)).startswith(b"HTTP/1.1 200 ")
        assert (await server.said(asking(key))).startswith(b"HTTP/1.1 503 "), "as many bodies as there are requests"
        assert not unfinished.done()
        assert (await unfinished).startswith(b"HTTP/1.1 408 ")
        assert (await server.said(asking(key), ASK[:5], ASK[5:])).startswith(b"HTTP/1.1 200 ")

    tell(story, service)


def test_who_does_not_read_keeps_no_place(narrow: tuple[ASGIApp, bytes]) -> None:
    service, key = narrow

    async def story(server: _Server) -> None:
        _, greedy = await server.connect()
        greedy.write(b"GET /openapi.json HTTP/1.1\r\n\r\n" * 300)
        while not any(connection.flow.write_paused for connection in server.connections):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(server.tasks) == 1, "an answer that cannot be sent"
        assert (await server.said(asking(key) + ASK)).startswith(b"HTTP/1.1 200 ")
        greedy.transport.abort()

    tell(story, service)
