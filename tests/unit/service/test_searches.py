"""Those who ask in the same moment are searched for together, and each gets the ranking that is theirs."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import Engine
from service.live_table import JoinedIndex, LiveTable
from service.searches import MOST, Searches
from shared import artifact
from shared.index.exact import ExactIndex
from shared.index.ranking import Asked, Ranking

DRAW = np.random.default_rng(0)
VECTORS = DRAW.integers(-2, 3, (40, 3)).astype(np.float32)  # few values, so that there are ties


def asked(k: int, excluded: Sequence[int] = ()) -> Asked:
    return Asked(DRAW.normal(size=3).astype(np.float32), k, np.array(excluded, dtype=np.int64))


def same(first: Ranking, second: Ranking) -> bool:
    return first.items.tolist() == second.items.tolist() and first.scores.tolist() == second.scores.tolist()


rows = st.lists(st.integers(0, 39), max_size=45)


@given(wanted=st.lists(st.tuples(st.integers(1, 45), rows), min_size=1, max_size=8), live=st.integers(0, 8))
@settings(deadline=None, max_examples=150)
def test_together_each_gets_what_it_gets_alone(wanted: list[tuple[int, list[int]]], live: int) -> None:
    trained = ExactIndex(VECTORS[: 40 - live])
    index = JoinedIndex(trained, VECTORS[40 - live :]) if live else trained
    questions = [asked(k, excluded) for k, excluded in wanted]
    for question, ranking in zip(questions, index.top_k_of_each(questions), strict=True):
        eligible = [row for row in range(40) if row not in question.excluded.tolist()]
        scores = {row: float(VECTORS[row].astype(np.float64) @ question.query.astype(np.float64)) for row in eligible}
        best = sorted(eligible, key=lambda row: -round(scores[row], 9))[: question.k]
        assert len(ranking.items) == len(best)
        assert np.allclose(ranking.scores, [scores[row] for row in best])
        assert same(ranking, index.top_k(*question))


@pytest.mark.parametrize("k", [20, 400])
def test_together_each_gets_what_it_gets_alone_of_a_large_table(k: int) -> None:
    draw = np.random.default_rng(k)
    index = ExactIndex(draw.normal(size=(3000, 16)).astype(np.float32))
    questions = [
        Asked(draw.normal(size=16).astype(np.float32), k - place, draw.integers(0, 3000, 10 * place))
        for place in range(12)
    ]
    for question, ranking in zip(questions, index.top_k_of_each(questions), strict=True):
        assert same(ranking, index.top_k(*question))


class _Counting(ExactIndex):
    """Notes how many it was asked for at once; fails where one wants 13."""

    def __init__(self) -> None:
        super().__init__(VECTORS)
        self.passes: list[int] = []

    def top_k_of_each(self, asked: Sequence[Asked]) -> list[Ranking]:
        self.passes.append(len(asked))
        if any(each.k == 13 for each in asked):
            raise LookupError("an unlucky number")
        return super().top_k_of_each(asked)


@pytest.fixture
def engine(store: Path) -> tuple[Engine, _Counting]:
    engine, index = Engine(artifact.load(store)), _Counting()
    engine.index = index
    return engine, index


def test_those_who_ask_in_the_same_moment_share_a_pass(engine: tuple[Engine, _Counting]) -> None:
    one, index = engine
    other = one.with_live(LiveTable.empty(one.artifact.width))
    other.index = ExactIndex(-VECTORS)
    questions = [asked(k) for k in range(1, MOST + 4) if k != 13]

    async def all_of_them() -> list[Ranking]:
        searches = Searches()
        return await asyncio.gather(
            searches(other, questions[0]), *(searches(one, each) for each in questions), searches(one, questions[0])
        )

    of_other, *rankings = asyncio.run(all_of_them())
    assert index.passes == [MOST, len(questions) + 1 - MOST]
    assert same(of_other, other.index.top_k(*questions[0]))
    assert all(
        same(found, index.top_k(*each)) for found, each in zip(rankings, [*questions, questions[0]], strict=True)
    )


def test_who_comes_while_others_still_come_shares_their_pass(engine: tuple[Engine, _Counting]) -> None:
    one, index = engine
    searches = Searches()

    async def after_turns(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await searches(one, asked(turns + 1))

    async def all_of_them() -> None:
        await asyncio.gather(*(after_turns(turns) for turns in (0, 1, 2, 9)))

    asyncio.run(all_of_them())
    assert index.passes == [3, 1]


def test_what_goes_wrong_is_told_to_those_of_the_pass_and_the_next_one_goes_on(
    engine: tuple[Engine, _Counting],
) -> None:
    one, index = engine

    async def all_of_them() -> None:
        searches = Searches()
        failed = await asyncio.gather(searches(one, asked(13)), searches(one, asked(2)), return_exceptions=True)
        assert [type(each) for each in failed] == [LookupError, LookupError]
        gone = asyncio.create_task(searches(one, asked(3)))
        stays = asyncio.create_task(searches(one, asked(4)))
        await asyncio.sleep(0)
        gone.cancel()
        assert len((await stays).items) == 4

    asyncio.run(all_of_them())
    assert index.passes == [2, 2]
