"""A night's data, fixed: a dataset directory of the base, the events and what became of the catalogue.

It is a directory as a user would bring one, so that whatever reads datasets reads it: ``mts4mm validate``, ``train``
and ``evaluate`` too. It is written beside its final place and then renamed.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared import durable
from shared.artifact import Artifact
from trainer.dataset import TEST, VALIDATION, Dataset, Modality
from trainer.nightly.additions import Addition
from trainer.nightly.contenders import pair_numbers, positions, training_pairs
from trainer.nightly.drift import Drift, drift
from trainer.nightly.interactions import Interactions, Known, interactions, labels
from trainer.nightly.settings import NightlySettings

DROPPED = "dropped.parquet"
"""Beside the directory: pairs of user and item that it lacks because somebody wanted that, for the gate."""
NEIGHBOURS_OF_NEW = 1024
"""New items whose neighbours are searched at once."""


@dataclass(frozen=True)
class Sources:
    """What a snapshot is made of.

    Attributes:
        base: the dataset that the shop began with.
        events: the log.
        additions: items that came since.
        retired: items that are not to be recommended any more.
        forgotten: users, and until when what they did is forgotten.
        weights: of the types of events.
        champion: the live model, if there is one.
        removed: events that the log does not have any more because somebody removed them since the champion's night.
    """

    base: Dataset
    events: pl.DataFrame
    additions: Sequence[Addition]
    retired: Collection[str]
    forgotten: Mapping[str, datetime]
    weights: Mapping[str, float]
    champion: Artifact | None
    removed: pl.DataFrame


@dataclass(frozen=True)
class Snapshot:
    """What was made, for the journal and the report.

    Attributes:
        interactions: pairs of user and item.
        fresh: those of them from the log that the champion was not trained on.
        holdout: those that the gate judges by; ``validation`` likewise.
        left_out: events that count for nothing, by reason; and items that were put with a blank id.
        drift: how far the fresh ones are from what the champion was trained on, if there is one.
    """

    users: int
    items: int
    interactions: int
    fresh: int
    holdout: int
    validation: int
    new_users: int
    new_items: int
    coverage: Mapping[str, float]
    left_out: Mapping[str, int]
    drift: Drift | None


def write_snapshot(folder: Path, sources: Sources, settings: NightlySettings, *, warm: bool = False) -> Snapshot:
    """Write the directory, whole or not at all; for a training that begins ``warm``, or from scratch."""
    named = [each for each in sources.additions if each.item_id.strip()]
    blank = len(sources.additions) - len(named)
    sources = replace(sources, additions=named)
    item_ids = _item_ids(sources)
    found = _interactions(sources, item_ids, settings)
    pairs = found.pairs
    taken = set(pairs["item"].unique())
    if item_ids is None:
        item_ids = [*sources.base.item_ids, *sorted(taken - set(sources.base.item_ids))]
    item_ids = _without_retired(item_ids, sources.retired, taken)
    fresh = _fresh(pairs, sources.champion) & ~pairs["item"].is_in(
        pl.Series(list(sources.retired), dtype=pl.String).implode()
    )
    pairs = pairs.with_columns(labels(pairs, fresh, settings.split, warm=warm))
    modalities = _modalities(sources, item_ids)
    building = durable.temporary_sibling(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        building.mkdir()
        _write(building, pairs, _records(sources, item_ids), modalities)
        with durable.replacing(folder.with_name(DROPPED)) as file:
            _dropped(found, sources.removed).write_parquet(file)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    durable.sync_directory(folder.parent)
    left_out = {**found.counts, "blank_item": blank}
    return _described(pairs, fresh, item_ids, modalities, left_out, sources)


def _interactions(sources: Sources, item_ids: list[str] | None, settings: NightlySettings) -> Interactions:
    base = sources.base
    pairs = pl.DataFrame(
        {
            "user": pl.Series(base.user_ids, dtype=pl.String).gather(base.users),
            "item": pl.Series(base.item_ids, dtype=pl.String).gather(base.items),
            "timestamp": base.timestamps,
        },
        schema={"user": pl.String, "item": pl.String, "timestamp": pl.Float64},
    )
    known = Known(sources.weights, sources.forgotten, item_ids)
    return interactions(pairs, sources.events, known, settings.events)


def read_dropped(folder: Path) -> pl.DataFrame:
    """Pairs ``user`` and ``item`` that a snapshot lacks because of the window, or because somebody removed them."""
    return pl.read_parquet(folder.with_name(DROPPED))


def _dropped(found: Interactions, removed: pl.DataFrame) -> pl.DataFrame:
    """Only what was seen and left out is here: what was lost nobody saw."""
    taken_back = removed.select(user="user_id", item="item_id").join(found.pairs, on=["user", "item"], how="anti")
    return pl.concat([found.expired, taken_back]).unique(maintain_order=True)


def _item_ids(sources: Sources) -> list[str] | None:
    """All items there are; None where the base does not say, and whatever occurs is an item."""
    base = sources.base
    new = [each.item_id for each in sources.additions]
    if base.catalogue is None and not base.modalities:
        return None
    return list(dict.fromkeys([*base.item_ids, *new]))


def _without_retired(item_ids: list[str], retired: Collection[str], taken: Collection[str]) -> list[str]:
    """A retired item stays as long as somebody's interactions speak of it: they tell of tastes."""
    return [each for each in item_ids if each not in retired or each in taken]


