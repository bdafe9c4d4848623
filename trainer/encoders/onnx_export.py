"""One way from a torch module to an ONNX file, and whether the file still says what the module says."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import UserError

OPSET = 17

AGREEMENT = 1 - 1e-4
"""The least cosine of an exported network's vectors with torch's: what half-precision weights cost."""


def export_onnx(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    output: str,
    dynamic: dict[str, dict[int, str]],
) -> None:
    """Write a module as ONNX, weights included.

    Args:
        module: whose ``forward`` takes ``examples``.
        examples: inputs to trace it with.
        path: the file.
        inputs: the inputs' names.
        output: the output's.
        dynamic: names of the dimensions, by input or output, that may have any size.
    """
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        # The other exporter needs two further packages; torch is pinned, so this one stays.
        warnings.simplefilter("ignore", DeprecationWarning)
        # What it cannot fold, such as an uneven padding, it exports as it is.
        warnings.filterwarnings("ignore", "Constant folding")
        torch.onnx.export(
            module,
            examples,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes=dynamic,
        )


def halve_weights(path: Path) -> None:
    """Keep large weights in half precision, cast to float32 when the network is loaded: half the file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) >= 1024:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for position, cast in enumerate(casts):
        model.graph.node.insert(position, cast)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def require_agreement(exported: NDArray[np.float32], expected: Tensor, name: str) -> None:
    """Compare what an exported network gives with what torch gives, (n, width) each.

    Raises:
        UserError: a vector's cosine is below ``AGREEMENT``.
    """
    cosine = float(torch.cosine_similarity(torch.from_numpy(exported), expected).min())
    if not cosine >= AGREEMENT:
        raise UserError(f"encoder {name}: the exported network does not agree with torch (cosine {cosine:.6f})")
