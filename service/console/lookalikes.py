"""Items near words, a picture or another item, by each modality's content."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.content import load_contents
from shared.encoders import Encoder, ImageEncoder, TextEncoder, encoder_modalities, load_encoders
from shared.item_tower import ItemTower, load_item_tower

STUDENT = "student"
"""Nearness by the student's vectors, which the item tower gives for what the training did not see."""


@dataclass(frozen=True)
class Near:
    """Items and their cosines, nearest first."""

    items: list[int]
    cosines: list[float]


class Lookalikes:
    """Looks into one artefact; safe from any number of threads. Encoders are opened when first asked for."""

    def __init__(self, artifact: Artifact) -> None:
        """Map the contents.

        Raises:
            UserError: an attachment is not of the form it should have.
        """
        self._artifact = artifact
        self._contents = load_contents(artifact)
        self._encoders: dict[str, Encoder[Any, Any]] | None = None
        self._tower: ItemTower | None = None
        self._opening = threading.Lock()

    @property
    def modalities(self) -> list[str]:
        """Those that items can be compared by."""
        return sorted(self._contents)

    @property
    def searched_by(self) -> list[str]:
        """What can be searched by: ``words``, ``picture``, both or neither."""
        by_words = {
            self._artifact.attachment(f"encoder_{modality}.tokenizer.json") is not None
            for modality in encoder_modalities(self._artifact)
            if modality in self._contents
        }
        return [name for name, words in (("words", True), ("picture", False)) if words in by_words]

    def of_item(self, item: int, modality: str, k: int) -> Near:
        """The items nearest to one by a modality; none where it lacks it.

        Raises:
            KeyError: there is no such modality.
        """
        cosines = self._contents[modality].cosines_to(item)
        cosines[item] = -np.inf
        return _nearest(cosines, k)

    def of_words(self, words: str, k: int) -> dict[str, Near]:
        """The items nearest to words, by each modality that has an encoder of words, and by the student.

        Raises:
            UserError: an encoder cannot be used.
        """
        return self._near(words, TextEncoder, k)

    def of_picture(self, picture: bytes, k: int) -> dict[str, Near]:
        """The items nearest to a picture file, by each modality that has an encoder of pictures, and by the student.

        Raises:
            PictureError: it is no sound picture.
            UserError: an encoder cannot be used.
        """
        return self._near(picture, ImageEncoder, k)

    def _near(self, raw: str | bytes, kind: type[Encoder[Any, Any]], k: int) -> dict[str, Near]:
        encoders, tower = self._open()
        features = {}
        for modality, encoder in encoders.items():
            if isinstance(encoder, kind) and modality in self._contents:
                (vector,) = encoder.encode([raw])
                if np.isfinite(vector).all():
                    features[modality] = vector
        found = {name: _nearest(self._contents[name].cosines(vector), k) for name, vector in features.items()}
        if tower is not None and features.keys() & tower.modalities.keys():
            found = {STUDENT: _nearest(self._by_student(tower, features), k)} | found
        return found

    def _by_student(self, tower: ItemTower, features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        (vector,) = tower.vectors([features])
        table = self._artifact.item_embeddings
        lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(vector)
        cosines: NDArray[np.float32] = (table @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)
        return cosines

    def _open(self) -> tuple[dict[str, Encoder[Any, Any]], ItemTower | None]:
        with self._opening:
            if self._encoders is None:
                self._tower = load_item_tower(self._artifact)
                self._encoders = load_encoders(self._artifact)
            return self._encoders, self._tower


def _nearest(cosines: NDArray[np.float32], k: int) -> Near:
    count = min(k, int(np.isfinite(cosines).sum()))
    best = np.argpartition(-cosines, count - 1)[:count] if 0 < count < len(cosines) else np.arange(len(cosines))
    best = best[np.lexsort((best, -cosines[best]))][:count]
    return Near([int(item) for item in best], [float(cosine) for cosine in cosines[best]])
