"""``mts4mm schedule`` as a process: it waits, runs the night in another process, and ends both on SIGTERM."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_a_schedule_that_makes_no_sense_is_refused() -> None:
    from shared.errors import UsageError
    from trainer.nightly.schedule import run_by_schedule

    with pytest.raises(UsageError, match="write five fields"):
        run_by_schedule("every night", ["true"], lambda said: None)
