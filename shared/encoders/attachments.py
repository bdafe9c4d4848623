"""The encoders in an artefact: attachments ``encoder_<modality>.json``, ``.onnx`` and ``.tokenizer.json``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.artifact import Artifact
from shared.encoders.encoder import Encoder, open_encoder
from shared.encoders.folder import DESCRIPTION, MODEL, TOKENIZER, EncoderFolder, read_files

ENCODER_FILES = {DESCRIPTION: "json", MODEL: "onnx", TOKENIZER: "tokenizer.json"}
"""The ending of an attachment's name by the file's name in an encoder's folder."""

_DESCRIPTION_NAME = re.compile(r"attached\.encoder_(?P<modality>[a-z][a-z0-9_-]*)\.json")


def attachments_of(encoders: Mapping[str, EncoderFolder]) -> dict[str, Path]:
    """What an artefact takes along of the encoders by modality, for ``StudentModel.attachments``."""
    attached = {}
    for modality, encoder in encoders.items():
        for name, path in {DESCRIPTION: encoder.description, **encoder.files}.items():
            attached[_attachment(modality, name)] = path
    return attached


def encoder_modalities(artifact: Artifact) -> list[str]:
    """The modalities that an artefact brings an encoder for."""
    found = (_DESCRIPTION_NAME.fullmatch(name) for name in artifact.manifest.files)
    return sorted(match["modality"] for match in found if match)


def load_encoders(artifact: Artifact, threads: int = 1) -> dict[str, Encoder[Any, Any]]:
    """Open the encoders of an artefact, by modality; empty if it has none. Each may be used by many threads at once.

    Args:
        artifact: a checked artefact.
        threads: that one call of an encoder may use.

    Raises:
        UserError: one cannot be opened; the message names its file.
    """
    encoders = {}
    for modality in encoder_modalities(artifact):
        paths = {name: artifact.attachment(_attachment(modality, name)) for name in ENCODER_FILES}
        description = paths.pop(DESCRIPTION)
        if description is not None:
            files = {name: path for name, path in paths.items() if path is not None}
            encoders[modality] = open_encoder(read_files(description, files), threads)
    return encoders


def _attachment(modality: str, name: str) -> str:
    return f"encoder_{modality}.{ENCODER_FILES[name]}"
