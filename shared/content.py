"""What items look and read like: the content features of an artefact's items, to find which are near by one modality.

An artefact brings them as the attachment ``content_<modality>.npy``, float16 [items, width], rows of length 1, or of
zeros where an item lacks the modality. Features wider than ``MOST_WIDTH`` are kept by their leading directions, and
``content_<modality>.directions.npy``, float32 [features, width], takes other features there.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.artifact import Artifact
from shared.errors import UserError

MOST_WIDTH = 256
"""The columns that are kept of an item's features."""

_NAME = re.compile(r"attached\.content_(?P<modality>[a-z0-9_-]+)\.npy")
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Content:
    """One modality of all items; safe from any number of threads.

    Attributes:
        rows: float16 [items, width].
        directions: float32 [features, width]; None where the rows are the features themselves.
    """

    rows: NDArray[np.float16]
    directions: NDArray[np.float32] | None

    @property
    def features(self) -> int:
        """The width of the features that :meth:`cosines` takes."""
        return int(self.rows.shape[1] if self.directions is None else self.directions.shape[0])

    def has(self, item: int) -> bool:
        """Whether an item has the modality."""
        return bool(self.rows[item].any())

    def cosines_to(self, item: int) -> NDArray[np.float32]:
        """How near each item is to one of them, float32 [items]; -inf where either lacks the modality."""
        return cosines_of(self.rows, self.rows[item].astype(np.float32))

    def cosines(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """How near each item is to features [features], float32 [items]; -inf for items without the modality."""
        return cosines_of(self.rows, self.units(features[None])[0])

    def units(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as those of the items, float32 [any, width], of finite features [any, features], however long."""
        largest = np.abs(features).max(axis=1, keepdims=True, initial=0)
        scaled = features / np.where(largest > 0, largest, 1)  # or squares might overflow, or vanish
        reduced = scaled if self.directions is None else scaled @ self.directions
        lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
        return (reduced / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def cosines_of(rows: NDArray[np.floating[Any]], unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """How near rows [any, width] of length 1 are to one, float32 [any]; -inf where either is of zeros."""
    found = np.full(len(rows), -np.inf, np.float32)
    if not unit.any():
        return found
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE].astype(np.float32)
        there = block.any(axis=1)
        found[start : start + len(block)][there] = block[there] @ unit
    return found


def attachments_of(contents: Mapping[str, Content]) -> dict[str, bytes]:
    """What an artefact takes along of contents by modality, for ``StudentModel.attachments``."""
    attached = {}
    for modality, content in contents.items():
        attached[f"content_{modality}.npy"] = _encoded(content.rows)
        if content.directions is not None:
            attached[f"content_{modality}.directions.npy"] = _encoded(content.directions)
    return attached


def load_contents(artifact: Artifact) -> dict[str, Content]:
    """The contents of an artefact by modality, memory-mapped; empty if it has none.

    Raises:
        UserError: one is not of this form; the message names its file.
    """
    found = (_NAME.fullmatch(name) for name in sorted(artifact.manifest.files))
    return {match["modality"]: _load(artifact, match["modality"]) for match in found if match}


def _load(artifact: Artifact, modality: str) -> Content:
    rows = _read(artifact, f"content_{modality}.npy")
    if rows is None or rows.dtype != np.float16 or rows.ndim != 2 or len(rows) != len(artifact.items):
        raise UserError(f"{artifact.path}: content_{modality}.npy is no float16 table with a row for each item")
    directions = _read(artifact, f"content_{modality}.directions.npy")
    if directions is not None and (directions.dtype != np.float32 or directions.shape[1:] != rows.shape[1:]):
        raise UserError(f"{artifact.path}: content_{modality}.directions.npy does not lead to the width of its rows")
    return Content(rows, directions)


def _read(artifact: Artifact, name: str) -> NDArray[Any] | None:
    path = artifact.attachment(name)
    if path is None:
        return None
    try:
        table: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return table


def _encoded(table: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()
