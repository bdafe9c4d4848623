"""Items that came after the base dataset was made, kept for all nights to come: what was put to the service.

    <folder>/<digest>.json     metadata and features of an item, as it was last put
    <folder>/<digest>.jpg      its picture, if it has one

The state keeps a live item only until the models know it. From then on the training has it from here.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import durable
from shared.state.live_items import LiveItem


@dataclass(frozen=True)
class Addition:
    """An item that the base dataset lacks, or has otherwise.

    Attributes:
        item_id: its outside id.
        metadata: as in a row of the items table.
        features: by modality float32 [d_m]; given by whoever put the item, or made by an encoder.
    """

    item_id: str
    metadata: dict[str, Any]
    features: dict[str, NDArray[np.float32]]


def keep(folder: Path, items: Iterable[LiveItem]) -> int:
    """Write live items down, each in the place of what was there of it; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for item in items:
        name = _name(item.item_id)
        encoded = {modality: made.values for modality, made in item.encoded.items() if made.values is not None}
        features = {**encoded, **item.features}
        document = {
            "item_id": item.item_id,
            "metadata": dict(item.metadata),
            "features": {modality: values.tolist() for modality, values in features.items()},
        }
        if item.picture is not None:
            with durable.replacing(folder / f"{name}.jpg") as file:
                file.write(item.picture)
        with durable.replacing(folder / f"{name}.json") as file:
            file.write(json.dumps(document).encode())
        count += 1
    return count


def read(folder: Path) -> list[Addition]:
    """All items that were ever kept, by id."""
    additions = []
    for path in folder.glob("*.json"):
        document = json.loads(path.read_bytes())
        features = {name: np.array(values, np.float32) for name, values in document["features"].items()}
        additions.append(Addition(document["item_id"], document["metadata"], features))
    return sorted(additions, key=lambda each: each.item_id)


def picture(folder: Path, item_id: str) -> Path | None:
    """The picture of an item that was kept; None if it has none."""
    path = folder / f"{_name(item_id)}.jpg"
    return path if path.exists() else None


def _name(item_id: str) -> str:
    return blake2b(item_id.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
