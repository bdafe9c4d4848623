"""What one training costs, measured while it runs: seconds by stage, peak memory, size, speed of the propagation."""

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer import checkpoint
from trainer.dataset import TRAIN, Dataset, load_dataset
from trainer.device import choose_device
from trainer.measurement.bandwidth import Bandwidth, measure_bandwidth
from trainer.measurement.scaling import with_scaled_batches
from trainer.measurement.synthetic import synthetic_dataset
from trainer.own_process import own_memory_mb
from trainer.recipe import Recipe
from trainer.stopwatch import listen
from trainer.training import BEST_FILE, EpochRecord, Listener, Metrics, Progress, TrainingRun

VALIDATION_STAGE = "validation"
BEFORE_THE_EPOCHS = "linear teacher's figures"
OTHER = "other"


@dataclass(frozen=True)
class ToBest:
    """A training until the recipe's patience ran out.

    Attributes:
        epoch: the best one, of several students the first's.
        seconds: from the start of the preparation to the end of that epoch.
        total_seconds: to the embeddings that would be exported, consolidation and test included.
        validation: metrics of those embeddings; likewise ``test``.
    """

    epoch: int
    seconds: float
    total_seconds: float
    validation: Metrics
    test: Metrics


@dataclass(frozen=True)
class TrainingCost:
    """The measurement of one training.

    Attributes:
        dataset: its name.
        interactions: of all splits.
        width: of the embeddings.
        steps: an epoch.
        epochs: how many were trained, of several students by the first.
        threads: that computed.
        student_parameters: how many numbers are learnt; likewise the teachers'.
        loading_seconds: reading the dataset, or making it.
        preparation_seconds: from the dataset to the first epoch.
        epoch_seconds: median training time of an epoch, without its validation.
        evaluation_seconds: median time of the student's validation.
        loaded_memory_mb: resident memory with nothing but the dataset.
        peak_memory_mb: highest resident memory of the process.
        peak_device_memory_mb: highest memory taken on the GPU; None on a CPU.
        preparation: seconds by stage, each without the stages inside it, largest first.
        epoch: the same for the mean epoch, with its validation and checkpoint.
        bandwidth: of the propagation.
        validation: the student's metrics at its best epoch.
        to_best: None if only a few epochs were asked for.
    """

    dataset: str
    users: int
    items: int
    interactions: int
    width: int
    batch_size: int
    steps: int
    epochs: int
    device: str
    threads: int
    student_parameters: int
    teacher_parameters: int
    loading_seconds: float
    preparation_seconds: float
    epoch_seconds: float
    evaluation_seconds: float
    loaded_memory_mb: float
    peak_memory_mb: float
    peak_device_memory_mb: float | None
    preparation: dict[str, float]
    epoch: dict[str, float]
    bandwidth: Bandwidth
    validation: Metrics
    to_best: ToBest | None


def cost_to_best(
    directory: Path, recipe: Recipe, seed: int, device: str, folder: Path, listener: Listener
) -> TrainingCost:
    """Train on a dataset directory until the recipe's patience runs out, with consolidation and test.

    Args:
        directory: of the dataset.
        recipe: to train by.
        seed: of the training.
        device: auto, cpu or cuda.
        folder: an empty one for the run's files.
        listener: told how far the run is.

    Raises:
        UserError: as in a training.
    """
    return _measure(lambda: load_dataset(directory), lambda _: recipe, seed, device, folder, listener, to_best=True)


def cost_of_epochs(
    directory: Path, recipe: Recipe, epochs: int, seed: int, device: str, folder: Path, listener: Listener
) -> TrainingCost:
    """Train a few epochs on a dataset directory, without consolidation; else like ``cost_to_best``."""
    few = _so_many_epochs(recipe, epochs)
    return _measure(lambda: load_dataset(directory), lambda _: few, seed, device, folder, listener, to_best=False)


def cost_of_synthetic(
    interactions: int, recipe: Recipe, epochs: int, seed: int, device: str, folder: Path, listener: Listener
) -> TrainingCost:
    """Train a few epochs on a synthetic dataset, in batches that grow with it; else like ``cost_to_best``."""
    few = _so_many_epochs(recipe, epochs)

    def load() -> Dataset:
        listener.stage(f"synthetic shop of {interactions:,} interactions")
        return synthetic_dataset(interactions, recipe.neighbours, seed)

    def scaled(dataset: Dataset) -> Recipe:
        return with_scaled_batches(few, dataset)

    return _measure(load, scaled, seed, device, folder, listener, to_best=False)


def _so_many_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return recipe.model_copy(update={"epochs": epochs, "patience": epochs})