def _fresh(pairs: pl.DataFrame, champion: Artifact | None) -> pl.Series:
    """Which pairs the holdout may have: of the log, and new to the champion; without one all that have a time."""
    timed = pairs["timestamp"] > pairs["timestamp"].min()
    if champion is None:
        return timed if timed.any() else pl.Series([True] * len(pairs), dtype=pl.Boolean)
    taken = pl.Series(training_pairs(champion))
    return pairs["from_log"] & ~pl.Series(pair_numbers(champion, pairs)).is_in(taken.implode())


def _records(sources: Sources, item_ids: list[str]) -> list[dict[str, Any]]:
    catalogue = sources.base.catalogue or []
    known = {record["item_id"]: record for record in catalogue}
    known |= {each.item_id: _record(each) for each in sources.additions}
    return [known.get(item_id, {"item_id": item_id}) for item_id in item_ids]


def _record(addition: Addition) -> dict[str, Any]:
    """As a row of the items table: the id first, and not what the metadata may call one."""
    rest = {name: value for name, value in addition.metadata.items() if name != "item_id"}
    return {"item_id": addition.item_id, **rest}


def _modalities(sources: Sources, item_ids: list[str]) -> dict[str, Modality]:
    places = {item_id: place for place, item_id in enumerate(sources.base.item_ids)}
    old = np.array([places.get(item_id, -1) for item_id in item_ids], np.int64)
    added = {each.item_id: each for each in sources.additions}
    return {
        name: _moved(modality, old, [added.get(item_id) for item_id in item_ids])
        for name, modality in sources.base.modalities.items()
    }


def _moved(modality: Modality, old: NDArray[np.int64], added: Sequence[Addition | None]) -> Modality:
    """A modality over tonight's items: the base's rows where it had them, what was put for the others."""
    name = modality.name
    present = np.where(old >= 0, modality.present[old], False)
    features = None
    changed = np.zeros(len(old), np.bool_)
    if modality.features is not None:
        width = modality.features.shape[1]
        features = np.where((old >= 0)[:, None], modality.features[old], np.float32(0))
        for place, addition in enumerate(added):
            values = None if addition is None else addition.features.get(name)
            if values is not None and usable(values, width):
                features[place], present[place], changed[place] = values, True, True
    if modality.neighbours is None:
        return Modality(name, features, present, None, None)
    neighbours, cosine = _neighbours(modality, old)
    if features is not None and changed.any():
        _find_neighbours(features, present, changed, neighbours, cosine)
    return Modality(name, features, present, neighbours, cosine)


def usable(values: NDArray[np.float32], width: int) -> bool:
    """Whether a vector can be a row of a modality's features."""
    return values.shape == (width,) and bool(np.isfinite(values).all()) and bool(values.any())


