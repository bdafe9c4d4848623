"""``mts4mm schedule`` as a process: it waits, runs the night in another process, and ends both on SIGTERM."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.errors import UsageError
from trainer.nightly.schedule import cron_trigger, run_by_schedule

EVERY_SECOND = """
import sys
from apscheduler.triggers.cron import CronTrigger
from trainer.nightly.schedule import run_by_schedule

CronTrigger.from_crontab = lambda cron, timezone: CronTrigger(second="*", timezone=timezone)
run_by_schedule("0 3 * * *", [sys.executable, "-c", sys.argv[1]], lambda said: print(said, flush=True))
"""
NIGHT = """
import signal, sys, time
from pathlib import Path

def end(*_):
    Path({ended!r}).write_text("told")
    sys.exit(143)

signal.signal(signal.SIGTERM, end)
with Path({begun!r}).open("a") as file:
    file.write("begun ")
time.sleep({seconds})
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_ends_a_schedule_that_waits() -> None:
    command = [sys.executable, "-m", "trainer.cli", "schedule", "nowhere", "--cron", "0 3 1 1 *"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "waiting for" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert "stopped" in process.stderr.read()


def test_sigterm_ends_the_night_that_is_going_on_and_there_is_never_a_second_one(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    night = NIGHT.format(begun=str(begun), ended=str(ended), seconds=60)
    process = subprocess.Popen([sys.executable, "-c", EVERY_SECOND, night], stdout=subprocess.PIPE, text=True)
    wait_for(begun)
    time.sleep(2.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert ended.read_text() == "told"
    assert begun.read_text() == "begun "
    assert "ended with exit code 143" in process.communicate()[0]


@pytest.mark.parametrize(
    ("weekdays", "fires"),
    [
        ("*", "Mon Tue Wed Thu Fri Sat Sun"),
        ("0", "Sun"),
        ("7", "Sun"),
        ("1", "Mon"),
        ("1-5", "Mon Tue Wed Thu Fri"),
        ("5-7", "Fri Sat Sun"),
        ("0-2,4", "Mon Tue Thu Sun"),
        ("*/2", "Tue Thu Sat Sun"),
        ("1-6/2", "Mon Wed Fri"),
        ("3/2", "Wed Fri"),
        ("sat,SUN", "Sat Sun"),
        ("sun-tue", "Mon Tue Sun"),
        ("fri-sun", "Fri Sat Sun"),
    ],
)
def test_weekdays_are_those_of_cron(weekdays: str, fires: str) -> None:
    found = nights(f"0 3 * * {weekdays}", datetime(2026, 11, 30, tzinfo=UTC))
    assert [f"{night:%a}" for night in found] == fires.split()


@pytest.mark.parametrize(
    ("days", "fires"),
    [("1 * 1", [1, 7, 14, 21, 28]), ("*/10 * 1", [21]), ("1 * *", [1]), ("7,9 * mon", [7, 9, 14, 21, 28])],
)
def test_days_of_the_month_and_of_the_week_add_up_as_in_cron(days: str, fires: list[int]) -> None:
    found = nights(f"0 3 {days}", datetime(2027, 1, 1, tzinfo=UTC))
    assert [night.day for night in found if night.month == 12] == fires


def nights(cron: str, until: datetime) -> list[datetime]:
    trigger, moment, found = cron_trigger(cron), datetime(2026, 11, 23, tzinfo=UTC), []
    while (next_ := trigger.get_next_fire_time(None, moment)) < until:
        assert next_.hour == 3
        found.append(next_)
        moment = next_ + timedelta(minutes=1)
    return found


@pytest.mark.parametrize(
    "cron",
    ["every night", "", "0 3 * *", "0 3 30 2 *", *(f"0 3 * * {day}" for day in ("8", "4-2", "1/0", "1-", "-1", ","))],
)
def test_a_schedule_that_makes_no_sense_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="write five fields"):
        run_by_schedule(cron, ["true"], lambda said: None)
