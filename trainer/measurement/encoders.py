"""Whether a fitted picture network earns its place: whether pictures near by its vectors share more than others.

The network learns from most items; judged are the neighbours among the others, whose pictures and words it has not
seen, or, with none held out, among those that it learned from. Beside it: features that another network made, colour
histograms, the same network untrained, with the fitted head and without, and chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.encoders.fit import fit_network, learnable, vectors_of

NEIGHBOURS = 10
_BINS = 4


@dataclass(frozen=True)
class Sharing:
    """How alike neighbours are: the share of pairs with a value in common, and the mean Jaccard index of values."""

    any_shared: float
    jaccard: float


@dataclass(frozen=True)
class Comparison:
    """Sharing among the neighbours of each way."""

    learned_from: int
    judged: int
    sharing: dict[str, Sharing]


def compare_encoders(
    pixels: NDArray[np.float32],
    words: NDArray[np.float32],
    values: Sequence[frozenset[str]],
    *,
    held_out: float,
    seed: int,
    epochs: int,
    features: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Fit a network on some items and judge the neighbours of the rest.

    Args:
        pixels: (items, 3, side, side), NaN where an item has no picture.
        words: (items, any), NaN where it has no words.
        values: of each item, what neighbours should share.
        held_out: share of the items with picture, features and values that are kept from the network and judged; 0
            judges all.
        seed: of the draw and the network.
        epochs: of the network.
        features: (items, any) by what made them, judged beside it; rows of NaN where it made none.
        progress: told how far the fit is.

    Raises:
        UserError: too few items have picture and words.
    """
    complete = [np.isfinite(pixels[:, 0, 0, 0]), *(np.isfinite(each[:, 0]) for each in features.values())]
    there = np.flatnonzero(np.logical_and.reduce(complete) & np.array([bool(each) for each in values]))
    held = np.random.default_rng(seed).permutation(there)[: round(held_out * len(there))]
    judged = held if held_out > 0 else there
    pictures = learnable(np.delete(pixels, held, axis=0), np.delete(words, held, axis=0))
    seen = torch.from_numpy(pixels[judged])
    ways = {
        "fitted network": vectors_of(fit_network(pictures, seed, epochs, progress), seen),
        "untrained network under a fitted head": (untrained := vectors_of(fit_network(pictures, seed, 0), seen)),
        "untrained network": untrained[:, pictures.words.shape[1] :],
        "colour histogram": colour_histograms(pixels[judged]),
        **{name: each[judged] for name, each in features.items()},
    }
    overlaps = _overlaps([values[row] for row in judged.tolist()])
    sharing = {name: _sharing(_nearest(vectors), overlaps) for name, vectors in ways.items()}
    others = ~np.eye(len(judged), dtype=bool)
    sharing["chance"] = Sharing(float((overlaps[others] > 0).mean()), float(overlaps[others].mean()))
    return Comparison(len(pictures.pixels), len(judged), sharing)


def colour_histograms(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square roots of the shares of 4 x 4 x 4 colours, (n, 64), of pixels (n, 3, h, w); each channel over its range."""
    low, high = pixels.min(axis=(0, 2, 3), keepdims=True), pixels.max(axis=(0, 2, 3), keepdims=True)
    levels = np.minimum((pixels - low) / (high - low) * _BINS, _BINS - 1).astype(np.intp)
    bins = (levels * np.array([_BINS**2, _BINS, 1])[:, None, None]).sum(axis=1).reshape(len(pixels), -1)
    counts = np.array([np.bincount(row, minlength=_BINS**3) for row in bins])
    return np.asarray(np.sqrt(counts / bins.shape[1]), np.float32)


def _nearest(vectors: NDArray[np.float32]) -> NDArray[np.intp]:
    """The ``NEIGHBOURS`` nearest others by cosine, (n, neighbours)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]


def _overlaps(values: list[frozenset[str]]) -> NDArray[np.float64]:
    """Jaccard indices of all pairs, (n, n)."""
    known = sorted(frozenset().union(*values))
    has = np.array([[value in each for value in known] for each in values], dtype=np.float64)
    shared = has @ has.T
    counts = has.sum(axis=1)
    return np.asarray(shared / (counts[:, None] + counts[None, :] - shared))


def _sharing(neighbours: NDArray[np.intp], overlaps: NDArray[np.float64]) -> Sharing:
    found = np.take_along_axis(overlaps, neighbours, axis=1)
    return Sharing(float((found > 0).mean()), float(found.mean()))
