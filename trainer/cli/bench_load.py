"""``mts4mm bench load``: how long a large artefact takes to load, and how much memory its workers."""

import socket
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import output


def load(
    out: Annotated[Path, typer.Option(help="Models folder for the synthetic artefact; kept, and used again.")],
    users: Annotated[int, typer.Option(min=1)] = 5_000_000,
    items: Annotated[int, typer.Option(min=1)] = 1_000_000,
    width: Annotated[int, typer.Option(min=2, help="Of the embeddings.")] = 64,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="How many workers; repeatable. 1 and 2.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the artefact.")] = 0,
    json_: output.JsonOption = False,
) -> None:
    """Seconds until `python -m service` is ready with a synthetic artefact, and memory by worker, from /proc."""
    from trainer.measurement.service_load import large_store, measure_load

    with output.stderr.status("looking for the artefact") as status:
        large_store(out, users, items, width, seed, status.update)
        measured = {}
        for count in workers or (1, 2):
            status.update(f"loading with {count} workers")
            measured[count] = measure_load(out, count, _free_port())
    if json_:
        loads = [{"workers_wanted": count, **asdict(measure)} for count, measure in measured.items()]
        output.print_json({"users": users, "items": items, "width": width, "loads": loads})
        return
    rows = [
        (count, f"{measure.ready_seconds:.1f}", place, *(f"{value:.1f}" for value in asdict(worker).values()))
        for count, measure in measured.items()
        for place, worker in enumerate(measure.workers, start=1)
    ]
    columns = ("workers", "ready, s", "worker", "resident MB", "proportional MB", "private MB", "CPU, s")
    output.print_table(f"{users:,} users, {items:,} items, width {width}", columns, rows)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
