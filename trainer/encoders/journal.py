"""Vectors as they are made, on disk at once, so that a killed run goes on where it was.

A file of records: sha256 of the content, CRC-32 of the rest, the vector. A record that is torn, or that a crash of
the machine left half written, is not read.
"""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


class Journal:
    """An append-only file of vectors of one encoder, by content."""

    def __init__(self, path: Path, width: int) -> None:
        self._record = np.dtype([("content", "V32"), ("check", "<u4"), ("vector", "<f4", (width,))])
        self._path = path
        self._rows = self._sound_rows()
        self._file: BinaryIO = path.open("ab")
        self._file.truncate(len(self._rows) * self._record.itemsize)

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """The vectors that were there when it was opened, by the content's sha256."""
        return {bytes(row["content"]).hex(): row["vector"] for row in self._rows}

    def append(self, contents: Iterable[str], vectors: NDArray[np.float32]) -> None:
        """Add vectors (n, width) by content; they survive the death of this process from then on."""
        for content, vector in zip(contents, vectors, strict=True):
            key, body = bytes.fromhex(content), vector.astype("<f4").tobytes()
            self._file.write(key + np.uint32(zlib.crc32(key + body)).astype("<u4").tobytes() + body)
        self._file.flush()

    def close(self) -> None:
        """Keep it for a later run."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _sound_rows(self) -> NDArray[np.void]:
        """The records up to the first that is not sound."""
        if not self._path.exists():
            return np.zeros(0, self._record)
        rows = np.fromfile(self._path, self._record)
        for position, row in enumerate(rows):
            if zlib.crc32(bytes(row["content"]) + row["vector"].tobytes()) != row["check"]:
                return rows[:position]
        return rows
