"""Which interactions are for training, validation and test; always 8:1:1.

Every split here takes arrays in canonical order (by dense user, then item, each pair once), so that a
split depends on the interactions and the seed and never on the order of a file.
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class SplitSpec:
    """How a dataset is split.

    Attributes:
        kind: ``given`` takes the file's x_label; ``random`` draws 8:1:1 for each user; ``global_time`` cuts
            all interactions at two moments.
        seed: of the random draw; recorded always.
    """

    kind: Literal["given", "random", "global_time"]
    seed: int = 0


def validate_command(directory: Path, split: SplitSpec | None) -> str:
    """What to type for a report on a dataset under this split, the file's own or the usual for None."""
    return f"mts4mm validate {quote(str(directory))}" + ("" if split is None else f" --split {split.kind}")


def random_split(users: NDArray[np.int64], seed: int) -> NDArray[np.int8]:
    """8:1:1 within each user.

    The rounding is the one usual for 5-core data. A user with n interactions has a fifth of them held out,
    rounded down; half of that, rounded down, is for test and the rest for validation. With 3 to 9 it is one
    and one, and with fewer than 3 all are for training, so that every user keeps a training interaction.

    Args:
        users: (interactions,) dense ids, ascending.
        seed: of the draw.

    Returns:
        (interactions,) 0 train, 1 validation, 2 test.

    >>> np.bincount(random_split(np.zeros(15, np.int64), seed=0)).tolist()
    [12, 2, 1]
    """
    permuted = np.random.default_rng(seed).permutation(len(users))
    shuffled = np.argsort(users * len(users) + permuted)  # distinct keys: the same on every machine
    counts = np.bincount(users)
    held_out = np.where(counts < 10, np.where(counts < 3, 0, 2), counts // 5)
    rank = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]
    test, held_out = held_out[users] // 2, held_out[users]
    labels = np.empty(len(users), np.int8)
    labels[shuffled] = np.where(rank < test, TEST, np.where(rank < held_out, VALIDATION, TRAIN))
    return labels


def global_time_split(timestamps: NDArray[np.float64]) -> NDArray[np.int8]:
    """The first 80% of all interactions train, the next 10% validate, the last 10% test.

    Interactions at the moment of a cut all go to its earlier side, so no split sees another's moment.

    Args:
        timestamps: (interactions,) finite, any order.

    Returns:
        (interactions,) 0 train, 1 validation, 2 test.

    >>> global_time_split(np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])).tolist()
    [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    count = len(timestamps)
    if not count:
        return np.zeros(0, np.int8)
    last_train, last_validation = (8 * count + 9) // 10 - 1, (9 * count + 9) // 10 - 1
    cuts = np.partition(timestamps, (last_train, last_validation))[[last_train, last_validation]]
    return np.searchsorted(cuts, timestamps, side="left").astype(np.int8)
