"""What must hold of every answer, whatever happened before it: events, deletions, items put and models swapped.

A random course of requests goes to one service; a plain Python shop goes along and says which items are eligible.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.client import Client
from service.schemas import PutItemRequest
from service.settings import Settings
from shared import artifact
from shared.artifact import Artifact
from shared.events import Event
from tests.unit.service.test_live_items import publish_model

CATALOGUES = (5, 11, 24)
"""Items of the models that are swapped: each knows those of the smaller ones, and users took other things of them."""

ITEMS = st.sampled_from([*(f"i{item}" for item in range(max(CATALOGUES))), "new/1", "new 2", "new3"])
USERS = st.sampled_from(["u0", "u1", "a stranger"])
OFTEN = st.sampled_from(["i0", "i1", "new/1"])
"""What events are about, so that they come upon each other."""
COLOURS = st.sampled_from(["red", "blue", "green"])
KINDS = st.sampled_from(["recommend", "event", "event", "swap", "retire", "restore", "put", "forget"])
ASKED = st.fixed_dictionaries(
    {"k": st.integers(1, 30)},
    optional={
        "exclude_seen": st.booleans(),
        "exclude_items": st.lists(ITEMS, max_size=8),
        "filter": st.fixed_dictionaries({"colour": st.one_of(COLOURS, st.builds(lambda one: {"in": [one]}, COLOURS))}),
        "diversity": st.sampled_from([0.4, 1.0]),
        "at_most": st.fixed_dictionaries({"colour": st.integers(1, 2)}),
        "explain": st.just(True),
        "weights": st.just({"whole": 0.5}),
    },
)


@dataclass
class Shop:
    """What there is, as one would write it down."""

    models: dict[str, Artifact]
    live: str
    events: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    put: dict[str, dict[str, Any]] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    def knows(self, item_id: str) -> bool:
        return self.models[self.live].items.dense(item_id) is not None

    def catalogue(self) -> dict[str, dict[str, Any]]:
        model = self.models[self.live]
        trained = {model.items.outside(row): model.item_metadata(row) or {} for row in range(len(model.items))}
        return trained | self.put

    def seen(self, user_id: str) -> set[str]:
        model, taken = self.models[self.live], {item for item, type_ in self.events.get(user_id, []) if type_ != "hide"}
        row = None if user_id in self.forgotten else model.users.dense(user_id)
        return taken | (set() if row is None else {model.items.outside(item) for item in model.seen(row).tolist()})

    def hidden(self, user_id: str) -> set[str]:
        hidden: set[str] = set()
        for item_id, type_ in self.events.get(user_id, []):
            if type_ == "hide":
                hidden.add(item_id)
            elif type_ == "purchase":
                hidden.discard(item_id)
        return hidden

    def eligible(self, user_id: str | None, history: list[str], asked: dict[str, Any]) -> set[str]:
        out = self.retired | set(asked.get("exclude_items", ()))
        if user_id is not None:
            out |= self.hidden(user_id)
        if asked.get("exclude_seen", True):
            out |= set(history) | (set() if user_id is None else self.seen(user_id))
        wanted = asked.get("filter", {}).get("colour")
        colour = wanted["in"][0] if isinstance(wanted, dict) else wanted
        return {
            item_id
            for item_id, known in self.catalogue().items()
            if item_id not in out and (colour is None or known.get("colour") == colour)
        }

    def most(self, eligible: set[str], asked: dict[str, Any]) -> int:
        """How many of them there may be in one answer; an item has one colour or none."""
        cap, catalogue = asked.get("at_most", {}).get("colour", len(eligible)), self.catalogue()
        colours = Counter(catalogue[item_id].get("colour") for item_id in eligible)
        return colours.pop(None, 0) + sum(min(cap, count) for count in colours.values())


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, dict[str, Artifact]]]:
    store: Path = tmp_path_factory.mktemp("models")
    models = {version: artifact.load(store, version) for version in [publish_model(store, n) for n in CATALOGUES]}
    with TestClient(create_app(Settings(models=store)), raise_server_exceptions=False) as http:
        yield http, models


def emptied(http: TestClient, models: dict[str, Artifact]) -> Shop:
    """The service as it is before anything happened."""
    assert isinstance(http.app, FastAPI)
    overlay = http.app.state.overlay
    overlay.call("empty", lambda state: state._client.flushall())
    overlay.look()
    version = next(iter(models))
    assert http.post(f"/admin/models/{version}:activate").status_code == 200
    return Shop(models, version)


@given(data=st.data())
@settings(
    deadline=None,
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a course is short, and shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_exactly_the_eligible_items_each_once_after_anything(
    service: tuple[TestClient, dict[str, Artifact]], data: st.DataObject
) -> None:
    http, models = service
    client, shop = Client("http://testserver", http=http), emptied(http, models)
    for step, kind in enumerate([*data.draw(st.lists(KINDS, min_size=4, max_size=14)), "recommend"]):
        {
            "recommend": recommend,
            "event": event,
            "swap": swap,
            "retire": retire,
            "restore": restore,
            "put": put,
            "forget": forget,
        }[kind](client, shop, data, step)


def recommend(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    asked, user_ids = data.draw(ASKED), data.draw(st.lists(USERS, min_size=1, max_size=3))
    history = data.draw(st.lists(ITEMS, max_size=4))
    batch = client._http.post("http://testserver/recommend:batch", json={"user_ids": user_ids, **asked}).json()
    for user_id, answer in zip(user_ids, batch["recommendations"], strict=True):
        check(shop, answer, user_id, [], asked)
    for media_type in ("application/json", "application/json; charset=utf-8"):  # the short way, and the general one
        body = {"user_id": user_ids[0], "history": history, **asked}
        sent = client._http.post("http://testserver/recommend", json=body, headers={"content-type": media_type})
        check(shop, sent.json(), user_ids[0], history, asked)
        if history:
            del body["user_id"]
            check(shop, client._http.post("http://testserver/v1/recommend", json=body).json(), None, history, asked)


def check(shop: Shop, answer: dict[str, Any], user_id: str | None, history: list[str], asked: dict[str, Any]) -> None:
    eligible, got = shop.eligible(user_id, history, asked), [item["item_id"] for item in answer["items"]]
    assert len(got) == len(set(got)) == min(asked["k"], shop.most(eligible, asked))
    assert set(got) <= eligible
    assert (answer["model_version"], answer["degraded"], answer["user_id"]) == (shop.live, False, user_id)
    catalogue = shop.catalogue()
    for rank, item in enumerate(answer["items"], 1):
        assert (item["rank"], item["metadata"]) == (rank, catalogue[item["item_id"]])
        assert (item["reason"] == "cold_item") == (not shop.knows(item["item_id"]))
    if "diversity" not in asked:
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)


def event(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    user_id, item_id = data.draw(USERS), data.draw(OFTEN)
    type_ = data.draw(st.sampled_from(["view", "purchase", "hide"]))
    at = datetime.now(UTC) + timedelta(seconds=step)
    told = Event(event_id=f"e{step}", user_id=user_id, item_id=item_id, type=type_, timestamp=at)
    assert client.record_events([told, told]).model_dump() == {"accepted": 1, "duplicates": 1, "rejected": []}
    shop.events.setdefault(user_id, []).append((item_id, type_))


def swap(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    version = data.draw(st.sampled_from(list(shop.models)))
    assert client.activate(version).live == version
    shop.live = version


def retire(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    item_id = data.draw(ITEMS)
    status = client._http.delete(f"http://testserver/items/{item_id.replace('/', '%2F')}").status_code
    there = item_id in shop.catalogue()
    assert status == (200 if there else 404)
    if there:
        shop.retired.add(item_id)
        shop.put.pop(item_id, None)


def restore(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    gone = sorted(item_id for item_id in shop.retired if shop.knows(item_id))
    if gone:
        item_id = data.draw(st.sampled_from(gone))
        assert not client.restore_item(item_id).retired
        shop.retired.discard(item_id)


def put(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    item_id = data.draw(ITEMS)
    metadata = data.draw(st.sampled_from([{}, {"colour": "green"}, {"colour": "red", "title": "Anew"}]))
    wanted = PutItemRequest(metadata=metadata, features={"text": [1.0, 0.2, -0.3]})
    assert client.put_item(item_id, wanted).known == shop.knows(item_id)
    shop.put[item_id] = metadata
    shop.retired.discard(item_id)


def forget(client: Client, shop: Shop, data: st.DataObject, step: int) -> None:
    user_id = data.draw(USERS)
    client.forget_user(user_id)
    shop.events.pop(user_id, None)
    shop.forgotten.add(user_id)
