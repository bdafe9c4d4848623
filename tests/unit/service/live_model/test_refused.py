"""What is not sound is refused once, by name, and the model before it stays."""

import hashlib
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.live_model import LiveModel, SwapResult
from service.settings import Settings
from shared import artifact
from shared.errors import UserError
from tests.unit.service.live_model.models import Followed, count_loads, publish


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


def add_unknown_encoder(version: Path) -> None:
    """One that a later trainer wrote, say; no request reads it before there is a live item."""
    (version / "attached.encoder_text.json").write_text('{"format": 1000}')
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
    "an encoder of another format": (add_unknown_encoder, "attached.encoder_text.json"),
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


def test_a_service_that_starts_on_a_damaged_version_answers_from_the_one_before(store: Path) -> None:
    before, damaged = publish(store, "first"), publish(store, "second")
    table = store / damaged / "item_embeddings.npy"
    table.write_bytes(table.read_bytes()[:-4])
    with TestClient(create_app(Settings(models=store))) as client:
        health = client.get("/health").json()
        assert (health["status"], health["model_version"]) == ("degraded", before)
        assert damaged in health["problems"][0]
        assert client.post("/recommend", json={"user_id": "user 3"}).json()["model_version"] == before


def test_a_service_does_not_fall_back_to_a_version_whose_encoder_cannot_be_opened(store: Path) -> None:
    sound, other, damaged = (publish(store, tag) for tag in ("first", "second", "third"))
    add_unknown_encoder(store / other)
    truncate(store / damaged)
    with TestClient(create_app(Settings(models=store))) as client:
        assert client.get("/health").json()["model_version"] == sound


def test_a_service_without_a_sound_version_does_not_start(store: Path) -> None:
    for version in (publish(store, "first"), publish(store, "second")):
        (store / version / "item_embeddings.npy").unlink()
    with pytest.raises(UserError, match=r"item_embeddings.npy: is missing"):
        create_app(Settings(models=store))
