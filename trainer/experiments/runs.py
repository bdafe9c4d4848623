"""One training of an experiment: done once, in a folder of its own, and remembered there.

``DIR/.runs/<dataset>-<hash>`` is named by data, recipe and seed. While a training runs, it holds the checkpoint that
the next call goes on from; afterwards ``result.json``, the exported embeddings and the best weights. The result is
written last and atomically: where it is, the training is over and is not done again.
"""

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared import durable
from shared.errors import UserError
from trainer import checkpoint
from trainer.dataset import Dataset
from trainer.device import usable_cores
from trainer.own_process import own_memory_mb
from trainer.recipe import Recipe
from trainer.training import (
    BEST_FILE,
    METRICS_FILE,
    Listener,
    Metrics,
    TrainedStudent,
    TrainingRun,
    forget_checkpoints,
)

RUNS_FOLDER = ".runs"
RESULT_FILE = "result.json"
USER_EMBEDDINGS_FILE = "user_embeddings.npy"
ITEM_EMBEDDINGS_FILE = "item_embeddings.npy"

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Result:
    """What a finished training leaves behind.

    Attributes:
        validation: of the exported embeddings; likewise ``test``.
        alone: the student's own metrics by split, before it was joined with the linear teacher.
        teachers: each teacher's metrics by split.
        epoch_seconds: median training time of an epoch, without its validation.
        seconds: of the whole training, preparation included.
        peak_memory_mb: highest resident memory of the process that finished the training.
        peak_device_memory_mb: highest memory taken on the GPU; None on a CPU.
        student_parameters: trained in the student, or in all of them; likewise the teachers'.
        served_parameters: numbers in the exported embeddings.
        machine: that it was trained on.
    """

    validation: Metrics
    test: Metrics
    alone: dict[str, Metrics]
    teachers: dict[str, dict[str, Metrics]]
    best_epoch: int
    epochs: int
    epoch_seconds: float
    seconds: float
    peak_memory_mb: float
    peak_device_memory_mb: float | None
    student_parameters: int
    teacher_parameters: int
    served_parameters: int
    machine: str


def run_folder(out: Path, dataset: Dataset, recipe: Recipe, seed: int, *, own_process: bool = False) -> Path:
    """Where the training of this data, recipe and seed lives; those measured in a process of their own lie apart."""
    identity = json.dumps([dataset.fingerprint, recipe.model_dump(mode="json"), seed], sort_keys=True)
    name = f"{dataset.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    return out / RUNS_FOLDER / (f"{name}-own-process" if own_process else name)


def train_once(
    folder: Path, dataset: Dataset, recipe: Recipe, seed: int, device: torch.device, listener: Listener
) -> Result:
    """Train to the end, going on from a checkpoint if there is one, or read what an earlier call has found.

    Raises:
        UserError: another process is at it, or the folder's files are damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if (folder / RESULT_FILE).exists():
            return load_result(folder)
        started = time.perf_counter()
        run = TrainingRun(dataset, recipe, seed, folder, device, listener)
        earlier = sum(sum(record["seconds"].values()) for record in _records(folder))
        trained = run.finish()
        result = _result(folder, trained, _records(folder), earlier + time.perf_counter() - started, device)
        _remember(folder, trained, recipe, seed, result)
    return result


def load_result(folder: Path) -> Result:
    """Read a finished training's result.

    Raises:
        UserError: the file is damaged, or of another version of this program.
    """
    path = folder / RESULT_FILE
    try:
        return Result(**json.loads(path.read_bytes())["result"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a usable result ({type(error).__name__}); remove its folder to train again"
        ) from error


def load_embeddings(folder: Path) -> NDArray[np.float32]:
    """The embeddings that a finished training exported, (users + items, width), users first."""
    return np.concatenate([np.load(folder / name) for name in (USER_EMBEDDINGS_FILE, ITEM_EMBEDDINGS_FILE)])


def describe_machine(device: torch.device) -> str:
    """Processor, usable cores, torch's threads and version, and the GPU where one computes."""
    processor = platform.machine()
    if _CPU_INFO.exists():
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    cores = _counted(usable_cores(), "core")
    described = f"{processor}, {cores}, {_counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}"
    return f"{torch.cuda.get_device_name(device)}, {described}" if device.type == "cuda" else described


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _result(
    folder: Path, trained: TrainedStudent, records: list[dict[str, Any]], seconds: float, device: torch.device
) -> Result:
    weights = [checkpoint.load(path) for path in folder.rglob(BEST_FILE)]
    on_device = [record["peak_device_memory_mb"] for record in records]
    return Result(
        validation=trained.validation,
        test=trained.test,
        alone=trained.alone,
        teachers=trained.teachers,
        best_epoch=trained.best_epoch,
        epochs=trained.epochs,
        epoch_seconds=statistics.median(record["seconds"]["training"] for record in records),
        seconds=seconds,
        peak_memory_mb=own_memory_mb(peak=True),
        peak_device_memory_mb=max(on_device) if device.type == "cuda" else None,
        student_parameters=sum(table.numel() for each in weights for table in each["student"].values()),
        teacher_parameters=sum(table.numel() for each in weights for table in each["teachers"].values()),
        served_parameters=trained.user_embeddings.size + trained.item_embeddings.size,
        machine=describe_machine(device),
    )


def _remember(folder: Path, trained: TrainedStudent, recipe: Recipe, seed: int, result: Result) -> None:
    tables = {USER_EMBEDDINGS_FILE: trained.user_embeddings, ITEM_EMBEDDINGS_FILE: trained.item_embeddings}
    for name, table in tables.items():
        with durable.replacing(folder / name) as file:
            np.save(file, table)
    document = {"recipe": recipe.model_dump(mode="json"), "seed": seed, "result": asdict(result)}
    with durable.replacing(folder / RESULT_FILE) as file:
        file.write(json.dumps(document, indent=2).encode())
    forget_checkpoints(folder)


def _records(folder: Path) -> list[dict[str, Any]]:
    """All epochs so far, of all students; a line that a kill cut short is none."""
    return [
        json.loads(line)
        for path in sorted(folder.rglob(METRICS_FILE))
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        with durable.exclusive(folder / "lock", wait=False):
            yield
    except BlockingIOError:
        raise UserError(f"{folder}: another process is training this very run; wait for it or stop it") from None
