"""What users did, on a real Redis: nothing counted twice or by halves, all of it bounded, and forgotten when asked."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.events import Event, decode
from shared.state import RecentEvent, RecentEvents, Recorded, StateUnavailable, UserState, open_state, store
from shared.state.store import (
    EVENT_STREAM,
    EVENT_TTL,
    HIDDEN_TTL,
    MOST_HIDDEN,
    MOST_READ,
    MOST_RECENT,
    STATE_TTL,
    TOMBSTONE_TTL,
)
from tests.integration.redis_server import Server, wait_until
from tests.integration.user_state.few_events import START, answers, event, item_ids


def test_events_come_back_newest_first_with_all_that_is_kept(state: UserState) -> None:
    sent = [
        event("1", item_id="old", at=1, type="cart", weight=2.5),
        event("2", item_id="new 🧦\n", at=3),
        event("3", item_id="middle", at=2, timestamp=START + timedelta(seconds=2, microseconds=1)),
        event("4", user_id="other", item_id='"],["', at=9),
    ]

    assert state.record(sent) == [True] * 4

    at = START + timedelta(seconds=2, microseconds=1)
    assert state.recent(["u", "nobody", "other", "u"])[:3] == [
        RecentEvents(
            [
                RecentEvent("new 🧦\n", "view", START + timedelta(seconds=3), None),
                RecentEvent("middle", "view", at, None),
                RecentEvent("old", "cart", START + timedelta(seconds=1), 2.5),
            ],
            None,
        ),
        RecentEvents([], None),
        RecentEvents([RecentEvent('"],["', "view", START + timedelta(seconds=9), None)], None),
    ]


def test_nothing_asked_is_nothing_answered(state: UserState) -> None:
    assert state.record([]) == []
    assert state.recent([]) == []


def test_many_users_are_read_a_few_at_a_time(state: UserState) -> None:
    """All that may be kept of 1,000 users takes Redis longer than it is waited for."""
    users = [f"u{n}" for n in range(1000)]
    state.record([event(user, user_id=user, item_id=user) for user in users])
    state.recent(["somebody"])  # the first call brings the script
    calls = state._client.info("commandstats")["cmdstat_evalsha"]["calls"]
    found = state.recent(users)
    assert [known.events[0].item_id for known in found] == users
    assert state._client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls == -(-1000 // MOST_READ)


def test_equal_timestamps_are_ordered_by_arrival(state: UserState) -> None:
    state.record([event(str(n), item_id=f"i{n}") for n in range(12)])
    state.record([event("last", item_id="last")])

    assert item_ids(state) == ["last", *(f"i{n}" for n in reversed(range(12)))]


def test_an_event_sent_again_counts_once(state: UserState) -> None:
    assert state.record([event("1"), event("1"), event("2")]) == [True, False, True]
    assert state.record([event("2"), event("3", item_id="j"), event("1", user_id="other")]) == [False, True, False]
    assert item_ids(state) == ["j", "i", "i"]
    assert item_ids(state, "other") == []


def test_ids_that_look_alike_or_look_like_keys_stay_apart(state: UserState) -> None:
    users = ["a", "A", "a ", "é", "e\u0301", "*", "a:b", "mts4mm:recent:a", "\na", "x" * 512]
    state.record([event(f"e{n}", user_id=user, item_id=f"i{n}") for n, user in enumerate(users)])

    assert [item_ids(state, user) for user in users] == [[f"i{n}"] for n in range(len(users))]
    assert all(re.fullmatch(rb"mts4mm:[a-z]+(:[0-9a-f]{40})?", key) for key in state._client.scan_iter())


def test_a_look_up_of_an_id_that_no_event_can_have_finds_nothing(state: UserState) -> None:
    assert state.recent(["\ud800", "\0", ""]) == [RecentEvents([], None)] * 3
    when = state.forget("\ud800")
    assert list(state.forgotten()) == [("\ud800", when)]


def test_a_user_keeps_only_the_newest_events(state: UserState) -> None:
    late_first = [event(f"e{n}", item_id=f"i{n}", at=-n) for n in range(MOST_RECENT + 50)]
    state.record(late_first[:30])
    state.record(late_first[30:])
    assert item_ids(state) == [f"i{n}" for n in range(MOST_RECENT)]

    state.record([event("newest", item_id="newest", at=1)])
    assert item_ids(state) == ["newest", *(f"i{n}" for n in range(MOST_RECENT - 1))]
    assert state.record([event(f"e{MOST_RECENT + 20}")]) == [False], "too old to be kept, and counted all the same"


def test_every_key_dies_in_time(state: UserState) -> None:
    state.record([event(f"e{n}", user_id=f"u{n}", type=["view", "hide"][n % 2]) for n in range(5)])
    state.forget("u1")
    state.forget("never seen")
    state.record([event("again", user_id="u1", timestamp=datetime.now(UTC) + timedelta(hours=1))])

    lives = {key: state._client.ttl(key) for key in state._client.scan_iter()}

    assert lives.pop(EVENT_STREAM.encode()) == -1, "the nightly job trims it"
    bounds = {
        b"recent": STATE_TTL,
        b"hidden": HIDDEN_TTL,
        b"arrivals": STATE_TTL,
        b"event": EVENT_TTL,
        b"forgotten": TOMBSTONE_TTL,
    }
    assert {key.split(b":")[1] for key in lives} == bounds.keys()
    for key, seconds in lives.items():
        bound = bounds[key.split(b":")[1]].total_seconds()
        assert bound - 60 < seconds <= bound, key


def test_a_new_event_lets_the_user_live_longer(state: UserState) -> None:
    state.record([event("1")])
    (key,) = state._client.scan_iter("mts4mm:recent:*")
    state._client.expire(key, 5)

    state.record([event("1")])
    assert state._client.ttl(key) <= 5
    state.record([event("2")])
    assert state._client.ttl(key) > 60


def test_a_forgotten_user_is_gone_at_once_and_known_as_forgotten(state: UserState) -> None:
    state.record([event("1"), event("2", user_id="stays")])

    before = datetime.now(UTC)
    when = state.forget("u")

    assert before <= when <= datetime.now(UTC)
    assert state.recent(["u", "stays"]) == [
        RecentEvents([], when),
        RecentEvents([RecentEvent("i", "view", START, None)], None),
    ]
    assert len(list(state._client.scan_iter("mts4mm:recent:*"))) == 1


def test_what_a_forgotten_user_did_before_stays_forgotten_and_what_comes_after_counts(state: UserState) -> None:
    state.record([event("1")])
    when = state.forget("u")

    late = [event("1"), event("2", timestamp=when), event("3", timestamp=when + timedelta(microseconds=1))]
    assert state.record(late) == [Recorded.REPEATED, Recorded.FORGOTTEN, Recorded.COUNTED]
    assert state.recent(["u"]) == [
        RecentEvents([RecentEvent("i", "view", when + timedelta(microseconds=1), None)], when)
    ]


def logged(state: UserState) -> list[Event]:
    """The events in the log, oldest first."""
    entries: Any = state._client.xrange(EVENT_STREAM)
    assert all(fields.keys() == {b"e"} for _, fields in entries)
    return [decode(fields[b"e"]) for _, fields in entries]


def test_every_event_that_counts_is_logged_once_and_whole(state: UserState) -> None:
    forgotten_at = state.forget("gone")
    first = event("1", item_id="ü\n🧦", type="cart", weight=2.5, value=19.99, recommendation_id="r")
    sent = [first, event("2"), first, event("3", user_id="gone", timestamp=forgotten_at)]

    state.record(sent)
    state.record([event("2", item_id="other"), event("4")])

    assert logged(state) == [first, event("2"), event("4")]


def test_a_full_log_refuses_events_rather_than_losing_any(state: UserState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_LOGGED", 3)
    state.record([event("1"), event("2")])

    with pytest.raises(StateUnavailable, match="the log of events is full"):
        state.record([event("3"), event("4")])

    assert [each.event_id for each in logged(state)] == ["1", "2"]
    assert state.record([event("3")]) == [Recorded.COUNTED]
    state._client.xtrim(EVENT_STREAM, maxlen=0)
    assert state.record([event("4")]) == [Recorded.COUNTED]


def test_what_a_user_hides_stays_hidden_past_any_number_of_later_events(state: UserState) -> None:
    state.record([event("h", item_id='never "again" ü', type="hide", at=1), event("d", item_id="no", type="dislike")])
    state.record([event(f"v{n}", item_id=f"i{n}", at=2 + n) for n in range(MOST_RECENT)])

    (known,) = state.recent(["u"])

    assert known.hidden == {'never "again" ü': START + timedelta(seconds=1), "no": START}
    assert {kept.type for kept in known.events} == {"view"}
    assert state.recent(["other"])[0].hidden == {}
    state.forget("u")
    assert state.recent(["u"])[0].hidden == {}


def test_only_a_later_event_of_full_weight_shows_a_hidden_item_again(state: UserState) -> None:
    state.record([event("h", type="hide", at=10)])

    state.record(
        [event("1", type="view", at=20), event("2", type="like", at=9), event("3", "other", type="like", at=20)]
    )
    assert state.recent(["u"])[0].hidden == {"i": START + timedelta(seconds=10)}
    state.record([event("4", type="hide", at=5)])
    assert state.recent(["u"])[0].hidden == {"i": START + timedelta(seconds=10)}, "the later hiding is what counts"
    state.record([event("5", type="like", at=10)])
    assert state.recent(["u"])[0].hidden == {}


def test_a_user_keeps_only_the_items_hidden_last(state: UserState) -> None:
    state.record([event(f"h{n}", item_id=f"i{n}", type="hide", at=n) for n in range(MOST_HIDDEN + 3)])

    assert state.recent(["u"])[0].hidden.keys() == {f"i{n}" for n in range(3, MOST_HIDDEN + 3)}


def test_announcements_are_heard_also_after_redis_was_gone(fragile: Server) -> None:
    with open_state(fragile.url, None) as state, open_state(fragile.url, None) as other:
        changes = state.changes()
        assert changes.wait(0), "something may have changed before"
        wait_until(lambda: not changes.wait(0.05))
        other.announce()
        assert changes.wait(5)
        other.retire_items(["i"])
        assert changes.wait(5)
        assert not changes.wait(0.05)

        fragile.kill()
        with pytest.raises((redis.RedisError, OSError)):
            wait_until(lambda: changes.wait(0.05))
        fragile.start()
        assert changes.wait(0), "something may have changed meanwhile"
        wait_until(lambda: answers(other))
        wait_until(lambda: not changes.wait(0.05))
        other.announce()
        assert changes.wait(5)
        changes.close()


def test_all_forgotten_users_are_listed_among_many_keys(state: UserState) -> None:
    state.record([event(f"e{n}", user_id=f"u{n}") for n in range(1500)])
    expected = {user: state.forget(user) for user in [*(f"u{n}" for n in range(0, 1500, 3)), "ü 🧦", "never seen"]}
    expected["u0"] = state.forget("u0")

    assert dict(state.forgotten()) == expected


def test_retired_items_and_their_version(state: UserState) -> None:
    assert (state.retired().item_ids, state.retired_version()) == (frozenset(), None)

    state.retire_items(["a", "b", "ü"])
    first = state.retired()
    assert first.item_ids == {"a", "b", "ü"}
    assert first.version == state.retired_version() is not None

    state.restore_items(["a", "unknown"])
    second = state.retired()
    assert second.item_ids == {"b", "ü"}
    assert second.version == state.retired_version() != first.version

    state.retire_items([])
    assert state.retired() == second


operations = st.lists(
    st.one_of(
        st.sampled_from(["u1", "u2"]),
        st.lists(
            st.tuples(
                st.integers(0, 15),
                st.sampled_from(["u1", "u2", "ü\n3"]),
                st.text("ij", min_size=1, max_size=3),
                st.integers(-2, 2),
                st.sampled_from([None, 0.5]),
            ),
            max_size=6,
        ),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations)
def test_any_sequence_of_events_and_forgetting_is_as_a_plain_list_says(
    operations: list[Any], embedded: UserState
) -> None:
    """Timestamps are before now or now, so that forgetting falls between them."""
    embedded._client.flushall()
    now = datetime.now(UTC)
    counted: set[str] = set()
    kept: list[tuple[str, datetime, int, RecentEvent]] = []
    forgotten: dict[str, datetime] = {}

    for operation in operations:
        if isinstance(operation, str):
            forgotten[operation] = embedded.forget(operation)
            kept = [row for row in kept if row[0] != operation]
            continue
        sent, expected = [], []
        for id_, user, item, hours, weight in operation:
            sent.append(event(f"e{id_}", user, item, timestamp=now + timedelta(hours=hours), weight=weight))
            at = sent[-1].timestamp  # now, if that was ahead
            too_late = user in forgotten and at <= forgotten[user]
            new = f"e{id_}" not in counted and not too_late
            expected.append(Recorded.COUNTED if new else Recorded(2 * (f"e{id_}" not in counted)))
            if new:
                counted.add(f"e{id_}")
                kept.append((user, at, len(counted), RecentEvent(item, "view", at, weight)))
        assert embedded.record(sent) == expected

    users = ["u1", "u2", "ü\n3"]
    newest = sorted(kept, key=lambda row: (row[1], row[2]), reverse=True)
    assert embedded.recent(users) == [
        RecentEvents([row[3] for row in newest if row[0] == user], forgotten.get(user)) for user in users
    ]
    assert dict(embedded.forgotten()) == forgotten


def test_threads_that_send_the_same_events_count_each_once(state: UserState) -> None:
    ids = [f"e{n}" for n in range(150)]
    start = threading.Barrier(8)

    def send(thread: int) -> list[str]:
        mine = ids[thread:] + ids[:thread]
        start.wait()
        counted = []
        for at in range(0, len(mine), 7):
            part = mine[at : at + 7]
            flags = state.record([event(id_, item_id=id_) for id_ in part])
            counted += [id_ for id_, flag in zip(part, flags, strict=True) if flag]
        return counted

    with ThreadPoolExecutor(8) as pool:
        counted = [id_ for part in pool.map(send, range(8)) for id_ in part]

    assert sorted(counted) == sorted(ids)
    assert sorted(item_ids(state)) == sorted(ids)
