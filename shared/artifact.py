"""The artefact: what the trainer hands to the service, one immutable folder a version in a store folder.

    <store>/CURRENT                       the live version, and below it those live before; replaced atomically
    <store>/<version>/manifest.json       what the version is, and the sha256 and size of every other file
                      README.md           the model card
                      user_embeddings.npy, item_embeddings.npy                 float32 [rows, width]
                      user_ids_{bytes,offsets,order}.npy, item_ids_*.npy       see shared/ids.py
                      train_indptr.npy, train_indices.npy                      CSR of training interactions
                      fold_in.npy                                              float32 [width, width], shared/fold_in.py
                      items.jsonl, items_offsets.npy                           item metadata, optional
                      parts.json, user_parts.npy, fold_in_parts.npy            shared/parts.py, optional
                      attached.<name>                                          files of other modules, optional

The student's embeddings are all there is of the model (Eq. 31 needs no more, and what folds new users in follows
from them); the teachers stay with the trainer. Nothing is pickled. A version is written under a temporary name,
synced and renamed, so that it is there whole or not at all. Reading refuses whatever differs from what was published,
by name.
"""

import hashlib
import json
import mmap
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib.format import open_memmap, write_array
from numpy.typing import NDArray

from shared import durable
from shared import manifest as manifests
from shared.errors import UserError
from shared.fold_in import fit_map
from shared.ids import ARRAY_NAMES, IdMap
from shared.manifest import DatasetInfo, FileEntry, Manifest, Split
from shared.model_card import model_card
from shared.parts import Parts, names_from, parts_of
from shared.tables import Tables, floats, integers

__all__ = [
    "CURRENT",
    "Artifact",
    "DatasetInfo",
    "FileEntry",
    "Manifest",
    "Provenance",
    "Split",
    "StudentModel",
    "VersionSummary",
    "activate",
    "activations",
    "current_version",
    "follow",
    "glance",
    "list_versions",
    "load",
    "load_path",
    "prune",
    "publish",
    "rollback",
    "verify",
]

CURRENT = "CURRENT"
"""The file of a store whose first line is the name of the live version."""

_Scalar = TypeVar("_Scalar", bound=np.generic)

_MANIFEST = "manifest.json"
_CARD = "README.md"
_FOLD_IN = "fold_in.npy"
_ITEMS = "items.jsonl"
_ITEM_OFFSETS = "items_offsets.npy"
_REQUIRED = {
    _CARD,
    _FOLD_IN,
    *(f"{table.name}.npy" for table in fields(Tables)),
    *(f"{side}_ids_{name}.npy" for side in ("user", "item") for name in ARRAY_NAMES),
}
_PARTS = "parts.json"
_USER_PARTS = "user_parts.npy"
_FOLD_IN_PARTS = "fold_in_parts.npy"
_OPTIONAL = ({_ITEMS, _ITEM_OFFSETS}, {_PARTS, _USER_PARTS, _FOLD_IN_PARTS})
"""Files that are there together or not at all."""
_ATTACHED = "attached."
_ATTACHMENT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_LOCK = ".lock"
_ACTIVATIONS_KEPT = 20
_HASHING_THREADS = 4
_REMEDY = "Publish the model again, or use another version."


