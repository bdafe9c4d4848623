"""Plain requests past the framework: answered as the framework's way answers them, and all others handed on whole."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from service.app import create_app
from service.schemas import RecommendResponse
from service.settings import Settings
from service.short_way import ShortWay
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

ITEM_IDS = ["mug", 'a "quoted" hat', "päper", "\u2028", "42", "\x7f\\n"]
USER_IDS = ["ann", 'b"ob', "日本"]
SHORT, GENERAL = "application/json", "application/json; charset=utf-8"


@pytest.fixture(scope="module")
def odd_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A shop whose ids and metadata have all that JSON must escape, and items without metadata."""
    store: Path = tmp_path_factory.mktemp("odd")
    draw = np.random.default_rng(0)
    model = StudentModel(
        user_ids=USER_IDS,
        item_ids=ITEM_IDS,
        user_embeddings=draw.normal(size=(3, 4)).astype(np.float32),
        item_embeddings=draw.normal(size=(6, 4)).astype(np.float32),
        train_indptr=np.array([0, 2, 3, 3]),
        train_indices=np.array([0, 3, 1]),
        items=[
            {"title": 'He said "hi"\n'},
            {},
            {"größe": [1, 2.5, None, True]},
            {"t": "</script>\u2029"},
            {"n": {}},
            {},
        ],
    )
    dataset = DatasetInfo(
        name="odd", fingerprint="f", users=3, items=6, interactions=3, split=Split(kind="random", seed=1)
    )
    artifact.publish(store, model, Provenance(dataset, {}, 1, {}))
    with TestClient(create_app(Settings(models=store))) as client:
        yield client


def answered(client: TestClient, body: dict[str, Any], media_type: str) -> tuple[int, dict[str, Any]]:
    answer = client.post("/recommend", content=json.dumps(body), headers={"content-type": media_type})
    assert answer.headers["content-type"] == (
        "application/json" if answer.status_code == 200 else "application/problem+json"
    )
    assert len(answer.content) == int(answer.headers["content-length"])
    told: dict[str, Any] = answer.json()
    return answer.status_code, told


ids = st.sampled_from([*ITEM_IDS, "nobody's", "\u00e9"])
bodies = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from([*USER_IDS, "stranger", ""]),
        "history": st.lists(ids, max_size=3),
        "k": st.integers(-1, 8),
        "exclude_seen": st.booleans(),
        "exclude_items": st.lists(ids, max_size=3),
        "diversity": st.sampled_from([0.0, 0.5]),
        "explain": st.booleans(),
        "weights": st.sampled_from([{}, {"whole": 2.0}, {"nonsense": 1.0}]),
        "filter": st.sampled_from([{}, {"t": "x"}, {"nonsense": 1}]),
        "at_most": st.sampled_from([{}, {"title": 1}, {"nonsense": 1}, {"title": 0}]),
    },
)


@given(body=bodies)
@settings(deadline=None, max_examples=150)
def test_both_ways_answer_alike(odd_shop: TestClient, body: dict[str, Any]) -> None:
    status, short = answered(odd_shop, body, SHORT)
    same_status, general = answered(odd_shop, body, GENERAL)
    assert status == same_status
    if status == 200:
        RecommendResponse.model_validate_json(json.dumps(short), strict=True)
    own_id = "recommendation_id" if status == 200 else "request_id"
    assert short.pop(own_id) != general.pop(own_id)
    assert short == general


def test_items_are_told_as_the_artefact_has_them(odd_shop: TestClient) -> None:
    _, told = answered(odd_shop, {"user_id": "日本", "k": 6, "history": ["mug"], "exclude_seen": False}, SHORT)
    listed = {item["item_id"]: item for item in told["items"]}
    assert sorted(listed) == sorted(ITEM_IDS)
    assert listed["päper"]["metadata"] == {"größe": [1, 2.5, None, True]}
    assert listed["mug"]["metadata"] == {"title": 'He said "hi"\n'}
    assert told["user_id"] == "日本"


class _General:
    """What stands behind the short way: notes that it was asked, and what it heard."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while not self.heard or self.heard[-1].get("more_body"):
            self.heard.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})


def ask(
    app: FastAPI, messages: list[Message | Exception], path: str = "/recommend", media_type: str = SHORT
) -> tuple[_General, list[Message]]:
    """Send messages to a short way before a general one."""
    general, sent, left = _General(), list[Message](), iter(messages)

    async def receive() -> Message:
        message = next(left)
        if isinstance(message, Exception):
            raise message
        return message

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "app": app, "state": {}}
    scope["headers"] = [(b"content-type", media_type.encode())]
    asyncio.run(ShortWay(general)(scope, receive, send))
    return general, sent


def piece(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture
def app(odd_shop: TestClient) -> FastAPI:
    assert isinstance(odd_shop.app, FastAPI)
    return odd_shop.app


def test_a_plain_request_takes_it_in_however_many_pieces(app: FastAPI) -> None:
    general, sent = ask(app, [piece(b'{"user_id"', more=True), piece(b"", more=True), piece(b':"ann","k":2}')])
    assert not general.heard
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert len(json.loads(sent[1]["body"])["items"]) == 2


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/recommend", SHORT, b'{"user_id": 7}'),
        ("/recommend", SHORT, b"[" * 10_000),
        ("/recommend", SHORT, b'{"user_id":"ann","weights":{"whole":1}}'),
        ("/recommend", "text/plain", b'{"user_id":"ann"}'),
        ("/recommend:batch", SHORT, b'{"user_ids":["ann"]}'),
        ("/health", SHORT, b""),
    ],
)
def test_every_other_one_is_handed_on_whole(app: FastAPI, path: str, media_type: str, body: bytes) -> None:
    messages = [piece(body[:3], more=True), piece(body[3:])]
    general, sent = ask(app, [*messages], path, media_type)
    assert general.heard == messages
    assert [message["status"] for message in sent] == [204]


def test_a_client_that_goes_away_is_handed_on_too(app: FastAPI) -> None:
    messages: list[Message] = [piece(b"{", more=True), {"type": "http.disconnect"}]
    assert ask(app, [*messages])[0].heard == messages


def test_a_body_that_may_not_go_on_fails_for_the_general_way_as_well(app: FastAPI) -> None:
    with pytest.raises(HTTPException, match="too much"):
        ask(app, [piece(b"{", more=True), HTTPException(413, "too much")])
