"""The demo shop's encoders make its features again, from its words and pictures alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.encoders import open_encoder
from trainer.cli.encoders import encode_catalogue
from trainer.demo_shop.features import image_features, text_features
from trainer.encoders.features_manifest import encoders_of, read_manifests


def described(shop, modality: str) -> NDArray[np.float32]:
    """The features that the encoders are to give, made without them."""
    if modality == "image":
        paths = [shop.directory / item["image"] if item["image"] else None for item in shop.items]
        return image_features(paths).features
    said = [f"{item['title']}. {item['description']}" if item["description"] else "" for item in shop.items]
    return text_features(said).features


@pytest.mark.parametrize("modality", ["image", "text"])
def test_what_the_encoders_make_of_raw_pictures_and_words_is_what_they_were_fitted_to(shop, modality: str) -> None:
    encoded, wanted = getattr(shop, f"{modality}_feat"), described(shop, modality)
    there = np.isfinite(wanted).all(axis=1)
    assert np.isfinite(encoded).all(axis=1).tolist() == there.tolist()
    cosines = (encoded[there] * wanted[there]).sum(axis=1)
    assert cosines.min() > (0.95 if modality == "image" else 0.9999)
    assert np.median(cosines) > 0.999


def test_the_features_are_those_of_encode(shop, tmp_path: Path) -> None:
    """Encoded again there is nothing left to do but for titles without a description."""
    copy = Path(shutil.copytree(shop.directory, tmp_path / "copy"))
    outcomes, _ = encode_catalogue(
        copy,
        copy,
        {"image": None, "text": None},
        {"image": ["image"], "text": ["title", "description"]},
        tmp_path / "store",
        threads=1,
    )
    made = {outcome.modality: (outcome.encoded, outcome.reused, outcome.missing) for outcome in outcomes}
    assert made == {"image": (0, 235, 5), "text": (5, 235, 0)}


def test_words_that_the_shop_does_not_know_count_for_nothing(shop) -> None:
    encoder = open_encoder(encoders_of(shop.directory, read_manifests(shop.directory, ["text"]))["text"])
    word = shop.items[0]["title"].split()[-1]
    known, among, unknown = encoder.encode([word, f"{word.upper()} xyzzy", "xyzzy"])
    np.testing.assert_allclose(known, among, atol=1e-6)
    assert not unknown.any()
