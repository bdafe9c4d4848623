"""The state is opened by URL, with a password that is never told, or embedded, with a server that processes share."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.state import StateUnavailable, open_state
from tests.integration.redis_server import Server, wait_until
from tests.integration.user_state.few_events import answers, event, item_ids

PASSWORD = "p4ss wörd/#:@?%"
PERCENT_ENCODED = "p4ss%20w%C3%B6rd%2F%23%3A%40%3F%25"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_password_opens_the_server_and_is_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    told = ""
    with Server(tmp_path, port, "--requirepass", PASSWORD) as server:
        right = open_state(f"redis://:{PERCENT_ENCODED}@127.0.0.1:{port}/0", None)
        assert right.record([event("1")]) == [True]
        with open_state(f"unix://{tmp_path}/redis.sock?password={PERCENT_ENCODED}", None) as by_socket:
            assert item_ids(by_socket) == ["i"]

        wrong = open_state(f"redis://user-{PERCENT_ENCODED}:wrong-{PERCENT_ENCODED}@127.0.0.1:{port}/0", None)
        told += failure(wrong.ping)
        assert "AuthenticationError" in told
        assert not wrong.available
        server.kill()
        told += failure(right.ping) + repr(right) + str(vars(right))
        assert "ConnectionRefused" in told
    right.close()
    wrong.close()

    for secret in (PASSWORD, PERCENT_ENCODED, "p4ss"):
        assert secret not in told + caplog.text
    assert "does not answer" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "p4ss",
        "http://:p4ss@host",
        "redis://",
        "redis://:p4ss@",
        "redis://:p4ss@host:port",
        "redis://:p4ss@host:99999",
        "redis://:p4ss@host/zero",
        "redis://user:1234#p4ss@host",
        "redis://user:1234/p4ss@host",
        "redis://:[p4ss@host",
        "redis://host/0?p4ss=1",
        "redis://host/0?socket_timeout=p4ss",
        "unix://",
        "unix://p4ss",
        "REDIS:p4ss",
    ],
)
def test_a_wrong_url_is_refused_by_the_variable_s_name_without_being_quoted(url: str) -> None:
    told = failure(lambda: open_state(url, None), UserError)

    assert "MTS4MM_REDIS_URL" in told
    assert "p4ss" not in told


def failure(work: Callable[[], object], kind: type[Exception] = StateUnavailable) -> str:
    """All that is told of a failure, as a log would have it."""
    with pytest.raises(kind) as raised:
        work()
    lines = traceback.format_exception(raised.value)
    return "".join(line for line in lines if not line.startswith("  File")) + repr(raised.value)


def test_a_server_that_is_not_there_yet_does_not_keep_the_state_from_opening(tmp_path: Path) -> None:
    with open_state(f"unix://{tmp_path}/redis.sock", None) as state:
        assert not answers(state)
        with Server(tmp_path):
            wait_until(lambda: answers(state))
            assert state.record([event("1")]) == [True]


def test_neither_url_nor_folder_is_refused() -> None:
    for url in (None, ""):
        with pytest.raises(UserError, match="MTS4MM_REDIS_URL"):
            open_state(url, None)


def test_the_embedded_state_survives_its_end() -> None:
    with tempfile.TemporaryDirectory() as short:
        _survives_its_end(Path(short) / "new" / "dir with 'quotes' ü")


def _survives_its_end(folder: Path) -> None:
    with open_state(None, folder) as state:
        state.record([event("1")])
    assert not list_running(folder)

    with open_state(None, folder) as state:
        assert item_ids(state) == ["i"]
        assert state.record([event("1")]) == [False]


@pytest.mark.slow
def test_the_embedded_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with open_state(None, tmp_path) as state:
        state.record([event("1")])
        time.sleep(1.2)  # the log is written through once a second
        (pid,) = list_running(tmp_path)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not list_running(tmp_path))

        assert not answers(state)
        wait_until(lambda: answers(state))
        assert item_ids(state) == ["i"]
        assert len(list_running(tmp_path)) == 1


def test_processes_share_one_embedded_server_and_the_last_stops_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from shared.state import open_state\n"
        "with open_state(None, Path(sys.argv[1])) as state:\n"
        "    state.retire_items([sys.argv[2]]); print('open', flush=True); sys.stdin.read()\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), f"item {n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for n in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"open\n"
    assert len(list_running(tmp_path)) == 1

    workers[0].kill()
    for worker in workers[1:3]:
        worker.communicate()
        assert worker.returncode == 0
    assert len(list_running(tmp_path)) == 1
    workers[3].communicate()
    assert not list_running(tmp_path)
    workers[0].communicate()

    with open_state(None, tmp_path) as state:
        assert state.retired().item_ids == {f"item {n}" for n in range(4)}


def test_a_folder_that_cannot_hold_the_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/state: cannot keep the user state there"):
        open_state(None, tmp_path / "file" / "state")
    with pytest.raises(UserError, match="too long"):
        open_state(None, tmp_path / ("x" * 100))

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "appendonly.aof").write_bytes(b"no such thing as a log of commands\r\n" * 9)
    with pytest.raises(UserError, match=r"damaged: .*redis\.log"):
        open_state(None, damaged)


def list_running(folder: Path) -> list[int]:
    """The process ids of the Redis servers on a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_redis = entry.name.isdigit() and (entry / "comm").read_text() == "redis-server\n"
            if is_redis and (entry / "cwd").readlink() == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
