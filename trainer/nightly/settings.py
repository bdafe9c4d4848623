"""The settings of the nightly job, as data: one YAML file, few keys, unknown ones refused."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import UsageError
from trainer.seeds import MOST_SEED


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateSettings(_Settings):
    """What a challenger must keep to. Margins are shares of the champion's figure."""

    confidence: float = Field(0.95, gt=0, lt=1, description="of every interval")
    ndcg_margin: float = Field(0.05, ge=0, description="NDCG@20 may be worse by so much at the interval's low end")
    better: float = Field(
        0.8,
        gt=0.5,
        le=1,
        description="where there are too few users to tell, the share of resamples that must find it better",
    )
    slice_margin: float = Field(0.2, ge=0, description="and so much worse on a slice")
    slice_users: int = Field(50, ge=1, description="users that a slice needs to be judged at all")
    teacher_margin: float = Field(0.05, ge=0, description="a teacher, or popularity, may be better than the student")
    coverage_margin: float = Field(0.3, ge=0, description="fewer different items may be recommended by so much")
    concentration_margin: float = Field(0.5, ge=0, description="the top 1% may take so much more of all places")
    kept: float = Field(0.95, ge=0, le=1, description="share of the champion's items, and interactions, still there")
    index_recall: float = Field(0.99, ge=0, le=1, description="share of the best items that the index must find")


class EventSettings(_Settings):
    """What events come to; the weights of their types are the service's too (``MTS4MM_EVENT_WEIGHTS``)."""

    least_weight: float = Field(0.5, gt=0, description="what a user's events with an item must weigh together")
    user_day_cap: int = Field(200, ge=1, description="the bot guard: events that count of a user and day")
    window_days: float | None = Field(None, gt=0, description="older events are not trained on; null for no window")
    half_life_days: float | None = Field(
        None, gt=0, description="after so many days an event is half as likely to be part of an epoch; null for never"
    )


class SplitSettings(_Settings):
    """How much is held out, all of it the newest."""

    holdout: float = Field(0.3, gt=0, lt=1, description="the gate's, of what the champion was not trained on")
    most: float = Field(0.1, gt=0, lt=1, description="but no more than this share of all interactions")
    validation: float = Field(0.05, gt=0, lt=1, description="of the others, by which the best epoch is chosen")
    of_new: float = Field(
        0.3, gt=0, lt=1, description="but no more than this share of what the champion was not trained on and is left"
    )


class TrainSettings(_Settings):
    """How a night trains."""

    recipe: str = Field("default", description="a packaged recipe or a YAML file")
    set: tuple[str, ...] = Field((), description="single values of the recipe, as key=value")
    seed: int = Field(0, ge=0, le=MOST_SEED)
    full_every: int = Field(7, ge=1, description="every so many nights from scratch; the others start warm")
    warm_epochs: int = Field(40, ge=1, description="epochs of a night that starts warm, at most")


class NightlySettings(_Settings):
    """The job's settings."""

    events: EventSettings = EventSettings()
    split: SplitSettings = SplitSettings()
    train: TrainSettings = TrainSettings()
    gate: GateSettings = GateSettings()
    least_new: int = Field(100, ge=1, description="new interactions without which there is nothing to do")
    keep: int = Field(7, ge=2, description="versions of models to keep")
    minutes: float = Field(240, gt=0, description="the time budget; training stops in time to be judged")
    memory_mb: float | None = Field(None, gt=0, description="the memory budget; null for none")
    confirm_seconds: float = Field(120, gt=0, description="how long the service may take to answer with a new model")
    watch_seconds: float = Field(60, ge=0, description="how long the service is watched after the activation")


def load_settings(path: Path | None) -> NightlySettings:
    """Read a YAML file; the defaults where there is none.

    Raises:
        UsageError: not YAML, an unknown key or a value of the wrong kind.
    """
    if path is None:
        return NightlySettings()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({error})") from None
    try:
        return NightlySettings.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise UsageError(f"{path}: {faults}; 'mts4mm nightly --print-settings' shows all keys") from None
