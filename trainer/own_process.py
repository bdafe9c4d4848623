"""Work in a process of its own, so that its peak memory is its own and nobody else's."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from shared.errors import UserError
from trainer.training import Listener

Outcome = TypeVar("Outcome")

_STATUS = Path("/proc/self/status")
_PEAK, _FORGET_PEAK = Path("/proc/self/clear_refs"), "5"


def in_own_process(work: Callable[[Listener], Outcome], listener: Listener, name: str, advice: str) -> Outcome:
    """Call ``work`` in a new process and wait for what it returns; the process dies with the call.

    Args:
        work: a function of the listener that it shall tell; it and what it returns can be pickled.
        listener: told here of what ``work`` tells there.
        name: of the work, for messages.
        advice: what to do if the process is killed.

    Raises:
        UserError: ``work`` raised it, or the process ended without an outcome.
    """
    context = multiprocessing.get_context("spawn")
    reports, speaker = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(speaker, work), name=name)
    process.start()
    speaker.close()
    try:
        with reports, suppress(EOFError):
            outcome: Outcome = _relay(reports, listener)
            return outcome
        process.join()
        raise UserError(
            f"{name}: its process ended with exit code {process.exitcode}"
            f"{', which is what lack of memory looks like' if process.exitcode == -9 else ''}; {advice}"
        )
    finally:
        process.terminate()
        process.join()


def own_memory_mb(*, peak: bool) -> float:
    """Resident memory of this process, in MB: now, or at its highest since :func:`forget_peak`, or since it began.

    Not ``getrusage``: there a child process begins with its parent's peak.
    """
    key = "VmHWM:" if peak else "VmRSS:"
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(key))
    return int(kilobytes) / 1024


def forget_peak() -> None:
    """Begin to look for the highest resident memory anew; a kernel that does not let us keeps the old one."""
    with suppress(OSError):
        _PEAK.write_text(_FORGET_PEAK, encoding="ascii")


def _relay(reports: Connection, listener: Listener) -> Any:
    """Pass on what the work tells until it has an outcome; raises what it died of."""
    while True:
        name, arguments = reports.recv()
        if name == "outcome":
            return arguments[0]
        if name == "error":
            raise arguments[0]
        getattr(listener, name)(*arguments)


def _work(speaker: Connection, work: Callable[[Listener], object]) -> None:
    def tell(name: str) -> Callable[..., None]:
        return lambda *arguments: speaker.send((name, arguments))

    listener = Listener(stage=tell("stage"), step=tell("step"), epoch=tell("epoch"))
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the one who would read the traceback is gone or told already
        try:
            tell("outcome")(work(listener))
        except UserError as error:
            tell("error")(error)
