"""The log of events: every event in it once, wherever the one who moves them there is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from shared.errors import UserError
from shared.events import Event, encode
from shared.state import Recorded, UserState, open_state
from trainer.cli.app import app
from trainer.nightly.drain import Drained, drain
from trainer.nightly.event_log import EventLog, Selection, as_frame
from trainer.nightly.imports import read_events, read_time
from trainer.nightly.removal import Removed, remove_events

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TYPES = ["view", "purchase"]


def event(number: int, *, days: int = 0, user: str = "ann") -> Event:
    return Event(
        event_id=f"e{number}",
        user_id=user,
        item_id=f"i{number % 7}",
        type="view",
        timestamp=NOON + timedelta(days=days, seconds=number),
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[UserState]:
    with open_state(None, tmp_path / "s") as opened:
        yield opened


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log")


def ids(log: EventLog) -> list[str]:
    return log.read()["event_id"].to_list()


def test_a_drain_moves_what_the_state_counted_and_trims(state: UserState, log: EventLog) -> None:
    state.record([event(1), event(2, days=1), event(1)])
    assert drain(state, log) == Drained(new=2)
    assert len(state.event_stream) == 0
    assert ids(log) == ["e1", "e2"]
    assert {path.parent.name for path in log.folder.glob("date=*/*")} == {"date=2026-03-01", "date=2026-03-02"}
    state.record([event(3)])
    assert drain(state, log) == Drained(new=1)
    assert drain(state, log) == Drained()


def test_events_come_back_as_they_were(state: UserState, log: EventLog) -> None:
    sent = event(5).model_copy(update={"weight": 0.5, "value": 9.9, "recommendation_id": "r", "user_id": "ü\n"})
    state.record([sent])
    drain(state, log)
    (row,) = log.read().to_dicts()
    assert Event.model_validate(row) == sent


def test_the_log_knows_ids_that_redis_has_forgotten(state: UserState, log: EventLog) -> None:
    log.append(as_frame([event(1)]))
    state.record([event(1).model_copy(update={"timestamp": NOON + timedelta(days=9)}), event(2)])
    assert drain(state, log) == Drained(new=1, repeated=1)
    assert ids(log) == ["e1", "e2"]


def test_a_redis_that_lost_its_data_is_read_from_its_beginning(state: UserState, log: EventLog) -> None:
    log.append(as_frame([event(1)]), position="99999999999999-0")
    state.record([event(2)])
    assert drain(state, log) == Drained(new=1)
    assert ids(log) == ["e1", "e2"]


def test_a_redis_whose_clock_is_behind_loses_nothing(state: UserState, log: EventLog) -> None:
    """The log came further than the first of these entries, with another Redis."""
    log.append(as_frame([event(1)]), position="2000000000000-0")
    for number, position in ((2, "1999999990000-0"), (3, "2000000000000-0"), (4, "2000000001000-0")):
        state._client.xadd("mts4mm:events", {"e": encode(event(number))}, id=position)
    assert drain(state, log) == Drained(new=3)
    assert ids(log) == ["e1", "e2", "e3", "e4"]
    assert len(state.event_stream) == 0


def test_what_is_no_event_is_set_aside(state: UserState, log: EventLog) -> None:
    state._client.xadd("mts4mm:events", {"e": "no event"})
    state.record([event(1)])
    assert drain(state, log) == Drained(new=1, unreadable=1)
    assert (log.folder / "unreadable.jsonl").read_text() == "no event\n"


DRAIN = """
import sys
from pathlib import Path
from shared.state import open_state
from trainer.nightly import drain
drain.EVENTS_PER_COMMIT = 1000
with open_state(None, Path(sys.argv[1])) as state:
    drain.drain(state, drain.EventLog(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("point", ["log:written", "log:committed", "log:trimmed"])
def test_killed_anywhere_it_loses_nothing_and_has_nothing_twice(
    state: UserState, log: EventLog, tmp_path: Path, point: str
) -> None:
    events = [event(number, days=number % 3) for number in range(2500)]
    for start in range(0, 2500, 500):
        state.record(events[start : start + 500])
    command = [sys.executable, "-c", DRAIN, str(tmp_path / "s"), str(log.folder)]
    for _ in range(2):
        killed = subprocess.run(command, env={**os.environ, "MTS4MM_FAULT": point}, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert len(set(ids(log))) == len(ids(log))
    assert subprocess.run(command, timeout=60).returncode == 0
    assert sorted(ids(log)) == sorted(each.event_id for each in events)
    assert len(state.event_stream) == 0
    counted = {str(log.folder / name) for name in json.loads((log.folder / "log.json").read_text())["files"]}
    assert counted == {str(path) for path in log.folder.glob("date=*/*")}
    assert len(list(log.folder.glob("uncounted/date=*/*"))) == (6 if point == "log:written" else 0)


def test_without_its_table_of_contents_nothing_is_removed(log: EventLog) -> None:
    log.append(as_frame([event(1), event(2, days=1)]))
    contents = (log.folder / "log.json").read_bytes()
    (log.folder / "log.json").unlink()
    for use in (log.read, lambda: log.append(as_frame([event(3)])), lambda: log.remove(Selection(), dry_run=True)):
        with pytest.raises(UserError, match=r"log\.json: is missing, and without it nobody knows .*the whole folder"):
            use()
    (log.folder / "log.json").write_bytes(contents)
    assert ids(log) == ["e1", "e2"]


def test_what_came_after_a_restored_table_of_contents_is_kept_and_can_be_imported(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.append(as_frame([event(1)]))
    older = (log.folder / "log.json").read_bytes()
    log.append(as_frame([event(2), event(3, user="bob"), event(4, days=1)]))
    (log.folder / "log.json").write_bytes(older)
    assert log.append(as_frame([event(5), event(2)])).new == 2
    assert ids(log) == ["e1", "e2", "e5"]
    assert "2 files that log.json does not name do not count and are kept in uncounted/" in caplog.text

    for path in log.folder.glob("uncounted/date=*/*"):
        events, bad = read_events(path, TYPES)
        assert not bad
        log.append(as_frame(events))
    assert ids(log) == ["e1", "e2", "e3", "e5", "e4"]


def test_forgotten_users_are_gone_from_files_that_do_not_count(log: EventLog) -> None:
    """Of two that a forgetting left, which was killed when it was done and not yet tidy, and a damaged one."""
    log.append(as_frame([event(1), event(2, user="bob"), event(3, days=1)]))
    program = (
        "from datetime import datetime; from pathlib import Path; from trainer.nightly.event_log import EventLog;"
        f"EventLog(Path({str(log.folder)!r})).forget({{'ann': datetime.fromisoformat('2026-04-01T00:00:00Z')}})"
    )
    environment = {**os.environ, "MTS4MM_FAULT": "log:committed"}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    damaged = log.folder / "uncounted" / "date=2026-03-05" / "part-0.parquet"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("no table")
    assert log.forget({"ann": NOON + timedelta(days=30)}) == 0
    left = [path for path in log.folder.rglob("*.parquet") if path != damaged]
    assert [pl.read_parquet(path)["event_id"].to_list() for path in left] == [["e2"], ["e2"]]
    assert ids(log) == ["e2"]
    assert damaged.exists()


def test_what_is_somebody_else_s_in_the_folder_stays(log: EventLog) -> None:
    others = [log.folder / "date=2025-01-01" / "clicks.parquet", log.folder / "removed" / "notes.txt"]
    for path in others:
        path.parent.mkdir()
        path.write_text("ours")
    log.append(as_frame([event(1)]))
    log.remove(Selection(users=("ann",)))
    log.append(as_frame([event(2)]))
    assert [path.read_text() for path in others] == ["ours", "ours"]
    assert ids(log) == ["e2"]


def test_a_folder_s_name_may_have_what_patterns_have(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "shop[1]*")
    for number in (1, 2, 1):
        log.append(as_frame([event(number)]))
    assert ids(log) == ["e1", "e2"]
    assert log.stats()["events"] == 2


def test_a_damaged_file_is_named(log: EventLog) -> None:
    log.append(as_frame([event(1)]))
    (path,) = log.folder.glob("date=*/*")
    os.truncate(path, path.stat().st_size // 2)
    gone = {"ann": NOON + timedelta(days=1)}
    for use in (log.read, log.stats, lambda: log.append(as_frame([event(2)])), lambda: log.forget(gone)):
        with pytest.raises(UserError, match=rf"{path.name}: is damaged .*restore it"):
            use()
    path.unlink()
    for use in (log.read, lambda: log.append(as_frame([event(2)])), lambda: log.forget(gone)):
        with pytest.raises(UserError, match=rf"{path.name}: this file of the log is missing: restore it"):
            use()


def test_whoever_reads_while_events_are_removed_reads_on(log: EventLog) -> None:
    """A file that is written anew without what was removed takes the place of one that a reader was told of."""
    log.append(as_frame([event(number, user=f"user {number}") for number in range(60)]))
    read = []

    def reading() -> None:
        while len(log.read()) > 1:
            read.append(True)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(reading)
        for number in range(59):
            log.remove(Selection(users=(f"user {number}",)))
        reader.result()
    assert read


def test_forgotten_users_are_gone_from_the_disk(log: EventLog) -> None:
    events = [event(1), event(2, user="bob"), event(3, days=1), event(4, days=2)]
    log.append(as_frame(events), position="5-0")
    before = {path.name for path in log.folder.glob("date=*/*")}
    assert log.forget({"ann": NOON + timedelta(days=1, hours=1), "nobody": NOON}) == 2
    assert ids(log) == ["e2", "e4"]
    assert log.position == "5-0"
    on_disk = pl.concat([pl.read_parquet(path) for path in log.folder.glob("date=*/*")])
    assert sorted(on_disk["event_id"]) == ["e2", "e4"]
    assert len(before & {path.name for path in log.folder.glob("date=*/*")}) == 1, "untouched days stay as they are"


def test_reading_from_a_moment_on(log: EventLog) -> None:
    log.append(as_frame([event(1), event(2), event(3, days=1)]))
    assert log.read(NOON + timedelta(seconds=2))["event_id"].to_list() == ["e2", "e3"]


def test_files_of_every_kind_are_imported_and_bad_rows_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "user_id,item_id,type,timestamp,value\n"
        "1,i1,view,2026-03-01T12:00:00Z,2.5\n"
        "2,i1,view,1700000000,\n"
        "3,,view,2026-03-01,\n"
        "4,i2,stare,2026-03-01,\n"
        "5,i2,view,soon,much\n"
    )
    events, bad = read_events(tmp_path / "a.csv", TYPES)
    assert [(each.user_id, each.value) for each in events] == [("1", 2.5), ("2", None)]
    assert events[1].timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert [each.row for each in bad] == [4, 5, 6]
    assert "item_id: Field required" in bad[0].reason
    assert "no event type 'stare'" in bad[1].reason
    assert [each.partition(":")[0] for each in bad[2].reason.split("; ") if ": " in each] == ["timestamp", "value"]
    assert "'soon' is no time" in bad[2].reason
    again, _ = read_events(tmp_path / "a.csv", TYPES)
    assert [each.event_id for each in again] == [each.event_id for each in events]
    (tmp_path / "b.jsonl").write_text('{"user_id": "u"\n[]\n' + event(1).model_dump_json() + "\n")
    events, bad = read_events(tmp_path / "b.jsonl", TYPES)
    assert events == [event(1)]
    assert [each.row for each in bad] == [1, 2]
    as_frame([event(1), event(2)]).write_parquet(tmp_path / "c.parquet")
    assert read_events(tmp_path / "c.parquet", TYPES) == ([event(1), event(2)], [])
    with pytest.raises(UserError, match=r"\.csv, \.jsonl or \.parquet"):
        read_events(tmp_path / "d.xlsx", TYPES)


@pytest.mark.parametrize("rows", ["", "1,u,i,view,2026-03-01\n"])
def test_a_header_without_the_fields_of_an_event_is_the_fault_of_no_row(tmp_path: Path, rows: str) -> None:
    (tmp_path / "a.csv").write_text("event_id,user,item_id,action,timestamp\n" + rows)
    with pytest.raises(UserError, match=r"a\.csv: no column 'user_id', 'type'; there are: 'event_id', 'user'"):
        read_events(tmp_path / "a.csv", TYPES)


@pytest.mark.parametrize("said", ["[1]", "{}", "1" + 400 * "0", '"much"'])
@pytest.mark.parametrize("name", ["value", "weight"])
def test_what_is_no_number_is_the_fault_of_its_row(tmp_path: Path, name: str, said: str) -> None:
    row = '{"user_id": "u", "item_id": "i", "type": "view", "timestamp": "2026-03-01", "%s": %s}'
    (tmp_path / "a.jsonl").write_text("\n".join([row % (name, said), row % (name, "1.5")]))
    events, bad = read_events(tmp_path / "a.jsonl", TYPES)
    assert [getattr(each, name) for each in events] == [1.5]
    assert [each.row for each in bad] == [1]
    assert bad[0].reason.startswith(f"{name}: ")
    assert "is no number" in bad[0].reason
    assert len(bad[0].reason) < 100


@pytest.mark.parametrize("said", ["20261124", "2026-11-24", "2026-11-24T00:00Z", "1795478400", 1795478400.0])
def test_a_day_written_without_dashes_is_no_moment_of_1970(said: object) -> None:
    assert read_time(said) == datetime(2026, 11, 24, tzinfo=UTC)


def test_a_year_alone_is_no_time() -> None:
    with pytest.raises(ValueError, match="'2026' is no time; write 2026-"):
        read_time("2026")


def test_the_command_imports_all_or_nothing_and_says_what_is_there(tmp_path: Path) -> None:
    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "trainer.cli", "events", *map(str, words), "--models", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    rows = [event(1).model_dump_json(), "{}", event(2).model_dump_json(), event(1).model_dump_json()]
    (tmp_path / "e.jsonl").write_text("\n".join(rows))
    refused = run("import", tmp_path / "e.jsonl")
    assert refused.returncode == 1
    assert "1 of 4 rows are no events" in " ".join(refused.stderr.split())
    for expected in (
        {"new": 2, "repeated": 0, "repeated_in_file": 1},
        {"new": 0, "repeated": 2, "repeated_in_file": 1},
    ):
        done = json.loads(run("import", tmp_path / "e.jsonl", "--skip-bad", "--json").stdout)
        assert {name: done[name] for name in expected} == expected
        assert [each["row"] for each in done["bad"]] == [2]
    found = json.loads(run("stats", "--json").stdout)
    assert (found["events"], found["types"], found["days"]) == (2, {"view": 2}, {"2026-03-01": 2})


def test_removed_events_are_gone_for_the_training_and_for_answers_and_never_come_back(
    state: UserState, log: EventLog, tmp_path: Path
) -> None:
    bot = [event(number, user="bot", days=number % 2) for number in range(20, 30)]
    hidden = event(40, user="bot").model_copy(update={"type": "hide"})
    state.record([event(1), event(2, user="bob"), *bot[:6], hidden])
    drain(state, log)
    state.record(bot[6:])  # still in the stream when they are removed

    wanted = Selection(users=("bot",), since=NOON)
    counted = remove_events(lambda: nullcontext(state), log, wanted, dry_run=True)
    assert (counted.events, counted.users, counted.known) == (11, 1, 0)
    assert (len(ids(log)), len(state.event_stream)) == (9, 4), "a dry run leaves what waits where it is"
    assert remove_events(lambda: nullcontext(state), log, wanted) == Removed(11, 1, 7, known=11)

    assert ids(log) == ["e1", "e2"]
    (of_bot, of_ann) = state.recent(["bot", "ann"])
    assert (of_bot.events, of_bot.hidden) == ([], {})
    assert len(of_ann.events) == 1
    assert log.stats()["removed"] == 11
    assert log.stats()["removals"][0]["users"] == ["bot"]
    assert state.record([bot[0]]) == [Recorded.REPEATED]
    with open_state(None, tmp_path / "another") as forgetful:  # a Redis that lost its memory of ids
        forgetful.record([*bot, event(3)])
        assert drain(forgetful, EventLog(log.folder)) == Drained(new=1, repeated=10)
    assert ids(log) == ["e1", "e2", "e3"]


def test_a_dry_run_counts_no_event_twice(state: UserState, log: EventLog) -> None:
    """One that a drain brought which was killed before it trimmed the stream."""
    state.record([event(1), event(2), event(3, user="bob")])
    log.append(as_frame([event(1)]))
    wanted = Selection(users=("ann",))
    assert remove_events(lambda: nullcontext(state), log, wanted, dry_run=True) == Removed(2, 1, 2)


def test_events_are_removed_from_a_log_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTS4MM_STATE", str(tmp_path / "s"))
    words = ["events", "remove", "--user", "ann", "--models", str(tmp_path), "--log"]
    for folder in (tmp_path / "none", tmp_path):
        refused = CliRunner().invoke(app, [*words, str(folder)])
        assert isinstance(refused.exception, UserError)
        assert f"{folder}: there is no log of events (log.json); give the nights' own with --log" in str(
            refused.exception
        )
    assert not (tmp_path / "none").exists()
    EventLog(tmp_path / "log").append(as_frame([event(1)]))
    assert CliRunner().invoke(app, [*words, str(tmp_path / "log")]).exit_code == 0
    assert ids(EventLog(tmp_path / "log")) == []


def test_events_of_blank_ids_that_were_let_in_once_can_be_removed(state: UserState, log: EventLog) -> None:
    log.append(as_frame([event(1), event(2).model_copy(update={"user_id": " "})]))
    assert remove_events(lambda: nullcontext(state), log, Selection(users=(" ",))).events == 1
    assert ids(log) == ["e1"]


def test_a_selection_takes_what_all_of_it_is_true_of(log: EventLog) -> None:
    log.append(as_frame([event(1), event(2), event(3, days=1), event(4, user="bob")]))
    tomorrow = NOON + timedelta(days=1)
    for selection, expected in (
        (Selection(users=("ann",), items=("i1", "i3")), ["e1", "e3"]),
        (Selection(until=tomorrow, users=("ann",)), ["e1", "e2"]),
        (Selection(since=tomorrow), ["e3"]),
        (Selection(types=("purchase",)), []),
    ):
        assert log.remove(selection, dry_run=True)["event_id"].to_list() == expected


def test_what_was_removed_since_a_moment_is_known(log: EventLog) -> None:
    """By what was asked for: the files are written anew when somebody is forgotten."""
    log.append(as_frame([event(1), event(2, user="bob"), event(3, days=3), event(4, days=5)]))
    assert log.removed().is_empty()
    log.remove(Selection(users=("bob",)))
    between = datetime.now(UTC)
    log.remove(Selection(types=("view",), since=NOON + timedelta(days=2), until=NOON + timedelta(days=4)))
    assert sorted(log.removed()["event_id"]) == ["e2", "e3"]
    assert log.removed(between)["event_id"].to_list() == ["e3"]
    assert log.removed(datetime.now(UTC)).is_empty()


def test_who_is_forgotten_is_forgotten_among_removed_events_too(log: EventLog) -> None:
    log.append(as_frame([event(1), event(2, user="bob")]))
    log.remove(Selection(users=("ann",)))
    assert log.forget({"ann": NOON + timedelta(days=1)}) == 1
    assert list(log.folder.glob("removed/*")) == []
    assert log.stats()["removed"] == 0


def test_a_removal_that_is_killed_removed_all_or_nothing(log: EventLog) -> None:
    log.append(as_frame([event(number) for number in range(5)]))
    program = (
        "from pathlib import Path; from trainer.nightly.event_log import EventLog, Selection;"
        f"EventLog(Path({str(log.folder)!r})).remove(Selection(users=('ann',)))"
    )
    environment = {**os.environ, "MTS4MM_FAULT": "log:written"}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(ids(log)) == 5
    assert log.append(as_frame([event(1), event(9)])).new == 1
    assert list(log.folder.glob("removed/*")) == []
    assert len(list(log.folder.glob("uncounted/removed/*"))) == 1
