"""The days and nights of a simulated shop: people shop over HTTP by day, the nightly job runs by night."""

import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from shared import artifact
from shared.events import Event, encode
from trainer.nightly.contenders import positions, standing
from trainer.simulation.world import BEST, SHOWN, World

EVENTS_PER_REQUEST = 200
SHOPPING = 0.6
"""Share of the users who come on a day."""
POISON_EACH = 20
"""Events of a poisoned day for each user."""

Night = Callable[[], tuple[str, str]]


@dataclass(frozen=True)
class Day:
    """A day and its night.

    Attributes:
        poisoned: whether its log was.
        outcome: of the night; ``reason`` likewise.
        live: share of the items that users would truly like best among the live model's recommendations.
        static: the same of the first model, given the same histories.
        new_items: items that arrived since the opening.
        new_found: how many of them the live model recommends to somebody.
        version: that is live.
    """

    day: int
    poisoned: bool
    events: int
    outcome: str
    reason: str
    live: float
    static: float
    new_items: int
    new_found: int
    version: str


@dataclass(frozen=True)
class Shop:
    """Where the simulated shop runs."""

    world: World
    store: Path
    url: str
    first: str

    def day(self, number: int, days: int, night: Night) -> Day:
        """Live through a day and its night; the last day's log is poisoned."""
        poisoned = number == days
        arrived = self.world.next_day(days - number + 1)
        for item_id, body in arrived:
            if body["features"]:
                self._send_to("PUT", f"/items/{item_id}", json.dumps(body).encode())
        events = [event for user in self._shopping() for event in self._shop(user)]
        if poisoned:
            events += self.world.poison(POISON_EACH)
        for start in range(0, len(events), EVENTS_PER_REQUEST):
            self._send(events[start : start + EVENTS_PER_REQUEST])
        outcome, reason = night()
        version = str(artifact.current_version(self.store))
        live, found = self._quality(version)
        opened = len(self._opening_items())
        return Day(
            day=number,
            poisoned=poisoned,
            events=len(events),
            outcome=outcome,
            reason=reason,
            live=live,
            static=self._quality(self.first)[0],
            new_items=self.world.items - opened,
            new_found=len(found - self._opening_items()),
            version=version,
        )

    def _opening_items(self) -> set[str]:
        return set(artifact.load(self.store, self.first).items)

    def _shopping(self) -> list[int]:
        rng = self.world.rng
        return [user for user in range(self.world.users) if rng.random() < SHOPPING]

    def _shop(self, user: int) -> list[Event]:
        answer = self._send_to(
            "POST", "/recommend", json.dumps({"user_id": self.world.user_ids[user], "k": SHOWN}).encode()
        )
        known = set(self.world.item_ids[: self.world.items])
        return self.world.purchases(user, [item["item_id"] for item in answer["items"] if item["item_id"] in known])

    def _send(self, events: Sequence[Event]) -> None:
        self._send_to("POST", "/events", f'{{"events":[{",".join(map(encode, events))}]}}'.encode())

    def _send_to(self, method: str, path: str, body: bytes) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own loopback address
            return json.load(response)

    def _quality(self, version: str) -> tuple[float, set[str]]:
        """How many of the truly best items a version recommends, and which items it recommends at all."""
        world = self.world
        model = artifact.load(self.store, version)
        users, items = world.user_ids[: world.users], world.item_ids[: world.items]
        had = sp.csr_matrix(world.had[: world.users, : world.items].astype(np.float32))
        contender = standing(model, positions(model.users, users), positions(model.items, items), had)
        scores = contender.scores(np.arange(len(users))).numpy()
        scores[had.nonzero()] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :SHOWN]
        wanted = world.best()
        hits = [len(np.intersect1d(one, other)) for one, other in zip(best, wanted, strict=True)]
        shown = {items[item] for item in np.unique(best[np.isfinite(np.take_along_axis(scores, best, axis=1))])}
        return float(np.mean(hits) / min(SHOWN, BEST)), shown
