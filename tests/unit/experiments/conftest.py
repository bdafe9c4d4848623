"""A very small demo shop, as a folder and as a dataset."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from trainer.dataset import Dataset, load_dataset
from trainer.demo_shop import make_shop
from trainer.recipe import Recipe

RECIPE = Recipe(
    width=8,
    batch_size=256,
    epochs=2,
    neighbours=5,
    rank_candidates=16,
    linear_candidates=30,
    linear_ridge=20.0,
    consolidated_width=16,
    learning_rate=0.01,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make the smallest t-SNE last minutes."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    make_shop(folder, users=80, items=60, seed=0)
    return folder


@pytest.fixture(scope="session")
def dataset(shop: Path) -> Dataset:
    return load_dataset(shop)


@pytest.fixture
def recipe() -> Recipe:
    return RECIPE


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")
