"""Takes in events: each judged by itself, so that one bad row keeps no good one out.

Knows nothing of HTTP routes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.schemas import EventsResponse, RejectedEvent
from shared.events import Event
from shared.state import Recorded, UserState


@dataclass(frozen=True)
class Judged:
    """Rows of a request: the good ones, and what is wrong with the others."""

    good: list[Event]
    rejected: list[RejectedEvent]


def judge(rows: Sequence[Any], types: Mapping[str, float], *, lone: bool) -> Judged:
    """Tell good rows from bad ones.

    Args:
        rows: JSON values, each of which should be an event.
        types: the event types there are.
        lone: whether the one row is the whole body, rather than a batch's first.
    """
    good, rejected = [], []
    for index, row in enumerate(rows):
        place = "#" if lone else f"#/events/{index}"
        try:
            event = Event.model_validate(row)
        except ValidationError as error:
            rejected.append(_rejected(index, place, error))
            continue
        if event.type in types:
            good.append(event)
        else:
            known = ", ".join(sorted(types))
            detail = f"There is no event type of this name. There are: {known}"
            rejected.append(RejectedEvent(index=index, pointer=f"{place}/type", detail=detail))
    return Judged(good, rejected)


def record(state: UserState, judged: Judged) -> EventsResponse:
    """Count the good events, all of them or none.

    Raises:
        StateUnavailable: they may have been counted all the same where Redis was slow; send them again as they are.
    """
    outcomes = state.record(judged.good)
    return EventsResponse(
        accepted=outcomes.count(Recorded.COUNTED),
        duplicates=outcomes.count(Recorded.REPEATED),
        forgotten=outcomes.count(Recorded.FORGOTTEN),
        rejected=judged.rejected,
    )


def _rejected(index: int, place: str, error: ValidationError) -> RejectedEvent:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    first = "".join(f"/{_escaped(part)}" for part in faults[0]["loc"])
    others = [f"{'/'.join(map(str, fault['loc']))}: {_said(fault['msg'])}" for fault in faults[1:]]
    return RejectedEvent(index=index, pointer=place + first, detail="; ".join([_said(faults[0]["msg"]), *others]))


def _escaped(part: int | str) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")
