"""The demo shop's encoders make its features again, from its words and pictures alone."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.encoders import open_encoder
from shared.encoders.texts import TEXT_FIELDS
from trainer.encoders.features_manifest import encoders_of
from trainer.encoders.sources import IMAGE_FIELDS, PictureSource, TextSource, read_items


def encoded(directory: Path, modality: str, rows: list[int]) -> NDArray[np.float32]:
    items = read_items(directory)
    source = PictureSource(items, IMAGE_FIELDS) if modality == "image" else TextSource(items, TEXT_FIELDS)
    encoder = open_encoder(encoders_of(directory, [modality])[modality])
    return encoder.encode([source.read(row) for row in rows])


@pytest.mark.parametrize("modality", ["image", "text"])
def test_an_encoder_makes_the_features_again(shop, modality: str) -> None:
    features = getattr(shop, f"{modality}_feat")
    rows = np.flatnonzero(np.isfinite(features).all(axis=1))[:60].tolist()
    cosines = (encoded(shop.directory, modality, rows) * features[rows]).sum(axis=1)
    assert cosines.min() > (0.95 if modality == "image" else 0.9999)
    assert np.median(cosines) > 0.999


def test_words_that_the_shop_does_not_know_count_for_nothing(shop) -> None:
    encoder = open_encoder(encoders_of(shop.directory, ["text"])["text"])
    word = shop.items[0]["title"].split()[-1]
    known, among, unknown = encoder.encode([word, f"{word.upper()} xyzzy", "xyzzy"])
    np.testing.assert_allclose(known, among, atol=1e-6)
    assert not unknown.any()
