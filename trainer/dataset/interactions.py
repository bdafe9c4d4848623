"""The interactions file: which one it is, its events as they stand in it, and what is wrong with them.

Ids stay strings here; dense ids are given in ``contents``. The file is ``*.inter`` (TSV), ``interactions.csv``
or ``interactions.parquet``; where none of these is there, the one other CSV or Parquet file with a user and an
item column. Cells are taken as they are: ``007`` and ``7`` are two users.

Timestamps are numbers of seconds or of milliseconds since 1970 (milliseconds if the column's median is above
1e11), Parquet dates and datetimes, or ISO 8601 text; UTC where no offset is given.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from trainer.dataset import columns, tables
from trainer.dataset.columns import ITEM, LABEL, ROW, TIMESTAMP, USER, WEIGHT
from trainer.dataset.findings import MAX_EXAMPLES, Example, Findings, UnreadableError, named, shorten

EARLIEST = 631_152_000.0
"""1990-01-01 in seconds since 1970: earlier events are most likely no times at all."""
LATEST_AHEAD = 86_400.0
"""Seconds that a clock may run ahead of ours."""

_MILLISECONDS_ABOVE = 1e11
_LOOKED_AT = 1000
_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


@dataclass(frozen=True)
class Interactions:
    """The usable events of a file, in its order.

    Attributes:
        events: ``row`` (u32), ``user`` and ``item`` (strings), and where the file has them ``timestamp``
            (f64, seconds since 1970, null if unusable), ``weight`` (f32), ``label`` (i8: 0, 1 or 2).
        columns: what the file calls each of these.
        ignored: its other columns.
    """

    file: str
    events: pl.DataFrame
    columns: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def has(self, column: str) -> bool:
        """Whether the file has the optional column."""
        return column in self.events.columns


def find_interactions(directory: Path, findings: Findings) -> Path | None:
    """The interactions file; None after an error ``no_interactions_file`` or ``several_interactions_files``."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    named = [
        path for path in files if path.suffix == ".inter" or path.name in ("interactions.csv", "interactions.parquet")
    ]
    candidates = named or _by_header(files)
    if not candidates:
        seen = ", ".join(path.name for path in files if path.suffix in (".csv", ".parquet")) or "none"
        message = (
            "no interactions file: add one *.inter, interactions.csv or interactions.parquet with a user and an "
            f"item column (CSV and Parquet files seen: {seen})"
        )
        findings.error("no_interactions_file", directory.name, message)
        return None
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates)
        message = f"several interactions files ({names}): leave one"
        findings.error("several_interactions_files", directory.name, message, len(candidates))
        return None
    return candidates[0]


def brings_split(directory: Path) -> bool:
    """Whether the interactions file of a directory has an x_label; not where it cannot be read."""
    try:
        path = find_interactions(directory, Findings())
        return path is not None and LABEL in columns.resolve(tables.read_header(path))
    except (OSError, UnreadableError):
        return False


def read_interactions(path: Path, findings: Findings) -> Interactions | None:
    """Read and check the events; rows without a usable id or label are reported and left out.

    Returns:
        None, after an error, if the file gives no events at all.
    """
    try:
        table = tables.read_table(path)
    except UnreadableError as fault:
        findings.unreadable(path.name, fault)
        return None
    chosen = _choose_columns(path, table.columns, findings)
    if chosen is None:
        return None
    read = {name: table.columns[position] for name, position in chosen.items()}
    ignored = tuple(name for name in table.columns if name not in read.values())
    if TIMESTAMP not in read:
        _report_unread_times(path.name, table.select(ignored), findings)
    events = table.select(**{name: pl.col(theirs) for name, theirs in read.items()})
    events = events.with_row_index(ROW, offset=tables.first_row(path))
    if not tables.is_parquet(path):
        events = events.filter(~table.select(pl.all_horizontal(pl.all().is_null())).to_series())
    if events.is_empty():
        findings.error("no_interactions", path.name, "has a header and no rows: add interactions")
        return None
    checked = _checked(path.name, events, findings)
    return checked and replace(checked, columns=read, ignored=ignored)


def row_examples(events: pl.DataFrame, wrong: pl.Series, column: str) -> list[Example]:
    """The first few rows where ``wrong`` (a mask) holds, with their value of a column."""
    rows = events.select(ROW, column).filter(wrong).head(MAX_EXAMPLES)
    return [Example(row, "empty" if value is None or value == "" else repr(value)) for row, value in rows.iter_rows()]


