"""The preference extractors, Eq. 8-13: one encoder a view, the same for teachers and student.

A view is the collaborative one (``id``) or a content modality. An encoder maps its own tables to a preference
representation of every user and item, (users + items, width), users first. It knows its graph and its
features; it does not know the other views, nor any loss.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.propagation import Propagator

ID_VIEW = "id"

LayerPooling = Literal["mean", "last"]


@dataclass(frozen=True)
class ModalityGraphs:
    """What a content view propagates over.

    Attributes:
        features: (items, d_m), rows of absent items zero; H of Eq. 10.
        items: Eq. 7's item-item graph (items, items).
        incidence: Eq. 13's user-item incidence (users, items).
        present: (users + items,) which nodes have this view: items with the modality, users with such an
            item in training.
        complete: whether every node has it.
    """

    features: Tensor
    items: Propagator
    incidence: Propagator
    present: Tensor
    complete: bool


class IdEncoder(nn.Module):
    """Eq. 8-9: user and item tables propagated over the user-item graph, averaged over layers."""

    def __init__(self, users: int, items: int, width: int, layers: int) -> None:
        super().__init__()
        self.users = _table(users, width)
        self.items = _table(items, width)
        self._layers = layers

    def forward(self, graph: Propagator) -> Tensor:
        """Eq. 9's representation (users + items, width) over the normalised bipartite graph."""
        return _propagate(torch.cat([self.users, self.items]), graph, self._layers, "mean")


class ModalityEncoder(nn.Module):
    """Eq. 11-13: an item table gated by content, propagated over similar items, then carried to users."""

    def __init__(self, items: int, width: int, feature_width: int, layers: int, pooling: LayerPooling) -> None:
        super().__init__()
        self.items = _table(items, width)
        self.gate = nn.Linear(feature_width, width)
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self._layers = layers
        self._pooling = pooling

    def forward(self, graphs: ModalityGraphs) -> Tensor:
        """Eq. 13's representation (users + items, width); zero rows where the view is absent.

        An absent item has no edge in either graph, so it adds nothing to anyone; its own row is cleared here.
        """
        gated = self.items * torch.sigmoid(self.gate(graphs.features))
        of_items = _propagate(gated, graphs.items, self._layers, self._pooling)
        view = torch.cat([graphs.incidence(of_items), of_items])
        return view if graphs.complete else view * graphs.present.unsqueeze(1)


class ViewEncoders(nn.Module):
    """The encoders of all views, ``id`` first; teachers and student have one such set each."""

    def __init__(self, id_encoder: IdEncoder, content: dict[str, ModalityEncoder]) -> None:
        super().__init__()
        self.modalities = tuple(content)
        self.id = id_encoder
        self.content = nn.ModuleList(content.values())

    def forward(self, graph: Propagator, modalities: dict[str, ModalityGraphs]) -> dict[str, Tensor]:
        """Every view's representation by name, (users + items, width) each."""
        views = {ID_VIEW: self.id(graph)}
        for name, encoder in zip(self.modalities, self.content, strict=True):
            views[name] = encoder(modalities[name])
        return views


def _propagate(embeddings: Tensor, graph: Propagator, layers: int, pooling: LayerPooling) -> Tensor:
    outputs = [embeddings]
    for _ in range(layers):
        outputs.append(graph(outputs[-1]))
    if pooling == "last":
        return outputs[-1]
    return torch.stack(outputs).mean(dim=0)


def _table(rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))
