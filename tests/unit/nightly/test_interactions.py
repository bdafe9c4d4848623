"""What events make an interaction of the training, and what takes one back."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from shared.events import DEFAULT_WEIGHTS, Event
from trainer.dataset import TEST, TRAIN, VALIDATION
from trainer.nightly.event_log import as_frame
from trainer.nightly.interactions import LEAST_VALIDATION, Known, interactions, labels
from trainer.nightly.settings import EventSettings, SplitSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_BASE = pl.DataFrame(schema={"user": pl.String, "item": pl.String, "timestamp": pl.Float64})


@pytest.mark.parametrize(
    ("done", "is_taken"),
    [
        ([("purchase", None), ("hide", None)], False),
        ([("hide", None), ("like", None)], True),
        ([("hide", None), ("like", 0.6)], True),
        ([("hide", None), ("cart", None)], False),
        ([("hide", None), ("cart", 2.0)], False),
        ([("like", None), ("hide", 0.1)], False),
    ],
)
def test_an_event_of_a_type_of_full_weight_takes_a_hide_back_as_in_answers(
    done: list[tuple[str, float | None]], is_taken: bool
) -> None:
    """Whatever the event's own weight is: the user state goes by the types alone, too (``service/recent.py``)."""
    events = [
        Event(
            event_id=str(place),
            user_id="ann",
            item_id="mug",
            type=type_,
            weight=weight,
            timestamp=NOON + timedelta(hours=place),
        )
        for place, (type_, weight) in enumerate(done)
    ]
    known = Known(DEFAULT_WEIGHTS, {}, None)
    found = interactions(NO_BASE, as_frame(events), known, EventSettings(least_weight=0.5))
    assert found.pairs["item"].to_list() == ["mug"] * is_taken
    assert found.counts["turned_down"] == (not is_taken)


def split(new: int, *, warm: bool, new_users: bool = False) -> pl.DataFrame:
    """By label and whether new, how many of 20,000 pairs, of which so many newest are new to the champion."""
    place = np.arange(20_000)
    fresh = place >= len(place) - new
    users = np.where(fresh & new_users, 1_000_000 + place, place % 2_000)
    pairs = pl.DataFrame(
        {"user": users.astype(str), "item": (place // 7).astype(str), "timestamp": place.astype(float)}
    )
    label = labels(pairs, pl.Series(fresh), SplitSettings(), warm=warm)
    return pl.DataFrame({"label": label, "new": fresh}).group_by("label", "new").len()


def number(found: pl.DataFrame, label: int, *, new: bool) -> int:
    return int(found.filter((pl.col("label") == label) & (pl.col("new") == new))["len"].sum())


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("new", [400, 2_000])
def test_most_of_what_is_new_and_not_held_out_is_trained_on_tonight(new: int, warm: bool) -> None:
    found = split(new, warm=warm)
    assert number(found, TEST, new=True) == 0.3 * new
    assert number(found, TEST, new=False) == 0
    assert number(found, VALIDATION, new=True) == round(0.3 * 0.7 * new)
    assert number(found, TRAIN, new=True) == 0.7 * new - round(0.3 * 0.7 * new)


def test_a_warm_training_is_judged_by_nothing_that_it_began_with() -> None:
    assert number(split(400, warm=True), VALIDATION, new=False) == 0
    filled = split(400, warm=False)
    assert number(filled, VALIDATION, new=False) + number(filled, VALIDATION, new=True) == round(0.05 * (20_000 - 120))


@pytest.mark.parametrize(("new", "new_users"), [(100, False), (2_000, True)])
def test_where_that_would_be_too_little_older_ones_choose_the_epoch_too(new: int, new_users: bool) -> None:
    """Few new interactions, or all of them of users of whom there is nothing else."""
    found = split(new, warm=True, new_users=new_users)
    assert number(found, VALIDATION, new=False) > 10 * LEAST_VALIDATION
    assert number(found, TRAIN, new=True) > 0
