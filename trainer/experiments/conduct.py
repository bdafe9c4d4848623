"""An experiment from beginning to end: every training once, then its rows."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.errors import UserError
from trainer.dataset import Dataset
from trainer.device import usable_cores
from trainer.experiments.corruption import corrupted
from trainer.experiments.definitions import Experiment
from trainer.experiments.own_process import train_in_own_process
from trainer.experiments.plans import Outcome, Trial
from trainer.experiments.runs import RESULT_FILE, Result, run_folder, train_once
from trainer.experiments.tables import Row
from trainer.recipe import Recipe
from trainer.training import Listener

_PATIENCE_SECONDS = 0.1
"""Between two looks for trainings that were about to begin when all were to end."""


@dataclass(frozen=True)
class Watch:
    """Who is told how far an experiment is.

    Attributes:
        trial: told the number of finished trainings, that of all, and of the next one its name and its epochs at most.
        listener: told of the training at hand.
    """

    trial: Callable[[int, int, str, int], None] = lambda done, total, name, epochs: None
    listener: Listener = field(default_factory=Listener)


@dataclass(frozen=True)
class Setting:
    """On what an experiment is conducted.

    Attributes:
        directory: of the dataset, for processes that read it themselves.
        dataset: the same, read.
        seeds: each training is done with seeds 0, 1, ... below it.
        out: folder that the trainings are kept in.
        jobs: how many trainings go on at once, each in a process of its own; they share the cores.
        only: the names of the trainings that are wanted; all, if there is none.
    """

    directory: Path
    dataset: Dataset
    recipe: Recipe
    seeds: int
    out: Path
    device: torch.device
    jobs: int = 1
    only: Sequence[str] = ()


@dataclass(frozen=True)
class Findings:
    """Of a whole experiment.

    Attributes:
        rows: of all trainings.
        results: of the distinct trainings.
        remarks: on what was left out.
    """

    rows: list[Row]
    results: list[Result]
    remarks: list[str]


def conduct(experiment: Experiment, setting: Setting, watch: Watch) -> Findings:
    """Do the trainings that are not done yet, and take the rows of all.

    Raises:
        UserError: the dataset or the recipe does not allow the experiment, it has no training of a name that is wanted,
            or a training failed; those that were finished are kept.
    """
    plan = experiment.plan(setting.recipe, setting.dataset).only(setting.only)
    trainings = [(trial, seed) for trial in plan.trials for seed in range(setting.seeds)]
    if setting.jobs > 1:
        _train_side_by_side(trainings, setting, watch)
    rows: list[Row] = []
    results: dict[Path, Result] = {}
    for done, (trial, seed) in enumerate(trainings):
        name = _name(trial, seed, setting)
        watch.trial(done, len(trainings), name, trial.recipe.epochs)
        outcome = _outcome(experiment, trial, seed, setting, watch.listener, name)
        results[outcome.folder] = outcome.result
        rows += experiment.rows(outcome)
    return Findings(rows, list(results.values()), plan.remarks)


def _name(trial: Trial, seed: int, setting: Setting) -> str:
    return f"{trial.name}, seed {seed}" if setting.seeds > 1 else trial.name


def _train_side_by_side(trainings: Sequence[tuple[Trial, int]], setting: Setting, watch: Watch) -> None:
    """Have every training done that is not yet; their rows are left to whoever comes after.

    When one fails, or this process is interrupted, those that are going on are ended, and go on with the next call.
    """
    missing = {}
    for trial, seed in trainings:
        folder = run_folder(setting.out, _data(trial, seed, setting), trial.recipe, seed)
        if not (folder / RESULT_FILE).exists():
            missing[folder] = (trial, seed)
    cores = max(1, usable_cores() // setting.jobs)

    def train(folder: Path, trial: Trial, seed: int) -> Result:
        return train_in_own_process(
            folder,
            setting.directory,
            setting.dataset.fingerprint,
            trial.recipe,
            seed,
            setting.device,
            Listener(),
            trial.corruption,
            cores,
        )

    pool = ThreadPoolExecutor(setting.jobs)
    unfinished = {pool.submit(train, folder, *of): _name(*of, setting) for folder, of in missing.items()}
    try:
        total = len(unfinished)
        while unfinished:
            watch.trial(total - len(unfinished), total, f"{setting.jobs} at once", 1)
            for future in wait(unfinished, return_when=FIRST_COMPLETED).done:
                name = unfinished.pop(future)
                try:
                    future.result()
                except UserError as error:
                    raise type(error)(f"{name}: {error}") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # a cancelled future is done, but wait would wait for it for ever
        while going_on := [future for future in unfinished if not future.done()]:
            for process in multiprocessing.active_children():
                process.terminate()
            wait(going_on, timeout=_PATIENCE_SECONDS)


def _data(trial: Trial, seed: int, setting: Setting) -> Dataset:
    return setting.dataset if trial.corruption is None else corrupted(setting.dataset, trial.corruption, seed)


def _outcome(
    experiment: Experiment, trial: Trial, seed: int, setting: Setting, listener: Listener, name: str
) -> Outcome:
    dataset = _data(trial, seed, setting)
    folder = run_folder(setting.out, dataset, trial.recipe, seed, own_process=experiment.own_process)
    try:
        if experiment.own_process:
            known = setting.dataset.fingerprint
            result = train_in_own_process(
                folder, setting.directory, known, trial.recipe, seed, setting.device, listener
            )
        else:
            result = train_once(folder, dataset, trial.recipe, seed, setting.device, listener)
    except UserError as error:
        raise type(error)(f"{experiment.name}, {name}: {error}") from error
    return Outcome(trial, seed, dataset, folder, result, setting.device)
