"""Events from files: backfills of what happened before the service took events, or elsewhere.

CSV, JSON Lines or Parquet with the fields of an event. A row without an ``event_id`` gets one from its content, so that
the same file imported twice adds nothing. A timestamp may also be a number of seconds since 1970, and one without an
offset is UTC.
"""

import json
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.errors import UserError
from shared.events import EARLIEST, Event
from trainer.dataset import tables
from trainer.dataset.findings import UnreadableError, named

_REQUIRED = ("user_id", "item_id", "type", "timestamp")


@dataclass(frozen=True)
class BadRow:
    """A row that is no event: where it is (counted as a spreadsheet does, from 0 in Parquet), and why."""

    row: int
    reason: str


def read_events(path: Path, types: Collection[str]) -> tuple[list[Event], list[BadRow]]:
    """Read a file; every row is either an event or a bad row.

    Args:
        path: ``*.csv``, ``*.jsonl`` or ``*.parquet``.
        types: the types of events that there are.

    Raises:
        UserError: the file cannot be read at all.
    """
    events, bad = [], []
    for row, fields in _rows(path):
        try:
            events.append(_event(fields, types))
        except ValueError as error:
            bad.append(BadRow(row, str(error)))
    return events, bad


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        if path.suffix == ".jsonl":
            tables.require_contents(path)
            tables.require_utf8(path)
            yield from _json_lines(path)
        elif path.suffix in (".csv", ".parquet"):
            table = tables.read_table(path)
            _require_fields(table.columns)
            yield from enumerate(table.iter_rows(named=True), start=tables.first_row(path))
        else:
            raise UserError(f"{path}: give a .csv, .jsonl or .parquet file")
    except UnreadableError as error:
        raise UserError(f"{path}: {error}") from error


def _require_fields(header: list[str]) -> None:
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        message = f"no column {named(missing)}; there are: {named(header)}. Name the columns {', '.join(_REQUIRED)}"
        raise UnreadableError("missing_column", message)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, None


def _event(fields: Any, types: Collection[str]) -> Event:
    if not isinstance(fields, Mapping):
        raise ValueError("is no JSON object")
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    faults: dict[str, str] = {}
    for name, read in _READ.items():
        if name in given:
            try:
                given[name] = read(given[name])
            except ValueError as error:
                faults[name] = f"{name}: {error}"
    given |= {name: str(given[name]) for name in ("user_id", "item_id") if name in given}
    given.setdefault("event_id", f"import-{_digest(given)}")
    if "type" in given and given["type"] not in types:
        faults["type"] = f"type: there is no event type {reprlib.repr(given['type'])}; there are {', '.join(types)}"
    try:
        event = Event.model_validate(given)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False):
            name = ".".join(map(str, each["loc"]))
            faults.setdefault(name, f"{name}: {each['msg']}")
    if faults:
        raise ValueError("; ".join(faults.values()))
    return event


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{reprlib.repr(value)} is no number, or too large a one") from None


def read_time(value: Any) -> datetime:
    """A time as people write it: ISO 8601, UTC where it has no offset, or seconds since 1970.

    A number before ``EARLIEST`` is no time of an event: 20261124 is a day in ISO 8601.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    with suppress(TypeError, ValueError, OverflowError, OSError):
        seconds = datetime.fromtimestamp(float(value), UTC)
        if seconds >= EARLIEST:
            return seconds
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no time; write 2026-11-22T23:15:01Z or seconds since 1970") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_READ: Mapping[str, Callable[[Any], object]] = {"timestamp": read_time, "weight": _number, "value": _number}


def _digest(given: Mapping[str, Any]) -> str:
    content = json.dumps(given, sort_keys=True, default=str)
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
