"""Redis killed and models swapped under load, with real processes: nothing fails, and no accepted event is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from shared import artifact
from shared.state import open_state
from shared.state.store import EVENT_STREAM
from tests.integration.redis_server import Server, wait_until
from tests.integration.test_service_process import Running, Shop, service, shop
from tests.unit.service.conftest import publish

__all__ = ["shop"]


@contextmanager
def load(url: str, users: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Ask for recommendations all the time, three at once; gives the answers so far. One that fails raises."""
    stop, answers = threading.Event(), list[dict[str, Any]]()

    def ask(start: int) -> None:
        with httpx.Client(timeout=30) as http:
            for turn in range(start, 10**9):
                if stop.is_set():
                    return
                body = {"user_id": users[turn % len(users)], "k": 5}
                answers.append(http.post(f"{url}/recommend", json=body).raise_for_status().json())

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, start) for start in range(3)]
        try:
            yield answers
        finally:
            stop.set()
            for each in asking:
                each.result()


def accepts(url: str, event_id: str) -> bool:
    sent = {"event_id": event_id, "user_id": event_id, "item_id": "item-1", "type": "view"}
    response = httpx.post(f"{url}/events", json=sent | {"timestamp": "2026-01-01T00:00:00Z"}, timeout=30)
    if response.status_code == 503:
        assert int(response.headers["retry-after"]) >= 1
        return False
    return bool(response.raise_for_status().json()["accepted"] == 1)


def logged(url: str | None, folder: Path | None) -> set[str]:
    with open_state(url, folder) as state:
        entries: Any = state._client.xrange(EVENT_STREAM)
    return {fields[b"e"].decode().split('"event_id":"')[1].split('"')[0] for _, fields in entries}


@pytest.mark.slow
def test_redis_killed_and_restarted_under_load_fails_no_recommendation_and_loses_no_event(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path) as redis:
        monkeypatch.setenv("MTS4MM_REDIS_URL", redis.url)
        with service(shop.store, tmp_path / "log") as running, load(running.url, shop.model.user_ids) as answers:
            accepted, refused = set[str](), set[str]()
            for attempt in range(2):
                sent = [f"{attempt}-{n}" for n in range(40)]
                for n, id_ in enumerate(sent):
                    if n == 20:
                        redis.kill()
                    (accepted if accepts(running.url, id_) else refused).add(id_)
                assert status(running) == "degraded"
                wait_until(lambda: answers[-1]["degraded"])
                redis.start()
                wait_until(lambda: status(running) == "ok")
                assert accepted <= logged(redis.url, None)
                assert all(accepts(running.url, id_) for id_ in sorted(refused - logged(redis.url, None)))
                accepted |= refused
                refused.clear()
                wait_until(lambda: not answers[-1]["degraded"])
    assert {len(answer["items"]) for answer in answers} <= set(range(6))
    assert {answer["degraded"] for answer in answers} == {True, False}


@pytest.mark.slow
def test_the_embedded_server_killed_by_9_comes_back_with_what_was_accepted(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    os.environ["MTS4MM_STATE"] = str(folder)
    try:
        with service(shop.store, tmp_path / "log") as running:
            wait_until(lambda: accepts(running.url, "first"))
            accepted = {"first", *(id_ for id_ in map(str, range(50)) if accepts(running.url, id_))}
            with open_state(None, folder) as state:
                server = int(state._client.info("server")["process_id"])  # type: ignore[index]
                os.kill(server, signal.SIGKILL)
            wait_until(lambda: accepts(running.url, "last") or "last" in accepted)
            assert accepted <= logged(None, folder)
            running.stop(signal.SIGTERM)
    finally:
        del os.environ["MTS4MM_STATE"]


@pytest.mark.slow
def test_a_hundred_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    store = tmp_path / "m"
    versions = [publish(store), publish(store)]
    with service(store, tmp_path / "log") as running, load(running.url, ["ann", "nobody"]) as answers:
        for turn in range(100):
            target = versions[turn % 2]
            activated = httpx.post(f"{running.url}/admin/models/{target}:activate", timeout=30).raise_for_status()
            assert activated.json()["live"] == target
        assert artifact.current_version(store) == versions[1]
    assert {answer["model_version"] for answer in answers} == set(versions)
    assert {tuple(item["item_id"] for item in answer["items"]) for answer in answers if answer["user_id"] == "ann"} == {
        ("hat", "sock", "42", "pen")
    }


@pytest.mark.slow
def test_two_workers_hear_of_a_retirement_within_two_seconds(shop: Shop, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MTS4MM_WORKERS", "2")
    monkeypatch.setenv("MTS4MM_STATE", str(tmp_path / "s"))
    with service(shop.store, tmp_path / "log") as running:
        user = shop.model.user_ids[0]
        best = shop.best_unseen(0, 1)[0]

        def answered() -> set[str]:
            body = {"user_id": user, "k": 1}
            asked = (httpx.post(f"{running.url}/recommend", json=body, timeout=30) for _ in range(30))
            return {response.raise_for_status().json()["items"][0]["item_id"] for response in asked}

        wait_until(lambda: answered() == {best})
        httpx.delete(f"{running.url}/items/{best}", timeout=30).raise_for_status()
        time.sleep(2.5)
        assert best not in answered()
        httpx.post(f"{running.url}/items/{best}:restore", timeout=30).raise_for_status()
        wait_until(lambda: answered() == {best})


def status(running: Running) -> str:
    return str(httpx.get(f"{running.url}/health", timeout=30).raise_for_status().json()["status"])
