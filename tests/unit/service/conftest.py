"""A small shop, published and served in this process."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.client import Client
from service.settings import Settings
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

# Users by what they have seen of the six items: some, nothing, all but one, everything.
SEEN = {"ann": [0, 5], "007": [], "cyd": [0, 1, 2, 4, 5], "dan": [0, 1, 2, 3, 4, 5]}
USER_EMBEDDINGS = np.array([[1, 0], [5, 5], [0, 1], [1, 1]], np.float32)
# For ann (the first column) the items rank 5, 0, then 1 and 3 tied, then 4, 2.
ITEM_EMBEDDINGS = np.array([[5, 1], [3, 0], [-2, 9], [3, 1], [0.5, 2], [8, -1]], np.float32)
ITEM_IDS = ["mug", "hat", "pen", "sock", "42", "lamp"]
TITLES = ["Red mug", "Blue hat", "Pen", "Sock", "Answer", "Lamp"]


# What the user embeddings are the sum of.
TEXT_PART = USER_EMBEDDINGS * np.array([[0.25], [0.5], [0.5], [0.0]], np.float32)
USER_PARTS = {"id": USER_EMBEDDINGS - TEXT_PART, "text": TEXT_PART}


def publish(
    store: Path,
    attachments: Mapping[str, bytes] | None = None,
    items: Sequence[Mapping[str, Any]] = tuple({"title": title} for title in TITLES),
    item_ids: Sequence[str] = tuple(ITEM_IDS),
    user_ids: Sequence[str] = tuple(SEEN),
) -> str:
    """Publish the small shop; returns the version."""
    seen = list(SEEN.values())
    model = StudentModel(
        user_ids=user_ids,
        item_ids=item_ids,
        user_embeddings=USER_EMBEDDINGS,
        item_embeddings=ITEM_EMBEDDINGS,
        train_indptr=np.cumsum([0, *(len(items) for items in seen)]),
        train_indices=np.array([item for items in seen for item in items]),
        items=items,
        user_parts=USER_PARTS,
        attachments=attachments or {},
    )
    dataset = DatasetInfo(
        name="shop", fingerprint="f", users=4, items=6, interactions=20, split=Split(kind="random", seed=1)
    )
    return artifact.publish(store, model, Provenance(dataset, {}, 1, {}))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("models")
    publish(store)
    return store


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=store)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def http(models: Path) -> Iterator[TestClient]:
    """The service of a test file's own ``models``, with its state."""
    with TestClient(create_app(Settings(models=models)), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def shop(http: TestClient) -> Client:
    """The typed client of that service."""
    return Client("http://testserver", http=http)


@pytest.fixture(scope="session")
def empty_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service without a model."""
    with TestClient(create_app(Settings(models=tmp_path_factory.mktemp("none")))) as client:
        yield client
