"""The settings of the service: every one has a default, a description, and an environment variable ``MTS4MM_<NAME>``.

A variable with this prefix that is none of them is refused, so that a mistyped limit is not silently no limit.
"""

import difflib
import ipaddress
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from limits import parse
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict, SettingsError

from shared.errors import UsageError
from shared.settings import PREFIX, StateSettings

OF_OTHERS = frozenset(
    f"{PREFIX}{name}" for name in ("REALDATA", "API_KEY", "API_KEY_FILE", "ENCODERS", "SHOP", "LOG", "NIGHT", "SERVICE")
)
"""Variables with the prefix that are the trainer's or the tests'."""

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)]


class Settings(StateSettings):
    """What an operator can decide. ``docs/settings.md`` is made from these descriptions."""

    model_config = SettingsConfigDict(extra="forbid")

    models: Path = Field(Path("models"), description="The models folder to serve from.")
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: Port = Field(8000, description="The port to listen on, 0 for any free one.")
    workers: int = Field(
        1, ge=1, le=256, description="How many processes answer, at most one a core; they share the model's tables."
    )
    catalogue: Path | None = Field(
        None, description="The dataset folder that the items' pictures are served from; no pictures by default."
    )

    keys: Path | None = Field(
        None, description="The file of API keys, as `mts4mm keys new` writes it; read again when it changes."
    )
    open: bool = Field(
        False,
        description="Serve everybody, without keys, also on an address that is not loopback. Only behind something "
        "that asks who is there.",
    )
    rate_limit: str | None = Field(
        None,
        description="How often a key may call, such as `100/second` or `5000/hour`. Each worker counts the calls that "
        "it answers, so that several together allow up to as many times that. No limit by default.",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="The origins whose pages may call the service from a browser, separated by commas; `*` for all. "
        "Cookies are never part of it. None by default.",
    )

    max_body_bytes: int = Field(1024 * 1024, ge=1, le=2**31 - 1, description="The largest request body.")
    max_body_depth: int = Field(32, ge=1, le=500, description="How deeply the JSON of a body may be nested.")
    max_in_flight: int = Field(
        16,
        ge=1,
        le=10_000,
        description="How many requests a worker works on at once; others wait. Those of the same moment share a search "
        "and a round trip to Redis; large catalogues are searched by 8 threads at most.",
    )
    max_waiting: int = Field(
        128, ge=0, le=100_000, description="How many requests may wait in a worker; others are answered 503."
    )
    max_wait_seconds: Seconds = Field(
        0.5, description="How long a request may wait for its turn before it is answered 503."
    )
    request_timeout_seconds: float = Field(
        15.0,
        gt=0,
        le=3_600,
        description="How long a request may take in all, from its first byte to its last; not for `/admin/...`.",
    )
    head_timeout_seconds: float = Field(
        10.0, gt=0, le=3_600, description="How long a client may take to send the head of a request."
    )
    keep_alive_seconds: int = Field(
        65,
        ge=1,
        le=3_600,
        description="How long an idle connection is kept; longer than a load balancer in front does.",
    )
    drain_seconds: Seconds = Field(
        1.0, description="How long, after SIGTERM, `/readyz` answers 503 while requests are still taken in."
    )
    grace_seconds: int = Field(
        8, ge=0, le=3_600, description="How long, after that, requests in flight may take to finish."
    )

    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="How the log is written: `json`, `console`, or by itself `console` on a terminal alone."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    tracing: bool = Field(
        False,
        description="Send OpenTelemetry traces, by OTLP over HTTP; needs `mts4mm[otel]`. Where to, and how many, say "
        "the standard `OTEL_*` variables, such as `OTEL_EXPORTER_OTLP_ENDPOINT`.",
    )

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, rate: str | None) -> str | None:
        if rate is not None:
            try:
                parse(rate)
            except ValueError:
                raise ValueError("write it as 100/second or 5000/hour") from None
        return rate

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, origins: object) -> object:
        if isinstance(origins, str):
            return [origin.strip() for origin in origins.split(",") if origin.strip()]
        return origins

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            scheme, separator, rest = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not separator or not rest or "/" in rest):
                raise ValueError(f"{origin!r} is no origin: write it as https://shop.example, without a path")
        return origins

    @model_validator(mode="after")
    def _asks_who_is_there(self) -> Self:
        if self.keys is None and not self.open and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is not a loopback address, and without API keys everybody could call the service. Make "
                f"a key with 'mts4mm keys new keys.json NAME' and set {PREFIX}KEYS=keys.json; or, behind something "
                f"that asks who is there, set {PREFIX}OPEN=true"
            )
        return self


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment; what is given here goes before it.

    Raises:
        UsageError: a variable is unknown, or a value makes no sense; the message names it and says how to mend it.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**given)
    except SettingsError as error:
        raise UsageError(f"{PREFIX}...: {error}") from None
    except ValidationError as error:
        raise UsageError("; ".join(_flaw(dict(flaw)) for flaw in error.errors(include_url=False))) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; of names only ``localhost`` is taken to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(settings: Settings) -> str:
    """Write settings as an environment file, which gives the same settings when it is read; secrets are masked."""
    lines = []
    for name, field in type(settings).model_fields.items():
        lines += [f"# {field.description}", f"{PREFIX}{name.upper()}={_written(getattr(settings, name))}", ""]
    return "\n".join(lines)


def reference() -> str:
    """``docs/settings.md``: every setting, its default and its description."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field.get_default(call_default_factory=True))} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([*_REFERENCE_HEAD, *rows, ""])


_REFERENCE_HEAD = (
    "# Settings of the service",
    "",
    "By environment variable; an unknown one with this prefix is refused at the start. `mts4mm serve --print-config`",
    "prints those in force. This page is made by `make settings` from `service/settings.py`.",
    "",
    "| variable | default | what |",
    "|---|---|---|",
)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in {*known, *OF_OTHERS}:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0)[0]
            raise UsageError(f"{name}: there is no such setting; the nearest is {nearest}. See docs/settings.md")


def _flaw(flaw: dict[str, Any]) -> str:
    message = str(flaw["msg"]).removeprefix("Value error, ")
    if not flaw["loc"]:
        return message
    name = str(flaw["loc"][0])
    field = Settings.model_fields.get(name)
    secret = field is None or "Secret" in str(field.annotation)
    value = "" if secret else f"={flaw['input']!r}"
    return f"{PREFIX}{name.upper()}{value}: {message[0].lower()}{message[1:]}"


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, list) else str(value)


def _default(value: object) -> str:
    written = _written(value)
    return f"`{written}`" if written else "none"
