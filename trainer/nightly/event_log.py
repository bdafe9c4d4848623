"""The log of all events, as Parquet files by day, each event in it once.

    <log>/log.json                              the stream's position, and every file that counts
    <log>/date=2026-11-24/part-<id>.parquet     events of that day (UTC) by their timestamps
    <log>/removed/part-<id>.parquet             events that somebody removed: not read any more, their ids still known
    <log>/uncounted/<as above>                  files that ``log.json`` did not name when a writer came; never read
    <log>/lock                                  one writer at a time

A file counts from the moment that ``log.json`` names it, and that is replaced atomically: the events of a drain, in
however many files, and the position up to which the stream was read are there together or not at all. Files that it
does not name are what a killed writer left, or what came after a ``log.json`` that was restored: the next writer sets
them aside. Where there are such files and no ``log.json``, it was lost, or the folder is somebody else's: then nothing
is read, and nothing moved.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from shared import durable
from shared.errors import UserError
from shared.events import Event
from trainer.nightly import fault

SCHEMA: Mapping[str, Any] = {
    "event_id": pl.String,
    "user_id": pl.String,
    "item_id": pl.String,
    "type": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "weight": pl.Float64,
    "value": pl.Float64,
    "recommendation_id": pl.String,
}
CONTENTS = "log.json"
REMOVED = "removed"
UNCOUNTED = "uncounted"
_DAY = "date={:%Y-%m-%d}"
_OWN = re.compile(rf"part-[0-9a-f]{{32}}\.parquet|{re.escape(durable.TEMPORARY_PREFIX)}.*")
"""The names of files that this log writes beside ``log.json``."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Contents:
    """What ``log.json`` says: how far the stream was read, and the rows of each file that counts.

    ``removed`` are the files of removed events, ``removals`` what was asked for when they were.
    """

    position: str | None = None
    files: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    removals: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Selection:
    """Events by what they say; whatever is not given does not matter.

    Attributes:
        users: of any of these; likewise ``items`` and ``types``.
        since: from this moment on.
        until: before this moment.
    """

    users: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def __bool__(self) -> bool:
        return any(value not in ((), None) for value in vars(self).values())

    def matches(self) -> pl.Expr:
        """Which rows of the log these are."""
        wanted = pl.lit(value=True)
        for column, values in (("user_id", self.users), ("item_id", self.items), ("type", self.types)):
            if values:
                wanted = wanted & pl.col(column).is_in(list(values))
        if self.since is not None:
            wanted = wanted & (pl.col("timestamp") >= self.since)
        if self.until is not None:
            wanted = wanted & (pl.col("timestamp") < self.until)
        return wanted

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Selection":
        """From what :meth:`as_dict` made, whatever else is there."""
        users, items, types = (tuple(document.get(name, ())) for name in ("users", "items", "types"))
        moments = [document.get(name) for name in ("since", "until")]
        since, until = (None if each is None else datetime.fromisoformat(each) for each in moments)
        return cls(users, items, types, since, until)

    def as_dict(self) -> dict[str, Any]:
        """What was given, fit for JSON."""
        given = {name: value for name, value in vars(self).items() if value not in ((), None)}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in given.items()}


@dataclass(frozen=True)
class Appended:
    """How many events were new, and how many the log had already."""

    new: int
    repeated: int


class _MissingError(UserError):
    """A file that counted is not there."""


