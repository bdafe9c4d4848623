"""An encoder on disk: a folder with ``encoder.json``, and its network's files.

For pictures that is ``model.onnx``, for words ``tokenizer.json`` as well; attributes have none.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import durable
from shared.encoders.attributes import READING
from shared.encoders.pictures import PREPARATION
from shared.encoders.specs import AnySpec, parse_spec
from shared.encoders.texts import CLEANING
from shared.errors import UserError

DESCRIPTION = "encoder.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"

_FORMAT = 1
_FILES: dict[str, tuple[str, ...]] = {"text": (MODEL, TOKENIZER), "image": (MODEL,), "attributes": ()}
_PREPARED = {"text": CLEANING, "image": PREPARATION, "attributes": READING}


@dataclass(frozen=True)
class EncoderFolder:
    """An encoder's checked files.

    Attributes:
        spec: how its input is made, and what comes out.
        files: by name (``model.onnx``, ``tokenizer.json``).
        sha256: of each of these files.
        description: ``encoder.json`` itself.
    """

    spec: AnySpec
    files: Mapping[str, Path]
    sha256: Mapping[str, str]
    description: Path

    @property
    def digest(self) -> str:
        """Says whether two encoders make the same vectors of the same words or picture.

        The sha256 of spec, files and the way input is prepared; not of which columns the words come from.
        """
        return encoder_digest(self.spec, self.sha256)


def encoder_digest(spec: AnySpec, sha256: Mapping[str, str]) -> str:
    """See :attr:`EncoderFolder.digest`."""
    identity = [spec.model_dump(mode="json", exclude={"columns"}), dict(sha256), _PREPARED[spec.kind]]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def write_folder(
    folder: Path,
    spec: AnySpec,
    files: Mapping[str, Path],
    *,
    replace: bool = False,
    link: bool = False,
) -> None:
    """Write an encoder's folder, whole or not at all.

    Args:
        folder: the place.
        spec: what the encoder says of itself.
        files: by name, those that its kind needs.
        replace: what is there.
        link: rather than copy, where that can be; for files that nobody ever changes in place.

    Raises:
        UserError: there is one already, and ``replace`` is false.
    """
    if folder.exists() and not replace:
        raise UserError(f"{folder}: there is an encoder of that name; remove it first, or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = durable.temporary_sibling(folder)
    staging.mkdir()
    try:
        for name in needed_files(spec):
            _take(files[name], staging / name, link=link)
        document = {
            "format": _FORMAT,
            "spec": spec.model_dump(mode="json"),
            "files": {name: file_digest(staging / name) for name in needed_files(spec)},
        }
        with durable.synced_file(staging / DESCRIPTION) as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    durable.sync_directory(folder.parent)


def read_folder(folder: Path) -> EncoderFolder:
    """Read and check an encoder's folder.

    Raises:
        UserError: a file is missing or is not the one that was written.
    """
    return read_files(
        folder / DESCRIPTION, {name: folder / name for name in (MODEL, TOKENIZER) if (folder / name).exists()}
    )


def read_files(description: Path, files: Mapping[str, Path]) -> EncoderFolder:
    """Check files against the ``encoder.json`` that describes them.

    Raises:
        UserError: one is missing or another than described.
    """
    spec, sha256 = _read_description(description)
    for name in needed_files(spec):
        if name not in files:
            raise UserError(f"{description.parent}: has no {name} for the encoder {spec.name}; add the encoder again")
        if file_digest(files[name]) != sha256.get(name):
            raise UserError(f"{files[name]}: was changed or damaged since it was written; add the encoder again")
    return EncoderFolder(spec, {name: files[name] for name in needed_files(spec)}, sha256, description)


def needed_files(spec: AnySpec) -> tuple[str, ...]:
    """The files of an encoder of that kind, besides its description."""
    return _FILES[spec.kind]


def file_digest(path: Path) -> str:
    """The sha256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _read_description(path: Path) -> tuple[AnySpec, dict[str, str]]:
    try:
        document: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); add the encoder again") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); add the encoder again") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise UserError(f"{path}: is no description of an encoder in format {_FORMAT}; add the encoder again")
    files = document.get("files")
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise UserError(f"{path}: names no files; add the encoder again")
    return parse_spec(document.get("spec"), str(path)), files


def _take(source: Path, target: Path, *, link: bool) -> None:
    if link:
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    with source.open("rb") as read, durable.synced_file(target) as written:
        shutil.copyfileobj(read, written)
