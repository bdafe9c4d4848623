import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from shared.errors import UserError
from trainer.demo_shop.features import IMAGE_DIM, TEXT_DIM, image_features, text_features


def striped(path: Path, colour: str, across: bool, start: int) -> Path:
    picture = Image.new("RGB", (60, 60), "white")
    pen = ImageDraw.Draw(picture)
    for at in range(start, 60, 6):
        pen.rectangle((at, 0, at + 2, 60) if across else (0, at, 60, at + 2), fill=colour)
    picture.save(path)
    return path


def test_pictures_alike_in_colour_and_in_direction_of_fine_stripes_are_near(tmp_path: Path) -> None:
    looks = [(colour, across) for colour in ("red", "blue", "green") for across in (True, False) for _ in range(3)]
    paths = [
        striped(tmp_path / f"{row}.png", colour, across, 2 * (row % 3)) for row, (colour, across) in enumerate(looks)
    ]
    features = image_features(paths).features
    likeness = features @ features.T
    for row, (colour, across) in enumerate(looks):
        others = [other for other in range(len(looks)) if other != row]
        same = [other for other in others if looks[other] == looks[row]]
        turned = [other for other in others if looks[other] == (colour, not across)]
        recoloured = [other for other in others if looks[other][0] != colour]
        assert likeness[row, same].mean() > likeness[row, turned].mean()
        assert likeness[row, [*same, *turned]].min() > likeness[row, recoloured].max()


def test_pictures_that_cannot_be_read_are_rows_of_nan(tmp_path: Path) -> None:
    fine = [striped(tmp_path / "red.png", "red", True, 0), striped(tmp_path / "blue.png", "blue", False, 0)]
    (tmp_path / "cut.png").write_bytes(fine[0].read_bytes()[:120])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    bad = [None, tmp_path / "missing.png", tmp_path, *(tmp_path / f"{name}.png" for name in ("cut", "text", "empty"))]
    features = image_features([*fine, *bad]).features
    assert features.shape == (8, IMAGE_DIM)
    assert features.dtype == np.float32
    assert np.isnan(features[2:]).all()
    np.testing.assert_allclose(np.linalg.norm(features[:2], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(features[:2], image_features(fine).features)


def test_transparent_is_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(clear).rectangle((10, 10, 30, 30), fill="red")
    solid = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(solid).rectangle((10, 10, 30, 30), fill="red")
    clear.save(tmp_path / "clear.png")
    solid.save(tmp_path / "solid.png")
    other = striped(tmp_path / "other.png", "blue", True, 0)
    features = image_features([tmp_path / "clear.png", tmp_path / "solid.png", other]).features
    assert features[0] @ features[1] > 0.98
    assert features[0] @ features[2] < 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_any_mode_is_read(tmp_path: Path, mode: str) -> None:
    one, other = (striped(tmp_path / f"{colour}.png", colour, True, 0) for colour in ("red", "blue"))
    with Image.open(one) as picture:
        picture.convert(mode).save(tmp_path / "again.tiff")
    assert np.isfinite(image_features([tmp_path / "again.tiff", other]).features).all()


def test_texts_about_the_same_are_near_and_unlike_ones_are_not() -> None:
    texts = ["sailing boats at sea", "Boats, sailing; the SEA", "steam railway engine", "railway engine steam"]
    features = text_features(texts).features
    assert features.shape == (4, TEXT_DIM)
    assert features.dtype == np.float32
    expected = np.kron(np.eye(2), np.ones((2, 2)))
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-5)


def test_a_rare_word_counts_for_more_than_a_common_one() -> None:
    texts = ["lamp nebula", "lamp orchard", "mug nebula", *["lamp plain"] * 20]
    features = text_features(texts).features
    assert features[0] @ features[2] > features[0] @ features[1]


def test_texts_without_a_word_are_rows_of_nan() -> None:
    features = text_features(["a sturdy kite", "", "  \n", "the of and", "a sturdy mug"]).features
    assert np.isnan(features).all(axis=1).tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(features[[0, 4]], text_features(["a sturdy kite", "a sturdy mug"]).features)


def test_nothing_in_nothing_out() -> None:
    assert image_features([]).features.shape == (0, IMAGE_DIM)
    assert text_features([]).features.shape == (0, TEXT_DIM)
    assert np.isnan(image_features([None]).features).all()
    assert np.isnan(text_features([""]).features).all()


@pytest.mark.parametrize("module", ["PIL", "sklearn.decomposition"])
def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'mts4mm\[text\]'"):
        image_features([]) if module == "PIL" else text_features([])
