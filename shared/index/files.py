"""Indexes in files: the attachments ``index.json`` and ``index.faiss`` of an artefact.

faiss reads its own format with few checks, and searching an index whose parts do not fit each other can end the
process. So what is read is compared, part by part, with a blank index of the kind that the report names, and every
item number and link in it is checked. Both files are of the artefact, whose checksums stand before all this.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from shared.errors import UserError
from shared.index.kinds import Kind

INDEX = "index.faiss"
REPORT = "index.json"

_SLACK_BYTES = 1 << 20
_PARTS = ("index", "quantizer", "storage", "pq", "sq", "hnsw", "invlists")
_FILLED_IN = {"ntotal", "ntotal2", "is_trained", "max_level", "entry_point"}
"""Numbers that differ between a blank index and one with items; each is checked by itself."""
_UNREADABLE = {"use_visited_hashset", "turboq_refine"}
"""Attributes that faiss has no Python type for."""


def write(index: Any, path: Path) -> None:
    """Write an index to a file.

    Raises:
        OSError: it cannot be written.
    """
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"{path}: {error}") from error


def read(path: Path, kind: Kind, items: int, width: int) -> Any:
    """Map an index file of a kind into memory, shared with whoever maps it too, after checking its structure.

    Raises:
        UserError: it is not an index of that kind over ``items`` rows of ``width`` columns.
    """
    limit = path.stat().st_size + _SLACK_BYTES
    faiss.set_deserialization_vector_byte_limit(limit)
    faiss.set_deserialization_loop_limit(limit)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    except Exception as error:  # faiss throws whatever its reading comes upon
        reason = str(error).rpartition("Error: ")[2].strip() or type(error).__name__
        raise UserError(f"is no index that faiss reads ({reason[:200]})") from error
    _compare("index", index, kind.blank(items, width))
    _require(index.ntotal == items, f"holds {index.ntotal} items instead of {items}")
    _check_contents(index, items)
    return index


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise UserError(what)


def _compare(name: str, found: Any, blank: Any) -> None:
    """Every number that does not depend on the items must be that of a blank index, in every part."""
    for attribute, value in _numbers(blank):
        _require(getattr(found, attribute, None) == value, f"has another {name}.{attribute} than its kind")
    for part in _PARTS:
        if getattr(blank, part, None) is None:
            continue
        _require(getattr(found, part, None) is not None, f"has no {name}.{part}")
        _compare(f"{name}.{part}", *(_downcast(getattr(whole, part)) for whole in (found, blank)))


def _numbers(blank: Any) -> Iterator[tuple[str, int | float]]:
    for attribute in dir(blank):
        if not attribute.startswith("_") and attribute not in _FILLED_IN | _UNREADABLE:
            value = getattr(blank, attribute)
            if isinstance(value, int | float):
                yield attribute, value


def _downcast(part: Any) -> Any:
    if isinstance(part, faiss.Index):
        return faiss.downcast_index(part)
    if isinstance(part, faiss.InvertedLists):
        return faiss.downcast_InvertedLists(part)
    return part


def _check_contents(index: Any, items: int) -> None:
    if isinstance(index, faiss.IndexIDMap):
        _require(_is_permutation(faiss.vector_to_array(index.id_map), items), "does not number each item once")
        _check_flat(index.index, items)
    elif isinstance(index, faiss.IndexIVF):
        _check_lists(index, items)
    elif isinstance(index, faiss.IndexHNSW):
        _check_flat(index.storage, items)
        _check_graph(index.hnsw, items)
    elif isinstance(index, faiss.IndexPQFastScan):
        _check_blocks(index, items)
    elif isinstance(index, faiss.IndexScalarQuantizer):
        _require(index.codes.size() == items * index.code_size, "has codes of another size")
    _check_tables(index)


def _check_tables(index: Any) -> None:
    """What codes are read by."""
    pq, sq = getattr(index, "pq", None), getattr(index, "sq", None)
    if pq is not None:
        _require(pq.centroids.size() == pq.d * pq.ksub, "has centroids of another size")
    if sq is not None:
        _require(sq.trained.size() == 2 * sq.d, "has ranges of another size")


def _check_flat(part: Any, rows: int) -> None:
    flat: Any = faiss.downcast_index(part)
    _require(flat.ntotal == rows and flat.codes.size() == rows * flat.code_size, "has vectors of another size")


def _check_blocks(index: Any, items: int) -> None:
    padded = -(-items // index.bbs) * index.bbs
    _require(index.ntotal2 == padded, "has another number of codes than items")
    _require(index.codes.size() == padded * index.M2 // 2, "has codes of another size")


def _check_lists(index: Any, items: int) -> None:
    _check_flat(index.quantizer, index.nlist)
    lists = faiss.downcast_InvertedLists(index.invlists)
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    _require(sum(sizes) == items, "has another number of items in its lists")
    numbers = [faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    _require(_is_permutation(np.concatenate(numbers), items), "does not number each item once")


def _check_graph(graph: Any, items: int) -> None:
    levels, offsets = faiss.vector_to_array(graph.levels), faiss.vector_to_array(graph.offsets).astype(np.int64)
    per_level = faiss.vector_to_array(graph.cum_nneighbor_per_level)
    _require(len(levels) == items and len(offsets) == items + 1, "has a graph of another size")
    _require(levels.min() >= 1 and levels.max() < len(per_level), "has nodes on levels that do not exist")
    _require(bool(np.array_equal(np.diff(offsets), per_level[levels])) and offsets[0] == 0, "has links out of place")
    links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
    _require(len(links) == offsets[-1], "has links of another size")
    _require(links.min() >= -1 and links.max() < items, "has links to items that do not exist")
    _require(0 <= graph.entry_point < items, "starts from an item that does not exist")
    _require(graph.max_level == levels[graph.entry_point] - 1 == levels.max() - 1, "starts from the wrong level")
    for level in range(1, graph.max_level + 1):
        _check_level(level, levels, offsets, per_level, links)


def _check_level(
    level: int,
    levels: NDArray[np.int32],
    offsets: NDArray[np.int64],
    per_level: NDArray[np.int32],
    links: NDArray[np.int32],
) -> None:
    """Whoever is linked to on a level must be on it, or its links there would be those of somebody else."""
    nodes = np.flatnonzero(levels > level)
    places = offsets[nodes, None] + np.arange(per_level[level], per_level[level + 1])
    linked = links[places]
    _require(bool((levels[linked[linked >= 0]] > level).all()), "has links to items that are not on their level")


def _is_permutation(numbers: NDArray[np.int64], count: int) -> bool:
    if len(numbers) != count or numbers.min() < 0 or numbers.max() >= count:
        return False
    return bool((np.bincount(numbers, minlength=count) == 1).all())
