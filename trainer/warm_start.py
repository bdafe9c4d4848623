"""Beginning from an earlier model: its tables and weights, matched by the ids of users and items, never by position.

Users and items come, go and change places from one night to the next. A row of a table belongs to an id and follows
it; whoever is new keeps the row that chance gave. The content gates of Eq. 10-11 are linear maps of the features,
and these may have other columns tonight (another reduction, another encoder): they are matched by what they say of
the items that both nights know, by least squares.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import UserError
from trainer import checkpoint
from trainer.dataset import Dataset
from trainer.distill import Distillation
from trainer.inputs import TrainingInputs
from trainer.views import ViewEncoders

LEAST_SHARED_ITEMS = 10
"""With fewer items in common there is nothing to begin from."""
GATE_RIDGE = 1e-4

_SIDES = ("student", "teachers")


@dataclass(frozen=True)
class WarmStart:
    """A finished model with the ids of its rows.

    Attributes:
        user_ids: rows of the collaborative tables, before ``item_ids``.
        item_ids: the other rows, and those of the content tables.
        tables: by side (student, teachers) and view, one row an id.
        gates: by side and modality, what the gate says of every item before its sigmoid, (items, width).
        fusion: the student's weights of Eq. 18-20 by name.
        present: by modality, which items have it.
    """

    user_ids: list[str]
    item_ids: list[str]
    tables: dict[str, dict[str, Tensor]]
    gates: dict[str, dict[str, Tensor]]
    fusion: dict[str, Tensor]
    present: dict[str, Tensor]

    @classmethod
    def of(cls, model: Distillation, inputs: TrainingInputs, dataset: Dataset) -> Self:
        """Take what a model has learnt."""
        tables: dict[str, dict[str, Tensor]] = {}
        gates: dict[str, dict[str, Tensor]] = {}
        with torch.no_grad():
            for side, encoders in _encoders(model).items():
                tables[side] = {"id": encoders.id.table.cpu().clone()}
                gates[side] = {}
                for name, encoder in _content(encoders).items():
                    tables[side][name] = encoder.table.cpu().clone()
                    gates[side][name] = encoder.gate(inputs.modalities[name].features).cpu().clone()
        return cls(
            user_ids=dataset.user_ids,
            item_ids=dataset.item_ids,
            tables=tables,
            gates=gates,
            fusion={name: value.cpu().clone() for name, value in model.student.fusion.state_dict().items()},
            present={name: torch.from_numpy(dataset.modalities[name].present) for name in inputs.modalities},
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            UserError: the file cannot be read, or is none of these.
        """
        state = checkpoint.load(path)
        try:
            return cls(**state)
        except TypeError as error:
            raise UserError(f"{path}: no warm start of this version of mts4mm") from error

    def save(self, path: Path) -> None:
        """Replace ``path`` by it, durably."""
        checkpoint.save(path, vars(self))

    def without(self, users: Collection[str]) -> Self:
        """The same of all users but some, who begin as new ones."""
        gone = frozenset(users)
        kept = [place for place, user in enumerate(self.user_ids) if user not in gone]
        rows = torch.tensor([*kept, *range(len(self.user_ids), len(self.user_ids) + len(self.item_ids))])
        tables = {side: {**views, "id": views["id"][rows]} for side, views in self.tables.items()}
        return replace(self, user_ids=[self.user_ids[place] for place in kept], tables=tables)

    def suits(self, dataset: Dataset, width: int, modalities: set[str]) -> str | None:
        """Why a model of that width over these modalities cannot begin from it; None if it can."""
        had = self.tables["student"]["id"].shape[1]
        if had != width:
            return f"the width changed from {had} to {width}"
        if modalities != set(self.present):
            return f"the modalities changed from {sorted(self.present)} to {sorted(modalities)}"
        shared = len(set(self.item_ids) & set(dataset.item_ids))
        if shared < LEAST_SHARED_ITEMS:
            return f"only {shared} items are the same"
        return None

    @torch.no_grad()
    def begin(self, model: Distillation, inputs: TrainingInputs, dataset: Dataset) -> None:
        """Set the weights of a fresh model.

        Raises:
            UserError: it cannot begin from here, see :meth:`suits`.
        """
        width = model.student.encoders.id.table.shape[1]
        unsuited = self.suits(dataset, width, set(inputs.modalities))
        if unsuited is not None:
            raise UserError(f"no warm start: {unsuited}")
        users, items = _matches(self.user_ids, dataset.user_ids), _matches(self.item_ids, dataset.item_ids)
        nodes = (
            np.concatenate([users[0], items[0] + len(self.user_ids)]),
            np.concatenate([users[1], items[1] + len(dataset.user_ids)]),
        )
        for side, encoders in _encoders(model).items():
            _copy_rows(encoders.id.table, self.tables[side]["id"], nodes)
            for name, encoder in _content(encoders).items():
                _copy_rows(encoder.table, self.tables[side][name], items)
                features = inputs.modalities[name].features
                had = self.present[name].numpy()[items[0]] & dataset.modalities[name].present[items[1]]
                if had.any():
                    known = features[torch.as_tensor(items[1][had], device=features.device)]
                    _fit_gate(encoder.gate, known, self.gates[side][name][torch.as_tensor(items[0][had])])
        own = model.student.fusion.state_dict()
        model.student.fusion.load_state_dict(own | {n: v for n, v in self.fusion.items() if n in own})


def _encoders(model: Distillation) -> dict[str, ViewEncoders]:
    return dict(zip(_SIDES, (model.student.encoders, model.teachers.encoders), strict=True))


def _content(encoders: ViewEncoders) -> dict[str, Any]:
    return dict(zip(encoders.modalities, encoders.content, strict=True))


def _matches(old: list[str], new: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Old and new positions of the ids that both have."""
    places = {each: place for place, each in enumerate(old)}
    pairs = [(places[each], place) for place, each in enumerate(new) if each in places]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _copy_rows(table: nn.Parameter, old: Tensor, rows: tuple[NDArray[np.int64], NDArray[np.int64]]) -> None:
    had, now = (torch.as_tensor(positions) for positions in rows)
    table[now.to(table.device)] = old[had].to(table.device)


def _fit_gate(gate: nn.Linear, features: Tensor, said: Tensor) -> None:
    """Weights and bias by which the gate says nearly the same of the same items, by ridge regression."""
    ones = torch.ones(len(features), 1, dtype=torch.float64)
    known = torch.cat([features.cpu().double(), ones], dim=1)
    gram = known.T @ known
    ridge = GATE_RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solved = torch.linalg.solve(gram + ridge, known.T @ said.double())
    gate.weight.copy_(solved[:-1].T.to(gate.weight.dtype))
    gate.bias.copy_(solved[-1].to(gate.bias.dtype))
