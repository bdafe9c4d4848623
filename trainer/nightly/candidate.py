"""What a night's training leaves for the steps after it: the student, and what each teacher would recommend."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared import durable
from trainer.dataset import TEST, TRAIN, VALIDATION, Dataset
from trainer.evaluation import Holdout, Scores, ranked_for
from trainer.nightly.contenders import Teacher
from trainer.nightly.statistics import effective_rank
from trainer.training import LINEAR_TEACHER, TrainedStudent, TrainingRun

_PARTS, _LISTS = "part.", "list."


@dataclass(frozen=True)
class Candidate:
    """A trained student with the words of its teachers on the night's holdout."""

    trained: TrainedStudent
    teachers: dict[str, Teacher]

    def save(self, path: Path) -> None:
        """Replace ``path``, durably."""
        trained = self.trained
        arrays: dict[str, NDArray[Any]] = {
            "user_embeddings": trained.user_embeddings,
            "item_embeddings": trained.item_embeddings,
        }
        arrays |= {f"{_PARTS}{name}": part for name, part in trained.user_parts.items()}
        arrays |= {f"{_LISTS}{name}": teacher.lists for name, teacher in self.teachers.items()}
        figures = {
            name: getattr(trained, name)
            for name in ("validation", "test", "teachers", "alone", "best_epoch", "epochs", "missing")
        }
        health = {name: [teacher.finite, teacher.effective_rank] for name, teacher in self.teachers.items()}
        text = json.dumps({"figures": figures, "health": health})
        arrays["document"] = np.frombuffer(text.encode(), np.uint8)
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        with durable.replacing(path) as file:
            file.write(content.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "Candidate":
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        document = json.loads(arrays.pop("document").tobytes())
        parts = {name.removeprefix(_PARTS): array for name, array in arrays.items() if name.startswith(_PARTS)}
        teachers = {
            name: Teacher(arrays[f"{_LISTS}{name}"], finite, rank)
            for name, (finite, rank) in document["health"].items()
        }
        trained = TrainedStudent(
            user_embeddings=arrays["user_embeddings"],
            item_embeddings=arrays["item_embeddings"],
            user_parts=parts,
            **document["figures"],
        )
        return cls(trained, teachers)


def fresh_holdout(dataset: Dataset) -> Holdout:
    """What the gate judges on: the dataset's test split, with all else masked, which nobody is recommended again."""
    return Holdout(dataset.interactions(TRAIN) + dataset.interactions(VALIDATION), dataset.interactions(TEST))


def train_candidate(run: TrainingRun, dataset: Dataset, may_go_on: Callable[[], bool] = lambda: True) -> Candidate:
    """Finish a run, and ask its teachers."""
    trained = run.finish(may_go_on)
    trained = replace(trained, missing=run.with_content_missing())
    holdout = fresh_holdout(dataset)
    judged = holdout.users()
    count = len(dataset.user_ids)
    teachers = {}
    for name, embeddings in run.teacher_embeddings().items():
        table = torch.from_numpy(np.nan_to_num(embeddings))
        teachers[name] = Teacher(
            lists=ranked_for(_inner_products(table, count), judged, holdout),
            finite=bool(np.isfinite(embeddings).all()),
            effective_rank=effective_rank(np.nan_to_num(embeddings[count:])),
        )
    linear = run.linear_teacher
    if linear is not None:
        teachers[LINEAR_TEACHER] = Teacher(
            ranked_for(linear.scores_of_catalogue, judged, holdout), finite=True, effective_rank=None
        )
    return Candidate(trained, teachers)


def _inner_products(table: torch.Tensor, count: int) -> Scores:
    return lambda users: table[users] @ table[count:].T
