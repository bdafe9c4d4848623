"""Embeddings like a trained student's, of any number of items, to see how kinds of index grow.

Tastes are directions around those of departments, items are directions around tastes, and their lengths are skewed as
popularity is. A user has taken items of two tastes, long ones more often, and is the sum of these and of noise. The
shares of the parts are such that at 7,050 items of width 64 these figures are near those of a student that was trained
on Amazon Baby: quantiles of the lengths, the spectrum of items and users, the cosine between users and the items
nearest to them, and the recall of an IVF index by the share of its lists that is probed.
"""

import numpy as np
from numpy.typing import NDArray

ITEMS_PER_TASTE = 60
TASTES_PER_USER = 2
ITEMS_PER_USER = 6
SPECTRUM_POWER = 0.25
DEPARTMENT_SHARE = 0.3
LONGER_SPREAD = 0.53
SHORTER_SPREAD = 0.27
USER_SPREAD = 0.2

Vectors = NDArray[np.float32]


def synthetic_vectors(items: int, users: int, width: int, seed: int) -> tuple[Vectors, Vectors]:
    """float32 [items, width] and float32 [users, width], always the same for the same arguments."""
    generator = np.random.default_rng([seed, items, users, width])
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** np.float32(-SPECTRUM_POWER)
    spectrum /= np.linalg.norm(spectrum)
    tastes = max(8, items // ITEMS_PER_TASTE)
    departments = _noise(max(4, int(np.sqrt(tastes))), spectrum, generator)
    centres = np.float32(np.sqrt(DEPARTMENT_SHARE)) * departments[generator.integers(0, len(departments), tastes)]
    centres += np.float32(np.sqrt(1 - DEPARTMENT_SHARE)) * _noise(tastes, spectrum, generator)
    taste = np.sort(generator.integers(0, tastes, items))
    skew = generator.standard_normal(items, dtype=np.float32)
    lengths = np.exp(np.where(skew > 0, LONGER_SPREAD, SHORTER_SPREAD).astype(np.float32) * skew)
    vectors = centres[taste] + _noise(items, spectrum, generator)
    vectors *= (lengths / np.linalg.norm(vectors, axis=1))[:, None]
    order = generator.permutation(items)  # rows say nothing of tastes
    return vectors[order], _users(vectors, lengths, taste, users, spectrum, generator)


def _users(
    vectors: Vectors,
    lengths: NDArray[np.float32],
    taste: NDArray[np.int64],
    users: int,
    spectrum: Vectors,
    generator: np.random.Generator,
) -> Vectors:
    """``taste`` of each item rises."""
    reached = np.cumsum(lengths.astype(np.float64) ** 2)
    likes = taste[_drawn(reached, np.zeros(1), reached[-1:], (users, TASTES_PER_USER), generator)]
    summed = np.zeros((users, vectors.shape[1]), np.float32)
    before = np.concatenate([np.zeros(1), reached])
    for _ in range(ITEMS_PER_USER):
        own = likes[np.arange(users), generator.integers(0, TASTES_PER_USER, users)]
        first, last = np.searchsorted(taste, own), np.searchsorted(taste, own, side="right")
        taken = _drawn(reached, before[first], before[last], (users,), generator)
        summed += vectors[taken] / np.sqrt(lengths[taken])[:, None]
    summed /= np.linalg.norm(summed, axis=1, keepdims=True)
    summed += _noise(users, spectrum, generator)
    summed *= np.exp(np.float32(USER_SPREAD) * generator.standard_normal((users, 1), dtype=np.float32))
    return summed


def _drawn(
    reached: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    shape: tuple[int, ...],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    places = np.searchsorted(reached, low + (high - low) * generator.random(shape), side="right")
    drawn: NDArray[np.int64] = np.minimum(places, len(reached) - 1)
    return drawn


def _noise(rows: int, spectrum: Vectors, generator: np.random.Generator) -> Vectors:
    noise: Vectors = generator.standard_normal((rows, len(spectrum)), dtype=np.float32) * spectrum
    return noise
