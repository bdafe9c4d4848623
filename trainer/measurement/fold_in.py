"""How much is lost when a user was not in the training, and is folded in from their items instead.

Two models are trained: one with everybody, one without the interactions of a sample of users. These users are then
judged on their test items, once by the embeddings that the first model gave them, once folded into the second from
their training items (``shared/fold_in.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from shared.errors import UserError
from shared.fold_in import fit_map, item_weights, profile
from trainer.dataset import TEST, TRAIN, Dataset
from trainer.evaluation import Holdout, evaluate
from trainer.training import Metrics, TrainedStudent

Train = Callable[[Dataset], TrainedStudent]


@dataclass(frozen=True)
class FoldInLoss:
    """Test metrics of the held-out users.

    Attributes:
        users: how many they are.
        trained: by embeddings that were trained with them.
        folded_in: by embeddings made from their items alone.
        mean: by the profiles themselves, without the fitted matrix.
    """

    users: int
    trained: Metrics
    folded_in: Metrics
    mean: Metrics


def measure_fold_in(dataset: Dataset, share: float, seed: int, train: Train) -> FoldInLoss:
    """Train twice and compare.

    Args:
        dataset: split already.
        share: of the users that can be judged, to hold out.
        seed: which ones.
        train: trains a student on a dataset.

    Raises:
        UserError: nobody has both training and test interactions, or nobody is left to train on.
    """
    held_out = held_out_users(dataset, share, seed)
    training = dataset.interactions(TRAIN)
    held_test = sp.csr_matrix(_only(held_out, training.shape[0]) @ dataset.interactions(TEST))
    judged = Holdout(training, held_test)
    everybody = train(dataset)
    others = train(without_users(dataset, held_out, f"{share} of the users held out by seed {seed}"))
    known = sp.csr_matrix(training - _only(held_out, training.shape[0]) @ training)
    known.eliminate_zeros()
    weights = item_weights(np.bincount(known.indices, minlength=known.shape[1]))
    matrix = fit_map(others.user_embeddings, others.item_embeddings, known.indptr.astype(np.int64), known.indices)
    profiles = np.zeros_like(others.user_embeddings)
    for user in held_out:
        profiles[user] = profile(training[user].indices, others.item_embeddings, weights)

    def figures(users: NDArray[np.float32], items: NDArray[np.float32]) -> Metrics:
        return evaluate(torch.from_numpy(np.concatenate([users, items])), judged)

    return FoldInLoss(
        users=len(held_out),
        trained=figures(everybody.user_embeddings, everybody.item_embeddings),
        folded_in=figures(profiles @ matrix, others.item_embeddings),
        mean=figures(profiles, others.item_embeddings),
    )


def held_out_users(dataset: Dataset, share: float, seed: int) -> NDArray[np.int64]:
    """A sample of the users with both training and test interactions, rising; at least one.

    Raises:
        UserError: there is no such user.
    """
    can_be_judged = Holdout(dataset.interactions(TRAIN), dataset.interactions(TEST)).users()
    if len(can_be_judged) == 0:
        raise UserError(f"dataset {dataset.name}: nobody has both training and test interactions")
    count = max(1, round(share * len(can_be_judged)))
    return np.sort(np.random.default_rng(seed).permutation(can_be_judged)[:count])


def without_users(dataset: Dataset, users: NDArray[np.int64], why: str) -> Dataset:
    """The dataset as if these users had never taken anything; ``why`` goes into its name and fingerprint."""
    return replace(
        dataset.where(~np.isin(dataset.users, users)),
        name=f"{dataset.name}-held-out",
        fingerprint=f"{dataset.fingerprint}, {why}",
    )


def _only(users: NDArray[np.int64], total: int) -> sp.dia_matrix:
    chosen = np.zeros(total, np.float32)
    chosen[users] = 1
    return sp.diags(chosen)
