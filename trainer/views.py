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
        self.table = nn.Parameter(torch.cat([_initial_table(users, width), _initial_table(items, width)]))
        self._layers = layers

    def forward(self, graph: Propagator, nodes: Tensor | None = None) -> Tensor:
        """Eq. 9's representation over the normalised bipartite graph, (users + items, width) or (nodes, width)."""
        return _propagate(self.table, graph, self._layers, "mean", nodes)


class ModalityEncoder(nn.Module):
    """Eq. 11-13: an item table gated by content, propagated over similar items, then carried to users."""

    def __init__(self, items: int, width: int, feature_width: int, layers: int, pooling: LayerPooling) -> None:
        super().__init__()
        self.table = nn.Parameter(_initial_table(items, width))
        self.gate = nn.Linear(feature_width, width)
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        self._layers = layers
        self._pooling = pooling

    def forward(self, graphs: ModalityGraphs, nodes: Tensor | None = None) -> Tensor:
        """Eq. 13's representation (users + items, width) or (nodes, width); zero rows where the view is absent.

        An absent item has no edge in either graph, so it adds nothing to anyone; its own row is cleared here.
        """
        gated = self.table * torch.sigmoid(self.gate(graphs.features))
        of_items = _propagate(gated, graphs.items, self._layers, self._pooling)
        if nodes is None:
            view = torch.cat([graphs.incidence(of_items), of_items])
        else:
            view = self._of_nodes(of_items, graphs, nodes)
        if graphs.complete:
            return view
        present = graphs.present if nodes is None else graphs.present[nodes]
        return view * present.unsqueeze(1)

    @staticmethod
    def _of_nodes(of_items: Tensor, graphs: ModalityGraphs, nodes: Tensor) -> Tensor:
        user_total = len(graphs.present) - len(of_items)
        users, items = nodes[nodes < user_total], nodes[nodes >= user_total] - user_total
        return torch.cat([graphs.incidence.of_rows(users)(of_items), of_items.index_select(0, items)])


class ViewEncoders(nn.Module):
    """The encoders of all views, ``id`` first; teachers and student have one such set each."""

    def __init__(self, id_encoder: IdEncoder, content: dict[str, ModalityEncoder]) -> None:
        super().__init__()
        self.modalities = tuple(content)
        self.id = id_encoder
        self.content = nn.ModuleList(content.values())

    def forward(
        self, graph: Propagator, modalities: dict[str, ModalityGraphs], nodes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every view's representation by name, (users + items, width) each.

        With ``nodes`` (n,), graph rows in rising order, only theirs, (n, width): the same figures for less work,
        since the last product of each view then has n rows.
        """
        views = {ID_VIEW: self.id(graph, nodes)}
        for name, encoder in zip(self.modalities, self.content, strict=True):
            views[name] = encoder(modalities[name], nodes)
        return views


def _propagate(
    embeddings: Tensor, graph: Propagator, layers: int, pooling: LayerPooling, nodes: Tensor | None = None
) -> Tensor:
    """Pool the layers ``A^l embeddings``, l = 0 .. layers, for all rows or for those of ``nodes``.

    The sum of the layers is taken as ``x + A (x + A (x + ...))``: each layer costs one product and one sum, and the
    rows of ``nodes`` are picked from two tables only, however many layers there are.
    """
    if layers == 0:
        return embeddings if nodes is None else embeddings.index_select(0, nodes)
    summed = pooling == "mean"
    inner = embeddings
    for _ in range(layers - 1):
        inner = embeddings + graph(inner) if summed else graph(inner)
    outer = graph(inner) if nodes is None else graph.of_rows(nodes)(inner)
    if not summed:
        return outer
    own = embeddings if nodes is None else embeddings.index_select(0, nodes)
    return (own + outer) / (layers + 1)


def _initial_table(rows: int, width: int) -> Tensor:
    return nn.init.xavier_uniform_(torch.empty(rows, width))
