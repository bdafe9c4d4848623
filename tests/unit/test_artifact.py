"""The artefact: what was published is what is loaded, and whatever is not as published is refused by name."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError

USERS = ["ann", "bob", "cyd"]
ITEMS = ["mug", "hat", "pen", "sock"]
MODEL = StudentModel(
    user_ids=USERS,
    item_ids=ITEMS,
    user_embeddings=np.array([[1, 0], [0, 1], [0.5, -0.25]], np.float32),
    item_embeddings=np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32),
    train_indptr=np.array([0, 2, 2, 3]),
    train_indices=np.array([1, 3, 1]),
    items=[{"title": "A mug"}, {"title": "Zweizeilig\n\u2028hat 🎩"}, {}, {"title": None, "sizes": [36, 44]}],
)
PROVENANCE = Provenance(
    dataset=DatasetInfo(
        name="a | shop", fingerprint="f00d", users=3, items=4, interactions=5, split=Split(kind="random", seed=3)
    ),
    recipe={"learning_rate": 0.002, "layers": [1, 2], "modalities": {"image": True}},
    seed=11,
    metrics={"test_recall@20": 0.0951},
    code_revision="abc123",
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version; not to be changed."""
    store = tmp_path_factory.mktemp("published")
    artifact.publish(store, MODEL, PROVENANCE)
    return store


@pytest.fixture
def version(store: Path, published: Path) -> Path:
    """The folder of the one version of a store, which is current; the test's own."""
    shutil.copytree(published, store)
    return store / (store / "CURRENT").read_text().strip()


def reseal(directory: Path) -> None:
    """Make manifest and digest fit the files as they are now, as a careful forger would."""
    document = json.loads((directory / "manifest.json").read_text())
    document["files"] = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for path in directory.iterdir()
        if path.name != "manifest.json"
    }
    write_manifest(directory, document)


def write_manifest(directory: Path, document: dict[str, Any]) -> None:
    document.pop("digest", None)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(document))


