"""Whatever is not as it was published is refused by the name of its file."""

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shared import artifact
from shared.errors import UserError
from tests.unit.artifact.damages import (
    add_file_entry,
    edit,
    edit_without_sealing,
    flip,
    forge,
    forge_text,
    link,
    make_folder,
    remove,
    reseal,
    save,
    truncate,
)
from tests.unit.artifact.models import MODEL, PROVENANCE

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
