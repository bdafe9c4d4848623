"""Writes that survive a crash: synced to the disk, visible whole or not at all, one writer at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

TEMPORARY_PREFIX = ".tmp-"
"""Begins the name of everything that is not finished; what a killed writer left can be told by it."""


def temporary_sibling(path: Path) -> Path:
    """Return an unused temporary name beside ``path``, on the same file system."""
    return path.parent / f"{TEMPORARY_PREFIX}{uuid4().hex}"


@contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing and sync it to the disk at the end; refuses to overwrite."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory (new, renamed, removed) survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file anew, atomically: readers see the old content or the new one, also after a crash."""
    temporary = temporary_sibling(path)
    try:
        with synced_file(temporary) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def exclusive(lock: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold ``lock`` (a file, made if need be) against every other process; a killed holder lets it go.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is false.
    """
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
