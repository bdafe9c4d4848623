"""Tonight's data: what was put to the service stands in them as the base's own does, whatever it holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from trainer.dataset import Dataset, SplitSpec, load_dataset, validate_directory
from trainer.nightly.additions import Addition
from trainer.nightly.event_log import SCHEMA
from trainer.nightly.settings import NightlySettings
from trainer.nightly.snapshot import Sources, write_features, write_snapshot

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

    def write(*put: Addition) -> Dataset:
        events = pl.DataFrame(schema=SCHEMA)
        sources = Sources(load_dataset(base), events, put, [], {}, {"view": 1.0}, None)
        write_snapshot(tmp_path / "tonight", sources, NightlySettings())
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
