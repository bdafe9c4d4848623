"""A finished training's model once more: its views, and its student with fewer of them."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from trainer import checkpoint
from trainer.dataset import Dataset
from trainer.distill import Distillation
from trainer.inputs import prepare_inputs
from trainer.recipe import Recipe
from trainer.student import tempered
from trainer.training import BEST_FILE
from trainer.views import ID_VIEW


class TrainedModel:
    """Student and teachers at the best epoch, as a run's folder keeps them. All embeddings are users first."""

    def __init__(self, folder: Path, dataset: Dataset, recipe: Recipe, seed: int, device: torch.device) -> None:
        without_linear = recipe.model_copy(update={"linear": 0.0})  # inference never asks the linear teacher
        self._inputs = prepare_inputs(dataset, without_linear, device)
        self._tempering = recipe.item_tempering
        self._users = len(dataset.user_ids)
        self._model = Distillation(self._inputs, without_linear, seed)
        best = checkpoint.load(folder / BEST_FILE)
        self._model.student.load_state_dict(best["student"])
        self._model.teachers.load_state_dict(best["teachers"])
        self.present = self._inputs.present
        """(users + items,) bool for each content view, which nodes have it."""

    @torch.no_grad()
    def student_views(self) -> dict[str, Tensor]:
        """Eq. 17 by view, (users + items, width) each."""
        views: dict[str, Tensor] = self._model.student.encoders(self._inputs.bipartite, self._inputs.modalities)
        return views

    def teacher_views(self) -> dict[str, Tensor]:
        """Eq. 14-15 by view, (users + items, width) each."""
        return self._model.teacher_embeddings()

    @torch.no_grad()
    def student(self, kept: Collection[str]) -> Tensor:
        """Eq. 31's embeddings of the student as if only the ``kept`` views existed, (users + items, width).

        The other content views are absent from Eq. 18-21. Without ``id`` what is left is Eq. 21's content part.
        """
        present = {name: mask & (name in kept) for name, mask in self.present.items()}
        fused = self._model.student.fusion(self.student_views(), present)
        embeddings = fused.student if ID_VIEW in kept else fused.content
        return tempered(embeddings, self._users, self._tempering)
