"""Items that came after the base dataset was made, kept for all nights to come: what was put to the service.

    <folder>/<digest>.json     metadata and features of an item, as it was last put

The state keeps a live item only until the models know it. From then on the training has it from here, and its picture
from ``shared.kept_pictures``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import durable
from shared.kept_pictures import keep_picture
from shared.state import Encoded, LiveItem


@dataclass(frozen=True)
class Addition:
    """An item that the base dataset lacks, or has otherwise.

    Attributes:
        item_id: its outside id.
        metadata: as in a row of the items table.
        given: by modality float32 [d_m], the features that whoever put the item gave.
        encoded: by modality, what an encoder made, and which.
    """

    item_id: str
    metadata: dict[str, Any]
    given: Mapping[str, NDArray[np.float32]]
    encoded: Mapping[str, Encoded]

    @property
    def features(self) -> dict[str, NDArray[np.float32]]:
        """By modality, those that were given, else what an encoder made."""
        made = {name: each.values for name, each in self.encoded.items() if each.values is not None}
        return {**made, **self.given}

    def lacks(self, modality: str, encoder: str) -> bool:
        """Whether an encoder has yet to say what it makes of the item."""
        made = self.encoded.get(modality)
        return modality not in self.given and (made is None or made.encoder != encoder)


def keep(folder: Path, store: Path, items: Iterable[LiveItem]) -> int:
    """Write live items down, each in the place of what was there of it, and their pictures; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for item in items:
        keep_picture(store, item.item_id, item.picture)
        _write(folder, Addition(item.item_id, dict(item.metadata), item.features, item.encoded))
        count += 1
    return count


def note_encoded(folder: Path, addition: Addition, modality: str, made: Encoded) -> None:
    """Write down what an encoder made of an item, so that no other night has to ask it again."""
    _write(folder, replace(addition, encoded={**addition.encoded, modality: made}))


def read(folder: Path) -> list[Addition]:
    """All items that were ever kept, by id."""
    return sorted(map(_read, folder.glob("*.json")), key=lambda each: each.item_id)


def _write(folder: Path, addition: Addition) -> None:
    document = {
        "item_id": addition.item_id,
        "metadata": addition.metadata,
        "given": {modality: values.tolist() for modality, values in addition.given.items()},
        "encoded": {
            modality: [made.encoder, None if made.values is None else made.values.tolist()]
            for modality, made in addition.encoded.items()
        },
    }
    name = blake2b(addition.item_id.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    with durable.replacing(folder / f"{name}.json") as file:
        file.write(json.dumps(document).encode())


def _read(path: Path) -> Addition:
    document = json.loads(path.read_bytes())
    return Addition(
        document["item_id"],
        document["metadata"],
        {modality: np.array(values, np.float32) for modality, values in document["given"].items()},
        {
            modality: Encoded(encoder, None if values is None else np.array(values, np.float32))
            for modality, (encoder, values) in document["encoded"].items()
        },
    )
