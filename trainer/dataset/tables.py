"""Tables as they lie on disk: CSV and TSV with every cell a string, Parquet with its own types.

Knows encodings, quoting and damage; knows nothing of users or items. An empty cell is null.
"""

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from trainer.dataset.findings import UnreadableError, shorten

FIRST_TEXT_ROW = 2
"""The header of a CSV or TSV file is row 1, as in a spreadsheet."""

_BLOCK = 1 << 24
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_POLARS_FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def is_parquet(path: Path) -> bool:
    """Whether the name says Parquet."""
    return path.suffix == ".parquet"


def first_row(path: Path) -> int:
    """The number of a table's first data row, by the convention of ``findings.Example``."""
    return 0 if is_parquet(path) else FIRST_TEXT_ROW


def read_header(path: Path) -> list[str]:
    """Column names.

    Raises:
        UnreadableError: the file is empty, damaged or no text.
    """
    if is_parquet(path):
        return list(_parquet_schema(path))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, delimiter=_separator(path)), [])
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise UnreadableError("unreadable_file", f"the header cannot be read ({fault})") from fault


def read_table(path: Path) -> pl.DataFrame:
    """The whole table: strings from ``*.csv`` and ``*.inter``, typed columns from ``*.parquet``.

    Raises:
        UnreadableError: the file is empty, damaged, no UTF-8, a row has more fields than the header, or two columns
            have the same name.
    """
    require_contents(path)
    if not is_parquet(path):
        require_utf8(path)
        _require_distinct_names(path)
        return _read_text(path)
    _parquet_schema(path)
    try:
        return pl.read_parquet(path, glob=False)
    except _POLARS_FAULTS as fault:
        raise _damaged_parquet(fault) from fault


def require_contents(path: Path) -> None:
    """Refuse a file that cannot be opened or has no bytes.

    Raises:
        UnreadableError: with the code ``unreadable_file`` or ``empty_file``.
    """
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as fault:
        raise UnreadableError("unreadable_file", f"cannot be opened ({fault.strerror})") from fault
    if empty:
        raise UnreadableError("empty_file", "has no bytes: write it again")


def require_utf8(path: Path) -> None:
    """Refuse text that is not UTF-8, in blocks of bounded memory.

    Raises:
        UnreadableError: ``wrong_encoding``, with the byte and the line of the first fault.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, line = 0, 1
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            if position == 0 and block.startswith(_UTF16_MARKS):
                raise _wrong_encoding("is UTF-16", 0, 1)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as fault:
                start = position - pending + fault.start
                before = bytes(fault.object[: fault.start]).count(b"\n")
                raise _wrong_encoding("is not UTF-8", start, line + before) from fault
            if (zero := block.find(b"\0")) >= 0:
                raise _wrong_encoding("holds a zero byte", position + zero, line + block[:zero].count(b"\n"))
            if not block:
                return
            position += len(block)
            line += block.count(b"\n")


def _require_distinct_names(path: Path) -> None:
    """Refuse a name that a header repeats; columns without a name, as spreadsheets leave them, may be several."""
    first: dict[str, int] = {}
    for position, name in enumerate(read_header(path), start=1):
        if name and first.setdefault(name, position) != position:
            message = f"two columns are named {shorten(name)} ({first[name]} and {position}): rename one"
            raise UnreadableError("duplicate_column", message)


def _separator(path: Path) -> str:
    return "\t" if path.suffix == ".inter" else ","


def _wrong_encoding(what: str, byte: int, line: int) -> UnreadableError:
    return UnreadableError(
        "wrong_encoding", f"{what} at byte {byte} (line {line}): save the file as UTF-8", line, f"byte {byte}"
    )


def _read_text(path: Path) -> pl.DataFrame:
    # All columns are read even where few are wanted: with a projection polars lets rows with too many
    # fields pass, and their cells would silently belong to other columns.
    try:
        return pl.read_csv(path, separator=_separator(path), infer_schema=False, glob=False)
    except pl.exceptions.NoDataError as fault:
        raise UnreadableError("empty_file", "has no header: write it again") from fault
    except _POLARS_FAULTS as fault:
        raise _malformed_text(path, fault) from fault


def _malformed_text(path: Path, fault: BaseException) -> UnreadableError:
    """Find the row that polars could not read, slowly, as polars does not name it."""
    row, width = 0, None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row, (record, cells) in enumerate(_records(file, _separator(path)), start=1):
                if lone := _lone_quote(record, cells):
                    advice = "put the field in double quotes and double the one in it"
                    what = f"row {row} has a double quote in a field without quotes, {shorten(repr(lone))}: {advice}"
                    return UnreadableError("malformed_row", what, row, repr(lone))
                width = width or len(cells)
                if len(cells) > width:
                    what = f"row {row} has {len(cells)} fields, the header has {width}: quote the separator"
                    return UnreadableError("malformed_row", what, row, f"{len(cells)} fields")
    except csv.Error as quoting:
        what = f"row {row + 1} cannot be parsed ({quoting}): close and double its quotes"
        return UnreadableError("malformed_row", what, row + 1, str(quoting))
    reason = str(fault).splitlines()[0]
    return UnreadableError("malformed_row", f"cannot be parsed ({reason}): look for a lone double quote, and double it")


def _records(file: Iterable[str], separator: str) -> Iterator[tuple[str, list[str]]]:
    """Each record as it is written, and its cells."""
    lines: list[str] = []

    def noted() -> Iterator[str]:
        for line in file:
            lines.append(line)
            yield line

    for cells in csv.reader(noted(), delimiter=separator, strict=True):
        yield "".join(lines), cells
        lines.clear()


def _lone_quote(record: str, cells: Sequence[str]) -> str | None:
    """The first cell that is not quoted and has an odd number of double quotes, which polars takes for one to close."""
    start = 0
    for cell in cells:
        quoted = record.startswith('"', start)
        if not quoted and cell.count('"') % 2:
            return cell
        start += 1 + len(cell) + (2 + cell.count('"') if quoted else 0)
    return None


def _parquet_schema(path: Path) -> dict[str, pl.DataType]:
    require_contents(path)
    try:
        return dict(pl.read_parquet_schema(path))
    except _POLARS_FAULTS as fault:
        raise _damaged_parquet(fault) from fault


def _damaged_parquet(fault: BaseException) -> UnreadableError:
    reason = str(fault).splitlines()[0]
    return UnreadableError("damaged_file", f"is no whole Parquet file ({reason}): write it again")
