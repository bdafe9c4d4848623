"""A training in a process of its own: its peak memory is its own and nobody else's, and several can go on at once."""

import os
from functools import partial
from pathlib import Path

import torch

from shared.errors import UserError
from trainer.dataset import load_dataset
from trainer.device import choose_device
from trainer.experiments.corruption import Corruption, corrupted
from trainer.experiments.runs import Result, train_once
from trainer.own_process import in_own_process
from trainer.recipe import Recipe
from trainer.training import Listener


def train_in_own_process(
    folder: Path,
    directory: Path,
    fingerprint: str,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    listener: Listener,
    corruption: Corruption | None = None,
    cores: int | None = None,
) -> Result:
    """Like ``runs.train_once``, of a dataset directory that the new process reads itself.

    Args:
        folder: of the training.
        directory: of the dataset.
        fingerprint: of the dataset, which the folder is named by.
        recipe: to train by.
        seed: of the training, and of the corruption.
        device: where to compute.
        listener: told how far it is.
        corruption: what is done to the dataset beforehand.
        cores: that the process may use; as many as this one by default.

    Raises:
        UserError: as there, the directory has changed, or the process was killed.
    """
    work = partial(_train, folder, directory, fingerprint, corruption, recipe, seed, device.type, cores)
    return in_own_process(work, listener, str(folder), "give the same command again to go on")


def _train(
    folder: Path,
    directory: Path,
    fingerprint: str,
    corruption: Corruption | None,
    recipe: Recipe,
    seed: int,
    device: str,
    cores: int | None,
    listener: Listener,
) -> Result:
    if cores is not None:
        os.environ["OMP_NUM_THREADS"] = str(cores)
    dataset = load_dataset(directory)
    if dataset.fingerprint != fingerprint:
        raise UserError(f"{directory}: has changed since the experiment began; give the same command again")
    if corruption is not None:
        dataset = corrupted(dataset, corruption, seed)
    return train_once(folder, dataset, recipe, seed, choose_device(device), listener)
