"""Many who ask at once share a round trip, and each gets the answer that is theirs."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.gathering import MOST, Gathering


class _Trips:
    """Asks nobody; notes who was asked for together. The first trip waits until it is let go."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self.threads: set[int] = set()
        self.let_go = threading.Event()

    def __call__(self, user_ids: Sequence[str]) -> list[str]:
        self.trips.append(list(user_ids))
        self.threads.add(threading.get_ident())
        assert self.let_go.wait(10)
        if "bad" in user_ids:
            raise LookupError("no trip")
        return [user_id.upper() for user_id in user_ids]


async def under_way(trips: _Trips, count: int = 1) -> None:
    """Wait until so many trips have begun."""
    while len(trips.trips) < count:
        await asyncio.sleep(0.001)


def test_who_asks_while_a_trip_is_under_way_shares_the_next_one() -> None:
    async def all_of_them() -> list[str]:
        first = asyncio.create_task(gathering("a"))
        await under_way(trips)
        others = [asyncio.create_task(gathering(f"u{place}")) for place in range(MOST + 3)]
        await asyncio.sleep(0)
        trips.let_go.set()
        return await asyncio.gather(first, *others)

    trips = _Trips()
    gathering = Gathering(trips)
    asked = [f"u{place}" for place in range(MOST + 3)]
    assert asyncio.run(all_of_them()) == ["A", *(user_id.upper() for user_id in asked)]
    assert trips.trips == [["a"], asked[:MOST], asked[MOST:]]
    assert len(trips.threads) == 1
    assert threading.get_ident() not in trips.threads


def test_a_failed_trip_fails_for_those_on_it_alone() -> None:
    async def all_of_them() -> None:
        first = asyncio.create_task(gathering("bad"))
        await under_way(trips)
        second = asyncio.create_task(gathering("b"))
        await asyncio.sleep(0)
        trips.let_go.set()
        with pytest.raises(LookupError):
            await first
        assert await second == "B"

    trips = _Trips()
    gathering = Gathering(trips)
    asyncio.run(all_of_them())


def test_who_gave_up_waiting_keeps_nobody_from_an_answer() -> None:
    async def all_of_them() -> None:
        first, second = asyncio.create_task(gathering("a")), asyncio.create_task(gathering("b"))
        await under_way(trips)
        second.cancel()
        third = asyncio.create_task(gathering("c"))
        await asyncio.sleep(0)
        first.cancel()
        trips.let_go.set()
        assert await third == "C"
        assert first.cancelled()
        assert second.cancelled()

    trips = _Trips()
    gathering = Gathering(trips)
    asyncio.run(all_of_them())
