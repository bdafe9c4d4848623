"""The engine: who gets a personal ranking, who gets the popular items, and what is in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import engine as engine_module
from service.engine import Engine
from service.filters import OneOf, UnknownAttributeError
from service.queries import KnownItem, KnownUser, Query, Recommendation, UnknownPartError
from service.recent import SinceTraining
from shared import artifact
from shared.errors import UserError
from shared.forgotten import ATTACHMENT, attachment
from tests.unit.service.conftest import ITEM_EMBEDDINGS, ITEM_IDS, USER_EMBEDDINGS, USER_PARTS, publish


@pytest.fixture(scope="module")
def engine(store: Path) -> Engine:
    return Engine(artifact.load(store))


def answer(engine: Engine, user_id: str, k: int) -> list[tuple[str, float, int]]:
    return [(item.item_id, item.score, item.rank) for item in engine.recommend(Query(user_id, k=k)).items]


def test_a_known_user_gets_the_items_new_to_them_by_inner_product(engine: Engine) -> None:
    assert engine.recommend(Query("ann", k=20)).strategy == "personal"
    assert answer(engine, "ann", 20) == [("hat", 3, 1), ("sock", 3, 2), ("42", 0.5, 3), ("pen", -2, 4)]
    assert answer(engine, "ann", 2) == [("hat", 3, 1), ("sock", 3, 2)]


def test_a_user_who_has_seen_all_but_one_item_gets_that_one(engine: Engine) -> None:
    assert answer(engine, "cyd", 20) == [("sock", 1, 1)]


def test_a_user_who_has_seen_everything_gets_nothing(engine: Engine) -> None:
    recommendation = engine.recommend(Query("dan", k=20))

    assert (recommendation.strategy, recommendation.items) == ("personal", [])


@pytest.mark.parametrize("user_id", ["nobody", "7", "ANN", "ann ", "\0", "🎩" * 1000])
def test_an_unknown_user_gets_the_most_popular_items_each_once(engine: Engine, user_id: str) -> None:
    # Seen by three users: mug, lamp; by two: hat, pen, 42; by one: sock. Ties in the order of the table.
    assert engine.recommend(Query(user_id, k=20)).strategy == "popular"
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
    known, unknown = (engine.recommend(Query(user_id, k=6)) for user_id in ("007", "nobody"))
    assert known.items == unknown.items
    assert (known.strategy, known.reason) == ("popular", "no_events")
    assert (unknown.strategy, unknown.reason) == ("popular", "unknown_user")


def test_items_come_with_their_metadata(engine: Engine) -> None:
    assert [item.metadata for item in engine.recommend(Query("ann", k=2)).items] == [
        {"title": "Blue hat"},
        {"title": "Sock"},
    ]


# Retired items


@pytest.mark.parametrize("most_excluded", [0, 1000], ids=["masked", "searched past"])
def test_retired_items_are_in_no_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch, most_excluded: int) -> None:
    monkeypatch.setattr(engine_module, "_MOST_EXCLUDED", most_excluded)
    retired = engine.rows(["hat", "mug", "nonsense"])

    def items(query: Query) -> list[str]:
        return [item.item_id for item in engine.recommend(query, retired).items]

    assert items(Query("ann")) == ["sock", "42", "pen"]
    assert items(Query("ann", exclude_seen=False, k=2)) == ["lamp", "sock"]
    assert items(Query("nobody", k=2)) == ["lamp", "pen"]
    assert items(Query("ann", filter={"title": OneOf(["Sock", "Red mug"])})) == ["sock"]
    assert items(Query("nobody", filter={"title": OneOf(["Sock", "Red mug"])})) == ["sock"]
    assert {item.item_id for item in engine.similar("sock", 6, retired)} == {"lamp", "pen", "42"}
    assert engine.recommend(Query("ann"), engine.rows(ITEM_IDS)).items == []
    assert engine.recommend(Query("nobody"), engine.rows(ITEM_IDS)).items == []
    assert engine.similar("sock", 3, engine.rows(ITEM_IDS)) == []


# What users did since the training


def since(engine: Engine, user_id: str | None, **known: Any) -> Recommendation:
    return engine.recommend(Query(user_id, since=SinceTraining(**known)))


def test_recent_events_are_taken_as_a_history_is(engine: Engine) -> None:
    for user_id in ("ann", "007", "nobody"):
        told = engine.recommend(Query(user_id, history=["pen", "42"]))
        known = since(engine, user_id, taken={"pen": 1.0, "42": 1.0, "not in the model": 1.0})
        assert known == told
        assert known.reason == ("trained_and_new_events" if user_id == "ann" else "folded_in")
        assert {"pen", "42"}.isdisjoint(item.item_id for item in known.items)


def test_an_event_on_an_item_of_the_training_counts_once(engine: Engine) -> None:
    again = since(engine, "ann", taken={"mug": 1.0, "lamp": 0.3})

    assert again == engine.recommend(Query("ann"))
    assert again.reason == "trained"


def test_an_item_counts_as_much_as_its_strength(engine: Engine) -> None:
    """By hand: the profile is the weighted mean of Eq. 13, with the strengths' sum for the number of items."""
    popularity = {"mug": 3, "lamp": 3, "pen": 2, "42": 2}
    strengths = {"mug": 1.0, "lamp": 1.0, "pen": 0.3, "42": 0.5}

    def folded(items: dict[str, float]) -> np.ndarray:
        total = np.zeros(2)
        for item_id, strength in items.items():
            total += strength * ITEM_EMBEDDINGS[ITEM_IDS.index(item_id)] / popularity[item_id] ** 0.25
        return np.asarray(total / sum(items.values()) ** 0.5 @ engine.artifact.fold_in)

    new = {"pen": 0.3, "42": 0.5}
    moved = USER_EMBEDDINGS[0] + folded(strengths) - folded({"mug": 1.0, "lamp": 1.0})
    for user_id, vector in (("ann", moved), ("nobody", folded(new))):
        for query in (Query(user_id), Query(user_id, explain=True)):
            answered = engine.recommend(replace(query, since=SinceTraining(taken=new)))
            for item in answered.items:
                expected = ITEM_EMBEDDINGS[ITEM_IDS.index(item.item_id)] @ vector
                assert item.score == pytest.approx(expected, rel=1e-4, abs=1e-4)
                if item.explanation:
                    assert sum(part.score for part in item.explanation) == pytest.approx(item.score, abs=1e-4)