@dataclass(frozen=True)
class StudentModel:
    """What the trainer hands in to be published. Row ``i`` of a table belongs to id ``i``.

    Attributes:
        user_ids: outside ids, unique and not empty.
        item_ids: outside ids, unique and not empty.
        user_embeddings: floats [users, width], finite; stored as float32.
        item_embeddings: floats [items, width], finite; stored as float32.
        train_indptr: integers [users + 1]; the row starts of the training interactions in CSR form.
        train_indices: integers [training interactions]; item indices, rising within a row.
        items: the metadata of each item (any JSON object, e.g. with a ``title``), or ``None``.
        user_parts: by name floats [users, width], which add up to ``user_embeddings``; or ``None``.
        attachments: further files by name, as content or as the path of a file to copy: an index, an encoder. This
            module keeps them whole and knows nothing of what is in them. A name is of lower-case letters, digits,
            ``_``, ``.`` and ``-``.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    user_embeddings: NDArray[np.floating]
    item_embeddings: NDArray[np.floating]
    train_indptr: NDArray[np.integer]
    train_indices: NDArray[np.integer]
    items: Sequence[Mapping[str, Any]] | None = None
    user_parts: Mapping[str, NDArray[np.floating]] | None = None
    attachments: Mapping[str, bytes | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; everything must have a JSON form. See :class:`shared.manifest.Manifest`."""

    dataset: DatasetInfo
    recipe: Mapping[str, Any]
    seed: int
    metrics: Mapping[str, float]
    code_revision: str | None = None
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Artifact:
    """A checked artefact. Tables and ids are memory-mapped and read-only; do not change the folder below it.

    Attributes:
        path: the version's folder.
        manifest: what the version says of itself.
        users: user ids.
        items: item ids.
        user_embeddings: float32 [users, width].
        item_embeddings: float32 [items, width].
        train_indptr: int64 [users + 1].
        train_indices: int32 [training interactions].
        popularity: int64 [items], the training interactions of each item.
        fold_in: float32 [width, width], the matrix of :mod:`shared.fold_in`.
        parts: what the user embeddings are the sum of; ``None`` if the artefact does not say.
    """

    path: Path
    manifest: Manifest
    users: IdMap
    items: IdMap
    user_embeddings: NDArray[np.float32]
    item_embeddings: NDArray[np.float32]
    train_indptr: NDArray[np.int64]
    train_indices: NDArray[np.int32]
    popularity: NDArray[np.int64]
    fold_in: NDArray[np.float32]
    parts: Parts | None
    _metadata: "_Metadata | None" = field(repr=False)

    @property
    def width(self) -> int:
        """The length of an embedding."""
        return int(self.item_embeddings.shape[1])

    def seen(self, user_index: int) -> NDArray[np.int32]:
        """Return the items of a user's training interactions, int32 [any], rising; a view.

        Raises:
            IndexError: there is no such user.
        """
        if not 0 <= user_index < len(self.users):
            raise IndexError(f"no user has the dense index {user_index}: there are {len(self.users)}")
        return self.train_indices[self.train_indptr[user_index] : self.train_indptr[user_index + 1]]

    def attachment(self, name: str) -> Path | None:
        """The checked file that was published as the attachment ``name``; ``None`` if there is none."""
        return self.path / f"{_ATTACHED}{name}" if f"{_ATTACHED}{name}" in self.manifest.files else None

    def item_metadata(self, index: int) -> dict[str, Any] | None:
        """Read an item's metadata from the file; ``None`` if the artefact has none.

        Raises:
            IndexError: there is no such item.
        """
        if not 0 <= index < len(self.items):
            raise IndexError(f"no item has the dense index {index}: there are {len(self.items)}")
        return None if self._metadata is None else self._metadata.row(index)

    def item_metadata_json(self, index: int) -> bytes | None:
        """An item's metadata as it was written, a JSON object in UTF-8; not parsed, for who hands it on."""
        return None if self._metadata is None else self._metadata.line(index)


@dataclass(frozen=True)
class VersionSummary:
    """An entry of :func:`list_versions`.

    ``damage`` says what is wrong with the version, ``None`` if it is sound; ``manifest`` is ``None`` where it
    cannot be read.
    """

    version: str
    current: bool
    damage: str | None
    manifest: Manifest | None


def publish(store: Path, model: StudentModel, provenance: Provenance, *, activate: bool = True) -> str:
    """Write a new version into a store folder (made if need be); whole or, after any failure, not at all.

    Publishers of one store take turns. What killed ones left behind is removed.

    Args:
        store: the folder of versions.
        model: the student to publish.
        provenance: where it comes from.
        activate: also make it the current version.

    Returns:
        The name of the version.

    Raises:
        UserError: the model or its provenance is not sound, or the store cannot be written.
    """
    tables = _tables(model)
    _check_counts(provenance.dataset, model)
    for name in model.attachments:
        if not _ATTACHMENT.fullmatch(name):
            raise _unpublishable("attachments", f"has {name!r}, which is no name of a file to attach")
    with _writing(store):
        store.mkdir(parents=True, exist_ok=True)
        with durable.exclusive(store / _LOCK):
            _remove_unfinished(store)
            version = _write_version(store, model, tables, provenance)
            if activate:
                _point_current(store, version)
    return version


