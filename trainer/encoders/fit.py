"""``mts4mm encoders fit image``: a network over pictures, learned from a catalogue's own pictures and words.

Two contrasts at once (InfoNCE, as in Eq. 23): two views of one picture find each other among the batch's, and a
picture finds the words of its item. A linear map to the words' leading directions, solved in closed form with an L2
weight, then becomes part of the head. Repeatable: the same pictures, words and seed give the same network.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.encoders import EncoderFolder, ImageSpec, PictureError
from shared.encoders.pictures import decode_picture
from shared.errors import UserError
from trainer import losses
from trainer.encoders.onnx_export import export_onnx
from trainer.encoders.picture_network import SIDE, TRAITS, Fitted, Head, PictureNetwork
from trainer.encoders.sources import PictureSource
from trainer.encoders.store import add_image_network

Progress = Callable[[int, int], None]

LEAST_PICTURES = 64
SETTINGS = {
    "height": SIDE,
    "width_pixels": SIDE,
    "fit": "stretch",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}
"""How the fitted network's pictures are prepared."""

_BATCH = 128
_LEARNING_RATE = 3e-3
_DECAY = 0.1
_LOOK_WEIGHT = 0.3
_LOOK_TEMPERATURE = 0.2
_WORDS_TEMPERATURE = 0.1
_LOOK_WIDTH = 64
_DIRECTIONS = 32
_RIDGE = 0.1
"""L2 weight of the linear map, of the number of pictures."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Pictures:
    """What is learned from.

    Attributes:
        pixels: (n, 3, SIDE, SIDE).
        words: (n, directions), zero where an item has none.
        has_words: (n,) bool.
    """

    pixels: Tensor
    words: Tensor
    has_words: Tensor


def read_pixels(source: PictureSource, rows: int, progress: Progress = lambda done, total: None) -> NDArray[np.float32]:
    """Pictures as the network takes them, (rows, 3, SIDE, SIDE); NaN where there is none that can be read."""
    spec = ImageSpec(name="fitted", revision="", width=1, **SETTINGS)
    pixels = np.full((rows, 3, SIDE, SIDE), np.nan, np.float32)
    for row in range(rows):
        try:
            content = source.read(row)
            if content is not None:
                pixels[row] = decode_picture(content, spec)
        except PictureError:
            continue
        finally:
            progress(row + 1, rows)
    return pixels


def learnable(pixels: NDArray[np.float32], words: NDArray[np.float32]) -> Pictures:
    """Pictures that are there, with the leading directions of their items' words.

    Args:
        pixels: (items, 3, SIDE, SIDE), NaN where there is none.
        words: (items, any), NaN or zero where there are none.

    Raises:
        UserError: there are fewer than ``LEAST_PICTURES`` pictures with words.
    """
    there = np.isfinite(pixels[:, 0, 0, 0])
    known = np.isfinite(words).all(axis=1) & (np.nan_to_num(words) != 0).any(axis=1)
    both = there & known
    if both.sum() < LEAST_PICTURES:
        raise UserError(
            f"{int(both.sum())} items have both a picture and words, and a network learns from {LEAST_PICTURES} at "
            "least: 'mts4mm encoders add image FILE.onnx' takes one that has learned elsewhere"
        )
    mean = words[both].mean(axis=0)
    directions = np.linalg.svd(words[both] - mean, full_matrices=False)[2][:_DIRECTIONS]
    reduced = np.where(known[:, None], (np.nan_to_num(words) - mean) @ directions.T, 0).astype(np.float32)
    return Pictures(torch.from_numpy(pixels[there]), torch.from_numpy(reduced[there]), torch.from_numpy(known[there]))


def fit_network(pictures: Pictures, seed: int, epochs: int, progress: Progress = lambda done, total: None) -> Fitted:
    """Learn from pictures and words; with no epochs the network is a random one under the same head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PictureNetwork()
        look, words = nn.Linear(TRAITS, _LOOK_WIDTH), nn.Linear(TRAITS, pictures.words.shape[1])
    generator = torch.Generator().manual_seed(seed)
    parameters = [*network.parameters(), *look.parameters(), *words.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=_DECAY)
    steps = epochs * max(len(pictures.pixels) // _BATCH, 1)
    least = max(steps, 4)  # the rate rises for a step at least, and then falls
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, _LEARNING_RATE, total_steps=least, pct_start=max(0.2, 2 / least)
    )
    for done, rows in enumerate(_batches(len(pictures.pixels), epochs, generator), start=1):
        loss = _loss(network, look, words, pictures, rows, generator)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(done, steps)
    network.eval()
    return Fitted(network, _head(network, pictures)).eval()


