"""A store, and a model of it that is live."""

from pathlib import Path

import pytest

from service.live_model import LiveModel, SwapResult
from tests.unit.service.live_model.models import Followed, publish


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def live(store: Path) -> Followed:
    version = publish(store, "first")
    reports: list[SwapResult] = []
    model = LiveModel(store, 60, reports.append)
    assert model.refresh().outcome == "swapped"
    reports.clear()
    return Followed(model, reports, version)
