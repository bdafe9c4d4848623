"""The night by a schedule, for where there is no cron: one process that waits, and one for each night."""

import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from shared.errors import UsageError

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
    from apscheduler.triggers.cron import CronTrigger

    try:
        trigger = CronTrigger.from_crontab(cron, timezone="UTC")
    except ValueError as error:
        raise UsageError(f"--cron {cron!r}: {error}; write five fields, such as '0 3 * * *'") from None
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
