"""``mts4mm serve`` and ``recommend``: become a process of the service, which the trainer does not import."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import output


def serve(
    models: Annotated[Path | None, typer.Option(help="Models folder; by default MTS4MM_MODELS, or models.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default MTS4MM_HOST, or loopback.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on; by default MTS4MM_PORT, or 8000.")
    ] = None,
    catalogue: Annotated[
        Path | None, typer.Option(help="Dataset folder with the items' pictures; by default MTS4MM_CATALOGUE, or none.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer; by default MTS4MM_WORKERS, or one.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings in force, secrets masked, and end.")
    ] = False,
) -> None:
    """Answer recommendations over HTTP from the live version of a store; docs/settings.md has all settings."""
    command = service_command(models, host, port, catalogue, workers)
    if print_config:
        command.append("--print-config")
    output.stdout.file.flush()
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter, no shell


def recommend(
    out: Annotated[Path, typer.Option(help="File to write: *.csv, a row an item, or *.jsonl.", show_default=False)],
    models: Annotated[Path | None, typer.Option(help="Models folder; by default MTS4MM_MODELS, or models.")] = None,
    k: Annotated[int, typer.Option(min=1, max=500, help="Items a user.")] = 20,
    users: Annotated[
        Path | None, typer.Option(help="A file with a user's id a line; by default all users of the model.")
    ] = None,
) -> None:
    """Write the recommendations of many users to a file, as the service would answer now; none need run."""
    options = {"--out": out, "--models": models, "--k": k, "--users": users}
    output.stdout.file.flush()
    os.execv(sys.executable, [sys.executable, "-m", "service.batch", *_words(options)])  # noqa: S606 - our own


def service_command(
    models: Path | None, host: str | None, port: int | None, catalogue: Path | None, workers: int | None = None
) -> list[str]:
    """The service as a command line; what is None is left to the environment."""
    options = {"--models": models, "--host": host, "--port": port, "--catalogue": catalogue, "--workers": workers}
    return [sys.executable, "-m", "service", *_words(options)]


def _words(options: Mapping[str, object]) -> list[str]:
    return [word for option, value in options.items() if value is not None for word in (option, str(value))]
