"""Content modalities: ``<modality>_feat.npy`` and ``<modality>_neighbors.npz``, and which items have them.

An item lacks a modality if its feature row is all NaN or all zero or, where there are only neighbours, if it
has none. Such items have no features and are nobody's neighbours: nothing downstream may take their zeros for
content. Row r is row r of the items table; who that is, ``contents`` knows.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import arrays
from trainer.dataset.findings import MAX_EXAMPLES, Example, Findings, UnreadableError

_FILE = re.compile(r"(?P<name>.*)_(?P<kind>feat\.npy|neighbors\.npz)")
_NAME = re.compile(r"(?!(?:id|linear|shared|vectors)$)[a-z][a-z0-9_-]*", re.IGNORECASE)
"""The four are parts of the model: the view of ids, the linear teacher, what the views share, what the tower gives."""
_ROWS_PER_CHUNK = 8192
_COSINE_SLACK = 1e-3


@dataclass(frozen=True, eq=False)
class Modality:
    """What is known of the items through one kind of content.

    Attributes:
        features: (items, d_m); rows of absent items are zero. None if only neighbours are given.
        present: (items,) which items have it.
        neighbours: (items, k) precomputed, nearest first, -1 = none. None if not given.
        cosine: (items, k), 0 where there is no neighbour. None if not given.
    """

    name: str
    features: NDArray[np.float32] | None
    present: NDArray[np.bool_]
    neighbours: NDArray[np.int32] | None
    cosine: NDArray[np.float32] | None


@dataclass(frozen=True)
class Features:
    """A features file: ``values`` (rows, d_m) and ``present`` (rows,)."""

    file: str
    values: NDArray[np.float32]
    present: NDArray[np.bool_]


@dataclass(frozen=True)
class Neighbours:
    """A neighbours file: ``indices`` (rows, k), any integers, and ``cosine`` (rows, k)."""

    file: str
    indices: NDArray[Any]
    cosine: NDArray[np.float32] | None


@dataclass(frozen=True)
class ModalityFiles:
    """The readable files of one modality, before the number of items is known."""

    name: str
    features: Features | None
    neighbours: Neighbours | None

    def rows(self) -> dict[str, int]:
        """Rows of each file."""
        features, neighbours = self.features, self.neighbours
        return ({features.file: len(features.values)} if features else {}) | (
            {neighbours.file: len(neighbours.indices)} if neighbours else {}
        )


def read_modalities(directory: Path, findings: Findings, progress: Callable[[str], None]) -> list[ModalityFiles]:
    """Every modality of a directory, sorted by name; unreadable files are reported and left out."""
    names = set()
    for path in sorted(directory.iterdir()):
        matched = _FILE.fullmatch(path.name)
        if matched and _NAME.fullmatch(matched["name"]):
            names.add(matched["name"])
        elif matched:
            message = (
                f"{matched['name']!r} names no modality: rename the file to start with letters, and not 'id', "
                "'linear', 'shared' or 'vectors', which are parts of the model"
            )
            findings.error("bad_modality_name", path.name, message)
        elif path.suffix in (".npy", ".npz"):
            message = "is not used: name it <modality>_feat.npy or <modality>_neighbors.npz if it is meant to be"
            findings.warning("unused_file", path.name, message)
    read = []
    for name in sorted(names):
        progress(f"{name} features")
        features = _read_features(directory / f"{name}_feat.npy", findings)
        neighbours = _read_neighbours(directory / f"{name}_neighbors.npz", findings)
        if features or neighbours:
            read.append(ModalityFiles(name, features, neighbours))
    return read


def usual_rows(modalities: Iterable[ModalityFiles]) -> int | None:
    """The number of rows that most files agree on (the larger one on a tie); None without files."""
    counts = Counter(rows for modality in modalities for rows in modality.rows().values())
    return max(counts, key=lambda rows: (counts[rows], rows), default=None)


def fit_modality(files: ModalityFiles, items: int, counted: str, findings: Findings) -> Modality | None:
    """A modality of ``items`` items; None, after an error, if a file has another number of rows or is empty.

    Args:
        files: what was read.
        items: the number of items.
        counted: where that number comes from, for the message.
        findings: where faults are added.
    """
    short = {file: rows for file, rows in files.rows().items() if rows != items}
    for file, rows in short.items():
        message = f"has {rows} rows, but there are {items} items in {counted}: write one row an item, in that order"
        findings.error("wrong_row_count", file, message)
    if short:
        return None
    neighbours = files.neighbours and _checked_neighbours(files.neighbours, items, findings)
    if files.features:
        present = files.features.present
    elif neighbours:
        present = np.asarray((neighbours.indices >= 0).any(axis=1))
    else:
        return None
    if not present.any():
        message = f"no item has modality {files.name!r}: write its rows, or remove its files"
        findings.error("empty_modality", next(iter(files.rows())), message)
        return None
    if neighbours:
        neighbours = _without_absent(neighbours, present, findings)
    return Modality(
        files.name,
        files.features.values if files.features else None,
        present,
        neighbours.indices if neighbours else None,
        neighbours.cosine if neighbours else None,
    )


def _read_features(path: Path, findings: Findings) -> Features | None:
    if not path.exists():
        return None
    try:
        stored = arrays.open_npy(path)
        _require_matrix(stored, "float32")
    except UnreadableError as fault:
        findings.unreadable(path.name, fault)
        return None
    values = np.empty(stored.shape, np.float32)
    norms = np.empty(len(values), np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, len(values), _ROWS_PER_CHUNK):
            chunk = slice(start, start + _ROWS_PER_CHUNK)
            values[chunk] = stored[chunk]
            norms[chunk] = np.einsum("ij,ij->i", values[chunk], values[chunk])
    present = np.isfinite(norms) & (norms > 0)
    _report_rows(path.name, values, norms, findings)
    values[~present] = 0
    return Features(path.name, values, present)


def _report_rows(file: str, values: NDArray[np.float32], norms: NDArray[np.float32], findings: Findings) -> None:
    unusual = np.flatnonzero(np.isnan(norms))
    whole = np.isnan(values[unusual]).all(axis=1)
    partly, blank = unusual[~whole], unusual[whole]
    infinite, zero = np.flatnonzero(np.isinf(norms)), np.flatnonzero(norms == 0)
    if len(partly):
        message = f"{len(partly)} rows are NaN in places: correct them, or make the whole row NaN for 'has none'"
        findings.error("partly_nan", file, message, len(partly), _rows(partly, "NaN"))
    if len(infinite):
        message = f"{len(infinite)} rows are infinite or too large for float32: correct or rescale them"
        findings.error("infinite_features", file, message, len(infinite), _rows(infinite, "infinite"))
    if len(blank):
        message = f"{len(blank)} rows are NaN: these items count as lacking the modality"
        findings.warning("nan_rows", file, message, len(blank), _rows(blank, "NaN"))
    if len(zero):
        message = f"{len(zero)} rows have norm zero: these items count as lacking the modality"
        findings.warning("zero_rows", file, message, len(zero), _rows(zero, "0"))


def _read_neighbours(path: Path, findings: Findings) -> Neighbours | None:
    if not path.exists():
        return None
    try:
        stored = arrays.open_npz(path, ("neighbors", "cosine"))
        if "neighbors" not in stored:
            raise UnreadableError("missing_array", "has no array 'neighbors': np.savez(path, neighbors=...)")
        _require_matrix(stored["neighbors"], "int32")
        cosine = stored.get("cosine")
        if cosine is not None:
            _require_matrix(cosine, "float32")
            if cosine.shape != stored["neighbors"].shape:
                message = f"'cosine' is {cosine.shape}, 'neighbors' {stored['neighbors'].shape}: give both one shape"
                raise UnreadableError("wrong_shape", message)
    except UnreadableError as fault:
        findings.unreadable(path.name, fault)
        return None
    return Neighbours(path.name, stored["neighbors"], None if cosine is None else cosine.astype(np.float32))


def _require_matrix(array: NDArray[Any], suited: Literal["float32", "int32"]) -> None:
    """Refuse what is no matrix of numbers of the kind of ``suited``, whatever their size."""
    wanted = {"float32": np.floating, "int32": np.integer}[suited]
    if array.ndim != 2:
        message = f"has {array.ndim} dimensions, shape {array.shape}: write a matrix with one row an item"
        raise UnreadableError("wrong_ndim", message)
    if not np.issubdtype(array.dtype, wanted):
        raise UnreadableError("wrong_dtype", f"is {array.dtype}: save it as {suited}")
    if 0 in array.shape:
        raise UnreadableError("wrong_shape", f"is empty, shape {array.shape}: write one row an item")


def _checked_neighbours(neighbours: Neighbours, items: int, findings: Findings) -> Neighbours | None:
    indices, cosine = neighbours.indices, neighbours.cosine
    outside = (indices < -1) | (indices >= items)
    if rows := np.flatnonzero(outside.any(axis=1)).tolist():
        message = f"{len(rows)} rows name items outside 0..{items - 1}: correct them (-1 means no neighbour)"
        places = [Example(row, str(indices[row][outside[row]][0])) for row in rows[:MAX_EXAMPLES]]
        findings.error("neighbour_out_of_range", neighbours.file, message, len(rows), places)
        return None
    indices = indices.astype(np.int32)
    ordered = np.sort(indices, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if rows := np.flatnonzero(twice.any(axis=1)).tolist():
        message = f"{len(rows)} rows name a neighbour more than once: name each once, and fill up with -1"
        places = [Example(row, str(ordered[row][1:][twice[row]][0])) for row in rows[:MAX_EXAMPLES]]
        findings.error("duplicate_neighbours", neighbours.file, message, len(rows), places)
    if cosine is not None:
        bad = (indices >= 0) & ~(np.abs(cosine) <= 1 + _COSINE_SLACK)
        if rows := np.flatnonzero(bad.any(axis=1)).tolist():
            message = f"{len(rows)} rows of 'cosine' are not within -1..1: correct them, or leave 'cosine' out"
            places = [Example(row, str(cosine[row][bad[row]][0])) for row in rows[:MAX_EXAMPLES]]
            findings.error("bad_cosine", neighbours.file, message, len(rows), places)
        cosine = np.where(indices >= 0, cosine, np.float32(0))
    return Neighbours(neighbours.file, indices, cosine)


def _without_absent(neighbours: Neighbours, present: NDArray[np.bool_], findings: Findings) -> Neighbours:
    """Take out edges from and to items that lack the modality."""
    named = neighbours.indices >= 0
    drop = named & ~(present[:, None] & present[neighbours.indices])
    if not drop.any():
        return neighbours
    rows = np.flatnonzero(drop.any(axis=1))
    message = f"{len(rows)} rows link items that lack the modality: these links are left out"
    findings.warning("neighbours_of_absent", neighbours.file, message, len(rows), _rows(rows, "left out"))
    cosine = neighbours.cosine
    return Neighbours(
        neighbours.file,
        np.where(drop, -1, neighbours.indices),
        None if cosine is None else np.where(drop, np.float32(0), cosine),
    )


def _rows(rows: NDArray[np.intp], value: str) -> list[Example]:
    return [Example(int(row), value) for row in rows[:MAX_EXAMPLES]]
