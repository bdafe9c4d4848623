"""The search for a better recipe: a resumable Optuna study that only ever sees training and validation data.

The test split is taken out of the dataset before the first trial, so nothing a trial computes, logs or stores can
depend on it. What a trial is judged by is what ``mts4mm train`` calls validation recall@20: of the embeddings it would
export, of one student where the recipe wants several. A study lives in one folder. Its n-th point follows from the seed
and from the trials finished before it, so that a study which was killed and taken up again finds what an undisturbed
one finds.
"""

import csv
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError

from shared import durable
from shared.errors import DivergenceError, UserError
from trainer.dataset import TEST, Dataset
from trainer.recipe import Recipe
from trainer.training import SELECTION_METRIC, EpochRecord, Listener, Progress, TrainingRun

STUDY_FILE = "study.db"
TRIALS_FILE = "trials.csv"
BEST_RECIPE_FILE = "best.yaml"
TRIALS_BEFORE_PRUNING = 5
EPOCHS_BEFORE_PRUNING = 3

_STUDY_NAME = "mts4mm"
_TRIAL_FOLDER = "trial"
_LOCK_FILE = "lock"
_IDENTITY = "identity"
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``, both included; ``log`` searches their orders of magnitude evenly."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[int | float, ...]


SearchSpace = Mapping[str, Span | Choice]

SEARCH_SPACE: SearchSpace = {
    "width": Choice((64, 128)),
    "id_layers": Choice((1, 2, 3)),
    "item_tempering": Span(0.0, 0.4),
    "id_edge_drop": Span(0.5, 0.95),
    "learning_rate": Span(1e-3, 1e-2, log=True),
    "l2": Span(1e-4, 1e-2, log=True),
    "contrast": Span(0.01, 0.3, log=True),
    "rank": Span(0.1, 3.0, log=True),
    "rank_temperature": Span(0.1, 0.5, log=True),
    "embedding": Span(0.01, 1.0, log=True),
    "linear": Span(0.5, 6.0, log=True),
    "linear_temperature": Span(1.0, 4.0, log=True),
    "linear_ridge": Span(100.0, 1500.0, log=True),
    "linear_content": Span(3.0, 40.0, log=True),
    "momentum": Choice((0.99, 0.995, 0.999, 0.9999)),
}
"""Every key that is searched, and where."""

_OF_NO_USE_WITHOUT = {
    "rank_temperature": ("rank",),
    "momentum": ("rank", "embedding"),
    "linear_temperature": ("linear",),
    "linear_ridge": ("linear",),
    "linear_content": ("linear",),
}


@dataclass(frozen=True)
class Trial:
    """One point of the search, and what came of it.

    Attributes:
        state: complete, pruned, diverged, interrupted, running, or waiting to be tried again.
        value: validation recall@20 of what would be exported; of a pruned one, of its last epoch; None if none.
        settings: the searched keys' values; a part of them if it was interrupted early.
        epochs: finished ones.
        seconds: of the whole trial, preparation included; None unless it ended.
    """

    number: int
    state: str
    value: float | None
    settings: dict[str, int | float]
    epochs: int
    seconds: float | None

    @property
    def has_ended(self) -> bool:
        """Whether its point need not be tried again."""
        return self.state in ("complete", "pruned", "diverged")


@dataclass(frozen=True)
class Watcher:
    """Who is told how far a search is.

    Attributes:
        begin: told a trial's number before it, and how many have ended.
        end: told what came of it, how many have ended now, and the best trial.
        training: told of the training in between.
    """

    begin: Callable[[int, int], None] = lambda number, ended: None
    end: Callable[[Trial, int, Trial | None], None] = lambda trial, ended, best: None
    training: Listener = field(default_factory=Listener)


@dataclass(frozen=True)
class Search:
    """What is searched, and on what; all of it must be the same when a study is taken up again.

    Attributes:
        dataset: its test split is not looked at.
        base: the recipe that the search begins from.
        base_name: as the user calls it.
        space: see ``search_space``.
        epochs: of a trial, at most.
        seed: of the points and of every training.
    """

    dataset: Dataset
    base: Recipe
    base_name: str
    space: SearchSpace
    epochs: int
    seed: int

    def recipe(self, settings: Mapping[str, int | float]) -> Recipe:
        """The base with some of its values changed."""
        return Recipe.model_validate({**self.base.model_dump(), **settings})


def search_space(base: Recipe, fixed: Iterable[str] = (), space: SearchSpace = SEARCH_SPACE) -> SearchSpace:
    """The part of a space that suits a recipe: what it switches off by a 0 stays off, and what is fixed stays.

    Raises:
        UserError: nothing is left.
    """
    kept = set(fixed)
    off = {key for key in space if getattr(base, key) == 0}
    idle = {key for key, users in _OF_NO_USE_WITHOUT.items() if all(getattr(base, user) == 0 for user in users)}
    left = {key: _holding(values, getattr(base, key)) for key, values in space.items() if key not in kept | off | idle}
    if not left:
        raise UserError("nothing is left to search: every key is fixed by --set or switched off in the recipe")
    return left