def test_of_a_history_and_an_event_on_one_item_the_stronger_counts(engine: Engine) -> None:
    for user_id in ("ann", "nobody"):
        for event, counts in ((2.5, 2.5), (0.3, 1.0)):
            known = SinceTraining(taken={"pen": event, "42": 0.5})
            told = engine.recommend(Query(user_id, history=["pen", "pen"], since=known))
            assert told == since(engine, user_id, taken={"pen": counts, "42": 0.5})


def test_seen_items_are_left_out_unless_they_are_wanted_and_hidden_ones_in_any_case(engine: Engine) -> None:
    known = SinceTraining(seen=["hat"], hidden=["sock", "gone"])

    assert [item.item_id for item in engine.recommend(Query("ann", since=known)).items] == ["42", "pen"]
    everything = engine.recommend(Query("ann", since=known, exclude_seen=False)).items
    assert {item.item_id for item in everything} == {"mug", "hat", "pen", "42", "lamp"}
    stranger = engine.recommend(Query("nobody", since=known))
    assert (stranger.strategy, stranger.reason) == ("popular", "unknown_user")
    assert [item.item_id for item in stranger.items] == ["mug", "lamp", "pen", "42"]


def test_a_forgotten_user_is_unknown_to_a_model_that_does_not_say_it_left_the_user_out(engine: Engine) -> None:
    forgotten = SinceTraining(forgotten_at=datetime(2020, 1, 1, tzinfo=UTC))

    assert engine.recommend(Query("ann", since=forgotten)) == engine.recommend(Query("nobody"))
    assert engine.user("ann", forgotten) is None
    back = replace(forgotten, taken={"pen": 1.0})
    assert engine.recommend(Query("ann", since=back)) == engine.recommend(Query("nobody", history=["pen"]))


