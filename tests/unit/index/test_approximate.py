"""An approximate index may miss some of the best items. It may do nothing else wrong, whatever is asked of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.index import files
from shared.index.approximate import ApproximateIndex
from shared.index.exact import ExactIndex
from shared.index.kinds import KINDS
from shared.index.searchers import Effort
from tests.unit.index.conftest import WIDTH, items_and_users

ITEMS, USERS = items_and_users(3000, 60)
SCORES = USERS.astype(np.float64) @ ITEMS.astype(np.float64).T
NOTHING = np.array([], np.int64)


@cache
def built(name: str) -> object:
    return KINDS[name].build(ITEMS)


def index_of(name: str, depth: float | None = None, refine: int | None = None) -> ApproximateIndex:
    kind = KINDS[name]
    effort = Effort(kind.depths[0] if depth is None else depth, kind.refines[0] if refine is None else refine)
    return ApproximateIndex(ExactIndex(ITEMS), name, kind.searcher(built(name)), effort)


def at_most_effort(name: str) -> ApproximateIndex:
    return index_of(name, KINDS[name].depths[-1], KINDS[name].refines[-1])


def best(user: int, eligible: np.ndarray, k: int) -> set[int]:
    """Scored one by one, in float64; ``eligible`` is bool [items]."""
    scores = np.where(eligible, SCORES[user], -np.inf)
    return set(np.argsort(-scores, kind="stable")[: min(k, int(eligible.sum()))].tolist())


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_every_answer_is_full_free_of_what_is_excluded_and_ranked_by_exact_scores(
    name: str, data: st.DataObject
) -> None:
    user = data.draw(st.integers(0, len(USERS) - 1))
    k = data.draw(st.sampled_from([1, 2, 20, 100, 500, 2999, 3000, 10_000]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    excluded = rng.choice(3000, data.draw(st.sampled_from([0, 1, 30, 700, 2990, 3000])), replace=False)
    if data.draw(st.booleans()):  # the very items that would be found
        excluded = np.argsort(-SCORES[user])[: len(excluded)]
    share = data.draw(st.sampled_from([None, 0.0, 0.001, 0.05, 0.3, 0.9, 1.0]))
    allowed = None if share is None else rng.random(3000) < share
    eligible = np.ones(3000, bool) if allowed is None else allowed.copy()
    eligible[excluded] = False
    index = index_of(name) if data.draw(st.booleans()) else at_most_effort(name)

    ranking = index.top_k(USERS[user], k, excluded, allowed)

    assert len(ranking.items) == len(set(ranking.items.tolist())) == min(k, int(eligible.sum()))
    assert eligible[ranking.items].all()
    np.testing.assert_allclose(ranking.scores, SCORES[user][ranking.items], rtol=1e-12, atol=1e-12)
    assert (np.diff(ranking.scores) <= 0).all()
    again = index.top_k(USERS[user], k, excluded, allowed)
    assert again.items.tolist() == ranking.items.tolist()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [None, 0.3], ids=["unfiltered", "filtered"])
def test_with_most_effort_nearly_all_of_the_best_are_found(name: str, share: float | None) -> None:
    """Under a filter too, although the effort was measured without one."""
    index = at_most_effort(name)
    allowed = None if share is None else np.random.default_rng(1).random(3000) < share
    eligible = np.ones(3000, bool) if allowed is None else allowed
    hits = 0
    for user, query in enumerate(USERS):
        seen = np.argsort(-SCORES[user])[:15]
        unseen = eligible.copy()
        unseen[seen] = False
        hits += len(set(index.top_k(query, 20, seen, allowed).items.tolist()) & best(user, unseen, 20))

    assert hits / (20 * len(USERS)) >= 0.97


@pytest.mark.parametrize("name", ["ivf-flat", "hnsw"])
def test_less_effort_looks_at_less(name: str) -> None:
    """Or the trainer would measure the same thing again and again."""
    little, much = index_of(name), at_most_effort(name)
    found = [
        sum(
            len(set(index.top_k(query, 20, NOTHING).items.tolist()) & best(user, np.ones(3000, bool), 20))
            for user, query in enumerate(USERS)
        )
        for index in (little, much)
    ]

    assert found[0] < found[1]


def test_scanning_by_length_with_a_cosine_of_1_is_exact() -> None:
    index = index_of("norm-ordered", 1.0)
    exact = ExactIndex(ITEMS)

    for user, query in enumerate(USERS):
        seen = np.argsort(-SCORES[user])[: 5 * user]
        assert index.top_k(query, 20, seen).items.tolist() == exact.top_k(query, 20, seen).items.tolist()


@pytest.mark.parametrize("name", KINDS)
def test_equal_items_and_items_of_zeros_fill_an_answer_too(name: str) -> None:
    items = np.repeat(items_and_users(40, 1)[0], 20, axis=0)
    items[::7] = 0
    kind = KINDS[name]
    searcher = kind.searcher(kind.build(items))
    index = ApproximateIndex(ExactIndex(items), name, searcher, Effort(kind.depths[0], kind.refines[0]))

    for query in (np.zeros(WIDTH, np.float32), items[1], -items[1]):
        ranking = index.top_k(query, 300, NOTHING)
        assert len(set(ranking.items.tolist())) == 300


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_from_a_file_answers_like_what_was_built(name: str, tmp_path: Path) -> None:
    kind, path = KINDS[name], tmp_path / "index"
    files.write(built(name), path)
    read = kind.searcher(files.read(path, kind, 3000, WIDTH))
    effort = Effort(kind.depths[2] if len(kind.depths) > 2 else 0.0, kind.refines[-1])
    index = ApproximateIndex(ExactIndex(ITEMS), name, read, effort)

    for query in USERS[:20]:
        expected = index_of(name, effort.depth, effort.refine).top_k(query, 20, NOTHING)
        assert index.top_k(query, 20, NOTHING).items.tolist() == expected.items.tolist()
