"""What it takes to load a large artefact: seconds until the service is ready, and memory in each of its workers.

Measured from outside on ``python -m service``, in ``/proc``: what is resident counts the pages of mapped files that a
process has touched, what is private is what another worker costs.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError
from trainer.index_choice import choose_index
from trainer.measurement.vectors import synthetic_vectors

INTERACTIONS_PER_USER = 10
INDEX = "norm-ordered"
"""The only kind that is tried, since it is built in a moment; `mts4mm bench index` compares all."""

LONGEST_SECONDS = 300.0
_MAPPED = "item_embeddings.npy"
_PAUSE = 0.02


@dataclass(frozen=True)
class Worker:
    """Of one worker, in MB: resident; its own share where pages are shared; private. And the seconds it computed."""

    resident: float
    proportional: float
    private: float
    cpu_seconds: float


@dataclass(frozen=True)
class ServiceLoad:
    """Seconds from the start of the process until every worker has the model and one says it is ready; memory then."""

    ready_seconds: float
    workers: list[Worker]


def large_store(
    folder: Path, users: int, items: int, width: int, seed: int, on_progress: Callable[[str], None]
) -> None:
    """Publish a synthetic model of a size to ``folder``, unless its current model is one of that size.

    Raises:
        UserError: the folder holds another model.
    """
    if (version := artifact.current_version(folder)) is not None:
        described = artifact.load(folder, version).manifest.dataset
        if (described.users, described.items) != (users, items):
            raise UserError(f"{folder}: holds a model of another size. Give another --out, or remove it")
        return
    on_progress("making embeddings")
    item_vectors, user_vectors = synthetic_vectors(items, users, width, seed)
    on_progress("making interactions")
    generator = np.random.default_rng([seed, users, items])
    taken = np.sort(generator.integers(0, items, (users, INTERACTIONS_PER_USER), dtype=np.int32), axis=1)
    kept = np.diff(taken, axis=1, prepend=np.int32(-1)) > 0
    folder.mkdir(parents=True, exist_ok=True)
    attachments = choose_index(item_vectors, user_vectors[:10_000], seed, folder, on_progress, [INDEX])
    model = StudentModel(
        user_ids=[f"u{user}" for user in range(users)],
        item_ids=[f"i{item}" for item in range(items)],
        user_embeddings=user_vectors,
        item_embeddings=item_vectors,
        train_indptr=np.concatenate([[0], np.cumsum(kept.sum(axis=1))]),
        train_indices=taken[kept],
        attachments=attachments,
    )
    on_progress("publishing")
    dataset = DatasetInfo(
        name=f"synthetic-{users}-{items}",
        fingerprint=f"seed {seed}",
        users=users,
        items=items,
        interactions=int(kept.sum()),
        split=Split(kind="none"),
    )
    artifact.publish(folder, model, Provenance(dataset, {}, seed, {}))
    for path in folder.glob("index.*"):
        path.unlink()
    (folder / "candidate").unlink(missing_ok=True)


def measure_load(store: Path, workers: int, port: int) -> ServiceLoad:
    """Start the service on a store, wait until it is ready, and stop it again.

    Raises:
        UserError: it ended, or was not ready in ``LONGEST_SECONDS``.
    """
    command = [sys.executable, "-m", "service", "--models", str(store), "--port", str(port), "--workers", str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MTS4MM_LOG_LEVEL": "warning"}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own interpreter
    try:
        while len(with_model := _processes_with_model(process.pid)) < workers or not _is_ready(port):
            if process.poll() is not None:
                raise UserError(f"the service ended with exit code {process.returncode}; what it said is above")
            if time.perf_counter() - started > LONGEST_SECONDS:
                raise UserError(f"the service was not ready after {LONGEST_SECONDS:.0f} s")
            time.sleep(_PAUSE)
        seconds = time.perf_counter() - started
        return ServiceLoad(seconds, [_worker(pid) for pid in with_model])
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _processes_with_model(pid: int) -> list[int]:
    """The process and its children, as far as they have mapped the item embeddings."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid, *map(int, children.read_text(encoding="utf-8").split())] if children.exists() else []
    return [candidate for candidate in found if _has_mapped(candidate)]


def _has_mapped(pid: int) -> bool:
    try:
        return _MAPPED in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except OSError:
        return False


def _worker(pid: int) -> Worker:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    megabytes = {name: int(rest.split()[0]) / 1024 for name, rest in (line.split(":", 1) for line in lines)}
    private = megabytes["Private_Clean"] + megabytes["Private_Dirty"]
    ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return Worker(megabytes["Rss"], megabytes["Pss"], private, sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))
