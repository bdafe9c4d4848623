"""A training in a process of its own, so that its peak memory is its own and nobody else's."""

import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from shared.errors import UserError
from trainer.dataset import load_dataset
from trainer.device import choose_device
from trainer.experiments.runs import Result, load_result, train_once
from trainer.recipe import Recipe
from trainer.training import Listener


def train_in_own_process(
    folder: Path, directory: Path, recipe: Recipe, seed: int, device: torch.device, listener: Listener
) -> Result:
    """Like ``runs.train_once``, of a dataset directory that the new process reads itself.

    Raises:
        UserError: as there, or the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    reports, speaker = context.Pipe(duplex=False)
    process = context.Process(
        target=_train, args=(speaker, folder, directory, recipe, seed, device.type), name=folder.name
    )
    process.start()
    speaker.close()
    try:
        with reports, suppress(EOFError):
            _relay(reports, listener)
        process.join()
        if process.exitcode != 0:
            raise UserError(
                f"{folder}: its process ended with exit code {process.exitcode}"
                f"{', which is what lack of memory looks like' if process.exitcode == -9 else ''}; "
                "give the same command again to go on"
            )
    finally:
        process.terminate()
        process.join()
    return load_result(folder)


def _relay(reports: Connection, listener: Listener) -> None:
    """Pass on what the training tells, until its process ends; raises what it died of."""
    while True:
        name, arguments = reports.recv()
        if name == "error":
            raise arguments[0]
        getattr(listener, name)(*arguments)


def _train(speaker: Connection, folder: Path, directory: Path, recipe: Recipe, seed: int, device: str) -> None:
    def tell(name: str) -> Callable[..., None]:
        return lambda *arguments: speaker.send((name, arguments))

    listener = Listener(stage=tell("stage"), step=tell("step"), epoch=tell("epoch"))
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the one who would read the traceback is gone or told already
        try:
            train_once(folder, load_dataset(directory), recipe, seed, choose_device(device), listener)
        except UserError as error:
            tell("error")(error)
