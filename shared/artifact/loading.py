"""Reads a version's folder: memory-mapped, and refused by name where it differs from what was published."""

import json
import mmap
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from shared import manifest as manifests
from shared.artifact.layout import (
    ATTACHED,
    ATTACHMENT,
    FOLD_IN,
    FOLD_IN_PARTS,
    ITEM_OFFSETS,
    ITEMS,
    MANIFEST,
    OPTIONAL,
    PARTS,
    REMEDY,
    REQUIRED,
    USER_PARTS,
    damage,
    entry_of,
    reading,
    require_regular,
)
from shared.errors import UserError
from shared.ids import ARRAY_NAMES, IdMap
from shared.manifest import FileEntry, Manifest
from shared.parts import Parts, names_from
from shared.tables import Tables

_Scalar = TypeVar("_Scalar", bound=np.generic)

_HASHING_THREADS = 4


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
            raise damage(self.path, f"line {index + 1} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise damage(self.path, f"line {index + 1} is not a JSON object")
        return row


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
    _metadata: _Metadata | None = field(repr=False)

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
        return self.path / f"{ATTACHED}{name}" if f"{ATTACHED}{name}" in self.manifest.files else None

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


def load_path(directory: Path) -> Artifact:
    """Load the artefact in a folder, memory-mapped, after checking it.

    Checked are the manifest's digest, that exactly the files it names are there, each one's size and sha256,
    the dtype and shape of every table, that embeddings are finite, and that ids, tables and interactions agree.

    Raises:
        UserError: something is not as it was published; the message names the file.
    """
    with reading(directory):
        manifest = read_manifest(directory)
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
            raise damage(directory / f"{side}_ids_order.npy", str(error)) from error
    for index in range(len(artifact.items)):
        artifact.item_metadata(index)
    return artifact.manifest


def read_manifest(directory: Path) -> Manifest:
    """Read a version's manifest, and check its own digest.

    Raises:
        UserError: there is none, or it was changed.
    """
    try:
        mode = directory.lstat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{directory}: there is no such version. `models list` shows those there are") from error
    if not stat.S_ISDIR(mode):
        raise damage(directory, "is a symbolic link or a file; a version is a folder")
    path = directory / MANIFEST
    try:
        require_regular(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing, so {directory} is no artefact of mts4mm. {REMEDY}") from error
    try:
        return manifests.decode(path.read_bytes())
    except UserError as error:
        raise damage(path, str(error)) from error


def _check_files(directory: Path, manifest: Manifest) -> None:
    check_names(directory, manifest)
    entries = sorted(manifest.files.items())
    for name, entry in entries:
        check_size(directory / name, entry)
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        found = pool.map(lambda named: entry_of(directory / named[0]), entries)
        for (name, entry), actual in zip(entries, found, strict=True):
            if actual != entry:
                raise damage(directory / name, "its sha256 is not that of the manifest; it was damaged or changed")


def check_names(directory: Path, manifest: Manifest) -> None:
    """Check that the manifest names what an artefact needs, and that just this is there.

    Raises:
        UserError: a file is missing, or there is one more.
    """
    named = set(manifest.files)
    for name in sorted(named - REQUIRED.union(*OPTIONAL)):
        if name.startswith(ATTACHED) and ATTACHMENT.fullmatch(name.removeprefix(ATTACHED)):
            continue
        raise damage(directory / MANIFEST, f"names the file {name!r}, which no artefact has")
    for together in OPTIONAL:
        if 0 < len(named & together) < len(together):
            raise damage(directory / MANIFEST, f"must name {', '.join(sorted(together))} all or none")
    for name in sorted(REQUIRED - named):
        raise damage(directory / MANIFEST, f"does not name {name}")
    found = {path.name for path in directory.iterdir()} - {MANIFEST}
    for name in sorted(named - found):
        raise damage(directory / name, "is missing")
    for name in sorted(found - named):
        raise UserError(f"{directory / name}: is no part of the artefact. Move it elsewhere")


def check_size(path: Path, entry: FileEntry) -> None:
    """Check that a file is a plain one, of its size.

    Raises:
        UserError: it is not.
    """
    require_regular(path)
    size = path.stat().st_size
    if size != entry.size:
        raise damage(path, f"has {size} bytes instead of {entry.size}; it was truncated or changed")


def _open(directory: Path, manifest: Manifest) -> Artifact:
    users, items = _open_ids(directory, "user"), _open_ids(directory, "item")
    tables = Tables(
        _open_array(directory / "user_embeddings.npy", np.float32),
        _open_array(directory / "item_embeddings.npy", np.float32),
        _open_array(directory / "train_indptr.npy", np.int64),
        _open_array(directory / "train_indices.npy", np.int32),
    )
    tables.check(len(users), len(items), lambda table, what: damage(directory / f"{table}.npy", what))
    if (manifest.dataset.users, manifest.dataset.items) != (len(users), len(items)):
        raise damage(directory / MANIFEST, f"does not count the {len(users)} users and {len(items)} items here")
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
        fold_in=_open_fold_in(directory / FOLD_IN, tables.item_embeddings.shape[1]),
        parts=_open_parts(directory, tables) if PARTS in manifest.files else None,
        _metadata=_open_metadata(directory, len(items)) if ITEMS in manifest.files else None,
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


def _open_metadata(directory: Path, items: int) -> _Metadata:
    path = directory / ITEMS
    offsets = _open_array(directory / ITEM_OFFSETS, np.int64)
    if offsets.shape != (items + 1,):
        raise damage(directory / ITEM_OFFSETS, f"has the shape {offsets.shape} for {items} items")
    if offsets[0] != 0 or offsets[-1] != path.stat().st_size or np.any(offsets[1:] <= offsets[:-1]):
        raise damage(directory / ITEM_OFFSETS, f"does not fit {ITEMS}")
    return _Metadata(path, np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray), offsets)


def _open_fold_in(path: Path, width: int) -> NDArray[np.float32]:
    matrix = _open_array(path, np.float32)
    if matrix.shape != (width, width):
        raise damage(path, f"has the shape {matrix.shape}, and embeddings of width {width} need a square of that width")
    if not np.isfinite(matrix).all():
        raise damage(path, "holds NaN or infinity")
    return matrix


def _open_parts(directory: Path, tables: Tables) -> Parts:
    try:
        names = names_from(json.loads((directory / PARTS).read_bytes()))
    except (ValueError, RecursionError, UserError) as error:
        raise damage(directory / PARTS, str(error)) from error
    parts = Parts(
        names,
        _open_array(directory / USER_PARTS, np.float32),
        _open_array(directory / FOLD_IN_PARTS, np.float32),
    )
    parts.check(tables, lambda table, what: damage(directory / f"{table}.npy", what))
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
        raise damage(directory / f"{side}_ids_*.npy", str(error)) from error


def _open_array(path: Path, dtype: type[_Scalar]) -> NDArray[_Scalar]:
    try:
        array = open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy reads the header as Python text, and every error of that comes through
        raise damage(path, f"is not an array file that can be read without unpickling ({error})") from error
    if array.dtype != np.dtype(dtype) or not array.flags.c_contiguous:
        raise damage(path, f"holds {array.dtype}, not row-wise {np.dtype(dtype)}")
    if array.offset + array.nbytes != path.stat().st_size:
        raise damage(path, "has bytes after its array")
    return array.view(np.ndarray)
