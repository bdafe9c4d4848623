import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.encoders import ImageSpec, PictureError
from shared.encoders.pictures import decode_picture, read_picture_file, small_jpeg

from .conftest import PLAIN, picture, saved


def spec(**changes: object) -> ImageSpec:
    return ImageSpec(name="test", revision="1", width=3, **{**PLAIN, **changes})


def noise(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_the_usual_formats_are_read(format_: str) -> None:
    pixels = decode_picture(saved(picture((255, 51, 0)), format_), spec())
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)), [1, 0.2, 0], atol=0.02)


def test_channels_are_ordered_shifted_and_laid_out_as_the_spec_says() -> None:
    content = saved(picture((255, 51, 0)), "PNG")
    pixels = decode_picture(content, spec(colour="BGR", layout="NHWC", mean=[0, 0.2, 0], std=[1, 1, 2]))
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[3, 4], [0, 0, 0.5], atol=1e-6)


def test_crop_takes_the_middle_stretch_takes_all_and_pad_adds_white() -> None:
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste("red", (24, 0, 40, 16))
    content = saved(wide, "PNG")

    def red(fit: str, **changes: object) -> np.ndarray:
        pixels = decode_picture(content, spec(fit=fit, **changes))
        return pixels[0] * (1 - pixels[1])

    assert red("crop").min() > 0.8
    np.testing.assert_allclose(red("stretch").mean(), 0.25, atol=0.02)
    padded = decode_picture(content, spec(fit="pad"))
    assert padded[:, 0].min() == padded[:, -1].min() == 1
    np.testing.assert_allclose(padded[0, 3:5].mean(), 0.25, atol=0.05)
    tall = Image.new("RGB", (32, 32), "black")
    tall.paste("red", (8, 8, 24, 24))
    inner = decode_picture(saved(tall, "PNG"), spec(fit="crop", enlarge=2.0))
    assert inner[0].min() > 0.7


def test_a_picture_is_turned_as_its_exif_data_say() -> None:
    lying = Image.new("RGB", (16, 16), "black")
    lying.paste("white", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: the upper half comes to the right
    pixels = decode_picture(saved(lying, "JPEG", exif=exif, quality=95), spec())
    assert pixels[:, :, 5:].min() > 0.9
    assert pixels[:, :, :3].max() < 0.1


def test_transparent_is_white() -> None:
    for clear in (
        saved(picture((0, 0, 0, 0), mode="RGBA"), "PNG"),
        saved(picture((0, 0), mode="LA"), "PNG"),
        saved(picture(0, mode="L"), "PNG", transparency=0),
        saved(picture((0, 0, 0, 0), mode="RGBA"), "WEBP", lossless=True),
    ):
        np.testing.assert_allclose(decode_picture(clear, spec()), 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_every_mode_of_a_grey_picture_comes_out_grey(mode: str) -> None:
    grey = 0x8000 if mode == "I;16" else (128, 128, 128)
    image = picture(grey, mode="I;16") if mode == "I;16" else picture(grey).convert(mode)
    pixels = decode_picture(saved(image, "PNG"), spec())
    np.testing.assert_allclose(pixels.mean(), 0.5, atol=0.06)
    np.testing.assert_allclose(pixels[0], pixels[2])


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and has no pixels to show for it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT"


def animated(format_: str) -> bytes:
    return saved(picture("red"), format_, save_all=True, append_images=[picture("blue")], duration=100)


UGLY = {
    "empty": (b"", "no bytes"),
    "words": (b"<html>not found</html>", "no picture"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture"),
    "a PDF": (b"%PDF-1.7\n", "no picture"),
    "half a JPEG": (saved(noise((64, 64)), "JPEG")[:1500], "truncated or damaged"),
    "half a PNG": (saved(noise((64, 64)), "PNG")[:3000], "truncated or damaged"),
    "half a WebP": (saved(noise((64, 64)), "WEBP")[:800], "damaged|no picture"),
    "a bomb of 10 GB": (png_header(60_000, 60_000), "60000 x 60000 pixels|more than 50,000,000"),
    "a bomb just over the bound": (png_header(10_000, 5_001), "10000 x 5001 pixels"),
    "one pixel": (saved(picture("red", (1, 1)), "GIF"), "1 x 1 pixels"),
    "a hair": (saved(picture("red", (1, 3000)), "PNG"), "1 x 3000 pixels"),
    "an animated GIF": (animated("GIF"), "animated"),
    "an animated WebP": (animated("WEBP"), "animated"),
    "an animated PNG": (animated("PNG"), "animated"),
    "CMYK": (saved(picture((0, 255, 255, 0), mode="CMYK"), "JPEG"), "CMYK: save it as RGB"),
    "a TIFF": (saved(picture("red"), "TIFF"), "no picture"),
}


@pytest.mark.parametrize("name", UGLY)
def test_what_is_no_sound_picture_is_refused_by_reason(name: str) -> None:
    content, reason = UGLY[name]
    with pytest.raises(PictureError, match=reason):
        decode_picture(content, spec())


def test_no_damage_to_a_file_ends_in_anything_but_pixels_or_a_refusal() -> None:
    generator = np.random.default_rng(1)
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        whole = saved(noise((24, 24)), format_)
        for _ in range(60):
            content = bytearray(whole)
            for place in generator.integers(0, len(content), 6):
                content[place] = generator.integers(0, 256)
            try:
                pixels = decode_picture(bytes(content), spec())
            except PictureError:
                continue
            assert pixels.shape == (3, 8, 8)
            assert np.isfinite(pixels).all()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", 33 * 2**20)
    for name, reason in (("pipe", "plain file"), (".", "plain file"), ("none.png", "missing"), ("large.png", "bytes")):
        with pytest.raises(PictureError, match=reason):
            read_picture_file(tmp_path / name)


def test_a_strip_that_would_come_out_too_narrow_is_refused() -> None:
    with pytest.raises(PictureError, match="4000 x 40 pixels, too narrow"):
        small_jpeg(saved(noise((4000, 40)), "PNG"), 512)
    kept = small_jpeg(saved(noise((4000, 63)), "PNG"), 512)
    assert min(Image.open(io.BytesIO(kept)).size) == 8
