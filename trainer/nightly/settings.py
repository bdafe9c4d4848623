"""The settings of the nightly job, as data: one YAML file, few keys, unknown ones refused."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import UsageError


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateSettings(_Settings):
    """What a challenger must keep to. Margins are shares of the champion's figure."""

    confidence: float = Field(0.95, gt=0, lt=1, description="of every interval")
    ndcg_margin: float = Field(0.05, ge=0, description="NDCG@20 may be worse by so much at the interval's low end")
    slice_margin: float = Field(0.2, ge=0, description="and so much worse on a slice")
    slice_users: int = Field(50, ge=1, description="users that a slice needs to be judged at all")
    teacher_margin: float = Field(0.05, ge=0, description="a teacher, or popularity, may be better than the student")
    coverage_margin: float = Field(0.3, ge=0, description="fewer different items may be recommended by so much")
    concentration_margin: float = Field(0.5, ge=0, description="the top 1% may take so much more of all places")
    kept: float = Field(0.95, ge=0, le=1, description="share of the champion's items, and interactions, still there")
    index_recall: float = Field(0.99, ge=0, le=1, description="share of the best items that the index must find")


def load_settings(path: Path | None, kind: type["NightlySettings"] | None = None) -> "NightlySettings":
    """Read a YAML file; the defaults where there is none.

    Raises:
        UsageError: not YAML, an unknown key or a value of the wrong kind.
    """
    wanted = kind or NightlySettings
    if path is None:
        return wanted()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from None
    try:
        return wanted.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise UsageError(f"{path}: {faults}; 'mts4mm nightly --print-settings' shows all keys") from None


class NightlySettings(_Settings):
    """The job's settings."""

    gate: GateSettings = GateSettings()
