"""Running an encoder: words, a picture or attributes in, float32 vectors out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shared.encoders.attributes import attributes_text, attributes_vector
from shared.encoders.folder import MODEL, TOKENIZER, EncoderFolder
from shared.encoders.pictures import decode_picture
from shared.encoders.specs import AnySpec, AttributesSpec, ImageSpec, TextSpec
from shared.encoders.texts import plain_text, words
from shared.errors import UserError
from shared.onnx_runtime import onnxruntime

Vectors = NDArray[np.float32]

BATCH = 32
"""Inputs that a network sees at once."""

_CHARACTERS_PER_TOKEN = 40
"""A text is cut here before its tokens are counted: long words aside, a token has four."""

_FATAL = 4

Raw = TypeVar("Raw", str, bytes)
Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Tokens:
    """A text as its network takes it: int64 token ids, at least one."""

    ids: NDArray[np.int64]


@dataclass(frozen=True)
class RawItem:
    """An item as an encoder of any kind takes its input from it.

    Attributes:
        fields: what is known of it, by column.
        picture: reads the bytes of its picture; None if it has none.
    """

    fields: Mapping[str, Any]
    picture: Callable[[], bytes | None]


class Encoder(ABC, Generic[Raw, Prepared]):
    """What all kinds do: prepare each input, then make vectors of batches of them."""

    spec: AnySpec
    digest: str
    """Equal where vectors are comparable; see ``EncoderFolder.digest``."""

    @property
    def width(self) -> int:
        """The length of a vector."""
        return self.spec.width

    @abstractmethod
    def taken_of(self, item: RawItem) -> Raw | None:
        """The input that an item is to this encoder; None where there is nothing."""

    @abstractmethod
    def prepare(self, raw: Raw) -> Prepared | None:
        """One input as the network takes it; None where there is nothing in it. May run in many threads at once."""

    @abstractmethod
    def _output(self, batch: Sequence[Prepared]) -> Vectors:
        """What the network makes of prepared inputs, (n, any)."""

    def run(self, batch: Sequence[Prepared]) -> Vectors:
        """The network over at most a few dozen prepared inputs, float32 [n, width], all finite.

        Raises:
            UserError: the network fails, or gives another width or numbers that are not finite.
        """
        return _checked(self._output(batch), self.spec)

    def measured_width(self, raw: Raw) -> int:
        """The length of the vector that the network gives for an input, whatever its spec says.

        Raises:
            UserError: the network fails, or gives no vector.
        """
        prepared = self.prepare(raw)
        output = self._output([] if prepared is None else [prepared])
        if output.ndim != 2:
            raise UserError(f"encoder {self.spec.name}: gives an array {output.shape} for one input, not one vector")
        return int(output.shape[1])

    def encode_item(self, item: RawItem) -> Vectors | None:
        """The vector of an item, float32 [width]; None where there is nothing to make it of.

        Raises:
            PictureError: its picture is not sound.
            UserError: as ``run``.
        """
        raw = self.taken_of(item)
        prepared = None if raw is None else self.prepare(raw)
        return None if prepared is None else np.asarray(self.run([prepared])[0])

    def encode(self, inputs: Iterable[Raw]) -> Vectors:
        """Vectors of texts, or of the bytes of picture files, float32 [n, width]; NaN where a text has no words.

        Raises:
            PictureError: bytes are not a sound picture; see :mod:`shared.encoders.pictures` for the bounds.
            UserError: as ``run``.
        """
        prepared = [self.prepare(each) for each in inputs]
        vectors = np.full((len(prepared), self.width), np.nan, np.float32)
        there = [row for row, each in enumerate(prepared) if each is not None]
        for rows in _batches(there):
            vectors[rows] = self.run([each for row in rows if (each := prepared[row]) is not None])
        return vectors


class TextEncoder(Encoder[str, Tokens]):
    """A sentence transformer."""

    def __init__(self, spec: TextSpec, digest: str, network: "_Network", tokenizer: Tokenizer) -> None:
        self.spec: TextSpec = spec
        self.digest = digest
        self._network = network
        self._tokenizer = tokenizer

    def taken_of(self, item: RawItem) -> str | None:
        """The words of its columns, joined."""
        return words(item.fields, self.spec.columns) or None

    def prepare(self, raw: str) -> Tokens | None:
        """The tokens of a text's words, cut to ``max_tokens``; None if it has no words."""
        text = plain_text(raw)[: self.spec.max_tokens * _CHARACTERS_PER_TOKEN]
        if not text:
            return None
        ids = np.asarray(self._tokenizer.encode(text).ids, dtype=np.int64)
        return Tokens(ids) if len(ids) else None

    def _output(self, batch: Sequence[Tokens]) -> Vectors:
        longest = max(len(each.ids) for each in batch)
        ids = np.zeros((len(batch), longest), np.int64)
        mask = np.zeros_like(ids)
        for row, each in enumerate(batch):
            ids[row, : len(each.ids)] = each.ids
            mask[row, : len(each.ids)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        output = self._network.run({name: given[name] for name in self._network.inputs})
        return _pooled(output, mask, self.spec)


class ImageEncoder(Encoder[bytes, Vectors]):
    """A network over pictures."""

    def __init__(self, spec: ImageSpec, digest: str, network: "_Network") -> None:
        self.spec: ImageSpec = spec
        self.digest = digest
        self._network = network

    def taken_of(self, item: RawItem) -> bytes | None:
        """The bytes of its picture."""
        return item.picture()

    def prepare(self, raw: bytes) -> Vectors:
        """See ``shared.encoders.pictures.decode_picture``."""
        return decode_picture(raw, self.spec)

    def _output(self, batch: Sequence[Vectors]) -> Vectors:
        (name,) = self._network.inputs
        steps = [[each] for each in batch] if self._network.single else [batch]
        outputs = [self._network.run({name: np.stack(step)}) for step in steps]
        output = np.concatenate(outputs)
        if output.ndim != 4:
            return output
        return np.asarray(output.mean(axis=(2, 3) if self.spec.layout == "NCHW" else (1, 2)), np.float32)


class AttributesEncoder(Encoder[str, Vectors]):
    """Attributes, read without a network."""

    def __init__(self, spec: AttributesSpec, digest: str) -> None:
        self.spec: AttributesSpec = spec
        self.digest = digest

    def taken_of(self, item: RawItem) -> str | None:
        """See ``shared.encoders.attributes.attributes_text``."""
        return attributes_text(item.fields, self.spec.columns)

    def prepare(self, raw: str) -> Vectors | None:
        """See ``shared.encoders.attributes.attributes_vector``."""
        return attributes_vector(self.spec.attributes, raw)

    def _output(self, batch: Sequence[Vectors]) -> Vectors:
        return np.stack(batch)


def open_encoder(folder: EncoderFolder, threads: int = 1) -> Encoder[Any, Any]:
    """Load an encoder's network, if it has one.

    Raises:
        UserError: onnxruntime or tokenizers cannot read its files, or its inputs are not those of its kind.
    """
    if isinstance(folder.spec, AttributesSpec):
        return AttributesEncoder(folder.spec, folder.digest)
    network = _Network(folder.files[MODEL], threads)
    if isinstance(folder.spec, TextSpec):
        network.require_inputs({"input_ids"}, {"input_ids", "attention_mask", "token_type_ids"})
        return TextEncoder(folder.spec, folder.digest, network, _open_tokenizer(folder.files[TOKENIZER], folder.spec))
    if len(network.inputs) != 1:
        raise UserError(f"{network.path}: takes {', '.join(network.inputs)}; a network over pictures takes one input")
    return ImageEncoder(folder.spec, folder.digest, network)


class _Network:
    """An onnxruntime session whose first output counts."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no exception of its own to name
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: is no ONNX network that onnxruntime can run as it is ({reason})") from error
        described = self._session.get_inputs()
        self.inputs = [each.name for each in described]
        self.single = bool(described) and described[0].shape[:1] == [1]
        self._output = self._session.get_outputs()[0].name

    def require_inputs(self, needed: set[str], known: set[str]) -> None:
        if not needed <= set(self.inputs) <= known:
            found = ", ".join(self.inputs)
            raise UserError(f"{self.path}: takes {found}; a network over words takes {', '.join(sorted(known))}")

    def run(self, inputs: dict[str, NDArray[Any]]) -> Vectors:
        try:
            (output,) = self._session.run([self._output], inputs)
        except Exception as error:  # as above
            raise UserError(f"{self.path}: the network fails ({str(error).splitlines()[0]})") from error
        return np.asarray(output, dtype=np.float32)


def _open_tokenizer(path: Path, spec: TextSpec) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: is no tokenizer.json that tokenizers can read ({error})") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec.max_tokens)
    return tokenizer


def _pooled(output: Vectors, mask: NDArray[np.int64], spec: TextSpec) -> Vectors:
    if output.ndim != 3:
        return output
    if spec.pooling == "cls":
        return output[:, 0]
    weights = mask[:, :, None].astype(np.float32)
    return np.asarray((output * weights).sum(axis=1) / weights.sum(axis=1), np.float32)


def _checked(output: Vectors, spec: AnySpec) -> Vectors:
    if output.ndim != 2 or output.shape[1] != spec.width:
        raise UserError(f"encoder {spec.name}: gives {output.shape[1:]} numbers an input instead of {spec.width}")
    if not np.isfinite(output).all():
        raise UserError(f"encoder {spec.name}: gives numbers that are not finite; its weights or its spec are wrong")
    if not spec.normalise:
        return output
    length = np.linalg.norm(output, axis=1, keepdims=True)
    return np.asarray(output / np.where(length > 0, length, 1), np.float32)


def _batches(rows: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
