"""The service as a real process over real HTTP, from its start to its end by a signal."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel

USERS, ITEMS, WIDTH = 40, 120, 8


@dataclass(frozen=True)
class Shop:
    """A published model and the store it is in."""

    store: Path
    version: str
    model: StudentModel

    def best_unseen(self, user: int, k: int) -> list[str]:
        """What the user must be recommended, by scoring everything."""
        scores = self.model.item_embeddings.astype(np.float64) @ self.model.user_embeddings[user]
        row = slice(self.model.train_indptr[user], self.model.train_indptr[user + 1])
        seen = set(self.model.train_indices[row].tolist())
        left = [item for item in range(ITEMS) if item not in seen]
        return [self.model.item_ids[item] for item in sorted(left, key=lambda i: -scores[i])[:k]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    rng = np.random.default_rng(5)
    rows = [np.sort(rng.choice(ITEMS, size=int(size), replace=False)) for size in rng.integers(1, 110, USERS)]
    model = StudentModel(
        user_ids=[f"user {index} ü" for index in range(USERS)],
        item_ids=[f"item-{index}" for index in range(ITEMS)],
        user_embeddings=rng.normal(size=(USERS, WIDTH)).astype(np.float32),
        item_embeddings=rng.normal(size=(ITEMS, WIDTH)).astype(np.float32),
        train_indptr=np.cumsum([0, *(len(row) for row in rows)]),
        train_indices=np.concatenate(rows),
        items=[{"title": f"Item {index}"} for index in range(ITEMS)],
    )
    dataset = DatasetInfo(
        name="shop", fingerprint="f", users=USERS, items=ITEMS, interactions=3000, split=Split(kind="given")
    )
    store = tmp_path_factory.mktemp("models")
    return Shop(store, artifact.publish(store, model, Provenance(dataset, {}, 1, {})), model)


@dataclass
class Running:
    """A service process and where it listens."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def stop(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.process.wait(timeout=20)


@contextmanager
def service(store: Path, log: Path, *python_options: str) -> Iterator[Running]:
    command = [sys.executable, *python_options, "-m", "service", "--models", str(store), "--port", "0"]
    with serving(command, log) as found:
        yield found


