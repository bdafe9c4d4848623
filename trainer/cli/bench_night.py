"""``mts4mm bench night``: what a night costs, by step."""

import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli import output


def night(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)],
    events: Annotated[int, typer.Option(min=1, help="Newest interactions, which come as events.")] = 100_000,
    models: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the older part and its models; kept, and a live model in it is the champion.",
            show_default="a temporary one",
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A packaged recipe or a YAML file.")] = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one value of the recipe; repeatable."),
    ] = None,
    first_epochs: Annotated[int, typer.Option(min=1, help="Of the first model, at most.")] = 20,
    warm_epochs: Annotated[int, typer.Option(min=1, help="Of the night, at most.")] = 10,
    watch_seconds: Annotated[float, typer.Option(min=0, help="How long the night watches the service.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of interactions without times.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Seconds and memory of a night by step: a model of the older part, the newest interactions as events, the job.

    The service runs beside, takes the events over HTTP, and is watched by the night.
    """
    from trainer.dataset import load_dataset
    from trainer.measurement.night import measure_night, open_shop

    with output.reading(dataset) as progress:
        data = load_dataset(dataset, progress=progress)
    chosen = tuple(set_ or ())
    settings = _settings(recipe, chosen, warm_epochs, watch_seconds)
    first = _settings(recipe, (*chosen, f"epochs={first_epochs}"), first_epochs, watch_seconds)
    first["gate"] = {"teacher_margin": 1.0}  # it need not be good, only there
    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as temporary:
        folder = models or Path(temporary)
        opening = open_shop(dataset, data, folder / "base", events, seed)
        cost = measure_night(opening, folder / "models", settings, first, _running)
    if json_:
        output.print_json({"dataset": data.name, **asdict(cost)})
        return
    rows = [(each.name, f"{each.seconds:.2f}", f"{each.peak_mb:.0f}") for each in cost.steps]
    rest = cost.seconds - sum(each.seconds for each in cost.steps)
    rows += [("start, report and end", f"{rest:.2f}", ""), ("in all", f"{cost.seconds:.2f}", "")]
    title = f"{data.name}: {cost.events:,} events over {cost.base_interactions:,} interactions"
    output.print_table(title, ("step", "seconds", "peak MB"), rows)
    output.stdout.print(
        f"sent in {cost.sending_seconds:.1f} s; {cost.training.get('epochs', 0)} epochs; {cost.outcome}: {cost.reason}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _settings(recipe: str, values: tuple[str, ...], warm_epochs: int, watch_seconds: float) -> dict[str, Any]:
    train = {"recipe": recipe, "set": list(values), "warm_epochs": warm_epochs}
    return {"train": train, "watch_seconds": watch_seconds, "least_new": 1}


def _running(store: Path, base: Path) -> AbstractContextManager[str]:
    from trainer.cli.demo import free_port, running_service

    return running_service(store, free_port(0), base)
