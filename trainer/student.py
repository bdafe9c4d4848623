"""The student, Eq. 17-21: the views' encoders, and their fusion into one embedding a user and an item.

Content views are split into what they share and what is each one's own; the own parts pass a gate set by the
collaborative view. Any number of content views works: with none the student is the collaborative view, with
one its own part is zero. A node that lacks a view is left out of each mean, not averaged in as zeros.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.views import ID_VIEW, ViewEncoders

FusionPooling = Literal["sum", "mean"]

SHARED_PART = "shared"

_ABSENT_SCORE = -1e9


@dataclass(frozen=True)
class Fused:
    """Eq. 21's outcome for n nodes.

    Attributes:
        content: E^{S^M}, (n, width); zero for a node without any content view.
        student: E^S, (n, width).
    """

    content: Tensor
    student: Tensor


class Fusion(nn.Module):
    """Eq. 18-21 for rows of view representations."""

    def __init__(self, modalities: tuple[str, ...], width: int, pooling: FusionPooling, *, gated: bool = True) -> None:
        super().__init__()
        self._modalities = modalities
        self._pooling = pooling
        self._gated = gated
        if modalities:
            self.query = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
            if gated:
                self.gates = nn.ModuleList(nn.Linear(width, width) for _ in modalities)

    def forward(self, views: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        """Fuse the views of n nodes.

        Args:
            views: representation (n, width) of ``id`` and of each modality.
            present: (n,) bool for each modality, which nodes have it.
        """
        collaborative = views[ID_VIEW]
        if not self._modalities:
            return Fused(torch.zeros_like(collaborative), collaborative)
        shared, specific, terms = self._content_terms(views, present)
        total = shared + specific.sum(dim=1)
        if self._pooling == "mean":
            total = total / terms
        return Fused(total, collaborative + total)

    def parts(self, views: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 21 term by term, (n, width) each: ``id``, ``shared`` content, and each modality's own.

        They add up to what ``forward`` calls ``student``; the arguments are the same.
        """
        parts = {ID_VIEW: views[ID_VIEW]}
        if not self._modalities:
            return parts
        shared, specific, terms = self._content_terms(views, present)
        divisor = terms if self._pooling == "mean" else 1
        parts[SHARED_PART] = shared / divisor
        for index, name in enumerate(self._modalities):
            parts[name] = specific[:, index] / divisor
        return parts

    def _content_terms(self, views: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Shared content (n, width), own parts (n, modalities, width), and how many of these terms exist, (n, 1)."""
        mask = torch.stack([present[name] for name in self._modalities], dim=1)
        content = torch.stack([views[name] for name in self._modalities], dim=1)
        weights = self._compatibility(content, mask)
        shared = (weights.unsqueeze(2) * content).sum(dim=1)  # Eq. 19
        specific = (content - shared.unsqueeze(1)) * mask.unsqueeze(2)
        if self._gated:
            gate = torch.stack([torch.sigmoid(gate(views[ID_VIEW])) for gate in self.gates], dim=1)
            specific = gate * specific  # Eq. 20
        return shared, specific, 1 + mask.sum(dim=1, keepdim=True)

    def _compatibility(self, content: Tensor, mask: Tensor) -> Tensor:
        """Eq. 18: softmax weights (n, modalities) over the existing views; all zero where there is none."""
        scores = self.query(content).squeeze(2).masked_fill(~mask, _ABSENT_SCORE)
        return torch.softmax(scores, dim=1) * mask


class Student(nn.Module):
    """Encoders (Eq. 17) and fusion (Eq. 18-21). All that inference needs, Eq. 31, is their output."""

    def __init__(self, encoders: ViewEncoders, width: int, pooling: FusionPooling, *, gated: bool = True) -> None:
        super().__init__()
        self.encoders = encoders
        self.fusion = Fusion(encoders.modalities, width, pooling, gated=gated)


def tempered(embeddings: Tensor, users: int, power: float) -> Tensor:
    """Divide each item's embedding by its norm to a power, before Eq. 31's inner product.

    An item's norm grows with its popularity; at power 0 it has its full say, at power 1 none. The order of two
    items of equal norm does not change, and scores stay inner products.

    Args:
        embeddings: (users + items, width), users first.
        users: how many of the rows are users'.
        power: in [0, 1].
    """
    items = embeddings[users:]
    norms = items.norm(dim=1, keepdim=True).clamp(min=torch.finfo(items.dtype).tiny)
    return torch.cat([embeddings[:users], items / norms**power])
