"""Synthetic shops: their size, that each pair is there once, and that there is something to learn."""

import numpy as np
import pytest

from trainer.dataset import TRAIN, Dataset
from trainer.graph import nearest_neighbours
from trainer.measurement.scaling import STEPS_AN_EPOCH, fitted_exponent, with_scaled_batches
from trainer.measurement.synthetic import FEWEST_PER_USER, synthetic_dataset
from trainer.recipe import Recipe

INTERACTIONS = 200_000


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return synthetic_dataset(INTERACTIONS, 10, seed=3)


def test_users_items_and_interactions_are_as_many_as_asked(shop: Dataset) -> None:
    assert len(shop.user_ids) == len(set(shop.user_ids)) == INTERACTIONS // 20
    assert len(shop.item_ids) == len(set(shop.item_ids)) == 3 * INTERACTIONS // 200
    assert len(shop.users) == len(shop.items) == len(shop.labels) == INTERACTIONS


def test_each_pair_is_there_once_in_canonical_order(shop: Dataset) -> None:
    pairs = list(zip(shop.users.tolist(), shop.items.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert shop.items.max() < len(shop.item_ids)
    assert np.bincount(shop.users, minlength=len(shop.user_ids)).min() >= FEWEST_PER_USER
    assert np.bincount(shop.labels) / INTERACTIONS == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_the_seed_decides_everything(shop: Dataset) -> None:
    again, other = synthetic_dataset(INTERACTIONS, 10, seed=3), synthetic_dataset(INTERACTIONS, 10, seed=4)
    assert np.array_equal(shop.users, again.users)
    assert np.array_equal(shop.items, again.items)
    assert np.array_equal(shop.labels, again.labels)
    assert not np.array_equal(shop.items, other.items)
    for name, modality in shop.modalities.items():
        assert np.array_equal(modality.features, again.modalities[name].features)
        assert np.array_equal(modality.neighbours, again.modalities[name].neighbours)


def test_few_items_are_taken_by_many(shop: Dataset) -> None:
    taken = np.sort(np.bincount(shop.items, minlength=len(shop.item_ids)))[::-1]
    assert taken[: len(taken) // 10].sum() > 0.3 * INTERACTIONS
    assert np.median(taken) < 0.6 * taken.mean()


def test_items_that_are_taken_together_look_alike(shop: Dataset) -> None:
    """Two items of one user are nearer, by the cosine of their features, than two items at large."""
    generator = np.random.default_rng(0)
    same_user = np.flatnonzero(shop.users[1:] == shop.users[:-1])
    for modality in shop.modalities.values():
        unit = modality.features / np.linalg.norm(modality.features, axis=1, keepdims=True)
        together = (unit[shop.items[same_user]] * unit[shop.items[same_user + 1]]).sum(axis=1).mean()
        shuffled = generator.permutation(shop.items)
        at_large = (unit[shuffled[1:]] * unit[shuffled[:-1]]).sum(axis=1).mean()
        assert together > at_large + 0.1


def test_the_lists_handed_in_are_those_of_an_exact_search(shop: Dataset) -> None:
    for modality in shop.modalities.values():
        exact, cosines = nearest_neighbours(modality.features, modality.present, 10)
        assert np.array_equal(modality.neighbours[:, 0], np.arange(len(shop.item_ids)))
        assert (modality.neighbours == exact).mean() > 0.99
        assert np.allclose(modality.cosine, cosines, atol=1e-3)


def test_more_neighbours_than_a_taste_has_items_are_missing_ones() -> None:
    shop = synthetic_dataset(10_000, 200, seed=0)
    for modality in shop.modalities.values():
        assert np.array_equal((modality.neighbours >= 0).sum(axis=1), np.full(150, 150))
        assert not modality.cosine[:, 150:].any()


def test_batches_grow_with_the_shop(shop: Dataset) -> None:
    recipe = with_scaled_batches(Recipe(), shop)
    triplets = (shop.labels == TRAIN).sum()
    assert -(-triplets // recipe.batch_size) == STEPS_AN_EPOCH
    assert recipe == Recipe(batch_size=recipe.batch_size)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.7])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    sizes = [2e5, 2e6, 2e7]
    assert fitted_exponent(sizes, [3.5 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_the_exponent_of_scattered_costs_is_the_least_squares_slope() -> None:
    """Logs of sizes 0, 1, 2 and of costs 0, 2, 1 (base 10): slope 1/2 by hand."""
    assert fitted_exponent([1, 10, 100], [1, 100, 10]) == pytest.approx(0.5)


def test_one_size_has_no_exponent() -> None:
    assert fitted_exponent([5.0], [3.0]) is None
    assert fitted_exponent([5.0, 5.0], [3.0, 4.0]) is None
