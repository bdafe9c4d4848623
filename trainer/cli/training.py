"""``mts4mm train`` and ``mts4mm evaluate``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared import durable
from shared.errors import UsageError, UserError
from trainer.cli import output
from trainer.packaged_recipes import packaged_recipes
from trainer.seeds import MOST_SEED

if TYPE_CHECKING:
    from trainer.dataset import Dataset, SplitSpec
    from trainer.recipe import Recipe
    from trainer.training import EpochRecord, Listener, Progress, TrainedStudent

DatasetArgument = Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)]

RUNS_FOLDER = ".runs"
"""In a store: trainings that go on, or wait to be gone on with, and the metrics of all."""
LOCK = "lock"
"""Held by who trains in a run's folder."""


class SplitKind(StrEnum):
    """How interactions are split."""

    GIVEN = "given"
    RANDOM = "random"
    GLOBAL_TIME = "global_time"


SplitOption = Annotated[
    SplitKind | None,
    typer.Option(help="given (x_label), random (8:1:1 per user) or global_time. By default given if it is there."),
]


def train(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="Store that the artefact is published to.")] = Path("models"),
    recipe: Annotated[
        str, typer.Option(help=f"A packaged recipe ({', '.join(packaged_recipes())}) or a YAML file.")
    ] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of initialisation and sampling.")] = 0,
    split: SplitOption = None,
    split_seed: Annotated[int | None, typer.Option(min=0, help="Seed of the random split.", show_default="0")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an interrupted run instead of resuming it.")] = False,
    activate: Annotated[bool, typer.Option(help="Make the new version the live one.")] = True,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the recipe with all its values, and stop.")
    ] = False,
    json_: output.JsonOption = False,
) -> None:
    """Train the student and its teachers on a dataset and publish the student's artefact.

    The dataset is validated first. A run that was interrupted is resumed by giving the same command again; its
    metrics.jsonl lies under OUT/.runs, and until it is published so do its checkpoints.
    """
    from trainer.recipe import load_recipe

    chosen = load_recipe(recipe, set_ or [])
    if print_config:
        _print_recipe(chosen, json_)
        return
    from trainer.dataset import load_dataset

    wanted = _split_spec(dataset, split, split_seed)
    _validate_first(dataset, wanted)
    with output.reading(dataset) as progress:
        data = load_dataset(dataset, wanted, progress)
    _say_if_weights_are_unused(data, chosen)
    trained, version, folder = train_and_publish(data, chosen, seed, out, device=device, fresh=fresh, activate=activate)
    _print_outcome(data, trained, version, out, folder, as_json=json_)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model store, or the folder of one version.", show_default=False)],
    dataset: DatasetArgument,
    json_: output.JsonOption = False,
) -> None:
    """Judge a finished artefact on the split it was trained with, from its exported embeddings alone."""
    import numpy as np
    import torch

    from shared import artifact
    from trainer.dataset import TEST, TRAIN, VALIDATION, SplitSpec, load_dataset
    from trainer.evaluation import Holdout
    from trainer.evaluation import evaluate as judge

    finished = artifact.load_path(model) if (model / "manifest.json").exists() else artifact.load(model)
    trained_on = finished.manifest.dataset
    with output.reading(dataset) as progress:
        data = load_dataset(dataset, SplitSpec(**trained_on.split.model_dump()), progress)
    if data.fingerprint != trained_on.fingerprint:
        raise UserError(
            f"{dataset} is not the data that version {finished.manifest.version} was trained on "
            f"({trained_on.name}, fingerprint {trained_on.fingerprint[:12]}; here {data.fingerprint[:12]})"
        )
    embeddings = torch.from_numpy(np.concatenate([finished.user_embeddings, finished.item_embeddings]))
    training = data.interactions(TRAIN)
    figures = {
        f"{part}.{name}": value
        for part, label in (("validation", VALIDATION), ("test", TEST))
        for name, value in judge(embeddings, Holdout(training, data.interactions(label))).items()
    }
    recorded = {name: finished.manifest.metrics.get(name) for name in figures}
    if json_:
        output.print_json({"version": finished.manifest.version, "metrics": figures, "recorded": recorded})
        return
    rows = [(name, f"{value:.6f}", _figure(recorded[name])) for name, value in figures.items()]
    output.print_table(f"{finished.manifest.version} on {data.name}", ("metric", "now", "recorded"), rows)


def train_and_publish(
    data: Dataset,
    recipe: Recipe,
    seed: int,
    out: Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    activate: bool = True,
) -> tuple[TrainedStudent, str, Path]:
    """Train with progress bars and publish; returns the student, its version and the run's folder."""
    from trainer.device import choose_device
    from trainer.export import publish
    from trainer.training import TrainingRun, forget_weights

    where = choose_device(device)
    folder = out / RUNS_FOLDER / _run_name(data, recipe, seed)
    with _alone_in(folder), _shown_progress(recipe) as listener:
        if fresh:
            forget_weights(folder)
        run = TrainingRun(data, recipe, seed, folder, where, listener)
        if run.progress.epoch:
            output.say(f"resuming {folder.name} after epoch {run.progress.epoch}")
        trained = run.finish()
        trained = replace(trained, missing=run.with_content_missing())
        version = publish(out, data, recipe, seed, trained, activate=activate)
        forget_weights(folder)
    return trained, version, folder


