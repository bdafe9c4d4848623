"""A training in a process of its own, so that its peak memory is its own and nobody else's."""

from functools import partial
from pathlib import Path

import torch

from trainer.dataset import load_dataset
from trainer.device import choose_device
from trainer.experiments.runs import Result, train_once
from trainer.own_process import in_own_process
from trainer.recipe import Recipe
from trainer.training import Listener


def train_in_own_process(
    folder: Path, directory: Path, recipe: Recipe, seed: int, device: torch.device, listener: Listener
) -> Result:
    """Like ``runs.train_once``, of a dataset directory that the new process reads itself.

    Raises:
        UserError: as there, or the process was killed.
    """
    work = partial(_train, folder, directory, recipe, seed, device.type)
    return in_own_process(work, listener, str(folder), "give the same command again to go on")


def _train(folder: Path, directory: Path, recipe: Recipe, seed: int, device: str, listener: Listener) -> Result:
    return train_once(folder, load_dataset(directory), recipe, seed, choose_device(device), listener)