def save(path: Path, array: np.ndarray) -> None:
    """Unlike np.save on a path, also what would be pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    path.write_bytes(buffer.getvalue())


# What is published is what is loaded


def test_a_published_model_is_loaded_as_it_was(store: Path) -> None:
    name = artifact.publish(store, MODEL, PROVENANCE)

    loaded = artifact.load(store)

    assert loaded.path == store / name
    assert list(loaded.users) == USERS
    assert list(loaded.items) == ITEMS
    np.testing.assert_array_equal(loaded.user_embeddings, MODEL.user_embeddings)
    np.testing.assert_array_equal(loaded.item_embeddings, MODEL.item_embeddings)
    assert loaded.item_embeddings.dtype == np.float32
    assert [loaded.seen(user).tolist() for user in range(3)] == [[1, 3], [], [1]]
    assert loaded.popularity.tolist() == [0, 2, 0, 1]
    assert loaded.popularity.dtype == np.int64
    assert [loaded.item_metadata(item) for item in range(4)] == MODEL.items
    assert artifact.verify(loaded.path) == loaded.manifest


PARTS = {
    "id": np.asarray(MODEL.user_embeddings) * 0.25,
    "text": np.asarray(MODEL.user_embeddings) * 0.75,
}


def test_parts_are_kept_with_a_matrix_to_fold_in_for_each(store: Path) -> None:
    artifact.publish(store, replace(MODEL, user_parts=PARTS), PROVENANCE)
    loaded = artifact.load(store)
    assert loaded.parts is not None
    assert loaded.parts.names == ("id", "text")
    for row, part in enumerate(PARTS.values()):
        np.testing.assert_allclose(loaded.parts.users[row], part)
    np.testing.assert_allclose(loaded.parts.fold_in.sum(axis=0), loaded.fold_in, atol=1e-5)
    assert artifact.verify(loaded.path) == loaded.manifest


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"id": PARTS["id"]}, "user_parts does not add up"),
        ({"id": PARTS["id"], "text": PARTS["text"][:2]}, r"user_parts has 'text' with the shape \(2, 2\)"),
        ({"id": PARTS["id"], "text": PARTS["text"] * np.nan}, "user_parts does not add up"),
    ],
)
def test_parts_that_are_not_those_of_the_embeddings_are_not_published(store: Path, parts, message) -> None:
    with pytest.raises(UserError, match=message):
        artifact.publish(store, replace(MODEL, user_parts=parts), PROVENANCE)
    assert artifact.list_versions(store) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("user_parts.npy", np.ones((2, 3, 2), np.float32), "does not add up"),
        ("user_parts.npy", np.ones((1, 3, 2), np.float32), r"shape \(1, 3, 2\), and 2 parts"),
        ("fold_in_parts.npy", np.full((2, 2, 2), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_damaged_parts_are_refused_by_name(store: Path, name: str, content: np.ndarray, message: str) -> None:
    version = store / artifact.publish(store, replace(MODEL, user_parts=PARTS), PROVENANCE)
    forge(name, content)(version)
    with pytest.raises(UserError, match=message) as refused:
        artifact.load(store)
    assert str(version / name) in str(refused.value)


@pytest.mark.parametrize("text", ['["id", "id"]', "[]", '{"id": 1}', "nonsense", '["id", 7]'])
def test_damaged_names_of_parts_are_refused(store: Path, text: str) -> None:
    version = store / artifact.publish(store, replace(MODEL, user_parts=PARTS), PROVENANCE)
    forge_text("parts.json", text.encode())(version)
    with pytest.raises(UserError, match=r"parts\.json"):
        artifact.load(store)


def test_attachments_are_kept_whole_and_checked_like_every_other_file(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "network.onnx"
    source.write_bytes(b"\x08\x07" * 1000)
    artifact.publish(store, replace(MODEL, attachments={"index.json": b"{}", "item_tower.onnx": source}), PROVENANCE)
    loaded = artifact.load(store)
    network = loaded.attachment("item_tower.onnx")
    assert network is not None
    assert network.read_bytes() == source.read_bytes()
    assert loaded.attachment("index.json") == loaded.path / "attached.index.json"
    assert loaded.attachment("encoder.onnx") is None
    network.write_bytes(b"\x08\x06" * 1000)
    with pytest.raises(UserError, match=r"attached.item_tower.onnx: its sha256"):
        artifact.load(store)


@pytest.mark.parametrize("name", ["", "../index", "a/b", ".hidden", "Index.json", "x" * 101])
def test_attachments_cannot_be_named_out_of_their_folder(store: Path, name: str) -> None:
    with pytest.raises(UserError, match="no name of a file to attach"):
        artifact.publish(store, replace(MODEL, attachments={name: b""}), PROVENANCE)
    assert not store.exists()


def test_the_manifest_says_where_the_model_comes_from(store: Path) -> None:
    name = artifact.publish(store, MODEL, PROVENANCE)

    manifest = artifact.load(store, name).manifest

    assert manifest.schema_version == 2
    assert manifest.version == name
    assert manifest.created.strftime("%Y%m%dT%H%M%SZ") == name.split("-")[0]
    assert manifest.dataset == PROVENANCE.dataset
    assert manifest.recipe == PROVENANCE.recipe
    assert (manifest.seed, manifest.metrics, manifest.code_revision, manifest.gate) == (
        11,
        {"test_recall@20": 0.0951},
        "abc123",
        None,
    )
    assert set(manifest.files) == {path.name for path in (store / name).iterdir()} - {"manifest.json"}


def test_the_model_card_tells_a_reader_what_the_manifest_holds(version: Path) -> None:
    card = (version / "README.md").read_text()

    for fact in (version.name, "a \\| shop", "f00d", "random, seed 3", "test_recall@20 | 0.0951", '"layers"', "abc123"):
        assert fact in card


def test_the_model_card_shows_what_missing_content_costs(store: Path) -> None:
    metrics = {"test.recall@20": 0.2, "missing.0.25.recall@20": 0.18, "missing.0.25.ndcg@20": 0.09}
    metrics |= {"missing.0.recall@20": 0.19, "missing.0.ndcg@20": 0.1}
    name = artifact.publish(store, MODEL, replace(PROVENANCE, metrics=metrics))
    card = (store / name / "README.md").read_text()

    rows = [
        "| content missing | recall@20 | ndcg@20 |",
        "|---|---|---|",
        "| 0% | 0.19 | 0.1 |",
        "| 25% | 0.18 | 0.09 |",
    ]
    assert "\n".join(rows) in card
    assert "missing.0" not in card
    assert "| test.recall@20 | 0.2 |" in card


def test_nothing_is_pickled_and_tables_are_mapped_read_only(version: Path) -> None:
    for path in version.glob("*.npy"):
        np.load(path, allow_pickle=False)
    loaded = artifact.load_path(version)

    assert isinstance(loaded.user_embeddings.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded.item_embeddings[0, 0] = 1


def test_a_model_without_metadata_or_interactions_is_a_model(store: Path) -> None:
    bare = replace(MODEL, items=None, train_indptr=np.zeros(4, np.int64), train_indices=np.array([], np.int64))

    artifact.publish(store, bare, PROVENANCE)
    loaded = artifact.load(store)

    assert loaded.item_metadata(0) is None
    assert loaded.seen(2).tolist() == []
    assert loaded.popularity.tolist() == [0, 0, 0, 0]


@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_any_model_survives_publishing(data: st.DataObject) -> None:
    users = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
    items = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
    rows = [sorted(data.draw(st.sets(st.integers(0, len(items) - 1)))) for _ in users]
    json_values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
        max_leaves=5,
    )
    metadata = [data.draw(st.dictionaries(st.text(), json_values, max_size=3)) for _ in items]
    numbers = st.floats(-(2.0**50), 2.0**50, width=32)
    model = StudentModel(
        users,
        items,
        np.array([[data.draw(numbers)] for _ in users], np.float32),
        np.array([[data.draw(numbers)] for _ in items], np.float32),
        np.cumsum([0, *(len(row) for row in rows)]),
        np.array([item for row in rows for item in row], np.int64),
        metadata,
    )
    counted = PROVENANCE.dataset.model_copy(update={"users": len(users), "items": len(items)})
    recipe = data.draw(st.dictionaries(st.text(), json_values, max_size=3))

    with tempfile.TemporaryDirectory() as folder:
        artifact.publish(Path(folder), model, replace(PROVENANCE, dataset=counted, recipe=recipe))
        loaded = artifact.load(Path(folder))

        assert (list(loaded.users), list(loaded.items)) == (users, items)
        assert [loaded.seen(user).tolist() for user in range(len(users))] == rows
        assert [loaded.item_metadata(item) for item in range(len(items))] == metadata
        assert loaded.manifest.recipe == recipe
        np.testing.assert_array_equal(loaded.user_embeddings, model.user_embeddings)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_user_or_item_that_is_not_there_is_an_error(version: Path, index: int) -> None:
    loaded = artifact.load_path(version)

    with pytest.raises(IndexError, match="no user"):
        loaded.seen(index)
    with pytest.raises(IndexError, match="no item"):
        loaded.item_metadata(index + 1 if index > 0 else index)


# What cannot be published


def with_row(values: list[float]) -> np.ndarray:
    embeddings = MODEL.item_embeddings.copy()
    embeddings[2] = values
    return embeddings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_embeddings": with_row([np.nan, 0])}, "item_embeddings row 2 holds NaN"),
        ({"item_embeddings": with_row([np.inf, 0])}, "item_embeddings row 2 holds NaN or infinity"),
        ({"item_embeddings": with_row([0, -np.inf])}, "item_embeddings row 2 holds NaN or infinity"),
        ({"item_embeddings": np.full((4, 2), 1e300)}, "item_embeddings row 0 holds NaN or infinity"),
        ({"item_embeddings": np.full((4, 2), 3e38, np.float32)}, "scores overflow"),
        ({"item_embeddings": np.ones((4, 3))}, "has 3 columns, and user_embeddings 2"),
        ({"item_embeddings": np.ones((3, 2))}, r"has the shape \(3, 2\), and there are 4 ids"),
        ({"item_embeddings": np.ones(4)}, r"has the shape \(4,\)"),
        ({"item_embeddings": np.ones((4, 2), np.int64)}, "holds int64: embeddings are floats"),
        ({"user_embeddings": np.ones((3, 0)), "item_embeddings": np.ones((4, 0))}, "is empty"),
        ({"user_ids": [], "user_embeddings": np.ones((0, 2))}, "user_embeddings is empty"),
        ({"user_ids": ["ann", "ann", "cyd"]}, "user_ids are not sound: id 'ann' is given twice"),
        ({"item_ids": ["mug", "", "pen", "sock"]}, "item_ids are not sound: id at position 1 is empty"),
        ({"train_indptr": np.array([0, 2, 3])}, r"train_indptr has the shape \(3,\)"),
        ({"train_indptr": np.array([0, 2, 1, 3])}, "train_indptr must rise"),
        ({"train_indptr": np.array([0, 2, 2, 4])}, "train_indptr must rise from 0 to the 3"),
        ({"train_indices": np.array([1, 4, 1])}, "train_indices names an item outside 0 to 3"),
        ({"train_indices": np.array([1, -1, 1])}, "train_indices names an item outside 0 to 3"),
        ({"train_indices": np.array([3, 1, 1])}, "train_indices the items of user 0 do not rise"),
        ({"train_indices": np.array([1, 1, 1])}, "train_indices the items of user 0 do not rise"),
        ({"train_indices": np.array([1, 2**32 + 3, 1])}, "do not fit int32"),
        ({"train_indices": np.array([1.0, 3.0, 1.0])}, "must hold integers"),
        ({"items": [{}]}, "items has 1 entries for 4 item ids"),
        ({"items": [{}, {"price": float("nan")}, {}, {}]}, "metadata of item 'hat' that is not JSON"),
        ({"items": [{}, {}, {"photo": b"\0"}, {}]}, "metadata of item 'pen' that is not JSON"),
        ({"items": [{}, {}, {}, {"title": "\ud800"}]}, "metadata of item 'sock' that is not JSON"),
    ],
)
def test_a_model_that_is_not_sound_is_refused_and_leaves_nothing(
    store: Path, change: dict[str, Any], message: str
) -> None:
    counted = PROVENANCE.dataset.model_copy(update={"users": len(change.get("user_ids", USERS))})

    with pytest.raises(UserError, match=f"the model cannot be published: .*{message}"):
        artifact.publish(store, replace(MODEL, **change), replace(PROVENANCE, dataset=counted))

    assert artifact.list_versions(store) == []
    assert list(store.glob(".tmp-*")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"lr": float("nan")}}, "Out of range float"),
        ({"recipe": {"out": Path("x")}}, "'recipe.out'"),
        ({"metrics": {"recall": float("inf")}}, "'metrics.recall'"),
        ({"seed": "7"}, "'seed'"),
        ({"dataset": PROVENANCE.dataset.model_copy(update={"items": 9})}, "counts 3 users and 9 items"),
    ],
)
def test_provenance_that_is_not_sound_is_refused_and_leaves_nothing(
    store: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        artifact.publish(store, MODEL, replace(PROVENANCE, **change))

    assert artifact.list_versions(store) == []
    assert list(store.glob(".tmp-*")) == []


def test_a_store_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")

    with pytest.raises(UserError, match="models: cannot be written"):
        artifact.publish(tmp_path / "models", MODEL, PROVENANCE)


# What is not as it was published


def truncate(name: str) -> Callable[[Path], None]:
    return lambda version: os.truncate(version / name, (version / name).stat().st_size - 1)


def flip(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        content = bytearray((version / name).read_bytes())
        content[len(content) // 2] ^= 0x10
        (version / name).write_bytes(content)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda version: (version / name).unlink()


def forge(name: str, array: np.ndarray) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        save(version / name, array)
        reseal(version)

    return damage


def forge_text(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).write_bytes(content)
        reseal(version)

    return damage


def edit(**fields: Any) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        document = json.loads((version / "manifest.json").read_text())
        write_manifest(version, document | fields)

    return damage


def edit_without_sealing(version: Path) -> None:
    text = (version / "manifest.json").read_text()
    (version / "manifest.json").write_text(text.replace("0.0951", "0.9951"))


def add_file_entry(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        document = json.loads((version / "manifest.json").read_text())
        document["files"][name] = document["files"]["README.md"]
        write_manifest(version, document)

    return damage


def link(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).rename(version.parent / "elsewhere")
        (version / name).symlink_to(version.parent / "elsewhere")

    return damage


def make_folder(name: str) -> Callable[[Path], None]:
    def damage(version: Path) -> None:
        (version / name).unlink()
        (version / name).mkdir()

    return damage


FILES = sorted(
    {"README.md", "items.jsonl", "items_offsets.npy", "train_indptr.npy", "train_indices.npy"}
    | {f"{side}_embeddings.npy" for side in ("user", "item")}
    | {f"{side}_ids_{name}.npy" for side in ("user", "item") for name in ("bytes", "offsets", "order")}
)
NAN = MODEL.user_embeddings.copy()
NAN[1, 1] = np.nan

DAMAGES = {
    **{f"truncated {name}": (truncate(name), name, "truncated") for name in FILES},
    **{f"flipped bit in {name}": (flip(name), name, "sha256") for name in FILES},
    **{f"missing {name}": (remove(name), name, "is missing") for name in FILES},
    "truncated manifest": (lambda v: os.truncate(v / "manifest.json", 500), "manifest.json", "not JSON"),
    "no manifest": (remove("manifest.json"), "manifest.json", "no artefact of mts4mm"),
    "empty manifest": (lambda v: (v / "manifest.json").write_text(""), "manifest.json", "not JSON"),
    "manifest in latin-1": (lambda v: (v / "manifest.json").write_bytes(b'{"\xe9":1}'), "manifest.json", "not JSON"),
    "manifest with NaN": (lambda v: (v / "manifest.json").write_text('{"a": NaN}'), "manifest.json", "not JSON"),
    "bottomless manifest": (lambda v: (v / "manifest.json").write_text("[" * 100_000), "manifest.json", "not JSON"),
    "manifest a list": (lambda v: (v / "manifest.json").write_text("[]"), "manifest.json", "not a JSON object"),
    "edited manifest": (edit_without_sealing, "manifest.json", "digest"),
    "newer schema": (edit(schema_version=3), "manifest.json", "schema version is 3"),
    "no schema": (edit(schema_version=None), "manifest.json", "schema version is None"),
    "schema true": (edit(schema_version=True), "manifest.json", "schema version is True"),
    "unknown field": (edit(extra=1), "manifest.json", "'extra'"),
    "wrong field": (edit(seed="eleven"), "manifest.json", "'seed'"),
    "wrong counts": (
        edit(dataset=PROVENANCE.dataset.model_copy(update={"users": 4}).model_dump()),
        "manifest.json",
        "does not count",
    ),
    "another version's manifest": (edit(version="20200101T000000Z-00000000"), "manifest.json", "is that of version"),
    "file outside the folder": (add_file_entry("../evil.npy"), "manifest.json", r"'\.\./evil\.npy'"),
    "absolute file": (add_file_entry("/etc/passwd"), "manifest.json", "'/etc/passwd'"),
    "unknown file named": (add_file_entry("model.pkl"), "manifest.json", r"'model\.pkl'"),
    "extra file": (lambda v: (v / "teacher.pt").write_text("x"), "teacher.pt", "no part of the artefact"),
    "extra folder": (lambda v: (v / "sub").mkdir(), "sub", "no part of the artefact"),
    "linked table": (link("user_embeddings.npy"), "user_embeddings.npy", "symbolic link"),
    "linked manifest": (link("manifest.json"), "manifest.json", "symbolic link"),
    "folder for a file": (make_folder("train_indptr.npy"), "train_indptr.npy", "must be a plain file"),
    "NaN": (forge("user_embeddings.npy", NAN), "user_embeddings.npy", "row 1 holds NaN"),
    "float64": (forge("user_embeddings.npy", np.ones((3, 2))), "user_embeddings.npy", "holds float64"),
    "columns first": (
        forge("user_embeddings.npy", np.asfortranarray(MODEL.user_embeddings)),
        "user_embeddings.npy",
        "not row-wise",
    ),
    "too few rows": (
        forge("user_embeddings.npy", np.ones((2, 2), np.float32)),
        "user_embeddings.npy",
        r"shape \(2, 2\), and there are 3 ids",
    ),
    "fold-in of another width": (forge("fold_in.npy", np.ones((2, 3), np.float32)), "fold_in.npy", r"shape \(2, 3\)"),
    "fold-in NaN": (forge("fold_in.npy", np.full((2, 2), np.nan, np.float32)), "fold_in.npy", "NaN or infinity"),
    "other width": (forge("item_embeddings.npy", np.ones((4, 3), np.float32)), "item_embeddings.npy", "3 columns"),
    "pickled objects": (
        forge("user_embeddings.npy", np.array([{"a": 1}], dtype=object)),
        "user_embeddings.npy",
        "without unpickling",
    ),
    "not an array": (forge_text("user_embeddings.npy", b"hello"), "user_embeddings.npy", "not an array file"),
    "bare pickle": (forge_text("user_embeddings.npy", b"\x80\x04N."), "user_embeddings.npy", "not an array file"),
    "array cut short": (
        forge_text("train_indptr.npy", b"\x93NUMPY\x01\x00"),
        "train_indptr.npy",
        "not an array file",
    ),
    "seen item out of range": (
        forge("train_indices.npy", np.array([1, 4, 1], np.int32)),
        "train_indices.npy",
        "outside 0 to 3",
    ),
    "ids not text": (forge("user_ids_bytes.npy", np.full(9, 255, np.uint8)), "user_ids_*.npy", "not UTF-8"),
    "metadata offsets": (
        forge("items_offsets.npy", np.array([0, 1, 2, 3, 4])),
        "items_offsets.npy",
        "does not fit items.jsonl",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_refused_by_the_name_of_the_file(store: Path, version: Path, case: str) -> None:
    damage, name, message = DAMAGES[case]
    damage(version)

    with pytest.raises(UserError, match=message) as refused:
        artifact.load(store)

    assert str(version / name) in str(refused.value)
    [summary] = artifact.list_versions(store)
    assert (summary.version, summary.current, summary.damage) == (version.name, True, str(refused.value))
    with pytest.raises(UserError, match=message):
        artifact.activate(store, version.name)


def test_bytes_after_an_array_are_refused(version: Path) -> None:
    path = version / "train_indptr.npy"
    path.write_bytes(path.read_bytes() + b"hidden")
    reseal(version)

    with pytest.raises(UserError, match=r"train_indptr\.npy: has bytes after its array"):
        artifact.load_path(version)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (forge("item_ids_order.npy", np.array([0, 1, 2, 3])), r"item_ids_order\.npy: id order: not sorted"),
        (forge_text("items.jsonl", b"{}\n{\n{}\n{}\n"), r"items\.jsonl: line 2 is not JSON"),
        (forge_text("items.jsonl", b"{}\n1\n{}\n{}\n"), r"items\.jsonl: line 2 is not a JSON object"),
    ],
)
def test_verify_reads_what_loading_takes_on_trust(version: Path, damage: Callable[[Path], None], message: str) -> None:
    save(version / "items_offsets.npy", np.array([0, 3, 5, 8, 11]))
    (version / "items.jsonl").write_bytes(b"{}\n1\n{}\n{}\n")
    damage(version)
    artifact.load_path(version)

    with pytest.raises(UserError, match=message):
        artifact.verify(version)


def test_a_forged_array_header_is_refused_or_changes_nothing(version: Path) -> None:
    path = version / "user_embeddings.npy"
    sound = path.read_bytes()
    dice = random.Random(9)
    refusals = 0
    for _ in range(150):
        content = bytearray(sound)
        content[dice.randrange(128)] = dice.choice(b"0129'\"{}()[],:;<>=|OVfi \0\n#\xff")
        path.write_bytes(content)
        reseal(version)
        if refused := load_refusal(version):
            assert "user_embeddings.npy" in refused
            refusals += 1
        else:
            np.testing.assert_array_equal(artifact.load_path(version).user_embeddings, MODEL.user_embeddings)
    assert refusals > 75


def load_refusal(version: Path) -> str | None:
    try:
        artifact.load_path(version)
    except UserError as refused:
        return str(refused)
    return None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_files_that_may_not_be_read_are_refused_by_name(open_folder: Path) -> None:
    version = open_folder / artifact.publish(open_folder, MODEL, PROVENANCE)
    (version / "item_embeddings.npy").chmod(0)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match=r"item_embeddings\.npy: cannot be read: Permission denied"):
            artifact.load_path(version)
    finally:
        if privileged:
            os.seteuid(0)


def test_an_artefact_can_be_taken_out_of_its_store(version: Path, tmp_path: Path) -> None:
    version.rename(tmp_path / "best")

    assert artifact.load_path(tmp_path / "best").manifest.version == version.name


# Versions and the current one


def test_the_latest_published_is_current_unless_it_was_not_to_be(store: Path) -> None:
    first = artifact.publish(store, MODEL, PROVENANCE)
    second = artifact.publish(store, MODEL, PROVENANCE)
    third = artifact.publish(store, MODEL, PROVENANCE, activate=False)

    assert len({first, second, third}) == 3
    assert [summary.version for summary in artifact.list_versions(store)] == [first, second, third]
    assert [summary.current for summary in artifact.list_versions(store)] == [False, True, False]
    assert artifact.load(store).manifest.version == second
    assert artifact.load(store, third).manifest.version == third


def test_any_version_can_be_made_current(store: Path) -> None:
    first = artifact.publish(store, MODEL, PROVENANCE)
    artifact.publish(store, MODEL, PROVENANCE)

    artifact.activate(store, first)

    assert artifact.current_version(store) == first
    assert (store / "CURRENT").read_text().splitlines()[0] == first


def test_rolling_back_undoes_one_activation_a_time(store: Path) -> None:
    a, b, c = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(3))

    assert artifact.rollback(store) == b
    assert artifact.current_version(store) == b
    assert artifact.rollback(store) == a
    with pytest.raises(UserError, match="CURRENT: knows of no version before"):
        artifact.rollback(store)
    assert artifact.current_version(store) == a

    artifact.activate(store, c)
    assert artifact.rollback(store) == a


def test_a_version_rolled_back_from_is_not_come_back_to(store: Path) -> None:
    a, b, c = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(3))
    artifact.activate(store, b)
    artifact.rollback(store)
    artifact.rollback(store)
    assert artifact.current_version(store) == b

    d = artifact.publish(store, MODEL, PROVENANCE)

    assert [artifact.rollback(store) for _ in range(2)] == [b, a]
    assert {c, d}.isdisjoint((store / "CURRENT").read_text().split())


def test_activating_the_live_version_again_changes_nothing_for_a_rollback(store: Path) -> None:
    a, b = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    for _ in range(3):
        artifact.activate(store, b)
    artifact.publish(store, MODEL, PROVENANCE, activate=False)

    assert artifact.rollback(store) == a


def test_a_rollback_to_a_version_that_is_damaged_or_gone_is_refused(store: Path) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    flip("item_embeddings.npy")(store / first)
    with pytest.raises(UserError, match=f"{first}/item_embeddings.npy"):
        artifact.rollback(store)
    shutil.rmtree(store / first)
    with pytest.raises(UserError, match=f"{first}: there is no such version"):
        artifact.rollback(store)

    assert artifact.current_version(store) == second


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_there_is_no_rollback_without_a_current_model(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UserError, match="holds no current model"):
        artifact.rollback(tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_what_was_live_before_is_remembered_to_a_bound(store: Path) -> None:
    a, b = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    for _ in range(30):
        artifact.activate(store, a)
        artifact.activate(store, b)

    assert (store / "CURRENT").read_text().split() == [b, a] * 10
    for expected in [a, b] * 9 + [a]:
        assert artifact.rollback(store) == expected
    with pytest.raises(UserError, match="knows of no version before"):
        artifact.rollback(store)


@pytest.mark.parametrize("below", ["", "../models", f"20261122T231501Z-3fa9c1d2 {'x' * 5000}"])
def test_a_current_with_anything_but_versions_is_refused_and_mended_by_activating(
    store: Path, version: Path, below: str
) -> None:
    (store / "CURRENT").write_text(f"{version.name}\n{below}\n")
    for call in (artifact.current_version, artifact.rollback, artifact.load):
        with pytest.raises(UserError, match=r"CURRENT: .* is not the name of a version"):
            call(store)

    artifact.activate(store, version.name)

    assert (store / "CURRENT").read_text() == f"{version.name}\n"


def test_a_rollback_that_cannot_be_finished_changes_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(step, fail)
            with pytest.raises(UserError, match="No space left on device"):
                artifact.rollback(store)
        assert artifact.current_version(store) == second
        assert list(store.glob(".tmp-*")) == []

    assert artifact.rollback(store) == first


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_store_without_models_says_what_to_do(tmp_path: Path, folder: str) -> None:
    store = tmp_path / folder

    assert artifact.current_version(store) is None
    assert artifact.list_versions(store) == []
    with pytest.raises(UserError, match="holds no current model"):
        artifact.load(store)


@pytest.mark.parametrize(
    "name", ["..", "../models", "/etc", "", ".", "CURRENT", "20261122T231501Z-3fa9c1d2/../x", "a\0b"]
)
def test_a_version_that_is_no_versions_name_never_becomes_a_path(store: Path, version: Path, name: str) -> None:
    for call in (artifact.load, artifact.activate):
        with pytest.raises(UserError, match="is not the name of a version"):
            call(store, name)
    (store / "CURRENT").write_text(name + "\n")
    with pytest.raises(UserError, match=r"CURRENT: .* is not the name of a version"):
        artifact.load(store)
    assert [summary.current for summary in artifact.list_versions(store)] == [False]


def test_a_version_that_is_not_there_is_named(store: Path, version: Path) -> None:
    gone = "20200101T000000Z-00000000"
    (store / "CURRENT").write_text(f"{gone}\n")

    with pytest.raises(UserError, match=f"{gone}: there is no such version"):
        artifact.load(store)
    with pytest.raises(UserError, match=f"{gone}: there is no such version"):
        artifact.activate(store, gone)


def test_links_in_the_store_are_refused(store: Path, version: Path, tmp_path: Path) -> None:
    (store / "CURRENT").rename(tmp_path / "CURRENT")
    (store / "CURRENT").symlink_to(tmp_path / "CURRENT")
    with pytest.raises(UserError, match="CURRENT: is a symbolic link"):
        artifact.load(store)

    version.rename(tmp_path / version.name)
    version.symlink_to(tmp_path / version.name)
    with pytest.raises(UserError, match=f"{version.name}: is a symbolic link"):
        artifact.load(store, version.name)


def test_foreign_folders_are_listed_as_damaged_and_foreign_files_left_out(store: Path, version: Path) -> None:
    (store / "notes").mkdir()
    (store / "notes.txt").write_text("x")

    listed = {summary.version: summary.damage for summary in artifact.list_versions(store)}

    assert listed.keys() == {version.name, "notes"}
    assert listed[version.name] is None
    assert "'notes' is not the name of a version" in (listed["notes"] or "")


# Many publishers, and killed ones

PUBLISHER = """
import sys
from pathlib import Path
import numpy as np
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

