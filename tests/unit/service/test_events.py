"""Events over HTTP: each row judged by itself, counted once, and there for the next question."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.client import Client, ServiceError
from service.settings import Settings
from shared.events import MAX_AHEAD, Event, decode
from shared.state.store import EVENT_STREAM
from tests.integration.redis_server import Server, wait_until
from tests.unit.service.test_api import problem

NOW = datetime.now(UTC).replace(microsecond=0)


def event(**fields: Any) -> dict[str, Any]:
    """An event of a user whom no other test has."""
    given = {"event_id": uuid4().hex, "user_id": uuid4().hex, "item_id": "mug", "type": "view"}
    return given | {"timestamp": NOW.isoformat()} | fields


def recent(client: TestClient, user_id: str) -> list[str]:
    (known,) = client.app.state.overlay._state.recent([user_id])  # type: ignore[attr-defined]
    return [kept.item_id for kept in known.events]


def test_a_lone_event_and_a_batch_are_taken(client: TestClient) -> None:
    first, second, third = event(), event(user_id="bea", item_id="hat"), event(user_id="bea", item_id="not in stock")

    for path, body in (("/events", first), ("/v1/events", {"events": [second, third]})):
        response = client.post(path, json=body)
        assert response.status_code == 200
        count = len(body.get("events", [body]))
        assert response.json() == {"accepted": count, "duplicates": 0, "rejected": []}
    assert recent(client, first["user_id"]) == ["mug"]
    assert recent(client, "bea") == ["not in stock", "hat"]


def test_an_event_sent_again_is_a_duplicate_however_it_comes(client: TestClient) -> None:
    sent = event()
    client.post("/events", json=sent)

    again = client.post("/events", json={"events": [sent, event(event_id=sent["event_id"]), event()]}).json()

    assert again == {"accepted": 1, "duplicates": 2, "rejected": []}
    assert recent(client, sent["user_id"]) == ["mug"]


def test_bad_rows_are_named_and_good_rows_kept(client: TestClient) -> None:
    rows = [
        event(user_id="cleo"),
        event(timestamp=(datetime.now(UTC) + MAX_AHEAD + timedelta(hours=1)).isoformat()),
        event(timestamp="1970-01-20T22:43:21Z"),
        event(timestamp=1_700_000_000),
        event(type="teleport"),
        event(item_id=""),
        {"event_id": "x", "a/b~c": 1} | {"user_id": "u", "item_id": "i", "type": "view", "timestamp": NOW.isoformat()},
        "view",
        event(user_id="cleo", item_id="hat"),
        event(weight=-1, value="much"),
        event(user_id="\u00a0\n"),
    ]

    answered = client.post("/events", json={"events": rows}).json()

    assert (answered["accepted"], answered["duplicates"]) == (2, 0)
    assert [(row["index"], row["pointer"]) for row in answered["rejected"]] == [
        (1, "#/events/1/timestamp"),
        (2, "#/events/2/timestamp"),
        (3, "#/events/3/timestamp"),
        (4, "#/events/4/type"),
        (5, "#/events/5/item_id"),
        (6, "#/events/6/a~1b~0c"),
        (7, "#/events/7"),
        (9, "#/events/9/weight"),
        (10, "#/events/10/user_id"),
    ]
    details = {row["index"]: row["detail"] for row in answered["rejected"]}
    assert "day in the future" in details[1]
    assert "before 1995" in details[2]
    assert "view, click, cart, purchase, like, dislike, hide" in details[4]
    assert "value: " in details[9]
    assert "must not be blank" in details[10]
    assert recent(client, "cleo") == ["hat", "mug"]


def test_where_nothing_is_good_it_is_an_error_that_names_each_row(client: TestClient) -> None:
    lone = problem(client.post("/events", json=event(timestamp="yesterday")), 422)
    assert [error["pointer"] for error in lone["errors"]] == ["#/timestamp"]
    batch = problem(client.post("/events", json={"events": [event(type="x"), {}]}), 422)
    assert [error["pointer"] for error in batch["errors"]] == ["#/events/0/type", "#/events/1/event_id"]


@pytest.mark.parametrize("body", [[], {"events": []}, {"events": None}, {"events": [1] * 1001}, {"events": [], "x": 1}])
def test_what_is_no_batch_is_refused_whole(client: TestClient, body: Any) -> None:
    refused = problem(client.post("/events", json=body), 422)

    assert refused["errors"][0]["pointer"] in ("#", "#/events", "#/x")


def test_a_batch_as_large_as_may_be_is_taken_within_the_body_limit(client: TestClient) -> None:
    rows = [event(user_id="dora", item_id=f"item {'x' * 200} {n}") for n in range(1000)]

    assert client.post("/events", json={"events": rows}).json()["accepted"] == 1000


def test_events_from_before_a_user_was_forgotten_are_refused(client: TestClient) -> None:
    state = client.app.state.overlay._state  # type: ignore[attr-defined]
    when = state.forget("eve")
    rows = [
        event(user_id="eve", timestamp=when.isoformat()),
        event(user_id="eve", item_id="hat", timestamp=(when + timedelta(seconds=1)).isoformat()),
        event(user_id=""),
    ]

    answered = client.post("/events", json={"events": rows}).json()

    assert answered["accepted"] == 1
    assert [(row["index"], row["pointer"]) for row in answered["rejected"]] == [
        (0, "#/events/0/timestamp"),
        (2, "#/events/2/user_id"),
    ]
    assert recent(client, "eve") == ["hat"]


def test_the_log_has_the_event_as_it_was_sent(client: TestClient) -> None:
    sent = event(value=12.5, weight=2, recommendation_id="r", type="purchase")
    client.post("/events", json=sent)

    entries: Any = client.app.state.overlay._state._client.xrevrange(EVENT_STREAM, count=1)  # type: ignore[attr-defined]
    assert decode(entries[0][1][b"e"]) == Event.model_validate(sent)


@pytest.fixture(scope="module")
def stateless(store: Path) -> Iterator[TestClient]:
    """A service whose Redis is not there."""
    settings = Settings(models=store, redis_url="redis://127.0.0.1:9/0")  # type: ignore[arg-type]
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_without_redis_events_are_to_be_sent_later_and_health_says_so(stateless: TestClient) -> None:
    refused = stateless.post("/events", json=event())

    assert problem(refused, 503)
    assert int(refused.headers["retry-after"]) >= 1
    health = stateless.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert health.json()["problems"] == ["User state: Redis does not answer."]


def test_a_full_redis_is_named_in_the_refusal_in_health_and_in_the_metrics_until_it_takes_events(
    store: Path, tmp_path: Path
) -> None:
    def writable() -> bool:
        (line,) = [each for each in client.get("/metrics").text.splitlines() if each.startswith("mts4mm_redis_writ")]
        return line.endswith(" 1.0")

    with Server(tmp_path) as server, server.admin() as admin:
        settings = Settings(models=store, redis_url=server.url)  # type: ignore[arg-type]
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            assert client.get("/health").json()["status"] == "ok"
            assert writable()
            assert 'mts4mm_events_total{outcome="unavailable",type="view"} 0.0' in client.get("/metrics").text
            admin.config_set("maxmemory", "1")

            refused = client.post("/events", json=event())

            assert problem(refused, 503)["detail"].startswith("The user state refuses this: Redis is full")
            assert client.get("/health").json()["status"] == "degraded"
            assert "User state: Redis is full" in client.get("/health").json()["problems"][0]
            assert not writable()
            assert "mts4mm_redis_up 1.0" in client.get("/metrics").text
            assert client.post("/recommend", json={"user_id": "ann"}).json()["degraded"] is False
            admin.config_set("maxmemory", "0")
            wait_until(lambda: client.get("/health").json()["status"] == "ok")
            assert writable()


def test_a_redis_that_takes_no_events_is_a_problem_before_one_is_sent(store: Path, tmp_path: Path) -> None:
    with Server(tmp_path, 0, "--maxmemory", "1") as server:
        settings = Settings(models=store, redis_url=server.url)  # type: ignore[arg-type]
        with TestClient(create_app(settings)) as client:
            assert "Redis is full" in client.get("/health").json()["problems"][0]


def test_the_client_sends_events(client: TestClient, stateless: TestClient) -> None:
    events = [Event.model_validate(event()) for _ in range(3)]

    answer = Client("http://testserver", http=client).record_events([*events, events[0]])

    assert (answer.accepted, answer.duplicates, answer.rejected) == (3, 1, [])
    with pytest.raises(ServiceError) as away:
        Client("http://testserver", http=stateless).record_events(events)
    assert (away.value.status, away.value.retry_after_seconds) == (503, 1.0)
