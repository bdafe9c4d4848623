"""The settings of the service and the environment variables they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Where the models are and where to listen.

    Attributes:
        models: the store folder (``MTS4MM_MODELS``).
        host: the address to listen on (``MTS4MM_HOST``).
        port: the port to listen on, 0 for any free one (``MTS4MM_PORT``).
        max_body_bytes: the largest request body (``MTS4MM_MAX_BODY_BYTES``).
    """

    models: Path = Path("models")
    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 64 * 1024


def settings_from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings; what the environment does not set, or sets to nothing, keeps its default.

    Raises:
        UsageError: a variable has no sensible value; the message names it.
    """
    default = Settings()
    return Settings(
        models=Path(environment.get("MTS4MM_MODELS") or default.models),
        host=environment.get("MTS4MM_HOST") or default.host,
        port=_number(environment, "MTS4MM_PORT", default.port, 0, 65_535),
        max_body_bytes=_number(environment, "MTS4MM_MAX_BODY_BYTES", default.max_body_bytes, 1, 2**31 - 1),
    )


def _number(environment: Mapping[str, str], variable: str, default: int, low: int, high: int) -> int:
    given = environment.get(variable)
    if not given:
        return default
    try:
        number = int(given)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise UsageError(f"{variable}={given!r}: give a whole number from {low} to {high}")
    return number
