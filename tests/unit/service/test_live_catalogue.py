"""What a process makes of the live items, for the model that answers: joined to it, kept up to date, and let go."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.engine import Engine
from service.live_items import LiveCatalogue
from shared import artifact
from shared.state import LiveItem, LiveItems, open_state
from tests.unit.service.test_live_items import publish_model


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