def load(store: Path, version: str | None = None) -> Artifact:
    """Load a version of a store, the current one by default; see :func:`load_path`.

    Raises:
        UserError: there is no such version, or it is not as it was published.
    """
    name = current_version(store) if version is None else _version(version)
    if name is None:
        raise _no_current(store)
    artifact = load_path(store / name)
    if artifact.manifest.version != name:
        raise _damage(store / name / _MANIFEST, f"is that of version {artifact.manifest.version}")
    return artifact


def load_path(directory: Path) -> Artifact:
    """Load the artefact in a folder, memory-mapped, after checking it.

    Checked are the manifest's digest, that exactly the files it names are there, each one's size and sha256,
    the dtype and shape of every table, that embeddings are finite, and that ids, tables and interactions agree.

    Raises:
        UserError: something is not as it was published; the message names the file.
    """
    with _reading(directory):
        manifest = _read_manifest(directory)
        _check_files(directory, manifest)
        return _open(directory, manifest)


def verify(directory: Path) -> Manifest:
    """Check an artefact as :func:`load_path` does, and read every id and every item's metadata besides.

    Raises:
        UserError: something is not as it should be; the message names the file.
    """
    artifact = load_path(directory)
    for side, ids in (("user", artifact.users), ("item", artifact.items)):
        try:
            ids.check_order()
        except UserError as error:
            raise _damage(directory / f"{side}_ids_order.npy", str(error)) from error
    for index in range(len(artifact.items)):
        artifact.item_metadata(index)
    return artifact.manifest


def list_versions(store: Path) -> list[VersionSummary]:
    """Every folder of a store that is not hidden, each checked as :func:`load` does, oldest first.

    An empty list where there is no store.

    Raises:
        UserError: the store cannot be read.
    """
    return _summaries(store, lambda name: load(store, name).manifest)


def glance(store: Path) -> list[VersionSummary]:
    """Every version as :func:`list_versions` has it, but without reading more than the manifests.

    Files that are missing, or not of their size, are damage here too; changed bytes in them are not seen.
    """
    return _summaries(store, lambda name: _glanced(store / name))


def activate(store: Path, version: str) -> None:
    """Make a version the current one, after checking it.

    Raises:
        UserError: there is no such version, it is damaged, or the store cannot be written.
    """
    load(store, version)
    with _writing(store), durable.exclusive(store / _LOCK):
        _point_current(store, version)


def rollback(store: Path) -> str:
    """Make the version current, after checking it, that was so before the current one.

    Each call undoes one activation, as far back as the last 20: activate A, B, C and roll back twice, and A is
    current. A version that was rolled back from is not come back to; :func:`activate` it to have it again.

    Returns:
        The name of the version that is current now.

    Raises:
        UserError: there is no version to go back to, it is damaged or gone, or the store cannot be written.
    """
    if current_version(store) is None:
        raise _no_current(store)
    with _writing(store), durable.exclusive(store / _LOCK):
        trail = activations(store)
        if len(trail) < 2:
            raise UserError(f"{store / CURRENT}: knows of no version before. Activate one that `models list` shows")
        load(store, trail[1])
        _write_current(store, trail[1:])
    return trail[1]


def follow(store: Path, trail: Sequence[str]) -> None:
    """Take over the activations of another copy of the store, newest first, after checking the one to be live.

    Raises:
        UserError: the first is not there or damaged, or the store cannot be written.
    """
    load(store, trail[0])
    with _writing(store), durable.exclusive(store / _LOCK):
        _write_current(store, trail)


def current_version(store: Path) -> str | None:
    """Read the version that ``CURRENT`` names, ``None`` if there is no such file.

    Raises:
        UserError: the file holds anything but names of versions.
    """
    trail = activations(store)
    return trail[0] if trail else None