def _holding(values: Span | Choice, value: float) -> Span | Choice:
    """The same, widened where it does not hold a value."""
    if _holds(values, value):
        return values
    if isinstance(values, Choice):
        return Choice(tuple(sorted((*values.options, value))))
    return replace(values, low=min(values.low, value), high=max(values.high, value))


def tune(
    search: Search,
    folder: Path,
    trials: int,
    device: torch.device,
    *,
    minutes: float | None = None,
    watcher: Watcher | None = None,
) -> list[Trial]:
    """Try points until ``trials`` of them have ended, those of earlier calls included.

    Writes ``trials.csv`` and ``best.yaml`` after every trial. A trial that a kill or Ctrl-C interrupted is tried again
    by the next call.

    Args:
        search: what to search, and on what.
        folder: of the study, made if need be.
        trials: how many.
        device: where to train.
        minutes: no trial begins later than this.
        watcher: who is told.

    Returns:
        All trials of the study by number.

    Raises:
        UserError: the folder holds a study of something else or damaged files, another process works in it, or a
            training failed.
    """
    watcher = watcher or Watcher()
    deadline = time.monotonic() + (float("inf") if minutes is None else 60 * minutes)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone_in(folder):
        study = _open_study(folder, search)
        _queue_interrupted(study)
        _write_files(folder, study, search)
        blind = replace(search, dataset=search.dataset.where(search.dataset.labels != TEST))
        while (ended := _count_ended(study)) < trials and time.monotonic() < deadline:
            study.sampler = _sampler(search.seed, ended)
            trial = study.ask()
            watcher.begin(trial.number, ended)
            _try_point(study, trial, blind, folder / _TRIAL_FOLDER, device, watcher.training)
            known = _write_files(folder, study, search)
            watcher.end(known[trial.number], ended + 1, best_trial(known))
        return _described_trials(study, search.space)


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the highest value, the earliest of equals; None if none is complete."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _LOCK_FILE).touch()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another --out") from None
    try:
        with durable.exclusive(folder / _LOCK_FILE, wait=False):
            yield
    except BlockingIOError:
        raise UserError(f"{folder}: another process is at this very search; wait for it or stop it") from None


def _open_study(folder: Path, search: Search) -> optuna.Study:
    path = folder / STUDY_FILE
    pruner = optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE_PRUNING, n_warmup_steps=EPOCHS_BEFORE_PRUNING)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        study = optuna.create_study(
            study_name=_STUDY_NAME, storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
        )
        if not study.user_attrs:
            study.set_user_attr(_IDENTITY, _identity(search))
    except (DatabaseError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        raise UserError(
            f"{path}: not a usable study ({type(error).__name__}); remove the folder or choose another --out"
        ) from None
    _require_the_same(folder, study.user_attrs[_IDENTITY], _identity(search))
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_settings_of_base(search))
    return study


def _identity(search: Search) -> dict[str, Any]:
    return {
        "dataset": f"{search.dataset.name}, fingerprint {search.dataset.fingerprint}",
        "recipe": search.base.model_dump(mode="json"),
        "search space": json.loads(json.dumps({key: asdict(values) for key, values in search.space.items()})),
        "number of epochs": search.epochs,
        "seed": search.seed,
    }