def as_ids(values: pl.Series) -> pl.Series | None:
    """Ids as strings, null where empty; None if the type is neither string, integer nor categorical."""
    kind = values.dtype
    if kind == pl.Null:
        return values.cast(pl.String)
    if not (kind == pl.String or kind.is_integer() or isinstance(kind, pl.Categorical | pl.Enum)):
        return None
    text = values.cast(pl.String)
    blank = text.str.contains(r"^\s*$")
    return text.set(blank, None) if blank.any() else text


def report_spaces(file: str, events: pl.DataFrame, column: str, findings: Findings) -> None:
    """Warn of ids, strings, with spaces around them: nothing shows these, and they make another id."""
    ids = events[column]
    bare = ids.str.strip_chars()
    spaced = (ids != bare).fill_null(False)
    if count := int(spaced.sum()):
        same = ids.n_unique() - bare.n_unique()
        message = (
            f"{count} {column} ids have spaces around them, which make them ids of their own; without, {same} would be "
            "the same as another: take the spaces away"
        )
        findings.warning("spaces_around_ids", file, message, count, row_examples(events, spaced, column))


def _by_header(files: list[Path]) -> list[Path]:
    """CSV and Parquet files with both id columns or, if there is none, those whose header is unreadable."""
    suited, unreadable = [], []
    for path in files:
        if path.suffix not in (".csv", ".parquet") or path.stem == "items":
            continue
        try:
            found = columns.resolve(tables.read_header(path))
        except UnreadableError:
            unreadable.append(path)
            continue
        if USER in found and ITEM in found:
            suited.append(path)
        elif not path.stat().st_size:
            unreadable.append(path)
    return suited or unreadable


def _choose_columns(path: Path, header: list[str], findings: Findings) -> dict[str, int] | None:
    found = columns.resolve(header)
    missing = [name for name in (USER, ITEM) if name not in found]
    if missing:
        wanted = " and ".join(f"{name}_id" for name in missing)
        separator = "tabs" if path.suffix == ".inter" else "commas"
        hint = "" if tables.is_parquet(path) else f" (the first row must name the columns, separated by {separator})"
        message = f"no column {wanted}; there are: {named(header)}. Name the id columns user_id and item_id{hint}"
        findings.error("missing_column", path.name, message, len(missing))
        return None
    for positions in found.values():
        if len(positions) > 1:
            first, *others = (header[position] for position in positions)
            message = f"uses column {first!r} and ignores {named(others)}: drop what is not meant"
            findings.warning("ambiguous_columns", path.name, message, len(others))
    return {name: positions[0] for name, positions in found.items()}


def _report_unread_times(file: str, ignored: pl.DataFrame, findings: Findings) -> None:
    """Warn of columns that nobody reads whose first cells are all times of our days."""
    for name, cells in ignored.head(_LOOKED_AT).to_dict().items():
        seconds = _seconds(cells.drop_nulls())
        if len(seconds) and seconds.is_between(EARLIEST, time.time() + LATEST_AHEAD).fill_null(False).all():
            message = f"column {shorten(repr(name))} is not read and looks like times: name it timestamp if it has them"
            findings.warning("unread_times", file, message)


def _checked(file: str, events: pl.DataFrame, findings: Findings) -> Interactions | None:
    identified = _with_ids(file, events, findings)
    if identified is None:
        return None
    events = identified
    if TIMESTAMP in events.columns:
        events = _with_timestamps(file, events, findings)
    if WEIGHT in events.columns:
        events = _with_weights(file, events, findings)
    if LABEL in events.columns:
        events = _with_labels(file, events, findings)
    return Interactions(file, events)


def _with_ids(file: str, events: pl.DataFrame, findings: Findings) -> pl.DataFrame | None:
    ids = {}
    for column in (USER, ITEM):
        values = as_ids(events[column])
        if values is None:
            message = f"{column} ids are {events.schema[column]}: store them as strings or integers"
            findings.error("bad_id_type", file, message)
            return None
        ids[column] = values
    events = events.with_columns(**ids)
    for column in (USER, ITEM):
        empty = events[column].is_null()
        if count := int(empty.sum()):
            message = f"{count} rows have no {column} id: fill it in or drop the rows"
            findings.error("empty_id", file, message, count, row_examples(events, empty, column))
        report_spaces(file, events, column, findings)
    return events.filter(pl.col(USER).is_not_null() & pl.col(ITEM).is_not_null())


