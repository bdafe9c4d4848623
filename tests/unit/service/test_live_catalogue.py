"""What a process makes of the live items, for the model that answers: joined to it, kept up to date, and let go."""

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from service.app import create_app
from service.client import Client, ServiceError
from service.content import Content
from service.engine import Engine
from service.live_items import LiveCatalogue
from service.schemas import PutItemRequest
from service.settings import Settings
from shared import artifact
from shared.item_tower import Features
from shared.state import LiveItem, LiveItems, open_state
from tests.unit.service.test_live_items import publish_model, until


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    publish_model(models)
    return models


@pytest.fixture
def state(tmp_path: Path) -> Iterator[LiveItems]:
    with open_state(None, tmp_path) as state:
        yield state.live_items


def engine_of(models: Path) -> Engine:
    return Engine(artifact.load(models))


def mug(item_id: str, *values: float) -> LiveItem:
    return LiveItem(item_id, {"title": item_id}, {"text": np.array(values or (1.0, 0.0, 0.1), np.float32)})


def test_the_model_before_is_let_go_when_a_night_has_trained_all_live_items(models: Path, state: LiveItems) -> None:
    catalogue, before = LiveCatalogue(), engine_of(models)
    state.put(mug("a"))
    catalogue.follow(state, before)
    assert catalogue.joined(before).rows(["a"]).size == 1
    held = weakref.ref(before.opened)

    del before
    state.drop(["a"])
    after = engine_of(models)
    catalogue.follow(state, after)

    assert catalogue.joined(after) is after
    gc.collect()
    assert held() is None


def test_while_a_table_is_made_answers_come_from_the_last_one_and_the_look_waits(
    models: Path, state: LiveItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue, engine = LiveCatalogue(), engine_of(models)
    state.put(mug("a"))
    catalogue.follow(state, engine)
    last, goes_on, vectors = catalogue.at_hand(engine), threading.Event(), Content.vectors

    def slowly(content: Content, features: Sequence[Features]) -> NDArray[np.float32]:
        assert goes_on.wait(60)
        return vectors(content, features)

    monkeypatch.setattr(Content, "vectors", slowly)
    state.put(mug("b"))
    with ThreadPoolExecutor(1) as pool:
        look = pool.submit(catalogue.follow, state, engine)
        until(lambda: "b" in catalogue)
        at_hand, waits = catalogue.at_hand(engine), not look.done()
        goes_on.set()
        look.result(60)
    assert at_hand is last
    assert at_hand is not None
    assert at_hand.rows(["a", "b"]).size == 1
    assert waits
    after = catalogue.at_hand(engine)
    assert after is not None
    assert after.rows(["a", "b"]).size == 2
    assert catalogue.at_hand(engine_of(models)) is None


def test_whoever_puts_or_deletes_an_item_reads_it_at_once_while_others_do_the_same(models: Path) -> None:
    with TestClient(create_app(Settings(models=models))) as http:
        shop = Client("http://testserver", http=http)

        def work(worker: int) -> None:
            for turn in range(8):
                name = f"{worker} {turn}"
                shop.put_item(name, PutItemRequest(metadata={"turn": turn}, features={"text": [1.0, worker, turn]}))
                assert shop.item(name).metadata == {"turn": turn}
                shop.retire_item(name)
                with pytest.raises(ServiceError) as gone:
                    shop.item(name)
                assert gone.value.status == 404
                assert name not in [item.item_id for item in shop.similar("i1", 500).items]

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, worker) for worker in range(4)]:
                done.result(120)


def test_of_unchanged_items_nothing_is_computed_again_and_the_table_is_as_one_made_anew(
    models: Path, state: LiveItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts, changes and deletions at random, also of items that the model knows, and of one that it cannot place."""
    catalogue, engine, dice = LiveCatalogue(), engine_of(models), np.random.default_rng(4)
    computed, vectors = [], Content.vectors

    def counted(content: Content, features: Sequence[Features]) -> NDArray[np.float32]:
        computed.append(len(features))
        return vectors(content, features)

    monkeypatch.setattr(Content, "vectors", counted)
    state.put(LiveItem("without features", {}))
    for turn in range(40):
        names = [str(name) for name in dice.choice(["a", "b", "c", "d", "e", "f", "i3", "i4"], 2, replace=False)]
        for name in names:
            state.put(mug(name, *dice.normal(size=3)))
        dropped = names[: 1 if turn % 3 == 0 else 0]
        state.drop(dropped)
        placed = [name for name in names if name not in dropped and not name.startswith("i")]
        catalogue.follow(state, engine)
        assert computed.pop() == len(placed)
        made, anew, fresh = catalogue.joined(engine).live, LiveCatalogue(), engine_of(models)
        anew.follow(state, fresh)
        computed.clear()
        expected = anew.joined(fresh).live
        assert (made.ids, made.metadata, made.changed) == (expected.ids, expected.metadata, expected.changed)
        np.testing.assert_allclose(made.vectors, expected.vectors, atol=1e-6)
        np.testing.assert_allclose(made.units["text"], expected.units["text"], atol=1e-6)
