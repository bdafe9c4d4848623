"""``mts4mm validate`` and ``mts4mm demo-data``."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from shared.errors import ExitCode
from trainer.cli import output
from trainer.cli.training import SplitOption


def validate(
    directory: Annotated[Path, typer.Argument(help="Dataset directory.", show_default=False)],
    core: Annotated[int, typer.Option(min=1, help="Warn of users and items with fewer interactions.")] = 5,
    split: SplitOption = None,
    json_: output.JsonOption = False,
) -> None:
    """Look a dataset over: what is wrong (exit code 1), what is odd (0), and what is in it."""
    from trainer.dataset import SplitSpec, render_report, validate_directory

    wanted = None if split is None else SplitSpec(split.value)
    with output.reading(directory) as progress:
        report = validate_directory(directory, core=core, split=wanted, progress=progress)
    if json_:
        output.print_json(report.as_dict())
    else:
        render_report(report, output.stdout)
    if not report.ok:
        raise typer.Exit(ExitCode.BAD_INPUT)


def demo_data(
    directory: Annotated[Path, typer.Argument(help="Folder to make; it must be new or an earlier demo shop.")],
    users: Annotated[int, typer.Option(min=50, help="Users.")] = 2000,
    items: Annotated[int, typer.Option(min=50, help="Items.")] = 800,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another shop.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Make a synthetic shop: drawn pictures, written descriptions, and users with tastes in both."""
    make_shop_with_progress(directory, users=users, items=items, seed=seed)
    if json_:
        output.print_json({"directory": str(directory), "users": users, "items": items, "seed": seed})
    else:
        output.say(f"made {directory}; train on it with: mts4mm train {quote(str(directory))}")


def make_shop_with_progress(directory: Path, *, users: int = 2000, items: int = 800, seed: int = 0) -> None:
    """Make a demo shop behind a progress bar; see ``trainer.demo_shop.make_shop``."""
    from trainer.demo_shop import make_shop

    with output.progress_bars() as bars:
        task = bars.add_task("shop", total=1, note="")

        def show(stage: str, done: int, total: int) -> None:
            bars.update(task, description=stage, completed=done, total=total)

        make_shop(directory, users=users, items=items, seed=seed, progress=show)
