"""A model of random numbers, for measurements to which it does not matter what a model has learned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

WIDTH = 64
SEEN = 10
"""Training interactions of a user."""

_Table = NDArray[np.float32]


def publish_random_model(store: Path, users: int, metadata: Sequence[Mapping[str, Any]]) -> tuple[_Table, _Table]:
    """Publish a model of users ``u0``, ``u1``, ... and of as many items ``i0``, ... as there are metadata.

    Returns:
        The embeddings of its items and of its users, float32 [items, 64] and [users, 64].
    """
    draw, items = np.random.default_rng(0), len(metadata)
    of_users = draw.normal(size=(users, WIDTH)).astype(np.float32)
    of_items = draw.normal(size=(items, WIDTH)).astype(np.float32)
    seen = np.sort(draw.integers(0, items - SEEN, size=(users, SEEN)), axis=1) + np.arange(SEEN)
    model = StudentModel(
        user_ids=[f"u{user}" for user in range(users)],
        item_ids=[f"i{item}" for item in range(items)],
        user_embeddings=of_users,
        item_embeddings=of_items,
        train_indptr=np.arange(users + 1) * SEEN,
        train_indices=seen.ravel(),
        items=metadata,
    )
    dataset = DatasetInfo(
        name=f"random-{items}",
        fingerprint="",
        users=users,
        items=items,
        interactions=users * SEEN,
        split=Split(kind="random", seed=0),
    )
    artifact.publish(store, model, Provenance(dataset, {}, 0, {}))
    return of_items, of_users
