"""Several workers as real processes: killed, overloaded, told to stop, and counted as one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from shared.api_keys import Scope, new_key, save_keys
from tests.unit.service.conftest import publish

ASK = {"user_id": "ann", "k": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("models")
    publish(store)
    return store


@dataclass
class Service:
    """A service process with its workers."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def workers(self) -> list[int]:
        """The processes that answer."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def logged(self, field: str, value: object) -> list[dict[str, Any]]:
        """What the log has with this value so far; a request's line is written after its answer is sent."""
        whole = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [event for event in map(json.loads, whole) if event.get(field) == value]


@contextmanager
def serving(store: Path, log: Path, workers: int, *, host: str = "127.0.0.1", **settings: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "service", "--models", str(store), "--port", "0", "--workers", str(workers)]
    environment = {f"MTS4MM_{name.upper()}": value for name, value in settings.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", host], stdout=output, stderr=output, env=os.environ | environment
        )
    try:
        service = Service(process, "", log)
        wait_until(lambda: re.search(r"Listening on http", log.read_text()), process)
        port = re.search(r"Listening on http://[^ ]*:(\d+)", log.read_text())
        assert port is not None
        service.url = f"http://127.0.0.1:{port[1]}"
        started = "Application startup complete"
        wait_until(lambda: log.read_text().count(started) == workers, process)
        yield service
    finally:
        for pid in [process.pid] if process.poll() is None else []:
            children = service.workers()
            os.kill(pid, signal.SIGKILL)
            for child in children:
                os.kill(child, signal.SIGKILL)
        process.wait()


def wait_until(what: Callable[[], object], process: "subprocess.Popen[bytes] | None" = None) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.05)


@dataclass
class Load:
    """Clients that ask one after the other until told to stop, or until ``/readyz`` says no."""

    url: str
    outcomes: Counter[object] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def client(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not self.stopping.is_set():
                try:
                    answer = http.post("/recommend", json=ASK)
                    good = answer.status_code != 200 or len(answer.json()["items"]) == 3
                    self.outcomes[answer.status_code if good else "wrong"] += 1
                except httpx.TransportError as error:
                    self.outcomes[type(error).__name__] += 1

    def balancer(self) -> None:
        """Stops the clients when the service asks for it, as a load balancer does."""
        with httpx.Client(base_url=self.url, timeout=30) as http:
            while not self.stopping.is_set():
                if http.get("/readyz").status_code == 503:
                    self.stopping.set()
                time.sleep(0.05)

    @contextmanager
    def running(self, clients: int, *, balanced: bool = False) -> Iterator[None]:
        with ThreadPoolExecutor(clients + 1) as pool:
            running = [pool.submit(self.client) for _ in range(clients)]
            running += [pool.submit(self.balancer)] if balanced else []
            try:
                yield
            finally:
                self.stopping.set()
            for each in running:
                each.result()


def count(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").raise_for_status().text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_fails_no_request(store: Path, tmp_path: Path, workers: int) -> None:
    with serving(store, tmp_path / "log", workers, drain_seconds="1") as service:
        load = Load(service.url)
        with load.running(4, balanced=True):
            wait_until(lambda: load.outcomes[200] > 50)
            service.process.send_signal(signal.SIGTERM)
            wait_until(load.stopping.is_set)
        code = service.process.wait(timeout=60)
    assert code == 0
    assert set(load.outcomes) == {200}
    assert "Traceback" not in service.log.read_text()


@pytest.mark.slow
def test_workers_count_as_one_follow_the_store_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    store = tmp_path / "models"
    publish(store)
    with serving(store, tmp_path / "log", 2) as service:
        before = service.workers()
        assert len(before) == 2
        load = Load(service.url)
        with load.running(4):
            wait_until(lambda: load.outcomes[200] > 50)
            os.kill(before[0], signal.SIGKILL)
            wait_until(lambda: len(set(service.workers()) - {before[0]}) == 2)
            wait_until(lambda: service.log.read_text().count("Application startup complete") == 3)
            beginning = load.outcomes[200]
            wait_until(lambda: load.outcomes[200] > beginning + 50)
        failed = load.outcomes.total() - load.outcomes[200]
        assert failed <= 4  # those that the killed worker had in its hands, one a client
        counted = 'mts4mm_http_requests_total{method="POST",route="/recommend",status="200"}'
        assert load.outcomes[200] <= count(service.url, counted) <= load.outcomes.total()
        assert len({whose(service.url) for _ in range(20)}) == 1
        wait_until(lambda: count(service.url, "mts4mm_http_requests_in_flight") == 0)

        newer = publish(store)

        def versions() -> set[str]:
            answers = [httpx.post(f"{service.url}/recommend", json=ASK).json() for _ in range(20)]
            return {answer["model_version"] for answer in answers}

        wait_until(lambda: versions() == {newer})

        folder = Path(environment(service.workers()[0])["PROMETHEUS_MULTIPROC_DIR"])
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=60) == 0
        assert not folder.exists()


@pytest.mark.slow
def test_workers_that_sighup_replaced_are_not_counted_as_being_there(store: Path, tmp_path: Path) -> None:
    with serving(store, tmp_path / "log", 2) as service:
        before = set(service.workers())
        folder = Path(environment(min(before))["PROMETHEUS_MULTIPROC_DIR"])

        def counted() -> set[int]:
            return {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}

        wait_until(lambda: counted() == before)
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(service.workers()) - before) == 2)
        wait_until(lambda: counted() == set(service.workers()))


