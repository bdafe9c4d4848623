"""A directory put together: dense ids, each (user, item) pair once, labels, modalities that fit the items.

Both ``load_dataset`` and ``validate_directory`` read through here, so what the one refuses the other reports.
It goes on after an error wherever something is left to check; its result is fit for use only if there is none.

Who the items are: the rows of the items table if there is one; otherwise the rows of the feature files, row r
being the item with id ``r``; otherwise the items that occur. Ids that occur stand in numerical order if all of
them are integers, else in the order of their characters. Interactions are sorted by user and item, so that
nothing depends on the order of rows in a file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from shlex import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainer.dataset.catalogue import Catalogue, Record, find_tables, read_catalogue, report_misnamed
from trainer.dataset.columns import ITEM, LABEL, ROW, TIMESTAMP, USER, WEIGHT
from trainer.dataset.features import Modality, ModalityFiles, fit_modality, read_modalities, usual_rows
from trainer.dataset.findings import MAX_EXAMPLES, Example, Findings
from trainer.dataset.interactions import Interactions, find_interactions, read_interactions, row_examples
from trainer.dataset.splits import SplitSpec, global_time_split, random_split
from trainer.encoders.features_manifest import FeaturesManifest, read_manifests

_PAIR = "pair"


@dataclass(frozen=True, eq=False)
class Contents:
    """What a directory holds.

    Attributes:
        file: name of the interactions file.
        columns: what it calls the user, the item and what else is read of it.
        ignored_columns: its others.
        users: (interactions,) dense ids, sorted by user, then item, each pair once; ``items`` likewise.
        labels: (interactions,) 0 train, 1 validation, 2 test; None, after an error, if no split was possible.
        timestamps: (interactions,) seconds since 1970.
        manifests: by modality, what ``mts4mm encode`` says of the features that it made.
    """

    file: str
    columns: dict[str, str]
    ignored_columns: tuple[str, ...]
    user_ids: list[str]
    item_ids: list[str]
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    labels: NDArray[np.int8] | None
    timestamps: NDArray[np.float64] | None
    weights: NDArray[np.float32] | None
    modalities: dict[str, Modality]
    manifests: dict[str, FeaturesManifest]
    catalogue: list[Record] | None
    split: SplitSpec


@dataclass(frozen=True)
class _Universe:
    """The items there are; ``source`` is None where they are only those that occur."""

    ids: pl.Series
    rows: int
    source: str | None
    from_table: bool


def read_contents(
    directory: Path, split: SplitSpec | None, findings: Findings, progress: Callable[[str], None]
) -> Contents | None:
    """Read everything and add what is wrong to ``findings``; None, after an error, without a directory.

    Args:
        directory: of a user's files.
        split: None takes the file's x_label if it has one, else a random split with seed 0.
        findings: where faults are added.
        progress: told what is being read.
    """
    try:
        any(directory.iterdir())
    except OSError as fault:
        message = f"cannot be listed ({fault.strerror}): give the directory that holds your files"
        findings.error("not_a_directory", str(directory), message)
        return None
    progress("items")
    tables = find_tables(directory)
    catalogue = read_catalogue(tables, findings) if tables else None
    files = read_modalities(directory, findings, progress)
    progress("interactions")
    path = find_interactions(directory, findings)
    report_misnamed(directory, [*tables, path] if path else tables, bool(files) and not tables, findings)
    interactions = read_interactions(path, findings) if path else None
    if interactions is None:
        interactions = Interactions(path.name if path else "", _no_events())
    progress("ids")
    universe = _universe(catalogue, bool(tables), files, interactions)
    modalities = _fitted(files, universe, findings)
    manifests = read_manifests(directory, modalities)
    _check_items_of_features(directory, manifests, universe, findings)
    user_ids = natural_order(interactions.events[USER])
    events = _encoded(interactions, user_ids, universe, findings)
    split = split or SplitSpec("given" if interactions.has(LABEL) else "random")
    events = _merged(interactions, events, split, user_ids, universe, findings)
    progress("split")
    users = events[USER].cast(pl.Int64).to_numpy(writable=True)
    return Contents(
        file=interactions.file,
        columns=interactions.columns,
        ignored_columns=interactions.ignored,
        user_ids=user_ids.to_list(),
        item_ids=universe.ids.to_list(),
        users=users,
        items=events[ITEM].cast(pl.Int64).to_numpy(writable=True),
        labels=_labels(interactions.file, events, users, split, findings),
        timestamps=events[TIMESTAMP].to_numpy(writable=True) if TIMESTAMP in events.columns else None,
        weights=events[WEIGHT].to_numpy(writable=True) if WEIGHT in events.columns else None,
        modalities=modalities,
        manifests=manifests,
        catalogue=catalogue.records if catalogue else None,
        split=split,
    )


def natural_order(ids: pl.Series) -> pl.Series:
    """The distinct ids, in numerical order if all are integers, else in the order of their characters.

    >>> natural_order(pl.Series(["10", "9", "10"])).to_list(), natural_order(pl.Series(["10", "9", "x"])).to_list()
    (['9', '10'], ['10', '9', 'x'])
    """
    distinct = ids.unique()
    numbers = distinct.cast(pl.Int64, strict=False)
    if numbers.null_count():
        return distinct.sort()
    return pl.DataFrame({"id": distinct, "number": numbers}).sort("number", "id")["id"]


def _no_events() -> pl.DataFrame:
    return pl.DataFrame(schema={ROW: pl.UInt32, USER: pl.String, ITEM: pl.String})


def _universe(
    catalogue: Catalogue | None, has_table: bool, files: list[ModalityFiles], interactions: Interactions
) -> _Universe:
    if catalogue:
        return _Universe(catalogue.ids, catalogue.rows, catalogue.file, from_table=True)
    rows = usual_rows(files)
    if rows is None or has_table:
        ids = natural_order(interactions.events[ITEM])
        return _Universe(ids, len(ids) if rows is None else rows, None, from_table=False)
    source = next(file for each in files for file, count in each.rows().items() if count == rows)
    return _Universe(pl.int_range(rows, eager=True).cast(pl.String), rows, source, from_table=False)


def _fitted(files: list[ModalityFiles], universe: _Universe, findings: Findings) -> dict[str, Modality]:
    fitted = {}
    for each in files:
        counted = universe.source or "the other feature files"
        modality = fit_modality(each, universe.rows, counted, findings)
        if modality:
            fitted[each.name] = modality
    return fitted


def _check_items_of_features(
    directory: Path, manifests: dict[str, FeaturesManifest], universe: _Universe, findings: Findings
) -> None:
    """Features go by row, so a table that was put into another order since would give each item another's."""
    if not universe.from_table or len(universe.ids) != universe.rows:
        return
    for name, manifest in manifests.items():
        pairs = enumerate(zip_longest(manifest.item_ids, universe.ids.to_list()))
        moved = [Example(row, f"of item {made!r}, now {now!r}") for row, (made, now) in pairs if made != now]
        if moved:
            message = (
                f"{len(moved)} rows were made of other items than {universe.source} has there: encode again, with "
                f"mts4mm encode {quote(str(directory))}"
            )
            findings.error("features_of_other_items", f"{name}_feat.npy", message, len(moved), moved)


