"""What folding in loses, measured on users that the second training never saw."""

import numpy as np
import pytest

from shared.errors import UserError
from trainer.dataset import TEST, TRAIN, Dataset, SplitSpec
from trainer.measurement.fold_in import held_out_users, measure_fold_in
from trainer.training import TrainedStudent

USERS, ITEMS = 200, 30


def shop() -> Dataset:
    """Users of three tastes; the last five have no test interaction."""
    generator = np.random.default_rng(0)
    likes = np.arange(USERS)[:, None] % 3 == np.arange(ITEMS)[None, :] % 3
    users, items = np.nonzero(generator.random((USERS, ITEMS)) < np.where(likes, 0.7, 0.05))
    labels = generator.choice(3, len(users), p=[0.7, 0.1, 0.2]).astype(np.int8)
    labels[(users >= USERS - 5) & (labels == TEST)] = TRAIN
    return Dataset(
        name="shop",
        user_ids=[str(user) for user in range(USERS)],
        item_ids=[str(item) for item in range(ITEMS)],
        users=users,
        items=items,
        labels=labels,
        timestamps=None,
        weights=None,
        modalities={},
        catalogue=None,
        split=SplitSpec("random", 0),
        fingerprint="f",
    )


def decompose(dataset: Dataset) -> TrainedStudent:
    """A model without epochs: the leading singular vectors of the training interactions."""
    left, values, right = np.linalg.svd(dataset.interactions(TRAIN).toarray(), full_matrices=False)
    users, items = (left * values)[:, :6], right[:6].T
    return TrainedStudent(users.astype(np.float32), items.astype(np.float32), {}, {}, {}, {}, {}, 1, 1)


def recall_by_hand(dataset: Dataset, model: TrainedStudent, users: np.ndarray) -> float:
    recalls = []
    for user in users:
        took = {
            label: set(dataset.items[(dataset.users == user) & (dataset.labels == label)]) for label in (TRAIN, TEST)
        }
        scores = model.item_embeddings @ model.user_embeddings[user]
        scores[list(took[TRAIN])] = -np.inf
        best = set(np.argsort(-scores, kind="stable")[:20].tolist())
        recalls.append(len(best & took[TEST]) / len(took[TEST]))
    return float(np.mean(recalls))


def test_the_same_users_are_judged_trained_and_folded_in() -> None:
    dataset, seen = shop(), []

    def train(part: Dataset) -> TrainedStudent:
        seen.append(part)
        return decompose(part)

    loss = measure_fold_in(dataset, 0.1, 3, train)

    held_out = held_out_users(dataset, 0.1, 3)
    whole, others = seen
    assert whole is dataset
    assert not np.isin(others.users, held_out).any()
    assert len(others.users) == np.sum(~np.isin(dataset.users, held_out))
    assert others.fingerprint != dataset.fingerprint
    assert loss.users == len(held_out) > 10
    assert loss.trained["recall@20"] == pytest.approx(recall_by_hand(dataset, decompose(dataset), held_out))
    assert 0.9 < loss.folded_in["recall@20"] / loss.trained["recall@20"] < 1.1
    assert loss.mean["recall@20"] > 0


def test_only_users_who_can_be_judged_are_held_out() -> None:
    dataset = shop()
    assert held_out_users(dataset, 1.0, 0).max() < USERS - 5
    assert not np.array_equal(held_out_users(dataset, 0.1, 0), held_out_users(dataset, 0.1, 1))
    nobody = Dataset(**{**vars(dataset), "labels": np.full(len(dataset.labels), TRAIN, np.int8)})
    with pytest.raises(UserError, match="nobody has both"):
        held_out_users(nobody, 0.1, 0)