class EventLog:
    """The log in a folder, which is made if need be. Any number may read while one writes."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Raises:
            UserError: the folder cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: the log of events cannot be there ({error.strerror})") from error
        self.folder = folder

    @classmethod
    def existing(cls, folder: Path) -> "EventLog":
        """Open one that there is.

        Raises:
            UserError: there is none.
        """
        if not (folder / CONTENTS).exists() and not (folder.is_dir() and any(cls(folder)._files())):
            raise UserError(f"{folder}: there is no log of events ({CONTENTS}); give the nights' own with --log")
        return cls(folder)

    @property
    def position(self) -> str | None:
        """How far the stream was read; None before the first drain."""
        return self._contents().position

    def append(self, events: pl.DataFrame, position: str | None = None) -> Appended:
        """Add those events that the log has not, of those with the same id the first one.

        Args:
            events: with the columns of ``SCHEMA``.
            position: of the stream, up to which these events were read; None leaves it as it is.
        """
        with self._writing() as contents:
            new = self._new_among(contents, events)
            written = self._write(new)
            fault.point("log:written")
            self._commit(replace(contents, position=position or contents.position, files={**contents.files, **written}))
            fault.point("log:committed")
        return Appended(len(new), len(events) - len(new))

    def new_among(self, events: pl.DataFrame) -> pl.DataFrame:
        """Those events that would be added, of those with the same id the first one."""
        with self._writing() as contents:
            return self._new_among(contents, events)

    def read(self, since: datetime | None = None) -> pl.DataFrame:
        """Events from a moment on, or all, by timestamp and then id.

        Raises:
            UserError: a file cannot be read.
        """
        first = None if since is None else _DAY.format(since)

        def wanted(contents: _Contents) -> list[str]:
            return [name for name in contents.files if first is None or name.partition("/")[0] >= first]

        _, events = self._read(wanted)
        if since is not None:
            events = events.filter(pl.col("timestamp") >= since)
        return events.sort("timestamp", "event_id")

    def forget(self, users: Mapping[str, datetime]) -> int:
        """Remove what users did up to the moment that they were forgotten, from the disk too; returns how many events.

        Files that hold such events are written anew without them, and the old ones deleted.
        """
        if not users:
            return 0
        gone = pl.DataFrame(
            {"user_id": list(users), "_until": list(users.values())},
            schema={"user_id": pl.String, "_until": pl.Datetime("us", "UTC")},
        )

        def forgotten(events: pl.DataFrame) -> pl.Series:
            joined = events.join(gone, on="user_id", how="left", maintain_order="left")
            return joined.select((pl.col("timestamp") <= pl.col("_until")).fill_null(value=False)).to_series()

        with self._writing() as contents:
            files, taken = self._without(contents.files, forgotten, self._write)
            removed, taken_before = self._without(contents.removed, forgotten, self._write_removed)
            count = sum(map(len, [*taken, *taken_before]))
            if count:
                self._succeed(contents, replace(contents, files=files, removed=removed))
            self._forget_uncounted(forgotten)
        return count

    def remove(self, selection: Selection, *, dry_run: bool = False) -> pl.DataFrame:
        """Take events out of what is read, for good; they are set aside, and one that is sent again stays out.

        Args:
            selection: which ones.
            dry_run: only find them.

        Returns:
            Those events.
        """
        with self._writing() as contents:
            files, taken = self._without(
                contents.files,
                lambda events: events.select(selection.matches().alias("_")).to_series(),
                (lambda _: {}) if dry_run else self._write,
            )
            found = pl.concat([pl.DataFrame(schema=SCHEMA), *taken]).sort("timestamp", "event_id")
            if dry_run or found.is_empty():
                return found
            record = {"at": datetime.now(UTC).isoformat(), "events": len(found), **selection.as_dict()}
            removed = {**contents.removed, **self._write_removed(found)}
            fault.point("log:written")
            removals = (*contents.removals, record)
            self._succeed(contents, replace(contents, files=files, removed=removed, removals=removals))
        return found

    def removed(self, since: datetime | None = None) -> pl.DataFrame:
        """Events that somebody removed, after a moment or ever; those that came again since are in the log too.

        Raises:
            UserError: a file cannot be read.
        """
        contents, events = self._read(lambda contents: contents.removed)
        asked = [each for each in contents.removals if since is None or datetime.fromisoformat(each["at"]) > since]
        matches = [pl.lit(value=False), *(Selection.of(each).matches() for each in asked)]
        return events.filter(pl.any_horizontal(matches))

    def _read(self, wanted: Callable[[_Contents], Iterable[str]]) -> tuple[_Contents, pl.DataFrame]:
        """The table of contents and the events of its wanted files; anew where a writer took one away meanwhile."""
        while True:
            contents = self._contents()
            try:
                files = [self._file(name) for name in wanted(contents)]
            except _MissingError:
                if contents == self._contents():
                    raise
            else:
                return contents, pl.concat([pl.DataFrame(schema=SCHEMA), *files])

    def _file(self, name: str) -> pl.DataFrame:
        """The events of one file.

        Raises:
            UserError: it is not there, or damaged.
        """
        path = self.folder / name
        try:
            with path.open("rb") as file:
                return pl.read_parquet(file)
        except FileNotFoundError:
            raise _MissingError(
                f"{path}: this file of the log is missing: restore it or the whole folder from a backup"
            ) from None
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{path}: is damaged ({str(error).splitlines()[0]}): restore it from a backup") from error

    def _without(
        self,
        files: Mapping[str, int],
        unwanted: Callable[[pl.DataFrame], pl.Series],
        write: Callable[[pl.DataFrame], Mapping[str, int]],
    ) -> tuple[dict[str, int], list[pl.DataFrame]]:
        """Files with the rest of those that hold unwanted events in their place, and these events."""
        kept, taken = dict(files), []
        for name in files:
            events = self._file(name)
            found = unwanted(events)
            if not found.any():
                continue
            taken.append(events.filter(found))
            del kept[name]
            kept |= write(events.filter(~found))
        return kept, taken

    def stats(self) -> dict[str, Any]:
        """What is in it, for people and as JSON."""
        contents, events = self._read(lambda contents: contents.files)
        events = events.sort("timestamp", "event_id")
        days = events.group_by(pl.col("timestamp").dt.date().alias("day")).len().sort("day")
        types = events.group_by("type").len().sort("len", descending=True)
        return {
            "events": len(events),
            "users": events["user_id"].n_unique(),
            "items": events["item_id"].n_unique(),
            "files": len(contents.files),
            "bytes": sum((self.folder / name).stat().st_size for name in contents.files),
            "position": contents.position,
            "first": None if events.is_empty() else str(events["timestamp"][0]),
            "last": None if events.is_empty() else str(events["timestamp"][-1]),
            "removed": sum(contents.removed.values()),
            "removals": list(contents.removals),
            "types": dict(types.iter_rows()),
            "days": {str(day): count for day, count in days.iter_rows()},
        }

    @contextmanager
    def _writing(self) -> Iterator[_Contents]:
        with durable.exclusive(self.folder / "lock"):
            contents = self._contents()
            if not (self.folder / CONTENTS).exists():
                self._commit(contents)
            self._set_uncounted_aside(contents)
            yield contents

    def _contents(self) -> _Contents:
        path = self.folder / CONTENTS
        try:
            document = json.loads(path.read_bytes())
            return _Contents(**document)
        except FileNotFoundError:
            beside = next(self._files(), None)
            if beside is not None:
                raise UserError(
                    f"{path}: is missing, and without it nobody knows whether {beside} counts: restore the whole "
                    f"folder from a backup, over what is there (files that its {CONTENTS} does not name are kept in "
                    f"{UNCOUNTED}/, and mts4mm events import adds them), or give a folder of the log's own"
                ) from None
            return _Contents()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: the log's table of contents cannot be read ({error})") from error

    def _commit(self, contents: _Contents) -> None:
        with durable.replacing(self.folder / CONTENTS) as file:
            file.write(json.dumps(vars(contents), indent=1, sort_keys=True).encode())

    def _new_among(self, contents: _Contents, events: pl.DataFrame) -> pl.DataFrame:
        new = events.unique("event_id", keep="first", maintain_order=True)
        return new.join(self._ids_among(contents, new), on="event_id", how="anti", maintain_order="left")

    def _ids_among(self, contents: _Contents, new: pl.DataFrame) -> pl.DataFrame:
        """Those ids of new events that the log has."""
        paths = [self.folder / name for name in (*contents.files, *contents.removed)]
        if not paths or new.is_empty():
            return new.select("event_id").clear()
        known = pl.scan_parquet(paths, hive_partitioning=False, glob=False).select("event_id")
        try:
            return known.join(new.lazy().select("event_id"), on="event_id", how="semi").collect()
        except (FileNotFoundError, pl.exceptions.PolarsError):
            self._read(lambda contents: [*contents.files, *contents.removed])  # says which file it is
            raise

    def _write(self, events: pl.DataFrame) -> dict[str, int]:
        """Files by day, synced; they do not count yet."""
        written = {}
        by_day = events.with_columns(pl.col("timestamp").dt.date().alias("_day"))
        for (day,), rows in by_day.sort("_day", maintain_order=True).group_by("_day", maintain_order=True):
            name = f"{_DAY.format(_date(day))}/part-{uuid4().hex}.parquet"
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            with durable.replacing(path) as file:
                rows.drop("_day").write_parquet(file)
            written[name] = len(rows)
        durable.sync_directory(self.folder)
        return written

    def _write_removed(self, events: pl.DataFrame) -> dict[str, int]:
        """A file of removed events, synced; it does not count yet."""
        if events.is_empty():
            return {}
        name = f"{REMOVED}/part-{uuid4().hex}.parquet"
        (self.folder / REMOVED).mkdir(exist_ok=True)
        with durable.replacing(self.folder / name) as file:
            events.write_parquet(file)
        durable.sync_directory(self.folder)
        return {name: len(events)}

    def _files(self) -> Iterator[Path]:
        """The files of events that are there, counted or not."""
        for path in (*self.folder.glob("date=*/*"), *self.folder.glob(f"{REMOVED}/*")):
            if _OWN.fullmatch(path.name):
                yield path

    def _succeed(self, before: _Contents, after: _Contents) -> None:
        """Commit contents, and delete the files that they name no more."""
        self._commit(after)
        fault.point("log:committed")
        for name in {**before.files, **before.removed}.keys() - {**after.files, **after.removed}.keys():
            (self.folder / name).unlink()
        self._remove_empty_days()

    def _set_uncounted_aside(self, contents: _Contents) -> None:
        """Move files that do not count out of the way; those that were never whole are deleted."""
        aside = 0
        for path in list(self._files()):
            name = path.relative_to(self.folder)
            if str(name) in {**contents.files, **contents.removed}:
                continue
            if path.name.startswith(durable.TEMPORARY_PREFIX):
                path.unlink()
                continue
            kept = self.folder / UNCOUNTED / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            path.replace(kept)
            aside += 1
        if aside:
            _log.warning(
                "%s: %d files that %s does not name do not count and are kept in %s/: a killed writer left them, and "
                "their events come again; or %s is older than they are, and mts4mm events import adds them",
                self.folder,
                aside,
                CONTENTS,
                UNCOUNTED,
                CONTENTS,
            )
        self._remove_empty_days()

    def _forget_uncounted(self, forgotten: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Take forgotten events out of files that do not count."""
        for path in list(self.folder.glob(f"{UNCOUNTED}/*/*.parquet")):
            try:
                events = self._file(str(path.relative_to(self.folder)))
            except UserError as error:
                _log.warning("what forgotten users did may be in it, so delete it if need be: %s", error)
                continue
            found = forgotten(events)
            if found.all():
                path.unlink()
            elif found.any():
                with durable.replacing(path) as file:
                    events.filter(~found).write_parquet(file)

    def _remove_empty_days(self) -> None:
        for folder in self.folder.glob("date=*"):
            if not any(folder.iterdir()):
                folder.rmdir()


def as_frame(events: list[Event]) -> pl.DataFrame:
    """Events as rows of the log."""
    rows = {name: [getattr(event, name, None) for event in events] for name in SCHEMA}
    return pl.DataFrame(rows, schema=dict(SCHEMA))


def _date(value: object) -> date:
    if not isinstance(value, date):
        raise TypeError(f"{value!r} is no date")
    return value
