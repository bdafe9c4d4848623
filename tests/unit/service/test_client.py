"""The typed client, against the service in this process."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from service.client import Client, ServiceError
from service.schemas import BatchRequest, InFilter, PutItemRequest, RangeFilter, RecommendRequest


@pytest.fixture
def shop(client: TestClient) -> Client:
    return Client("http://testserver/", http=client)


def test_recommendations_come_typed(shop: Client) -> None:
    answer = shop.recommend(RecommendRequest(user_id="ann", k=2))
    assert [(item.item_id, item.rank) for item in answer.items] == [("hat", 1), ("sock", 2)]
    wanted = RecommendRequest(history=["mug"], filter={"title": InFilter.model_validate({"in": ["Pen", "Lamp"]})})
    assert {item.item_id for item in shop.recommend(wanted).items} == {"pen", "lamp"}
    batch = shop.recommend_batch(BatchRequest(user_ids=["ann", "nobody"], k=1))
    assert [answer.strategy for answer in batch.recommendations] == ["personal", "popular"]


def test_items_users_and_health_are_looked_up(shop: Client) -> None:
    assert shop.item("42").metadata == {"title": "Answer"}
    assert shop.user("ann").items == ["mug", "lamp"]
    assert len(shop.similar("mug", k=3).items) == 3
    assert shop.health().status == "ok"


def test_errors_carry_the_problem(shop: Client) -> None:
    with pytest.raises(ServiceError) as raised:
        shop.item("what/is ?this")
    assert (raised.value.status, raised.value.retry_after_seconds) == (404, None)
    assert raised.value.problem is not None
    assert raised.value.problem.instance == "/items/what/is ?this"
    with pytest.raises(ServiceError, match=r"422.*#/filter/price: The model knows no attribute"):
        shop.recommend(RecommendRequest(user_id="ann", filter={"price": RangeFilter(max=3)}))


def test_a_wrong_request_is_not_sent() -> None:
    with pytest.raises(ValidationError, match="give user_id, history or both"):
        RecommendRequest()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_refused_and_not_sent_as_null(number: float) -> None:
    for value in (number, [1, (number,)], {"sizes": [{"wide": number}]}):
        with pytest.raises(ValidationError, match=r"metadata\n  holds a number that is not finite"):
            PutItemRequest(metadata={"price": value})


def test_metadata_that_hold_themselves_are_refused() -> None:
    metadata: dict[str, Any] = {}
    metadata["again"] = metadata
    with pytest.raises(ValidationError, match="nested too deeply"):
        PutItemRequest(metadata=metadata)


def test_a_service_without_a_model_says_unavailable(empty_client: TestClient) -> None:
    shop = Client("http://testserver", http=empty_client)
    assert shop.health().status == "unavailable"
    with pytest.raises(ServiceError, match="503"):
        shop.recommend(RecommendRequest(user_id="ann"))


@pytest.mark.parametrize("status", [502, 503])
def test_an_answer_of_somebody_else_is_no_problem_document(status: int) -> None:
    page = httpx2.MockTransport(lambda request: httpx2.Response(status, text="<html>", headers={"retry-after": "7"}))
    client = Client("http://proxy", http=httpx2.Client(transport=page))
    for ask in (lambda: client.user("ann"), client.health):
        with pytest.raises(ServiceError, match=f"{status}: no problem document") as raised:
            ask()
        assert (raised.value.problem, raised.value.retry_after_seconds) == (None, 7.0)


def _answering(status: int, **answer: Any) -> Client:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, **answer))
    return Client("http://proxy", http=httpx2.Client(transport=transport))


@pytest.mark.parametrize("client", [_answering(200, text="<html>"), _answering(204), _answering(200, json={})])
def test_a_success_of_somebody_else_is_an_error_too(client: Client) -> None:
    for ask in (lambda: client.item("mug"), client.health, lambda: client.recommend(RecommendRequest(user_id="ann"))):
        with pytest.raises(ServiceError, match=r"20.: no answer of the service"):
            ask()


@pytest.mark.parametrize(("said", "seconds"), [("3", 3.0), ("\u00b2", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)])
def test_when_to_try_again_is_told_in_whole_seconds_or_not(said: str, seconds: float | None) -> None:
    with pytest.raises(ServiceError) as raised:
        _answering(503, headers={"retry-after": said.encode("latin-1")}).models()
    assert raised.value.retry_after_seconds == seconds


@pytest.mark.parametrize("id_", ["", ".", ".."])
def test_an_id_that_no_path_can_hold_is_not_sent(shop: Client, id_: str) -> None:
    for ask in (shop.item, shop.similar, shop.retire_item, shop.restore_item, shop.user, shop.forget_user):
        with pytest.raises(ValueError, match="no path can hold"):
            ask(id_)
    with pytest.raises(ValueError, match="no path can hold"):
        shop.put_item(id_, PutItemRequest())


def test_an_answer_about_somebody_else_is_an_error() -> None:
    forgotten = _answering(200, json={"user_id": "b", "forgotten_at": "2026-11-23T08:15:02Z"})
    with pytest.raises(ServiceError, match="about 'b' instead of 'a//b'"):
        forgotten.forget_user("a//b")
    retired = _answering(200, json={"item_id": "b", "retired": True})
    for ask in (retired.retire_item, retired.restore_item):
        with pytest.raises(ServiceError, match=r"about 'b' instead of 'a/\.\./b'"):
            ask("a/../b")


def test_what_takes_the_service_longer_is_waited_for_longer() -> None:
    """A service that takes half a second for everything, on a socket."""
    with _slow_service(0.5) as url, Client(url, timeout_seconds=0.1) as client:
        with pytest.raises(httpx2.ReadTimeout):
            client.health()
        for ask in (client.roll_back, lambda: client.activate("v"), lambda: client.recommend_batch(BATCH)):
            with pytest.raises(ServiceError, match="404"):
                ask()


BATCH = BatchRequest(user_ids=["ann"])


@contextmanager
def _slow_service(seconds: float) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            with suppress(OSError):  # nobody waits any more
                self.send_error(404)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_nobody_there_is_a_transport_error() -> None:
    with Client("http://127.0.0.1:9", timeout_seconds=0.5) as client, pytest.raises(httpx2.TransportError):
        client.health()
