"""A judged model made ready for the day: what was held out of its training is folded in, as the service would.

The gate judges a model on interactions that it has not seen, and tomorrow's users must not be recommended what these
say they have. So once the verdict is spoken, users with held-out interactions are moved by them, and the artefact's
training interactions are all there are.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shared.fold_in import fit_map, item_weights, profile
from trainer.dataset import TRAIN, Dataset
from trainer.training import TrainedStudent


def fold_in_held_out(dataset: Dataset, trained: TrainedStudent) -> tuple[Dataset, TrainedStudent]:
    """The dataset with every interaction in training, and the student whose users know of them all."""
    training = dataset.interactions(TRAIN)
    training.sort_indices()
    everything = replace(dataset, labels=np.full_like(dataset.labels, TRAIN))
    items = trained.item_embeddings
    weights = item_weights(np.bincount(training.indices, minlength=len(items)).astype(np.int64))
    indptr, indices = training.indptr.astype(np.int64), training.indices
    whole = everything.interactions(TRAIN)
    moved = np.flatnonzero(np.diff(whole.indptr) > np.diff(indptr))
    changes = np.zeros((len(moved), items.shape[1]), np.float32)
    for row, user in enumerate(moved):
        changes[row] = profile(whole.indices[whole.indptr[user] : whole.indptr[user + 1]], items, weights)
        had = indices[indptr[user] : indptr[user + 1]]
        if len(had):
            changes[row] -= profile(had, items, weights)

    def folded(table: NDArray[np.float32]) -> NDArray[np.float32]:
        table = table.copy()
        untrained = moved[np.diff(indptr)[moved] == 0]
        table[untrained] = 0  # no interaction ever moved what they have
        table[moved] += changes @ fit_map(table, items, indptr, indices)
        return table

    if not trained.user_parts:
        return everything, replace(trained, user_embeddings=folded(trained.user_embeddings))
    parts = {name: folded(part) for name, part in trained.user_parts.items()}
    users: NDArray[np.float32] = np.stack(list(parts.values())).sum(axis=0)
    return everything, replace(trained, user_embeddings=users, user_parts=parts)
