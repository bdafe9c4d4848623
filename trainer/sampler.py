"""Training triplets (user, item they took, item they did not), the same for the same seed and epoch.

The generator of an epoch is a function of (seed, epoch) and of nothing that went before, so a resumed run draws
what the undisturbed run would have drawn, without any generator state to save.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Triplets = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """The one source of randomness of an epoch."""
    return np.random.default_rng([seed, epoch])


class TripletSampler:
    """Uniform negatives that the user never took in training."""

    def __init__(self, interactions: sp.csr_matrix, chances: NDArray[np.float32] | None = None) -> None:
        """Draw from interactions (users, items).

        Args:
            interactions: of the training, each row's items rising.
            chances: (interactions,) how likely each is to be part of an epoch; all are by default.
        """
        edges = interactions.tocoo()
        self._users = edges.row.astype(np.int64)
        self._items = edges.col.astype(np.int64)
        self._item_count = interactions.shape[1]
        self._taken = np.sort(self._users * self._item_count + self._items)
        saturated = np.bincount(self._users, minlength=interactions.shape[0]) >= self._item_count
        trainable = ~saturated[self._users]
        self._users, self._items = self._users[trainable], self._items[trainable]
        self._chances = None if chances is None else chances[trainable]

    def __len__(self) -> int:
        """Triplets an epoch, at most: training interactions, less those of users who took every item."""
        return len(self._users)

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Triplets]:
        """One epoch in random order, as (users, positives, negatives), each (batch,)."""
        order = generator.permutation(len(self._users))
        if self._chances is not None:
            order = order[generator.random(len(order)) < self._chances[order]]
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            users = self._users[chosen]
            yield users, self._items[chosen], self._negatives(users, generator)

    def _negatives(self, users: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        negatives = generator.integers(0, self._item_count, len(users))
        pending = np.arange(len(users))
        while len(pending := pending[self._is_taken(users[pending], negatives[pending])]):
            negatives[pending] = generator.integers(0, self._item_count, len(pending))
        return negatives

    def _is_taken(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        keys = users * self._item_count + items
        places = np.searchsorted(self._taken, keys)
        found: NDArray[np.bool_] = self._taken[np.minimum(places, len(self._taken) - 1)] == keys
        return found
