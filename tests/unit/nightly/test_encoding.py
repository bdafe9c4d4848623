"""What came since the base was made, encoded by the base's own networks; tiny, real ones."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared.encoders import EncoderFolder
from shared.encoders.folder import read_folder
from shared.errors import UserError
from shared.state import Encoded, LiveItem
from tests.unit.encoders.conftest import WORDS, colours, picture, store, words
from trainer.cli.encoders import encode_catalogue
from trainer.dataset import load_dataset
from trainer.encoders.features_manifest import read_manifest
from trainer.nightly import additions
from trainer.nightly.encoding import Places, encode_new
from trainer.nightly.event_log import SCHEMA
from trainer.nightly.settings import NightlySettings
from trainer.nightly.snapshot import Sources, write_snapshot

__all__ = ["colours", "store", "words"]


def jpeg(colour: str) -> bytes:
    content = io.BytesIO()
    picture(colour).save(content, format="JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def places(tmp_path: Path, store: Path, words: EncoderFolder, colours: EncoderFolder) -> Places:
    base = tmp_path / "base"
    base.mkdir()
    names = ["red mug", "blue mug", "red lamp", "blue lamp"]
    rows = "".join(f"i{n},{name},i{n}.png\n" for n, name in enumerate(names))
    (base / "items.csv").write_text(f"item_id,title,image\n{rows}")
    for n, name in enumerate(names):
        picture(name.split()[0]).save(base / f"i{n}.png")
    pairs = "".join(f"u{u},i{(u + k) % 4},{100 * u + k}\n" for u in range(8) for k in range(3))
    (base / "interactions.csv").write_text(f"user_id,item_id,timestamp\n{pairs}")
    columns = {"text": ["title"], "image": ["image"]}
    encode_catalogue(base, base, {"text": "words", "image": "colours"}, columns, store, threads=1)
    return Places(base, tmp_path / "tonight", tmp_path / "models", tmp_path / "additions")


def tonight(places: Places, *items: LiveItem) -> list[str]:
    """A night's snapshot with some items put; its item ids."""
    additions.keep(places.additions, places.store, items)
    put = additions.read(places.additions)
    events = pl.DataFrame(schema=SCHEMA)
    sources = Sources(load_dataset(places.base), events, put, [], {}, {"view": 1.0}, None, events)
    write_snapshot(places.tonight, sources, NightlySettings())
    return load_dataset(places.tonight).item_ids


def test_words_and_picture_of_an_item_that_nobody_encoded_become_its_features(places: Places) -> None:
    metadata = {"title": "blue mug mug", "description": "lamp, a column that the base's words do not come from"}
    ids = tonight(places, LiveItem("new", metadata, picture=jpeg("blue")))
    assert np.isnan(np.load(places.tonight / "text_feat.npy")[4]).all()

    done = encode_new(places, ["image", "text"], ids)

    assert (done.encoded, done.faults) == ({"image": 1, "text": 1}, {})
    data = load_dataset(places.tonight)
    shares = [(["blue", "mug", "mug"].count(word)) / 3 for word in WORDS]
    assert data.modalities["text"].features[4] == pytest.approx(shares)
    assert data.modalities["image"].features[4] == pytest.approx(data.modalities["image"].features[1], abs=0.03)
    assert set(data.encoders) == {"image", "text"}
    for modality, encoder in data.encoders.items():
        assert encoder.digest == read_manifest(places.base, modality).encoder


def test_what_the_service_encoded_stays_unless_another_encoder_made_it(places: Places) -> None:
    mine = read_folder(places.base / "encoders" / "text").spec.signature
    by_service = np.array([0, 0, 0, 0, 1], np.float32)
    ids = tonight(
        places,
        LiveItem("a", {"title": "red"}, encoded={"text": Encoded(mine, by_service)}),
        LiveItem("b", {"title": "red"}, encoded={"text": Encoded("older@1", by_service)}),
        LiveItem("c", {"title": "red"}, features={"text": by_service}),
    )
    assert encode_new(places, ["text"], ids).encoded == {"text": 1}
    features = load_dataset(places.tonight).modalities["text"].features
    assert features[ids.index("a")].tolist() == features[ids.index("c")].tolist() == by_service.tolist()
    assert features[ids.index("b")].tolist() == [0, 1, 0, 0, 0]
    assert encode_new(places, ["text"], ids).encoded == {"text": 0}, "it is noted who made it"


