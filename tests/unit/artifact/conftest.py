"""Stores of artefacts for tests."""

import shutil
from pathlib import Path

import pytest

from shared import artifact
from tests.unit.artifact.models import MODEL, PROVENANCE


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version; not to be changed."""
    store = tmp_path_factory.mktemp("published")
    artifact.publish(store, MODEL, PROVENANCE)
    return store


@pytest.fixture
def version(store: Path, published: Path) -> Path:
    """The folder of the one version of a store, which is current; the test's own."""
    shutil.copytree(published, store)
    return store / (store / "CURRENT").read_text().strip()