class _Watch:
    """A run's listener that notes what was spent, on its preparation and on each epoch of its first student."""

    def __init__(self, listener: Listener, spent: dict[str, float]) -> None:
        self._told = listener
        self._spent = spent
        self.began = time.perf_counter()
        self.best_at = self.began
        self.steps = 0
        self.records: list[EpochRecord] = []
        self.validations: list[float] = []
        self._epochs_ended = False
        self.listener = Listener(stage=listener.stage, step=self._step, epoch=self._epoch)

    def end_preparation(self) -> None:
        """All stages so far were the preparation's."""
        self._prepared = time.perf_counter()
        self._preparation = dict(self._spent)
        self._spent.clear()

    def end_epochs(self) -> None:
        """All stages since were the epochs', but for the linear teacher's figures, which were taken before them."""
        self._epochs_ended = True
        stages = dict(self._spent)
        judging = stages.pop(BEFORE_THE_EPOCHS, 0.0)
        self.preparation_seconds = self._prepared - self.began + judging
        self.preparation = _breakdown(self._preparation | {BEFORE_THE_EPOCHS: judging}, self.preparation_seconds)
        count = len(self.records)
        seconds = (time.perf_counter() - self._prepared - judging) / count
        self.epoch = _breakdown({name: whole / count for name, whole in stages.items()}, seconds)

    def _step(self, done: int, total: int) -> None:
        self.steps = total
        self._told.step(done, total)

    def _epoch(self, record: EpochRecord, progress: Progress) -> None:
        if not self._epochs_ended:  # what comes later are the other students'
            self.records.append(record)
            self.validations.append(self._spent[VALIDATION_STAGE] - sum(self.validations))
            if progress.best_epoch == record.epoch:
                self.best_at = time.perf_counter()
        self._told.epoch(record, progress)


def _measure(
    load: Callable[[], Dataset],
    choose: Callable[[Dataset], Recipe],
    seed: int,
    device_name: str,
    folder: Path,
    listener: Listener,
    *,
    to_best: bool,
) -> TrainingCost:
    device = choose_device(device_name)
    settle = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    started = time.perf_counter()
    dataset = load()
    loading_seconds = time.perf_counter() - started
    loaded_memory_mb = own_memory_mb(peak=False)
    recipe = choose(dataset)
    with listen(settle) as spent:
        watch = _Watch(listener, spent)
        run = TrainingRun(dataset, recipe, seed, folder, device, watch.listener)
        watch.end_preparation()
        run.train()
        watch.end_epochs()
        best = _finish(run, watch) if to_best else None
        peak_memory_mb = own_memory_mb(peak=True)
        validation = run.progress.validation
    del run  # for what is loaded and measured below
    gc.collect()
    weights = checkpoint.load(folder / BEST_FILE)
    on_device = [record.peak_device_memory_mb or 0.0 for record in watch.records]
    return TrainingCost(
        dataset=dataset.name,
        users=len(dataset.user_ids),
        items=len(dataset.item_ids),
        interactions=len(dataset.users),
        width=recipe.width,
        batch_size=recipe.batch_size,
        steps=watch.steps,
        epochs=len(watch.records),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        student_parameters=_size(weights["student"].values()),
        teacher_parameters=_size(weights["teachers"].values()),
        loading_seconds=loading_seconds,
        preparation_seconds=watch.preparation_seconds,
        epoch_seconds=statistics.median(record.seconds["training"] for record in watch.records),
        evaluation_seconds=statistics.median(watch.validations),
        loaded_memory_mb=loaded_memory_mb,
        peak_memory_mb=peak_memory_mb,
        peak_device_memory_mb=max(on_device) if device.type == "cuda" else None,
        preparation=watch.preparation,
        epoch=watch.epoch,
        bandwidth=measure_bandwidth(dataset.interactions(TRAIN), recipe.width, device, settle),
        validation=validation,
        to_best=best,
    )


def _finish(run: TrainingRun, watch: _Watch) -> ToBest:
    trained = run.finish()
    return ToBest(
        epoch=trained.best_epoch,
        seconds=watch.best_at - watch.began,
        total_seconds=time.perf_counter() - watch.began,
        validation=trained.validation,
        test=trained.test,
    )


def _size(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _breakdown(stages: dict[str, float], total: float) -> dict[str, float]:
    """Stages by falling time, with what belongs to none of them."""
    whole = {**stages, OTHER: total - sum(stages.values())}
    return dict(sorted(((name, seconds) for name, seconds in whole.items() if seconds > 0), key=lambda each: -each[1]))
