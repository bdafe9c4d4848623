"""The figures that the gate decides by: paired bootstrap, concentration, and whether embeddings have collapsed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation import NO_ITEM

RESAMPLES = 2000
RESAMPLES_PER_BLOCK = 50
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean difference, the bootstrap interval around it, and the share of resamples in which it is above 0."""

    mean: float
    low: float
    high: float
    better: float


def paired_bootstrap(differences: NDArray[np.float64], confidence: float) -> Interval:
    """Interval of the mean of paired differences, by drawing users with replacement; percentiles, a fixed seed.

    Args:
        differences: (users,) challenger less champion, at least one.
        confidence: of the two-sided interval, such as 0.95.

    >>> paired_bootstrap(np.full(5, 0.25), 0.95)
    Interval(mean=0.25, low=0.25, high=0.25, better=1.0)
    """
    generator = np.random.default_rng(SEED)
    count = len(differences)
    means = np.concatenate(
        [
            differences[generator.integers(0, count, (RESAMPLES_PER_BLOCK, count))].mean(axis=1)
            for _ in range(RESAMPLES // RESAMPLES_PER_BLOCK)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(differences.mean()), float(low), float(high), float((means > 0).mean()))


def exposure(lists: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    """How often each item is in a list, (items,)."""
    return np.bincount(lists[lists != NO_ITEM], minlength=items).astype(np.int64)


def gini(counts: NDArray[np.int64]) -> float:
    """Gini index of counts: 0 where all are equal, towards 1 where one has everything.

    >>> gini(np.array([2, 2, 2])), round(gini(np.array([0, 0, 6])), 3)
    (0.0, 0.667)
    """
    total = int(counts.sum())
    if total == 0:
        return 0.0
    ranks = np.arange(1, len(counts) + 1)
    return float(2 * (ranks @ np.sort(counts)) / (len(counts) * total) - (len(counts) + 1) / len(counts))


def top_share(counts: NDArray[np.int64], share: float = 0.01) -> float:
    """What part of all counts the top ``share`` of the items has, at least one item.

    >>> top_share(np.array([1, 1, 2]))
    0.5
    """
    total = int(counts.sum())
    best = np.sort(counts)[::-1][: max(1, round(share * len(counts)))]
    return float(best.sum() / total) if total else 0.0


def effective_rank(rows: NDArray[np.floating]) -> float:
    """The exponential of the entropy of the energies' shares in the directions of the rows, each scaled to length 1.

    After Roy and Vetterli (2007), who take the singular values, and not their squares.

    1 where all rows point the same way, up to the width where they point everywhere alike; 0 where all are zero.

    >>> round(effective_rank(np.ones((4, 3))), 6), round(effective_rank(np.eye(3)), 6)
    (1.0, 3.0)
    """
    units = _units(rows)
    energy = np.clip(np.linalg.eigvalsh(units.T @ units), 0, None)
    if energy.sum() <= 0:
        return 0.0
    shares = energy[energy > 0] / energy.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(rows: NDArray[np.floating]) -> float:
    """Mean cosine of all pairs of different rows that are not zero; 1 where there are fewer than two.

    >>> mean_cosine(np.eye(3)), mean_cosine(np.ones((4, 2)))
    (0.0, 1.0)
    """
    units = _units(rows)
    count = int((np.abs(units).max(axis=1) > 0).sum())
    if count < 2:
        return 1.0
    return round(float((np.square(units.sum(axis=0)).sum() - count) / (count * (count - 1))), 12)


def random_ndcg(relevant: NDArray[np.int64], eligible: NDArray[np.int64], cutoff: int) -> float:
    """Expected NDCG@K of a random order, over users.

    Args:
        relevant: (users,) how many items are to be found, at least 1.
        eligible: (users,) how many items may be ranked.
        cutoff: K.

    >>> round(random_ndcg(np.array([1]), np.array([1]), 20), 6)
    1.0
    """
    discounts = 1 / np.log2(np.arange(2, cutoff + 2))
    gained = np.cumsum(discounts)[np.minimum(eligible, cutoff) - 1] * relevant / eligible
    ideal = np.cumsum(discounts)[np.minimum(relevant, cutoff) - 1]
    return float((gained / ideal).mean())


def _units(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    values = np.asarray(rows, dtype=np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    scaled = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > 0)
    return units
