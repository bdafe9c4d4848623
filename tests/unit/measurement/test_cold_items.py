"""Items held out whole, and how well they are found, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from shared.errors import UserError
from tests.unit.measurement.test_fold_in import decompose, shop
from trainer.dataset import TEST, TRAIN, Dataset, Modality
from trainer.measurement import cold_items
from trainer.measurement.cold_items import content_ways, measure_cold_items
from trainer.measurement.cold_split import hold_items_out

ITEMS = 30


def described(items_without: tuple[int, ...] = ()) -> Dataset:
    generator = np.random.default_rng(3)
    features = np.eye(3, 5, dtype=np.float32)[np.arange(ITEMS) % 3] + generator.normal(0, 0.3, (ITEMS, 5))
    present = ~np.isin(np.arange(ITEMS), items_without)
    neighbours = np.stack([np.arange(ITEMS), (np.arange(ITEMS) + 3) % ITEMS], axis=1).astype(np.int32)
    cosine = np.ones((ITEMS, 2), np.float32)
    values = (features * present[:, None]).astype(np.float32)
    return replace(shop(), modalities={"text": Modality("text", values, present, neighbours, cosine)})


def test_nothing_of_a_held_out_item_is_left_to_learn_from() -> None:
    dataset = described()
    split = hold_items_out(dataset, 0.2, seed=1)
    cold = {dataset.item_ids[item] for item in split.cold_items}
    assert len(cold) == 6
    assert cold.isdisjoint(split.warm.item_ids)
    assert len(split.warm.item_ids) == ITEMS - 6
    assert len(split.warm.items) + split.taken.nnz == len(dataset.items)
    ids = {(dataset.user_ids[u], dataset.item_ids[i]) for u, i in zip(dataset.users, dataset.items, strict=True)}
    left = {
        (split.warm.user_ids[u], split.warm.item_ids[i])
        for u, i in zip(split.warm.users, split.warm.items, strict=True)
    }
    assert left == {(user, item) for user, item in ids if item not in cold}
    modality = split.warm.modalities["text"]
    whole = dataset.modalities["text"]
    assert modality.features is not None
    assert modality.neighbours is not None
    assert modality.cosine is not None
    assert whole.features is not None
    for row, item in enumerate(split.warm_items):
        np.testing.assert_array_equal(modality.features[row], whole.features[item])
        follower = (item + 3) % ITEMS
        expected = -1 if follower in split.cold_items else int(np.flatnonzero(split.warm_items == follower)[0])
        assert modality.neighbours[row].tolist() == [row, expected]
        assert (modality.cosine[row, 1] == 0) == (expected == -1)


def test_items_without_features_are_not_held_out() -> None:
    split = hold_items_out(described(tuple(range(20))), 0.5, seed=0)
    assert (split.cold_items >= 20).all()
    with pytest.raises(UserError, match="nothing is known"):
        hold_items_out(shop(), 0.1, seed=0)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def test_content_ranks_by_profile_and_by_the_nearest_items_that_were_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_items, "CONTENT_NEIGHBOURS", (1, 3, 100))
    split = hold_items_out(described(), 0.4, 0)
    features, cold = split.warm.modalities["text"].features, split.features["text"]
    assert features is not None
    cosines = np.maximum(unit(cold) @ unit(features).T, 0)
    training = split.warm.interactions(TRAIN)
    profile, *nearest = content_ways(split, training)["content text"]
    users = np.flatnonzero(np.diff(training.indptr))
    for user, by_profile, *by_nearest in zip(users, profile(users), *(way(users) for way in nearest), strict=True):
        took = training[user].indices
        np.testing.assert_allclose(by_profile, unit(cold) @ unit(unit(features[took]).sum(axis=0)), atol=1e-6)
        for count, scores in zip((1, 3, 100), by_nearest, strict=True):
            near = [np.argsort(-row)[:count] for row in cosines]
            summed = [row[np.intersect1d(near[item], took)].sum() for item, row in enumerate(cosines)]
            np.testing.assert_allclose(scores, summed, atol=1e-6)


def test_the_figures_are_those_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than 20 held-out items would all be found among themselves, so most items are held out."""
    monkeypatch.setattr(cold_items, "CONTENT_NEIGHBOURS", (1,))
    dataset = described()
    found = measure_cold_items(dataset, 0.8, 0, decompose)
    split = hold_items_out(dataset, 0.8, 0)
    assert (found.items, found.others) == (24, 6)
    assert found.random == pytest.approx(20 / 24)
    features, cold = split.warm.modalities["text"].features, split.features["text"]
    assert features is not None

    recalls = []
    for user in range(len(dataset.user_ids)):
        took = split.warm.items[(split.warm.users == user) & (split.warm.labels == TRAIN)]
        wanted = set(split.taken[user].indices.tolist())
        if len(took) and wanted:
            scores = unit(unit(features[took]).sum(axis=0)) @ unit(cold).T
            recalls.append(len(set(np.argsort(-scores)[:20].tolist()) & wanted) / len(wanted))
    assert found.users == len(recalls)
    assert found.among_cold["content text"] == pytest.approx(np.mean(recalls), abs=1e-9)
    assert set(found.among_all) == {"neighbours", "tower"} == set(found.warm_with)
    assert set(found.among_cold) == {"content text", "content text, centred", "neighbours", "tower"}
    assert all(0 < value <= 1 for value in found.among_cold.values())
    assert (split.warm.labels == TEST).any()
    assert all(value <= found.warm for value in found.warm_with.values())
