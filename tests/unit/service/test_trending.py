"""Who nothing is known of gets what is popular lately, where the training data say when, else of all times."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import Engine
from service.live_model import check_answers
from service.live_table import LiveTable
from service.queries import Query
from shared import artifact
from shared.errors import UserError
from shared.trending import ATTACHMENT, attachments_of
from tests.unit.service.conftest import ITEM_IDS, SEEN, publish
from tests.unit.service.test_live_items import WIDTH, dataset
from trainer.dataset import TRAIN, VALIDATION
from trainer.export import publish as export
from trainer.recipe import Recipe
from trainer.training import TrainedStudent

DAY = 24 * 3600
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def counts(items: list[int], days_ago: list[float], among: int) -> list[float]:
    at = np.array([NOW.timestamp() - days * DAY for days in days_ago])
    attached = attachments_of(np.array(items), at, among, NOW)
    return list(np.load(io.BytesIO(attached[ATTACHMENT])))


@given(taken=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 3650)), min_size=2, max_size=20))
def test_an_interaction_counts_half_as_much_with_every_30_days(taken: list[tuple[int, float]]) -> None:
    items, days = [item for item, _ in taken], [each for _, each in taken]
    expected = [sum(0.5 ** ((ago - min(days)) / 30) for item, ago in taken if item == row) for row in range(5)]
    if max(days) - min(days) > 1e-3:  # else there is no telling which was later
        assert counts(items, days, 5) == pytest.approx(expected, rel=1e-6)


def test_a_time_in_the_future_is_now_and_makes_nothing_else_old() -> None:
    assert counts([0, 1, 1], [-1e6, 0, 30], 3) == pytest.approx([1, 1.5, 0])


@pytest.mark.parametrize("times", [None, np.array([]), np.array([5.0, 5.0])])
def test_without_times_or_with_one_for_all_nothing_is_told(times: np.ndarray | None) -> None:
    assert attachments_of(np.array([0, 1])[: 2 if times is None else len(times)], times, 3, NOW) == {}


def saved(table: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def engine(store: Path, table: list[float]) -> Engine:
    publish(store, {ATTACHMENT: saved(np.array(table))})
    return Engine(artifact.load(store))


def test_a_stranger_gets_what_is_popular_lately_and_of_equal_items_the_more_taken_first(tmp_path: Path) -> None:
    lately = [0.5, 0.25, 0.5, 3.0, 0.0, 0.25]
    popularity = np.bincount([item for taken in SEEN.values() for item in taken], minlength=6)
    order = sorted(range(6), key=lambda row: (-lately[row], -popularity[row], row))
    assert order != sorted(range(6), key=lambda row: -lately[row]), "a tie must be broken, or the test shows less"
    asked = engine(tmp_path, lately)
    check_answers(asked)
    for user_id, reason in (("a stranger", "unknown_user"), ("007", "no_events")):
        answered = asked.recommend(Query(user_id=user_id, k=6))
        assert (answered.strategy, answered.reason) == ("trending", reason)
        assert [item.item_id for item in answered.items] == [ITEM_IDS[row] for row in order]
        assert [item.score for item in answered.items] == [lately[row] for row in order]
    left = asked.recommend(Query(user_id="a stranger", k=2, exclude_items=[ITEM_IDS[order[0]]]))
    assert [item.item_id for item in left.items] == [ITEM_IDS[row] for row in order[1:3]]
    assert asked.recommend(Query(user_id="ann")).strategy == "personal"
    assert asked.item(ITEM_IDS[3]).popularity == popularity[3]


def test_a_live_item_comes_after_all_that_were_ever_taken(tmp_path: Path) -> None:
    asked = engine(tmp_path, [0.5, 0.25, 0.5, 3.0, 0.0, 0.25])
    joined = asked.with_live(LiveTable(["new"], np.ones((1, 2), np.float32), [{}]))
    listed = joined.recommend(Query(user_id="a stranger", k=100)).items
    assert [item.item_id for item in listed][-1] == "new"
    assert len(listed) == 7


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", saved(np.ones(5)), saved(np.ones(6, np.float32)), saved(np.full(6, np.nan)), saved(-np.ones(6))],
)
def test_a_table_that_is_no_count_of_these_items_is_refused(tmp_path: Path, content: bytes) -> None:
    publish(tmp_path, {ATTACHMENT: content})
    with pytest.raises(UserError, match=ATTACHMENT):
        Engine(artifact.load(tmp_path))


def test_the_trainer_counts_training_interactions_alone(tmp_path: Path) -> None:
    shop = dataset()
    newest, labels = np.zeros(len(shop.items)), shop.labels.copy()
    newest[shop.items == 5] = 365 * DAY
    labels[np.flatnonzero(shop.items == 7)[:2]] = VALIDATION
    newest[labels == VALIDATION] = 700 * DAY
    model = TrainedStudent(
        np.ones((len(shop.user_ids), WIDTH), np.float32), np.eye(24, WIDTH, dtype=np.float32), {}, {}, {}, {}, {}, 1, 1
    )
    timed = replace(shop, timestamps=newest, labels=labels)
    export(tmp_path, timed, Recipe(modalities=("text",)), 0, model)
    told = Engine(artifact.load(tmp_path))
    assert told.recommend(Query(user_id="a stranger", k=1)).items[0].item_id == "i5"
    counted = np.bincount(shop.items[labels == TRAIN], minlength=24).astype(float)
    counted[np.arange(24) != 5] *= 0.5 ** (365 / 30)
    assert list(told.demand) == pytest.approx(list(counted))
