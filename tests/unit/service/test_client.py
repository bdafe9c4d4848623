"""The typed client, against the service in this process."""

import math
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


def test_nobody_there_is_a_transport_error() -> None:
    with Client("http://127.0.0.1:9", timeout_seconds=0.5) as client, pytest.raises(httpx2.TransportError):
        client.health()
