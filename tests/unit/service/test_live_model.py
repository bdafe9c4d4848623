"""The live model: it follows ``CURRENT``, lets requests finish on theirs, and takes nothing that is not sound."""

import gc
import hashlib
import json
import logging
import os
import resource
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service import live_model
from service.app import create_app
from service.engine import Engine
from service.live_model import LiveModel, SwapResult, check_answers
from service.queries import Query, Recommendation
from service.settings import Settings
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError

USERS, ITEMS, WIDTH = 12, 40, 8


def student(tag: str, seed: int) -> StudentModel:
    """Random embeddings, item ids that begin with ``tag``; the last user has no interaction, the first all."""
    dice = np.random.default_rng(seed)
    seen = [np.sort(dice.choice(ITEMS, 5, replace=False)) for _ in range(USERS)]
    seen[0], seen[-1] = np.arange(ITEMS), np.arange(0)
    return StudentModel(
        user_ids=[f"user {index}" for index in range(USERS)],
        item_ids=[f"{tag} {index}" for index in range(ITEMS)],
        user_embeddings=dice.normal(size=(USERS, WIDTH)),
        item_embeddings=dice.normal(size=(ITEMS, WIDTH)),
        train_indptr=np.cumsum([0, *map(len, seen)]),
        train_indices=np.concatenate(seen),
        items=[{"shop": tag}] * ITEMS,
    )


def publish(store: Path, tag: str, seed: int = 1) -> str:
    dataset = DatasetInfo(
        name=tag, fingerprint=tag, users=USERS, items=ITEMS, interactions=90, split=Split(kind="random", seed=1)
    )
    return artifact.publish(store, student(tag, seed), Provenance(dataset, {}, seed, {}))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


class Followed(NamedTuple):
    """A model that is live, and all it reported since."""

    model: LiveModel
    reports: list[SwapResult]
    version: str

    def answers(self) -> bool:
        """Whether it is still the first model that answers."""
        assert self.model.engine is not None
        answer = self.model.engine.recommend(Query("user 3", k=7))
        return self.model.version == self.version and tags(answer) == {"first"}


@pytest.fixture
def live(store: Path) -> Followed:
    version = publish(store, "first")
    reports: list[SwapResult] = []
    model = LiveModel(store, 60, reports.append)
    assert model.refresh().outcome == "swapped"
    reports.clear()
    return Followed(model, reports, version)


def tags(answer: Recommendation) -> set[str]:
    """Of which models the items of an answer are, by id and by metadata."""
    return {item.item_id.split()[0] for item in answer.items} | {(item.metadata or {})["shop"] for item in answer.items}


# Following CURRENT


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


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions loaded from now on."""
    loads: list[str] = []
    load = artifact.load

    def counted(store: Path, version: str) -> artifact.Artifact:
        loads.append(version)
        return load(store, version)

    monkeypatch.setattr(live_model.artifact, "load", counted)
    return loads


# What is refused


def truncate(version: Path) -> None:
    path = version / "item_embeddings.npy"
    os.truncate(path, path.stat().st_size - 1)


def flip(version: Path) -> None:
    content = bytearray((version / "user_embeddings.npy").read_bytes())
    content[-1] ^= 0x10
    (version / "user_embeddings.npy").write_bytes(content)


def reseal(version: Path) -> None:
    """Make the manifest fit the files as they are now, as a careful forger would."""
    document = json.loads((version / "manifest.json").read_text())
    for path in version.iterdir():
        if path.name != "manifest.json":
            content = path.read_bytes()
            document["files"][path.name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    del document["digest"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (version / "manifest.json").write_text(json.dumps(document))


def put_nan(version: Path) -> None:
    embeddings = np.load(version / "item_embeddings.npy")
    embeddings[3, 2] = np.nan
    np.save(version / "item_embeddings.npy", embeddings)
    reseal(version)


def shuffle_user_order(version: Path) -> None:
    """Users can no longer be found; loading takes the order on trust."""
    np.save(version / "user_ids_order.npy", np.load(version / "user_ids_order.npy")[::-1])
    reseal(version)


def shuffle_item_order(version: Path) -> None:
    np.save(version / "item_ids_order.npy", np.load(version / "item_ids_order.npy")[::-1])
    reseal(version)


def break_metadata(version: Path) -> None:
    """Every item's metadata is cut at the wrong place; loading reads none."""
    offsets = np.load(version / "items_offsets.npy")
    offsets[1:-1] += 1
    np.save(version / "items_offsets.npy", offsets)
    reseal(version)


