"""Items near words, a picture or another item, by each modality's content, or by who took them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.content import Content
from service.live_table import LiveTable
from service.queries import STUDENT
from shared.artifact import Artifact
from shared.content import cosines_of, load_contents
from shared.encoders import Encoder, ImageEncoder, TextEncoder, encoder_modalities
from shared.item_tower import Features


@dataclass(frozen=True)
class Near:
    """Items and their cosines, nearest first."""

    items: list[int]
    cosines: list[float]


class Lookalikes:
    """Looks into one artefact; safe from any number of threads."""

    def __init__(self, artifact: Artifact, content: Content) -> None:
        """Map the contents; words and pictures are read by the encoders and the tower of ``content``.

        Raises:
            UserError: an attachment is not of the form it should have.
        """
        self._artifact = artifact
        self._contents = load_contents(artifact)
        self._content = content

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
        """What :class:`LiveTable` keeps of the features of live items."""
        found = {}
        for name, content in self._contents.items():
            table = np.zeros((len(features), content.features), np.float32)
            for row, each in enumerate(features):
                values = each.get(name)
                if values is not None and len(values) == content.features:
                    table[row] = values
            found[name] = content.units(table)
        return found

    def to_item(self, item: int, modality: str, live: LiveTable) -> NDArray[np.float32]:
        """How near each item is to one by a modality, float32 [items + live items]; -inf where either lacks it.

        Raises:
            KeyError: there is no such modality.
        """
        rows, besides, trained = self._contents[modality].rows, self._besides(modality, live), len(self._artifact.items)
        unit = rows[item].astype(np.float32) if item < trained else besides[item - trained]
        return np.concatenate([cosines_of(rows, unit), cosines_of(besides, unit)])

    def taken_with(self, item: int, live: LiveTable) -> NDArray[np.float32]:
        """How near each item is to one by who took them, float32 [items + live items]; -inf where nobody took both.

        It is the cosine of two columns of the training interactions: users who took both, divided by the root of the
        product of how many took each.
        """
        model = self._artifact
        cosines = np.full(len(model.items) + len(live.ids), -np.inf, np.float32)
        if item >= len(model.items):
            return cosines
        takers = np.searchsorted(model.train_indptr, np.flatnonzero(model.train_indices == item), side="right") - 1
        both = np.bincount(_taken(model, takers), minlength=len(model.items))
        common = np.flatnonzero(both)
        cosines[common] = both[common] / np.sqrt(len(takers) * model.popularity[common].astype(np.float64))
        return cosines

    def of_words(self, words: str, k: int, live: LiveTable, hidden: NDArray[np.int64]) -> dict[str, Near]:
        """The items nearest to words, by each modality that has an encoder of words, and by the student.

        Raises:
            UserError: an encoder cannot be used.
        """
        return self._near(words, TextEncoder, k, live, hidden)

    def of_picture(self, picture: bytes, k: int, live: LiveTable, hidden: NDArray[np.int64]) -> dict[str, Near]:
        """The items nearest to a picture file, by each modality that has an encoder of pictures, and by the student.

        Raises:
            PictureError: it is no sound picture.
            UserError: an encoder cannot be used.
        """
        return self._near(picture, ImageEncoder, k, live, hidden)

    def _near(
        self, raw: str | bytes, kind: type[Encoder[Any, Any]], k: int, live: LiveTable, hidden: NDArray[np.int64]
    ) -> dict[str, Near]:
        tower, features = self._content.tower, {}
        for modality, encoder in self._content.open_encoders().items():
            if isinstance(encoder, kind) and modality in self._contents:
                (vector,) = encoder.encode([raw])
                if np.isfinite(vector).all():
                    features[modality] = vector
        found = {}
        if tower is not None and features.keys() & tower.modalities.keys():
            (vector,) = tower.vectors([features])
            tables = (self._artifact.item_embeddings, live.vectors)
            found[STUDENT] = nearest(np.concatenate([_cosines(table, vector) for table in tables]), k, hidden)
        for name, vector in features.items():
            content = self._contents[name]
            (unit,) = content.units(vector[None])
            cosines = np.concatenate([cosines_of(content.rows, unit), cosines_of(self._besides(name, live), unit)])
            found[name] = nearest(cosines, k, hidden)
        return found

    def _besides(self, modality: str, live: LiveTable) -> NDArray[np.float32]:
        """The content of the live items, zeros where it was not taken."""
        units = live.units.get(modality)
        return np.zeros((len(live.ids), self._contents[modality].rows.shape[1]), np.float32) if units is None else units


def nearest(cosines: NDArray[np.float32], k: int, hidden: NDArray[np.int64]) -> Near:
    """The k items of the largest cosines, of equal ones the first, without hidden rows and those not finite.

    Args:
        cosines: float32 [items], which is written to.
        k: how many are wanted, at least 1.
        hidden: rows, int64 [any].
    """
    there = np.isfinite(cosines)
    there[hidden] = False
    cosines[~there] = -np.inf  # NaN too, which would count as the largest
    count = min(k, int(there.sum()))
    if count == 0:
        return Near([], [])
    best = np.flatnonzero(cosines >= np.partition(cosines, -count)[-count])
    best = best[np.argsort(-cosines[best], kind="stable")][:count]
    return Near(best.tolist(), cosines[best].tolist())


def _taken(model: Artifact, users: NDArray[np.int64]) -> NDArray[np.int32]:
    """All that users took in the training, user by user."""
    starts, counts = model.train_indptr[users], np.diff(model.train_indptr)[users]
    places = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    taken: NDArray[np.int32] = model.train_indices[places]
    return taken


def _cosines(table: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(vector)
    cosines: NDArray[np.float32] = (table @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return cosines