def forget_runs(store: Path, before: datetime) -> list[str]:
    """Remove the weights of interrupted runs that nobody has gone on with since then; their metrics stay.

    Returns:
        Their folders in the store.
    """
    from trainer.training import CHECKPOINT_FILE, forget_weights

    stale = [
        path.parent
        for path in sorted(store.glob(f"{RUNS_FOLDER}/*/{CHECKPOINT_FILE}"))
        if path.stat().st_mtime < before.timestamp()
    ]
    forgotten = []
    for folder in stale:
        with suppress(BlockingIOError), durable.exclusive(folder / LOCK, wait=False):
            forget_weights(folder)
            forgotten.append(f"{RUNS_FOLDER}/{folder.name}")
    return forgotten


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give another --out") from error
    try:
        with durable.exclusive(folder / LOCK, wait=False):
            yield
    except BlockingIOError:
        raise UserError(f"{folder}: another process is training this very run; wait for it or stop it") from None


def _run_name(data: Dataset, recipe: Recipe, seed: int) -> str:
    """The same for the same data, recipe and seed, so that the same command finds its interrupted run."""
    identity = json.dumps([data.fingerprint, recipe.model_dump(mode="json"), seed], sort_keys=True)
    return f"{data.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _split_spec(directory: Path, kind: SplitKind | None, seed: int | None) -> SplitSpec | None:
    """What the options say; None where they leave it to the file.

    Raises:
        UsageError: a seed is given of a split that is not drawn.
    """
    from trainer.dataset import SplitSpec, brings_split

    if seed is None:
        return None if kind is None else SplitSpec(kind.value)
    if kind is None and brings_split(directory):
        raise UsageError(
            f"--split-seed {seed}: {directory} brings its own split (x_label), which is taken as it is; give "
            "--split random as well to draw another, or leave --split-seed out"
        )
    if kind not in (None, SplitKind.RANDOM):
        raise UsageError(f"--split-seed {seed}: --split {kind} draws nothing; leave --split-seed out")
    return SplitSpec("random", seed)


def _validate_first(directory: Path, split: SplitSpec | None) -> None:
    from trainer.dataset import render_report, validate_command, validate_directory

    with output.reading(directory) as progress:
        report = validate_directory(directory, split=split, progress=progress)
    if report.findings:
        render_report(report, output.stderr)
    if not report.ok:
        command = validate_command(directory, split)
        raise UserError(f"{directory}: the dataset has errors, see above; '{command}' lists them")


def _say_if_weights_are_unused(data: Dataset, recipe: Recipe) -> None:
    if data.weights is not None and data.weights.min() < data.weights.max() and not recipe.draw_by_weight:
        output.say("the interactions' weights are not used; --set draw_by_weight=true draws interactions by them")


def _print_recipe(recipe: Recipe, as_json: bool) -> None:
    import yaml

    values = recipe.model_dump(mode="json")
    if as_json:
        output.print_json(values)
    else:
        output.stdout.print(yaml.safe_dump(values, sort_keys=False), end="", highlight=False, soft_wrap=True)


@contextmanager
def _shown_progress(recipe: Recipe) -> Iterator[Listener]:
    from trainer.training import Listener

    with output.progress_bars() as bars:
        epochs = bars.add_task("preparing", total=recipe.epochs, note="")
        steps = bars.add_task("steps", total=1, note="")

        def on_stage(name: str) -> None:
            bars.update(epochs, description=f"building the {name}")

        def on_step(done: int, total: int) -> None:
            bars.update(steps, completed=done, total=total)

        def on_epoch(record: EpochRecord, progress: Progress) -> None:
            best = progress.validation.get("recall@20", float("nan"))
            note = (
                f"loss {record.losses['total']:.3f}  validation R@20 {record.student['recall@20']:.4f}  "
                f"best {best:.4f} at {progress.best_epoch}"
            )
            bars.update(epochs, description="epochs", completed=record.epoch, note=note)

        yield Listener(stage=on_stage, step=on_step, epoch=on_epoch)


def _print_outcome(
    data: Dataset, trained: TrainedStudent, version: str, out: Path, folder: Path, *, as_json: bool
) -> None:
    if as_json:
        output.print_json(_outcome(data, trained, version, out, folder))
        return
    judged = {"student": {"validation": trained.validation, "test": trained.test}}
    if trained.alone["validation"] != trained.validation:
        judged["student alone"] = trained.alone
    judged |= {f"{name} teacher": parts for name, parts in trained.teachers.items()}
    names = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
    rows = [
        (who, part, *(_figure(parts[part][name]) for name in names))
        for who, parts in judged.items()
        for part in ("validation", "test")
    ]
    output.print_table(f"{data.name}, best epoch {trained.best_epoch} of {trained.epochs}", ("", "split", *names), rows)
    output.stdout.print(f"published {out / version}", highlight=False, soft_wrap=True)


def _outcome(data: Dataset, trained: TrainedStudent, version: str, out: Path, folder: Path) -> dict[str, Any]:
    from trainer.training import peak_memory_mb

    return {
        "version": version,
        "path": str(out / version),
        "run": str(folder),
        "dataset": data.name,
        "best_epoch": trained.best_epoch,
        "epochs": trained.epochs,
        "validation": trained.validation,
        "test": trained.test,
        "alone": trained.alone,
        "teachers": trained.teachers,
        "missing": trained.missing,
        "peak_memory_mb": round(peak_memory_mb()),
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
