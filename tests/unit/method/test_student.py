"""Eq. 18-21 node by node, for any set of modalities and any that are missing."""

import numpy as np
import pytest
import torch

from trainer.student import Fusion, tempered

WIDTH = 4


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def fuse_one_node(
    fusion: Fusion, collaborative: np.ndarray, content: dict[str, np.ndarray], pooling: str
) -> np.ndarray:
    """Eq. 18-21 for one node, from the views that it has, in plain loops."""
    if not content:
        return collaborative
    first, _, last = fusion.query
    w1, b1 = first.weight.detach().numpy(), first.bias.detach().numpy()
    w2 = last.weight.detach().numpy()[0]
    scores = {name: w2 @ np.tanh(w1 @ view + b1) for name, view in content.items()}
    total = sum(np.exp(score) for score in scores.values())
    shared = sum(np.exp(scores[name]) / total * view for name, view in content.items())
    terms = [shared]
    for name, view in content.items():
        gate = fusion.gates[fusion._modalities.index(name)]
        opened = sigmoid(gate.weight.detach().numpy() @ collaborative + gate.bias.detach().numpy())
        terms.append(opened * (view - shared))
    pooled = np.sum(terms, axis=0) if pooling == "sum" else np.mean(terms, axis=0)
    return collaborative + pooled


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("modalities", [(), ("text",), ("image", "text"), ("audio", "image", "text")])
def test_fusion_averages_over_existing_terms_only(modalities, pooling) -> None:
    generator = np.random.default_rng(len(modalities))
    nodes = 12
    torch.manual_seed(0)
    fusion = Fusion(modalities, WIDTH, pooling)
    collaborative = generator.normal(size=(nodes, WIDTH)).astype(np.float32)
    content = {name: generator.normal(size=(nodes, WIDTH)).astype(np.float32) for name in modalities}
    present = {name: generator.random(nodes) < 0.6 for name in modalities}
    views = {"id": torch.from_numpy(collaborative)}
    views |= {name: torch.from_numpy(view * present[name][:, None]) for name, view in content.items()}
    fused = fusion(views, {name: torch.from_numpy(mask) for name, mask in present.items()})
    for node in range(nodes):
        existing = {name: content[name][node] for name in modalities if present[name][node]}
        expected = fuse_one_node(fusion, collaborative[node], existing, pooling)
        assert np.allclose(fused.student[node].detach(), expected, atol=1e-5)
        assert np.allclose(fused.content[node].detach(), expected - collaborative[node], atol=1e-5)


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("modalities", [(), ("text",), ("audio", "image", "text")])
def test_parts_are_the_terms_that_the_student_is_the_sum_of(modalities, pooling) -> None:
    torch.manual_seed(1)
    nodes = 12
    fusion = Fusion(modalities, WIDTH, pooling)
    views = {name: torch.randn(nodes, WIDTH) for name in ("id", *modalities)}
    present = {name: torch.rand(nodes) < 0.6 for name in modalities}
    parts = fusion.parts(views, present)
    assert list(parts) == ["id", *(["shared", *modalities] if modalities else [])]
    assert torch.allclose(sum(parts.values()), fusion(views, present).student, atol=1e-6)
    assert torch.equal(parts["id"], views["id"])
    for name in modalities:
        assert torch.equal(parts[name][~present[name]], torch.zeros((~present[name]).sum(), WIDTH))


def test_gradients_stay_finite_where_no_content_exists() -> None:
    fusion = Fusion(("image", "text"), WIDTH, "mean")
    views = {name: torch.randn(3, WIDTH, requires_grad=True) for name in ("id", "image", "text")}
    nothing = torch.zeros(3, dtype=torch.bool)
    fusion(views, {"image": nothing, "text": nothing}).student.sum().backward()
    assert torch.equal(views["id"].grad, torch.ones(3, WIDTH))
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters() if p.grad is not None)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_tempering_divides_items_by_a_power_of_their_norm_and_leaves_users(power: float) -> None:
    embeddings = np.random.default_rng(0).normal(size=(7, WIDTH)).astype(np.float32)
    embeddings[6] = 0
    expected = embeddings.copy()
    for item in range(3, 6):
        expected[item] /= np.sqrt((embeddings[item] ** 2).sum()) ** power
    assert np.allclose(tempered(torch.from_numpy(embeddings), 3, power), expected, atol=1e-6)
