"""What events make an interaction of the training, and what takes one back."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from shared.events import DEFAULT_WEIGHTS, Event
from trainer.nightly.event_log import as_frame
from trainer.nightly.interactions import Known, interactions
from trainer.nightly.settings import EventSettings

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
