r"""What a user did with an item, as the service is told, keeps it and hands it to the nightly training.

An event is one line of JSON in ASCII. Line ends inside it are escaped, so a log of events splits at ``\n`` and
nowhere else. It knows nothing of HTTP, Redis or files.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.errors import UserError

MAX_ID_LENGTH = 512
"""Characters of a user's or item's id."""
MAX_NAME_LENGTH = 128
"""Characters of the id of an event or a recommendation."""
EARLIEST = datetime(1995, 1, 1, tzinfo=UTC)
"""Older timestamps are mistakes: a unit mixed up, or a clock that was never set."""
MAX_AHEAD = timedelta(days=1)
"""How far ahead of this machine's clock a timestamp may be; it counts as now, since nothing comes before it is done."""
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""Weights are summed and divided by in single precision, which must neither overflow nor vanish."""
MAX_VALUE = 1e12
"""Larger values are mistakes."""
MAX_TYPE_LENGTH = 32
"""Characters of an event's type."""
FULL_WEIGHT = 1.0
"""What an interaction of the training counts; the weights of event types are measured against it."""
DEFAULT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {"view": 0.3, "click": 0.5, "cart": 0.8, "purchase": 1.0, "like": 1.0, "dislike": -1.0, "hide": -1.0}
)
"""How much of a taste an event of each type is.

Above zero, the item counts as taken and moves the user's vector that much. Zero: it counts as seen, and says nothing
of taste. Below zero: it is no taste, and the item is not recommended to the user again until an event of full weight
(such as a later ``like``) takes that back.
"""

_TYPE = r"^[a-z][a-z0-9_-]*$"
_NO_ZERO = r"^[^\x00]*$"
_VISIBLE = r"^[^\x00]*[^\x00\s\x1c-\x1f\x85][^\x00]*$"
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.IGNORECASE | re.ASCII)


def _written_out(timestamp: object) -> object:
    if isinstance(timestamp, datetime) or (isinstance(timestamp, str) and _DATE_AND_TIME.match(timestamp)):
        return timestamp
    raise ValueError("must be a date and time as RFC 3339 writes it, such as 2026-11-22T23:15:01Z")


def _plausible(timestamp: datetime) -> datetime:
    if timestamp < EARLIEST:
        raise ValueError(f"must not be before {EARLIEST:%Y}: check the unit and the clock")
    now = datetime.now(UTC)
    if timestamp > now + MAX_AHEAD:
        raise ValueError("must not be more than a day in the future: check the unit and the clock")
    return min(timestamp.astimezone(UTC), now)


def require_visible(given: object) -> object:
    """Return an id as it is.

    Raises:
        ValueError: it is empty, or of blank characters alone, which tables of interactions take for no id at all.
    """
    if isinstance(given, str) and not given.strip():
        raise ValueError("must not be blank: give it a visible character")
    return given


_Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH, pattern=_VISIBLE), BeforeValidator(require_visible)]
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH, pattern=_NO_ZERO)]
_Timestamp = Annotated[
    AwareDatetime,
    Field(strict=False),
    BeforeValidator(_written_out, json_schema_input_type=AwareDatetime),
    AfterValidator(_plausible),
]


class Event(BaseModel):
    """One thing a user did with an item.

    ``timestamp`` is held in UTC, whatever offset it came with.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "event_id": "6f9d1a0e-0b1c-4f57-9a83-0d2f6c1f8a11",
                    "user_id": "u42",
                    "item_id": "i7",
                    "type": "view",
                    "timestamp": "2026-11-22T23:15:01Z",
                }
            ]
        },
    )

    event_id: _Name = Field(description="Made by the sender; an id that came before is not counted again.")
    user_id: _Id
    item_id: _Id
    type: str = Field(
        pattern=_TYPE, max_length=MAX_TYPE_LENGTH, description="What was done: view, click, cart, purchase, hide ..."
    )
    timestamp: _Timestamp = Field(description="When it was done, with an offset from UTC.")
    recommendation_id: _Name | None = Field(None, description="The answer that showed the item, if one did.")
    weight: float | None = Field(
        None,
        ge=MIN_WEIGHT,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="How much it counts among events of its type; 1 where missing.",
    )
    value: float | None = Field(
        None,
        ge=-MAX_VALUE,
        le=MAX_VALUE,
        allow_inf_nan=False,
        description="What it was worth to the sender: a price paid, a rating, seconds watched. Kept in the log.",
    )


def checked_weights(weights: dict[str, float]) -> dict[str, float]:
    """Return weights of event types that make sense.

    Raises:
        ValueError: there is none, or one has a name or a weight that cannot be; the message says which.
    """
    if not weights:
        raise ValueError("name at least one event type")
    for name, weight in weights.items():
        if len(name) > MAX_TYPE_LENGTH or not re.fullmatch(_TYPE.removesuffix("$"), name):
            raise ValueError(f"{name!r} is no event type: use lower-case letters, digits, _ and -")
        if not (weight == 0 or MIN_WEIGHT <= abs(weight) <= MAX_WEIGHT):
            raise ValueError(
                f"{name}={weight}: give 0, or a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g} or its negative"
            )
    return dict(weights)


def encode(event: Event) -> str:
    """Write an event as one line of compact ASCII JSON, without the line end."""
    return event.model_dump_json(exclude_none=True, ensure_ascii=True)


def decode(line: str | bytes) -> Event:
    """Read what :func:`encode` wrote.

    Raises:
        UserError: the line is cut short or is not an event; the message names the fields and quotes none.
    """
    try:
        return Event.model_validate_json(line)
    except ValidationError as error:
        faults = "; ".join(_fault(fault) for fault in error.errors(include_url=False, include_input=False))
        raise UserError(f"not an event: {faults}") from None


def _fault(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place or 'line'}: {fault['msg'].removeprefix('Value error, ')}"
