"""The live model follows ``CURRENT``, and lets requests finish on theirs."""

import gc
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.live_model import LiveModel, SwapResult
from service.queries import Query
from shared import artifact
from tests.unit.service.live_model.models import Followed, count_loads, publish, tags


def test_an_empty_store_has_no_engine_until_the_first_model_is_published(store: Path) -> None:
    model = LiveModel(store, 60)
    result = model.refresh()
    assert (result.outcome, result.wanted, result.before, result.after, result.reason) == (
        *("unchanged", None, None, None, None),
    )
    assert model.engine is None
    assert model.version is None

    version = publish(store, "first")
    result = model.refresh()

    assert (result.outcome, result.wanted, result.before, result.after) == ("swapped", version, None, version)
    assert result.seconds > 0
    assert model.engine is not None
    assert tags(model.engine.recommend(Query("user 3"))) == {"first"}


def test_the_current_version_is_followed_forth_and_back(store: Path, live: Followed) -> None:
    assert live.model.refresh().outcome == "unchanged"
    second = publish(store, "second", seed=2)

    swapped = live.model.refresh()
    assert (swapped.outcome, swapped.before, swapped.after) == ("swapped", live.version, second)
    assert live.model.refresh().outcome == "unchanged"
    artifact.rollback(store)
    back = live.model.refresh()

    assert (back.outcome, back.before, back.after) == ("swapped", second, live.version)
    assert live.answers()
    assert live.reports == [swapped, back]


def test_a_version_that_is_published_and_not_activated_stays_out(store: Path, live: Followed) -> None:
    second = publish(store, "second")
    artifact.activate(store, live.version)
    assert live.model.refresh().outcome == "unchanged"

    artifact.activate(store, second)
    assert live.model.refresh().after == second


def test_an_engine_taken_before_a_swap_answers_on_and_is_freed_when_let_go(store: Path, live: Followed) -> None:
    taken = live.model.engine
    assert taken is not None
    expected = taken.recommend(Query("user 3", k=30))
    freed = weakref.ref(taken)
    for round_ in range(3):
        publish(store, f"later{round_}", seed=round_)
        live.model.refresh()
    shutil.rmtree(store / live.version)

    assert taken.recommend(Query("user 3", k=30)) == expected
    assert live.model.version != live.version
    gc.collect()
    assert freed() is taken

    del taken
    gc.collect()
    assert freed() is None


@pytest.mark.slow
def test_a_hundred_swaps_fail_no_request_and_mix_no_answer(store: Path) -> None:
    tag_of = {publish(store, tag, seed): tag for seed, tag in enumerate(("north", "south", "west"))}
    model = LiveModel(store, 60)
    model.refresh()
    done = threading.Event()

    def read(reader: int) -> set[str]:
        met = set()
        while not done.is_set():
            engine = model.engine
            assert engine is not None
            version = engine.artifact.manifest.version
            answer = engine.recommend(Query(f"user {1 + reader}", k=20))
            assert len(answer.items) == 20
            assert tags(answer) == {tag_of[version]}
            met.add(version)
            time.sleep(0.01)  # else the swaps wait for the interpreter most of the time
        return met

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, reader) for reader in range(8)]
        try:
            swaps = 0
            while swaps < 100:
                for version in tag_of:
                    artifact.activate(store, version)
                    swaps += model.refresh().outcome == "swapped"
        finally:
            done.set()
        for reader in readers:
            assert reader.result() == set(tag_of)


def test_many_refreshes_at_once_load_once(store: Path, live: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    second = publish(store, "second")
    loads = count_loads(monkeypatch)
    barrier = threading.Barrier(8)

    def refresh() -> SwapResult:
        barrier.wait(10)
        return live.model.refresh()

    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(refresh) for _ in range(8)]]

    assert sorted(result.outcome for result in results) == ["swapped"] + ["unchanged"] * 7
    assert {result.after for result in results} == {second}
    assert loads == [second]