def _require_the_same(folder: Path, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        earlier = known.get(name)
        if name == "recipe" and earlier is not None:
            earlier = {**Recipe().model_dump(mode="json"), **earlier}  # a key newer than the study
        if earlier != value:
            raise UserError(
                f"{folder} holds a search with another {name}: {_difference(earlier, value)}. Give the same command as "
                "then to go on with it, or choose another --out."
            )


def _difference(earlier: Any, now: Any) -> str:
    if not isinstance(earlier, Mapping) or not isinstance(now, Mapping):
        return f"{earlier} then, {now} now"
    changed = sorted(key for key in earlier.keys() | now.keys() if earlier.get(key) != now.get(key))
    return "; ".join(f"{key} {earlier.get(key, 'absent')} then, {now.get(key, 'absent')} now" for key in changed)


def _settings_of_base(search: Search) -> dict[str, int | float]:
    """The base's own values where the space holds them, as ``search_space`` sees to: the first point."""
    return {
        key: getattr(search.base, key)
        for key, values in search.space.items()
        if _holds(values, getattr(search.base, key))
    }


def _holds(values: Span | Choice, value: float) -> bool:
    return value in values.options if isinstance(values, Choice) else values.low <= value <= values.high


def _queue_interrupted(study: optuna.Study) -> None:
    """Trials that a dead process left running: their points first of all, tried once more."""
    trials = study.get_trials()
    tried_again = {trial.user_attrs.get("again") for trial in trials}
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            known = "settings" in trial.user_attrs
            point = trial.params if known else trial.system_attrs.get("fixed_params")  # of one that was queued itself
            if trial.number not in tried_again and point is not None:
                study.enqueue_trial(point, user_attrs={"again": trial.number})
            study.tell(trial.number, state=TrialState.FAIL)


def _count_ended(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _sampler(seed: int, ended: int) -> optuna.samplers.TPESampler:
    """A sampler for one point alone: what it draws depends on the trials that ended, not on who ran them."""
    own_seed = int(np.random.SeedSequence([seed, ended]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=own_seed)


def _try_point(
    study: optuna.Study, trial: optuna.Trial, search: Search, folder: Path, device: torch.device, listener: Listener
) -> None:
    started = time.perf_counter()
    settings = {key: _suggest(trial, key, values, getattr(search.base, key)) for key, values in search.space.items()}
    trial.set_user_attr("settings", settings)
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    recipe = search.recipe(settings).model_copy(update={"epochs": search.epochs, "students": 1})

    def on_epoch(record: EpochRecord, progress: Progress) -> None:
        trial.report(record.student[SELECTION_METRIC], record.epoch)
        listener.epoch(record, progress)
        if trial.should_prune():
            raise optuna.TrialPruned

    judged = replace(listener, epoch=on_epoch)
    outcome: dict[str, Any] = {"state": TrialState.PRUNED}
    try:
        trained = TrainingRun(search.dataset, recipe, search.seed, folder, device, judged).finish()
        outcome = {"state": TrialState.COMPLETE, "values": trained.validation[SELECTION_METRIC]}
    except optuna.TrialPruned:
        pass
    except DivergenceError:
        trial.set_user_attr("diverged", True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trial.set_user_attr("seconds", time.perf_counter() - started)
    study.tell(trial, **outcome)


def _suggest(trial: optuna.Trial, key: str, values: Span | Choice, base: float) -> int | float:
    """A value fit to be read in a recipe: numbers have three significant digits, but for the base's own."""
    if isinstance(values, Choice):
        chosen: int | float = trial.suggest_categorical(key, values.options)
        return chosen
    drawn = trial.suggest_float(key, values.low, values.high, log=values.log)
    return drawn if drawn == base else float(f"{drawn:.{_SIGNIFICANT_DIGITS}g}")


def _described_trials(study: optuna.Study, space: SearchSpace) -> list[Trial]:
    return [_described(trial, space) for trial in study.get_trials(deepcopy=False)]


def _described(trial: FrozenTrial, space: SearchSpace) -> Trial:
    names = {TrialState.FAIL: "interrupted", TrialState.WAITING: "waiting"}
    state = "diverged" if "diverged" in trial.user_attrs else names.get(trial.state, trial.state.name.lower())
    settings = trial.user_attrs.get("settings", {})
    return Trial(
        number=trial.number,
        state=state,
        value=trial.value if state in ("complete", "pruned") else None,
        settings={key: settings[key] for key in space if key in settings},
        epochs=len(trial.intermediate_values),
        seconds=trial.user_attrs.get("seconds"),
    )


def _write_files(folder: Path, study: optuna.Study, search: Search) -> list[Trial]:
    trials = _described_trials(study, search.space)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["number", "state", f"validation {SELECTION_METRIC}", *search.space, "epochs", "seconds"])
    for trial in trials:
        seconds = None if trial.seconds is None else round(trial.seconds, 1)
        values = [trial.settings.get(key) for key in search.space]
        writer.writerow([trial.number, trial.state, trial.value, *values, trial.epochs, seconds])
    _replace_text(folder / TRIALS_FILE, table.getvalue())
    best = best_trial(trials)
    if best is not None:
        _replace_text(folder / BEST_RECIPE_FILE, _recipe_file(search, trials, best))
    return trials


def _recipe_file(search: Search, trials: list[Trial], best: Trial) -> str:
    """What differs from the default recipe, which a recipe file need not repeat."""
    ended = sum(trial.has_ended for trial in trials)
    pruned = sum(trial.state == "pruned" for trial in trials)
    alone = " --set students=1" if search.base.students > 1 else ""  # as in every trial
    comment = [
        f"Found by 'mts4mm tune' on {search.dataset.name}, from recipe {search.base_name} with seed {search.seed}:",
        f"validation {SELECTION_METRIC} {best.value:.6f} in trial {best.number}, the best of {ended} trials,",
        f"{pruned} of them pruned; the test split was not looked at. The same figure again:",
        f"mts4mm train {search.dataset.name} --recipe {BEST_RECIPE_FILE} --seed {search.seed} "
        f"--set epochs={search.epochs}{alone}",
    ]
    defaults = Recipe().model_dump(mode="json")
    found = search.recipe(best.settings).model_dump(mode="json")
    changed = {key: value for key, value in found.items() if value != defaults[key]}
    body = yaml.safe_dump(changed, sort_keys=False) if changed else ""
    return "".join(f"# {line}\n" for line in comment) + body


def _replace_text(path: Path, text: str) -> None:
    with durable.replacing(path) as file:
        file.write(text.encode())
