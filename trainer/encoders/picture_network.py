"""A small network over pictures, for catalogues whose owner has none: residual, with a colour path of its own.

The colour path is a soft histogram that learns its bins: it sees single points of a coarser picture, and averages
what each answers. The residual path sees shapes. What leaves the network is made of both, twice: standardised, so
that pictures that look alike are near; and mapped linearly to where the words of such items lie.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE = 64
"""Pixels of a side that the network sees."""

_WIDTHS = (16, 32, 64, 96)
_COLOURS = 96
_COARSER = 4

TRAITS = _WIDTHS[-1] + _COLOURS
"""Numbers that the network has of a picture before its head."""


class ResidualBlock(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(after)
        self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, maps: Tensor) -> Tensor:
        """(n, before, h, w) to (n, after, h / stride, w / stride)."""
        inner = torch.relu(self.first_norm(self.first(maps)))
        return torch.relu(self.second_norm(self.second(inner)) + self.skip(maps))


class PictureNetwork(nn.Module):
    """Traits of pictures, (n, TRAITS), of pixels (n, 3, SIDE, SIDE)."""

    def __init__(self) -> None:
        super().__init__()
        first, *others = _WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(2)
        )
        steps = zip(_WIDTHS, others, (1, 2, 2), strict=False)
        self.shapes = nn.Sequential(*(ResidualBlock(before, after, stride) for before, after, stride in steps))
        self.coarser = nn.AvgPool2d(_COARSER)
        self.colours = nn.Sequential(nn.Conv2d(3, _COLOURS, 1, bias=False), nn.BatchNorm2d(_COLOURS), nn.ReLU())

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        shapes = self.shapes(self.stem(pixels)).mean(dim=(2, 3))
        colours = self.colours(self.coarser(pixels)).mean(dim=(2, 3))
        return torch.cat([shapes, colours], dim=1)


@dataclass(frozen=True)
class Head:
    """What makes a vector of traits.

    Attributes:
        mean: (TRAITS,) over the pictures that were learned from.
        spread: (TRAITS,), likewise.
        to_words: (TRAITS, directions) from standardised traits to where the items' words lie.
    """

    mean: Tensor
    spread: Tensor
    to_words: Tensor


class Fitted(nn.Module):
    """The network with its head, as it is exported: (n, TRAITS + directions)."""

    def __init__(self, network: PictureNetwork, head: Head) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", head.mean)
        self.register_buffer("spread", head.spread)
        self.register_buffer("to_words", head.to_words)

    def forward(self, pixels: Tensor) -> Tensor:
        """Both parts have length 1, so that they weigh the same."""
        traits = (self.network(pixels) - self.mean) / self.spread
        words = traits @ self.to_words
        return torch.cat([nn.functional.normalize(words, dim=1), nn.functional.normalize(traits, dim=1)], dim=1)
