"""What is called what in the folder of a version, and what is said of it when it is not as it should be."""

import hashlib
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from shared.errors import UserError
from shared.ids import ARRAY_NAMES
from shared.manifest import FileEntry
from shared.tables import Tables

CURRENT = "CURRENT"
"""The file of a store whose first line is the name of the live version."""

MANIFEST = "manifest.json"
CARD = "README.md"
FOLD_IN = "fold_in.npy"
ITEMS = "items.jsonl"
ITEM_OFFSETS = "items_offsets.npy"
REQUIRED = {
    CARD,
    FOLD_IN,
    *(f"{table.name}.npy" for table in fields(Tables)),
    *(f"{side}_ids_{name}.npy" for side in ("user", "item") for name in ARRAY_NAMES),
}
PARTS = "parts.json"
USER_PARTS = "user_parts.npy"
FOLD_IN_PARTS = "fold_in_parts.npy"
OPTIONAL = ({ITEMS, ITEM_OFFSETS}, {PARTS, USER_PARTS, FOLD_IN_PARTS})
"""Files that are there together or not at all."""
ATTACHED = "attached."
ATTACHMENT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
REMEDY = "Publish the model again, or use another version."


def damage(path: Path, what: str) -> UserError:
    """What is raised where a file is not as it was published."""
    return UserError(f"{path}: {what}. {REMEDY}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of what cannot be read which file it is."""
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise UserError(f"{where}: cannot be read: {error.strerror}. {REMEDY}") from error


def require_regular(path: Path) -> None:
    """Refuse what is no plain file.

    Raises:
        UserError: it is something else.
        FileNotFoundError: it is not there.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise damage(path, "is a symbolic link, a folder or a device; it must be a plain file")


def entry_of(path: Path) -> FileEntry:
    """What the manifest says of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(sha256=digest, size=file.tell())
