"""What becomes of a thread whose request took too long, and of the request's place; and of threads at the end."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from fastapi.testclient import TestClient

from service.app import create_app
from service.engine import Engine
from service.queries import Query
from service.settings import Settings
from service.stopping import StoppedError, Work, go_on
from shared import artifact

DIVERSE = {"user_id": "ann", "k": 2, "diversity": 0.5}
MANY = {"user_ids": ["ann", "cyd"] * 250, "k": 2}


@contextmanager
def serving(models: Path) -> Iterator[TestClient]:
    settings = Settings(models=models, request_timeout_seconds=0.1, max_in_flight=1, max_waiting=0, max_wait_seconds=0)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_a_batch_ends_soon_after_its_time_is_up(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked, rank = [], Engine.rank

    def slow(*asked: Any) -> Any:
        time.sleep(0.02)
        ranked.append(asked)
        return rank(*asked)

    with serving(store) as client:
        monkeypatch.setattr(Engine, "rank", slow)
        answer = client.post("/recommend:batch", json=MANY)
        ended_at = len(ranked)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert ended_at < len(MANY["user_ids"])  # type: ignore[arg-type]
        time.sleep(0.2)
        assert len(ranked) <= ended_at
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 200


@pytest.mark.parametrize(("path", "body"), [("/recommend", DIVERSE), ("/recommend:batch", MANY), ("/items/mug", None)])
def test_a_request_keeps_its_place_until_its_thread_has_ended(
    store: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any] | None
) -> None:
    working, end = threading.Event(), threading.Event()

    def stubborn(*_asked: Any) -> Any:
        working.set()
        end.wait(20)
        go_on()

    with serving(store) as client, ThreadPoolExecutor() as pool:
        monkeypatch.setattr(Engine, "rank", stubborn)
        monkeypatch.setattr(Engine, "item", stubborn)
        asked = pool.submit(client.request, "GET" if body is None else "POST", path, json=body)
        assert working.wait(20)
        time.sleep(0.6)  # its time is up, and that has been looked for
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 503
        assert not asked.done()
        end.set()
        answer = asked.result(20)
        assert (answer.status_code, answer.json()["detail"]) == (
            503,
            "The answer took too long. Ask again in a moment.",
        )
        monkeypatch.undo()
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 200
        assert "mts4mm_http_request_timeouts_total 1.0" in client.get("/metrics").text


@pytest.mark.parametrize("query", [Query("ann", diversity=0.5), Query("ann", at_most={"title": 1})])
def test_picking_for_one_user_ends_too(store: Path, query: Query) -> None:
    engine = Engine(artifact.load(store))

    async def story() -> None:
        work = Work()
        assert (await to_thread.run_sync(engine.recommend, query)).items
        work.stopped = True
        with pytest.raises(StoppedError):
            await to_thread.run_sync(engine.recommend, query)

    asyncio.run(story())


def test_a_process_that_was_told_to_leave_leaves_its_threads_behind() -> None:
    code = """
import asyncio, os, signal, threading, time
from service.draining import Draining

async def story():
    left = asyncio.Event()
    signal.signal(signal.SIGTERM, lambda *_: left.set())
    Draining(0.1, 0.1).watch(asyncio.get_running_loop())
    threading.Thread(target=time.sleep, args=(60,)).start()
    os.kill(os.getpid(), signal.SIGTERM)
    await left.wait()

asyncio.run(story())
"""
    began = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], timeout=50).returncode == 0
    assert time.monotonic() - began < 40
