"""Items near words, a picture or another item, by each modality's content."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.content import cosines_of, load_contents
from shared.encoders import Encoder, ImageEncoder, TextEncoder, encoder_modalities, load_encoders
from shared.item_tower import Features, ItemTower, load_item_tower

STUDENT = "student"
"""Nearness by the student's vectors, which the item tower gives for what the training did not see."""


@dataclass(frozen=True)
class Near:
    """Items and their cosines, nearest first."""

    items: list[int]
    cosines: list[float]


@dataclass(frozen=True, eq=False)
class Besides:
    """Live items, whose rows come after the artefact's.

    Attributes:
        vectors: in the student's space, float32 [live items, width].
        units: by modality rows as those of the contents, float32 [live items, its width]; zeros where one lacks it.
    """

    vectors: NDArray[np.float32]
    units: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


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

    def units(self, features: Sequence[Features]) -> dict[str, NDArray[np.float32]]:
        """What :class:`Besides` keeps of the features of live items."""
        found = {}
        for name, content in self._contents.items():
            table = np.zeros((len(features), content.features), np.float32)
            for row, each in enumerate(features):
                values = each.get(name)
                if values is not None and len(values) == content.features:
                    table[row] = values
            found[name] = content.units(table)
        return found

    def of_item(self, item: int, modality: str, k: int, besides: Besides, hidden: NDArray[np.int64]) -> Near:
        """The items nearest to one by a modality, without the hidden rows; none where it lacks it.

        Raises:
            KeyError: there is no such modality.
        """
        rows, live, trained = self._contents[modality].rows, besides.units[modality], len(self._artifact.items)
        unit = rows[item].astype(np.float32) if item < trained else live[item - trained]
        cosines = np.concatenate([cosines_of(rows, unit), cosines_of(live, unit)])
        cosines[item] = -np.inf
        return _nearest(cosines, k, hidden)

    def of_words(self, words: str, k: int, besides: Besides, hidden: NDArray[np.int64]) -> dict[str, Near]:
        """The items nearest to words, by each modality that has an encoder of words, and by the student.

        Raises:
            UserError: an encoder cannot be used.
        """
        return self._near(words, TextEncoder, k, besides, hidden)

    def of_picture(self, picture: bytes, k: int, besides: Besides, hidden: NDArray[np.int64]) -> dict[str, Near]:
        """The items nearest to a picture file, by each modality that has an encoder of pictures, and by the student.

        Raises:
            PictureError: it is no sound picture.
            UserError: an encoder cannot be used.
        """
        return self._near(picture, ImageEncoder, k, besides, hidden)

    def _near(
        self, raw: str | bytes, kind: type[Encoder[Any, Any]], k: int, besides: Besides, hidden: NDArray[np.int64]
    ) -> dict[str, Near]:
        encoders, tower = self._open()
        features = {}
        for modality, encoder in encoders.items():
            if isinstance(encoder, kind) and modality in self._contents:
                (vector,) = encoder.encode([raw])
                if np.isfinite(vector).all():
                    features[modality] = vector
        found = {}
        if tower is not None and features.keys() & tower.modalities.keys():
            (vector,) = tower.vectors([features])
            tables = (self._artifact.item_embeddings, besides.vectors)
            found[STUDENT] = _nearest(np.concatenate([_cosines(table, vector) for table in tables]), k, hidden)
        for name, vector in features.items():
            content = self._contents[name]
            (unit,) = content.units(vector[None])
            cosines = np.concatenate([cosines_of(content.rows, unit), cosines_of(besides.units[name], unit)])
            found[name] = _nearest(cosines, k, hidden)
        return found

    def _open(self) -> tuple[dict[str, Encoder[Any, Any]], ItemTower | None]:
        with self._opening:
            if self._encoders is None:
                self._tower = load_item_tower(self._artifact)
                self._encoders = load_encoders(self._artifact)
            return self._encoders, self._tower


def _cosines(table: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(vector)
    cosines: NDArray[np.float32] = (table @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines


def _nearest(cosines: NDArray[np.float32], k: int, hidden: NDArray[np.int64]) -> Near:
    cosines[hidden] = -np.inf
    count = min(k, int(np.isfinite(cosines).sum()))
    best = np.argpartition(-cosines, count - 1)[:count] if 0 < count < len(cosines) else np.arange(len(cosines))
    best = best[np.lexsort((best, -cosines[best]))][:count]
    return Near([int(item) for item in best], [float(cosine) for cosine in cosines[best]])
