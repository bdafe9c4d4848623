"""Tiny networks whose vectors can be worked out by hand, and a catalogue of real files to encode with them."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from shared.encoders import EncoderFolder
from trainer.encoders.store import add_image_network, add_text_network

WORDS = ("[UNK]", "red", "blue", "mug", "lamp")
PLAIN = {"height": 8, "width_pixels": 8, "mean": [0, 0, 0], "std": [1, 1, 1], "fit": "stretch", "normalise": False}


def word_network(path: Path, scale: float = 1.0) -> Path:
    """A token's vector is the row of an identity matrix: a text's is the share of each word in it."""
    table = numpy_helper.from_array(scale * np.eye(len(WORDS), dtype=np.float32), "table")
    return save(
        path,
        [helper.make_node("Gather", ["table", "input_ids"], ["out"])],
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [table],
        ["n", "t", len(WORDS)],
    )


def reading_at_most(tokens: int, path: Path) -> Path:
    """A network of words whose positions end there, as those of BERT do at 512."""
    weights = {
        "table": np.eye(len(WORDS), dtype=np.float32),
        "places": np.ones((tokens, len(WORDS)), np.float32),
        "from": np.array([0]),
        "second": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "second"], ["length"]),
        helper.make_node("Slice", ["places", "from", "length"], ["positions"]),
        helper.make_node("Add", ["words", "positions"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])]
    return save(
        path,
        nodes,
        inputs,
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ["n", "t", len(WORDS)],
    )


def colour_network(path: Path, batch: int | str = "n", side: int = 8) -> Path:
    """A picture's vector is the mean of each of its channels."""
    shape = [batch, 3, side, side]
    return save(
        path,
        [helper.make_node("GlobalAveragePool", ["picture"], ["out"])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [],
        [batch, 3, 1, 1],
    )


def save(path: Path, nodes: list, inputs: list, weights: list, shape: list) -> Path:
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def word_tokenizer(path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def words(store: Path, tmp_path: Path) -> EncoderFolder:
    network, tokenizer = word_network(tmp_path / "words.onnx"), word_tokenizer(tmp_path / "tokenizer.json")
    return add_text_network(store, "words", network, tokenizer, {"normalise": False})


@pytest.fixture
def colours(store: Path, tmp_path: Path) -> EncoderFolder:
    return add_image_network(store, "colours", colour_network(tmp_path / "colours.onnx"), PLAIN)


def picture(colour: str | tuple[int, ...], size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Path]:
    """Write items.csv; a row is an item's id and its other cells."""

    def write(*rows: dict[str, str], name: str = "shop") -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        columns = list(dict.fromkeys(["item_id", *(key for row in rows for key in row)]))
        with (folder / "items.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        return folder

    return write
