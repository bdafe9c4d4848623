"""A small demo shop on two nights, with models that were really trained on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import artifact
from trainer.dataset import TEST, TRAIN, VALIDATION, Dataset, load_dataset
from trainer.demo_shop import make_shop
from trainer.export import publish
from trainer.nightly.candidate import Candidate, train_candidate
from trainer.recipe import load_recipe
from trainer.training import TrainingRun

RECIPE = load_recipe("demo", ["epochs=14"])


@dataclass(frozen=True)
class Nights:
    """Yesterday's data and champion, today's data, and who trains on it."""

    yesterday: Dataset
    today: Dataset
    champion: artifact.Artifact
    train: Callable[[Dataset], Candidate]


def labelled(dataset: Dataset, shares: tuple[float, float]) -> Dataset:
    """By time: the first share trains, up to the second validates, the rest is the holdout."""
    ranks = np.argsort(np.argsort(dataset.timestamps, kind="stable")) / len(dataset.users)
    labels = np.where(ranks < shares[0], TRAIN, np.where(ranks < shares[1], VALIDATION, TEST)).astype(np.int8)
    return replace(dataset, labels=labels)


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    make_shop(folder / "shop", users=300, items=120, seed=3)
    today = labelled(load_dataset(folder / "shop"), (0.80, 0.85))
    old = np.argsort(np.argsort(today.timestamps, kind="stable")) < 0.7 * len(today.users)
    yesterday = labelled(today.where(old), (0.93, 1.0))

    def train(dataset: Dataset) -> Candidate:
        run = TrainingRun(dataset, RECIPE, 0, Path(folder / f"run-{len(list(folder.iterdir()))}"), torch.device("cpu"))
        return train_candidate(run, dataset)

    store = folder / "models"
    publish(store, yesterday, RECIPE, 0, train(yesterday).trained)
    return Nights(yesterday, today, artifact.load(store), train)
