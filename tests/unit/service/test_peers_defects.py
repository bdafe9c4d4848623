"""What other recommenders were seen to do wrong, as far as no test beside the part in question shows it to be right.

Shown elsewhere: seen items by id and not by rank, full lists, no -1, no duplicates (``test_every_answer.py``,
``test_every_state.py``); rows of a batch (``test_api.py``, ``test_short_way.py``); unknown users, wrong types and no k
(``test_service_process.py``); ids of digits (``test_api.py``); secrets in logs, latency of errors, other origins
(``test_operations.py``); no pickle (``artifact/test_publishing.py``); telemetry (``test_onnx_runtime.py``); another
model without a restart (``live_model/``); both probes of every container (``test_kubernetes.py``).
"""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis.connection import AbstractConnection

from service.app import create_app
from service.client import Client
from service.schemas import BatchRequest, RecommendRequest
from service.settings import Settings
from shared.events import Event
from shared.state.store import MOST_READ
from tests.unit.service.conftest import SEEN, publish


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """Counts what is sent to Redis by the threads that answer, while something is done."""
    sent: list[str] = []
    send = AbstractConnection.send_packed_command

    def counted(connection: Any, command: Any, check_health: bool = True) -> Any:
        sent.append(threading.current_thread().name)
        return send(connection, command, check_health)

    def count(work: Callable[[], Any]) -> int:
        sent.clear()
        work()
        return len([name for name in sent if not name.startswith("overlay")])  # which follow changes all the time

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    return count


def events(count: int) -> list[Event]:
    now = datetime.now(UTC)
    return [
        Event(event_id=f"e{place}", user_id=f"u{place % 7}", item_id="hat", type="view", timestamp=now)
        for place in range(count)
    ]


def test_a_request_takes_one_round_trip_however_much_it_asks_and_a_batch_one_for_many_users(
    shop: Client, round_trips: Callable[[Callable[[], Any]], int]
) -> None:
    shop.recommend(RecommendRequest(user_id="ann"))  # connections are made, and scripts loaded
    shop.record_events(events(1))
    many = BatchRequest(user_ids=[*SEEN, *(f"u{place}" for place in range(200))])
    assert round_trips(lambda: shop.recommend(RecommendRequest(user_id="ann", k=1))) == 1
    assert round_trips(lambda: shop.recommend(RecommendRequest(user_id="ann", k=500, explain=True))) == 1
    assert round_trips(lambda: shop.recommend_batch(many)) == math.ceil(len(many.user_ids) / MOST_READ)
    assert round_trips(lambda: shop.recommend(RecommendRequest(history=["mug"]))) == 0
    few, lots = (round_trips(lambda count=count: shop.record_events(events(count))) for count in (2, 900))
    assert few == lots == 1


def test_while_redis_is_away_the_probes_say_that_nothing_need_be_restarted(models: Path) -> None:
    settings = Settings(models=models, redis_url="redis://127.0.0.1:9/0")  # type: ignore[arg-type]
    with TestClient(create_app(settings)) as client:
        assert client.get("/health").json()["status"] == "degraded"
        for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200


@pytest.mark.parametrize("text", ["__import__('os').abort()", "${7*7}", "{{7*7}}", "1 or 1", "lambda: 0"])
def test_text_of_a_request_is_never_carried_out(client: TestClient, text: str) -> None:
    filtered = client.post("/recommend", json={"user_id": "ann", "filter": {"title": text}})
    assert (filtered.status_code, filtered.json()["items"]) == (200, [])
    for wrong in ({"filter": {text: 1}}, {"weights": {text: 1}}, {"weights": {"id": text}}, {"k": text}):
        assert client.post("/recommend", json={"user_id": "ann", **wrong}).status_code == 422
    assert client.post("/recommend", json={"user_id": text}).json()["user_id"] == text


def test_nothing_is_written_to_wherever_the_service_was_started(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "started").mkdir()
    monkeypatch.chdir(tmp_path / "started")
    with TestClient(create_app(Settings(models=models))) as http:
        client = Client("http://testserver", http=http)
        client.record_events(events(3))
        client.forget_user("ann")
        client.retire_item("hat")
    assert list(Path().iterdir()) == []
