"""How many recommendations a second one process of the service gives on one core, beside what its parts would allow.

The load and Redis have the other core. The parts are measured in the same minutes, on the same core: an echo of the
same stack (:mod:`trainer.measurement.echo`), a bare search by faiss, a bare round trip to Redis.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import redis
from numpy.typing import NDArray

from shared.errors import UserError
from shared.state.embedded import EmbeddedServer
from trainer.measurement.open_loop import latencies
from trainer.measurement.random_model import SEEN, WIDTH, publish_random_model

USERS = 4_000
K = 20
CONNECTIONS = 16
SHARE_OF_CAPACITY = 0.7
LATENCY_STRETCH = 3
"""So many times as long as for the capacity is the latency measured."""
SETTLING_SECONDS = 1.0
"""In which the service answers what is left of a load that has ended."""
START_SECONDS = 120.0
NO_REDIS = "redis://127.0.0.1:1"
"""Nobody listens there: the service answers from the model alone, without a round trip."""

_Table = NDArray[np.float32]
_SCRIPT = """
math.randomseed(1)
local headers = {["Content-Type"] = "application/json"}
request = function()
  return wrk.format("POST", "/recommend", headers, string.format('{"user_id":"u%%d","k":%d}', math.random(0, %d)))
end
done = function(summary)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %%d, "microseconds": %%d, "failed": %%d}\\n', summary.requests,
    summary.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Served:
    """What one process answered.

    Attributes:
        capacity: requests a second at most.
        rate: requests a second, open loop, of the latencies.
        p50_ms: of a typical second: the median of the seconds' medians.
        p99_ms: of a typical second. A machine that is shared with others stops now and then for longer than many
            requests take; the second in which it does is not typical.
        p99_overall_ms: of all requests, those of such seconds included.
        load_stood_still: the share of the latencies' time in which the load itself was stopped, and nothing was due.
    """

    capacity: float
    rate: float
    p50_ms: float
    p99_ms: float
    p99_overall_ms: float
    load_stood_still: float


@dataclass(frozen=True)
class ServingSpeed:
    """One size of catalogue. Seconds of the parts; what an echo served, the model alone, and it with the state."""

    items: int
    echo: Served
    search_seconds: float
    round_trip_seconds: float
    alone: Served
    with_state: Served

    @property
    def allowed_alone(self) -> float:
        """Requests a second that echo and search allow."""
        return 1 / (1 / self.echo.capacity + self.search_seconds)

    @property
    def allowed_with_state(self) -> float:
        """The same with a round trip."""
        return 1 / (1 / self.echo.capacity + self.search_seconds + self.round_trip_seconds)


def require_wrk() -> None:
    """Check that there is what makes the load.

    Raises:
        UserError: ``wrk`` is missing, or the machine has one core alone.
    """
    if shutil.which("wrk") is None:
        raise UserError("wrk is missing, which makes the load: install it, on Debian with 'apt-get install wrk'")
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise UserError("this needs Linux and two cores: one for the service, the other for the load")


def measure_serving(items: int, seconds: float) -> ServingSpeed:
    """Measure one size.

    Args:
        items: how many.
        seconds: how long a load takes for the capacity; three times as long for the latency.

    Raises:
        UserError: something does not start, or a request fails.
    """
    before = os.sched_getaffinity(0)
    loading, serving = sorted(before)[:2]  # the first one has most of the interrupts
    with tempfile.TemporaryDirectory(prefix="mts4mm-bench-") as folder:
        store = Path(folder) / "models"
        metadata = [{"title": f"Thing number {item}", "category": f"c{item % 20}"} for item in range(items)]
        embeddings = publish_random_model(store, USERS, metadata)
        try:
            os.sched_setaffinity(0, {serving})
            search = _search_seconds(*embeddings)
            os.sched_setaffinity(0, {loading})
            with closing(EmbeddedServer(store / ".state")) as server:  # on this core
                os.sched_setaffinity(0, {serving})
                round_trip = _round_trip_seconds(server.socket)
                os.sched_setaffinity(0, {loading})
                with _service(store, serving, {"MTS4MM_REDIS_URL": NO_REDIS}) as port:
                    answer = Path(folder) / "answer.json"
                    answer.write_bytes(_ask(port, {"user_id": "u0", "k": K}))
                    echo = _echo(answer, serving, seconds)
                    alone = _served(port, seconds)
                with _service(store, serving, {"MTS4MM_STATE": str(server.folder)}) as port:
                    with_state = _served(port, seconds)
        finally:
            os.sched_setaffinity(0, before)
    return ServingSpeed(items, echo, search, round_trip, alone, with_state)


