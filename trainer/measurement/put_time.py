"""How soon an item is found that is put into a running service: a real process, a real Redis, real requests."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from trainer.measurement.cold_split import ColdSplit

MOST_SECONDS = 60.0
MARK = "mts4mm_bench_cold"


def put_seconds(store: Path, split: ColdSplit, count: int) -> list[float]:
    """Seconds from sending a PUT until a recommendation holds the item, for ``count`` held-out items one by one.

    Args:
        store: with the model that was trained without these items.
        split: what is known of them.
        count: how many are put.

    Raises:
        UserError: the service does not start, refuses an item, or does not find one.
    """
    user = split.warm.user_ids[int(split.warm.users[0])]
    seconds = []
    with _service(store) as address:
        for place in range(min(count, len(split.cold_items))):
            features = {
                name: rows[place].tolist() for name, rows in split.features.items() if np.abs(rows[place]).max() > 0
            }
            item_id, mark = f"{MARK}-{place}", f"{place}"
            started = time.perf_counter()
            _ask(f"{address}/items/{item_id}", "PUT", {"metadata": {MARK: mark}, "features": features})
            wanted = {"user_id": user, "k": 1, "filter": {MARK: mark}}
            while [item["item_id"] for item in _ask(f"{address}/recommend", "POST", wanted)["items"]] != [item_id]:
                if time.perf_counter() - started > MOST_SECONDS:
                    raise UserError(f"item {item_id} was put and is not found after {MOST_SECONDS:.0f} s")
            seconds.append(time.perf_counter() - started)
    return seconds


@contextmanager
def _service(store: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "service", "--models", str(store), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 (our own)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 (loopback)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise UserError("the service does not start; try 'mts4mm serve' on a model of this dataset")


def _ask(url: str, method: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(  # noqa: S310 (loopback)
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=MOST_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 422 and method == "POST":
            return {"items": []}
        raise UserError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:300]}") from None
