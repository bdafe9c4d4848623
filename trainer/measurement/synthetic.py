"""A shop of any size made of numbers alone, to see how the cost of a training grows.

Items belong to tastes and users have a few of them. Tastes, and the items of each, are taken by a power law; most of
what a user takes is to their taste, so that there is something to learn. Both modalities show an item's taste.
Everything is drawn at once with numpy, in memory that grows with the interactions.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Modality, SplitSpec
from trainer.dataset.splits import random_split

FEWEST_INTERACTIONS = 10_000
INTERACTIONS_PER_USER = 20
INTERACTIONS_PER_3_ITEMS = 200
FEWEST_PER_USER = 5
ITEMS_PER_TASTE = 300
TASTES_PER_USER = 3
OWN_TASTE = 0.8
POPULARITY_POWER = 0.8
FEATURE_WIDTH = 64
FEATURE_NOISE = 0.7
MODALITIES = ("image", "text")


def synthetic_dataset(interactions: int, neighbours: int, seed: int) -> Dataset:
    """A dataset that exists in memory only, split 8:1:1 within each user.

    There are ``interactions / 20`` users and ``3 interactions / 200`` items, each user with at least 5 interactions,
    each pair once. Neighbour lists are handed in, since an exact search is quadratic in the items: they are the
    nearest among the items of the same taste, the item itself first.

    Args:
        interactions: exactly how many in all, at least ``FEWEST_INTERACTIONS``.
        neighbours: nearest items an item, itself included.
        seed: of every draw.
    """
    generator = np.random.default_rng([seed, interactions])
    users = interactions // INTERACTIONS_PER_USER
    items = 3 * interactions // INTERACTIONS_PER_3_ITEMS
    tastes = max(1, items // ITEMS_PER_TASTE)
    arranged = generator.permutation(items)
    pairs = _distinct_pairs(interactions, users, arranged, tastes, generator)
    of_users, of_items = np.divmod(pairs, items)
    return Dataset(
        name=f"synthetic-{interactions}",
        user_ids=[f"u{user}" for user in range(users)],
        item_ids=[f"i{item}" for item in range(items)],
        users=of_users,
        items=of_items,
        labels=random_split(of_users, seed),
        timestamps=None,
        weights=None,
        modalities={name: _modality(name, arranged, tastes, neighbours, generator) for name in MODALITIES},
        catalogue=None,
        split=SplitSpec("random", seed),
        fingerprint=f"synthetic, {interactions} interactions, {neighbours} neighbours, seed {seed}",
    )


def _distinct_pairs(
    wanted: int, users: int, arranged: NDArray[np.int64], tastes: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """(wanted,) ``user * items + item``, rising, each once; every user has ``FEWEST_PER_USER`` of them or more."""
    items = len(arranged)
    likes = _by_power_law(tastes, (users, TASTES_PER_USER), generator)
    activity = np.cumsum(generator.gamma(2.0, size=users))
    takers = np.repeat(np.arange(users), FEWEST_PER_USER)
    pairs = np.empty(0, np.int64)
    while len(takers):
        taken = _items_taken(likes[takers], arranged, tastes, generator)
        pairs = _each_once(np.concatenate([pairs, takers * items + taken]))
        short = np.maximum(FEWEST_PER_USER - np.bincount(pairs // items, minlength=users), 0)
        takers = np.repeat(np.arange(users), short)
    while (missing := wanted - len(pairs)) > 0:
        places = np.searchsorted(activity, generator.random(missing) * activity[-1], side="right")
        takers = np.minimum(places, users - 1)
        taken = _items_taken(likes[takers], arranged, tastes, generator)
        pairs = _each_once(np.concatenate([pairs, takers * items + taken]))
    return pairs


def _each_once(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Like ``np.unique``, whose hash table took 4.8 s for 2 million values where sorting took 0.06 s."""
    values.sort()
    first: NDArray[np.bool_] = np.append(True, values[1:] != values[:-1])
    return values[first]


def _items_taken(
    likes: NDArray[np.int64], arranged: NDArray[np.int64], tastes: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """One item for each row of ``likes`` (n, tastes a user): of one of these tastes, or now and then of any."""
    count, items = len(likes), len(arranged)
    own = likes[np.arange(count), generator.integers(0, likes.shape[1], count)]
    taste = np.where(generator.random(count) < OWN_TASTE, own, _by_power_law(tastes, (count,), generator))
    place = taste + tastes * _by_power_law(-(-items // tastes), (count,), generator)
    return arranged[np.where(place < items, place, place - tastes)]


def _by_power_law(count: int, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draws from 0 .. count - 1 with odds ``1 / rank ** POPULARITY_POWER``."""
    reached = np.cumsum(np.arange(1, count + 1, dtype=np.float64) ** -POPULARITY_POWER)
    places = np.searchsorted(reached, generator.random(shape) * reached[-1], side="right")
    drawn: NDArray[np.int64] = np.minimum(places, count - 1)
    return drawn


def _modality(
    name: str, arranged: NDArray[np.int64], tastes: int, neighbours: int, generator: np.random.Generator
) -> Modality:
    items = len(arranged)
    centres = generator.standard_normal((tastes, FEATURE_WIDTH), dtype=np.float32)
    noise = generator.standard_normal((items, FEATURE_WIDTH), dtype=np.float32)
    features = np.empty_like(noise)
    features[arranged] = centres[np.arange(items) % tastes] + FEATURE_NOISE * noise
    lists = np.empty((items, neighbours), np.int32)
    cosines = np.empty((items, neighbours), np.float32)
    for taste in range(tastes):
        alike = np.sort(arranged[taste::tastes])
        nearest, cosine = _nearest_among(features[alike], neighbours)
        lists[alike], cosines[alike] = np.where(nearest >= 0, alike[nearest], -1), cosine
    return Modality(name, features, np.ones(items, bool), lists, cosines)


def _nearest_among(features: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``count`` nearest rows of each by cosine, itself first, and the cosines; -1 and 0 where there are fewer."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, np.inf)
    found = min(count, len(unit))
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :found]
    np.fill_diagonal(cosines, 1.0)
    missing = ((0, 0), (0, count - found))
    return (
        np.pad(nearest, missing, constant_values=-1),
        np.pad(np.take_along_axis(cosines, nearest, axis=1), missing),
    )
