"""``python -m service``: serve the current model of a store folder."""

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from service.settings import Settings, load_settings, shown
from service.workers import serve
from shared.errors import ExitCode, UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, finish the requests under way, and exit with 0."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        settings, only_show = _settings(arguments)
        if only_show:
            sys.stdout.write(shown(settings))
            return
        listener = _listen(settings.host, settings.port)
        serve(settings, listener)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _settings(arguments: Sequence[str] | None) -> tuple[Settings, bool]:
    """The settings, and whether they are only to be shown."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve recommendations over HTTP from the current model of a models folder.",
        epilog="Every setting has an environment variable MTS4MM_<NAME>; --print-config shows them all. "
        "Exit codes: 0 stopped by a signal, 1 the model is damaged or the port taken, 2 a wrong option or setting.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--models", type=Path, help="the models folder")
    parser.add_argument("--host", help="the address to listen on")
    parser.add_argument("--port", help="the port, 0 for any free one")
    parser.add_argument("--catalogue", type=Path, help="the dataset folder with the pictures of the items")
    parser.add_argument("--workers", help="how many processes answer")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings in force, secrets masked, and end"
    )
    given = vars(parser.parse_args(arguments))
    only_show = given.pop("print_config", False)
    return load_settings(**given), only_show


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address, family=family)
        # asyncio sets it on connections whose listener says it is TCP, which this one does not. Without it the second
        # half of an answer waits for the client to acknowledge the first, for up to 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise UserError(
            f"cannot listen on {host} port {port}: {error.strerror}. Choose another --host or --port"
        ) from error


def _stop(_signal: int, _frame: object) -> NoReturn:
    """End with 0: stopping is what was asked for. uvicorn raises the signal again once it has drained."""
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
