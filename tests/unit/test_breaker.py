"""The breaker asks a Redis that failed once a second, and by one caller."""

from collections.abc import Callable

import pytest
import redis

from shared.state import StateUnavailable
from shared.state.breaker import OPEN_SECONDS, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_lets_one_try_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    begun: list[str] = []

    def fail() -> None:
        begun.append("fail")
        raise redis.TimeoutError("slow")

    def tries(work: Callable[[], object]) -> bool:
        met = len(begun)
        with pytest.raises(StateUnavailable):
            breaker.call(work)
        return len(begun) > met

    assert breaker.call(lambda: 7) == 7
    assert tries(fail)
    assert not breaker.closed
    assert not tries(fail)
    clock.now += OPEN_SECONDS * 0.99
    assert not tries(fail)
    clock.now += OPEN_SECONDS * 0.02
    assert tries(fail)
    assert not tries(fail)

    clock.now += OPEN_SECONDS * 1.01

    def probe() -> str:
        assert not tries(fail), "while one tries, no other does"
        return "back"

    assert breaker.call(probe) == "back"
    assert breaker.closed
    assert breaker.call(lambda: 8) == 8


def test_a_mistake_of_the_caller_neither_opens_the_breaker_nor_jams_it() -> None:
    clock = Clock()
    breaker = Breaker(clock)

    def die() -> None:
        raise redis.ConnectionError

    def err() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        breaker.call(err)
    assert breaker.closed
    with pytest.raises(StateUnavailable):
        breaker.call(die)
    clock.now += OPEN_SECONDS
    with pytest.raises(KeyError):
        breaker.call(err)
    clock.now += OPEN_SECONDS
    assert breaker.call(lambda: 1) == 1
