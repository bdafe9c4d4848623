"""Takes in events: good rows are recorded, all of them or none; bad ones are named, each by itself.

Knows nothing of HTTP.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from service.overlay import Overlay
from service.schemas import EventBatch, EventsResponse, RejectedEvent
from shared.events import Event
from shared.state import Recorded, StateUnavailable

_NAMES = {Recorded.COUNTED: "accepted", Recorded.REPEATED: "duplicate", Recorded.FORGOTTEN: "rejected"}


@dataclass(frozen=True)
class Sorted:
    """The rows of a batch, the good ones with their places."""

    good: list[tuple[int, Event]]
    rejected: list[RejectedEvent]
    pointers: Sequence[str]


def sort_out(batch: EventBatch, types: Mapping[str, float]) -> Sorted:
    """Tell good rows from bad ones; ``types`` are the event types that there are."""
    pointers = ["#" if batch.lone else f"#/events/{index}" for index in range(len(batch.judged))]
    good, rejected = [], []
    for index, row in enumerate(batch.judged):
        if isinstance(row, ValidationError):
            rejected.append(_faulty(index, pointers[index], row))
        elif row.type not in types:
            detail = f"There is no event type of this name. There are: {', '.join(types)}"
            rejected.append(RejectedEvent(index=index, pointer=f"{pointers[index]}/type", detail=detail))
        else:
            good.append((index, row))
    return Sorted(good, rejected, pointers)


def record(overlay: Overlay, rows: Sorted, count: Callable[[str, str, int], None]) -> EventsResponse:
    """Record the good events, all of them or none.

    Args:
        overlay: where to.
        rows: a batch.
        count: told how many events of which type had which outcome.

    Raises:
        StateUnavailable: they may have been recorded all the same where Redis was slow; sent again as they are, none
            counts twice.
    """
    types = [event.type for _, event in rows.good]
    try:
        outcomes = overlay.call("record", lambda state: state.record([event for _, event in rows.good]))
    except StateUnavailable:
        _tell(count, types, ["unavailable"] * len(types))
        raise
    _tell(count, types, [_NAMES[outcome] for outcome in outcomes])
    forgotten = [
        RejectedEvent(
            index=index,
            pointer=f"{rows.pointers[index]}/timestamp",
            detail="The user asked to be forgotten after this.",
        )
        for (index, _), outcome in zip(rows.good, outcomes, strict=True)
        if outcome is Recorded.FORGOTTEN
    ]
    return EventsResponse(
        accepted=outcomes.count(Recorded.COUNTED),
        duplicates=outcomes.count(Recorded.REPEATED),
        rejected=sorted([*rows.rejected, *forgotten], key=lambda rejected: rejected.index),
    )


def _tell(count: Callable[[str, str, int], None], types: Sequence[str], outcomes: Sequence[str]) -> None:
    for (type_, outcome), number in Counter(zip(types, outcomes, strict=True)).items():
        count(type_, outcome, number)


def _faulty(index: int, pointer: str, error: ValidationError) -> RejectedEvent:
    """Name a row's first fault by a pointer, and the others in words."""
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    said = [_said(first["msg"]), *(f"{'.'.join(map(str, fault['loc']))}: {_said(fault['msg'])}" for fault in others)]
    return RejectedEvent(
        index=index,
        pointer=pointer + "".join(f"/{_escaped(str(part))}" for part in first["loc"]),
        detail="; ".join(said),
    )


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")
