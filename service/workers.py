"""The processes of the service: one that answers by itself, or several under a parent that starts dead ones again.

The parent only listens and watches; it loads no model. The workers share its listening socket, so that no connection
is lost when one of them dies, and the model's memory-mapped tables. Each follows the store by itself.
"""

import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from service import logs
from service.settings import Settings
from shared.errors import ExitCode, UserError

if TYPE_CHECKING:
    from fastapi import FastAPI

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Tells prometheus-client, when it is imported, that several workers count together, and in which folder."""

_LAST_GOOD = "last-good-model"
_HANGS_AFTER_SECONDS = 60
"""When a worker that does not answer its parent is taken for dead; loading a large model may take long."""

_log = logging.getLogger(__name__)


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer on a listening socket until a signal ends the process.

    Raises:
        UserError: the current model is damaged, or a setting makes no sense.
    """
    if settings.workers == 1:
        server = uvicorn.Server(_config(settings, Application(settings, None)()))
        _say_where(settings, listener)
        server.run(sockets=[listener])
        return
    logs.configure(settings.log_format, settings.log_level)
    with _shared_folder() as folder:
        workers = _Workers(_config(settings, Application(settings, folder), factory=True), sockets=[listener])
        _say_where(settings, listener)
        workers.run()
    if workers.failed:
        raise UserError("the workers did not start; why is above")


@dataclass(frozen=True)
class Application:
    """Makes the application of a process; it can be handed to another process, as an application cannot."""

    settings: Settings
    folder: Path | None

    def __call__(self) -> Any:
        """Load the model.

        Raises:
            UserError: the current model is damaged, or a setting makes no sense.
            SystemExit: the same in a worker, after saying so.
        """
        from service.app import create_app  # the parent does without what is in it

        log = logs.configure(self.settings.log_format, self.settings.log_level)
        if self.folder is None:
            return _lasting(create_app(self.settings, log))
        _end_with_the_parent()
        last_good = self.folder / _LAST_GOOD
        try:
            return _lasting(create_app(self.settings, log, last_good))
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            # Where others answer already, this one is tried again; where none does, they all end.
            sys.exit(ExitCode.BAD_INPUT if last_good.exists() else STARTUP_FAILURE)


def _lasting(app: "FastAPI") -> "FastAPI":
    """Have nobody look through what is there by now for garbage again: it stays as long as the process does."""
    gc.collect()
    gc.freeze()
    return app


def _end_with_the_parent() -> None:
    """A worker whose parent was killed must not go on holding the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


class _Workers(Multiprocess):
    """uvicorn's supervisor; knows besides why it stopped, and tells prometheus-client of the dead."""

    failed = False

    def keep_subprocess_alive(self) -> None:
        """Start dead workers again."""
        before = list(self.processes)
        for process in before:
            # With this end open here as well, to ask a worker that dies meanwhile would last until the time is up.
            process.child_conn.close()
        super().keep_subprocess_alive()
        _forget_all_but({process.pid for process in self.processes})
        self.failed = self.failed or any(process.exitcode == STARTUP_FAILURE for process in before)


def _forget_all_but(workers: Collection[int | None]) -> None:
    """Remove what others said of their present, such as their requests in flight; what they counted stays.

    They are gone: they died, or SIGHUP had them replaced.
    """
    for path in Path(os.environ[METRICS_VARIABLE]).glob("gauge_live*_*.db"):
        if int(path.stem.rpartition("_")[2]) not in workers:
            path.unlink(missing_ok=True)


@contextmanager
def _shared_folder() -> Iterator[Path]:
    """A folder that the workers share, as long as their parent lives."""
    with tempfile.TemporaryDirectory(prefix="mts4mm-") as folder:
        os.environ[METRICS_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[METRICS_VARIABLE]


def _config(settings: Settings, app: Any, *, factory: bool = False) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=factory,
        workers=settings.workers,
        http="service.connections:PatientProtocol",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.grace_seconds,
        timeout_worker_healthcheck=_HANGS_AFTER_SECONDS,
    )


def _say_where(settings: Settings, listener: socket.socket) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _log.info("Listening on http://%s:%d", host, listener.getsockname()[1])
