"""The console's look-ups with items that were put or retired since the training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.client import Client
from service.schemas import PutItemRequest
from service.settings import Settings
from shared.encoders import Encoder, EncoderFolder, attachments
from tests.unit.service.test_live_items import ITEMS, dataset, mug, publish_model, publish_of, with_encoders


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    publish_model(tmp_path)
    with TestClient(create_app(Settings(models=tmp_path))) as client:
        yield client


@pytest.fixture
def shop(http: TestClient) -> Client:
    return Client("http://testserver", http=http)


def found(http: TestClient, path: str, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = http.get(f"/console/api/{path}", params=query).json()["items"]
    return items


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def test_a_live_item_is_found_by_its_words_until_it_is_retired(http: TestClient, shop: Client) -> None:
    assert found(http, "items", q="mug") == []
    shop.put_item("new", mug())
    assert found(http, "items", q="green mu") == [
        {"item_id": "new", "popularity": 0, "metadata": {"title": "Mug", "colour": "green"}, "live": True}
    ]
    everything = ids(found(http, "items", limit=100))
    assert (len(everything), everything[-1]) == (ITEMS + 1, "new")
    looked_up = http.post("/console/api/items", json={"item_ids": ["new", "i1"]}).json()["items"]
    assert [(item["item_id"], item["live"]) for item in looked_up] == [("new", True), ("i1", False)]
    shop.retire_item("new")
    assert found(http, "items", q="green mu") == []


def test_an_item_is_found_by_what_it_is_called_now(http: TestClient, shop: Client) -> None:
    assert "i3" in ids(found(http, "items", q="red", limit=100)) + ids(found(http, "items", q="blue", limit=100))
    shop.put_item("i3", PutItemRequest(metadata={"title": "Renamed"}))
    assert ids(found(http, "items", q="renamed")) == ["i3"]
    assert "i3" not in ids(found(http, "items", q="item", limit=100))
    assert ids(found(http, "items", limit=100)).count("i3") == 1


def test_a_retired_item_is_on_no_list(http: TestClient, shop: Client) -> None:
    lists: list[tuple[str, dict[str, Any]]] = [
        ("items", {"limit": 100}),
        ("items", {"q": "item", "limit": 100}),
        ("shelf", {"limit": 100}),
        ("near", {"item_id": "i7", "by": "text", "k": 100}),
    ]
    before = [ids(found(http, path, **query)) for path, query in lists]
    shop.retire_item("i5")
    after = [ids(found(http, path, **query)) for path, query in lists]
    assert all("i5" in items for items in before)
    assert after == [[item for item in items if item != "i5"] for items in before]


def test_live_items_have_neighbours_by_content_and_are_neighbours(http: TestClient, shop: Client) -> None:
    features = dataset().modalities["text"].features
    for name, vector in (("one", [1.0, 0.0, 0.1]), ("two", [0.0, 1.0, 0.3])):
        shop.put_item(name, mug(features={"text": vector}))
    names = [*(f"i{item}" for item in range(ITEMS)), "one", "two"]
    table = np.vstack([features, [[1.0, 0.0, 0.1], [0.0, 1.0, 0.3]]])
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    for item in ("one", "i4"):
        near = {each["item_id"]: each["score"] for each in found(http, "near", item_id=item, by="text", k=100)}
        expected = dict(zip(names, (table @ table[names.index(item)]).tolist(), strict=True))
        del expected[item]
        assert near == pytest.approx(expected, abs=3e-3)


def test_the_page_is_told_by_what_the_model_places_items(http: TestClient, tmp_path: Path) -> None:
    placed_by = [{"modality": "text", "width": 3, "encoder": False}]
    assert http.get("/console/api/model").json()["placed_by"] == placed_by
    publish_model(tmp_path / "without", modalities=())
    with TestClient(create_app(Settings(models=tmp_path / "without"))) as other:
        assert other.get("/console/api/model").json()["placed_by"] == []


def test_a_search_by_words_and_live_items_share_the_encoders_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them takes as much memory as its network does, in every worker."""
    opened, open_encoder = [], attachments.open_encoder

    def noted(folder: EncoderFolder, threads: int) -> Encoder[Any, Any]:
        opened.append(folder.spec.name)
        return open_encoder(folder, threads)

    monkeypatch.setattr(attachments, "open_encoder", noted)
    publish_of(tmp_path / "m", with_encoders(tmp_path / "encoders"), ("text", "image"))
    with TestClient(create_app(Settings(models=tmp_path / "m"))) as http:
        Client("http://testserver", http=http).put_item("mug", PutItemRequest(metadata={"title": "Red mug"}))
        near = http.post("/console/api/search/words", json={"words": "red mug", "k": 1}).json()["near"]
    assert [item["item_id"] for item in near["text"]["items"]] == ["mug"]
    assert sorted(opened) == ["colours", "words"]
