"""The items table: ids and whatever else is known of each item, row by row.

``items.csv``, ``items.parquet`` or ``items.jsonl``. Attributes keep their types, nested ones included; a CSV file has
none, so there an attribute is a number where all that is said of it are plain ones, ``NaN``, ``N/A`` and the like
saying nothing. Records hold what JSON can hold: dates become ISO 8601 text, decimals and durations (seconds) become
numbers, NaN and infinity become null.
"""

import datetime as dt
import decimal
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from trainer.dataset import columns, tables
from trainer.dataset.columns import ITEM, ITEM_ID, ROW
from trainer.dataset.findings import Example, Findings, UnreadableError, named, shorten
from trainer.dataset.interactions import as_ids, report_spaces, row_examples

FILES = ("items.csv", "items.parquet", "items.jsonl")

_NEARLY = re.compile(
    r"items\.(csv|tsv|txt|xlsx?|json|jsonl|ndjson|parquet|pq)(\.(?:gz|bz2|xz|zst|zip))?", re.IGNORECASE
)
"""Names of files that were most likely meant as one of these."""

_FORMATS = {"json": "jsonl", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet", "pq": "parquet"}

TEXTS = ("title", "name", "description", "image")
"""Columns of a CSV file whose cells are text, whatever they look like; in upper or lower case."""

_NUMBER = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?$"
"""A number that means the same however it is written: a leading zero tells a code, and longer ones JSON rounds."""

_DRESSED_NUMBER = (
    r"^(?:[A-Z]{3}|\p{Sc})?\s?-?(?:[0-9]{1,3}(?:[.,' ][0-9]{3})+|[0-9]+)(?:[.,][0-9]+)?\s?(?:[A-Z]{3}|\p{Sc}|%)?$"
)
"""Also one with a currency, a percent sign, separators of thousands or a decimal comma."""

_CODE = r"^(?:0[0-9]+|[0-9]{16,})$"

_NOTHING = ("nan", "n/a", "na", "null", "none")
"""What programs write, in upper or lower case, where a number is missing."""

MOSTLY_NUMBERS = 0.8
"""The share of numbers, plain or dressed, above which a column was most likely meant as one of numbers."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of their table.

    Attributes:
        ids: distinct item ids, (items,).
        records: one an item; ``item_id`` first, under that name.
        rows: rows of the table; more than ``items`` only if ids repeat, which is an error.
    """

    file: str
    ids: pl.Series
    records: list[Record]
    rows: int


def find_tables(directory: Path) -> list[Path]:
    """The items tables of a directory; there should be one at most."""
    return [directory / name for name in FILES if (directory / name).is_file()]


def report_misnamed(directory: Path, read: list[Path], needed: bool, findings: Findings) -> None:
    """Name the files that look like items tables and are none of those that are read.

    Args:
        directory: where they lie.
        read: what is read of it.
        needed: whether that is an error: there are features, and no table that says whose they are.
        findings: where they are added.
    """
    report = findings.error if needed else findings.warning
    for path in sorted(directory.iterdir()):
        match = _NEARLY.fullmatch(path.name)
        if match and path.is_file() and not any(path.samefile(other) for other in read):
            message = f"is not read, though it may be meant as the items table: {_how_to_name(match)}, or move it away"
            report("misnamed_items_table", path.name, message)


def _how_to_name(match: re.Match[str]) -> str:
    ending, packed = match[1].lower(), match[2]
    name = f"items.{_FORMATS.get(ending, 'csv')}"
    if packed:
        return f"unpack it into {name}"
    if ending == "json":
        return f"write one object a line, as {name}"
    return f"name it {name}" if ending in ("csv", *_FORMATS) else f"save it with commas, as {name}"


def read_catalogue(found: list[Path], findings: Findings) -> Catalogue | None:
    """Read and check the only table found; None, after an error, if there are several or it gives no items."""
    path, *others = found
    if others:
        names = ", ".join(each.name for each in found)
        message = f"several items tables ({names}): leave one"
        findings.error("several_items_tables", path.parent.name, message, len(found))
        return None
    try:
        rows, records = _json_lines(path, findings) if path.suffix == ".jsonl" else _table(path, findings)
        id_key = _id_key(records)
    except UnreadableError as fault:
        findings.unreadable(path.name, fault)
        return None
    if not records:
        findings.error("no_items", path.name, "has no items: add some, or remove the file")
        return None
    ids = _ids(path, rows, [record.get(id_key) for record in records], findings)
    if ids is None:
        return None
    keep = ids[ITEM].is_not_null() & ids[ITEM].is_first_distinct()
    kept = [_renamed(record, id_key, item) for record, item, good in zip(records, ids[ITEM], keep, strict=True) if good]
    return Catalogue(path.name, ids[ITEM].filter(keep), kept, len(records))


def _table(path: Path, findings: Findings) -> tuple[list[int], list[Record]]:
    table = tables.read_table(path)
    columns_of_bytes = [name for name, kind in table.schema.items() if _holds_bytes(kind)]
    if columns_of_bytes:
        message = f"column {columns_of_bytes[0]!r} holds bytes: store text, or the path of a file"
        raise UnreadableError("unsupported_type", message)
    start = tables.first_row(path)
    if tables.is_parquet(path):
        records = [_jsonable(record) for record in table.to_dicts()]
    else:
        records = _with_numbers(path.name, table, findings)
    if not records and not _id_keys(table.columns):
        raise _no_id_column(table.columns)
    return list(range(start, start + len(records))), records


def _holds_bytes(kind: pl.DataType | DataTypeClass) -> bool:
    """Whether a column's values are bytes, or have some in them, as a data set's pictures with their paths have."""
    if isinstance(kind, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in kind.fields)
    return _holds_bytes(kind.inner) if isinstance(kind, pl.List | pl.Array) else kind == pl.Binary


def _with_numbers(file: str, table: pl.DataFrame, findings: Findings) -> list[Record]:
    """The rows of a CSV file's table, with numbers in the columns that have nothing else; a filter compares these."""
    kept = {*TEXTS, *(name.lower() for name in _id_keys(table.columns))}
    cells = {}
    for name, column in table.to_dict().items():
        numbers = None if name.lower() in kept else _numbers(column)
        if numbers is None and name.lower() not in kept:
            _report_mixed(file, column, findings)
        cells[name] = column.to_list() if numbers is None else numbers
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _numbers(cells: pl.Series) -> list[int | float | None] | None:
    """Each cell's number, None where it says nothing; None if all say nothing, or one is no number."""
    said = _said(cells)
    if said.is_null().all() or not said.str.contains(_NUMBER).all():
        return None
    return [None if cell is None else float(cell) if "." in cell else int(cell) for cell in said]


def _said(cells: pl.Series) -> pl.Series:
    """The cells, null where they say nothing."""
    return cells.set(cells.str.to_lowercase().is_in(["", *_NOTHING]), None)


def _report_mixed(file: str, cells: pl.Series, findings: Findings) -> None:
    """Warn of a column that is text for a few cells, or for how its numbers are written; codes are meant as text."""
    said = pl.DataFrame({ROW: range(tables.FIRST_TEXT_ROW, tables.FIRST_TEXT_ROW + len(cells)), "cell": _said(cells)})
    said = said.drop_nulls()
    likely = said["cell"].str.contains(_DRESSED_NUMBER)
    if not said.height or said["cell"].str.contains(_CODE).any() or likely.sum() < MOSTLY_NUMBERS * said.height:
        return
    plain = said["cell"].str.contains(_NUMBER)
    odd = row_examples(said, ~plain, "cell")
    message = (
        f"column {shorten(repr(cells.name))}: {plain.sum()} of {said.height} filled cells are plain numbers, row "
        f"{odd[0].row} is {shorten(odd[0].value)}, so that all are text and no range (min, max) finds them: write each "
        "as 1299.50, or leave it empty"
    )
    findings.warning("mixed_column", file, message, int((~plain).sum()), odd)


def _json_lines(path: Path, findings: Findings) -> tuple[list[int], list[Record]]:
    tables.require_contents(path)
    tables.require_utf8(path)
    rows, records, bad = [], [], []
    with path.open(encoding="utf-8-sig") as file:
        for row, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                records.append(_json_object(line))
                rows.append(row)
            except (ValueError, RecursionError) as fault:
                bad.append(Example(row, str(fault)))
    if bad:
        message = f"{len(bad)} lines are no JSON object: write one object a line"
        findings.error("malformed_row", path.name, message, len(bad), bad)
    return rows, records


def _json_object(line: str) -> Record:
    """One line's object; ValueError or RecursionError if it is none, or no text could hold it."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("no object")
    if "\\ud" in line.lower():
        json.dumps(record, ensure_ascii=False).encode()  # a lone surrogate is no character
    return {key: _jsonable(value) for key, value in record.items()}


def _id_key(records: list[Record]) -> str:
    keys = list(dict.fromkeys(key for record in records for key in record))
    found = _id_keys(keys)
    if records and not found:
        raise _no_id_column(keys)
    return found[0] if found else ITEM_ID


def _id_keys(header: list[str]) -> list[str]:
    return [header[position] for position in columns.resolve(header).get(ITEM, [])]


def _no_id_column(header: list[str]) -> UnreadableError:
    message = f"no column item_id; there are: {named(header)}. Name the id column item_id"
    return UnreadableError("missing_column", message)


def _ids(path: Path, rows: list[int], values: list[object], findings: Findings) -> pl.DataFrame | None:
    """Columns ``row`` and ``item``, null where a row has no id; None, after an error, for ids of a wrong type."""
    wrong = [
        Example(row, repr(value))
        for row, value in zip(rows, values, strict=True)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int))
    ]
    if wrong:
        message = f"{len(wrong)} item ids are neither string nor integer: store them as strings"
        findings.error("bad_id_type", path.name, message, len(wrong), wrong)
        return None
    texts = pl.Series(ITEM, [None if value is None else str(value) for value in values], dtype=pl.String)
    ids = pl.DataFrame({ROW: rows}).with_columns(as_ids(texts))
    empty = ids[ITEM].is_null()
    if count := int(empty.sum()):
        message = f"{count} items have no id: fill it in or drop the rows"
        findings.error("empty_id", path.name, message, count, row_examples(ids, empty, ITEM))
    repeated = ~ids[ITEM].is_first_distinct() & ~empty
    if count := int(repeated.sum()):
        message = f"{count} item ids stand there more than once: keep one row an item"
        findings.error("duplicate_item_ids", path.name, message, count, row_examples(ids, repeated, ITEM))
    report_spaces(path.name, ids, ITEM, findings)
    return ids


def _renamed(record: Record, id_key: str, item: str) -> Record:
    rest = {key: value for key, value in record.items() if key not in (id_key, ITEM_ID)}
    return {ITEM_ID: item} | rest


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float | decimal.Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return value