def activations(store: Path) -> list[str]:
    """The current version and those that were so before it, newest first; empty if there is no current one.

    Raises:
        UserError: ``CURRENT`` holds anything but names of versions.
    """
    path = store / CURRENT
    with _reading(path):
        try:
            _require_regular(path)
        except FileNotFoundError:
            return []
        with path.open("rb") as file:
            content = file.read(1000)
    names = content.decode("ascii", errors="replace").removesuffix("\n").split("\n")
    for name in names:
        if not manifests.is_version(name):
            raise UserError(f"{path}: {name!r} is not the name of a version. Activate one that `models list` shows")
    return names


def prune(store: Path, keep: int) -> list[str]:
    """Remove all versions but the newest, the current one and the one before it.

    A version vanishes in one step. Who has it open keeps it until they let go.

    Args:
        store: the folder of versions.
        keep: how many of the newest stay.

    Returns:
        The names of those removed, oldest first.

    Raises:
        UserError: the store cannot be written.
    """
    with _writing(store), durable.exclusive(store / _LOCK):
        lived = activations(store)
        names = sorted(path.name for path in store.iterdir() if path.is_dir() and manifests.is_version(path.name))
        old = names[: max(0, len(names) - keep)]
        removed = [name for name in old if name not in lived[:2]]
        if lived and removed:
            _write_current(store, [name for name in lived if name not in removed])
        for name in removed:
            (store / name).rename(durable.temporary_sibling(store / name))
        durable.sync_directory(store)
        _remove_unfinished(store)
    return removed


# The model handed in


def _tables(model: StudentModel) -> Tables:
    tables = Tables(
        floats("user_embeddings", model.user_embeddings, _unpublishable),
        floats("item_embeddings", model.item_embeddings, _unpublishable),
        integers("train_indptr", model.train_indptr, np.int64, _unpublishable),
        integers("train_indices", model.train_indices, np.int32, _unpublishable),
    )
    tables.check(len(model.user_ids), len(model.item_ids), _unpublishable)
    if model.items is not None and len(model.items) != len(model.item_ids):
        raise _unpublishable("items", f"has {len(model.items)} entries for {len(model.item_ids)} item ids")
    return tables


def _check_counts(dataset: DatasetInfo, model: StudentModel) -> None:
    users, items = len(model.user_ids), len(model.item_ids)
    if (dataset.users, dataset.items) != (users, items):
        counted = f"{dataset.users} users and {dataset.items} items"
        raise _unpublishable("dataset", f"counts {counted}, and the model has {users} and {items}")


def _unpublishable(table: str, what: str) -> UserError:
    return UserError(f"the model cannot be published: {table} {what}")


# Item metadata