def _neighbours(modality: Modality, old: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """The base's neighbours in tonight's numbers; -1 for who is gone, and for new items."""
    count = len(modality.present)
    new_place = np.full(count + 1, -1, np.int32)
    new_place[old[old >= 0]] = np.flatnonzero(old >= 0)
    own = np.where((old >= 0)[:, None], modality.neighbours[old] if modality.neighbours is not None else -1, -1)
    neighbours = np.where(own >= 0, new_place[own], -1).astype(np.int32)
    cosine = None if modality.cosine is None else np.where(neighbours >= 0, modality.cosine[old], np.float32(0))
    return neighbours, cosine


def _find_neighbours(
    features: NDArray[np.float32],
    present: NDArray[np.bool_],
    changed: NDArray[np.bool_],
    neighbours: NDArray[np.int32],
    cosine: NDArray[np.float32] | None,
) -> None:
    """Fill in the neighbours of new items, by the cosine of their features with all others'.

    Where the base's neighbours have no cosines, theirs get none: some of weight 1 and some of less would be no graph.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
    wanted = min(neighbours.shape[1], int(present.sum()))
    rows = np.flatnonzero(changed)
    for start in range(0, len(rows), NEIGHBOURS_OF_NEW):
        some = rows[start : start + NEIGHBOURS_OF_NEW]
        cosines = np.where(present, units[some] @ units.T, -np.inf)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :wanted]
        neighbours[some] = -1
        neighbours[some, :wanted] = best
        if cosine is not None:
            cosine[some] = 0
            cosine[some, :wanted] = np.take_along_axis(cosines, best, axis=1)


def _write(
    folder: Path, pairs: pl.DataFrame, records: list[dict[str, Any]], modalities: Mapping[str, Modality]
) -> None:
    with durable.synced_file(folder / "interactions.parquet") as file:
        pairs.select(
            pl.col("user").alias("user_id"), pl.col("item").alias("item_id"), "timestamp", "weight", "x_label"
        ).write_parquet(file)
    with durable.synced_file(folder / "items.jsonl") as file:
        for record in records:
            # nothing but metadata can hold a lone surrogate, which is no character
            file.write(json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n")
    for name, modality in modalities.items():
        if modality.features is not None:
            rows = np.where(modality.present[:, None], modality.features, np.float32(np.nan))
            with durable.synced_file(folder / f"{name}_feat.npy") as file:
                np.save(file, rows, allow_pickle=False)
        if modality.neighbours is not None:
            with durable.synced_file(folder / f"{name}_neighbors.npz") as file:
                _save_neighbours(file, modality.neighbours, modality.cosine)
    durable.sync_directory(folder)


def _save_neighbours(file: BinaryIO, neighbours: NDArray[np.int32], cosine: NDArray[np.float32] | None) -> None:
    if cosine is None:
        np.savez(file, neighbors=neighbours)
    else:
        np.savez(file, neighbors=neighbours, cosine=cosine)


def write_features(folder: Path, modality: str, rows: Mapping[int, NDArray[np.float32] | None]) -> None:
    """Replace some rows of a snapshot's features, and these items' neighbours where it has any.

    Args:
        folder: the snapshot.
        modality: whose features.
        rows: by row, its new features; None for none.
    """
    features = np.load(folder / f"{modality}_feat.npy", allow_pickle=False)
    for place, values in rows.items():
        features[place] = np.float32(np.nan) if values is None else values
    near = folder / f"{modality}_neighbors.npz"
    if near.exists():
        present = np.isfinite(features).all(axis=1)
        changed = np.zeros(len(features), np.bool_)
        changed[[place for place, values in rows.items() if values is not None]] = True
        with np.load(near, allow_pickle=False) as stored:
            neighbours, cosine = stored["neighbors"], stored.get("cosine")
        _find_neighbours(np.where(present[:, None], features, 0), present, changed, neighbours, cosine)
        with durable.replacing(near) as file:
            _save_neighbours(file, neighbours, cosine)
    with durable.replacing(folder / f"{modality}_feat.npy") as file:
        np.save(file, features, allow_pickle=False)


def _described(
    pairs: pl.DataFrame,
    fresh: pl.Series,
    item_ids: list[str],
    modalities: Mapping[str, Modality],
    left_out: Mapping[str, int],
    sources: Sources,
) -> Snapshot:
    champion = sources.champion
    users = pairs["user"].unique()
    old_users = 0 if champion is None else int((positions(champion.users, users) >= 0).sum())
    old_items = 0 if champion is None else int((positions(champion.items, item_ids) >= 0).sum())
    return Snapshot(
        users=len(users),
        items=len(item_ids),
        interactions=len(pairs),
        fresh=int(fresh.sum()),
        holdout=int((pairs["x_label"] == TEST).sum()),
        validation=int((pairs["x_label"] == VALIDATION).sum()),
        new_users=len(users) - old_users,
        new_items=len(item_ids) - old_items,
        coverage={name: float(each.present.mean()) for name, each in modalities.items()},
        left_out={name: count for name, count in left_out.items() if count},
        drift=None if champion is None else drift(pairs.filter(fresh), champion),
    )
