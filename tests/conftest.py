"""What holds for all tests."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, even if a shell runs the tests in the background, where it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_server_outlives_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A service that a test kills leaves its Redis server running, for the next service to take over."""
    yield
    for socket in tmp_path_factory.getbasetemp().rglob("redis.sock"):
        with redis.Redis(unix_socket_path=str(socket)) as client, suppress(redis.RedisError):
            client.shutdown(nosave=True)
