"""The split rules, stated again in words and checked on arbitrary data."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.dataset.splits import TEST, TRAIN, VALIDATION, global_time_split, random_split

degrees = st.lists(st.integers(1, 60), min_size=1, max_size=20)
seeds = st.integers(0, 2**32)


def users_of(degrees: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(degrees)), degrees)


@given(degrees, seeds)
def test_each_user_gets_the_share_that_the_rounding_rule_names(degrees: list[int], seed: int) -> None:
    users = users_of(degrees)
    labels = random_split(users, seed)
    for user, degree in enumerate(degrees):
        if degree < 3:
            expected = (degree, 0, 0)
        elif degree < 10:
            expected = (degree - 2, 1, 1)
        else:
            held_out = int(degree * 0.2 + 1e-9)
            expected = (degree - held_out, held_out - held_out // 2, held_out // 2)
        counts = Counter(labels[users == user].tolist())
        assert (counts[TRAIN], counts[VALIDATION], counts[TEST]) == expected


@given(degrees, seeds)
def test_every_user_keeps_a_training_interaction(degrees: list[int], seed: int) -> None:
    users = users_of(degrees)
    assert set(users[random_split(users, seed) == TRAIN]) == set(range(len(degrees)))


@given(degrees, seeds)
def test_the_same_seed_draws_the_same_split(degrees: list[int], seed: int) -> None:
    users = users_of(degrees)
    np.testing.assert_array_equal(random_split(users, seed), random_split(users, seed))


def test_another_seed_draws_another_split() -> None:
    users = users_of([50] * 20)
    assert (random_split(users, 0) != random_split(users, 1)).any()


def test_each_interaction_of_a_user_is_as_likely_to_be_held_out() -> None:
    users = users_of([10])
    tests = np.sum([random_split(users, seed) == TEST for seed in range(4000)], axis=0)
    # 4000 draws with p = 0.1: 400 expected, standard deviation 19.
    assert np.abs(tests - 400).max() < 5 * 19


def test_users_of_five_to_nine_have_one_validation_and_one_test_interaction() -> None:
    users = users_of([5, 6, 7, 8, 9])
    labels = random_split(users, seed=3)
    for label in (VALIDATION, TEST):
        assert np.bincount(users[labels == label]).tolist() == [1] * 5


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=80))
def test_time_cuts_put_a_moment_on_one_side_and_the_earlier_four_fifths_into_training(times: list[float]) -> None:
    labels = global_time_split(np.array(times))
    by_moment: dict[float, set[int]] = {}
    for moment, label in zip(times, labels.tolist(), strict=True):
        by_moment.setdefault(moment, set()).add(label)
    assert all(len(found) == 1 for found in by_moment.values())
    ordered = [by_moment[moment].copy().pop() for moment in sorted(by_moment)]
    assert ordered == sorted(ordered)
    for label, share in ((TRAIN, 0.8), (VALIDATION, 0.9)):
        earlier = sum(each <= label for each in labels.tolist())
        assert earlier >= share * len(times) - 1e-9
        # Without the last moment of the earlier side it would be too small: the cut is no later than needed.
        last = max(moment for moment, each in zip(times, labels.tolist(), strict=True) if each <= label)
        assert sum(moment < last for moment in times) < share * len(times)


def test_distinct_times_are_cut_at_exactly_eighty_and_ninety_percent() -> None:
    times = np.random.default_rng(0).permutation(100).astype(float)
    labels = global_time_split(times)
    assert set(times[labels == TRAIN]) == set(range(80))
    assert set(times[labels == VALIDATION]) == set(range(80, 90))
    assert set(times[labels == TEST]) == set(range(90, 100))


@pytest.mark.parametrize(
    "split", [lambda: random_split(np.zeros(0, np.int64), 0), lambda: global_time_split(np.zeros(0))]
)
def test_nothing_splits_into_nothing(split) -> None:  # type: ignore[no-untyped-def]
    assert split().tolist() == []
