"""Processes that a test starts; none outlives its test, whatever becomes of it."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def started(command: Sequence[object], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """Run a command beside the test, in a process group of its own, which is killed at the end.

    ``with subprocess.Popen(...)`` waits at its end instead: for ever, if a failed assertion came before the command was
    told to stop.

    Args:
        command: its words.
        options: of ``subprocess.Popen``.
    """
    process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
