"""Which encoder a catalogue is encoded with, and from which columns, where the user does not say."""

from pathlib import Path

from shared.encoders import EncoderFolder, read_folder
from shared.encoders.texts import TEXT_FIELDS
from shared.errors import UserError
from trainer.encoders.attributes import ATTRIBUTES, WORDS
from trainer.encoders.efficientnet import EFFICIENTNET, add_efficientnet, efficientnet_installed
from trainer.encoders.features_manifest import encoder_path, read_manifest
from trainer.encoders.sentence_transformer import MINILM, add_sentence_transformer, minilm_folder
from trainer.encoders.sources import IMAGE_FIELDS
from trainer.encoders.store import encoder_place, find_encoder, list_encoders

_USUAL_COLUMNS: dict[str, tuple[str, ...]] = {"text": TEXT_FIELDS, "image": IMAGE_FIELDS, ATTRIBUTES: (), WORDS: ()}
_PACKAGED = {"text": MINILM, "image": EFFICIENTNET}


class NoEncoderError(UserError):
    """There is no encoder of a kind at all."""


def choose_encoder(store: Path, kind: str, name: str | None, out: Path) -> EncoderFolder:
    """The encoder by name; else the one that made the features that are there; else the only one in the store.

    Without any, the text encoder minilm is added from its package, and the image encoder efficientnet-lite0 where its
    package is installed.

    Raises:
        NoEncoderError: there is none.
        UserError: there are several to choose from, or the one there is cannot be used.
    """
    if name is None and read_manifest(out, kind) is not None:
        return read_folder(encoder_path(out, kind))
    names = [each.name for each in list_encoders(store) if each.kind == kind]
    if name is None and len(names) > 1:
        raise UserError(f"there are several {kind} encoders ({', '.join(names)}): choose one with --{kind} NAME")
    if name is None and not names and kind == "image" and not efficientnet_installed():
        raise NoEncoderError(
            "no image encoder: pip install 'mts4mm[image]' brings one, 'mts4mm encoders add image FILE.onnx' takes any "
            "network, 'mts4mm encoders fit image DIR' trains a small one on the catalogue's own pictures"
        )
    wanted = name or (names[0] if names else _PACKAGED[kind])
    if wanted == _PACKAGED[kind] and wanted not in names:
        add_packaged(store, kind)
    return find_encoder(store, kind, wanted)


def choose_columns(kind: str, out: Path) -> tuple[str, ...]:
    """The columns that were asked for when the features that are there were made; the usual where there are none.

    Attributes and words have no usual columns: empty, unless there were some last time. Where nobody noted what was
    asked for, it was the usual if the features were made from some of these.
    """
    manifest, usual = read_manifest(out, kind), _USUAL_COLUMNS[kind]
    if manifest is not None and manifest.asked:
        return manifest.asked
    if manifest is None or {column.lower() for column in manifest.fields} <= set(usual):
        return usual
    return manifest.fields


def add_packaged(store: Path, kind: str) -> None:
    """Add the text or the image encoder that comes with a package to a store.

    Raises:
        UserError: the package is not installed, or an encoder of the name is there already.
    """
    if kind == "text":
        add_sentence_transformer(minilm_folder(), encoder_place(store, kind, MINILM), MINILM)
    else:
        add_efficientnet(encoder_place(store, kind, EFFICIENTNET))
