"""Where the time goes: seconds by stage, taken only while somebody listens.

A stage is marked where it happens, ``with stopwatch("fusion"):`` or ``@stopwatch("fusion")``, and costs well under a
microsecond as long as nobody listens. Stages may nest; each is told its own time without that of the stages inside it,
so that stages add up.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

Item = TypeVar("Item")


@dataclass
class _OpenStage:
    name: str
    started: float
    seconds_inside: float = 0.0


@dataclass
class _Listening:
    settle: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)
    open: list[_OpenStage] = field(default_factory=list)

    def begin(self, name: str) -> None:
        self.settle()
        self.open.append(_OpenStage(name, perf_counter()))

    def end(self) -> None:
        self.settle()
        stage = self.open.pop()
        elapsed = perf_counter() - stage.started
        self.seconds[stage.name] = self.seconds.get(stage.name, 0.0) + elapsed - stage.seconds_inside
        if self.open:
            self.open[-1].seconds_inside += elapsed


_listening: ContextVar[_Listening | None] = ContextVar("_listening", default=None)


class _Stage(ContextDecorator):
    """Keeps nothing of a measurement itself, so that a decorated function may call itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        if (listening := _listening.get()) is not None:
            listening.begin(self._name)

    def __exit__(self, *error: object) -> None:
        if (listening := _listening.get()) is not None:
            listening.end()


def stopwatch(stage: str) -> _Stage:
    """What runs inside belongs to this stage; a context manager and a decorator."""
    return _Stage(stage)


def stopped_items(stage: str, items: Iterable[Item]) -> Iterator[Item]:
    """The same items; getting each of them belongs to the stage, what is done with them does not."""
    iterator = iter(items)
    while True:
        with stopwatch(stage):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


@contextmanager
def listen(settle: Callable[[], None] = lambda: None) -> Iterator[dict[str, float]]:
    """Take the times of all stages run inside, in this thread.

    Args:
        settle: called before each reading of the clock; where work is only queued it waits for the work's end.

    Yields:
        Seconds by stage, updated at the end of each.
    """
    listening = _Listening(settle)
    token = _listening.set(listening)
    try:
        yield listening.seconds
    finally:
        _listening.reset(token)
