"""How commands speak: results on stdout, as tables or one JSON document; progress and errors on stderr."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from shared.errors import UserError

stdout = Console()
stderr = Console(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]


def print_json(document: Any) -> None:
    """One JSON document on stdout; a figure that is no finite number, which JSON has no word for, is null."""
    sys.stdout.write(json.dumps(_jsonable(document), indent=2, ensure_ascii=False, default=str) + "\n")


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on stdout; numbers are shown as they come."""
    table = Table(title=title, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    stdout.print(table)


def say(message: str) -> None:
    """A line for people, on stderr."""
    stderr.print(escape(message), highlight=False)


def report_error(error: UserError) -> None:
    """The message of an error a user can mend, on stderr; as JSON on stdout too where JSON was asked for."""
    if "--json" in sys.argv:
        print_json({"error": str(error), "exit_code": int(error.exit_code)})
    stderr.print(f"[bold red]error:[/bold red] {escape(str(error))}", highlight=False, soft_wrap=True)


@contextmanager
def reading(directory: Path) -> Iterator[Callable[[str], None]]:
    """Show on stderr that a dataset is being read, and which part, as the yielded function is told."""
    doing = escape(f"reading {directory}")
    with stderr.status(doing) as status:
        yield lambda part: status.update(f"{doing}: {escape(part)}")


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars on stderr, gone when done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=stderr, transient=True) as progress:
        yield progress
