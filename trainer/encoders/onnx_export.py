"""One way from a torch module to an ONNX file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 17


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