@contextmanager
def serving(command: list[str], log: Path) -> Iterator[Running]:
    """Run a service until the end, with what it says in a log, from which its address is read."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield Running(process, listening_at(process, log), log)
    finally:
        process.kill()
        process.wait()


def listening_at(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait for the address in the log."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"Listening on (http://[\d.:]+)\W", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the service did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def running(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with service(shop.store, tmp_path_factory.mktemp("log") / "log") as running:
        yield running


def test_every_user_gets_their_own_best_unseen_items_also_all_at_once(running: Running, shop: Shop) -> None:
    def ask(user: int) -> list[str]:
        body = {"user_id": shop.model.user_ids[user], "k": 25}
        answer = httpx.post(f"{running.url}/recommend", json=body, timeout=30).raise_for_status().json()
        assert (answer["strategy"], answer["model_version"]) == ("personal", shop.version)
        return [item["item_id"] for item in answer["items"]]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(USERS)))

    assert answers == [shop.best_unseen(user, 25) for user in range(USERS)]
    assert any(len(answer) < 25 for answer in answers)


def test_what_peers_answer_with_500_is_answered_here(running: Running) -> None:
    unknown = httpx.post(f"{running.url}/recommend", json={"user_id": "63"})
    wrong = httpx.post(f"{running.url}/recommend", json={"user_id": "63", "k": "abc"})

    assert (unknown.status_code, unknown.json()["strategy"], len(unknown.json()["items"])) == (200, "popular", 20)
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")


def test_health_is_ok(running: Running, shop: Shop) -> None:
    body = httpx.get(f"{running.url}/health").raise_for_status().json()

    assert (body["status"], body["model_version"], body["users"]) == ("ok", shop.version, USERS)


def test_a_large_body_is_refused_and_the_service_lives_on(running: Running) -> None:
    headers = {"content-type": "application/json"}
    refused = httpx.post(f"{running.url}/recommend", content=b" " * 1_200_000, headers=headers)

    assert (refused.status_code, refused.json()["status"]) == (413, 413)
    assert httpx.get(f"{running.url}/health").status_code == 200


def test_a_client_that_goes_away_half_way_harms_nobody(running: Running) -> None:
    url = httpx.URL(running.url)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        head = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n"
        connection.sendall(head + b'{"user_id"')

    assert httpx.get(f"{running.url}/health").status_code == 200
    assert "Traceback" not in running.log.read_text()


HOSTILE = {
    "path out of the console": b"GET /console/../../../../etc/passwd HTTP/1.1",
    "the same, escaped": b"GET /console/%2e%2e/%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
    "the same, slashes too": b"GET /console/lib%2f..%2f..%2f..%2fapp.py HTTP/1.1",
    "a whole address": b"GET file:///etc/passwd HTTP/1.1",
    "path out of the pictures": b"GET /items/..%2f..%2fetc%2fpasswd/image HTTP/1.1",
    "a line in a path": b"GET /console/x%0d%0aset-cookie:%20a=b HTTP/1.1",
    "a line in an id": b"GET /health HTTP/1.1\r\nx-request-id: a\nset-cookie: a=b",
    "half a line in an id": b"GET /health HTTP/1.1\r\nx-request-id: a\rset-cookie: a=b",
    "a foreign host": b"GET /console HTTP/1.1\r\nx-forwarded-host: evil.example",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_paths_and_heads_reach_no_file_and_no_head_of_an_answer(running: Running, name: str) -> None:
    url = httpx.URL(running.url)
    before = len(running.log.read_bytes())
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(HOSTILE[name] + b"\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 200", b"HTTP/1.1 308")), answer
    assert b"set-cookie" not in head.lower()
    assert b"evil" not in answer
    assert b"root:" not in body
    assert b"import" not in body
    for line in running.log.read_text()[before:].splitlines():
        assert json.loads(line)["level"] in ("info", "warning")


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_cleanly_and_it_never_imported_torch(
    shop: Shop, tmp_path: Path, by: signal.Signals
) -> None:
    with service(shop.store, tmp_path / "log", "-X", "importtime") as running:
        httpx.post(f"{running.url}/recommend", json={"user_id": "x"}).raise_for_status()
        code = running.stop(by)

    log = (tmp_path / "log").read_text()
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in log.splitlines() if "import time:" in line
    }
    assert code == 0
    assert "Traceback" not in log
    assert {"faiss", "fastapi", "service", "shared"} <= imported
    assert not imported & {"torch", "trainer", "scipy", "polars", "sklearn"}


def test_a_service_without_a_model_starts_and_says_so(tmp_path: Path) -> None:
    with service(tmp_path / "nowhere", tmp_path / "log") as running:
        health = httpx.get(f"{running.url}/health")
        answer = httpx.post(f"{running.url}/recommend", json={"user_id": "x"})

        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


def test_a_damaged_model_ends_the_start_with_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "CURRENT").write_text("latest")

    ended = run("--models", str(tmp_path), "--port", "0")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: {tmp_path / 'CURRENT'}: 'latest' is not the name of a version")
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_ends_the_start_with_1(running: Running, shop: Shop) -> None:
    ended = run("--models", str(shop.store), "--port", str(httpx.URL(running.url).port))

    assert ended.returncode == 1
    assert "error: cannot listen on 127.0.0.1 port" in ended.stderr
    assert "Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--port", "99999"], {}), (["--port", "x"], {}), ([], {"MTS4MM_PORT": "x"})]
)
def test_a_wrong_option_is_named_and_ends_with_2(arguments: list[str], environment: dict[str, str]) -> None:
    ended = run(*arguments, **environment)

    assert ended.returncode == 2
    assert "port" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr
