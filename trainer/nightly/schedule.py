"""The night by a schedule, for where there is no cron: one process that waits, and one for each night."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from shared.errors import UsageError

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
"""As cron counts them, from 0; 7 is Sunday again."""
_WEEKDAY = f"[0-7]|{'|'.join(WEEKDAYS)}"
_SOME_WEEKDAYS = re.compile(rf"(?:\*|(?P<first>{_WEEKDAY})(?:-(?P<last>{_WEEKDAY}))?)(?:/(?P<step>[1-9]\d*))?")
STOP_SECONDS = 30.0
"""How long a night that is going on may take to end when the schedule does; it goes on with the next one."""


def run_by_schedule(cron: str, command: Sequence[str], say: Callable[[str], None]) -> None:
    """Run a command by a schedule until SIGTERM or SIGINT; one that is missed is run once, two never at a time.

    Args:
        cron: five fields, in UTC.
        command: what to run.
        say: told of every start and end.

    Raises:
        UsageError: the schedule makes no sense.
    """
    from apscheduler.schedulers.background import BackgroundScheduler

    trigger = cron_trigger(cron)
    ending = threading.Event()
    night = _Night(command, say)

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, end)
    scheduler = BackgroundScheduler(timezone="UTC")
    job = scheduler.add_job(night.run, trigger, max_instances=1, coalesce=True, misfire_grace_time=None)
    scheduler.start()
    say(f"waiting for {job.next_run_time:%Y-%m-%d %H:%M} UTC")
    ending.wait()
    scheduler.shutdown(wait=False)
    night.stop()
    say("stopped")


def cron_trigger(cron: str) -> BaseTrigger:
    """When a schedule of cron fires, in UTC: where days of the month and of the week are named, on each of both.

    Raises:
        UsageError: it makes no sense.
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    try:
        *others, weekdays = cron.split() or [""]
        fields = [*others, _named(weekdays)]
        if len(fields) == 5 and not others[2].startswith("*") and not weekdays.startswith("*"):
            either = [[*fields[:4], "*"], [*fields[:2], "*", *fields[3:]]]
        else:
            either = [fields]
        triggers = [CronTrigger.from_crontab(" ".join(each), timezone="UTC") for each in either]
        if all(each.get_next_fire_time(None, datetime.now(UTC)) is None for each in triggers):
            raise ValueError("there is no such day")
        return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)
    except ValueError as error:
        raise UsageError(f"--cron {cron!r}: {error}; write five fields, such as '0 3 * * *'") from None


def _named(weekdays: str) -> str:
    """Cron's field of weekdays by their names, because APScheduler counts them from Monday.

    >>> _named("1-5,7"), _named("5-7"), _named("*/3"), _named("Sun")
    ('mon,tue,wed,thu,fri,sun', 'fri,sat,sun', 'sun,wed,sat', 'sun')
    """
    days = [day for part in weekdays.lower().split(",") for day in _days(part)]
    return ",".join(dict.fromkeys(WEEKDAYS[day % 7] for day in days))


def _days(part: str) -> range:
    matched = _SOME_WEEKDAYS.fullmatch(part)
    if matched is None:
        raise ValueError(f"{part!r} is no day of the week, 0 to 7 or {', '.join(WEEKDAYS)}, and no range of them")
    first, last, step = (matched[name] for name in ("first", "last", "step"))
    begin = 0 if first is None else _day(first)
    end = _day(last) if last else 6 if step or first is None else begin
    if end == 0 < begin:
        end = 7
    if end < begin:
        raise ValueError(f"{part!r} ends before it begins")
    return range(begin, end + 1, int(step or 1))


def _day(said: str) -> int:
    return WEEKDAYS.index(said) if said in WEEKDAYS else int(said)


class _Night:
    """The command, while it runs."""

    def __init__(self, command: Sequence[str], say: Callable[[str], None]) -> None:
        self._command = command
        self._say = say
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self._process = subprocess.Popen(self._command)  # noqa: S603 - our own interpreter
        self._say("the night begins")
        self._say(f"the night ended with exit code {self._process.wait()}")

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
