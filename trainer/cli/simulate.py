"""``mts4mm simulate``: a shop over some days, with people who shop by day and the nightly job by night."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError
from trainer.cli import output

if TYPE_CHECKING:
    from trainer.simulation.week import Day


def simulate(
    days: Annotated[int, typer.Option(min=1, help="Days; the last one's log is poisoned.")] = 7,
    users: Annotated[int, typer.Option(min=100, help="Users, those who join later included.")] = 600,
    items: Annotated[int, typer.Option(min=60, help="Items, those that arrive later included.")] = 240,
    epochs: Annotated[int, typer.Option(min=1, help="Of a training from scratch.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another shop.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the shop, its models and the plot.", show_default=False)
    ] = None,
    json_: output.JsonOption = False,
) -> None:
    """Live through some days: shows whether each night's model beats the first one, and whether the gate holds."""
    folder = Path(tempfile.mkdtemp(prefix="mts4mm-")) if out is None else _made(out)
    lived = _live(folder, days, users, items, epochs, seed)
    _plot(folder / "simulation.png", lived)
    if json_:
        output.print_json({"folder": str(folder), "days": [asdict(day) for day in lived]})
        return
    columns = ("day", "events", "night", "true best items shown", "by the first model", "new items shown")
    rows = [
        (
            f"{day.day}{' (poisoned)' if day.poisoned else ''}",
            day.events,
            day.outcome,
            f"{day.live:.3f}",
            f"{day.static:.3f}",
            f"{day.new_found} of {day.new_items}",
        )
        for day in lived
    ]
    output.print_table(f"{days} days, {folder}", columns, rows)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: {folder} cannot be made ({error.strerror}); name another folder") from error
    if any(folder.iterdir()):
        raise UsageError(f"--out: {folder} is not empty; name a new folder")
    return folder


def _live(folder: Path, days: int, users: int, items: int, epochs: int, seed: int) -> list[Day]:
    from shared import artifact
    from trainer.cli.demo import free_port, running_service
    from trainer.cli.nightly import run_night
    from trainer.nightly.places import Places
    from trainer.nightly.settings import GateSettings, NightlySettings, TrainSettings
    from trainer.simulation.week import Shop
    from trainer.simulation.world import open_world

    output.say("opening the shop ...")
    world = open_world(folder, users=users, items=items, seed=seed)
    store = folder / "models"
    # A few hundred users are few for slices and for the most shown items, where means alone are compared.
    settings = NightlySettings(
        train=TrainSettings(recipe="demo", set=(f"epochs={epochs}",), warm_epochs=epochs),
        gate=GateSettings(slice_margin=0.5, teacher_margin=0.2, concentration_margin=2.0),
        watch_seconds=1,
    )
    run_night(Places(world.base, store, store / ".events"), settings)
    lived: list[Day] = []
    with ExitStack() as stack:
        url = stack.enter_context(running_service(store, free_port(0), world.base))
        places = Places(world.base, store, store / ".events", url)

        def night() -> tuple[str, str]:
            ended = run_night(places, settings)
            return ("busy", "") if ended is None else (ended.outcome.word, ended.reason)

        shop = Shop(world, store, url, str(artifact.current_version(store)))
        for number in range(1, days + 1):
            day = shop.day(number, days, night)
            lived.append(day)
            output.say(
                f"day {number}: {day.events} events, {day.outcome}; true best items shown {day.live:.3f}, by the first "
                f"model {day.static:.3f}; new items shown {day.new_found} of {day.new_items}"
            )
    return lived


def _plot(path: Path, lived: list[Day]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="tight")
    axes = figure.subplots()
    places = [day.day for day in lived]
    axes.plot(places, [day.live for day in lived], marker="o", label="live model")
    axes.plot(places, [day.static for day in lived], marker="o", label="first model")
    for day in lived:
        if day.outcome != "promoted":
            axes.axvline(day.day, color="#bbb", zorder=0)
            axes.annotate(day.outcome.replace("_", " "), (day.day, day.live))
    axes.set_xlabel("day")
    axes.set_title("share of the truly best items among those recommended", loc="left")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