def _encoded(interactions: Interactions, user_ids: pl.Series, universe: _Universe, findings: Findings) -> pl.DataFrame:
    """Events with dense ids; those of unknown items are reported and left out."""
    events = interactions.events
    items = _dense(events[ITEM], universe.ids)
    unknown = items.is_null()
    if count := int(unknown.sum()):
        ids = events[ITEM].filter(unknown).n_unique()
        examples = row_examples(events, unknown, ITEM)
        if universe.from_table:
            message = (
                f"{count} of {len(events)} rows have item ids, {ids} different, that {universe.source} lacks: add the "
                "items or drop the rows"
            )
            findings.error("unknown_ids", interactions.file, message, count, examples)
        else:
            message = (
                f"{count} of {len(events)} rows have item ids, {ids} different, without features: without an items "
                f"table row r of {universe.source} is the item with id r, so ids must be 0..{universe.rows - 1}. Use "
                "these ids, or add an items table with one row for each row of features"
            )
            findings.error("ids_without_features", interactions.file, message, count, examples)
    events = events.with_columns(_dense(events[USER], user_ids).alias(USER), items.alias(ITEM)).filter(~unknown)
    if universe.source and not universe.from_table and not events.is_empty():
        _report_unused_features(universe, events[ITEM], findings)
    return events