@dataclass(frozen=True)
class _Metadata:
    """Rows of ``items.jsonl``: row ``i`` lies between byte offsets ``i`` and ``i + 1``."""

    path: Path
    lines: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def line(self, index: int) -> bytes:
        return self.lines[self.offsets[index] : self.offsets[index + 1] - 1].tobytes()

    def row(self, index: int) -> dict[str, Any]:
        try:
            row = json.loads(self.line(index).decode())
        except (ValueError, RecursionError) as error:
            raise _damage(self.path, f"line {index + 1} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise _damage(self.path, f"line {index + 1} is not a JSON object")
        return row


def _item_line(item: Mapping[str, Any], item_id: str) -> bytes:
    try:
        return json.dumps(dict(item), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise _unpublishable("items", f"has metadata of item {item_id!r} that is not JSON: {error}") from error


def _open_metadata(directory: Path, items: int) -> _Metadata:
    path = directory / _ITEMS
    offsets = _open_array(directory / _ITEM_OFFSETS, np.int64)
    if offsets.shape != (items + 1,):
        raise _damage(directory / _ITEM_OFFSETS, f"has the shape {offsets.shape} for {items} items")
    if offsets[0] != 0 or offsets[-1] != path.stat().st_size or np.any(offsets[1:] <= offsets[:-1]):
        raise _damage(directory / _ITEM_OFFSETS, f"does not fit {_ITEMS}")
    return _Metadata(path, np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray), offsets)


# Reading


def _no_current(store: Path) -> UserError:
    return UserError(f"{store}: holds no current model. Train and publish one first (mts4mm train)")


def _read_manifest(directory: Path) -> Manifest:
    try:
        mode = directory.lstat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{directory}: there is no such version. `models list` shows those there are") from error
    if not stat.S_ISDIR(mode):
        raise _damage(directory, "is a symbolic link or a file; a version is a folder")
    path = directory / _MANIFEST
    try:
        _require_regular(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing, so {directory} is no artefact of mts4mm. {_REMEDY}") from error
    try:
        return manifests.decode(path.read_bytes())
    except UserError as error:
        raise _damage(path, str(error)) from error


def _check_files(directory: Path, manifest: Manifest) -> None:
    _check_names(directory, manifest)
    entries = sorted(manifest.files.items())
    for name, entry in entries:
        _check_size(directory / name, entry)
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        found = pool.map(lambda named: _entry(directory / named[0]), entries)
        for (name, entry), actual in zip(entries, found, strict=True):
            if actual != entry:
                raise _damage(directory / name, "its sha256 is not that of the manifest; it was damaged or changed")


def _check_names(directory: Path, manifest: Manifest) -> None:
    named = set(manifest.files)
    for name in sorted(named - _REQUIRED.union(*_OPTIONAL)):
        if name.startswith(_ATTACHED) and _ATTACHMENT.fullmatch(name.removeprefix(_ATTACHED)):
            continue
        raise _damage(directory / _MANIFEST, f"names the file {name!r}, which no artefact has")
    for together in _OPTIONAL:
        if 0 < len(named & together) < len(together):
            raise _damage(directory / _MANIFEST, f"must name {', '.join(sorted(together))} all or none")
    for name in sorted(_REQUIRED - named):
        raise _damage(directory / _MANIFEST, f"does not name {name}")
    found = {path.name for path in directory.iterdir()} - {_MANIFEST}
    for name in sorted(named - found):
        raise _damage(directory / name, "is missing")
    for name in sorted(found - named):
        raise UserError(f"{directory / name}: is no part of the artefact. Move it elsewhere")


def _check_size(path: Path, entry: FileEntry) -> None:
    _require_regular(path)
    size = path.stat().st_size
    if size != entry.size:
        raise _damage(path, f"has {size} bytes instead of {entry.size}; it was truncated or changed")


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=digest, size=file.tell())


def _open(directory: Path, manifest: Manifest) -> Artifact:
    users, items = _open_ids(directory, "user"), _open_ids(directory, "item")
    tables = Tables(
        _open_array(directory / "user_embeddings.npy", np.float32),
        _open_array(directory / "item_embeddings.npy", np.float32),
        _open_array(directory / "train_indptr.npy", np.int64),
        _open_array(directory / "train_indices.npy", np.int32),
    )
    tables.check(len(users), len(items), lambda table, what: _damage(directory / f"{table}.npy", what))
    if (manifest.dataset.users, manifest.dataset.items) != (len(users), len(items)):
        raise _damage(directory / _MANIFEST, f"does not count the {len(users)} users and {len(items)} items here")
    artifact = Artifact(
        path=directory,
        manifest=manifest,
        users=users,
        items=items,
        user_embeddings=tables.user_embeddings,
        item_embeddings=tables.item_embeddings,
        train_indptr=tables.train_indptr,
        train_indices=tables.train_indices,
        popularity=np.bincount(tables.train_indices, minlength=len(items)).astype(np.int64),
        fold_in=_open_fold_in(directory / _FOLD_IN, tables.item_embeddings.shape[1]),
        parts=_open_parts(directory, tables) if _PARTS in manifest.files else None,
        _metadata=_open_metadata(directory, len(items)) if _ITEMS in manifest.files else None,
    )
    for table in vars(tables).values():
        _let_go(table)
    return artifact


def _let_go(table: NDArray[Any]) -> None:
    """Hand back the pages of a mapped table that the checks read; what is asked for later comes from the page cache."""
    owner: Any = table
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _open_fold_in(path: Path, width: int) -> NDArray[np.float32]:
    matrix = _open_array(path, np.float32)
    if matrix.shape != (width, width):
        raise _damage(
            path, f"has the shape {matrix.shape}, and embeddings of width {width} need a square of that width"
        )
    if not np.isfinite(matrix).all():
        raise _damage(path, "holds NaN or infinity")
    return matrix


def _open_parts(directory: Path, tables: Tables) -> Parts:
    try:
        names = names_from(json.loads((directory / _PARTS).read_bytes()))
    except (ValueError, RecursionError, UserError) as error:
        raise _damage(directory / _PARTS, str(error)) from error
    parts = Parts(
        names,
        _open_array(directory / _USER_PARTS, np.float32),
        _open_array(directory / _FOLD_IN_PARTS, np.float32),
    )
    parts.check(tables, lambda table, what: _damage(directory / f"{table}.npy", what))
    return parts


def _open_ids(directory: Path, side: str) -> IdMap:
    paths = {name: directory / f"{side}_ids_{name}.npy" for name in ARRAY_NAMES}
    arrays: dict[str, NDArray[np.generic]] = {
        "bytes": _open_array(paths["bytes"], np.uint8),
        "offsets": _open_array(paths["offsets"], np.int64),
        "order": _open_array(paths["order"], np.int64),
    }
    try:
        return IdMap.from_arrays(arrays)
    except UserError as error:
        raise _damage(directory / f"{side}_ids_*.npy", str(error)) from error


def _open_array(path: Path, dtype: type[_Scalar]) -> NDArray[_Scalar]:
    try:
        array = open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy reads the header as Python text, and every error of that comes through
        raise _damage(path, f"is not an array file that can be read without unpickling ({error})") from error
    if array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        raise _damage(path, f"holds {array.dtype}, not row-wise {np.dtype(dtype)}")
    if array.offset + array.nbytes != path.stat().st_size:
        raise _damage(path, "has bytes after its array")
    return array.view(np.ndarray)


def _require_regular(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _damage(path, "is a symbolic link, a folder or a device; it must be a plain file")


def _summaries(store: Path, check: Callable[[str], Manifest]) -> list[VersionSummary]:
    if not store.exists():
        return []
    with _reading(store):
        names = [path.name for path in store.iterdir() if _may_be_version(path)]
    try:
        current = current_version(store)
    except UserError:
        current = None
    return sorted((_summary(store, name, current, check) for name in names), key=_by_time)


def _glanced(directory: Path) -> Manifest:
    with _reading(directory):
        manifest = _read_manifest(directory)
        _check_names(directory, manifest)
        for name, entry in sorted(manifest.files.items()):
            _check_size(directory / name, entry)
    return manifest


def _summary(store: Path, name: str, current: str | None, check: Callable[[str], Manifest]) -> VersionSummary:
    try:
        return VersionSummary(name, name == current, None, check(name))
    except UserError as error:
        return VersionSummary(name, name == current, str(error), _manifest_if_readable(store / name))


def _manifest_if_readable(directory: Path) -> Manifest | None:
    try:
        return _read_manifest(directory)
    except (UserError, OSError):
        return None


def _by_time(summary: VersionSummary) -> tuple[str, float, str]:
    created = 0.0 if summary.manifest is None else summary.manifest.created.timestamp()
    return summary.version.partition("-")[0], created, summary.version


def _may_be_version(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir()


def _version(name: str) -> str:
    if not manifests.is_version(name):
        raise UserError(f"{name!r} is not the name of a version (such as 20261122T231501Z-3fa9c1d2)")
    return name


def _damage(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}. {_REMEDY}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise UserError(f"{where}: cannot be read: {error.strerror}. {_REMEDY}") from error


# Writing


@contextmanager
def _writing(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = store if error.filename is None else error.filename
        raise UserError(f"{where}: cannot be written: {error.strerror}. Mend that and try again") from error


def _write_version(store: Path, model: StudentModel, tables: Tables, provenance: Provenance) -> str:
    staging = durable.temporary_sibling(store / CURRENT)
    staging.mkdir()
    try:
        _write_tables(staging, model, tables)
        version = _write_manifest(staging, provenance, tables.user_embeddings.shape[1])
        durable.sync_directory(staging)
        staging.rename(store / version)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    durable.sync_directory(store)
    return version


def _write_tables(directory: Path, model: StudentModel, tables: Tables) -> None:
    for name, array in vars(tables).items():
        _write_array(directory / f"{name}.npy", array)
    _write_array(directory / _FOLD_IN, fit_map(*vars(tables).values()))
    for side, ids in (("user", model.user_ids), ("item", model.item_ids)):
        for name, array in _id_map(side, ids).to_arrays().items():
            _write_array(directory / f"{side}_ids_{name}.npy", array)
    if model.user_parts is not None:
        _write_parts(directory, parts_of(model.user_parts, tables, _unpublishable))
    if model.items is not None:
        _write_items(directory, model.items, model.item_ids)
    for name, content in model.attachments.items():
        _write_attachment(directory / f"{_ATTACHED}{name}", content)


def _id_map(side: str, ids: Sequence[str]) -> IdMap:
    try:
        return IdMap.from_ids(ids)
    except UserError as error:
        raise _unpublishable(f"{side}_ids", f"are not sound: {error}") from error


def _write_parts(directory: Path, parts: Parts) -> None:
    with durable.synced_file(directory / _PARTS) as file:
        file.write(json.dumps(parts.names).encode())
    _write_array(directory / _USER_PARTS, parts.users)
    _write_array(directory / _FOLD_IN_PARTS, parts.fold_in)


def _write_items(directory: Path, items: Sequence[Mapping[str, Any]], item_ids: Sequence[str]) -> None:
    offsets = np.zeros(len(items) + 1, dtype=np.int64)
    with durable.synced_file(directory / _ITEMS) as file:
        for index, item in enumerate(items):
            offsets[index + 1] = offsets[index] + file.write(_item_line(item, item_ids[index]))
    _write_array(directory / _ITEM_OFFSETS, offsets)


def _write_attachment(path: Path, content: bytes | Path) -> None:
    with durable.synced_file(path) as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            with content.open("rb") as source:
                shutil.copyfileobj(source, file)


def _write_array(path: Path, array: NDArray[Any]) -> None:
    with durable.synced_file(path) as file:
        write_array(file, array, allow_pickle=False)


def _write_manifest(staging: Path, provenance: Provenance, width: int) -> str:
    content: dict[str, Any] = {
        "code_revision": provenance.code_revision,
        "dataset": provenance.dataset,
        "recipe": dict(provenance.recipe),
        "seed": provenance.seed,
        "metrics": {name: _plain(value) for name, value in provenance.metrics.items()},
        "gate": None if provenance.gate is None else dict(provenance.gate),
        "files": {path.name: _entry(path) for path in sorted(staging.iterdir())},
    }
    content |= _unused_version(staging.parent, content["files"])
    with durable.synced_file(staging / _CARD) as file:
        file.write(model_card(manifests.seal(content), width).encode())
    content["files"][_CARD] = _entry(staging / _CARD)
    manifest = manifests.seal(content)
    with durable.synced_file(staging / _MANIFEST) as file:
        file.write(manifests.encode(manifest))
    return manifest.version


def _plain(value: float) -> float:
    return value.item() if isinstance(value, np.number) else value


def _unused_version(store: Path, files: Mapping[str, FileEntry]) -> dict[str, Any]:
    content = {name: entry.sha256 for name, entry in files.items()}
    while True:
        created = datetime.now(UTC)
        version = manifests.version_name(created, content)
        if not (store / version).exists():
            return {"version": version, "created": created}


def _point_current(store: Path, version: str) -> None:
    try:
        before = activations(store)
    except UserError:
        before = []  # what cannot be read is mended by being replaced
    _write_current(store, before if before[:1] == [version] else [version, *before])


def _write_current(store: Path, trail: Sequence[str]) -> None:
    with durable.replacing(store / CURRENT) as file:
        file.write("".join(f"{version}\n" for version in trail[:_ACTIVATIONS_KEPT]).encode())


def _remove_unfinished(store: Path) -> None:
    """Remove what killed publishers left; the caller holds the lock, so none of it is being written."""
    for path in store.glob(f"{durable.TEMPORARY_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