def test_a_model_that_left_out_who_was_forgotten_may_use_what_came_after(tmp_path: Path) -> None:
    until = datetime(2026, 1, 1, tzinfo=UTC)
    publish(tmp_path, {ATTACHMENT: attachment(until, trained=until)})
    engine = Engine(artifact.load(tmp_path))

    def reason(forgotten_at: datetime) -> str:
        return since(engine, "ann", forgotten_at=forgotten_at).reason

    assert reason(until) == "trained"
    assert reason(until + timedelta(microseconds=1)) == "unknown_user"


@pytest.mark.parametrize("content", [b"{}", b"no", b'{"until": 7}', b'{"until": "2026-01-01T00:00:00"}'])
def test_a_model_that_garbles_who_was_forgotten_is_refused(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, {ATTACHMENT: content})

    with pytest.raises(UserError, match=r"forgotten\.json"):
        Engine(artifact.load(tmp_path))


# What is taken since the training


def vector(engine: Engine, *item_ids: str) -> np.ndarray:
    """The folded-in embedding of some items, in plain loops."""
    artifact = engine.artifact
    popularity = {"mug": 3, "hat": 2, "pen": 2, "sock": 1, "42": 2, "lamp": 3}
    total = np.zeros(2)
    for item_id in item_ids:
        total += ITEM_EMBEDDINGS[ITEM_IDS.index(item_id)] / popularity[item_id] ** 0.25
    return np.asarray(total / len(item_ids) ** 0.5 @ artifact.fold_in)


def expected(query: np.ndarray, without: set[str]) -> list[str]:
    left = [index for index, item_id in enumerate(ITEM_IDS) if item_id not in without]
    return [ITEM_IDS[index] for index in sorted(left, key=lambda index: -(ITEM_EMBEDDINGS[index] @ query))]


def test_a_visitor_is_known_by_their_history(engine: Engine) -> None:
    answered = engine.recommend(Query(history=["hat", "nonsense", "hat", "pen", "more nonsense"]))

    query = vector(engine, "hat", "pen")
    assert (answered.strategy, answered.reason) == ("history", "folded_in")
    assert answered.unknown_items == ["nonsense", "more nonsense"]
    assert [item.item_id for item in answered.items] == expected(query, {"hat", "pen"})
    scores = {item_id: ITEM_EMBEDDINGS[index] @ query for index, item_id in enumerate(ITEM_IDS)}
    assert all(item.score == pytest.approx(scores[item.item_id], abs=1e-4) for item in answered.items)


def test_a_known_user_moves_by_what_is_new(engine: Engine) -> None:
    answered = engine.recommend(Query("ann", history=["pen", "mug"]))

    query = USER_EMBEDDINGS[0] + vector(engine, "mug", "pen", "lamp") - vector(engine, "mug", "lamp")
    assert (answered.strategy, answered.reason) == ("personal", "trained_and_new_events")
    assert [item.item_id for item in answered.items] == expected(query, {"mug", "lamp", "pen"})


def test_a_history_of_what_is_known_already_changes_nothing(engine: Engine) -> None:
    assert engine.recommend(Query("ann", history=["lamp", "mug"])) == engine.recommend(Query("ann"))


def test_a_history_of_unknown_items_alone_leaves_the_popular_ones(engine: Engine) -> None:
    answered = engine.recommend(Query(history=["nonsense"]))
    assert (answered.strategy, answered.reason, answered.unknown_items) == ("popular", "no_events", ["nonsense"])


# Which items


def test_seen_items_come_too_when_asked_for(engine: Engine) -> None:
    answered = engine.recommend(Query("ann", history=["pen"], exclude_seen=False))
    assert {item.item_id for item in answered.items} == set(ITEM_IDS)


def test_items_to_leave_out_are_left_out(engine: Engine) -> None:
    answered = engine.recommend(Query("ann", exclude_items=["hat", "nonsense", "hat"]))
    assert [item.item_id for item in answered.items] == ["sock", "42", "pen"]
    popular = engine.recommend(Query("nobody", exclude_items=["mug", "hat"], k=2))
    assert [item.item_id for item in popular.items] == ["lamp", "pen"]


