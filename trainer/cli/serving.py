"""``mts4mm serve``: becomes the service process. The trainer does not import the service."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import output


def serve(
    models: Annotated[Path, typer.Option(help="Model store to serve from.")] = Path("models"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Answer POST /recommend and GET /health from the live version of a store."""
    output.stdout.file.flush()
    os.execv(sys.executable, service_command(models, host, port))  # noqa: S606 - our own interpreter, no shell


def service_command(models: Path, host: str, port: int) -> list[str]:
    """The service as a command line."""
    return [sys.executable, "-m", "service", "--models", str(models), "--host", host, "--port", str(port)]
