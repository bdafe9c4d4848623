"""Sound directories to break: six users, six items, each user with five, in every accepted form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

USERS, ITEMS = 6, 6
START = 1_600_000_000


@dataclass(frozen=True)
class Shop:
    """A directory under construction; every method overwrites one file."""

    directory: Path

    def interactions(self, rows: list[dict[str, Any]] | None = None, name: str = "interactions.csv") -> Path:
        path = self.directory / name
        table = pl.DataFrame(sound_rows() if rows is None else rows, infer_schema_length=None)
        if name.endswith(".parquet"):
            table.write_parquet(path)
        else:
            table.write_csv(path, separator="\t" if name.endswith(".inter") else ",")
        return path

    def text(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def features(self, values: np.ndarray | None = None, name: str = "image_feat.npy") -> Path:
        path = self.directory / name
        np.save(path, sound_features() if values is None else values)
        return path

    def neighbours(self, name: str = "text_neighbors.npz", **arrays: np.ndarray) -> Path:
        path = self.directory / name
        np.savez(path, **(arrays or {"neighbors": sound_neighbours(), "cosine": np.full((ITEMS, 2), 0.5, "f4")}))
        return path

    def items(self, ids: list[str] | None = None) -> Path:
        path = self.directory / "items.csv"
        ids = [str(item) for item in range(ITEMS)] if ids is None else ids
        pl.DataFrame({"item_id": ids, "title": [f"Title {item}" for item in ids]}).write_csv(path)
        return path


def sound_rows() -> list[dict[str, Any]]:
    """Five interactions a user (3 train, 1 validation, 1 test) and an item."""
    return [
        {
            "user_id": str(user),
            "item_id": str((user + step) % ITEMS),
            "timestamp": START + 86_400 * step + user,
            "weight": 1.0 + step,
            "x_label": max(0, step - 2),
        }
        for user in range(USERS)
        for step in range(5)
    ]


def sound_features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ITEMS, 3)).astype(np.float16)


def sound_neighbours() -> np.ndarray:
    return np.array([[(item + 1) % ITEMS, (item + 2) % ITEMS] for item in range(ITEMS)], np.int32)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Without an items table: item ids are rows of the features."""
    shop = Shop(tmp_path)
    shop.interactions()
    shop.features()
    shop.neighbours()
    return shop


@pytest.fixture
def empty_shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return sound_rows()
