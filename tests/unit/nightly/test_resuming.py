"""Which night an interrupted one is gone on with by: the same settings, champion and base; and which not at all."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import artifact
from shared.encoders import EncoderFolder
from shared.errors import UserError
from shared.events import Event
from shared.object_store import ObjectStore
from shared.state import open_state
from tests.unit.encoders.conftest import store, words
from tests.unit.nightly.test_versions import published
from trainer.cli.encoders import encode_catalogue
from trainer.cli.nightly import run_night
from trainer.encoders.store import add_text_network
from trainer.nightly.drain import StateOpener
from trainer.nightly.event_log import EventLog
from trainer.nightly.job import Night
from trainer.nightly.outcome import OutOfTimeError
from trainer.nightly.places import Places
from trainer.nightly.settings import NightlySettings

__all__ = ["store", "words"]


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def no_state() -> StateOpener:
    raise AssertionError("a night that has not begun asks nobody")


@pytest.fixture
def base(tmp_path: Path, store: Path, words: EncoderFolder) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\ni0,red mug\ni1,blue lamp\n")
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\nu0,i0,1\nu1,i1,2\n")
    encode_catalogue(folder, folder, {"text": "words"}, {"text": ["title"]}, store, threads=1)
    return folder


@pytest.fixture
def taken_up(base: Path, tmp_path: Path) -> Callable[[], str]:
    """The name of the night that would be gone on with now."""
    places = Places(base, tmp_path / "models", tmp_path / "log")
    return lambda: Night(places, NightlySettings(), no_state, {"view": 1.0}).journal.name


def test_a_base_that_is_the_same_is_gone_on_with_though_it_was_written_anew(
    taken_up: Callable[[], str], base: Path, store: Path
) -> None:
    night = taken_up()
    encode_catalogue(base, base, {"text": "words"}, {"text": ["title"]}, store, threads=1)
    (base / "items.csv").write_bytes((base / "items.csv").read_bytes())
    assert taken_up() == night


def test_another_base_in_the_same_place_is_another_night(
    taken_up: Callable[[], str], base: Path, store: Path, tmp_path: Path
) -> None:
    nights = [taken_up()]
    (base / "items.csv").write_text("item_id,title\ni0,red mug\ni1,blue lamb\n")
    nights.append(taken_up())
    other = {"max_tokens": 8, "pooling": "mean"}
    network = store / "text" / "words"
    add_text_network(store, "other", network / "model.onnx", network / "tokenizer.json", other)
    encode_catalogue(base, base, {"text": "other"}, {"text": ["title"]}, store, threads=1)
    nights.append(taken_up())
    assert len(set(nights)) == 3


def test_a_base_that_is_not_there_is_named(taken_up: Callable[[], str], base: Path) -> None:
    base.rename(base.with_name("elsewhere"))
    with pytest.raises(UserError, match=r"base: cannot be listed"):
        taken_up()


@pytest.fixture
def one_each(tmp_path: Path) -> Path:
    """A base in which nobody has enough to train on."""
    folder = tmp_path / "one-each"
    folder.mkdir()
    rows = "".join(f"u{number},i{number % 5}\n" for number in range(10))
    (folder / "interactions.csv").write_text(f"user_id,item_id\n{rows}")
    return folder


def test_what_failed_on_its_data_is_begun_anew_with_the_events_that_came_since(one_each: Path, tmp_path: Path) -> None:
    places = Places(one_each, tmp_path / "models", tmp_path / "log")
    names = []
    for count in range(2):
        with open_state(None, tmp_path / "state") as state:
            state.record([Event(event_id=f"{count}", user_id=f"v{count}", item_id="i1", type="like", timestamp=NOW)])
        night = Night(places, NightlySettings(), lambda: open_state(None, tmp_path / "state"), {"like": 1.0})
        with pytest.raises(UserError, match="tonight's data cannot be trained on: of nobody are there"):
            night.run()
        names.append(night.journal.name)
    assert len(set(names)) == 2
    assert [path.parent.name for path in places.own.glob("runs/*/dataset")] == names[1:], "earlier ones take no room"
    assert len(EventLog(tmp_path / "log").read()) == 2


def of_torch(work: Callable[[], object]) -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        work()
    return raised.value


@pytest.mark.parametrize(
    ("done", "error", "again"),
    [
        (["drain", "snapshot"], OSError("no space"), False),
        (["drain", "snapshot", "validate", "encode"], OSError("no space"), True),
        (["drain", "snapshot", "validate", "encode"], OutOfTimeError("too long"), True),
        (["drain", "snapshot", "validate", "encode"], MemoryError(), True),
        (["drain", "snapshot", "validate", "encode"], torch.OutOfMemoryError("CUDA out of memory"), True),
        (["drain", "snapshot", "validate", "encode"], of_torch(lambda: torch.empty(10**15)), True),
        (["drain", "snapshot", "validate", "encode"], of_torch(lambda: torch.ones(2) @ torch.ones(3)), False),
        (["drain", "snapshot", "validate", "encode"], UserError("the loss is not finite"), False),
        (["drain", "snapshot", "validate", "encode", "publish"], UserError("Redis is away"), True),
    ],
)
def test_a_night_that_failed_is_gone_on_with_where_that_can_help(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], error: Exception, again: bool
) -> None:
    def fail() -> None:
        raise error

    places = Places(base, tmp_path / "models", tmp_path / "log")
    night = Night(places, NightlySettings(), no_state, {"view": 1.0})
    night.journal.steps = {name: {"seconds": 0.0, "peak_mb": 0} for name in done}
    monkeypatch.setattr(night, "_steps", lambda: {"next": fail})
    with pytest.raises(type(error)):
        night.run()
    assert (Night(places, NightlySettings(), no_state, {"view": 1.0}).journal.name == night.journal.name) == again


def test_a_night_that_was_killed_after_the_clock_was_set_back_is_gone_on_with(base: Path, tmp_path: Path) -> None:
    def night() -> Night:
        return Night(Places(base, tmp_path / "models", tmp_path / "log"), NightlySettings(), no_state, {"view": 1.0})

    ended = night().journal
    ended.end("promoted")
    two_days_fast = datetime.now(UTC) + timedelta(days=2)
    ended.folder.rename(ended.folder.with_name(two_days_fast.strftime("%Y%m%dT%H%M%S%fZ")))
    killed = night().journal
    assert killed.folder != ended.folder
    assert night().journal.name == killed.name


def test_a_dry_run_puts_no_end_to_a_night_that_goes_on(base: Path, tmp_path: Path) -> None:
    places = Places(base, tmp_path / "models", tmp_path / "log")
    night = Night(places, NightlySettings(), no_state, {"view": 1.0}).journal.name
    with pytest.raises(UserError, match=f"{night}: this night has not ended"):
        Night(places, NightlySettings(), no_state, {"view": 1.0}, dry_run=True)
    assert Night(places, NightlySettings(), no_state, {"view": 1.0}).journal.name == night
    other = Night(places, NightlySettings(), no_state, {"view": 1.0}, dry_run=True, fresh=True).journal.name
    assert other != night


def test_old_versions_go_from_the_object_store_too_and_a_refusal_ends_no_night(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, models = f"file://{tmp_path}/bucket", tmp_path / "models"
    names = sorted(published(models, np.eye(2)) for _ in range(4))
    for name in names:
        artifact.activate(models, name)
    ObjectStore(url, models).push()
    night = Night(Places(base, models, tmp_path / "log", None, url), NightlySettings(keep=2), no_state, {"view": 1.0})
    assert night._steps()["prune"]() == {"removed": names[:2], "let_go": 0}
    assert sorted(path.name for path in (tmp_path / "bucket").iterdir()) == [*names[2:], "CURRENT"]
    shutil.rmtree(tmp_path / "bucket")
    assert night._steps()["prune"]() == {"removed": [], "let_go": 0}
    assert "old versions stay in the object store" in caplog.text


def test_how_a_night_ended_is_told_to_the_object_store_unless_it_was_a_dry_run(
    one_each: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTS4MM_STATE", str(tmp_path / "state"))
    bucket = tmp_path / "bucket"
    places = Places(one_each, tmp_path / "models", tmp_path / "log", None, f"file://{bucket}")
    for dry_run in (True, False):
        with pytest.raises(UserError, match="tonight's data cannot be trained on"):
            run_night(places, NightlySettings(), dry_run=dry_run)
        assert (bucket / ".nightly" / "status.json").exists() is not dry_run
    assert json.loads((bucket / ".nightly" / "status.json").read_bytes())["outcome"] == "failed"
    shutil.rmtree(bucket)
    bucket.touch()
    with pytest.raises(UserError):
        run_night(places, NightlySettings())
    assert "the object store is not told how the night ended" in capsys.readouterr().err
