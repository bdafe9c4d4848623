"""A network fitted to a catalogue whose pictures show what its words say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from shared.encoders import EncoderFolder, open_encoder
from shared.errors import UserError
from trainer.cli import encoders as cli_encoders
from trainer.cli.app import app
from trainer.cli.encoders import encode_catalogue
from trainer.encoders import choice
from trainer.encoders.fit import LEAST_PICTURES, SETTINGS, fit_network, learnable, read_pixels, store_fitted, vectors_of
from trainer.encoders.sources import Items, PictureSource
from trainer.encoders.store import encoder_place, lawful_name, list_encoders
from trainer.measurement.encoders import colour_histograms, compare_encoders

ITEMS = 160


@pytest.fixture
def words_alone(words: EncoderFolder) -> EncoderFolder:
    """The store has an encoder of words, and none of pictures."""
    return words


def drawing(row: int) -> Image.Image:
    """A bar across or along, anywhere, in any colours: only its direction is what the words tell."""
    generator = np.random.default_rng(row)
    ground, ink = (tuple(map(int, generator.integers(0, 256, 3))) for _ in range(2))
    image = Image.new("RGB", (64, 64), ground)
    start = int(generator.integers(0, 44))
    box = (0, start, 64, start + 20) if row % 2 else (start, 0, start + 20, 64)
    ImageDraw.Draw(image).rectangle(box, fill=ink)
    return image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    folder = tmp_path_factory.mktemp("drawn")
    records = []
    for row in range(ITEMS):
        drawing(row).save(folder / f"{row}.png")
        records.append({"item_id": str(row), "image": f"{row}.png"})
    (folder / "3.png").write_bytes(b"no picture")
    records[5]["image"] = ""
    return PictureSource(Items(folder, records), ["image"])


def said() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(0, 0.1, (ITEMS, 12)).astype(np.float32)
    vectors[:, 0] += np.arange(ITEMS) % 2
    vectors[7] = np.nan
    return vectors


def test_what_cannot_be_read_is_not_learned_from(drawn: PictureSource) -> None:
    pixels = read_pixels(drawn, ITEMS)
    missing = np.flatnonzero(np.isnan(pixels).all(axis=(1, 2, 3)))
    assert missing.tolist() == [3, 5]
    pictures = learnable(pixels, said())
    assert len(pictures.pixels) == ITEMS - 2
    assert int(pictures.has_words.sum()) == ITEMS - 3
    with pytest.raises(UserError, match="63 items have both"):
        learnable(pixels[:65], np.nan_to_num(said()[:65]) + 1)


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_catalogue_of_a_single_batch_is_enough(drawn: PictureSource, epochs: int) -> None:
    pictures = learnable(read_pixels(drawn, ITEMS)[:72], said()[:72])
    assert np.isfinite(vectors_of(fit_network(pictures, 0, epochs), pictures.pixels[:2])).all()


@pytest.mark.slow
def test_a_fitted_network_sees_what_the_words_say_and_colours_do_not(drawn: PictureSource) -> None:
    pixels = read_pixels(drawn, ITEMS)
    values = [frozenset(("across",) if row % 2 else ("along",)) for row in range(ITEMS)]
    known = np.array([[float("across" in each), float("along" in each)] for each in values], np.float32)
    known[:10] = np.nan
    comparison = compare_encoders(
        pixels, said(), values, held_out=0.3, seed=0, epochs=30, features={"by one who knows": known}
    )
    assert (comparison.judged, comparison.learned_from) == (45, 113)
    shared = {name: each.any_shared for name, each in comparison.sharing.items()}
    assert shared["chance"] == pytest.approx(0.5, abs=0.05)
    assert shared["by one who knows"] == 1
    assert shared["fitted network"] > 0.65
    assert shared["fitted network"] > shared["colour histogram"] + 0.1
    assert shared["fitted network"] > shared["untrained network"]


def test_the_same_seed_gives_the_same_network_and_its_export_the_same_vectors(
    drawn: PictureSource, tmp_path: Path
) -> None:
    pictures = learnable(read_pixels(drawn, ITEMS), said())
    before = torch.random.get_rng_state()
    fitted, again = (fit_network(pictures, 1, 1) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    expected = vectors_of(fitted, pictures.pixels[:4])
    np.testing.assert_array_equal(expected, vectors_of(again, pictures.pixels[:4]))
    encoder = open_encoder(store_fitted(fitted, tmp_path, "drawn"))
    assert encoder.spec.model_dump().items() >= {**SETTINGS, "normalise": True}.items()
    vectors = encoder.encode([(drawn.items.directory / f"{row}.png").read_bytes() for row in (0, 1, 2, 4)])
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, unit, atol=1e-5)


def test_a_histogram_counts_the_shares_of_colours() -> None:
    pixels = np.zeros((2, 3, 4, 4), np.float32)
    pixels[1, :, :, :1] = 1
    pixels[1, 0, :, 1:2] = 1
    histograms = colour_histograms(pixels) ** 2
    assert histograms.shape == (2, 64)
    assert histograms[0, 0] == 1
    np.testing.assert_allclose(histograms[1, [0, 63, 48]], [0.5, 0.25, 0.25])


@pytest.fixture
def in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is fitted, in one epoch, where the store has none."""
    monkeypatch.setattr(cli_encoders, "FIT_EPOCHS", 1)
    monkeypatch.setattr(choice, "efficientnet_installed", lambda: False)