def whose(url: str) -> str:
    """Whose counters a service says that it gives; on a connection of its own, so that any worker may answer."""
    found = re.search(r'mts4mm_counters_info{of="(.+)"} 1.0', httpx.get(f"{url}/metrics").raise_for_status().text)
    assert found is not None
    return found[1]


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_parent(store: Path, tmp_path: Path) -> None:
    with serving(store, tmp_path / "log", 2) as service:
        workers = service.workers()
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@pytest.mark.slow
def test_overload_is_shed_and_the_rest_is_answered(store: Path, tmp_path: Path) -> None:
    limits = {"max_in_flight": "1", "max_waiting": "2", "max_wait_seconds": "0.05"}
    with serving(store, tmp_path / "log", 1, **limits) as service:
        load = Load(service.url)
        with load.running(24):
            wait_until(lambda: load.outcomes[200] > 100 and load.outcomes[503] > 20)
            assert httpx.get(f"{service.url}/livez").status_code == 200
            assert httpx.get(f"{service.url}/readyz").status_code == 200
        assert set(load.outcomes) == {200, 503}
        assert count(service.url, "mts4mm_http_requests_shed_total{") == load.outcomes[503]
        wait_until(lambda: len(service.logged("status", 503)) == load.outcomes[503])


@pytest.mark.slow
def test_slow_heads_are_cut_off_and_slow_bodies_are_told(store: Path, tmp_path: Path) -> None:
    limits = {"head_timeout_seconds": "0.5", "request_timeout_seconds": "0.5"}
    with serving(store, tmp_path / "log", 1, **limits) as service:
        url = httpx.URL(service.url)
        assert said(url, b"POST /recom") == b""
        assert said(url, b"") == b""
        head = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        assert said(url, head).startswith(b"HTTP/1.1 408 ")
        assert httpx.get(f"{service.url}/livez").status_code == 200


def said(url: httpx.URL, sent: bytes) -> bytes:
    """All that is said on a connection until its end, after what was sent."""
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(sent)
        heard = b""
        try:
            while part := connection.recv(65536):
                heard += part
        except ConnectionResetError:
            pass
        return heard


@pytest.mark.slow
def test_clients_that_go_away_before_the_answer_are_counted_as_gone(store: Path, tmp_path: Path) -> None:
    body = json.dumps(ASK).encode()
    with serving(store, tmp_path / "log", 1) as service:
        for name, path in ((b"half", "/recommend"), (b"picture", "/console/api/search/picture")):
            with sending(service.url, path, name, 99, body):
                time.sleep(0.3)  # its body is waited for
        for name in ("half", "picture"):
            wait_until(lambda name=name: service.logged("request_id", name))  # type: ignore[misc]
            assert service.logged("request_id", name)[0]["status"] == 499
        assert count(service.url, 'mts4mm_http_requests_total{method="POST",route="unmatched",status="499"}') == 2
        assert "Traceback" not in service.log.read_text()


@contextmanager
def sending(url: str, path: str, name: bytes, length: int, body: bytes) -> Iterator[None]:
    """Send a request on a connection of its own, and go away at the end without waiting for the answer."""
    address = httpx.URL(url)
    head = b"POST %s HTTP/1.1\r\nhost: x\r\nx-request-id: %s\r\ncontent-length: %d\r\n"
    head += b"content-type: application/json\r\n\r\n"
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        connection.sendall(head % (path.encode(), name, length) + body)
        yield


@pytest.mark.slow
def test_beyond_loopback_keys_are_needed_and_asked_for(store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", "--models", str(store), "--port", "0", "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "mts4mm keys new" in refused.stderr

    secret, entry = new_key("shop", [Scope.READ])
    save_keys(tmp_path / "keys.json", [entry])
    with serving(store, tmp_path / "log", 1, host="0.0.0.0", keys=str(tmp_path / "keys.json")) as service:
        assert httpx.post(f"{service.url}/recommend", json=ASK).status_code == 401
        answered = httpx.post(f"{service.url}/recommend", json=ASK, headers={"X-API-Key": secret})
        assert answered.status_code == 200
        wait_until(lambda: service.logged("key", "shop"))
        assert secret not in service.log.read_text()


@pytest.mark.slow
def test_a_damaged_model_ends_all_workers_with_1(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("latest")
    command = [sys.executable, "-m", "service", "--models", str(tmp_path), "--port", "0", "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "'latest' is not the name of a version" in ended.stderr
    assert "Traceback" not in ended.stderr