def test_a_filter_holds_for_popular_and_personal_answers(engine: Engine) -> None:
    wanted = {"title": OneOf(["Sock", "Lamp", "Pen"])}
    assert [item.item_id for item in engine.recommend(Query("ann", filter=wanted)).items] == ["sock", "pen"]
    assert [item.item_id for item in engine.recommend(Query("nobody", filter=wanted)).items] == ["lamp", "pen", "sock"]
    assert engine.recommend(Query("ann", filter={"title": OneOf(["Nothing"])})).items == []
    with pytest.raises(UnknownAttributeError) as raised:
        engine.recommend(Query("ann", filter={"colour": OneOf(["red"])}))
    assert (raised.value.name, raised.value.known) == ("colour", ["title"])


def test_at_most_so_many_items_of_one_value_and_the_next_best_instead(tmp_path: Path) -> None:
    brands: list[Any] = ["a", "a", ["a", "b"], "b", None, "c"]  # of ITEM_IDS
    publish(tmp_path, items=[{"brand": brand} for brand in brands])
    engine = Engine(artifact.load(tmp_path))

    def got(query: Query) -> list[str]:
        return [item.item_id for item in engine.recommend(query).items]

    by_score, popular = got(Query("ann", exclude_seen=False)), got(Query("nobody"))
    of_brand = dict(zip(ITEM_IDS, brands, strict=True))
    for ranked, query in ((by_score, Query("ann", exclude_seen=False)), (popular, Query("nobody"))):
        kept: list[str] = []
        for item_id in ranked:
            had = "".join("".join(of_brand[other] or "") for other in kept)
            if all(brand not in had for brand in of_brand[item_id] or ""):
                kept.append(item_id)
        assert got(replace(query, at_most={"brand": 1})) == kept
        assert 3 <= len(kept) < len(ranked)
        assert got(replace(query, at_most={"brand": 3})) == ranked
    with pytest.raises(UnknownAttributeError) as raised:
        engine.recommend(Query("nobody", at_most={"colour": 1}))
    assert (raised.value.name, raised.value.known) == ("colour", ["brand"])


@pytest.mark.parametrize("history", [["mug"], []], ids=["by a history", "popular"])
def test_diversity_ranks_what_is_unlike_first_and_loses_nothing(engine: Engine, history: list[str]) -> None:
    items = len(ITEM_IDS) - len(history)
    by_score = engine.recommend(Query("nobody", history=history, k=items))
    diverse = engine.recommend(Query("nobody", history=history, k=items, diversity=1.0))
    assert {item.item_id for item in diverse.items} == {item.item_id for item in by_score.items}
    assert diverse.items[0] == by_score.items[0]
    assert [item.rank for item in diverse.items] == list(range(1, items + 1))
    scores = {item.item_id: item.score for item in by_score.items}
    assert all(item.score == scores[item.item_id] for item in diverse.items)
    first, second = (ITEM_EMBEDDINGS[ITEM_IDS.index(item.item_id)] for item in diverse.items[:2])
    others = [ITEM_EMBEDDINGS[ITEM_IDS.index(item.item_id)] for item in by_score.items[1:]]

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    assert cosine(first, second) == pytest.approx(min(cosine(first, other) for other in others))


# Why


def test_an_explanation_is_a_sum_over_parts(engine: Engine) -> None:
    for query in (Query("ann"), Query("ann", history=["pen"]), Query(history=["pen", "hat"])):
        plain = engine.recommend(query)
        explained = engine.recommend(replace(query, explain=True))
        assert [item.item_id for item in explained.items] == [item.item_id for item in plain.items]
        for item in explained.items:
            assert item.explanation is not None
            assert [part.part for part in item.explanation] == ["id", "text"]
            assert sum(part.score for part in item.explanation) == pytest.approx(item.score, abs=1e-4)
            taken = {"mug", "lamp", "pen", "hat"}
            assert all(part.because is None or part.because in taken for part in item.explanation)
    [first, *_] = engine.recommend(Query("ann", explain=True)).items
    scores = [float(USER_PARTS[name][0] @ ITEM_EMBEDDINGS[ITEM_IDS.index(first.item_id)]) for name in ("id", "text")]
    assert [part.score for part in first.explanation] == pytest.approx(scores)