store, times = Path(sys.argv[1]), int(sys.argv[2])
users, items = 300, 200
model = StudentModel(
    [f"u{i}" for i in range(users)], [f"i{i}" for i in range(items)],
    np.ones((users, 64), np.float32), np.ones((items, 64), np.float32),
    np.arange(users + 1), np.arange(users) % items, [{"title": str(i)} for i in range(items)],
)
dataset = DatasetInfo(
    name="x", fingerprint="x", users=users, items=items, interactions=users, split=Split(kind="given")
)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(times):
    print(artifact.publish(store, model, Provenance(dataset, {}, 0, {})), flush=True)
"""


def publisher(store: Path, times: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PUBLISHER, str(store), str(times)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_publishers_at_the_same_time_all_publish(store: Path) -> None:
    with ThreadPoolExecutor() as pool:
        processes = list(pool.map(lambda _: publisher(store, 3), range(3)))
        outputs = list(pool.map(lambda process: process.communicate("go\n", timeout=60)[0], processes))
    published = [name for output in outputs for name in output.split()]

    summaries = artifact.list_versions(store)

    assert len(set(published)) == 9
    assert {summary.version for summary in summaries} == set(published)
    assert [summary.damage for summary in summaries] == [None] * 9
    assert [summary.current for summary in summaries] == [False] * 8 + [True]


@pytest.mark.slow
def test_a_publisher_killed_at_any_moment_leaves_a_store_that_loads(store: Path) -> None:
    dice = random.Random(4)
    acknowledged: list[str] = []
    unfinished = 0
    started = time.monotonic()
    artifact.publish(store, MODEL, PROVENANCE)
    seconds = time.monotonic() - started  # whatever this machine has to do besides
    for _ in range(8):
        process = publisher(store, 10_000)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(dice.uniform(0.5, 10) * seconds)
        process.kill()
        output, _ = process.communicate(timeout=60)
        acknowledged += [line for line in output.split("\n")[:-1] if line]
        unfinished += len(list(store.glob(".tmp-*")))

        summaries = artifact.list_versions(store)
        assert [summary.damage for summary in summaries if summary.damage] == []
        assert set(acknowledged) <= {summary.version for summary in summaries}
        if acknowledged:
            artifact.load(store)

    assert acknowledged
    assert unfinished
    last = artifact.publish(store, MODEL, PROVENANCE)
    assert list(store.glob(".tmp-*")) == []
    assert artifact.current_version(store) == last


CHANGER = """
import sys
from pathlib import Path
from shared import artifact