def _with_timestamps(file: str, events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    seconds = _seconds(events[TIMESTAMP])
    unusable = ~seconds.is_finite().fill_null(False)
    negative = (seconds < 0).fill_null(False) & ~unusable
    early = (seconds >= 0).fill_null(False) & (seconds < EARLIEST).fill_null(False)
    late = (seconds > time.time() + LATEST_AHEAD).fill_null(False) & ~unusable
    if count := int(unusable.sum()):
        message = (
            f"{count} timestamps are no time: write seconds or milliseconds since 1970 or ISO 8601 in every row, "
            "or drop the column"
        )
        findings.error("bad_timestamp", file, message, count, row_examples(events, unusable, TIMESTAMP))
    if count := int(negative.sum()):
        message = f"{count} timestamps are before 1970: correct them, or drop the column"
        findings.error("negative_timestamp", file, message, count, row_examples(events, negative, TIMESTAMP))
    if count := int(early.sum()):
        message = f"{count} timestamps are before 1990: are they seconds or milliseconds since 1970?"
        findings.warning("early_timestamp", file, message, count, row_examples(events, early, TIMESTAMP))
    if count := int(late.sum()):
        message = f"{count} timestamps are more than a day in the future: check the unit and the clock"
        findings.warning("future_timestamp", file, message, count, row_examples(events, late, TIMESTAMP))
    return events.with_columns(seconds.set(unusable, None).alias(TIMESTAMP))


def _seconds(values: pl.Series) -> pl.Series:
    """Seconds since 1970 (f64), null where no time is understood."""
    kind = values.dtype
    if isinstance(kind, pl.Datetime | pl.Date):
        return values.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6
    if not (kind.is_numeric() or kind == pl.String):
        return pl.Series([None] * len(values), dtype=pl.Float64)
    numbers = values.cast(pl.Float64, strict=False)
    middle = numbers.filter(numbers.is_finite()).abs().median()
    if isinstance(middle, float) and middle > _MILLISECONDS_ABOVE:
        numbers = numbers / 1e3
    if kind == pl.String and numbers.null_count():
        numbers = numbers.zip_with(numbers.is_not_null(), _iso_seconds(values))
    return numbers


def _iso_seconds(text: pl.Series) -> pl.Series:
    stamps = text.str.replace(" ", "T", literal=True)
    parsed = [stamps.str.to_datetime(form, strict=False, time_unit="us").dt.timestamp("us") for form in _ISO_FORMATS]
    return pl.select(pl.coalesce(parsed)).to_series().cast(pl.Float64) / 1e6


def _with_weights(file: str, events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    weights = _numbers(events[WEIGHT], pl.Float32)
    bad = ~(weights.is_finite() & (weights >= 0)).fill_null(False)
    if count := int(bad.sum()):
        message = f"{count} weights are no finite number >= 0: correct them, or drop the column"
        findings.error("bad_weight", file, message, count, row_examples(events, bad, WEIGHT))
    zero = (weights == 0).fill_null(False)
    if count := int(zero.sum()):
        message = (
            f"{count} interactions have weight 0 and count all the same, unless the recipe has draw_by_weight: drop "
            "the rows if they are none"
        )
        findings.warning("zero_weight", file, message, count, row_examples(events, zero, WEIGHT))
    return events.with_columns(weights.alias(WEIGHT))


def _with_labels(file: str, events: pl.DataFrame, findings: Findings) -> pl.DataFrame:
    labels = _numbers(events[LABEL], pl.Float64)
    bad = ~labels.is_in([0.0, 1.0, 2.0]).fill_null(False)
    if count := int(bad.sum()):
        message = f"{count} x_labels are not 0 (train), 1 (validation) or 2 (test): correct them"
        findings.error("bad_label", file, message, count, row_examples(events, bad, LABEL))
    return events.with_columns(labels.alias(LABEL)).filter(~bad).with_columns(pl.col(LABEL).cast(pl.Int8))


def _numbers(values: pl.Series, kind: type[pl.DataType]) -> pl.Series:
    if values.dtype.is_numeric() or values.dtype == pl.String:
        return values.cast(kind, strict=False)
    return pl.Series([None] * len(values), dtype=kind)
