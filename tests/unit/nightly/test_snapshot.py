"""Tonight's data: what was put to the service stands in them as the base's own does, whatever it holds."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared import artifact
from shared.events import Event
from tests.unit.nightly.test_versions import published
from trainer.dataset import Dataset, SplitSpec, load_dataset, validate_directory
from trainer.nightly.additions import Addition
from trainer.nightly.event_log import as_frame
from trainer.nightly.settings import EventSettings, NightlySettings
from trainer.nightly.snapshot import Sources, read_dropped, write_features, write_snapshot

Tonight = Callable[..., Dataset]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},title {n}\n" for n in range(6)))
    pairs = "".join(f"u{user},i{(user + step) % 6},{100 * user + step}\n" for user in range(12) for step in range(4))
    (folder / "interactions.csv").write_text(f"user_id,item_id,timestamp\n{pairs}")
    return folder


@pytest.fixture
def tonight(base: Path, tmp_path: Path) -> Tonight:
    """Writes a snapshot of the base with some items put, which has to be sound, and loads it."""

    def write(
        *put: Addition, events: Sequence[Event] = (), removed: Sequence[Event] = (), window_days: float | None = None
    ) -> Dataset:
        logged, gone = (as_frame(list(each)) for each in (events, removed))
        sources = Sources(load_dataset(base), logged, put, [], {}, {"view": 1.0}, None, gone)
        write_snapshot(tmp_path / "tonight", sources, NightlySettings(events=EventSettings(window_days=window_days)))
        report = validate_directory(tmp_path / "tonight", split=SplitSpec("given"))
        assert report.ok, [str(finding) for finding in report.findings]
        return load_dataset(tmp_path / "tonight", SplitSpec("given"))

    return write


@pytest.mark.parametrize("said", ["other", "i0", None, 1.5])
def test_an_item_keeps_its_id_whatever_its_metadata_call_it(tonight: Tonight, said: Any) -> None:
    metadata = {"itemId": "spelt otherwise", "item_id": said, "title": "mug"}
    data = tonight(Addition("i1", metadata, {}, {}), Addition("new", metadata, {}, {}))
    assert data.item_ids == [*(f"i{n}" for n in range(6)), "new"]
    assert data.catalogue is not None
    assert [data.catalogue[place]["title"] for place in (0, 1, 6)] == ["title 0", "mug", "mug"]


def test_half_a_character_in_metadata_ends_no_night(tonight: Tonight) -> None:
    data = tonight(Addition("new", {"title": "mug \ud83d", "colour \ud800": ["né", "\udfff"]}, {}, {}))
    assert data.catalogue is not None
    assert data.catalogue[6] == {"item_id": "new", "title": "mug ?", "colour ?": ["né", "?"]}


def test_neighbours_without_cosines_stay_without_and_new_items_have_such_too(
    base: Path, tmp_path: Path, tonight: Tonight
) -> None:
    near = np.array([[n, (n + 1) % 6] for n in range(6)], np.int32)
    np.savez(base / "text_neighbors.npz", neighbors=near)
    np.save(base / "text_feat.npy", np.eye(6, dtype=np.float32))
    like_the_third = np.eye(6, dtype=np.float32)[2] + np.float32(0.1)
    put = [Addition("one", {}, {"text": like_the_third}, {}), Addition("two", {}, {}, {})]
    data = tonight(*put)
    write_features(tmp_path / "tonight", "text", {data.item_ids.index("two"): like_the_third})
    text = load_dataset(tmp_path / "tonight", SplitSpec("given")).modalities["text"]
    assert text.cosine is None
    assert text.neighbours is not None
    assert text.neighbours[:6].tolist() == near.tolist()
    assert [set(row) for row in text.neighbours[6:].tolist()] == [{6, 2}, {6, 7}]


def view(user: str, item: str, *, days: int) -> Event:
    moment = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=days)
    return Event(event_id=f"{user} {item}", user_id=user, item_id=item, type="view", timestamp=moment)


def test_blank_ids_that_were_let_in_once_end_no_night(tonight: Tonight, base: Path, tmp_path: Path) -> None:
    first, *others = (view("u0", item, days=9) for item in ("i4", "i5", "i1", "i2"))
    blank = ({"user_id": " "}, {"user_id": "\u00a0\n"}, {"item_id": "\n"})
    logged = as_frame([first, *(each.model_copy(update=ids) for each, ids in zip(others, blank, strict=True))])
    put = [Addition(each, {}, {}, {}) for each in ("new", " ")]
    sources = Sources(load_dataset(base), logged, put, [], {}, {"view": 1.0}, None, logged.clear())
    snapshot = write_snapshot(tmp_path / "tonight", sources, NightlySettings())
    assert validate_directory(tmp_path / "tonight", split=SplitSpec("given")).ok
    assert snapshot.left_out == {"blank_id": 3, "blank_item": 1}
    assert (snapshot.items, snapshot.interactions) == (7, 12 * 4 + 1)


def test_pairs_that_are_left_out_on_purpose_are_noted(tonight: Tonight, tmp_path: Path) -> None:
    """All of the base is long ago, and half of it was seen again; of two pairs that were removed one came back."""
    base = [(f"u{user}", f"i{(user + step) % 6}") for user in range(12) for step in range(4)]
    again = [view(user, item, days=99) for user, item in base[24:]]
    old, came_back = view("u0", "i4", days=0), view("u0", "i5", days=99)
    removed = [view("u1", "i5", days=99), came_back]
    tonight(events=[*again, old, came_back], removed=removed, window_days=30)
    dropped = set(read_dropped(tmp_path / "tonight").iter_rows())
    assert dropped == {*base[:24], ("u0", "i4"), ("u1", "i5")}


def test_without_a_window_nothing_is_left_out(tonight: Tonight, tmp_path: Path) -> None:
    tonight(events=[view("u0", "i0", days=99)])
    assert read_dropped(tmp_path / "tonight").is_empty()


def test_fresh_is_what_the_log_has_and_the_champion_was_not_trained_on(base: Path, tmp_path: Path) -> None:
    """It took i0 of ann alone; what only the base has is not fresh, whatever the champion knows."""
    published(tmp_path / "models", np.eye(6, 2))
    (base / "interactions.csv").write_text("user_id,item_id,timestamp\nbob,i0,1\ncyd,i1,2\n")
    seen = view("ann", "i0", days=1)
    new = [view("ann", "i1", days=1), view("bob", "i1", days=2), view("cyd", "i0", days=3), view("ann", "i2", days=9)]
    logged = as_frame([seen, *new])
    champion = artifact.load(tmp_path / "models")
    sources = Sources(load_dataset(base), logged, [], [], {}, {"view": 1.0}, champion, logged.clear())
    made = write_snapshot(tmp_path / "tonight", sources, NightlySettings())
    assert (made.interactions, made.fresh, made.new_users, made.new_items) == (7, 4, 1, 0)
    assert made.drift is not None
    assert (made.drift.new_users, made.drift.new_items) == (0.25, 0)
