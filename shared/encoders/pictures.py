"""Pictures as strangers send them: read within bounds, refused by name, laid out for a network.

Whatever a file holds, reading it ends with pixels or with a :class:`PictureError`, after bounded work and memory.
"""

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.encoders.specs import ImageSpec
from shared.errors import UserError

PREPARATION = 1
"""Changes whenever the same picture would be laid out differently, so that nothing keeps vectors of the old way."""

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 50_000_000
LEAST_SIDE = 8
"""Anything narrower is a placeholder, such as a tracking pixel."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

_MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "I;16", "I;16L", "I;16B", "I"))
_DEEP = frozenset(("I;16", "I;16L", "I;16B", "I"))
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # ``MOST_PIXELS`` is stricter


class PictureError(UserError):
    """A file that gives no picture to go by; the message says why, and how to mend it."""


def read_picture_file(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        PictureError: it is missing, no plain file, or has more than ``MOST_BYTES``.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise PictureError("is no plain file: name the file of a picture")
        _require_size(found.st_size)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise PictureError("is missing: add the file, or correct its path") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be read ({error}): correct its path or its permissions") from None
    _require_size(len(content))
    return content


def decode_picture(content: bytes, spec: ImageSpec) -> NDArray[np.float32]:
    """A picture as its network takes it, float32 [channels, height, width], or [height, width, channels].

    Raises:
        PictureError: it is not one still picture of at most ``MOST_PIXELS``, whole, with colours or grey.
    """
    _require_size(len(content))
    pixels = np.asarray(_fitted(_open(content, _working_size(spec)), spec), dtype=np.float32) / 255
    if spec.colour == "BGR":
        pixels = pixels[:, :, ::-1]
    pixels = (pixels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    laid = pixels.transpose(2, 0, 1) if spec.layout == "NCHW" else pixels
    return np.ascontiguousarray(laid, dtype=np.float32)


def small_jpeg(content: bytes, side: int) -> bytes:
    """A picture as a JPEG of at most ``side`` pixels a side, without what else the file held.

    Raises:
        PictureError: as ``decode_picture``; or it is so narrow that this would refuse the JPEG.
    """
    _require_size(len(content))
    picture = _open(content, (side, side))
    width, height = picture.size
    picture.thumbnail((side, side))
    if min(picture.size) < LEAST_SIDE:
        raise PictureError(f"has {width} x {height} pixels, too narrow a strip: no picture to go by")
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90)
    return written.getvalue()


def _require_size(size: int) -> None:
    if size > MOST_BYTES:
        raise PictureError(f"has {size:,} bytes: at most {MOST_BYTES:,} are read; save it smaller")
    if size == 0:
        raise PictureError("has no bytes: save it again")


def _open(content: bytes, working: tuple[int, int]) -> Image.Image:
    """On white, in RGB, turned as its EXIF data say; a large JPEG not much larger than ``working``."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _require_sane(picture)
            picture.draft("RGB", working)
            picture.load()
            turned = ImageOps.exif_transpose(picture)
            return _flat(turned)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"is no picture that is understood: save it as one of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"has more than {MOST_PIXELS:,} pixels: save it smaller") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them meet
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PictureError(f"is truncated or damaged ({reason}): save it again") from None


def _require_sane(picture: Image.Image) -> None:
    """Look at the header alone, before any pixel is decoded."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise PictureError(f"has {width} x {height} pixels: at most {MOST_PIXELS:,} are read; save it smaller")
    if min(width, height) < LEAST_SIDE:
        raise PictureError(f"has {width} x {height} pixels, fewer than {LEAST_SIDE} on a side: no picture to go by")
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise PictureError("is animated: save one still picture")
    if picture.mode not in _MODES:
        raise PictureError(f"has colours of the kind {picture.mode}: save it as RGB")


def _flat(picture: Image.Image) -> Image.Image:
    if picture.mode in _DEEP:
        deep = np.asarray(picture, dtype=np.int64)
        picture = Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8))
    if picture.mode == "RGB" or (picture.mode in ("1", "L") and "transparency" not in picture.info):
        return picture.convert("RGB")
    coloured = picture.convert("RGBA")
    ground = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(ground, coloured).convert("RGB")


def _working_size(spec: ImageSpec) -> tuple[int, int]:
    scale = spec.enlarge if spec.fit == "crop" else 1.0
    return round(2 * scale * spec.width_pixels), round(2 * scale * spec.height)


def _fitted(picture: Image.Image, spec: ImageSpec) -> Image.Image:
    size, how = (spec.width_pixels, spec.height), _FILTERS[spec.interpolation]
    if spec.fit == "stretch":
        return picture.resize(size, how)
    if spec.fit == "pad":
        return ImageOps.pad(picture, size, how, color="white")
    return picture.resize(size, how, box=_crop(picture.size, spec))


def _crop(found: tuple[int, int], spec: ImageSpec) -> tuple[float, float, float, float]:
    """The middle part of a picture that fills the network's input."""
    scale = min(found[0] / spec.width_pixels, found[1] / spec.height) / spec.enlarge
    width, height = spec.width_pixels * scale, spec.height * scale
    left, top = (found[0] - width) / 2, (found[1] - height) / 2
    return left, top, left + width, top + height