def drawn_shop(folder: Path) -> Path:
    folder.mkdir()
    rows = []
    for row in range(LEAST_PICTURES + 6):
        drawing(row).save(folder / f"{row}.png")
        rows.append(f"{row},{('red', 'blue')[row % 2]},{row if row else 'missing'}.png\n")
    (folder / "items.csv").write_text("item_id,title,image\n" + "".join(rows))
    return folder


WANTED = {"text": None, "image": None}
COLUMNS = {"text": ["title"], "image": ["image"]}


@pytest.mark.usefixtures("words_alone", "in_a_moment")
def test_encode_fits_a_network_where_there_is_none_and_says_so(tmp_path: Path, store: Path, capsys) -> None:
    shop = drawn_shop(tmp_path / "Dém0 Shop")
    _, skipped = encode_catalogue(shop, shop, WANTED, COLUMNS, store, threads=1)
    assert "mts4mm encoders fit image" in skipped["image"]
    outcomes, skipped = encode_catalogue(shop, shop, WANTED, COLUMNS, store, threads=1, fit=True)

    assert "fitting a small network" in capsys.readouterr().err
    (image,) = [outcome for outcome in outcomes if outcome.modality == "image"]
    assert (image.encoder, image.encoded, image.missing) == ("d-m0-shop", LEAST_PICTURES + 5, 1)
    assert [each.name for each in list_encoders(store) if each.kind == "image"] == ["d-m0-shop"]
    features = np.load(shop / "image_feat.npy")
    assert np.isfinite(features).all(axis=1).tolist() == [False] + [True] * (LEAST_PICTURES + 5)


@pytest.mark.usefixtures("words_alone", "in_a_moment")
def test_a_name_that_is_taken_is_told_before_anything_is_fitted(tmp_path: Path, store: Path, capsys) -> None:
    shop = drawn_shop(tmp_path / "shop")
    (store / "image").mkdir()
    (store / "image" / "shop").touch()
    _, skipped = encode_catalogue(shop, shop, WANTED, COLUMNS, store, threads=1, fit=True)
    assert "there is an encoder of that name" in skipped["image"]
    assert "fitting" not in capsys.readouterr().err
    fitted = CliRunner().invoke(app, ["encoders", "fit", "image", str(shop), "--store", str(store)])
    assert "there is an encoder of that name" in str(fitted.exception)


@given(st.text(max_size=100))
def test_any_folder_gives_an_encoder_a_name(called: str) -> None:
    name = lawful_name(called)
    assert encoder_place(Path("store"), "image", name).name == name
