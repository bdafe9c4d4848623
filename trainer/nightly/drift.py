"""How far what users did lately is from what the live model was trained on: three figures a night."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.artifact import Artifact
from trainer.nightly.contenders import positions

GROUPS = 10


@dataclass(frozen=True)
class Drift:
    """Figures of the interactions that the live model was not trained on.

    Attributes:
        new_users: the share of them by users whom it does not know.
        new_items: the share of them with items that it does not know.
        popularity: how their popularity differs from that of the model's training, :func:`popularity_shift`.
    """

    new_users: float
    new_items: float
    popularity: float


def drift(fresh: pl.DataFrame, champion: Artifact) -> Drift | None:
    """Compare interactions, of columns ``user`` and ``item``, with what a model knows; None where there are none."""
    if not len(fresh):
        return None
    items = positions(champion.items, fresh["item"])
    known_users, known_items = positions(champion.users, fresh["user"]) >= 0, items >= 0
    shift = popularity_shift(champion.popularity, np.bincount(items[known_items], minlength=len(champion.items)))
    return Drift(float(1 - known_users.mean()), float(1 - known_items.mean()), shift)


def popularity_shift(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """The population stability index of two counts of the same items, over ten groups of equal former popularity.

    ``sum over groups of (p - q) ln(p / q)``, with p and q the shares that a group has of each; half an interaction is
    added to every group, so that an empty one stays finite. Below 0.1 little has changed, above 0.25 a lot has; but
    chance alone gives about 9 / interactions.

    >>> before = np.array([400, 300, 200, 100])
    >>> round(popularity_shift(before, before // 2), 4)
    0.0
    >>> popularity_shift(before, before[::-1]) > 0.25
    True
    """
    order = np.argsort(-before, kind="stable")
    reached = np.cumsum(before[order]) - before[order]
    place = np.minimum(GROUPS - 1, GROUPS * reached // max(1, int(before.sum())))
    _, group = np.unique(place, return_inverse=True)
    one, other = (_shares(counts[order], group) for counts in (before, now))
    return float(((other - one) * np.log(other / one)).sum())


def _shares(counts: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    smoothed = np.bincount(group, weights=counts) + 0.5
    shares: NDArray[np.float64] = smoothed / smoothed.sum(dtype=np.float64)
    return shares
