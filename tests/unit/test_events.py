"""Events: what is let in, what is refused with the name of its field, and that a log line gives the event back."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import UserError
from shared.events import Event, decode, encode

SOUND: dict[str, Any] = {
    "event_id": "e1",
    "user_id": "u1",
    "item_id": "i1",
    "type": "view",
    "timestamp": "2024-05-06T07:08:09.123456+02:00",
}
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=128)
ids = texts.filter(lambda text: not text.isspace())


@given(
    event_id=texts,
    user_id=ids,
    item_id=ids,
    type_=st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    timestamp=st.datetimes(datetime(1995, 1, 2), datetime(2026, 1, 1), timezones=st.timezones()),
    recommendation_id=st.none() | texts,
    weight=st.none() | st.floats(1e-6, 1e6),
)
def test_every_event_comes_back_from_one_ascii_line(
    event_id: str,
    user_id: str,
    item_id: str,
    type_: str,
    timestamp: datetime,
    recommendation_id: str | None,
    weight: float | None,
) -> None:
    event = Event(
        event_id=event_id,
        user_id=user_id,
        item_id=item_id,
        type=type_,
        timestamp=timestamp,
        recommendation_id=recommendation_id,
        weight=weight,
    )

    line = encode(event)

    assert line.isascii()
    assert len(line.splitlines()) == 1
    back = decode(line)
    assert (back.event_id, back.user_id, back.item_id, back.type) == (event_id, user_id, item_id, type_)
    assert (back.timestamp, back.recommendation_id, back.weight) == (
        timestamp.astimezone(UTC),
        recommendation_id,
        weight,
    )
    assert decode(line.encode()) == event


def test_the_line_is_compact_and_in_utc() -> None:
    assert json.loads(encode(Event(**SOUND))) == SOUND | {"timestamp": "2024-05-06T05:08:09.123456Z"}
    assert " " not in encode(Event(**SOUND))


NOW = datetime.now(UTC)
REFUSED: list[tuple[str, Any]] = [
    ("event_id", ""),
    ("event_id", "x" * 129),
    ("event_id", 7),
    ("user_id", ""),
    ("user_id", "x" * 513),
    ("user_id", 7),
    ("user_id", None),
    ("user_id", "a\0b"),
    ("user_id", "\0\n"),
    ("user_id", " "),
    ("user_id", "\n"),
    ("user_id", "\x1c \x85"),
    ("item_id", "\u00a0\u3000"),
    ("item_id", " \0"),
    ("item_id", "\ud800"),
    ("item_id", b"i1"),
    ("type", ""),
    ("type", "View"),
    ("type", "view\n"),
    ("type", "9view"),
    ("type", "v" * 33),
    ("type", "väew"),
    ("timestamp", None),
    ("timestamp", ""),
    ("timestamp", 1_700_000_000),
    ("timestamp", "1700000000"),
    ("timestamp", "2024-05-06"),
    ("timestamp", "2024-05-06T07:08:09"),
    ("timestamp", datetime(2024, 5, 6)),
    ("timestamp", "2024-13-06T07:08:09Z"),
    ("timestamp", "1970-01-20T16:00:00Z"),
    ("timestamp", "0001-01-01T00:00:00+14:00"),
    ("timestamp", "9999-12-31T23:59:59-14:00"),
    ("timestamp", NOW + timedelta(days=2)),
    ("recommendation_id", ""),
    ("recommendation_id", "x" * 129),
    ("weight", 0.0),
    ("weight", -1.0),
    ("weight", 1e-300),
    ("weight", 1e7),
    ("weight", float("nan")),
    ("weight", float("inf")),
    ("weight", "1"),
    ("weight", True),
    ("surprise", 1),
]


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_what_is_no_event_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        Event(**SOUND | {field: value})

    assert {fault["loc"][0] for fault in refusal.value.errors()} == {field}


@pytest.mark.parametrize("field", SOUND)
def test_a_missing_field_is_named(field: str) -> None:
    line = json.dumps({name: value for name, value in SOUND.items() if name != field})

    with pytest.raises(UserError, match=field):
        decode(line)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_id", "x" * 512),
        ("user_id", "\n \u2028🧦"),
        ("event_id", "x" * 128),
        ("type", "add-to_cart2"),
        ("weight", 3),
        ("timestamp", NOW + timedelta(hours=23)),
        ("timestamp", datetime(2024, 5, 6, tzinfo=timezone(timedelta(hours=-9)))),
        ("timestamp", "2024-05-06 07:08:09z"),
        ("recommendation_id", None),
    ],
)
def test_what_is_just_allowed(field: str, value: Any) -> None:
    allowed = Event(**SOUND | {field: value})
    assert decode(encode(allowed)) == allowed


def test_a_clock_that_runs_ahead_counts_as_now() -> None:
    """So that who is forgotten a moment later is forgotten with it."""
    before = datetime.now(UTC)
    ahead = Event(**SOUND | {"timestamp": before + timedelta(hours=1)})
    assert before <= ahead.timestamp <= datetime.now(UTC)


@given(cut=st.integers(0, len(encode(Event(**SOUND))) - 1))
def test_a_line_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(UserError, match="not an event"):
        decode(encode(Event(**SOUND))[:cut])


@pytest.mark.parametrize("line", [b"\xff\xfe", b"null", b"[]", b"1", encode(Event(**SOUND)) * 2])
def test_other_lines_are_refused(line: str | bytes) -> None:
    with pytest.raises(UserError, match="not an event"):
        decode(line)


def test_a_refusal_does_not_quote_the_line() -> None:
    with pytest.raises(UserError) as refusal:
        decode(json.dumps(SOUND | {"type": "Alice bought socks"}))

    assert "type" in str(refusal.value)
    assert "Alice" not in str(refusal.value)


def test_an_event_does_not_change() -> None:
    with pytest.raises(ValidationError):
        Event(**SOUND).user_id = "u2"  # type: ignore[misc]