def test_a_part_is_owed_to_the_item_that_adds_most_when_folded_in(engine: Engine) -> None:
    popularity = {"pen": 2, "hat": 2}
    for item in engine.recommend(Query(history=list(popularity), explain=True)).items:
        embedding = ITEM_EMBEDDINGS[ITEM_IDS.index(item.item_id)]
        for row, part in enumerate(item.explanation):
            matrix = engine.artifact.parts.fold_in[row]
            gains = {
                taken: ITEM_EMBEDDINGS[ITEM_IDS.index(taken)] / count**0.25 @ matrix @ embedding
                for taken, count in popularity.items()
            }
            best = max(gains, key=gains.get)
            assert part.because == (best if gains[best] > 0 else None)


def test_weights_make_parts_stronger_or_weaker(engine: Engine) -> None:
    answered = engine.recommend(Query("ann", weights={"text": 3.0, "id": 0.5}, explain=True))
    vector_ = 0.5 * USER_PARTS["id"][0] + 3 * USER_PARTS["text"][0]
    assert [item.item_id for item in answered.items] == expected(vector_, {"mug", "lamp"})
    for item in answered.items:
        assert item.score == pytest.approx(float(ITEM_EMBEDDINGS[ITEM_IDS.index(item.item_id)] @ vector_), abs=1e-5)
        assert sum(part.score for part in item.explanation) == pytest.approx(item.score, abs=1e-5)
    without = engine.recommend(Query("ann", weights={"text": 0.0, "id": 0.0}))
    assert {item.score for item in without.items} == {0.0}
    with pytest.raises(UnknownPartError) as raised:
        engine.recommend(Query("nobody", weights={"image": 2.0}))
    assert (raised.value.name, raised.value.known) == ("image", ("id", "text"))


def test_the_parts_add_up_to_the_score_however_large_they_are(engine: Engine) -> None:
    taken = {"pen": 1e6 / 3, "42": 0.1, "hat": 77.7}
    for weights in ({}, {"id": 99.9, "text": 33.3}, {"id": 0.7, "text": 0.0}):
        for diversity in (0.0, 0.3):
            query = Query("ann", since=SinceTraining(taken=taken), weights=weights, explain=True, diversity=diversity)
            for item in engine.recommend(replace(query, exclude_seen=False)).items:
                scores = [part.score for part in item.explanation]
                assert abs(sum(scores) - item.score) <= 1e-15 * max(map(abs, scores))


def test_popular_items_have_no_explanation(engine: Engine) -> None:
    assert all(item.explanation is None for item in engine.recommend(Query("nobody", explain=True)).items)


# Looking up


def test_similar_items_are_those_of_the_largest_cosine(engine: Engine) -> None:
    unit = ITEM_EMBEDDINGS / np.linalg.norm(ITEM_EMBEDDINGS, axis=1, keepdims=True)
    cosines = unit @ unit[0]
    order = sorted(range(1, 6), key=lambda index: -cosines[index])
    similar = engine.similar("mug", 500)
    assert [item.item_id for item in similar] == [ITEM_IDS[index] for index in order]
    assert [item.score for item in similar] == pytest.approx([cosines[index] for index in order], abs=1e-6)
    assert engine.similar("mug", 2) == similar[:2]


def test_items_and_users_are_looked_up(engine: Engine) -> None:
    assert engine.item("lamp") == KnownItem("lamp", 3, {"title": "Lamp"})
    assert engine.user("ann") == KnownUser("ann", ["mug", "lamp"])
    assert engine.user("007") == KnownUser("007", [])
    assert engine.user("nonsense") is None
    for look_up in (engine.item, lambda item_id: engine.similar(item_id, 3)):
        with pytest.raises(KeyError):
            look_up("nonsense")
