"""Eq. 8-13 against the same sums in dense numpy."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from trainer import graph
from trainer.propagation import Propagator
from trainer.views import IdEncoder, ModalityEncoder, ModalityGraphs, ViewEncoders

CPU = torch.device("cpu")
USERS, ITEMS, WIDTH = 5, 7, 4


@pytest.fixture
def interactions() -> sp.csr_matrix:
    matrix = sp.random(USERS, ITEMS, density=0.4, random_state=0, format="csr", dtype=np.float32)
    matrix.data[:] = 1
    return matrix


def test_propagation_and_its_gradient_are_the_dense_product(interactions: sp.csr_matrix) -> None:
    embeddings = torch.randn(ITEMS, WIDTH, requires_grad=True)
    dense = torch.from_numpy(interactions.toarray())
    upstream = torch.randn(USERS, WIDTH)
    product = Propagator(interactions, CPU)(embeddings)
    assert torch.allclose(product, dense @ embeddings, atol=1e-6)
    (gradient,) = torch.autograd.grad(product, embeddings, upstream)
    assert torch.allclose(gradient, dense.T @ upstream, atol=1e-6)


def test_propagation_gives_isolated_rows_zero() -> None:
    empty = Propagator(sp.csr_matrix((3, 2), dtype=np.float32), CPU)
    assert torch.equal(empty(torch.ones(2, 4)), torch.zeros(3, 4))


def test_id_encoder_is_the_mean_over_layers(interactions: sp.csr_matrix) -> None:
    adjacency = graph.symmetric_normalisation(graph.bipartite_adjacency(interactions))
    encoder = IdEncoder(USERS, ITEMS, WIDTH, layers=3)
    start = encoder.table.detach().numpy()
    dense = adjacency.toarray()
    layers = [start, dense @ start, dense @ dense @ start, dense @ dense @ dense @ start]
    assert np.allclose(encoder(Propagator(adjacency, CPU)).detach(), np.mean(layers, axis=0), atol=1e-6)


def modality_graphs(interactions: sp.csr_matrix, present: np.ndarray) -> tuple[ModalityGraphs, np.ndarray, np.ndarray]:
    features = np.random.default_rng(1).normal(size=(ITEMS, 3)).astype(np.float32) * present[:, None]
    neighbours, _ = graph.nearest_neighbours(features, present, 3)
    items = graph.item_graph(neighbours, None, self_neighbour=True)
    incidence = graph.normalised_incidence(interactions, present)
    nodes = np.concatenate([np.diff(incidence.indptr) > 0, present])
    graphs = ModalityGraphs(
        torch.from_numpy(features),
        Propagator(items, CPU),
        Propagator(incidence, CPU),
        torch.from_numpy(nodes),
        bool(nodes.all()),
    )
    return graphs, items.toarray(), incidence.toarray()


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_modality_encoder_is_equations_11_to_13(interactions: sp.csr_matrix, pooling) -> None:
    graphs, items, incidence = modality_graphs(interactions, np.ones(ITEMS, bool))
    encoder = ModalityEncoder(ITEMS, WIDTH, 3, layers=2, pooling=pooling)
    torch.nn.init.normal_(encoder.gate.bias)
    table, weight, bias = (p.detach().numpy() for p in (encoder.table, encoder.gate.weight, encoder.gate.bias))
    gated = table / (1 + np.exp(-(graphs.features.numpy() @ weight.T + bias)))
    layers = [gated, items @ gated, items @ items @ gated]
    of_items = np.mean(layers, axis=0) if pooling == "mean" else layers[-1]
    expected = np.concatenate([incidence @ of_items, of_items])
    assert np.allclose(encoder(graphs).detach(), expected * graphs.present.numpy()[:, None], atol=1e-6)


def test_an_absent_item_touches_no_user_and_no_item(interactions: sp.csr_matrix) -> None:
    present = np.ones(ITEMS, bool)
    present[2] = False
    graphs, _, _ = modality_graphs(interactions, present)
    encoder = ModalityEncoder(ITEMS, WIDTH, 3, layers=2, pooling="mean")
    before = encoder(graphs).detach().clone()
    with torch.no_grad():
        encoder.table[2] = 1e6
    after = encoder(graphs).detach()
    assert torch.equal(before, after)
    assert torch.equal(after[USERS + 2], torch.zeros(WIDTH))


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_some_nodes_alone_give_the_same_rows_and_gradients(interactions: sp.csr_matrix, layers, pooling) -> None:
    present = np.ones(ITEMS, bool)
    present[2] = False
    content, _, _ = modality_graphs(interactions, present)
    adjacency = graph.symmetric_normalisation(graph.bipartite_adjacency(interactions))
    encoders = ViewEncoders(
        IdEncoder(USERS, ITEMS, WIDTH, layers), {"text": ModalityEncoder(ITEMS, WIDTH, 3, layers, pooling)}
    )
    nodes = torch.tensor([0, 3, USERS + 1, USERS + 2, USERS + 6])
    upstream = torch.randn(len(nodes), WIDTH)

    def rows_and_gradients(chosen: torch.Tensor | None) -> list[torch.Tensor]:
        views = encoders(Propagator(adjacency, CPU), {"text": content}, chosen)
        rows = [view if chosen is not None else view[nodes] for view in views.values()]
        gradients = torch.autograd.grad([(row * upstream).sum() for row in rows], list(encoders.parameters()))
        return [*rows, *gradients]

    for whole, part in zip(rows_and_gradients(None), rows_and_gradients(nodes), strict=True):
        assert torch.allclose(whole, part, atol=1e-6)
