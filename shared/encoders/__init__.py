"""Encoders: what turns words, a picture or attributes into a feature vector, for both sides of the house.

The trainer encodes a catalogue with them (``mts4mm encode``) and attaches them to the artefact; the service encodes
what arrives later with the very same ones. Only onnxruntime, tokenizers and Pillow run here.
"""

from shared.encoders.attachments import ENCODER_FILES, attachments_of, encoder_modalities, load_encoders
from shared.encoders.encoder import AttributesEncoder, Encoder, ImageEncoder, RawItem, TextEncoder, open_encoder
from shared.encoders.folder import EncoderFolder, read_folder, write_folder
from shared.encoders.pictures import PictureError, small_jpeg
from shared.encoders.specs import AnySpec, AttributesSpec, ImageSpec, Spec, TextSpec
from shared.encoders.texts import plain_text

__all__ = [
    "ENCODER_FILES",
    "AnySpec",
    "AttributesEncoder",
    "AttributesSpec",
    "Encoder",
    "EncoderFolder",
    "ImageEncoder",
    "ImageSpec",
    "PictureError",
    "RawItem",
    "Spec",
    "TextEncoder",
    "TextSpec",
    "attachments_of",
    "encoder_modalities",
    "load_encoders",
    "open_encoder",
    "plain_text",
    "read_folder",
    "small_jpeg",
    "write_folder",
]
