"""The index is exact: always the ranking that scoring every item one by one would give."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.index.exact import ExactIndex

NOTHING = np.array([], np.int32)


def brute_force(items: np.ndarray, query: np.ndarray, k: int, excluded: set[int]) -> list[int]:
    """Every item scored without rounding, sorted in Python."""
    scores = [math.fsum(float(a) * float(b) for a, b in zip(item, query, strict=True)) for item in items]
    left = [item for item in range(len(items)) if item not in excluded]
    return sorted(left, key=lambda item: (-scores[item], item))[:k]


# Multiples of 1/8 up to 4 have exact products and sums, so that ties are ties whatever the order of adding.
eighths = st.integers(-32, 32).map(lambda n: n / 8)


@given(data=st.data(), count=st.integers(1, 60), width=st.integers(1, 9), k=st.integers(1, 70))
@settings(deadline=None, max_examples=150)
def test_the_ranking_is_that_of_brute_force_ties_and_exclusions_included(
    data: st.DataObject, count: int, width: int, k: int
) -> None:
    few_values = st.sampled_from(data.draw(st.lists(eighths, min_size=1, max_size=4)))
    items = data.draw(hnp.arrays(np.float32, (count, width), elements=few_values))
    query = data.draw(hnp.arrays(np.float32, width, elements=few_values))
    excluded = data.draw(st.sets(st.integers(0, count - 1)))

    ranking = ExactIndex(items).top_k(query, k, np.array(sorted(excluded), np.int32))

    assert ranking.items.tolist() == brute_force(items, query, k, excluded)
    np.testing.assert_array_equal(ranking.scores, items.astype(np.float64)[ranking.items] @ query)


@pytest.mark.parametrize("seed", range(5))
def test_the_ranking_is_exact_where_float32_cannot_tell_scores_apart(seed: int) -> None:
    """Scores differ by less than float32 resolves at their size, in an order that only exact sums show."""
    rng = np.random.default_rng(seed)
    items = np.repeat(rng.normal(size=(1, 64)), 500, axis=0).astype(np.float32)
    items[:, 0] = np.nextafter(items[0, 0], np.float32(9), dtype=np.float32)
    raised = rng.permutation(500)
    for step, item in enumerate(raised[:40]):
        items[item, 1] += np.float32((step + 1) * 1e-7)
    query = (rng.normal(size=64) * 100).astype(np.float32)

    ranking = ExactIndex(items).top_k(query, 30, NOTHING)

    assert ranking.items.tolist() == brute_force(items, query, 30, set())


@pytest.mark.parametrize("seed", range(5))
def test_the_ranking_is_exact_where_terms_cancel_and_float32_sees_noise(seed: int) -> None:
    """Items at right angles to the query: their scores are smaller than the rounding errors of faiss."""
    rng = np.random.default_rng(seed)
    query = rng.normal(size=64).astype(np.float32)
    free = rng.normal(size=(2000, 64))
    items = (free - np.outer(free @ query, query) / (query @ query)).astype(np.float32)

    ranking = ExactIndex(items).top_k(query, 10, NOTHING)

    assert ranking.items.tolist() == brute_force(items, query, 10, set())


def test_equal_items_rank_by_index_wherever_they_lie_in_the_table() -> None:
    rng = np.random.default_rng(1)
    items = rng.normal(size=(1003, 67)).astype(np.float32)
    twins = np.array([0, 1, 5, 500, 999, 1000, 1001, 1002])
    items[twins] = items[0]

    ranking = ExactIndex(items).top_k(items[0] * 3, 8, NOTHING)

    assert ranking.items.tolist() == twins.tolist()
    assert len(set(ranking.scores.tolist())) == 1


def test_a_catalogue_of_equal_items_is_ranked_by_index() -> None:
    ranking = ExactIndex(np.ones((5000, 4), np.float32)).top_k(np.ones(4, np.float32), 3, np.array([0, 2]))

    assert ranking.items.tolist() == [1, 3, 4]


def test_a_query_of_zeros_ties_everything() -> None:
    items = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)

    assert ExactIndex(items).top_k(np.zeros(8, np.float32), 5, np.array([1])).items.tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e18])
def test_very_small_and_very_large_numbers_rank_like_others(scale: float) -> None:
    rng = np.random.default_rng(2)
    items = (rng.integers(-9, 9, size=(2000, 4)) * np.float32(scale)).astype(np.float32)
    query = np.array([1, 2, -1, 3], np.float32) * np.float32(scale)

    ranking = ExactIndex(items).top_k(query, 10, NOTHING)

    assert ranking.items.tolist() == brute_force(items, query, 10, set())


def test_seen_items_are_left_out_by_item_and_not_by_position() -> None:
    """A filter that compares ranks 0, 1, .. with seen ids would drop the wrong ones here."""
    items = np.arange(10, dtype=np.float32)[:, None]

    ranking = ExactIndex(items).top_k(np.ones(1, np.float32), 3, np.array([9, 8, 0]))

    assert ranking.items.tolist() == [7, 6, 5]


@pytest.mark.parametrize("excluded", [0, 1, 990, 999, 1000])
@pytest.mark.parametrize("k", [1, 20, 500, 100_000])
def test_the_answer_has_as_many_items_as_there_are_and_each_once(k: int, excluded: int) -> None:
    rng = np.random.default_rng(3)
    items = rng.normal(size=(1000, 16)).astype(np.float32)
    query = rng.normal(size=16).astype(np.float32)
    best_first = np.argsort(-(items @ query))

    ranking = ExactIndex(items).top_k(query, k, best_first[:excluded])

    assert len(ranking.items) == len(set(ranking.items.tolist())) == min(k, 1000 - excluded)
    assert set(ranking.items.tolist()) <= set(best_first[excluded:].tolist())


def test_naming_an_excluded_item_twice_costs_no_item() -> None:
    ranking = ExactIndex(np.eye(4, dtype=np.float32)).top_k(np.ones(4, np.float32), 4, np.array([2, 2, 2]))

    assert ranking.items.tolist() == [0, 1, 3]


def test_queries_at_the_same_time_do_not_mix() -> None:
    """Each query gets candidates of its own: with one-hot rows, its own item first."""
    index = ExactIndex(np.eye(200, dtype=np.float32))

    with ThreadPoolExecutor(8) as pool:
        firsts = pool.map(
            lambda item: int(index.top_k(np.eye(200, dtype=np.float32)[item], 3, NOTHING).items[0]), range(200)
        )

    assert list(firsts) == list(range(200))