def _dense(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Positions in ``known`` (u32), null where unknown."""
    return ids.cast(pl.Enum(known), strict=False).to_physical().cast(pl.UInt32)


def _report_unused_features(universe: _Universe, items: pl.Series, findings: Findings) -> None:
    unused = np.ones(len(universe.ids), np.bool_)
    unused[items.to_numpy()] = False
    if count := int(unused.sum()):
        message = f"{count} rows belong to items without interactions: nobody is known to like these"
        examples = [Example(int(row), f"item {row}") for row in np.flatnonzero(unused)[:MAX_EXAMPLES]]
        findings.warning("features_without_ids", str(universe.source), message, count, examples)


def _merged(
    interactions: Interactions,
    events: pl.DataFrame,
    split: SplitSpec,
    user_ids: pl.Series,
    universe: _Universe,
    findings: Findings,
) -> pl.DataFrame:
    """Sort by user and item and keep a pair's first event.

    That is the earliest; at the same time or without times the one of the largest weight, then the upper row.
    """
    events = events.with_columns((pl.col(USER).cast(pl.Int64) * len(universe.ids) + pl.col(ITEM)).alias(_PAIR))
    events = events.sort(_PAIR)
    repeated = _same_as_previous(events[_PAIR])
    count = int(repeated.sum())
    if not count:
        return events
    keys = {_PAIR: False, TIMESTAMP: False, WEIGHT: True, ROW: False}
    order = [column for column in keys if column in events.columns]
    events = events.sort(order, descending=[keys[column] for column in order], nulls_last=True)
    rows = events.filter(repeated).select(ROW, USER, ITEM).sort(ROW).head(MAX_EXAMPLES)
    examples = [Example(row, f"user {user_ids[u]!r}, item {universe.ids[i]!r}") for row, u, i in rows.iter_rows()]
    message = f"{count} rows repeat a (user, item) pair: each pair counts once, the first time"
    findings.warning("duplicate_interactions", interactions.file, message, count, examples)
    if split.kind == "given" and LABEL in events.columns:
        leaks = events.filter(repeated & ~_same_as_previous(events[LABEL])).unique(_PAIR).sort(ROW)
        examples = [
            Example(row, f"user {user_ids[u]!r}, item {universe.ids[i]!r}")
            for row, u, i in leaks.select(ROW, USER, ITEM).head(MAX_EXAMPLES).iter_rows()
        ]
        if len(leaks):
            message = (
                f"{len(leaks)} (user, item) pairs are in two splits, which leaks the answer: keep one x_label each"
            )
            findings.error("leakage", interactions.file, message, len(leaks), examples)
    return events.filter(~repeated)


def _same_as_previous(values: pl.Series) -> pl.Series:
    return (values == values.shift(1)).fill_null(False)


def _labels(
    file: str, events: pl.DataFrame, users: NDArray[np.int64], split: SplitSpec, findings: Findings
) -> NDArray[np.int8] | None:
    if split.kind == "random":
        return random_split(users, split.seed)
    needed, code = (LABEL, "missing_label") if split.kind == "given" else (TIMESTAMP, "missing_timestamp")
    if needed not in events.columns:
        wanted = "an x_label" if needed == LABEL else "a timestamp"
        if file:
            message = f"split {split.kind!r} needs {wanted} column: add it, or choose another split"
            findings.error(code, file, message)
        return None
    if split.kind == "given":
        return events[LABEL].to_numpy(writable=True)
    if events[TIMESTAMP].null_count():
        return None
    return global_time_split(events[TIMESTAMP].to_numpy())
