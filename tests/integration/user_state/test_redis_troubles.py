"""Redis slow, full, down, empty and back: no event is halved, and nobody waits long."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.state import RecentEvents, StateRefused, StateUnavailable, UserState, open_state
from shared.state.breaker import OPEN_SECONDS
from tests.integration.redis_server import Server, wait_until
from tests.integration.user_state.few_events import answers, event, item_ids


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

        with pytest.raises(StateRefused, match="Redis is full"):
            state.record([event("2", item_id="j")])
        assert state.available
        assert item_ids(state) == ["i"]

        admin.config_set("maxmemory", "0")
        assert state.record([event("2", item_id="j")]) == [True]


def test_what_keeps_redis_from_taking_events_is_known_until_one_would_be_taken(
    fragile: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def refuses(because: str, *attempts: Callable[[], object]) -> None:
        for attempt in attempts:
            with pytest.raises(StateRefused, match=because):
                attempt()
            item_ids(state)
            assert state.refusal is not None
            assert because in state.refusal

    with open_state(fragile.url, None) as state, fragile.admin() as admin:
        state.record([event("1")])
        state.try_write()
        assert state.refusal is None

        admin.config_set("maxmemory", "1")
        writes = (lambda: state.record([event("2")]), lambda: state.forget("u"), lambda: state.retire_items(["i"]))
        refuses("full", *writes, state.try_write)
        state.event_stream.trim("0-1")
        assert state.refusal is not None, "what makes room is taken by a full Redis too"
        admin.config_set("maxmemory", "0")
        state.try_write()
        assert state.refusal is None

        admin.execute_command("REPLICAOF", "127.0.0.1", "9")
        refuses("read-only", *writes, state.try_write)
        admin.execute_command("REPLICAOF", "NO", "ONE")

        monkeypatch.setattr("shared.state.store.MOST_LOGGED", 1)
        refuses("the log of events is full", state.try_write, lambda: state.record([event("2")]))
        monkeypatch.undo()
        state.try_write()
        assert state.refusal is None
    told = [record.getMessage() for record in caplog.records if record.name == "shared.state.breaker"]
    assert [each.rpartition(": ")[2] if "no writes" in each else "again" for each in told] == [
        "it has reached its maxmemory",
        "again",
        "Redis is read-only",
        "run mts4mm nightly",
        "again",
    ]


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
