"""Writes a model as a version's folder: under a temporary name first, synced and renamed, so whole or not at all."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array
from numpy.typing import NDArray

from shared import durable
from shared import manifest as manifests
from shared.artifact.layout import (
    ATTACHED,
    ATTACHMENT,
    CARD,
    CURRENT,
    FOLD_IN,
    FOLD_IN_PARTS,
    ITEM_OFFSETS,
    ITEMS,
    MANIFEST,
    PARTS,
    USER_PARTS,
    entry_of,
)
from shared.errors import UserError
from shared.fold_in import fit_map
from shared.ids import IdMap
from shared.manifest import DatasetInfo, FileEntry
from shared.model_card import model_card
from shared.parts import Parts, parts_of
from shared.tables import Tables, floats, integers


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


def checked_tables(model: StudentModel, dataset: DatasetInfo) -> Tables:
    """The tables of a model that is to be published as trained on a dataset, in the types that they are kept in.

    Raises:
        UserError: the model is not sound, or does not count what the dataset does.
    """
    tables = Tables(
        floats("user_embeddings", model.user_embeddings, _unpublishable),
        floats("item_embeddings", model.item_embeddings, _unpublishable),
        integers("train_indptr", model.train_indptr, np.int64, _unpublishable),
        integers("train_indices", model.train_indices, np.int32, _unpublishable),
    )
    users, items = len(model.user_ids), len(model.item_ids)
    tables.check(users, items, _unpublishable)
    if model.items is not None and len(model.items) != items:
        raise _unpublishable("items", f"has {len(model.items)} entries for {items} item ids")
    if (dataset.users, dataset.items) != (users, items):
        counted = f"{dataset.users} users and {dataset.items} items"
        raise _unpublishable("dataset", f"counts {counted}, and the model has {users} and {items}")
    for name in model.attachments:
        if not ATTACHMENT.fullmatch(name):
            raise _unpublishable("attachments", f"has {name!r}, which is no name of a file to attach")
    return tables


def _unpublishable(table: str, what: str) -> UserError:
    return UserError(f"the model cannot be published: {table} {what}")


def write_version(store: Path, model: StudentModel, tables: Tables, provenance: Provenance) -> str:
    """Write a version into a store, whole or not at all; the caller holds the store's lock.

    Args:
        store: the folder of versions.
        model: the student.
        tables: of :func:`checked_tables`.
        provenance: where it comes from.

    Returns:
        The name of the version.

    Raises:
        UserError: ids, parts or metadata are not sound.
        OSError: the store cannot be written.
    """
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
    _write_array(directory / FOLD_IN, fit_map(*vars(tables).values()))
    for side, ids in (("user", model.user_ids), ("item", model.item_ids)):
        for name, array in _id_map(side, ids).to_arrays().items():
            _write_array(directory / f"{side}_ids_{name}.npy", array)
    if model.user_parts is not None:
        _write_parts(directory, parts_of(model.user_parts, tables, _unpublishable))
    if model.items is not None:
        _write_items(directory, model.items, model.item_ids)
    for name, content in model.attachments.items():
        _write_attachment(directory / f"{ATTACHED}{name}", content)


def _id_map(side: str, ids: Sequence[str]) -> IdMap:
    try:
        return IdMap.from_ids(ids)
    except UserError as error:
        raise _unpublishable(f"{side}_ids", f"are not sound: {error}") from error


def _write_parts(directory: Path, parts: Parts) -> None:
    with durable.synced_file(directory / PARTS) as file:
        file.write(json.dumps(parts.names).encode())
    _write_array(directory / USER_PARTS, parts.users)
    _write_array(directory / FOLD_IN_PARTS, parts.fold_in)


def _write_items(directory: Path, items: Sequence[Mapping[str, Any]], item_ids: Sequence[str]) -> None:
    offsets = np.zeros(len(items) + 1, dtype=np.int64)
    with durable.synced_file(directory / ITEMS) as file:
        for index, item in enumerate(items):
            offsets[index + 1] = offsets[index] + file.write(_item_line(item, item_ids[index]))
    _write_array(directory / ITEM_OFFSETS, offsets)


def _item_line(item: Mapping[str, Any], item_id: str) -> bytes:
    try:
        return json.dumps(dict(item), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as error:
        raise _unpublishable("items", f"has metadata of item {item_id!r} that is not JSON: {error}") from error


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
        "files": {path.name: entry_of(path) for path in sorted(staging.iterdir())},
    }
    content |= _unused_version(staging.parent, content["files"])
    with durable.synced_file(staging / CARD) as file:
        file.write(model_card(manifests.seal(content), width).encode())
    content["files"][CARD] = entry_of(staging / CARD)
    manifest = manifests.seal(content)
    with durable.synced_file(staging / MANIFEST) as file:
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
