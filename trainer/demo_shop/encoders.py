"""The demo shop's features as encoders: networks in ONNX that make them, to travel with its models.

With them the service places words and pictures that come later, as it does with the encoders of ``mts4mm encode``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from shared.encoders import EncoderFolder, ImageSpec, TextSpec, read_folder, write_folder
from shared.encoders.folder import MODEL, TOKENIZER, file_digest
from trainer.demo_shop.features import (
    COLOURS,
    DIRECTIONS,
    GREY,
    IMAGE_DIM,
    SCALES,
    SIDE,
    SMALL,
    TEXT_DIM,
    Pictures,
    Texts,
)
from trainer.demo_shop.pictures import SIDE as DRAWN_SIDE
from trainer.encoders.onnx_export import export_onnx

_UNKNOWN = "[UNK]"
_WORD = r"\b\w\w+\b"


class PictureNetwork(nn.Module):
    """What :func:`trainer.demo_shop.features.image_features` makes of pictures of the size in which they are drawn."""

    fold: Tensor
    grey: Tensor
    mean: Tensor
    weight: Tensor

    def __init__(self, made: Pictures) -> None:
        super().__init__()
        each = Image.fromarray(np.eye(DRAWN_SIDE, dtype=np.float32))
        folded = np.asarray(each.resize((SIDE, DRAWN_SIDE), Image.Resampling.BOX)).T.copy()
        self.register_buffer("fold", torch.from_numpy(folded))
        self.register_buffer("grey", torch.tensor(GREY)[:, None, None])
        self.register_buffer("mean", torch.from_numpy(made.mean).float())
        self.register_buffer("weight", torch.from_numpy(made.weight).float())

    def forward(self, pictures: Tensor) -> Tensor:
        """Features, but for their length.

        Args:
            pictures: float32 [n, 3, side, side], from 0 to 1.

        Returns:
            float32 [n, `IMAGE_DIM`].
        """
        # As Pillow does it: first across, then down, and whole numbers after each.
        across = torch.floor(torch.round(255 * pictures) @ self.fold.T + 0.5)
        pixels = torch.floor(self.fold @ across + 0.5) / 255
        small = avg_pool2d(pixels, SIDE // SMALL).permute(0, 2, 3, 1).flatten(1)
        step = torch.clamp(torch.floor(pixels * COLOURS), max=COLOURS - 1)
        code = (step[:, 0] * COLOURS + step[:, 1]) * COLOURS + step[:, 2]
        colours = _shares(code, torch.ones_like(code), COLOURS**3)
        grey = (pixels * self.grey).sum(1, keepdim=True)
        described = torch.cat([small, torch.sqrt(colours), *(_edges(grey, scale) for scale in SCALES)], dim=1)
        return (described - self.mean) * self.weight


def _edges(grey: Tensor, scale: int) -> Tensor:
    coarse = avg_pool2d(grey, scale)[:, 0]
    down, across = _slope(coarse), _slope(coarse.transpose(1, 2)).transpose(1, 2)
    turn = torch.atan(down / torch.where(across == 0, torch.full_like(across, 1e-30), across)) / torch.pi
    turn = turn - torch.floor(turn)
    place = torch.clamp(torch.floor(turn * DIRECTIONS), max=DIRECTIONS - 1)
    return torch.sqrt(_shares(place, torch.sqrt(down**2 + across**2), DIRECTIONS))


def _slope(rows: Tensor) -> Tensor:
    """Differences of neighbours down the rows [n, rows, columns], one-sided at both ends, as ``np.gradient``."""
    inside = (rows[:, 2:] - rows[:, :-2]) / 2
    return torch.cat([rows[:, 1:2] - rows[:, :1], inside, rows[:, -1:] - rows[:, -2:-1]], dim=1)


def _shares(place: Tensor, strength: Tensor, places: int) -> Tensor:
    """The mean over all pixels of the strength in each place, [n, places]."""
    there = place.flatten(1)[:, None] == torch.arange(places, dtype=place.dtype)[None, :, None]
    return (there * strength.flatten(1)[:, None]).mean(2)


class WordNetwork(nn.Module):
    """What :func:`trainer.demo_shop.features.text_features` makes of words."""

    column: Tensor
    vectors: Tensor

    def __init__(self, made: Texts) -> None:
        super().__init__()
        unknown = np.zeros((1, TEXT_DIM))
        self.register_buffer("column", torch.tensor([0, *(row + 1 for row in made.words.values())]))
        self.register_buffer("vectors", torch.from_numpy(np.concatenate([unknown, made.vectors])).float())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Features, but for their length.

        Args:
            input_ids: int64 [n, words], the place of each word among those known, from 1; 0 for an unknown one.
            attention_mask: int64 [n, words], 0 where there is no word.

        Returns:
            float32 [n, `TEXT_DIM`].
        """
        mask = attention_mask.float()
        columns = self.column[input_ids]
        same = (columns[:, :, None] == columns[:, None, :]).float() * mask[:, None, :]
        often = torch.clamp(same.sum(2), min=1)
        share = mask * (1 + torch.log(often)) / often
        return (share[:, :, None] * self.vectors[columns]).sum(1)


def write_picture_encoder(place: Path, made: Pictures) -> EncoderFolder:
    """Write the encoder of pictures to a folder that is not there yet."""
    with TemporaryDirectory() as folder:
        network = Path(folder) / MODEL
        example = torch.zeros(2, 3, DRAWN_SIDE, DRAWN_SIDE)
        export_onnx(PictureNetwork(made), (example,), network, ["pictures"], "features", {"pictures": {0: "n"}})
        spec = ImageSpec(
            name="demo-pictures",
            revision=f"sha256:{file_digest(network)}",
            width=IMAGE_DIM,
            height=DRAWN_SIDE,
            width_pixels=DRAWN_SIDE,
            fit="stretch",
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )
        write_folder(place, spec, {MODEL: network})
    return read_folder(place)


def write_word_encoder(place: Path, made: Texts) -> EncoderFolder:
    """Write the encoder of words to a folder that is not there yet."""
    places = {word: place for place, word in enumerate([_UNKNOWN, *made.words])}
    words = Tokenizer(WordLevel(places, unk_token=_UNKNOWN))
    words.normalizer = Lowercase()
    words.pre_tokenizer = Split(Regex(_WORD), "removed", invert=True)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    dynamic = {name: {0: "n", 1: "words"} for name in ("input_ids", "attention_mask")}
    with TemporaryDirectory() as folder:
        network, tokenizer = Path(folder) / MODEL, Path(folder) / TOKENIZER
        export_onnx(WordNetwork(made), (ids, torch.ones_like(ids)), network, list(dynamic), "features", dynamic)
        words.save(str(tokenizer))
        spec = TextSpec(name="demo-words", revision=f"sha256:{file_digest(network)}", width=TEXT_DIM)
        write_folder(place, spec, {MODEL: network, TOKENIZER: tokenizer})
    return read_folder(place)
