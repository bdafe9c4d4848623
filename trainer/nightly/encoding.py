"""Features of the items that came since the base was made, by the encoders that made the base's.

The service encodes an item when it is put, with the live model's encoders. What it could not, or did with others than
those that the base has by now, is encoded here: the words and attributes of the item, and the picture kept of it.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.encoders import RawItem, read_folder
from shared.encoders.encoder import open_encoder
from shared.encoders.folder import file_digest
from shared.encoders.pictures import PictureError
from shared.kept_pictures import kept_picture
from shared.state import Encoded
from trainer.encoders.features_manifest import (
    FeaturesManifest,
    encoder_path,
    features_path,
    read_manifest,
    write_manifest,
)
from trainer.nightly import additions, fault
from trainer.nightly.additions import Addition
from trainer.nightly.snapshot import usable, write_features


@dataclass(frozen=True)
class Places:
    """Where things are: the dataset that the shop began with, tonight's, the models, and what was put."""

    base: Path
    tonight: Path
    store: Path
    additions: Path


@dataclass
class Encoding:
    """What was done: by modality the encoder's digest, how many items it encoded; by item, why it could not."""

    encoders: dict[str, str] = field(default_factory=dict)
    encoded: dict[str, int] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def encode_new(places: Places, modalities: Sequence[str], item_ids: Sequence[str]) -> Encoding:
    """Let the base's encoders travel with tonight's data, and encode what they have not seen.

    Args:
        places: where everything is.
        modalities: of tonight's data; those whose features come from elsewhere are left as they are.
        item_ids: of tonight's data, in the order of its rows.

    Raises:
        UserError: an encoder is damaged, or fails.
    """
    done = Encoding()
    for modality in modalities:
        manifest = read_manifest(places.base, modality)
        if manifest is None:
            continue
        folder = encoder_path(places.tonight, modality)
        shutil.copytree(encoder_path(places.base, modality), folder, dirs_exist_ok=True)
        done.encoders[modality] = manifest.encoder
        asked = _encode(places, modality, done.faults)
        made = _rows_by_item(asked, modality)
        done.encoded[modality] = len(made)
        rows = {place: made[item_id] for place, item_id in enumerate(item_ids) if item_id in made}
        if rows:
            write_features(places.tonight, modality, rows)
        write_manifest(places.tonight, _moved(manifest, places.tonight, item_ids))
        _note(places, asked, modality)
    return done


def _encode(places: Places, modality: str, faults: dict[str, str]) -> list[tuple[Addition, Encoded]]:
    """What the encoder makes of the items that it has not seen."""
    folder = read_folder(encoder_path(places.tonight, modality))
    name = folder.spec.signature
    waiting = [each for each in additions.read(places.additions) if each.lacks(modality, name)]
    if not waiting:
        return []
    encoder = open_encoder(folder)
    asked = []
    for addition in waiting:
        try:
            picture = partial(kept_picture, places.store, addition.item_id)
            values = encoder.encode_item(RawItem(addition.metadata, picture))
        except PictureError as error:
            faults[addition.item_id] = str(error)
            values = None
        vector = values if values is not None and usable(values, encoder.width) else None
        asked.append((addition, Encoded(name, vector)))
    return asked


def _rows_by_item(asked: Iterable[tuple[Addition, Encoded]], modality: str) -> dict[str, NDArray[np.float32] | None]:
    """The features that are other ones now, by item.

    An item of which the encoder makes nothing is there, with None, only if its features are those of another encoder.
    Else nobody said anything of that kind, and an item of the base keeps what the base says.
    """
    return {
        addition.item_id: made.values
        for addition, made in asked
        if made.values is not None or modality in addition.features
    }


def _note(places: Places, asked: Iterable[tuple[Addition, Encoded]], modality: str) -> None:
    """That nobody need ask again; only once the features have it, for who is noted is not asked for them again."""
    for addition, made in asked:
        additions.note_encoded(places.additions, addition, modality, made)
        fault.point("encode:noted")


def _moved(manifest: FeaturesManifest, folder: Path, item_ids: Sequence[str]) -> FeaturesManifest:
    known: Mapping[str, str | None] = dict(zip(manifest.item_ids, manifest.contents, strict=True))
    return replace(
        manifest,
        features=file_digest(features_path(folder, manifest.modality)),
        item_ids=tuple(item_ids),
        contents=tuple(known.get(each) for each in item_ids),
    )
