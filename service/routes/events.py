"""What users do, as it happens."""

from fastapi import APIRouter, Request, Response

from service import events, problems
from service.access import requires
from service.metrics import Metrics
from service.routes.base import EVENT_PROBLEMS, CurrentOverlay, JsonRoute
from service.schemas import Events, EventsResponse, FieldProblem
from shared.api_keys import Scope

router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.EVENTS)])

_ANY_TYPE = "any"
"""Of events that are rejected before they count; they may claim to be of any type."""


@router.post("/events", operation_id="record_events", response_model=EventsResponse, responses=EVENT_PROBLEMS)
@router.post("/v1/events", operation_id="record_events_v1", response_model=EventsResponse, responses=EVENT_PROBLEMS)
def record_events(batch: Events, request: Request, overlay: CurrentOverlay) -> EventsResponse | Response:
    """Record what users did, one event or up to 1,000.

    Good events are kept where others are bad, and those are named. An event whose id came before is not counted
    again, so that whatever was not answered can be sent again. What is accepted is on disk as `docs/events.md` says,
    and the next answers to the user take it into account.
    """
    metrics: Metrics = request.app.state.metrics
    rows = events.sort_out(batch, overlay.weights)
    if rows.rejected:
        metrics.event(_ANY_TYPE, "rejected", len(rows.rejected))
    if not rows.good:
        errors = [FieldProblem(pointer=row.pointer, detail=row.detail) for row in rows.rejected]
        return problems.problem(request, 422, "None of the events can be taken.", errors=errors)
    return events.record(overlay, rows, metrics.event)
