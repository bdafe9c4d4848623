"""What was published is what is loaded, and what is not sound is never published."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import artifact
from shared.artifact import StudentModel
from shared.errors import UserError
from tests.unit.artifact.damages import forge, forge_text
from tests.unit.artifact.models import ITEMS, MODEL, PROVENANCE, USERS


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
