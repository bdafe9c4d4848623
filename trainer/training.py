"""The training run, top to bottom: epochs, validation, early stopping, checkpoints, the test at the best epoch."""

import json
import math
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared import durable
from shared.errors import UserError
from trainer import checkpoint
from trainer.consolidation import StudentTables, can_decompose, consolidate, joined_parts, side_by_side
from trainer.dataset import TEST, TRAIN, VALIDATION, Dataset
from trainer.distill import LOSS_TERMS, Distillation
from trainer.evaluation import Holdout, evaluate, evaluate_scores
from trainer.inputs import Stage, TrainingInputs, hide_content, prepare_inputs
from trainer.linear_teacher import LinearTeacher
from trainer.recipe import Recipe
from trainer.sampler import TripletSampler, epoch_generator
from trainer.stopwatch import stopped_items, stopwatch
from trainer.warm_start import WarmStart

LINEAR_TEACHER = "linear"
SELECTION_METRIC = "recall@20"
MISSING_SHARES = (0.0, 0.25, 0.5, 0.75)
TEACHERS_EVALUATED_EVERY = 5
CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"
METRICS_FILE = "metrics.jsonl"

_WITHOUT_VALIDATION_USERS = {
    "given": "use --split random or --split global_time, or label some interactions with x_label 1",
    "random": "bring more interactions: of at least one user 3",
    "global_time": "use --split random, or bring users who have interactions in the last fifth and before",
}
"""By the kind of split, what to do without users who could be validated on."""

Metrics = dict[str, float]


