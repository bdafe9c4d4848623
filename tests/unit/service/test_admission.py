"""Who is let in, who waits, who is turned away, and who took too long: by the counts, without a clock to trust."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from service.access import Access
from service.admission import Admission, Admit
from service.metrics import Metrics

FOREVER = 60.0


def admission(in_flight: int = 2, waiting: int = 2, wait: float = FOREVER, timeout: float = FOREVER) -> Admission:
    return Admission(in_flight, waiting, wait, timeout)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_so_many_are_let_in_so_many_wait_and_the_next_is_turned_away() -> None:
    async def story() -> None:
        door = admission(in_flight=2, waiting=2)
        assert [await door.enter(), await door.enter()] == [None, None]
        third, fourth = asyncio.create_task(door.enter()), asyncio.create_task(door.enter())
        await asyncio.sleep(0.01)
        assert (door.in_flight, door.waiting) == (2, 2)
        assert await door.enter() == "full"
        door.leave()
        assert await third is None
        assert not fourth.done()
        assert (door.in_flight, door.waiting) == (2, 1)
        door.leave()
        assert await fourth is None
        door.leave()
        door.leave()
        assert (door.in_flight, door.waiting) == (0, 0)

    run(story)


def test_who_waited_too_long_is_late_and_leaves_no_trace() -> None:
    async def story() -> None:
        door = admission(in_flight=1, waiting=5, wait=0.05)
        await door.enter()
        assert await door.enter() == "late"
        assert door.waiting == 0
        door.leave()
        assert door.in_flight == 0
        assert await door.enter() is None

    run(story)


def test_whoever_goes_away_while_waiting_gives_up_the_place_also_at_the_moment_of_getting_it() -> None:
    async def story() -> None:
        door = admission(in_flight=1)
        await door.enter()
        gone = asyncio.create_task(door.enter())
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (door.in_flight, door.waiting) == (1, 0)
        gone = asyncio.create_task(door.enter())
        await asyncio.sleep(0.01)
        door.leave()  # hands the place over ...
        gone.cancel()  # ... to somebody who goes in the same moment
        await asyncio.gather(gone, return_exceptions=True)
        assert (door.in_flight, door.waiting) == (0, 0)

    run(story)


def test_who_arrived_before_a_long_round_of_the_loop_is_late() -> None:
    async def story() -> None:
        import time

        door = admission(in_flight=100, wait=0.05)

        async def slow_then_enter() -> str | None:
            verdict = await door.enter()
            time.sleep(0.04)  # an answer that is computed in the loop
            return verdict

        verdicts = await asyncio.gather(*(slow_then_enter() for _ in range(5)))
        assert verdicts == [None, None, "late", "late", "late"]
        await asyncio.sleep(0.01)
        assert await door.enter() is None

    run(story)


async def answer(scope: Any, door: Admission, app: Any, metrics: Metrics, body: list[dict[str, Any]]) -> list[Any]:
    sent: list[Any] = []
    messages = iter(body)

    async def receive() -> Any:
        try:
            return next(messages)
        except StopIteration:
            await asyncio.sleep(FOREVER)

    async def send(message: Any) -> None:
        sent.append(message)

    await Admit(app, door, Access(None, None), metrics, max_body_bytes=10)(scope, receive, send)
    return sent


def scope(path: str = "/recommend", headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers or [],
        "query_string": b"",
        "server": ("x", 80),
        "scheme": "http",
        "root_path": "",
        "state": {"request_id": "r"},
    }


WHOLE = {"type": "http.request", "body": b"{}", "more_body": False}
PART = {"type": "http.request", "body": b"{", "more_body": True}


SIZED, CHUNKED, EMPTY = (b"content-length", b"2"), (b"transfer-encoding", b"chunked"), (b"content-length", b"0")


@pytest.mark.parametrize(
    ("header", "body", "status"),
    [
        (SIZED, [WHOLE], 503),
        (SIZED, [PART], 408),
        (SIZED, [], 408),
        (CHUNKED, [], 408),
        (EMPTY, [], 503),
        ((b"accept", b"*/*"), [], 503),
    ],
)
def test_what_takes_too_long_is_ended_and_answered(
    header: tuple[bytes, bytes], body: list[dict[str, Any]], status: int
) -> None:
    async def story() -> None:
        door, metrics = admission(timeout=0.05), Metrics()

        async def app(_scope: Any, receive: Any, _send: Any) -> None:
            while True:
                if not (await receive()).get("more_body"):
                    await asyncio.sleep(FOREVER)

        watching = asyncio.create_task(door.watch(lambda _now: None))
        sent = await answer(scope(headers=[header]), door, app, metrics, body)
        watching.cancel()
        assert sent[0]["status"] == status
        assert (b"retry-after", b"1") in sent[0]["headers"] or status == 408
        assert (b"connection", b"close") in sent[0]["headers"] or status == 503
        assert door.in_flight == 0
        assert b"mts4mm_http_request_timeouts_total 1.0" in metrics.exposition()

    run(story)


def test_the_place_is_left_when_the_answer_begins_and_once() -> None:
    async def story() -> None:
        door, in_flight = admission(), list[int]()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            in_flight.append(door.in_flight)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            in_flight.append(door.in_flight)
            await send({"type": "http.response.body", "body": b""})

        await answer(scope(), door, app, Metrics(), [])
        assert [*in_flight, door.in_flight] == [1, 0, 0]

    run(story)


def test_who_cannot_be_answered_in_time_is_told_so_once_there_is_room() -> None:
    """What is stopped while it waits to begin its answer has not begun it."""

    async def story() -> None:
        door, sent, room = admission(timeout=0.05), list[Any](), asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Any) -> None:
            await room.wait()
            sent.append(message)

        watching = asyncio.create_task(door.watch(lambda _now: None))
        asking = asyncio.create_task(
            Admit(app, door, Access(None, None), Metrics(), max_body_bytes=10)(scope(), asyncio.sleep, send)
        )
        await asyncio.sleep(0.6)
        room.set()
        await asking
        watching.cancel()
        assert [message.get("status") for message in sent] == [503, None]
        assert door.in_flight == 0

    run(story)


def test_a_body_in_pieces_is_handed_on_whole_and_too_large_a_one_no_further_than_that_shows() -> None:
    async def story() -> None:
        heard: list[Any] = []

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            heard.append(await receive())
            heard.append(await receive())

        last = {"type": "http.disconnect"}
        await answer(scope(headers=[CHUNKED]), admission(), app, Metrics(), [PART, PART, WHOLE, last])
        assert heard == [{"type": "http.request", "body": b"{{{}", "more_body": False}, last]
        with pytest.raises(HTTPException) as refused:
            await answer(scope(headers=[CHUNKED]), admission(), app, Metrics(), [PART] * 11)
        assert refused.value.status_code == 413
        assert await answer(scope(headers=[CHUNKED]), admission(), app, Metrics(), [PART, last]) == []

    run(story)


def test_reading_a_model_may_take_its_time() -> None:
    async def story() -> None:
        door = admission(timeout=0.05)

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await asyncio.sleep(0.6)
            await send({"type": "http.response.start", "status": 200, "headers": []})

        watching = asyncio.create_task(door.watch(lambda _now: None))
        statuses = [
            (await answer(scope(path), door, app, Metrics(), []))[0]["status"]
            for path in ("/admin/models/20261128T003556Z-593601f5:activate", "/admin/rollback", "/administration")
        ]
        watching.cancel()
        assert statuses == [200, 200, 503]

    run(story)


def test_those_who_ask_how_the_service_is_are_always_let_in_and_others_are_told_to_come_again() -> None:
    async def story() -> None:
        door, metrics = admission(in_flight=1, waiting=0, wait=0.1), Metrics()
        await door.enter()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        shed = scope()
        sent = await answer(shed, door, app, metrics, [WHOLE])
        assert sent[0]["status"] == 503
        assert (b"retry-after", b"1") in sent[0]["headers"]
        assert shed["state"]["shed"] == "full"
        assert b'mts4mm_http_requests_shed_total{reason="full"} 1.0' in metrics.exposition()
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert (await answer(scope(path), door, app, metrics, [WHOLE]))[0]["status"] == 200

    run(story)
