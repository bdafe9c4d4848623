"""``mts4mm bench train``: what a training costs, and how that grows with the data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError
from trainer.cli import output
from trainer.seeds import MOST_SEED

if TYPE_CHECKING:
    from trainer.measurement.training_cost import TrainingCost
    from trainer.recipe import Recipe
    from trainer.training import EpochRecord, Listener, Progress

EPOCHS = 5
SYNTHETIC_SIZES = (200_000, 2_000_000, 20_000_000)
SYNTHETIC_REMARK = (
    "Neighbour lists are handed in, nearest among the items of one taste: the exact search that a dataset without "
    "them needs is quadratic in the items and is not part of these figures."
)
EXPONENTS = {
    "epoch_seconds": "an epoch",
    "preparation_seconds": "preparation",
    "evaluation_seconds": "an evaluation",
    "peak_memory_mb": "peak memory",
}


def train(
    dataset: Annotated[Path | None, typer.Argument(help="Dataset directory.", show_default=False)] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Measure synthetic shops of growing size.")] = False,
    interactions: Annotated[
        list[int] | None,
        typer.Option(
            help="Size of a synthetic shop; repeatable. By default 0.2, 2 and 20 million.", show_default=False
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A packaged recipe or a YAML file.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help=f"Train so many epochs; {EPOCHS} by default.", show_default=False)
    ] = None,
    to_best: Annotated[
        bool, typer.Option("--to-best", help="Train until the recipe's patience runs out, and consolidate.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the training, and of synthetic shops.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_: output.JsonOption = False,
) -> None:
    """Seconds an epoch and an evaluation, peak memory, and where the time goes; each training in its own process."""
    from trainer.recipe import load_recipe

    _require_sense(dataset, interactions, epochs, synthetic=synthetic, to_best=to_best)
    chosen = load_recipe(recipe, set_ or [])
    if dataset is None:
        _grow(tuple(interactions or SYNTHETIC_SIZES), chosen, epochs or EPOCHS, seed, device, as_json=json_)
    else:
        _measure_directory(dataset, chosen, None if to_best else epochs or EPOCHS, seed, device, as_json=json_)


def _require_sense(
    dataset: Path | None, interactions: list[int] | None, epochs: int | None, *, synthetic: bool, to_best: bool
) -> None:
    from trainer.measurement.synthetic import FEWEST_INTERACTIONS

    if synthetic == (dataset is not None):
        raise UsageError("bench train: give either a dataset directory or --synthetic")
    if to_best and (synthetic or epochs is not None):
        raise UsageError("--to-best: the recipe's patience says how long; leave out --epochs and --synthetic")
    if interactions and not synthetic:
        raise UsageError("--interactions: goes with --synthetic only")
    for size in interactions or []:
        if size < FEWEST_INTERACTIONS:
            raise UsageError(f"--interactions {size}: at least {FEWEST_INTERACTIONS}")


def _measure_directory(
    directory: Path, recipe: Recipe, epochs: int | None, seed: int, device: str, *, as_json: bool
) -> None:
    from trainer.measurement import training_cost

    work: Callable[[Path, Listener], TrainingCost]
    if epochs is None:
        work = partial(training_cost.cost_to_best, directory, recipe, seed, device)
    else:
        work = partial(training_cost.cost_of_epochs, directory, recipe, epochs, seed, device)
    cost = _in_own_process(work, str(directory))
    if as_json:
        output.print_json(_document(cost))
        return
    _print_cost(cost)


def _grow(sizes: tuple[int, ...], recipe: Recipe, epochs: int, seed: int, device: str, *, as_json: bool) -> None:
    from trainer.measurement import training_cost
    from trainer.measurement.scaling import fitted_exponent

    costs = []
    for size in sizes:
        work = partial(training_cost.cost_of_synthetic, size, recipe, epochs, seed, device)
        costs.append(_in_own_process(work, f"synthetic shop of {size:,} interactions"))
    exponents = {name: fitted_exponent(sizes, [getattr(cost, name) for cost in costs]) for name in EXPONENTS}
    if as_json:
        document = {"exponents": exponents, "remark": SYNTHETIC_REMARK, "sizes": [_document(cost) for cost in costs]}
        output.print_json(document)
        return
    _print_growth(costs, exponents, recipe)


def _in_own_process(work: Callable[[Path, Listener], TrainingCost], name: str) -> TrainingCost:
    """The run's folder is made and removed here, where it goes even if the process is killed."""
    from trainer.own_process import in_own_process

    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as folder, _shown_progress(name) as listener:
        return in_own_process(partial(work, Path(folder)), listener, name, "a smaller width takes less")


