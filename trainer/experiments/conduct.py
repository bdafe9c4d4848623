"""An experiment from beginning to end: every training once, then its rows."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.errors import UserError
from trainer.dataset import Dataset
from trainer.experiments.corruption import corrupted
from trainer.experiments.definitions import Experiment
from trainer.experiments.own_process import train_in_own_process
from trainer.experiments.plans import Outcome, Trial
from trainer.experiments.runs import Result, run_folder, train_once
from trainer.experiments.tables import Row
from trainer.recipe import Recipe
from trainer.training import Listener


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
    """

    directory: Path
    dataset: Dataset
    recipe: Recipe
    seeds: int
    out: Path
    device: torch.device


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
        UserError: the dataset or the recipe does not allow the experiment, or a training failed; those that were
            finished are kept.
    """
    plan = experiment.plan(setting.recipe, setting.dataset)
    trainings = [(trial, seed) for trial in plan.trials for seed in range(setting.seeds)]
    rows: list[Row] = []
    results: dict[Path, Result] = {}
    for done, (trial, seed) in enumerate(trainings):
        name = f"{trial.name}, seed {seed}" if setting.seeds > 1 else trial.name
        watch.trial(done, len(trainings), name, trial.recipe.epochs)
        outcome = _outcome(experiment, trial, seed, setting, watch.listener, name)
        results[outcome.folder] = outcome.result
        rows += experiment.rows(outcome)
    return Findings(rows, list(results.values()), plan.remarks)


def _outcome(
    experiment: Experiment, trial: Trial, seed: int, setting: Setting, listener: Listener, name: str
) -> Outcome:
    dataset = setting.dataset
    if trial.corruption is not None:
        dataset = corrupted(dataset, trial.corruption, seed)
    folder = run_folder(setting.out, dataset, trial.recipe, seed, own_process=experiment.own_process)
    try:
        if experiment.own_process:
            result = train_in_own_process(folder, setting.directory, trial.recipe, seed, setting.device, listener)
        else:
            result = train_once(folder, dataset, trial.recipe, seed, setting.device, listener)
    except UserError as error:
        raise type(error)(f"{experiment.name}, {name}: {error}") from error
    return Outcome(trial, seed, dataset, folder, result, setting.device)
