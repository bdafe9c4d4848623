"""The catalogue's pictures: a file of one folder, by the path that an item's metadata gives.

The path comes from a table that somebody else wrote, so nothing outside the folder is ever opened, and nothing is
sent that is not a picture by its own first bytes.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 16 * 2**20
"""Larger files are not served."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture; ``etag`` is another one whenever the file is."""

    content: bytes
    media_type: str
    etag: str


class PictureFolder:
    """Reads pictures below one folder."""

    def __init__(self, folder: Path) -> None:
        """Serve what lies in ``folder``; it need not exist yet."""
        self._folder = folder

    @property
    def problem(self) -> str | None:
        """What keeps all pictures from being served."""
        if os.access(f"{self._folder}/.", os.X_OK):
            return None
        return f"{self._folder} is no folder that can be read: correct MTS4MM_CATALOGUE, or --catalogue"

    def read(self, path: str) -> Picture | None:
        """The picture at a path relative to the folder.

        Returns:
            None where there is none: no such file, outside the folder (by ``..``, an absolute path or a link), no
            regular file, too large, or not a picture.
        """
        try:
            root = self._folder.resolve(strict=True)
            file = (root / path).resolve(strict=True)
            if not file.is_relative_to(root):
                return None
            return _read(file)
        except (OSError, ValueError, RuntimeError):  # a zero byte is a ValueError, a circle of links a RuntimeError
            return None


def media_type(content: bytes) -> str | None:
    """The media type of a picture by its first bytes; None for anything that is not served as one."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return None


def _read(file: Path) -> Picture | None:
    # a link that took the file's place since it was resolved is not followed, and a pipe does not block
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            return None
        content = opened.read(MAX_BYTES + 1)
    kind = media_type(content)
    if kind is None or len(content) > MAX_BYTES:
        return None
    return Picture(content, kind, f'"{found.st_mtime_ns:x}-{found.st_size:x}"')
