import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.demo_shop import make_shop
from trainer.demo_shop.truth import ShopTruth, draw_shop

USERS, ITEMS, SEED = 300, 240, 7


@dataclass(frozen=True)
class Shop:
    """A shop as it lies on disk, and what was never written of it."""

    directory: Path
    items: list[dict[str, str]]
    interactions: list[dict[str, str]]
    image_feat: NDArray[np.float32]
    text_feat: NDArray[np.float32]
    truth: ShopTruth


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    directory = tmp_path_factory.mktemp("demo") / "shop"
    make_shop(directory, users=USERS, items=ITEMS, seed=SEED)
    return load(directory, draw_shop(SEED, users=USERS, items=ITEMS))


def load(directory: Path, truth: ShopTruth) -> Shop:
    with (directory / "items.csv").open(encoding="utf-8", newline="") as file:
        items = list(csv.DictReader(file))
    with (directory / "interactions.csv").open(encoding="utf-8", newline="") as file:
        interactions = list(csv.DictReader(file))
    features = (np.load(directory / f"{name}_feat.npy") for name in ("image", "text"))
    return Shop(directory, items, interactions, *features, truth)
