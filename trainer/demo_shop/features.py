"""Features of pictures and texts by simple means: small pixels, colours and edges; hashed TF-IDF.

Knows nothing of how the demo shop is drawn: everything here is read off the pixels and the words.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_DIM = 316
"""8 x 8 small pixels of 3 channels, 4 x 4 x 4 colours, and 20 edge directions at 3 scales."""

TEXT_DIM = 96

Matrix = NDArray[np.float32]

SIDE = 64
SMALL = 8
COLOURS = 4
DIRECTIONS = 20
SCALES = (1, 2, 4)
GREY = (0.299, 0.587, 0.114)
_BLOCKS = (SMALL * SMALL * 3, COLOURS**3, DIRECTIONS * len(SCALES))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Features of pictures, and how to make those of another one.

    Attributes:
        features: float32 [pictures, `IMAGE_DIM`]; a row of NaN where there is no picture, or none that can be read.
        mean: float64 [`IMAGE_DIM`], taken off what describes a picture, which is then multiplied by ``weight``.
        weight: likewise.
    """

    features: Matrix
    mean: NDArray[np.float64]
    weight: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Texts:
    """Features of texts, and how to make those of another one.

    Attributes:
        features: float32 [texts, `TEXT_DIM`], trailing zeros where the texts are too few for so many dimensions; a row
            of NaN where a text has no word to go by.
        words: every word that counts, and its row of ``vectors``.
        vectors: float64 [rows, `TEXT_DIM`]; a text is, but for its length, the sum of its words' vectors, each times
            ``1 + ln(how often it is there)``.
    """

    features: Matrix
    words: dict[str, int]
    vectors: NDArray[np.float64]


def image_features(paths: Sequence[Path | None], progress: Callable[[int, int], None] | None = None) -> Pictures:
    """Describe pictures by their small pixels, their colours and the directions of their edges.

    The columns are standardised over the pictures given, and rows have length 1, or 0 where all are alike.

    Args:
        paths: One picture an item, any format that Pillow reads; None where there is none.
        progress: Called with (pictures done, pictures in all).

    Raises:
        UserError: Pillow is not installed.
    """
    with _needs("Pillow"):
        from PIL import Image
    rows = np.full((len(paths), IMAGE_DIM), np.nan)
    for row, path in enumerate(paths):
        picture = None if path is None else _read(Image, path)
        if picture is not None:
            rows[row] = _describe(picture)
        if progress is not None:
            progress(row + 1, len(paths))
    return _normalised(rows)


def text_features(texts: Sequence[str]) -> Texts:
    """Describe texts by TF-IDF of hashed words, reduced by a truncated SVD over the texts given, to rows of length 1.

    Raises:
        UserError: scikit-learn is not installed.
    """
    with _needs("scikit-learn"):
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    features = np.full((len(texts), TEXT_DIM), np.nan, dtype=np.float32)
    nothing = Texts(features, {}, np.zeros((0, TEXT_DIM)))
    if not len(texts):
        return nothing
    hashing = HashingVectorizer(n_features=2**16, stop_words="english", alternate_sign=False, norm=None)
    counts = hashing.transform(texts)
    known = np.flatnonzero(counts.getnnz(axis=1))
    if not len(known):
        return nothing
    frequency = TfidfTransformer(sublinear_tf=True)
    weights = frequency.fit_transform(counts[known])
    # A column that no text hits says nothing and would cost the SVD its full price.
    columns = np.flatnonzero(weights.getnnz(axis=0))
    weights = weights[:, columns]
    reduction = TruncatedSVD(min(TEXT_DIM, *weights.shape), n_iter=2, random_state=0)
    reduced = reduction.fit_transform(weights)
    features[known] = 0
    features[known, : reduced.shape[1]] = _unit(reduced)
    vectors = np.zeros((len(columns), TEXT_DIM))
    vectors[:, : reduced.shape[1]] = reduction.components_.T * frequency.idf_[columns, None]
    words = sorted({word for text in texts for word in hashing.build_analyzer()(text)})
    hashed = hashing.transform(words).indices if words else []
    return Texts(features, dict(zip(words, np.searchsorted(columns, hashed).tolist(), strict=True)), vectors)


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"features of pictures and texts need {package}: pip install 'mts4mm[text]'"
        raise UserError(message) from error


def _read(image: Any, path: Path) -> "Image.Image | None":
    """The picture on white, or None where it is missing, damaged or not a picture at all."""
    try:
        with image.open(path) as opened:
            opened.draft("RGB", (SIDE, SIDE))
            small = opened.convert("RGBA").resize((SIDE, SIDE), image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError):
        return None
    ground = image.new("RGBA", small.size, "white")
    flat: Image.Image = image.alpha_composite(ground, small).convert("RGB")
    return flat


def _describe(picture: "Image.Image") -> NDArray[np.float64]:
    pixels = np.asarray(picture, dtype=np.float64) / 255
    cell = SIDE // SMALL
    small = pixels.reshape(SMALL, cell, SMALL, cell, 3).mean(axis=(1, 3))
    bins = np.minimum((pixels * COLOURS).astype(np.intp), COLOURS - 1) @ [COLOURS**2, COLOURS, 1]
    colours = np.bincount(bins.ravel(), minlength=COLOURS**3) / bins.size
    grey = pixels @ GREY
    edges = [_edges(grey, scale) for scale in SCALES]
    return np.concatenate([small.ravel(), np.sqrt(colours), *edges])


def _edges(grey: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Square roots of the strength of edges in each direction, (directions,), at one scale."""
    side = SIDE // scale
    coarse = grey.reshape(side, scale, side, scale).mean(axis=(1, 3))
    down, across = np.gradient(coarse)
    turn = np.arctan2(down, across) % np.pi / np.pi
    bins = np.minimum((turn * DIRECTIONS).astype(np.intp), DIRECTIONS - 1)
    strength = np.bincount(bins.ravel(), np.hypot(down, across).ravel(), minlength=DIRECTIONS)
    share: NDArray[np.float64] = np.sqrt(strength / coarse.size)
    return share


def _normalised(rows: NDArray[np.float64]) -> Pictures:
    """Standardise the columns over the rows that are there, give each block an equal say, unit rows."""
    known = np.flatnonzero(np.isfinite(rows).all(axis=1))
    features = np.full(rows.shape, np.nan, dtype=np.float32)
    if not len(known):
        return Pictures(features, np.zeros(IMAGE_DIM), np.ones(IMAGE_DIM))
    there = rows[known]
    mean, spread = there.mean(axis=0), there.std(axis=0)
    say = np.repeat([1 / np.sqrt(size) for size in _BLOCKS], _BLOCKS)
    weight = say / np.where(spread > 1e-6, spread, 1)
    features[known] = _unit((there - mean) * weight)
    return Pictures(features, mean, weight)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1)
