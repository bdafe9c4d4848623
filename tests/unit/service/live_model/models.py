"""Two small models that are told apart by their items, and one of them live."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from service import live_model
from service.live_model import LiveModel, SwapResult
from service.queries import Query, Recommendation
from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

USERS, ITEMS, WIDTH = 12, 40, 8


def student(tag: str, seed: int) -> StudentModel:
    """Random embeddings, item ids that begin with ``tag``; the last user has no interaction, the first all."""
    dice = np.random.default_rng(seed)
    seen = [np.sort(dice.choice(ITEMS, 5, replace=False)) for _ in range(USERS)]
    seen[0], seen[-1] = np.arange(ITEMS), np.arange(0)
    return StudentModel(
        user_ids=[f"user {index}" for index in range(USERS)],
        item_ids=[f"{tag} {index}" for index in range(ITEMS)],
        user_embeddings=dice.normal(size=(USERS, WIDTH)),
        item_embeddings=dice.normal(size=(ITEMS, WIDTH)),
        train_indptr=np.cumsum([0, *map(len, seen)]),
        train_indices=np.concatenate(seen),
        items=[{"shop": tag}] * ITEMS,
    )


def publish(store: Path, tag: str, seed: int = 1) -> str:
    dataset = DatasetInfo(
        name=tag, fingerprint=tag, users=USERS, items=ITEMS, interactions=90, split=Split(kind="random", seed=1)
    )
    return artifact.publish(store, student(tag, seed), Provenance(dataset, {}, seed, {}))


class Followed(NamedTuple):
    """A model that is live, and all it reported since."""

    model: LiveModel
    reports: list[SwapResult]
    version: str

    def answers(self) -> bool:
        """Whether it is still the first model that answers."""
        assert self.model.engine is not None
        answer = self.model.engine.recommend(Query("user 3", k=7))
        return self.model.version == self.version and tags(answer) == {"first"}


def tags(answer: Recommendation) -> set[str]:
    """Of which models the items of an answer are, by id and by metadata."""
    return {item.item_id.split()[0] for item in answer.items} | {(item.metadata or {})["shop"] for item in answer.items}


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions loaded from now on."""
    loads: list[str] = []
    load = artifact.load

    def counted(store: Path, version: str) -> artifact.Artifact:
        loads.append(version)
        return load(store, version)

    monkeypatch.setattr(live_model.artifact, "load", counted)
    return loads
