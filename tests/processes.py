"""Processes that a test starts; none outlives its test, whatever becomes of it."""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FORKED = multiprocessing.get_context("forkserver")
"""Processes of their own that need not import torch: they are forked from one that has nothing but imported it."""
FORKED.set_forkserver_preload(["trainer.nightly.job", "trainer.linear_teacher"])


def command_line(
    words: Sequence[object], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``mts4mm`` with the given words, in a process of its own, and wait for it.

    Raises:
        subprocess.TimeoutExpired: it has not ended in so many seconds, and was killed.
    """
    given = list(map(str, words))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = FORKED.Process(target=_command_line, args=(given, dict(environment), Path.cwd(), out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(given, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(given, process.exitcode, out.read_text(), err.read_text())


def _command_line(words: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from trainer.cli.app import main  # which asks the environment how wide the terminal is

    for stream, place in enumerate((Path(os.devnull), out, err)):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT, 0o600), stream)
    sys.argv = ["mts4mm", *words]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # a forked process ends without


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
