from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from trainer.demo_shop import make_shop
from trainer.demo_shop.truth import ShopTruth, draw_shop

from .conftest import Shop, load

SOURCES = ("circle", "style", "theme")


@pytest.fixture(scope="module")
def truth() -> ShopTruth:
    return draw_shop(0, users=2000, items=800)


def groups(truth: ShopTruth, source: str) -> NDArray[np.int64]:
    return getattr(truth, f"item_{source}")


def agreement(features: NDArray[np.float32], group: NDArray[np.int64], k: int = 5) -> float:
    """How often an item's k nearest by cosine are of its own group, over what chance would give."""
    known = np.flatnonzero(np.isfinite(features).all(axis=1))
    likeness = features[known] @ features[known].T
    np.fill_diagonal(likeness, -np.inf)
    nearest = known[np.argsort(-likeness, axis=1)[:, :k]]
    chance = np.mean(group[known][:, None] == group[known][None, :])
    return float((group[nearest] == group[known][:, None]).mean() / chance)


def test_pictures_tell_the_style_and_neither_theme_nor_circle(shop: Shop) -> None:
    lift = {source: agreement(shop.image_feat, groups(shop.truth, source)) for source in SOURCES}
    assert lift["style"] > 12
    assert 0.6 < lift["theme"] < 1.5
    assert 0.6 < lift["circle"] < 1.5


def test_words_tell_the_theme_and_neither_style_nor_circle(shop: Shop) -> None:
    lift = {source: agreement(shop.text_feat, groups(shop.truth, source)) for source in SOURCES}
    assert lift["theme"] > 12
    assert 0.6 < lift["style"] < 1.5
    assert 0.6 < lift["circle"] < 1.5


@pytest.mark.parametrize(("one", "other"), list(combinations((*SOURCES, "kind"), 2)))
def test_an_items_groups_are_independent(truth: ShopTruth, one: str, other: str) -> None:
    first, second = groups(truth, one), groups(truth, other)
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    assert chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize(("one", "other"), list(combinations(range(3), 2)))
def test_a_users_favourites_are_independent(truth: ShopTruth, one: int, other: int) -> None:
    likes = (truth.user_circles, truth.user_styles, truth.user_themes)
    first, second = likes[one].argmax(axis=1), likes[other].argmax(axis=1)
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    assert chi2_contingency(table).pvalue > 0.001


def test_the_three_sources_have_an_equal_say(truth: ShopTruth) -> None:
    np.testing.assert_allclose(truth.user_mix.sum(axis=1), 1)
    np.testing.assert_allclose(truth.user_mix.mean(axis=0), 1 / 3, atol=0.03)
    mostly_one = (truth.user_mix.max(axis=1) > 0.8).mean()
    assert 0.2 < mostly_one < 0.6


@pytest.mark.parametrize("source", range(3))
def test_a_user_of_one_mind_buys_by_that_alone(truth: ShopTruth, source: int) -> None:
    likes = (truth.user_circles, truth.user_styles, truth.user_themes)
    one_minded = np.flatnonzero(truth.user_mix[:, source] > 0.9)
    rows = np.flatnonzero(np.isin(truth.users, one_minded))
    for candidate, name in enumerate(SOURCES):
        liked = likes[candidate][truth.users[rows], groups(truth, name)[truth.items[rows]]] > 0
        chance = 2 / likes[candidate].shape[1]
        if candidate == source:
            assert liked.mean() > 5 * chance
        else:
            assert liked.mean() < 2 * chance


def test_popularity_has_a_long_tail(truth: ShopTruth) -> None:
    sold = np.sort(np.bincount(truth.items, minlength=800))[::-1]
    assert sold[:80].sum() > 0.2 * sold.sum()
    assert sold[400:].sum() < 0.36 * sold.sum()
    assert sold[:8].mean() > 3 * np.median(sold)


def test_the_same_seed_draws_the_same_shop(truth: ShopTruth) -> None:
    again = draw_shop(0, users=2000, items=800)
    np.testing.assert_array_equal(again.items, truth.items)
    np.testing.assert_array_equal(again.user_mix, truth.user_mix)
    assert not np.array_equal(draw_shop(1, users=2000, items=800).user_mix, truth.user_mix)


@pytest.mark.slow
def test_all_three_together_recommend_better_than_any_alone(
    tmp_path_factory: pytest.TempPathFactory, truth: ShopTruth
) -> None:
    directory = tmp_path_factory.mktemp("whole") / "shop"
    make_shop(directory)
    full = load(directory, truth)
    train, test = held_out(truth)
    together = train.T @ train
    np.fill_diagonal(together, 0)
    sold = np.sqrt(np.maximum(train.sum(axis=0), 1))
    scores = {
        "co-purchases": train @ (together / sold[:, None] / sold[None, :]),
        "pictures": train @ near(full.image_feat),
        "words": train @ near(full.text_feat),
    }
    alone = {name: recall(score, train, test) for name, score in scores.items()}
    assert min(alone.values()) > 1.3 * recall(np.tile(train.sum(axis=0), (2000, 1)), train, test)
    bought, seen, read = (standard(score) for score in scores.values())
    # Co-purchases carry traces of all three tastes, so what only pictures or only words know weighs less.
    both, picture_only, words_only = (
        recall(bought + 0.3 * content, train, test) for content in (seen + read, seen, read)
    )
    assert both > max(picture_only, words_only)
    assert both > 1.05 * max(alone.values())


def held_out(truth: ShopTruth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One item in ten of each user, at random, as 0-1 matrices (users, items)."""
    shuffled = np.random.default_rng(0).permutation(len(truth.users))
    train, test = np.zeros((2000, 800)), np.zeros((2000, 800))
    for user in range(2000):
        rows = shuffled[truth.users[shuffled] == user]
        cut = max(1, round(len(rows) / 10))
        test[user, truth.items[rows[:cut]]] = 1
        train[user, truth.items[rows[cut:]]] = 1
    return train, test


def near(features: NDArray[np.float32], k: int = 15) -> NDArray[np.float64]:
    likeness = np.nan_to_num(features @ features.T, nan=-1)
    np.fill_diagonal(likeness, -1)
    links = np.zeros(likeness.shape)
    np.put_along_axis(links, np.argsort(-likeness, axis=1)[:, :k], 1, axis=1)
    return links + links.T


def standard(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return (score - score.mean(axis=1, keepdims=True)) / (score.std(axis=1, keepdims=True) + 1e-9)


def recall(score: NDArray[np.float64], train: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    best = np.argsort(-np.where(train > 0, -np.inf, score), axis=1)[:, :20]
    return float((np.take_along_axis(test, best, axis=1).sum(axis=1) / test.sum(axis=1)).mean())
