"""Eq. 20 without its gates: own parts enter Eq. 21 as they are."""

import numpy as np
import pytest
import torch

from trainer.student import Fusion

WIDTH, NODES = 4, 10


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_ungated_own_parts_pass_unchanged(pooling) -> None:
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    fusion = Fusion(("image", "text"), WIDTH, pooling, gated=False)
    collaborative, image, text = generator.normal(size=(3, NODES, WIDTH)).astype(np.float32)
    has_image, has_text = np.arange(NODES) % 2 == 0, np.arange(NODES) % 3 > 0
    views = {"id": collaborative, "image": image * has_image[:, None], "text": text * has_text[:, None]}
    fused = fusion(
        {name: torch.from_numpy(view) for name, view in views.items()},
        {"image": torch.from_numpy(has_image), "text": torch.from_numpy(has_text)},
    )
    first, _, last = (module for module in fusion.query)
    for node in range(NODES):
        own = [view[node] for view, has in ((image, has_image), (text, has_text)) if has[node]]
        scores = [
            last.weight.detach().numpy()[0]
            @ np.tanh(first.weight.detach().numpy() @ view + first.bias.detach().numpy())
            for view in own
        ]
        shared = sum(np.exp(s) / np.exp(scores).sum() * view for s, view in zip(scores, own, strict=True))
        terms = [shared, *(view - shared for view in own)] if own else [np.zeros(WIDTH)]
        pooled = np.sum(terms, axis=0) if pooling == "sum" else np.mean(terms, axis=0)
        assert np.allclose(fused.student[node].detach(), collaborative[node] + pooled, atol=1e-5)


def test_without_gates_there_is_nothing_to_learn_in_them() -> None:
    names = {name.split(".")[0] for name, _ in Fusion(("image", "text"), WIDTH, "sum", gated=False).named_parameters()}
    assert names == {"query"}
