"""What a model can make of an item's content: features from words, pictures and attributes, a vector from features."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.encoders import Encoder, RawItem, load_encoders
from shared.item_tower import Features, ItemTower, load_item_tower
from shared.state import Encoded, LiveItem


class Content:
    """The tower and the encoders of one artefact; safe from any number of threads."""

    def __init__(self, artifact: Artifact) -> None:
        """Open the tower; for the encoders see :meth:`open_encoders`.

        Raises:
            UserError: the tower cannot be used.
        """
        self.tower: ItemTower | None = load_item_tower(artifact)
        self._artifact = artifact
        self._opening = threading.Lock()
        self._encoders: Mapping[str, Encoder[Any, Any]] | None = None

    def open_encoders(self) -> Mapping[str, Encoder[Any, Any]]:
        """The encoders by modality; they are opened when first asked for.

        Raises:
            UserError: one cannot be opened; the message names its file.
        """
        with self._opening:
            if self._encoders is None:
                self._encoders = load_encoders(self._artifact)
            return self._encoders

    def features(self, item: LiveItem) -> Features:
        """What the tower takes of an item: the features that were given, else what this model's encoders made."""
        if self.tower is None:
            return {}
        found = {}
        for name, width in self.tower.modalities.items():
            made = item.encoded.get(name)
            values = item.features.get(name)
            if values is None and made is not None and made.encoder == self.encoder_name(name):
                values = made.values
            if values is not None and len(values) == width:
                found[name] = values
        return found

    def missing(self, item: LiveItem) -> list[str]:
        """The modalities in which this model's encoders have not looked at the item, and no features are given."""
        return [
            name
            for name in self._usable()
            if name not in item.features
            and (name not in item.encoded or item.encoded[name].encoder != self.encoder_name(name))
        ]

    def encoded(self, item: LiveItem, modality: str) -> Encoded:
        """What this model's encoder makes of an item's words, picture or attributes.

        Raises:
            PictureError: the picture cannot be read.
            UserError: the encoder fails.
        """
        values = self._usable()[modality].encode_item(RawItem(item.metadata, lambda: item.picture))
        return Encoded(self.encoder_name(modality), values)

    def encoder_name(self, modality: str) -> str:
        """The name of a modality's encoder, with its revision; empty where there is none."""
        encoder = self.open_encoders().get(modality)
        return "" if encoder is None else encoder.spec.signature

    def vectors(self, features: Sequence[Features]) -> NDArray[np.float32]:
        """Vectors in the space of the artefact's, float32 [items, width]."""
        if self.tower is None:
            return np.empty((0, self._artifact.width), np.float32)
        return self.tower.vectors(features)

    def _usable(self) -> Mapping[str, Encoder[Any, Any]]:
        if self.tower is None:
            return {}
        return {name: encoder for name, encoder in self.open_encoders().items() if name in self.tower.modalities}
