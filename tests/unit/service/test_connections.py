"""An answer goes out in one go, and whatever is no answer's head, or comes without a body, goes out all the same."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from service.connections import InOneGo

HEAD, BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"body"


class _Transport:
    """Notes what is written, and that it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes | None] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(None)

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
