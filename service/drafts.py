"""Makes a live item of what was sent, checked against the model that is to place it."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi.exceptions import RequestValidationError
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from service.content import Content
from service.schemas import MAX_METADATA, PutItemRequest
from shared.encoders import PictureError, small_jpeg
from shared.events import MAX_ID_LENGTH, require_visible
from shared.state import LiveItem

PICTURE_SIDE = 512
"""Pixels a side that are kept of a picture; no usual encoder sees more."""


def draft(item_id: str, wanted: PutItemRequest, content: Content, *, known: bool) -> LiveItem:
    """The item, with what the model's encoders make of it.

    Raises:
        RequestValidationError: a field is wrong; it is named.
        HTTPException: 409 where the model neither knows the item nor can place it.
    """
    if content.tower is None and not known:
        raise HTTPException(
            409, "The model has no item tower, so it cannot place an item: train one with content features."
        )
    if len(item_id) > MAX_ID_LENGTH:
        raise _wrong("item_id", f"must have at most {MAX_ID_LENGTH} characters", place="path")
    if "\0" in item_id:
        raise _wrong("item_id", "must not hold the character NUL, with which no event could name it", place="path")
    try:
        require_visible(item_id)
    except ValueError as error:
        raise _wrong("item_id", str(error), place="path") from None
    _require_json(wanted.metadata)
    widths = {} if content.tower is None else content.tower.modalities
    features = {}
    for name, values in wanted.features.items():
        if name not in widths:
            raise _wrong(("features", name), f"the model takes {', '.join(widths) or 'no features'}")
        if len(values) != widths[name]:
            raise _wrong(("features", name), f"must have {widths[name]} numbers, has {len(values)}")
        features[name] = _single(name, values)
    item = LiveItem(item_id, wanted.metadata, features, picture=_picture(wanted.image))
    try:
        encoded = {name: content.encoded(item, name) for name in content.missing(item)}
    except PictureError as error:
        raise _wrong("image", str(error)) from None
    item = replace(item, encoded=encoded)
    if not known and not content.features(item):
        raise _wrong(
            "features",
            f"nothing says what the item is like: give features of {' or '.join(widths)}, or, where the model has "
            "encoders, a title, a description or an image",
        )
    return item


def _single(modality: str, values: Sequence[float]) -> NDArray[np.float32]:
    """Features as float32 [values], whose length, which comparisons divide by, is a float32 above 0 too.

    Raises:
        RequestValidationError: it is not.
    """
    with np.errstate(over="ignore", under="ignore"):
        features = np.asarray(values, np.float32)
        length = np.linalg.norm(features)
    if not 0 < length < np.inf:
        message = "must not be all zero, nor so small or large that single precision cannot hold their squares' sum"
        raise _wrong(("features", modality), message)
    return features


def _require_json(metadata: dict[str, Any]) -> None:
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise _wrong("metadata", "holds half a character (a lone surrogate, \\ud800 to \\udfff)") from None
    except (ValueError, RecursionError):
        raise _wrong("metadata", "holds a number that is not finite, or is nested too deeply") from None
    if size > MAX_METADATA:
        raise _wrong("metadata", f"must have at most {MAX_METADATA} bytes as JSON, has {size}")


def _picture(image: str | None) -> bytes | None:
    if image is None:
        return None
    try:
        content = base64.b64decode(image, validate=True)
    except ValueError:  # binascii.Error, which is one, or of letters beyond ASCII
        raise _wrong("image", "is not base64") from None
    try:
        return small_jpeg(content, PICTURE_SIDE)
    except PictureError as error:
        raise _wrong("image", str(error)) from None


def _wrong(field: str | tuple[str, ...], message: str, place: str = "body") -> RequestValidationError:
    path = (field,) if isinstance(field, str) else field
    return RequestValidationError([{"type": "value_error", "loc": (place, *path), "msg": message}])