@contextmanager
def _shown_progress(name: str) -> Iterator[Listener]:
    from trainer.training import Listener

    with output.progress_bars() as bars:
        steps = bars.add_task(f"reading {name}", total=1, note="")

        def on_stage(stage: str) -> None:
            bars.update(steps, description=f"{name}: building the {stage}")

        def on_step(done: int, total: int) -> None:
            bars.update(steps, description=f"{name}: steps", completed=done, total=total)

        def on_epoch(record: EpochRecord, progress: Progress) -> None:
            best = f"best epoch {progress.best_epoch}"
            bars.update(steps, note=f"epoch {record.epoch}: {record.seconds['training']:.1f} s, {best}")

        yield Listener(stage=on_stage, step=on_step, epoch=on_epoch)


def _document(cost: TrainingCost) -> dict[str, object]:
    """The cost as JSON, stages with their shares."""
    document = asdict(cost)
    for part in ("preparation", "epoch"):
        stages: dict[str, float] = document[part]
        document[part] = [
            {"stage": stage, "seconds": s, "share": s / sum(stages.values())} for stage, s in stages.items()
        ]
    return document


def _print_cost(cost: TrainingCost) -> None:
    _print_summary(cost)
    for title, stages in (("preparation", cost.preparation), ("an epoch, its evaluation included", cost.epoch)):
        total = sum(stages.values())
        rows = [(stage, f"{seconds:.3f}", f"{seconds / total:.1%}") for stage, seconds in stages.items()]
        output.print_table(f"{title}, {total:.2f} s", ("stage", "seconds", "share"), rows)


def _print_summary(cost: TrainingCost) -> None:
    bandwidth = cost.bandwidth
    rows = [
        ("seconds an epoch, median", f"{cost.epoch_seconds:.2f}"),
        ("seconds an evaluation, median", f"{cost.evaluation_seconds:.2f}"),
        ("preparation, seconds", f"{cost.preparation_seconds:.1f}"),
        ("peak memory, MB", f"{cost.peak_memory_mb:.0f}"),
        ("of which the dataset and the program, MB", f"{cost.loaded_memory_mb:.0f}"),
        ("parameters, student", f"{cost.student_parameters:,}"),
        ("parameters, teachers", f"{cost.teacher_parameters:,}"),
        ("steps an epoch", str(cost.steps)),
        ("validation recall@20", f"{cost.validation['recall@20']:.4f}"),
        ("a propagation, ms", f"{bandwidth.propagation_ms:.1f}"),
        ("a copy, GB/s", f"{bandwidth.copy_gb_s:.1f}"),
        ("a propagation's share of that", f"{bandwidth.least_share:.0%} to {bandwidth.most_share:.0%}"),
    ]
    if cost.peak_device_memory_mb is not None:
        rows.insert(5, ("peak memory on the GPU, MB", f"{cost.peak_device_memory_mb:.0f}"))
    if cost.to_best is not None:
        rows += [
            ("best epoch", f"{cost.to_best.epoch} of {cost.epochs}"),
            ("seconds to its end", f"{cost.to_best.seconds:.1f}"),
            ("seconds in all, with consolidation and test", f"{cost.to_best.total_seconds:.1f}"),
            ("test recall@20", f"{cost.to_best.test['recall@20']:.4f}"),
        ]
    output.print_table(_title(cost), ("", ""), rows)


def _print_growth(costs: list[TrainingCost], exponents: dict[str, float | None], recipe: Recipe) -> None:
    rows = [
        (
            f"{cost.interactions:,}",
            f"{cost.users:,} x {cost.items:,}",
            f"{cost.steps} x {cost.batch_size:,}",
            f"{cost.epoch_seconds:.2f}",
            f"{cost.preparation_seconds:.1f}",
            f"{cost.evaluation_seconds:.2f}",
            f"{cost.peak_memory_mb:.0f}",
            *([] if cost.peak_device_memory_mb is None else [f"{cost.peak_device_memory_mb:.0f}"]),
            f"{cost.bandwidth.propagation_ms:.1f}",
            f"{cost.bandwidth.least_share:.0%} to {cost.bandwidth.most_share:.0%}",
            f"{cost.validation['recall@20']:.4f}",
        )
        for cost in costs
    ]
    columns = ["interactions", "users x items", "steps x batch", "epoch, s", "preparation, s", "evaluation, s"]
    columns += ["peak MB"] if costs[0].peak_device_memory_mb is None else ["peak MB", "on the GPU"]
    title = f"synthetic shops, width {recipe.width}, {costs[0].device}, {costs[0].threads} threads"
    output.print_table(title, (*columns, "a propagation, ms", "of a copy's speed", "R@20"), rows)
    for name, exponent in exponents.items():
        if exponent is not None:
            output.stdout.print(f"{EXPONENTS[name]} grows like interactions ^ {exponent:.2f}", highlight=False)
    output.stdout.print(SYNTHETIC_REMARK, highlight=False)


def _title(cost: TrainingCost) -> str:
    return (
        f"{cost.dataset}: {cost.users:,} users, {cost.items:,} items, {cost.interactions:,} interactions; "
        f"width {cost.width}, {cost.device}, {cost.threads} threads"
    )