def make_foreign(version: Path) -> None:
    shutil.rmtree(version)
    version.mkdir()
    (version / "model.pt").write_bytes(b"\x80\x04N.")


def make_a_link(version: Path) -> None:
    version.rename(version.parent.parent / "elsewhere")
    version.symlink_to(version.parent.parent / "elsewhere")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "item_embeddings.npy"),
    "a flipped bit": (flip, "user_embeddings.npy"),
    "NaN": (put_nan, "item_embeddings.npy"),
    "a missing file": (lambda version: (version / "train_indptr.npy").unlink(), "train_indptr.npy"),
    "no manifest": (lambda version: (version / "manifest.json").unlink(), "manifest.json"),
    "foreign": (make_foreign, "manifest.json"),
    "a link": (make_a_link, "symbolic link"),
    "gone": (lambda version: shutil.rmtree(version), "there is no such version"),
    "users that cannot be found": (shuffle_user_order, "when it was tried out"),
    "items that cannot be found": (shuffle_item_order, "when it was tried out"),
    "metadata that cannot be read": (break_metadata, "items.jsonl"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_bad_artefact_is_refused_once_and_the_old_one_stays(
    store: Path, live: Followed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    damage, said = DAMAGES[case]
    second = publish(store, "second")
    damage(store / second)
    loads = count_loads(monkeypatch)
    before = datetime.now(UTC)

    results = [live.model.refresh() for _ in range(3)]

    refusal = live.model.last_refusal
    assert refusal is not None
    assert refusal.version == second
    assert said in refusal.reason
    assert before <= refusal.when <= datetime.now(UTC)
    for result in results:
        assert (result.outcome, result.wanted, result.reason) == ("refused", second, refusal.reason)
        assert (result.before, result.after) == (live.version, live.version)
    assert live.answers()
    assert loads == [second]
    assert live.reports == results[:1]
    assert [(record.levelname, refusal.reason in record.getMessage()) for record in caplog.records] == [("ERROR", True)]


def test_a_refused_version_is_loaded_once_its_files_are_mended(store: Path, live: Followed) -> None:
    second = publish(store, "second")
    path = store / second / "item_embeddings.npy"
    sound = path.read_bytes()
    flip(store / second)
    path.write_bytes(sound[:-3])
    first_refusal = (live.model.refresh(), live.model.last_refusal)[1]

    path.write_bytes(sound)  # half mended: another file is still damaged
    result = live.model.refresh()
    assert result.outcome == "refused"
    assert "user_embeddings.npy" in (result.reason or "")
    assert live.model.last_refusal != first_refusal
    flip(store / second)

    assert live.model.refresh().after == second
    assert live.model.last_refusal is None
    assert [report.outcome for report in live.reports] == ["refused", "refused", "swapped"]


def test_a_version_that_is_copied_in_file_by_file_is_taken_when_it_is_whole(
    store: Path, live: Followed, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    second = publish(other, "second")
    (store / "CURRENT").write_text(f"{second}\n")
    assert live.model.refresh().outcome == "refused"
    (store / second).mkdir()
    files = sorted((other / second).iterdir())
    for path in files:
        result = live.model.refresh()
        assert (result.outcome, result.after) == ("refused", live.version)
        shutil.copy(path, store / second)

    assert live.model.refresh().after == second
    assert len(live.reports) == len(files) + 2


def test_activating_a_refused_version_again_tries_it_again(
    store: Path, live: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = publish(store, "second")
    flip(store / second)
    loads = count_loads(monkeypatch)
    for tries in (1, 2, 3):
        content = (store / "CURRENT").read_bytes()
        (store / "new").write_bytes(content)
        (store / "new").replace(store / "CURRENT")
        assert [live.model.refresh().outcome for _ in range(2)] == ["refused"] * 2
        assert loads == [second] * tries
    assert len(live.reports) == 3


def test_going_back_to_the_live_version_ends_a_refusal(store: Path, live: Followed) -> None:
    truncate(store / publish(store, "second"))
    assert live.model.refresh().outcome == "refused"

    artifact.rollback(store)

    assert live.model.refresh().outcome == "unchanged"
    assert live.model.last_refusal is None


@pytest.mark.parametrize("content", [b"", b"latest\n", b"../../etc\n", b"\xff\xfe\x00", b"x" * 100_000])
def test_a_current_that_names_no_version_is_refused_once(store: Path, live: Followed, content: bytes) -> None:
    (store / "CURRENT").write_bytes(content)

    results = [live.model.refresh() for _ in range(3)]

    assert {(result.outcome, result.wanted, result.after) for result in results} == {("refused", None, live.version)}
    assert live.model.last_refusal is not None
    assert "CURRENT" in live.model.last_refusal.reason
    assert len(live.reports) == 1
    assert live.answers()


@pytest.mark.parametrize("missing", ["CURRENT", "store"])
def test_without_current_or_store_the_model_stays_and_follows_when_they_are_back(
    store: Path, live: Followed, tmp_path: Path, missing: str
) -> None:
    gone = store if missing == "store" else store / "CURRENT"
    gone.rename(tmp_path / "away")

    assert [live.model.refresh().outcome for _ in range(3)] == ["refused"] * 3
    assert live.model.last_refusal is not None
    assert "CURRENT: is missing" in live.model.last_refusal.reason
    assert len(live.reports) == 1
    assert live.answers()

    (tmp_path / "away").rename(gone)
    assert live.model.refresh().outcome == "unchanged"
    assert live.model.last_refusal is None
    second = publish(store, "second")
    assert live.model.refresh().after == second


def test_with_nothing_live_yet_a_bad_artefact_is_refused_too(store: Path) -> None:
    version = publish(store, "first")
    flip(store / version)
    model = LiveModel(store, 60)

    result = model.refresh()

    assert (result.outcome, result.before, result.after) == ("refused", None, None)
    assert model.engine is None


def test_too_many_open_files_pass_and_are_reported_once(store: Path, live: Followed) -> None:
    second = publish(store, "second")
    with few_more_files(4):
        results = [live.model.refresh() for _ in range(3)]
    assert {(result.outcome, result.wanted) for result in results} == {("refused", second)}
    assert "Too many open files" in (results[0].reason or "")
    assert len(live.reports) == 1

    assert live.model.refresh().after == second


@contextmanager
def few_more_files(count: int) -> Iterator[None]:
    """Let this process open ``count`` more files and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, hard))
    filling = []
    try:
        with suppress(OSError):
            while True:
                filling.append(os.dup(0))
        for descriptor in filling[:count]:
            os.close(descriptor)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling[count:]:
            os.close(descriptor)


# The canary


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    store = tmp_path_factory.mktemp("sound")
    publish(store, "first")
    return artifact.load(store)


def with_items(answer: Recommendation, change: Callable[[list], list]) -> Recommendation:
    return replace(answer, items=change(list(answer.items)))


FALSE_ANSWERS: dict[str, tuple[Callable[[Recommendation, Engine, Query], Recommendation], str]] = {
    "one too few": (lambda answer, *_: with_items(answer, lambda items: items[:-1]), "19 different items"),
    "a duplicate": (lambda answer, *_: with_items(answer, lambda items: [*items[:-1], items[0]]), "19 different"),
    "NaN": (
        lambda answer, *_: with_items(answer, lambda items: [replace(items[0], score=float("nan")), *items[1:]]),
        "scores that are not",
    ),
    "another score": (
        lambda answer, *_: with_items(answer, lambda items: [replace(item, score=item.score + 0.01) for item in items]),
        "scores that are not",
    ),
    "a foreign item": (
        lambda answer, *_: with_items(answer, lambda items: [replace(items[0], item_id="second 1"), *items[1:]]),
        "'second 1', which it does not have",
    ),
    "another strategy": (lambda answer, *_: replace(answer, strategy="history"), "by 'history'"),
    "seen items": (
        lambda answer, engine, query: Engine.recommend(engine, replace(query, exclude_seen=False)),
        "item of the user's own",
    ),
    "not the best": (
        lambda answer, engine, query: with_items(
            Engine.recommend(engine, replace(query, k=ITEMS)), lambda items: items[-len(answer.items) :]
        ),
        "best items",
    ),
}


@pytest.mark.parametrize("case", FALSE_ANSWERS)
def test_an_engine_that_answers_falsely_fails_the_canary(sound: artifact.Artifact, case: str) -> None:
    falsify, said = FALSE_ANSWERS[case]

    class False_(Engine):  # noqa: N801
        def recommend(self, query: Query) -> Recommendation:
            answer = super().recommend(query)
            return falsify(answer, self, query) if answer.items else answer

    with pytest.raises(UserError, match=said) as refused:
        check_answers(False_(sound))
    assert str(sound.path) in str(refused.value)


def test_any_sound_model_passes_the_canary(store: Path) -> None:
    """Ties, huge, tiny and zero embeddings, one item, one user, nobody or everybody with interactions."""
    dice = np.random.default_rng(5)
    for users, items, width, scale in (
        (1, 1, 1, 1.0),
        (3, 2, 1, 0.0),
        (30, 25, 4, 1e9),
        (30, 25, 4, 1e-30),
        (5, 500, 64, 1.0),
    ):
        for seen in (0, 1, items):
            model = StudentModel(
                user_ids=[str(user) for user in range(users)],
                item_ids=[str(item) for item in range(items)],
                user_embeddings=scale * dice.integers(-2, 3, (users, width)).astype(float),
                item_embeddings=scale * dice.normal(size=(items, width)).round(1),
                train_indptr=np.arange(users + 1) * seen,
                train_indices=np.tile(np.arange(seen), users),
            )
            dataset = DatasetInfo(
                name="x", fingerprint="x", users=users, items=items, interactions=1, split=Split(kind="given")
            )
            artifact.publish(store, model, Provenance(dataset, {}, 0, {}))

            assert check_answers(Engine(artifact.load(store))) is None


# The thread


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


def test_a_version_that_may_not_be_read_is_refused_until_it_may() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "models"
        first = publish(store, "first")
        reports: list[SwapResult] = []
        model = LiveModel(store, 60, reports.append)
        with unprivileged(Path(folder)):
            assert model.refresh().after == first
            second = publish(store, "second")
            (store / second / "fold_in.npy").chmod(0)
            results = [model.refresh() for _ in range(2)]
            assert [(result.outcome, result.after) for result in results] == [("refused", first)] * 2
            assert "fold_in.npy: cannot be read: Permission denied" in (results[0].reason or "")
            store.chmod(0)
            results = [model.refresh() for _ in range(2)]
            assert [(result.outcome, result.after) for result in results] == [("refused", first)] * 2
            assert "CURRENT: cannot be read: Permission denied" in (results[0].reason or "")
            assert [report.outcome for report in reports] == ["swapped", "refused", "refused"]

            store.chmod(0o755)
            (store / second / "fold_in.npy").chmod(0o644)
            assert model.refresh().after == second


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Be a user who must keep to the permissions, and who owns all there is in ``folder``."""
    if os.geteuid() != 0:
        yield
        return
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


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


def test_a_service_that_starts_on_a_damaged_version_answers_from_the_one_before(store: Path) -> None:
    before, damaged = publish(store, "first"), publish(store, "second")
    table = store / damaged / "item_embeddings.npy"
    table.write_bytes(table.read_bytes()[:-4])
    with TestClient(create_app(Settings(models=store))) as client:
        health = client.get("/health").json()
        assert (health["status"], health["model_version"]) == ("degraded", before)
        assert damaged in health["problems"][0]
        assert client.post("/recommend", json={"user_id": "user 3"}).json()["model_version"] == before


def test_a_service_without_a_sound_version_does_not_start(store: Path) -> None:
    for version in (publish(store, "first"), publish(store, "second")):
        (store / version / "item_embeddings.npy").unlink()
    with pytest.raises(UserError, match=r"item_embeddings.npy: is missing"):
        create_app(Settings(models=store))