@torch.no_grad()
def vectors_of(fitted: Fitted, pixels: Tensor) -> NDArray[np.float32]:
    """The vectors of pictures, (n, TRAITS + directions)."""
    return torch.cat([fitted(part) for part in torch.split(pixels, _AT_ONCE)]).numpy()


def store_fitted(fitted: Fitted, store: Path, name: str) -> EncoderFolder:
    """Export a fitted network and add it to a store.

    Raises:
        UserError: there is an encoder of that name.
    """
    with tempfile.TemporaryDirectory(prefix="mts4mm-fit-") as folder:
        path = Path(folder) / "network.onnx"
        axes = {"picture": {0: "pictures"}, "vector": {0: "pictures"}}
        export_onnx(fitted, (torch.zeros(2, 3, SIDE, SIDE),), path, ["picture"], "vector", axes)
        return add_image_network(store, name, path, dict(SETTINGS))


def _batches(count: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    size = min(_BATCH, count)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _loss(
    network: PictureNetwork,
    look: nn.Linear,
    words: nn.Linear,
    pictures: Pictures,
    rows: Tensor,
    generator: torch.Generator,
) -> Tensor:
    pixels, known = pictures.pixels[rows], pictures.has_words[rows]
    traits = network(torch.cat([_view(pixels, generator), _view(pixels, generator)]))
    first, second = look(traits).chunk(2)
    loss = _LOOK_WEIGHT * _contrast(first, second, _LOOK_TEMPERATURE)
    if known.sum() > 1:
        target = pictures.words[rows][known]
        for view in words(traits).chunk(2):
            loss = loss + _contrast(view[known], target, _WORDS_TEMPERATURE) / 2
    return loss


def _contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """InfoNCE, each finding the other."""
    there, back = losses.info_nce(one, other, temperature), losses.info_nce(other, one, temperature)
    return (there + back) / 2


def _view(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A part of each picture, flipped or not, a little brighter or darker, (n, 3, SIDE, SIDE)."""
    count = len(pixels)

    def draw(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    scale = ((0.6 + 0.4 * draw(1)) * (0.9 + 0.2 * draw(2))).clamp(max=1)
    shift = (2 * draw(2) - 1) * (1 - scale)
    window = torch.zeros(count, 2, 3)
    window[:, 0, 0] = scale[:, 0] * torch.where(draw() < 0.5, -1.0, 1.0)
    window[:, 1, 1] = scale[:, 1]
    window[:, :, 2] = shift
    grid = nn.functional.affine_grid(window, list(pixels.shape), align_corners=False)
    part = nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return part * (0.9 + 0.2 * draw(3, 1, 1)) + 0.2 * (draw(1, 1, 1) - 0.5)


@torch.no_grad()
def _head(network: PictureNetwork, pictures: Pictures) -> Head:
    traits = torch.cat([network(part) for part in torch.split(pictures.pixels, _AT_ONCE)])
    mean, spread = traits.mean(dim=0), traits.std(dim=0).clamp(min=1e-6)
    known = ((traits - mean) / spread)[pictures.has_words].double()
    ridge = _RIDGE * len(known) * torch.eye(TRAITS, dtype=torch.float64)
    to_words = torch.linalg.solve(known.T @ known + ridge, known.T @ pictures.words[pictures.has_words].double())
    return Head(mean, spread, to_words.float())
