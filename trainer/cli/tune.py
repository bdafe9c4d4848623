"""``mts4mm tune``."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.errors import UserError
from trainer.cli import output
from trainer.seeds import MOST_SEED

if TYPE_CHECKING:
    from trainer.training import EpochRecord, Progress
    from trainer.tuning import Trial, Watcher


def tune(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder of the study; the same command goes on with it.", show_default=False)
    ],
    recipe: Annotated[str, typer.Option(help="Where to begin: a packaged recipe or a YAML file.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Fix one value: it is not searched; repeatable."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Points to try, those of earlier calls included.")] = 50,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of a trial, at most.", show_default="those of the recipe")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Seed of the points and of every training.")] = 0,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="MINUTES", help="Begin no trial later than this.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json_: output.JsonOption = False,
) -> None:
    """Search for a better recipe, by validation recall@20 alone; the test split is not looked at.

    OUT gets best.yaml, a recipe for 'mts4mm train --recipe', after every improvement; trials.csv, all points; and
    study.db, an Optuna study. What the recipe switches off stays off.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("tuning needs Optuna: pip install 'mts4mm[trainer,experiments]'")
    from trainer.dataset import load_dataset
    from trainer.device import choose_device
    from trainer.recipe import load_recipe
    from trainer.tuning import Search, search_space
    from trainer.tuning import tune as search_for_recipe

    overrides = set_ or []
    base = load_recipe(recipe, overrides)
    space = search_space(base, [override.partition("=")[0].strip() for override in overrides])
    where = choose_device(device)
    with output.reading(dataset) as progress:
        data = load_dataset(dataset, progress=progress)
    search = Search(data, base, Path(recipe).name, space, epochs or base.epochs, seed)
    with _shown_progress(trials, search.epochs) as watcher:
        tried = search_for_recipe(search, out, trials, where, minutes=timeout, watcher=watcher)
    _print_outcome(data.name, tried, out, as_json=json_)


@contextmanager
def _shown_progress(trials: int, most_epochs: int) -> Iterator[Watcher]:
    from trainer.training import Listener
    from trainer.tuning import Watcher

    with output.progress_bars() as bars:
        searched = bars.add_task("trials", total=trials, note="")
        epochs = bars.add_task("epochs", total=most_epochs, note="")
        steps = bars.add_task("steps", total=1, note="")

        def on_begin(number: int, ended: int) -> None:
            bars.update(searched, completed=ended)
            bars.update(epochs, completed=0, note=f"trial {number}: preparing")

        def on_stage(name: str) -> None:
            bars.update(epochs, note=f"building the {name}")

        def on_step(done: int, total: int) -> None:
            bars.update(steps, completed=done, total=total)

        def on_epoch(record: EpochRecord, progress: Progress) -> None:
            best = progress.validation.get("recall@20", float("nan"))
            note = f"validation R@20 {record.student['recall@20']:.4f}  best {best:.4f} at {progress.best_epoch}"
            bars.update(epochs, completed=record.epoch, note=note)

        def on_end(trial: Trial, ended: int, best: Trial | None) -> None:
            shown = "" if best is None else f"best {best.value:.4f} in trial {best.number}"
            bars.update(searched, completed=ended, note=shown)
            value = "" if trial.value is None else f" at {trial.value:.4f}"
            output.say(f"trial {trial.number} {trial.state}{value} after {trial.epochs} epochs; {shown}")

        yield Watcher(begin=on_begin, end=on_end, training=Listener(stage=on_stage, step=on_step, epoch=on_epoch))


def _print_outcome(dataset: str, trials: list[Trial], out: Path, *, as_json: bool) -> None:
    from trainer.tuning import BEST_RECIPE_FILE, TRIALS_FILE, best_trial

    best = best_trial(trials)
    counts = Counter(trial.state for trial in trials)
    if as_json:
        output.print_json(_summary(dataset, counts, best, out))
        return
    ended = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    if best is None:
        output.say(f"no trial was completed ({ended}); see {out / TRIALS_FILE}")
        return
    output.print_table(
        f"{dataset}, trial {best.number}: validation R@20 {best.value:.4f} ({ended})",
        ("key", "best"),
        best.settings.items(),
    )
    output.stdout.print(f"wrote {out / BEST_RECIPE_FILE}", highlight=False, soft_wrap=True)


def _summary(dataset: str, counts: Counter[str], best: Trial | None, out: Path) -> dict[str, Any]:
    from trainer.tuning import BEST_RECIPE_FILE, TRIALS_FILE

    return {
        "dataset": dataset,
        "trials": dict(sorted(counts.items())),
        "best": None if best is None else {"number": best.number, "validation": best.value, "settings": best.settings},
        "recipe": None if best is None else str(out / BEST_RECIPE_FILE),
        "table": str(out / TRIALS_FILE),
    }
