"""API keys of the service: made by the command line, kept as a file of digests, read by the service.

The keys file is JSON, and holds no key, only sha256 digests of keys with 256 random bits, which need no salt:

    {"keys": [{"name": "web shop", "scopes": ["read", "events"], "sha256": "9f86d0..."},
              {"name": "agency", "scopes": ["read"], "sha256": "60303a...", "expires": "2027-01-31T00:00:00Z"}]}
"""

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared import durable
from shared.errors import UsageError, UserError


class Scope(StrEnum):
    """What a key opens: recommendations and look-ups, recording events, or changing what is served."""

    READ = "read"
    EVENTS = "events"
    ADMIN = "admin"


KEY_PREFIX = "mts_"
_KEY_BYTES = 32


class ApiKey(BaseModel):
    """An entry of the keys file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(min_length=1, max_length=100)
    scopes: list[Scope] = Field(min_length=1)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    expires: AwareDatetime | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


def new_key(name: str, scopes: Sequence[Scope], expires: datetime | None = None) -> tuple[str, ApiKey]:
    """Make a key: what its owner presents, shown this once, and the entry for the keys file.

    Args:
        name: whose it is.
        scopes: what it opens.
        expires: when it stops to open anything, with its time zone; never, if None.

    Raises:
        UsageError: the name is empty or too long, or there is no scope.
    """
    secret = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    try:
        return secret, ApiKey(name=name, scopes=list(scopes), sha256=digest(secret), expires=expires)
    except ValidationError as error:
        flaw = error.errors()[0]
        raise UsageError(f"a key cannot have this {flaw['loc'][0]}: {flaw['msg']}") from None


@contextmanager
def changing_keys(path: Path) -> Iterator[None]:
    """Nobody else changes a keys file from when it is loaded here until it is saved.

    Raises:
        UserError: nothing can be written beside it.
    """
    try:
        with durable.exclusive(path.with_name(f".{path.name}.lock")):
            yield
    except OSError as error:
        raise UserError(f"{path}: the keys file cannot be written ({error.strerror})") from None


def load_keys(path: Path) -> list[ApiKey]:
    """Read a keys file.

    Raises:
        UserError: it cannot be read or is no keys file; the message names the entry, never a value.
    """
    try:
        return _KeysFile.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise UserError(f"{path}: the keys file cannot be read ({error.strerror})") from None
    except ValidationError as error:
        flaws = "; ".join(f"{'.'.join(map(str, flaw['loc'])) or 'the file'}: {flaw['msg']}" for flaw in error.errors())
        raise UserError(f"{path}: not a keys file: {flaws}. Make entries with 'mts4mm keys new'") from None


def save_keys(path: Path, keys: list[ApiKey]) -> None:
    """Replace a keys file, readable by its owner alone.

    Raises:
        UserError: two keys have the same name, or it cannot be written.
    """
    try:
        content = _KeysFile(keys=keys).model_dump_json(indent=2, exclude_none=True)
        with durable.replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content.encode() + b"\n")
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}: choose another name") from None
    except OSError as error:
        raise UserError(f"{path}: the keys file cannot be written ({error.strerror})") from None


def digest(secret: str) -> str:
    """What the keys file has of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: list[ApiKey] = Field(min_length=1)

    @field_validator("keys")
    @classmethod
    def _each_once(cls, keys: list[ApiKey]) -> list[ApiKey]:
        for value in ("name", "sha256"):
            values = [getattr(key, value) for key in keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {value}")
        return keys
