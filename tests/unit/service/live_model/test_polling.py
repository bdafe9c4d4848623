"""The thread that looks for another model by itself, and what is said of a swap."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.live_model import LiveModel, SwapResult
from tests.unit.service.live_model.models import Followed, publish


@pytest.fixture
def started(live: Followed) -> Iterator[Followed]:
    live.model.start()
    yield live
    live.model.stop()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def pollers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "live-model"}


def test_waking_the_poller_swaps_at_once(store: Path, started: Followed) -> None:
    second = publish(store, "second")
    time.sleep(0.05)
    assert started.model.version == started.version

    started.model.wake()

    eventually(lambda: started.model.version == second)


def test_the_poller_follows_by_itself_through_everything_that_goes_wrong(store: Path, tmp_path: Path) -> None:
    before = pollers()

    def fail(_: SwapResult) -> None:
        raise RuntimeError("no metrics today")

    model = LiveModel(store, 0.01, fail)
    model.start()
    try:
        first = publish(store, "first")
        eventually(lambda: model.version == first)
        store.rename(tmp_path / "away")
        eventually(lambda: model.last_refusal is not None)
        store.write_text("not a folder")
        eventually(lambda: "Not a directory" in getattr(model.last_refusal, "reason", ""))
        store.unlink()
        (tmp_path / "away").rename(store)
        eventually(lambda: model.last_refusal is None)
        second = publish(store, "second")
        eventually(lambda: model.version == second)
    finally:
        model.stop()
    assert pollers() == before


def test_what_the_callback_raises_is_logged_and_the_swap_stands(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: SwapResult) -> None:
        raise RuntimeError("no metrics today")

    version = publish(store, "first")
    model = LiveModel(store, 60, fail)

    assert model.refresh().after == version
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("no metrics today",)]


def test_it_can_be_stopped_and_started_any_number_of_times(store: Path, live: Followed) -> None:
    before = pollers()
    live.model.stop()
    for _ in range(3):
        live.model.start()
        live.model.start()
        assert len(pollers() - before) == 1
        live.model.stop()
        live.model.stop()
        assert pollers() == before
    live.model.start()
    second = publish(store, "second")
    live.model.wake()
    eventually(lambda: live.model.version == second)
    live.model.stop()
    assert live.model.engine is not None


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_that_cannot_be_waited_for_is_an_error(store: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="poll_seconds"):
        LiveModel(store, seconds)


def test_swaps_are_logged_with_both_versions(store: Path, live: Followed, caplog: pytest.LogCaptureFixture) -> None:
    second = publish(store, "second")
    with caplog.at_level(logging.INFO, "service.live_model"):
        live.model.refresh()
        live.model.refresh()
    [record] = caplog.records
    assert second in record.getMessage()
    assert live.version in record.getMessage()