@dataclass
class Progress:
    """What early stopping knows after an epoch, and a resumed run must know again.

    Attributes:
        epoch: epochs finished.
        best_epoch: the one with the best validation figure, counted from 1; 0 before any.
        validation: the student's validation metrics at that epoch.
        teachers: each teacher's validation and test metrics at its own best epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    validation: Metrics = field(default_factory=dict)
    teachers: dict[str, dict[str, Metrics]] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochRecord:
    """One line of ``metrics.jsonl``.

    Attributes:
        losses: mean of every term of Eq. 30 over the epoch's steps.
        student: validation metrics of the student.
        teachers: the same of each teacher, every ``TEACHERS_EVALUATED_EVERY`` epochs.
        seconds: training and validation time of this epoch.
        peak_memory_mb: highest resident memory of the process so far.
        peak_device_memory_mb: highest memory taken on the GPU so far; None on a CPU.
    """

    epoch: int
    losses: Metrics
    student: Metrics
    teachers: dict[str, Metrics]
    seconds: dict[str, float]
    peak_memory_mb: float
    peak_device_memory_mb: float | None


@dataclass(frozen=True)
class TrainedStudent:
    """What a finished run hands to the export.

    Attributes:
        user_embeddings: (users, width) float32 at the best epoch.
        item_embeddings: (items, width).
        validation: the student's metrics at the best epoch.
        test: its test metrics at that same epoch.
        user_parts: what the user embeddings are the sum of, (users, width) each: Eq. 21's terms, and the linear
            teacher's where it was joined.
        teachers: each teacher's validation and test metrics at its own best epoch.
        alone: the student's metrics at that epoch before it was joined with the linear teacher; of several students
            side by side.
        best_epoch: of the first student; likewise ``epochs``, those that it was trained for.
        missing: test metrics of the first student alone by the share of items without content, where that was asked
            for.
    """

    user_embeddings: NDArray[np.float32]
    item_embeddings: NDArray[np.float32]
    user_parts: dict[str, NDArray[np.float32]]
    validation: Metrics
    test: Metrics
    teachers: dict[str, dict[str, Metrics]]
    alone: dict[str, Metrics]
    best_epoch: int
    epochs: int
    missing: dict[str, Metrics] = field(default_factory=dict)


@dataclass(frozen=True)
class Listener:
    """Who is told how far a run is, to show it."""

    stage: Stage = lambda name: None
    step: Callable[[int, int], None] = lambda done, total: None
    epoch: Callable[[EpochRecord, Progress], None] = lambda record, progress: None


class TrainingRun:
    """A run in a working folder; an unfinished one in that folder is taken up where it stopped.

    Where the recipe wants several students, the run's own is the first, and ``finish`` trains the others after it, each
    as a run of its own in a folder below, which begins as the first one did.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        seed: int,
        folder: Path,
        device: torch.device,
        listener: Listener | None = None,
        warm_start: WarmStart | None = None,
        inputs: TrainingInputs | None = None,
    ) -> None:
        """Prepare everything, and take up what the folder has.

        Args:
            dataset: to learn from.
            recipe: how.
            seed: of initialisation and sampling; of n students the k-th, from 0, has n times the seed plus k.
            folder: where checkpoints and ``metrics.jsonl`` go.
            device: where to compute.
            listener: told how far it is.
            warm_start: an earlier model that every student begins from, instead of from chance or the linear teacher;
                it has to be the same one whenever the run is taken up.
            inputs: of this dataset and recipe, where they have been prepared already.
        """
        self._dataset = dataset
        self._recipe = recipe
        self._warm_start = warm_start
        self._seed = seed * recipe.students
        self._folder = folder
        self._listener = listener or Listener()
        inputs = inputs or prepare_inputs(dataset, recipe, device, self._listener.stage)
        self._device = device
        self._users = len(dataset.user_ids)
        chances = dataset.relative_weights(TRAIN) if recipe.draw_by_weight else None
        self._sampler = TripletSampler(inputs.interactions, chances)
        self._validation = Holdout(inputs.interactions, dataset.interactions(VALIDATION))
        self._test = Holdout(inputs.interactions, dataset.interactions(TEST))
        self._require_enough_data(dataset)
        self._model = Distillation(inputs, recipe, self._seed)
        self._inputs = inputs
        self._linear = inputs.linear
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT_FILE).exists():
            self._restore()
        else:
            (folder / METRICS_FILE).unlink(missing_ok=True)
            if warm_start is None:
                self._model.start_from_linear_teacher(self._seed)
            else:
                warm_start.begin(self._model, inputs, dataset)

    def finish(self, may_go_on: Callable[[], bool] = lambda: True) -> TrainedStudent:
        """Train as ``train`` does, then the other students, and judge what they are at their best on the test split.

        Another student is begun only while ``may_go_on``, and does not count if that stopped it too early.
        """
        self.train(may_go_on)
        return self._best_student(self._other_students(may_go_on))

    def train(self, may_go_on: Callable[[], bool] = lambda: True) -> None:
        """Train until early stopping, the recipe's last epoch, or no more may be begun; one epoch is run always."""
        if self._linear is not None and not self.progress.epoch:
            self._judge_linear_teacher(self._linear)
        while not self._is_over():
            if self.progress.epoch and not may_go_on():
                break
            self._run_epoch()

    @stopwatch("missing content")
    def with_content_missing(self) -> dict[str, Metrics]:
        """Test metrics of the finished student by the share of items whose content is hidden, of each modality others.

        The first student alone, not joined with others or the linear teacher; nothing where there is no content.
        """
        if not self._inputs.modalities:
            return {}
        figures = {}
        for share in MISSING_SHARES:
            self._listener.stage(f"student with {share:.0%} of the content missing")
            views = hide_content(self._inputs, self._recipe, share, np.random.default_rng(self._seed))
            figures[f"{share:g}"] = evaluate(self._model.student_embeddings_given(views), self._test)
        return figures

    def teacher_embeddings(self) -> dict[str, NDArray[np.float32]]:
        """What each view's teacher knows, (users + items, width): of the best epoch once the run is finished."""
        return {name: view.cpu().numpy() for name, view in self._model.teacher_embeddings().items()}

    @property
    def linear_teacher(self) -> LinearTeacher | None:
        """The linear teacher, if the recipe wants it."""
        return self._linear

    def for_warm_start(self, dataset: Dataset) -> WarmStart:
        """What a later run can begin from: the first student's model of the best epoch, once the run is finished."""
        return WarmStart.of(self._model, self._inputs, dataset)

    def _other_students(self, may_go_on: Callable[[], bool]) -> list[StudentTables]:
        """All but the first that are trained to their end, at their best epochs."""
        others: list[StudentTables] = []
        if self._joined_with is None:
            return others
        recipe = self._recipe.model_copy(update={"students": 1})
        for place in range(1, self._recipe.students):
            if not may_go_on():
                break
            self._listener.stage(f"student {place + 1} of {self._recipe.students}")
            folder = self._folder / f"student-{place + 1}"
            run = TrainingRun(
                self._dataset,
                recipe,
                self._seed + place,
                folder,
                self._device,
                self._listener,
                self._warm_start,
                self._inputs,
            )
            run.train(may_go_on)
            if run._is_over():
                others.append(run._best_tables())
        return others

    @stopwatch("linear teacher's figures")
    def _judge_linear_teacher(self, teacher: LinearTeacher) -> None:
        if not can_decompose(teacher, self._users):
            self._listener.stage("student without start tables and consolidation: too many users and items for them")

        self.progress.teachers[LINEAR_TEACHER] = {
            "validation": evaluate_scores(teacher.scores_of_catalogue, self._validation),
            "test": evaluate_scores(teacher.scores_of_catalogue, self._test),
        }

    def _run_epoch(self) -> None:
        epoch = self.progress.epoch + 1
        started = time.perf_counter()
        terms = self._train_epoch(epoch)
        trained = time.perf_counter()
        with stopwatch("validation"):
            student = evaluate(self._model.student_embeddings(), self._validation)
        teachers = self._judge_teachers() if epoch % TEACHERS_EVALUATED_EVERY == 0 else {}
        improved = student[SELECTION_METRIC] > self.progress.validation.get(SELECTION_METRIC, -math.inf)
        self.progress.epoch = epoch
        if improved:
            self.progress.best_epoch, self.progress.validation = epoch, student
            checkpoint.save(self._folder / BEST_FILE, self._weights())
        record = EpochRecord(
            epoch=epoch,
            losses=terms,
            student=student,
            teachers=teachers,
            seconds={"training": trained - started, "validation": time.perf_counter() - trained},
            peak_memory_mb=peak_memory_mb(),
            peak_device_memory_mb=_peak_device_memory_mb(self._device),
        )
        self._append(record)
        self._save()
        self._listener.epoch(record, self.progress)

    def _train_epoch(self, epoch: int) -> Metrics:
        generator = epoch_generator(self._seed, epoch)
        self._model.start_epoch(generator)
        sums = dict.fromkeys(LOSS_TERMS, 0.0)
        steps = math.ceil(len(self._sampler) / self._recipe.batch_size)
        batches = stopped_items("sampler", self._sampler.batches(self._recipe.batch_size, generator))
        done = 0
        for done, triplets in enumerate(batches, start=1):
            for name, value in self._model.step(triplets, generator).items():
                sums[name] += value
            self._listener.step(done, steps)
        return {name: value / max(done, 1) for name, value in sums.items()}

    def _judge_teachers(self) -> dict[str, Metrics]:
        """Validate each teacher, and test those that have got better, at their own best."""
        validated = {}
        for name, embeddings in self._model.teacher_embeddings().items():
            metrics = validated[name] = evaluate(embeddings, self._validation)
            best = self.progress.teachers.get(name)
            if best is None or metrics[SELECTION_METRIC] > best["validation"][SELECTION_METRIC]:
                self.progress.teachers[name] = {
                    "validation": metrics,
                    "test": evaluate(embeddings, self._test),
                }
        return validated

    def _is_over(self) -> bool:
        out_of_patience = self.progress.epoch - self.progress.best_epoch >= self._recipe.patience
        return out_of_patience or self.progress.epoch >= self._recipe.epochs

    def _best_tables(self) -> StudentTables:
        """The student of the best epoch, which is the model's from now on."""
        best = checkpoint.load(self._folder / BEST_FILE)
        self._model.student.load_state_dict(best["student"])
        self._model.teachers.load_state_dict(best["teachers"])
        return StudentTables(self._model.student_embeddings(), self._model.user_parts())

    def _best_student(self, others: list[StudentTables]) -> TrainedStudent:
        own = self._best_tables()
        if not self.progress.teachers.keys() - {LINEAR_TEACHER}:
            self._judge_teachers()
        students = side_by_side([own, *others], self._users) if others else own
        student = students.embeddings
        alone = {
            "validation": evaluate(student, self._validation) if others else self.progress.validation,
            "test": evaluate(student, self._test),
        }
        embeddings, validation = self._consolidated(student, alone["validation"])
        exported = embeddings.cpu().numpy()
        return TrainedStudent(
            user_embeddings=exported[: self._users],
            item_embeddings=exported[self._users :],
            user_parts=self._user_parts(students, embeddings),
            validation=validation,
            test=alone["test"] if embeddings is student else evaluate(embeddings, self._test),
            teachers=self.progress.teachers,
            alone=alone,
            best_epoch=self.progress.best_epoch,
            epochs=self.progress.epoch,
        )

    @property
    def _joined_with(self) -> LinearTeacher | None:
        """The linear teacher, if the students are joined with it and each other in the end."""
        if self._linear is None or self._recipe.consolidated_width == 0:
            return None
        return self._linear if can_decompose(self._linear, self._users) else None

    def _consolidated(self, student: torch.Tensor, alone: Metrics) -> tuple[torch.Tensor, Metrics]:
        """The embeddings to export and their validation metrics: joined with the linear teacher if that is better.

        Without a linear teacher, or with too many users and items (``can_decompose``), the student as it is.

        Args:
            student: its embeddings.
            alone: its validation metrics.
        """
        linear = self._joined_with
        if linear is None:
            return student, alone
        self._listener.stage("consolidated embeddings")
        width, focus = self._recipe.consolidated_width, self._recipe.consolidation_focus
        joined = consolidate(student, linear, self._validation, width, focus, self._seed)
        validation = evaluate(joined, self._validation)
        return (joined, validation) if validation[SELECTION_METRIC] > alone[SELECTION_METRIC] else (student, alone)

    def _user_parts(self, students: StudentTables, exported: torch.Tensor) -> dict[str, NDArray[np.float32]]:
        parts, student = students.user_parts, students.embeddings
        if exported is not student:
            parts = joined_parts(parts, student[self._users :], exported[self._users :])
            parts[LINEAR_TEACHER] = exported[: self._users] - torch.stack(list(parts.values())).sum(dim=0)
        return {name: part.cpu().numpy() for name, part in parts.items()}

    def _weights(self) -> dict[str, Any]:
        return {"student": self._model.student.state_dict(), "teachers": self._model.teachers.state_dict()}

    def _save(self) -> None:
        state = {
            **self._weights(),
            "optimiser": self._model.optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        checkpoint.save(self._folder / CHECKPOINT_FILE, state)

    def _restore(self) -> None:
        state = checkpoint.load(self._folder / CHECKPOINT_FILE)
        self._model.student.load_state_dict(state["student"])
        self._model.teachers.load_state_dict(state["teachers"])
        self._model.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        self._forget_unfinished_lines()

    def _forget_unfinished_lines(self) -> None:
        """Drop what was logged after the last checkpoint: those epochs will be run again."""
        path = self._folder / METRICS_FILE
        finished = path.read_bytes().splitlines(keepends=True)[: self.progress.epoch]
        with durable.replacing(path) as file:
            file.write(b"".join(finished))

    def _append(self, record: EpochRecord) -> None:
        with (self._folder / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _require_enough_data(self, dataset: Dataset) -> None:
        name = dataset.name
        weights = dataset.relative_weights(TRAIN) if self._recipe.draw_by_weight else None
        if weights is not None and not weights.any():
            raise UserError(
                f"dataset {name}: all training interactions weigh 0, and draw_by_weight=true draws them by their "
                "weight, so none: give weights above 0, or set draw_by_weight=false"
            )
        if len(self._sampler) == 0:
            raise UserError(f"dataset {name}: nothing to learn from, every user took either no item or all of them")
        if len(self._validation.users()) == 0:
            raise UserError(
                f"dataset {name}: no user has both training and validation interactions, so the best epoch cannot "
                f"be chosen; {_WITHOUT_VALIDATION_USERS[dataset.split.kind]}"
            )


def forget_checkpoints(folder: Path) -> None:
    """Remove what a run in that folder, and its other students, would go on from."""
    for path in folder.rglob(CHECKPOINT_FILE):
        path.unlink()


def forget_weights(folder: Path) -> None:
    """Remove the best models too, for a run that nobody goes on with."""
    forget_checkpoints(folder)
    for path in folder.rglob(BEST_FILE):
        path.unlink()


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peak_device_memory_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
