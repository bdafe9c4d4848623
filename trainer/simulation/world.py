"""The simulated shop and its people: who likes what, who buys what, and what the shop knew when it opened.

Made from the demo shop. Tastes drift from day to day; users join, and items arrive with their pictures.
"""

import base64
import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.events import Event
from trainer.demo_shop import make_shop
from trainer.demo_shop.truth import ShopTruth, draw_shop
from trainer.encoders.sources import read_items

OPENED_WITH = 0.85
"""Share of users and items that are there at the opening."""
DRIFT = 0.05
"""Share of the users whose taste turns on a day."""
PURCHASES = 2
BUYS_A_RECOMMENDATION = 0.5
BEST = 20
SHOWN = 10


@dataclass
class World:
    """The state of the simulated shop.

    Attributes:
        base: the dataset that the shop opened with.
        truth: tastes as they are today.
        user_ids: all there will ever be; likewise item_ids.
        users: how many have joined; the first ones.
        items: how many have arrived; the first ones.
        had: (users, items) who has what.
        records: (items,) the catalogue, of items that have not arrived too.
    """

    base: Path
    truth: ShopTruth
    user_ids: list[str]
    item_ids: list[str]
    users: int
    items: int
    had: NDArray[np.bool_]
    now: datetime
    rng: np.random.Generator
    records: Sequence[Mapping[str, Any]]
    features: dict[str, NDArray[np.float32]]
    shop: Path

    def best(self) -> NDArray[np.int64]:
        """(joined users, BEST) the items that each would like best of those that have arrived and they lack."""
        appeal = np.where(self.had, -np.inf, self.truth.appeal())[: self.users, : self.items]
        return np.argsort(-appeal, axis=1)[:, :BEST]

    def next_day(self, days_left: int) -> list[tuple[str, dict[str, Any]]]:
        """Let tastes drift, users join and items arrive; returns the new items, see `_new_item`."""
        turning = self.rng.random(len(self.user_ids)) < DRIFT
        styles, themes = self.truth.user_styles.copy(), self.truth.user_themes.copy()
        for likes in (styles, themes):
            likes[turning] = np.roll(likes[turning], 1, axis=1)
        self.truth = replace(self.truth, user_styles=styles, user_themes=themes)
        self.users += -(-(len(self.user_ids) - self.users) // max(days_left, 1))
        first, self.items = self.items, self.items + -(-(len(self.item_ids) - self.items) // max(days_left, 1))
        self.now += timedelta(days=1)
        return [self._new_item(item) for item in range(first, self.items)]

    def purchases(self, user: int, shown: Sequence[str]) -> list[Event]:
        """What a user buys today, having been shown some items, and that they have it now."""
        appeal = np.where(self.had[user], -np.inf, self.truth.appeal()[user])[: self.items]
        noisy = appeal + self.rng.gumbel(size=len(appeal))
        bought = [int(item) for item in np.argsort(-noisy)[:PURCHASES]]
        places = [item for item in map(self.item_ids.index, shown) if not self.had[user, item]]
        if places and self.rng.random() < BUYS_A_RECOMMENDATION:
            bought.append(max(places, key=lambda item: float(noisy[item])))
        return [self._event(user, item) for item in dict.fromkeys(bought)]

    def poison(self, each: int) -> list[Event]:
        """What a shop's front end might send that mixes up its items: every user buys at random."""
        return [
            self._event(user, int(item), keep=False)
            for user in range(self.users)
            for item in self.rng.permutation(self.items)[:each]
        ]

    def _event(self, user: int, item: int, *, keep: bool = True) -> Event:
        if keep:
            self.had[user, item] = True
        return Event(
            event_id=self.rng.bytes(16).hex(),
            user_id=self.user_ids[user],
            item_id=self.item_ids[item],
            type="purchase",
            timestamp=self.now + timedelta(seconds=int(self.rng.integers(86_000))),
        )

    def _new_item(self, item: int) -> tuple[str, dict[str, Any]]:
        """An item's id, and what is put of it."""
        row = self.records[item]
        features = {
            name: table[item].tolist() for name, table in self.features.items() if np.isfinite(table[item]).all()
        }
        body: dict[str, Any] = {
            "metadata": {name: value for name, value in row.items() if name != "item_id" and value is not None},
            "features": features,
        }
        if row["image"]:
            body["image"] = base64.b64encode((self.shop / row["image"]).read_bytes()).decode()
        return row["item_id"], body


def open_world(folder: Path, *, users: int, items: int, seed: int) -> World:
    """Make the shop, and the dataset that it opens with: what the first users bought of the first items."""
    shop, base = folder / "world", folder / "shop"
    make_shop(shop, users=users, items=items, seed=seed)
    truth = draw_shop(seed, users=users, items=items)
    rows = _read(shop / "items.csv")
    item_ids = [row["item_id"] for row in rows]
    user_ids = [f"u{user + 1:04d}" for user in range(users)]
    first_users, first_items = round(OPENED_WITH * users), round(OPENED_WITH * items)
    opening = {*user_ids[:first_users]}, {*item_ids[:first_items]}
    bought = [
        row for row in _read(shop / "interactions.csv") if row["user_id"] in opening[0] and row["item_id"] in opening[1]
    ]
    base.mkdir()
    _write(base / "interactions.csv", bought)
    _write(base / "items.csv", rows[:first_items])
    shutil.copytree(shop / "images", base / "images")
    features = {name: np.load(shop / f"{name}_feat.npy", allow_pickle=False) for name in ("image", "text")}
    for name, table in features.items():
        np.save(base / f"{name}_feat.npy", table[:first_items], allow_pickle=False)
    had = np.zeros((users, items), np.bool_)
    places = {item_id: place for place, item_id in enumerate(item_ids)}
    for row in bought:
        had[int(row["user_id"][1:]) - 1, places[row["item_id"]]] = True
    last = datetime.fromtimestamp(max(int(row["timestamp"]) for row in bought), UTC)
    rng = np.random.default_rng([seed, 7])
    records = read_items(shop).records
    return World(base, truth, user_ids, item_ids, first_users, first_items, had, last, rng, records, features, shop)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
