"""The engine: who gets a personal ranking, who gets the popular items, and what is in it."""

from pathlib import Path

import pytest

from service.engine import Engine
from shared import artifact


@pytest.fixture(scope="module")
def engine(store: Path) -> Engine:
    return Engine(artifact.load(store))


def answer(engine: Engine, user_id: str, k: int) -> list[tuple[str, float, int]]:
    return [(item.item_id, item.score, item.rank) for item in engine.recommend(user_id, k).items]


def test_a_known_user_gets_the_items_new_to_them_by_inner_product(engine: Engine) -> None:
    assert engine.recommend("ann", 20).strategy == "personal"
    assert answer(engine, "ann", 20) == [("hat", 3, 1), ("sock", 3, 2), ("42", 0.5, 3), ("pen", -2, 4)]
    assert answer(engine, "ann", 2) == [("hat", 3, 1), ("sock", 3, 2)]


def test_a_user_who_has_seen_all_but_one_item_gets_that_one(engine: Engine) -> None:
    assert answer(engine, "cyd", 20) == [("sock", 1, 1)]


def test_a_user_who_has_seen_everything_gets_nothing(engine: Engine) -> None:
    recommendation = engine.recommend("dan", 20)

    assert (recommendation.strategy, recommendation.items) == ("personal", [])


@pytest.mark.parametrize("user_id", ["nobody", "7", "ANN", "ann ", "\0", "🎩" * 1000])
def test_an_unknown_user_gets_the_most_popular_items_each_once(engine: Engine, user_id: str) -> None:
    # Seen by three users: mug, lamp; by two: hat, pen, 42; by one: sock. Ties in the order of the table.
    assert engine.recommend(user_id, 20).strategy == "popular"
    assert answer(engine, user_id, 20) == [
        ("mug", 3, 1),
        ("lamp", 3, 2),
        ("hat", 2, 3),
        ("pen", 2, 4),
        ("42", 2, 5),
        ("sock", 1, 6),
    ]
    assert answer(engine, user_id, 1) == [("mug", 3, 1)]


def test_a_known_user_without_interactions_gets_the_most_popular_items(engine: Engine) -> None:
    assert engine.recommend("007", 6) == engine.recommend("nobody", 6)


def test_items_come_with_their_metadata(engine: Engine) -> None:
    assert [item.metadata for item in engine.recommend("ann", 2).items] == [
        {"title": "Blue hat"},
        {"title": "Sock"},
    ]
