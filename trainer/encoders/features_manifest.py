"""``<modality>_feat.json``: which encoder made ``<modality>_feat.npy``, of which contents, row by row.

The encoder itself lies beside, in ``encoders/<modality>/``, so that a dataset's folder is whole by itself.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import durable
from shared.encoders import EncoderFolder, read_folder
from shared.encoders.folder import file_digest
from shared.errors import UserError

ENCODERS = "encoders"
"""The folder beside the features that keeps their encoders."""

_FORMAT = 1


@dataclass(frozen=True)
class FeaturesManifest:
    """What is known of a features file.

    Attributes:
        modality: e.g. ``text``.
        encoder: digest of the encoder (``EncoderFolder.digest``).
        described: its spec, for people.
        fields: the columns of the items table that were encoded.
        asked: those that were wanted, there or not; None if that was not noted.
        features: sha256 of the features file.
        item_ids: (rows,).
        contents: (rows,) sha256 of what was encoded; None where there was nothing.
        faults: by item id, why it has no vector although the table names something.
    """

    modality: str
    encoder: str
    described: dict[str, Any]
    fields: tuple[str, ...]
    features: str
    item_ids: tuple[str, ...]
    contents: tuple[str | None, ...]
    faults: dict[str, str]
    asked: tuple[str, ...] | None = None


def features_path(folder: Path, modality: str) -> Path:
    """The features file of a modality."""
    return folder / f"{modality}_feat.npy"


def manifest_path(folder: Path, modality: str) -> Path:
    """The manifest of a modality's features."""
    return folder / f"{modality}_feat.json"


def encoder_path(folder: Path, modality: str) -> Path:
    """The folder of the encoder that made a modality's features."""
    return folder / ENCODERS / modality


def write_manifest(folder: Path, manifest: FeaturesManifest) -> None:
    """Write it, atomically."""
    document = {
        "format": _FORMAT,
        "modality": manifest.modality,
        "encoder": {"digest": manifest.encoder, **manifest.described},
        "fields": manifest.fields,
        "asked": manifest.asked,
        "features_sha256": manifest.features,
        "faults": manifest.faults,
        "items": {"item_id": manifest.item_ids, "sha256": manifest.contents},
    }
    with durable.replacing(manifest_path(folder, manifest.modality)) as file:
        file.write(json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")


def read_manifest(folder: Path, modality: str) -> FeaturesManifest | None:
    """The manifest of the features that are there now; None if there is none, or it is of other features."""
    path, features = manifest_path(folder, modality), features_path(folder, modality)
    if not path.is_file() or not features.is_file():
        return None
    try:
        manifest = _parse(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    whole = len(manifest.item_ids) == len(manifest.contents)
    return manifest if whole and manifest.features == file_digest(features) else None


def read_manifests(folder: Path, modalities: Iterable[str]) -> dict[str, FeaturesManifest]:
    """The manifests of a dataset's features, by modality; of features from elsewhere there is none."""
    found = {modality: read_manifest(folder, modality) for modality in modalities}
    return {modality: manifest for modality, manifest in found.items() if manifest is not None}


def encoders_of(folder: Path, manifests: Mapping[str, FeaturesManifest]) -> dict[str, EncoderFolder]:
    """The encoders that made a dataset's features, by modality, where they are still there."""
    encoders = {}
    for modality, manifest in manifests.items():
        try:
            encoder = read_folder(encoder_path(folder, modality))
        except UserError:
            continue
        if encoder.digest == manifest.encoder:
            encoders[modality] = encoder
    return encoders


def _parse(document: Any) -> FeaturesManifest:
    if document["format"] != _FORMAT:
        raise ValueError("another format")
    encoder, asked = dict(document["encoder"]), document.get("asked")
    return FeaturesManifest(
        document["modality"],
        encoder.pop("digest"),
        encoder,
        tuple(document["fields"]),
        document["features_sha256"],
        tuple(document["items"]["item_id"]),
        tuple(document["items"]["sha256"]),
        dict(document["faults"]),
        None if asked is None else tuple(asked),
    )
