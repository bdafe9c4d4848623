"""Items like one: by the student, by who took them, by a modality; also live, retired and oddly named ones."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.app import create_app
from service.client import Client, ServiceError
from service.engine import Engine
from service.lookalikes import nearest
from service.schemas import SimilarResponse
from service.settings import Settings
from shared import artifact
from tests.unit.service.conftest import ITEM_IDS, SEEN
from tests.unit.service.test_live_items import ITEMS, dataset, mug, publish_model
from trainer.dataset import TRAIN

NAMES = [f"i{item}" for item in range(ITEMS)]


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One service for the file; each test puts items of its own names, and takes them away."""
    models = tmp_path_factory.mktemp("models")
    publish_model(models)
    with TestClient(create_app(Settings(models=models)), raise_server_exceptions=False) as http:
        yield Client("http://testserver", http=http)


def scores(found: SimilarResponse) -> dict[str, float]:
    assert [item.rank for item in found.items] == list(range(1, len(found.items) + 1))
    listed = [item.score for item in found.items]
    assert listed == sorted(listed, reverse=True)
    return {item.item_id: item.score for item in found.items}


def cosines(table: NDArray[np.float64], row: int) -> NDArray[np.float64]:
    lengths = np.linalg.norm(table, axis=1)
    return (table @ table[row]) / (lengths * lengths[row])


def text_table(*more: list[float]) -> NDArray[np.float64]:
    features = dataset().modalities["text"].features.astype(np.float64)
    return np.vstack([features, *more])


def test_by_id_are_those_taken_by_the_same_users(open_shop: Client) -> None:
    taken = dataset().interactions(TRAIN).toarray().astype(np.float64)
    found = open_shop.similar("i4", k=100, by="id")
    expected = cosines(taken.T, 4)
    both = {name: expected[row] for row, name in enumerate(NAMES) if row != 4 and expected[row] > 0}
    assert len(both) < ITEMS - 1, "some item must have nothing in common, or the test shows less"
    assert scores(found) == pytest.approx(both, abs=1e-6)
    assert found.by == "id"
    assert scores(open_shop.similar("i4", k=2, by="id")) == dict(list(scores(found).items())[:2])


def test_who_took_nothing_and_an_item_nobody_took_disturb_nothing(store: Path) -> None:
    engine = Engine(artifact.load(store))
    taken = np.zeros((len(SEEN), len(ITEM_IDS)))
    for user, items in enumerate(SEEN.values()):
        taken[user, items] = 1
    for row, item_id in enumerate(ITEM_IDS):
        expected = cosines(taken.T, row)
        wanted = {ITEM_IDS[other]: expected[other] for other in np.flatnonzero(expected) if other != row}
        assert {item.item_id: item.score for item in engine.similar(item_id, 6, by="id")} == pytest.approx(wanted)


def test_by_a_modality_live_items_are_compared_like_all_others(open_shop: Client) -> None:
    open_shop.put_item("text/new", mug(features={"text": [1.0, 0.0, 0.1]}))
    table, names = text_table([1.0, 0.0, 0.1]), [*NAMES, "text/new"]
    for name in ("i3", "text/new"):
        expected = dict(zip(names, cosines(table, names.index(name)).tolist(), strict=True))
        del expected[name]
        found = open_shop.similar(name, k=100, by="text")
        assert scores(found) == pytest.approx(expected, abs=3e-3)
        assert {item.item_id for item in found.items if item.reason == "cold_item"} == {"text/new"} - {name}
    assert open_shop.similar("text/new", by="id").items == []
    assert "text/new" not in scores(open_shop.similar("i3", k=100, by="id"))
    open_shop.retire_item("text/new")


