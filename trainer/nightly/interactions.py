"""From events to interactions: what a user's events with an item come to, and which of them the gate judges by.

A pair of user and item is an interaction where its events weigh enough together. One that the user turned down stays
out until an event of full weight takes that back. Interactions of the base dataset count as events of full weight.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from shared.events import FULL_WEIGHT
from trainer.dataset import TEST, TRAIN, VALIDATION
from trainer.nightly.settings import EventSettings, SplitSettings

BEGINNING = 631_152_000.0
"""1990-01-01 in seconds since 1970: the time of interactions of which none is known."""
SEED = 0
LEAST_VALIDATION = 50
"""So many interactions, of users who are trained on, or all there would be, must choose the best epoch."""

_DAY = 86_400.0
_BLANK = r"^\s*$"
"""Ids that a table of interactions takes for none, see :func:`trainer.dataset.interactions.as_ids`."""


@dataclass(frozen=True)
class Known:
    """What must not be trained on, and what the types of events weigh.

    Attributes:
        weights: of the types of events.
        forgotten: users, and until when what they did is forgotten.
        items: all items there are; None where whatever occurs is an item.
    """

    weights: Mapping[str, float]
    forgotten: Mapping[str, datetime]
    items: Collection[str] | None


@dataclass(frozen=True)
class Interactions:
    """Pairs with ``user``, ``item``, ``timestamp`` (seconds), ``weight``, ``from_log``; and what was left out of them.

    Attributes:
        pairs: by user and item.
        counts: by what was left out, of events: unknown items, bots ...
        expired: ``user`` and ``item`` of pairs that are none because of the window.
    """

    pairs: pl.DataFrame
    counts: Mapping[str, int]
    expired: pl.DataFrame


def interactions(base: pl.DataFrame, events: pl.DataFrame, known: Known, settings: EventSettings) -> Interactions:
    """Put base and events together.

    Args:
        base: ``user``, ``item``, ``timestamp`` (seconds, null where there is none).
        events: of the log.
        known: what to leave out, and weights.
        settings: cap, window and decay.
    """
    counts: dict[str, int] = {}
    weighed = _weighed(events, known, counts)
    capped = _capped(weighed, settings.user_day_cap)
    counts["over_cap"] = len(weighed) - len(capped)
    old = base.select(
        "user",
        "item",
        pl.col("timestamp").cast(pl.Float64),
        of_type=pl.lit(FULL_WEIGHT),
        w=pl.lit(FULL_WEIGHT),
        log=pl.lit(False),
    )
    both = pl.concat([_unforgotten(old, known), capped.with_columns(pl.lit(True).alias("log"))])
    if known.items is not None:
        there = both.filter(pl.col("item").is_in(pl.Series(list(known.items), dtype=pl.String).implode()))
        counts["unknown_item"] = len(both) - len(there)
        both = there
    outside = _outside_window(both, settings.window_days)
    counts["outside_window"] = int(outside.sum())
    pairs = _pairs(both.filter(~outside), settings, counts)
    expired = both.filter(outside).select("user", "item").unique().join(pairs, on=["user", "item"], how="anti")
    return Interactions(pairs, counts, expired)


def _weighed(events: pl.DataFrame, known: Known, counts: dict[str, int]) -> pl.DataFrame:
    """Events as ``user, item, timestamp``, the weight ``of_type`` and with the event's own, ``w``.

    Those of users since forgotten, of unknown types and of blank ids, which were let in once, are left out.
    """
    weights = pl.DataFrame(
        {"type": list(known.weights), "of_type": list(known.weights.values())},
        schema={"type": pl.String, "of_type": pl.Float64},
    )
    typed = events.join(weights, on="type", how="inner", maintain_order="left")
    counts["unknown_type"] = len(events) - len(typed)
    named = typed.filter(~pl.any_horizontal(pl.col("user_id", "item_id").str.contains(_BLANK)))
    counts["blank_id"] = len(typed) - len(named)
    rows = named.select(
        user="user_id",
        item="item_id",
        timestamp=pl.col("timestamp").dt.timestamp("us") / 1e6,
        of_type="of_type",
        w=pl.col("of_type") * pl.col("weight").fill_null(1.0),
    )
    kept = _unforgotten(rows, known)
    counts["forgotten"] = len(rows) - len(kept)
    return kept


def _unforgotten(rows: pl.DataFrame, known: Known) -> pl.DataFrame:
    gone = pl.DataFrame(
        {"user": list(known.forgotten), "until": [each.timestamp() for each in known.forgotten.values()]},
        schema={"user": pl.String, "until": pl.Float64},
    )
    joined = rows.join(gone, on="user", how="left", maintain_order="left")
    later = pl.col("until").is_null() | (pl.col("timestamp").fill_null(BEGINNING) > pl.col("until"))
    return joined.filter(later).drop("until")


def _capped(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """The bot guard: of what one user did on one day, the first events only."""
    day = (pl.col("timestamp") / _DAY).floor()
    return rows.sort("timestamp", maintain_order=True).filter(pl.int_range(pl.len()).over("user", day) < most)


def _outside_window(rows: pl.DataFrame, days: float | None) -> pl.Series:
    """Which rows are too old; none without a window, and none of which the time is not known."""
    newest = rows["timestamp"].max()
    if days is None or not isinstance(newest, float):
        return pl.Series([False] * len(rows), dtype=pl.Boolean)
    return (rows["timestamp"] < newest - days * _DAY).fill_null(value=False)


def _pairs(rows: pl.DataFrame, settings: EventSettings, counts: dict[str, int]) -> pl.DataFrame:
    newest = rows["timestamp"].max()
    time = pl.col("timestamp").fill_null(BEGINNING)
    decayed = pl.col("w")
    if settings.half_life_days is not None and isinstance(newest, float):
        decayed = decayed * 0.5 ** ((newest - time) / (_DAY * settings.half_life_days))
    liked = pl.col("w") > 0
    pairs = rows.group_by("user", "item").agg(
        timestamp=time.filter(liked).min(),
        total=pl.col("w").filter(liked).sum(),
        weight=decayed.filter(liked).sum(),
        from_log=pl.col("log").filter(liked).all(),
        refused=time.filter(pl.col("w") < 0).max(),
        taken_back=time.filter(pl.col("of_type") >= FULL_WEIGHT).max(),
    )
    hidden = pl.col("refused").is_not_null() & (
        pl.col("taken_back").is_null() | (pl.col("taken_back") < pl.col("refused"))
    )
    counts["turned_down"] = len(pairs.filter(hidden))
    enough = pairs.filter(~hidden & (pl.col("total") >= settings.least_weight))
    counts["too_light"] = len(pairs.filter(~hidden)) - len(enough)
    return enough.select(
        "user", "item", "timestamp", weight=pl.col("weight").clip(1e-6, FULL_WEIGHT), from_log="from_log"
    ).sort("user", "item")


def labels(pairs: pl.DataFrame, fresh: pl.Series, settings: SplitSettings, *, warm: bool) -> pl.Series:
    """Which pairs train, validate, and are the gate's holdout, by time.

    The holdout are the newest of those pairs that the champion was not trained on. The validation are the newest of all
    others; of those that the champion was not trained on only so many that most of them are trained on tonight. A
    training that begins from the champion's weights knows all others by heart, and is judged by these alone, unless
    they are too few. What has no time is the oldest, in an order that depends on the pair alone.

    Args:
        pairs: with ``user``, ``item``, ``timestamp``.
        fresh: (pairs,) which of them the champion was not trained on and the holdout may have.
        settings: how much of them.
        warm: whether the training begins from the champion's weights.
    """
    order = pairs.select(
        "user",
        "timestamp",
        chance=pl.struct("user", "item").hash(SEED),
        fresh=fresh,
        place=pl.int_range(pl.len()),
    ).sort("timestamp", "chance", descending=True)
    judged = order.filter("fresh").head(
        min(_share(int(fresh.sum()), settings.holdout), _share(len(pairs), settings.most))
    )
    others = order.join(judged, on="place", how="anti", maintain_order="left")
    count = _share(len(others), settings.validation)
    new = others.filter("fresh")
    validated = new.head(min(count, _share(len(new), settings.of_new)))
    rest = others.join(validated, on="place", how="anti", maintain_order="left")
    if not warm or len(validated.join(rest, on="user", how="semi")) < min(count, LEAST_VALIDATION):
        validated = pl.concat([validated, rest.filter(~pl.col("fresh")).head(count - len(validated))])
    label = (
        pl.when(pl.col("place").is_in(judged["place"].implode()))
        .then(TEST)
        .when(pl.col("place").is_in(validated["place"].implode()))
        .then(VALIDATION)
        .otherwise(TRAIN)
    )
    return order.sort("place").select(label.cast(pl.Int8).alias("x_label")).to_series()


def _share(count: float, share: float) -> int:
    return round(float(count) * share)
