"""States on real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.state import UserState, open_state
from tests.integration.redis_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserState]:
    with open_state(None, tmp_path_factory.mktemp("embedded")) as opened:
        yield opened


@pytest.fixture(params=["by URL", "embedded"])
def state(request: pytest.FixtureRequest, server: Server, embedded: UserState) -> Iterator[UserState]:
    """An empty state on either kind of server."""
    opened = open_state(server.url, None) if request.param == "by URL" else embedded
    opened._client.flushall()
    yield opened
    if opened is not embedded:
        opened.close()


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop, kill and start."""
    with Server(tmp_path) as running:
        yield running
