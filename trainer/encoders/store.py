"""The encoders of this machine's user: a folder each, ``<store>/<kind>/<name>/``."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.encoders import (
    AnySpec,
    Encoder,
    EncoderFolder,
    ImageSpec,
    TextSpec,
    open_encoder,
    read_folder,
    write_folder,
)
from shared.encoders.folder import MODEL, TOKENIZER, file_digest
from shared.encoders.specs import parse_spec
from shared.errors import UserError

KINDS = ("image", "text")
ENVIRONMENT = "MTS4MM_ENCODERS"

_NAME_HINT = "small letters, digits, '-', '_' and '.'"
_UNLAWFUL = re.compile(r"[^a-z0-9_.-]+")
_LONGEST_NAME = 63
_WORDS = "a sturdy mug for tea"


@dataclass(frozen=True)
class Stored:
    """An entry of a store; ``damage`` says what is wrong with it, and ``encoder`` is then None."""

    kind: str
    name: str
    encoder: EncoderFolder | None
    damage: str | None


def default_store() -> Path:
    """``MTS4MM_ENCODERS``, else ``mts4mm/encoders`` in the user's data folder."""
    if given := os.environ.get(ENVIRONMENT):
        return Path(given)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "mts4mm" / "encoders"


def encoder_place(store: Path, kind: str, name: str) -> Path:
    """The folder of an encoder.

    Raises:
        UserError: the name is none.
    """
    origin = f"encoder {name!r} (a name is of {_NAME_HINT})"
    parse_spec({"kind": kind, "name": name, "revision": "", "width": 1}, origin)
    return store / kind / name


def lawful_name(called: str) -> str:
    """A name that an encoder may have, like that of a folder or file; ``shop`` where nothing of that is left.

    >>> lawful_name("Demo Shop (2)"), lawful_name("ResNet-50_v1.5"), lawful_name("店")
    ('demo-shop-2', 'resnet-50_v1.5', 'shop')
    """
    return _UNLAWFUL.sub("-", called.lower()).strip("-_.")[:_LONGEST_NAME] or "shop"


def free_place(store: Path, kind: str, name: str) -> Path:
    """The folder of an encoder that is to be added.

    Raises:
        UserError: the name is none, or is taken.
    """
    place = encoder_place(store, kind, name)
    if place.exists():
        raise UserError(f"{place}: there is an encoder of that name; remove it first, or choose another name")
    return place


def list_encoders(store: Path) -> list[Stored]:
    """All of a store, by kind and name."""
    found = []
    for kind in KINDS:
        folders = sorted(path for path in (store / kind).glob("[!.]*") if path.is_dir())
        found += [_entry(kind, path) for path in folders]
    return found


def find_encoder(store: Path, kind: str, name: str) -> EncoderFolder:
    """An encoder by name.

    Raises:
        UserError: there is none, or it is damaged.
    """
    place = encoder_place(store, kind, name)
    if not place.is_dir():
        known = ", ".join(each.name for each in list_encoders(store) if each.kind == kind) or "none"
        raise UserError(f"no {kind} encoder {name!r} in {store}; there are: {known}")
    return read_folder(place)


def remove_encoder(store: Path, kind: str, name: str) -> None:
    """Remove an encoder; datasets and artefacts that were made with it keep theirs.

    Raises:
        UserError: there is none.
    """
    place = encoder_place(store, kind, name)
    if not place.is_dir():
        find_encoder(store, kind, name)
    shutil.rmtree(place)


def add_text_network(store: Path, name: str, network: Path, tokenizer: Path, settings: dict[str, Any]) -> EncoderFolder:
    """Add an ONNX network over words with its ``tokenizer.json``; its width is found by running it.

    Args:
        store: where it goes.
        name: in the store.
        network: inputs ``input_ids`` and, if it takes them, ``attention_mask`` and ``token_type_ids``; output a
            vector a text, or a vector a token, which is then pooled.
        tokenizer: in the format of the tokenizers library.
        settings: further keys of a ``TextSpec``.

    Raises:
        UserError: a file cannot be read, or the network does not run.
    """
    return _add(store, {**settings, "kind": "text"}, name, {MODEL: network, TOKENIZER: tokenizer})


def add_image_network(store: Path, name: str, network: Path, settings: dict[str, Any]) -> EncoderFolder:
    """Add an ONNX network over pictures; its width is found by running it.

    Args:
        store: where it goes.
        name: in the store.
        network: one input, a batch of pictures; output a vector a picture, or a map, whose mean is taken.
        settings: keys of an ``ImageSpec``: how pictures are prepared.

    Raises:
        UserError: the file cannot be read, the settings are wrong, or the network does not run with them.
    """
    return _add(store, {**settings, "kind": "image"}, name, {MODEL: network})


def _add(store: Path, settings: dict[str, Any], name: str, files: dict[str, Path]) -> EncoderFolder:
    place = free_place(store, settings["kind"], name)
    described = {"revision": f"sha256:{file_digest(files[MODEL])}", **settings, "name": name, "width": 1}
    spec = parse_spec(described, f"{settings['kind']} encoder {name}")
    width = _probe(spec, files)
    write_folder(place, spec.model_copy(update={"width": width}), files)
    return read_folder(place)


def _probe(spec: AnySpec, files: dict[str, Path]) -> int:
    """Run the network on something simple, and on a text as long as it is to read; returns the width of its vectors."""
    for path in files.values():
        file_digest(path)
    with tempfile.TemporaryDirectory(prefix="mts4mm-encoder-") as folder:
        place = Path(folder) / "encoder"
        write_folder(place, spec, files)
        with _naming({str(place / name): str(path) for name, path in files.items()}):
            encoder = open_encoder(read_folder(place))
            width = encoder.measured_width(_sample(spec))
            if isinstance(spec, TextSpec):
                _require_long_texts(encoder, spec)
            return width


@contextmanager
def _naming(files: dict[str, str]) -> Iterator[None]:
    """Errors name a user's files and not their copies, which are the keys."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for copy, file in files.items():
            message = message.replace(copy, file)
        raise UserError(message) from error


def _require_long_texts(encoder: Encoder[Any, Any], spec: TextSpec) -> None:
    try:
        encoder.measured_width(f"{_WORDS} " * spec.max_tokens)
    except UserError as error:
        raise UserError(
            f"{error}: it reads short texts, but none of {spec.max_tokens} tokens; give --max-tokens the most that it "
            "reads, such as 512"
        ) from error


def _sample(spec: AnySpec) -> Any:
    if not isinstance(spec, ImageSpec):
        return _WORDS
    import io

    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (spec.height, spec.width_pixels, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _entry(kind: str, path: Path) -> Stored:
    try:
        return Stored(kind, path.name, read_folder(path), None)
    except UserError as error:
        return Stored(kind, path.name, None, str(error))