def test_a_picture_that_cannot_be_read_is_named_and_counts_as_missing(places: Places) -> None:
    ids = tonight(places, LiveItem("broken", {"title": "red"}, picture=jpeg("red")[:200]))
    done = encode_new(places, ["image", "text"], ids)
    assert set(done.faults) == {"broken"}
    data = load_dataset(places.tonight)
    assert not data.modalities["image"].present[4]
    assert data.modalities["text"].present[4]


def test_an_item_of_the_base_keeps_the_features_that_a_put_says_nothing_of(places: Places) -> None:
    """A new price, a new title, a picture that cannot be read: tonight and in all nights to come."""
    before = {name: each.features for name, each in load_dataset(places.base).modalities.items()}
    put = [
        LiveItem("i1", {"price": 3}),
        LiveItem("i2", {"title": "blue"}),
        LiveItem("i3", {"title": "blue lamp"}, picture=jpeg("blue")[:200]),
    ]
    for items in (put, []):
        done = encode_new(places, ["image", "text"], tonight(places, *items))
        assert set(done.faults) == ({"i3"} if items else set())
        data = load_dataset(places.tonight)
        assert data.modalities["image"].features.tolist() == before["image"].tolist()
        assert np.delete(data.modalities["text"].features, 2, axis=0).tolist() == before["text"][[0, 1, 3]].tolist()
        assert data.modalities["text"].features[2].tolist() == [float(word == "blue") for word in WORDS]


def test_what_another_encoder_made_goes_where_the_bases_own_makes_nothing(places: Places) -> None:
    by_service = np.array([0, 0, 0, 0, 1], np.float32)
    ids = tonight(places, LiveItem("new", {"price": 3}, encoded={"text": Encoded("older@1", by_service)}))
    encode_new(places, ["text"], ids)
    assert not load_dataset(places.tonight).modalities["text"].present[4]


def test_new_items_get_neighbours_where_the_base_has_them(places: Places) -> None:
    near = np.array([[0, 2], [1, 3], [2, 0], [3, 1]], np.int32)
    np.savez(places.base / "text_neighbors.npz", neighbors=near, cosine=np.ones((4, 2), np.float32))
    ids = tonight(places, LiveItem("new", {"title": "blue lamp"}))
    encode_new(places, ["text"], ids)
    assert set(load_dataset(places.tonight).modalities["text"].neighbours[4].tolist()) == {3, 4}


def test_killed_in_the_middle_it_leaves_no_item_without_features(places: Places) -> None:
    ids = tonight(places, *[LiveItem(f"new{n}", {"title": "blue mug"}) for n in range(3)])
    program = (
        "import json, sys; from pathlib import Path; from trainer.nightly.encoding import Places, encode_new\n"
        "encode_new(Places(*map(Path, sys.argv[2:])), ['text'], json.loads(sys.argv[1]))"
    )
    folders = map(str, (places.base, places.tonight, places.store, places.additions))
    killed = subprocess.run(
        [sys.executable, "-c", program, json.dumps(ids), *folders],
        env={**os.environ, "MTS4MM_FAULT": "encode:noted"},
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL

    assert encode_new(places, ["text"], ids).encoded == {"text": 2}, "the first is noted"

    shares = [float(word in ("blue", "mug")) / 2 for word in WORDS]
    assert load_dataset(places.tonight).modalities["text"].features[4:].tolist() == [shares] * 3
    assert read_manifest(places.tonight, "text").item_ids == tuple(ids)


def test_encoders_that_were_damaged_end_the_night(places: Places) -> None:
    ids = tonight(places, LiveItem("new", {"title": "red"}))
    (places.base / "encoders" / "text" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="changed or damaged"):
        encode_new(places, ["text"], ids)
    assert read_folder(places.base / "encoders" / "image").spec.name == "colours"
