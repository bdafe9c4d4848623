"""What events say of a user's taste: the strongest on an item counts, and a hidden item counts not at all."""

from datetime import UTC, datetime, timedelta

from service.recent import NOTHING, SinceTraining, since_training
from shared.events import DEFAULT_WEIGHTS
from shared.state import RecentEvent, RecentEvents

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def event(item_id: str, type_: str, seconds: int = 0, weight: float | None = None) -> RecentEvent:
    return RecentEvent(item_id, type_, at(seconds), weight)


def weighed(*events: RecentEvent, hidden: dict[str, datetime] | None = None) -> SinceTraining:
    return since_training(RecentEvents(list(events), None, hidden or {}), DEFAULT_WEIGHTS)


def test_nothing_known_is_nothing() -> None:
    assert weighed() is NOTHING
    assert since_training(RecentEvents([], START), DEFAULT_WEIGHTS) == SinceTraining(forgotten_at=START)


def test_the_strongest_event_on_an_item_counts() -> None:
    known = weighed(event("a", "view"), event("a", "purchase"), event("a", "cart"), event("b", "click", weight=3.0))

    assert known.taken == {"a": 1.0, "b": 1.5}


def test_a_type_of_no_weight_or_of_none_any_more_says_nothing_of_taste() -> None:
    known = since_training(RecentEvents([event("a", "impression"), event("b", "gone")], None), {"impression": 0.0})

    assert (known.taken, set(known.seen)) == ({}, {"a", "b"})


def test_what_is_hidden_is_no_taste_whatever_was_done_with_it() -> None:
    known = weighed(event("a", "view", 9), event("a", "hide", 5), event("a", "like", 1), hidden={"a": at(5)})

    assert known.taken == {}
    assert known.hidden == {"a"}


def test_a_full_event_as_new_as_the_hiding_takes_it_back() -> None:
    """As when the later event arrived first, so that the state could not tell."""
    known = weighed(event("a", "like", 5), event("a", "hide", 5), hidden={"a": at(5), "b": at(0)})

    assert known.taken == {"a": 1.0}
    assert known.hidden == {"b"}


def test_hidden_items_are_known_after_the_events_that_hid_them_are_gone() -> None:
    assert weighed(hidden={"a": START}).hidden == {"a"}
