"""The settings that the service and the trainer share: where the user state is, and what events count.

Each comes from an environment variable with the prefix ``MTS4MM_``. A secret can also lie in a file, as Docker and
Kubernetes hand secrets over; no message ever holds one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.errors import UsageError
from shared.events import DEFAULT_WEIGHTS, checked_weights

PREFIX = "MTS4MM_"


class StateSettings(BaseSettings):
    """Where the user state is, and what events count; the service's settings are these and more."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    redis_url: SecretStr | None = Field(
        None, description="The Redis server that keeps the user state; without one, a server is embedded."
    )
    redis_url_file: Path | None = Field(
        None, description="A file that holds the URL of the Redis server, as Docker and Kubernetes hand secrets over."
    )
    state: Path | None = Field(
        None,
        description="The folder of the embedded server, and of what was last known of any; by default `.state` in the "
        "models folder.",
    )
    models_url: str | None = Field(
        None,
        description="An object store that keeps the models, such as `s3://bucket/models`; needs "
        "`mts4mm[object-store]`. The models folder is then a copy: the service follows it, the nightly job writes it. "
        "The service removes old versions from a folder that is not the nightly job's.",
    )
    event_weights: Annotated[dict[str, float], AfterValidator(checked_weights)] = Field(
        default_factory=lambda: dict(DEFAULT_WEIGHTS),
        description="The types of events, as a JSON object, and how much of a taste each is: 1 is an interaction of "
        "the training, 0 none, below 0 hides the item from the user. Other types are refused.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_the_file(cls, given: dict[str, Any]) -> dict[str, Any]:
        path = given.get("redis_url_file")
        if path is None:
            return given
        if given.get("redis_url") is not None:
            raise ValueError("MTS4MM_REDIS_URL and MTS4MM_REDIS_URL_FILE are both set: set one")
        try:
            url = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ValueError(f"MTS4MM_REDIS_URL_FILE={path}: cannot be read ({error})") from None
        if not url:
            raise ValueError(f"MTS4MM_REDIS_URL_FILE={path}: is empty")
        return given | {"redis_url": url, "redis_url_file": None}

    @property
    def redis_server(self) -> str | None:
        """The URL of the Redis server, in clear; None where the server is the embedded one."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()

    def state_folder(self, models: Path) -> Path:
        """The folder of the embedded server for a models folder, and of what was last known of any server."""
        return models / ".state" if self.state is None else self.state


def state_settings() -> StateSettings:
    """Read the settings from the environment.

    Raises:
        UsageError: a variable has no sensible value; the message names it, and quotes no secret.
    """
    try:
        return StateSettings()
    except SettingsError as error:
        raise UsageError(f"{PREFIX}...: {error}") from None
    except ValidationError as error:
        raise UsageError("; ".join(_fault(fault) for fault in error.errors(include_input=False))) from None


def _fault(fault: Mapping[str, object]) -> str:
    place = fault["loc"]
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{PREFIX}{str(place[0]).upper()}: {message}" if isinstance(place, tuple) and place else message
