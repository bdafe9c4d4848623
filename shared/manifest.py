"""What an artefact says of itself: ``manifest.json``, its digest and the names of versions.

Knows the manifest's content, not the tables it describes (see ``shared/artifact/``).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from shared.errors import UserError

SCHEMA_VERSION = 2
"""The manifest schema this build writes, and the only one it reads."""

_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Document):
    """A file of the artefact as it was published; ``size`` in bytes."""

    sha256: _Sha256
    size: NonNegativeInt


class Split(_Document):
    """How interactions were split: ``kind`` in the trainer's words, ``seed`` where chance took part."""

    kind: str
    seed: int | None = None


class DatasetInfo(_Document):
    """The dataset a model was trained on; ``interactions`` counts all of its splits."""

    name: str
    fingerprint: str
    users: PositiveInt
    items: PositiveInt
    interactions: NonNegativeInt
    split: Split


class Manifest(_Document):
    """The content of ``manifest.json``.

    ``files`` has every other file of the directory. ``digest`` is the sha256 of the canonical JSON of all
    other fields: a manifest that was edited by hand is told by it.
    """

    schema_version: int
    version: str
    created: AwareDatetime
    code_revision: str | None
    dataset: DatasetInfo
    recipe: dict[str, JsonValue]
    seed: int
    metrics: dict[str, FiniteFloat]
    gate: dict[str, JsonValue] | None
    files: dict[str, FileEntry]
    digest: _Sha256


def is_version(name: str) -> bool:
    """Whether ``name`` can be the name of a version, such as ``20261122T231501Z-3fa9c1d2``."""
    return _VERSION.fullmatch(name) is not None


def version_name(created: datetime, content: Mapping[str, Any]) -> str:
    """Name a version: sorts by time; a short digest of the content tells those of one second apart."""
    stamp = created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{_digest({'created': created.isoformat(), **content})[:8]}"


def seal(fields: Mapping[str, Any]) -> Manifest:
    """Complete a manifest with its digest.

    Args:
        fields: every field of :class:`Manifest` but ``schema_version`` and ``digest``.

    Raises:
        UserError: a field is wrong; the message names it.
    """
    unsealed = _validated({**fields, "schema_version": SCHEMA_VERSION, "digest": "0" * 64})
    return unsealed.model_copy(update={"digest": _digest(unsealed.model_dump(mode="json"))})


def encode(manifest: Manifest) -> bytes:
    """Write the text of ``manifest.json``."""
    document = manifest.model_dump(mode="json")
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(content: bytes) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        UserError: not a manifest, of another schema, or edited since it was written.
    """
    try:
        document = json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error})") from error
    if not isinstance(document, dict):
        raise UserError("not a JSON object")
    found = document.get("schema_version")
    if found != SCHEMA_VERSION or isinstance(found, bool):
        raise UserError(f"its schema version is {found!r}, and this build of mts4mm reads {SCHEMA_VERSION}")
    manifest = _validated_json(content)
    if manifest.digest != _digest(document):
        raise UserError("its digest does not match its content: it was edited or damaged")
    return manifest


def _canonical(document: Mapping[str, Any]) -> bytes:
    """Write the one JSON text of a document: sorted keys, no spaces, UTF-8.

    Raises:
        UserError: a value has no JSON form (NaN, infinity, an object, half a surrogate pair).
    """
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"the manifest cannot be written as JSON: {error}") from error


def _digest(document: Mapping[str, Any]) -> str:
    unsealed = {name: value for name, value in document.items() if name != "digest"}
    return hashlib.sha256(_canonical(unsealed)).hexdigest()


def _validated(fields: Mapping[str, Any]) -> Manifest:
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from error


def _validated_json(content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> UserError:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return UserError(f"manifest field {field!r}: {first['msg']}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