def _search_seconds(of_items: _Table, of_users: _Table) -> float:
    """A search for one user, who has seen some."""
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(of_items)
    asked = iter(np.resize(np.arange(USERS), 10**6).tolist())
    return _mean_seconds(lambda: index.search(of_users[next(asked)][None, :], K + SEEN))


def _round_trip_seconds(path: Path) -> float:
    """What is asked of Redis for one user, in one pipeline."""
    with redis.Redis(unix_socket_path=str(path)) as client:

        def ask() -> None:
            pipeline = client.pipeline(transaction=False)
            pipeline.zrevrange("bench:recent", 0, -1)
            pipeline.zrange("bench:hidden", 0, -1, withscores=True)
            pipeline.get("bench:forgotten")
            pipeline.execute()

        return _mean_seconds(ask)


def _mean_seconds(call: Callable[[], object]) -> float:
    for _ in range(20):
        call()
    count, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < 1.0:
        call()
        count += 1
    return taken / count


def _echo(answer: Path, core: int, seconds: float) -> Served:
    port = _free_port()
    with _process([sys.executable, "-m", "trainer.measurement.echo", str(port), str(answer)], core, {}) as process:
        _wait_until_answers(process, port)
        return _served(port, seconds)


def _served(port: int, seconds: float) -> Served:
    capacity = _capacity(port, seconds)
    rate = SHARE_OF_CAPACITY * capacity
    bodies = [json.dumps({"user_id": f"u{user}", "k": K}).encode() for user in range(USERS)]
    time.sleep(SETTLING_SECONDS)
    asked_for = LATENCY_STRETCH * seconds
    found = latencies(port, bodies, rate, asked_for)
    p50, p99 = typical_percentiles(found.taken, rate)
    overall = float(np.percentile(found.taken, 99))
    return Served(
        capacity, rate, 1e3 * p50, 1e3 * p99, 1e3 * overall, found.stood_still / (asked_for + found.stood_still)
    )


def typical_percentiles(taken: Sequence[float], rate: float) -> tuple[float, float]:
    """The median over whole seconds of each second's 50th and 99th percentile.

    Args:
        taken: seconds that each request took, in the order in which they were due; of one second at least.
        rate: how many were due in a second.
    """
    each = max(1, int(rate))
    seconds = [taken[start : start + each] for start in range(0, len(taken) - each + 1, each)]
    p50, p99 = np.median([np.percentile(second, [50, 99]) for second in seconds], axis=0)
    return float(p50), float(p99)


def _capacity(port: int, seconds: float) -> float:
    """Requests a second, closed loop, after a quarter of the time to warm up."""
    _wrk(port, max(1, round(seconds / 4)))
    found = _wrk(port, max(1, round(seconds)))
    if found["failed"]:
        raise UserError(f"{found['failed']} of {found['requests']} requests failed under load")
    return 1e6 * found["requests"] / found["microseconds"]


def _wrk(port: int, seconds: int) -> dict[str, int]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % (K, USERS - 1))
        script.flush()
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "-s", script.name, f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own)
    if done.returncode:
        raise UserError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    counted: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return counted


@contextmanager
def _service(store: Path, core: int, settings: Mapping[str, str]) -> Iterator[int]:
    port = _free_port()
    command = [sys.executable, "-m", "service", "--models", str(store), "--port", str(port)]
    with _process(command, core, settings) as process:
        _wait_until_answers(process, port)
        yield port


@contextmanager
def _process(command: Sequence[str], core: int, settings: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process on one core; its log goes nowhere, but is written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MTS4MM_")}
    environment = kept | {"OMP_NUM_THREADS": "1", "MTS4MM_LOG_FORMAT": "json"} | dict(settings)
    process = subprocess.Popen(  # noqa: S603 (our own)
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.sched_setaffinity(process.pid, {core})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def _wait_until_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _ask(port, {"user_id": "u0", "k": K})
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise UserError(f"{process.args!r} does not start: is mts4mm[service] installed?")


def _ask(port: int, body: Mapping[str, object]) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recommend", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=START_SECONDS) as answer:  # noqa: S310
        content: bytes = answer.read()
    return content
