"""What a run learns from, laid out on its device: the graphs of Eq. 4-7 and 13, features and masks."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.errors import UserError
from trainer import graph
from trainer.dataset import TRAIN, Dataset, Modality
from trainer.linear_teacher import LinearTeacher, fit_linear_teacher
from trainer.propagation import Propagator
from trainer.recipe import Recipe
from trainer.stopwatch import stopwatch
from trainer.views import ModalityGraphs

Stage = Callable[[str], None]
NeighbourLists = tuple[NDArray[np.int32], NDArray[np.float32] | None]

_FURTHER_DIRECTIONS = 16


@dataclass(frozen=True)
class TrainingInputs:
    """Everything fixed during a run.

    Attributes:
        interactions: Y of the training split, (users, items).
        bipartite: Eq. 5's operator over all training interactions.
        modalities: graphs and features of each content view.
        linear: the linear teacher, if the recipe wants it.
        neighbours: the lists that each content view's item graph was made of.
    """

    interactions: sp.csr_matrix
    bipartite: Propagator
    modalities: dict[str, ModalityGraphs]
    device: torch.device
    linear: LinearTeacher | None = None
    neighbours: dict[str, NeighbourLists] = field(default_factory=dict)

    @property
    def present(self) -> dict[str, Tensor]:
        """(users + items,) bool for each content view, which nodes have it."""
        return {name: graphs.present for name, graphs in self.modalities.items()}


def prepare_inputs(
    dataset: Dataset, recipe: Recipe, device: torch.device, stage: Stage = lambda name: None
) -> TrainingInputs:
    """Build the graphs of a dataset; ``stage`` is told what is being built.

    Raises:
        UserError: the recipe names a modality that the dataset lacks, or asks for more neighbours than a
            precomputed file holds.
    """
    interactions = dataset.interactions(TRAIN)
    modalities = {}
    neighbours = {}
    for name in chosen_modalities(dataset, recipe):
        stage(f"{name} graph")
        modality = dataset.modalities[name]
        neighbours[name] = _neighbours(modality, recipe)
        features = _features(modality, recipe.feature_width, device)
        modalities[name] = _modality_graphs(features, modality.present, neighbours[name], interactions, recipe)
    stage("user-item graph")
    with stopwatch("user-item graph"):
        bipartite = bipartite_propagator(interactions, device)
    linear = _linear_teacher(neighbours, interactions, recipe, device, stage) if recipe.linear > 0 else None
    return TrainingInputs(interactions, bipartite, modalities, device, linear, neighbours)


def hide_content(
    inputs: TrainingInputs, recipe: Recipe, share: float, generator: np.random.Generator
) -> dict[str, ModalityGraphs]:
    """The content views after random items lost their content, of each modality other ones.

    Those items stay in the collaborative view. An item whose neighbour lost its content has fewer neighbours, not
    farther ones. With generators of the same state a larger share hides all that a smaller one does, and more.

    Args:
        inputs: are left as they are.
        recipe: of the item graphs.
        share: of the items that have the modality, in [0, 1].
        generator: draws the items.
    """
    users = inputs.interactions.shape[0]
    views = {}
    for name, graphs in inputs.modalities.items():
        present = graphs.present[users:].cpu().numpy().copy()
        owners = generator.permutation(np.flatnonzero(present))
        present[owners[: round(share * len(owners))]] = False
        neighbours, cosines = inputs.neighbours[name]
        known = present[:, None] & present[neighbours]
        lists = (np.where(known, neighbours, -1).astype(np.int32), cosines)
        views[name] = _modality_graphs(graphs.features, present, lists, inputs.interactions, recipe)
    return views


def bipartite_propagator(interactions: sp.csr_matrix, device: torch.device) -> Propagator:
    """Eq. 4-5 as an operator."""
    return Propagator(graph.symmetric_normalisation(graph.bipartite_adjacency(interactions)), device)


def chosen_modalities(dataset: Dataset, recipe: Recipe) -> list[str]:
    """The modalities that a recipe uses of a dataset.

    Raises:
        UserError: it names one that the dataset lacks.
    """
    if recipe.modalities is None:
        return sorted(dataset.modalities)
    for name in recipe.modalities:
        if name not in dataset.modalities:
            known = ", ".join(sorted(dataset.modalities)) or "none"
            raise UserError(
                f"dataset {dataset.name}: the recipe wants modality {name!r}; the dataset has: {known}. "
                f"Add {name}_feat.npy or {name}_neighbors.npz, or take it out of 'modalities'."
            )
    return list(recipe.modalities)


@stopwatch("content graphs")
def _modality_graphs(
    features: Tensor, has_it: NDArray[np.bool_], lists: NeighbourLists, interactions: sp.csr_matrix, recipe: Recipe
) -> ModalityGraphs:
    neighbours, cosines = lists
    device = features.device
    adjacency = graph.item_graph(
        neighbours, cosines if recipe.cosine_edges else None, self_neighbour=recipe.self_neighbour
    )
    incidence = graph.normalised_incidence(interactions, has_it)
    user_has = np.diff(incidence.indptr) > 0
    present = np.concatenate([user_has, has_it])
    return ModalityGraphs(
        features=features,
        items=Propagator(adjacency, device),
        incidence=Propagator(incidence, device),
        present=torch.as_tensor(present, device=device),
        complete=bool(present.all()),
    )


@stopwatch("linear teacher")
def _linear_teacher(
    lists: dict[str, NeighbourLists], interactions: sp.csr_matrix, recipe: Recipe, device: torch.device, stage: Stage
) -> LinearTeacher:
    return fit_linear_teacher(
        interactions,
        [graph.undirected_item_graph(neighbours, cosines) for neighbours, cosines in lists.values()],
        recipe.linear_content,
        recipe.linear_ridge,
        device,
        lambda done: stage(f"linear teacher, {done:.0%}"),
    )


@stopwatch("neighbours")
def _neighbours(modality: Modality, recipe: Recipe) -> NeighbourLists:
    wanted = recipe.neighbours
    if modality.neighbours is None:
        if modality.features is None:
            raise UserError(f"modality {modality.name}: neither features nor neighbours")
        return graph.nearest_neighbours(modality.features, modality.present, wanted)
    available = modality.neighbours.shape[1]
    if available < wanted:
        raise UserError(
            f"{modality.name}_neighbors.npz holds {available} neighbours an item, the recipe wants {wanted}: "
            f"set neighbours={available}, or remove the file to have them computed from the features."
        )
    if recipe.cosine_edges and modality.cosine is None:
        raise UserError(
            f"{modality.name}_neighbors.npz has no 'cosine', which cosine_edges=true needs: set it to false."
        )
    cosines = None if modality.cosine is None else modality.cosine[:, :wanted]
    return modality.neighbours[:, :wanted], cosines


@stopwatch("features")
def _features(modality: Modality, widest: int, device: torch.device) -> Tensor:
    """Eq. 10's H. A modality known by its neighbours alone gets one constant feature: an ungated item table."""
    if modality.features is None:
        return torch.ones(len(modality.present), 1, device=device)
    features = torch.as_tensor(modality.features, dtype=torch.float32, device=device)
    if widest == 0 or features.shape[1] <= widest or not modality.present.any():
        return features
    present = torch.as_tensor(modality.present, device=device)
    reduced = torch.zeros(len(features), widest, device=device)
    reduced[present] = principal_components(features[present], widest)  # zeros of absent items are no content
    return reduced


def principal_components(features: Tensor, most: int) -> Tensor:
    """Frozen features, projected once onto their leading principal directions: the gates then cost as many columns.

    Args:
        features: (items, columns).
        most: how many directions; features that are no wider are returned as they are.

    Returns:
        (items, most), centred, the directions by falling variance.
    """
    rows, columns = features.shape
    if columns <= most:
        return features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(features, q=min(most + _FURTHER_DIRECTIONS, rows, columns))
    reduced = (features - features.mean(dim=0)) @ directions[:, :most]
    return torch.nn.functional.pad(reduced, (0, most - reduced.shape[1]))
