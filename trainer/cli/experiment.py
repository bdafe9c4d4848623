"""``mts4mm experiment``: the paper's own experiments, and one document of what they found."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError, UserError
from trainer.cli import output

if TYPE_CHECKING:
    from trainer.experiments.conduct import Findings, Watch
    from trainer.experiments.report import Request
    from trainer.training import EpochRecord, Progress

app = typer.Typer(
    help="The paper's own experiments, one command each. Each writes a CSV file, a figure and a Markdown section.",
    no_args_is_help=True,
)

EXPERIMENTS = {
    "main": "Accuracy of the student, its teachers and a LightGCN.",
    "ablation": "Table 3: without rank KD, without embedding KD, without the gates, without all.",
    "sensitivity": "Figure 3: the two distillation weights, and mu, tau, layers, k; one at a time.",
    "modalities": "Figures 1 and 4: inferred or trained with a single modality, and each teacher.",
    "efficiency": "Figure 5: seconds an epoch, peak memory and parameters, against LightGCN and BPR.",
    "tsne": "Figure 6: maps of the teachers' and the student's embeddings, by view and fused.",
    "robustness": "Shuffled and missing content: the student against the same model without distillation.",
}


def _register(name: str) -> None:
    @app.command(name, help=EXPERIMENTS[name])
    def command(
        dataset: Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)],
        out: Annotated[
            Path,
            typer.Option(help="Folder for the files, one a dataset; keeps what was trained.", show_default=False),
        ],
        recipe: Annotated[str, typer.Option(help="A packaged recipe or a YAML file.")] = "default",
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
        ] = None,
        seeds: Annotated[int, typer.Option(min=1, help="Training seeds 0, 1, ...; error bars from 2 on.")] = 1,
        only: Annotated[
            list[str] | None,
            typer.Option(metavar="NAME", help="Do but this training of it, such as student or full; repeatable."),
        ] = None,
        jobs: Annotated[int, typer.Option(min=1, help="Trainings at once; they share the cores.")] = 1,
        device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
        json_: output.JsonOption = False,
    ) -> None:
        _conduct(name, dataset, out, recipe, set_ or [], seeds, only or [], jobs, device, as_json=json_)


for _name in EXPERIMENTS:
    _register(_name)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of experiments.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The document; its figures go to images/ beside it.")] = Path(
        "docs/results.md"
    ),
    json_: output.JsonOption = False,
) -> None:
    """Join what the experiments wrote into one document; what it has of other folders or experiments stays."""
    _require_extra()
    from trainer.experiments.report import gather

    _make_folder(out.parent)
    words = ["mts4mm", "experiment", "report", *map(_shown_path, folders), "--out", _shown_path(out)]
    sections = gather(folders, out, shlex.join(words))
    if json_:
        output.print_json({"document": str(out), "sections": [str(path) for path in sections]})
    else:
        output.say(f"wrote {out} from {len(sections)} section{'' if len(sections) == 1 else 's'}")


def _conduct(
    name: str,
    directory: Path,
    out: Path,
    recipe: str,
    overrides: list[str],
    seeds: int,
    only: list[str],
    jobs: int,
    device: str,
    *,
    as_json: bool,
) -> None:
    _require_extra()
    from trainer.dataset import load_dataset
    from trainer.device import choose_device
    from trainer.experiments.conduct import Setting, conduct
    from trainer.experiments.definitions import experiment
    from trainer.experiments.report import Request, write_files
    from trainer.recipe import load_recipe

    definition = experiment(name)
    if definition.single_seed and seeds > 1:
        raise UsageError(f"--seeds {seeds}: {name} is about one model; leave it out")
    if definition.own_process and jobs > 1:
        raise UsageError(f"--jobs {jobs}: {name} measures time, and trainings at once disturb each other; leave it out")
    chosen = load_recipe(recipe, overrides)
    where = choose_device(device)
    _make_folder(out)
    with output.reading(directory) as progress:
        data = load_dataset(directory, progress=progress)
    with _shown_progress() as watch:
        findings = conduct(definition, Setting(directory, data, chosen, seeds, out, where, jobs, only), watch)
    request = Request(definition, data, recipe, overrides, chosen, seeds, out, only)
    files = write_files(request, findings)
    _print_findings(request, findings, files, as_json=as_json)


def _require_extra() -> None:
    missing = [name for name in ("matplotlib", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"experiments need {' and '.join(missing)}: pip install 'mts4mm[trainer,experiments]'")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be made ({error.strerror}); name another folder") from error


def _shown_path(path: Path) -> str:
    """As it was given, but of a place outside the working folder its name alone."""
    return path.name if path.is_absolute() or ".." in path.parts else str(path)


@contextmanager
def _shown_progress() -> Iterator[Watch]:
    from trainer.experiments.conduct import Watch
    from trainer.training import Listener

    with output.progress_bars() as bars:
        trials = bars.add_task("trainings", total=1, note="")
        epochs = bars.add_task("epochs", total=1, note="")
        steps = bars.add_task("steps", total=1, note="")

        def on_trial(done: int, total: int, name: str, most_epochs: int) -> None:
            bars.update(trials, completed=done, total=total, note=name)
            bars.update(epochs, completed=0, total=most_epochs, note="preparing")

        def on_stage(name: str) -> None:
            bars.update(epochs, note=f"building the {name}")

        def on_step(done: int, total: int) -> None:
            bars.update(steps, completed=done, total=total)

        def on_epoch(record: EpochRecord, progress: Progress) -> None:
            best = progress.validation.get("recall@20", float("nan"))
            note = f"validation R@20 {record.student['recall@20']:.4f}  best {best:.4f} at {progress.best_epoch}"
            bars.update(epochs, completed=record.epoch, note=note)

        yield Watch(trial=on_trial, listener=Listener(stage=on_stage, step=on_step, epoch=on_epoch))


def _print_findings(request: Request, findings: Findings, files: dict[str, Path], *, as_json: bool) -> None:
    from trainer.experiments.report import summary
    from trainer.experiments.tables import cells

    summaries, columns = summary(request.experiment, findings.rows)
    if as_json:
        output.print_json(
            {
                "experiment": request.experiment.name,
                "dataset": request.dataset.name,
                "seeds": request.seeds,
                "files": {kind: str(path) for kind, path in files.items()},
                "remarks": findings.remarks,
                "summary": [
                    {**each.labels, **{name: asdict(spread) for name, spread in each.figures.items()}}
                    for each in summaries
                ],
            }
        )
        return
    output.print_table(f"{request.experiment.title}, {request.dataset.name}", *cells(summaries, columns))
    for remark in findings.remarks:
        output.say(remark)
    output.say(f"wrote {', '.join(str(path) for path in files.values())}")