store, first, second = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
print("ready", flush=True)
while True:
    artifact.activate(store, first)
    artifact.activate(store, second)
    artifact.rollback(store)
"""


@pytest.mark.slow
def test_killed_while_activating_and_rolling_back_the_store_stays_readable(store: Path) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    dice = random.Random(7)
    for _ in range(5):
        command = [sys.executable, "-c", CHANGER, str(store), first, second]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.02, 0.15))
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=60)

        live = artifact.load(store).manifest.version
        trail = (store / "CURRENT").read_text().split()
        assert trail[0] == live
        assert set(trail) <= {first, second}
        assert len(trail) < 2 or artifact.rollback(store) == trail[1]

    artifact.activate(store, second)


def test_what_a_running_publisher_writes_is_not_removed(store: Path) -> None:
    """A publisher waits for the one before it, so that all it finds unfinished is of the dead."""
    slow = replace(MODEL, items=SlowItems([{}, {}, {}, {}]))

    with ThreadPoolExecutor() as pool:
        first = pool.submit(artifact.publish, store, slow, PROVENANCE)
        while not list(store.glob(".tmp-*")):
            time.sleep(0.001)
        second = artifact.publish(store, MODEL, PROVENANCE)

    assert artifact.load(store, first.result()).manifest.version != second
    assert [summary.damage for summary in artifact.list_versions(store)] == [None, None]


class SlowItems(list[dict[str, Any]]):
    """Item metadata that takes its time."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in super().__iter__():
            time.sleep(0.1)
            yield item


def test_unfinished_versions_are_neither_listed_nor_loaded_and_go_with_the_next(store: Path, version: Path) -> None:
    version.rename(store / ".tmp-dead")

    assert artifact.list_versions(store) == []
    with pytest.raises(UserError, match="there is no such version"):
        artifact.load(store)
    (store / ".tmp-file").write_text("half")
    (store / ".tmp-link").symlink_to(Path(__file__))
    artifact.publish(store, MODEL, PROVENANCE)

    assert list(store.glob(".tmp-*")) == []
    assert Path(__file__).exists()
