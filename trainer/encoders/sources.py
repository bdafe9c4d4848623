"""What a catalogue's items are encoded from: words in some columns, a picture's path in another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shared.encoders.pictures import PictureError, read_picture_file
from shared.encoders.texts import as_text, joined
from shared.errors import UserError
from trainer.dataset.catalogue import find_tables, read_catalogue
from trainer.dataset.columns import ITEM_ID
from trainer.dataset.findings import Findings

IMAGE_FIELDS = ("image",)


@dataclass(frozen=True)
class Items:
    """A catalogue's items in the order of its table."""

    directory: Path
    records: Sequence[Mapping[str, Any]]

    @property
    def ids(self) -> list[str]:
        """(items,)."""
        return [record[ITEM_ID] for record in self.records]

    def columns(self, wanted: Sequence[str]) -> list[str]:
        """The columns of these names as the table spells them, upper or lower case, where it has them."""
        spelt = {name.lower(): name for record in self.records for name in record}
        return [spelt[name.lower()] for name in wanted if name.lower() in spelt]

    def without(self, wanted: Sequence[str]) -> list[str]:
        """Those of these names that the table has no column of."""
        return [name for name in wanted if not self.columns([name])]


def read_items(directory: Path) -> Items:
    """Read and check the items table of a directory.

    Raises:
        UserError: there is none, or it has an error.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: is no folder; give the one that holds your files")
    tables = find_tables(directory)
    if not tables:
        raise UserError(f"{directory}: has no items.csv, items.parquet or items.jsonl to encode; add one")
    findings = Findings()
    catalogue = read_catalogue(tables, findings)
    if findings.errors or catalogue is None:
        raise UserError("\n".join([f"{directory} cannot be encoded:", *(f"- {error}" for error in findings.errors)]))
    return Items(directory, catalogue.records)


class TextSource:
    """The words of each item: its columns' texts, joined."""

    def __init__(self, items: Items, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.items = items

    def read(self, row: int) -> str | None:
        """The text of an item; None where all its columns are empty."""
        record = self.items.records[row]
        return joined(record.get(column) for column in self.columns) or None


class PictureSource:
    """The picture of each item, as its bytes."""

    def __init__(self, items: Items, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.items = items

    def name(self, row: int) -> str | None:
        """What the table says; None where it says nothing."""
        record = self.items.records[row]
        return next((name for column in self.columns if (name := as_text(record.get(column)).strip())), None)

    def path(self, row: int) -> Path | None:
        """The file of an item's picture; None where the table names none.

        Raises:
            PictureError: the path leads out of the catalogue's folder.
        """
        name = self.name(row)
        return None if name is None else path_inside(self.items.directory, name)

    def read(self, row: int) -> bytes | None:
        """The bytes of an item's picture; None where the table names none.

        Raises:
            PictureError: there is no such file, it is too large, or outside the catalogue's folder.
        """
        path = self.path(row)
        return None if path is None else read_picture_file(path)


def path_inside(directory: Path, name: str) -> Path:
    """A file below a folder by its relative name.

    A link out of the folder is followed only if it is the first part of the name: who may lay links there may
    also write the table.

    Raises:
        PictureError: the name is absolute, leads out of the folder, is an address on the web, or no name at all.
    """
    if name.lower().startswith(("http://", "https://")):
        raise PictureError("is an address, and pictures are not fetched: save it in the folder, and give its path")
    parts = PurePosixPath(name).parts
    outside = PictureError(f"{name!r} leads out of the catalogue's folder: give a path below it")
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in name:
        raise outside
    path = directory.joinpath(*parts)
    try:
        resolved = path.resolve()
        allowed = (directory.resolve(), (directory / parts[0]).resolve())
    except (OSError, RuntimeError) as error:
        raise PictureError(f"cannot be read ({error}): correct its path") from None
    if not any(resolved.is_relative_to(each) for each in allowed):
        raise outside
    return path