@pytest.mark.parametrize("by", ["student", "id", "text"])
def test_a_retired_item_is_like_nothing_until_it_is_restored(open_shop: Client, by: str) -> None:
    before = open_shop.similar("i2", k=100, by=by)
    gone = before.items[0].item_id
    open_shop.retire_item(gone)
    after = open_shop.similar("i2", k=100, by=by)
    with pytest.raises(ServiceError, match="retired") as refused:
        open_shop.similar(gone, by=by)
    open_shop.restore_item(gone)
    assert refused.value.status == 404
    assert [item.item_id for item in after.items] == [item.item_id for item in before.items[1:]]
    assert open_shop.similar("i2", k=100, by=by) == before


@pytest.mark.parametrize("by", ["image", "", "Student", "0"])
def test_what_items_cannot_be_compared_by_is_refused_and_what_they_can_is_named(open_shop: Client, by: str) -> None:
    with pytest.raises(ServiceError, match="student, id, text") as refused:
        open_shop.similar("i2", by=by)
    assert refused.value.status == 422
    assert refused.value.problem is not None
    assert refused.value.problem.errors is not None
    assert [each.pointer for each in refused.value.problem.errors] == ["#/by"]


def test_an_unknown_item_is_not_found_by_anything(open_shop: Client) -> None:
    for by in ("student", "id", "text"):
        with pytest.raises(ServiceError) as refused:
            open_shop.similar("nonsense", by=by)
        assert refused.value.status == 404


@pytest.mark.parametrize("tail", ["similar", "image"])
def test_an_id_that_ends_in_a_tail_of_paths_is_looked_up_like_any_other(open_shop: Client, tail: str) -> None:
    long, http = f"odd/{tail}", open_shop._http
    open_shop.put_item("odd", mug(metadata={"title": "Short"}))
    open_shop.put_item(long, mug(metadata={"title": "Long"}))
    assert open_shop.item("odd").metadata == {"title": "Short"}
    assert open_shop.item(long).metadata == {"title": "Long"}
    assert http.get(f"http://testserver/items/{quote('i2', safe='')}/similar").json()["item_id"] == "i2"
    assert open_shop.similar(long, by="text").item_id == long
    assert open_shop.similar("odd", by="text").item_id == "odd"
    assert http.get("http://testserver/items/odd/%73imilar").json()["item_id"] == "odd"
    for item_id in ("odd", long):
        open_shop.retire_item(item_id)


def test_of_equal_cosines_the_first_rows_come() -> None:
    tied = np.array([0.5, 0.9, 0.5, -np.inf, 0.5, 0.9, 0.1], np.float32)
    assert nearest(tied.copy(), 3, np.array([], np.int64)).items == [1, 5, 0]
    assert nearest(tied.copy(), 3, np.array([1])).items == [5, 0, 2]
    assert nearest(tied.copy(), 100, np.array([0, 6])).items == [1, 5, 2, 4]
    assert nearest(np.full(3, -np.inf, np.float32), 2, np.array([], np.int64)).items == []


def test_what_is_not_a_cosine_takes_no_place() -> None:
    odd = np.array([0.5, np.nan, 0.9, np.inf, -0.1, np.nan], np.float32)
    for k, wanted in ((1, [2]), (3, [2, 0, 4]), (100, [2, 0, 4])):
        assert nearest(odd.copy(), k, np.array([], np.int64)).items == wanted
    assert nearest(odd.copy(), 2, np.array([2])).items == [0, 4]


@pytest.mark.parametrize("length", [1e18, 1e-22])
def test_features_of_any_length_that_is_taken_are_compared_as_others(open_shop: Client, length: float) -> None:
    before = scores(open_shop.similar("i3", k=100, by="text"))
    open_shop.put_item("odd", mug(features={"text": [length, 0.0, length]}))
    after = scores(open_shop.similar("i3", k=100, by="text"))
    near = scores(open_shop.similar("odd", k=100, by="text"))
    open_shop.retire_item("odd")
    expected = cosines(text_table([1.0, 0.0, 1.0]), ITEMS)[:ITEMS]
    assert near == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=3e-3)
    assert after == pytest.approx({**before, "odd": expected[3]}, abs=3e-3)
