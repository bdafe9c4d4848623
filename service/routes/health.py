"""How the service is: for whoever keeps it alive, for whoever sends it requests, for people, and for Prometheus."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from service.metrics import Metrics
from service.routes.base import WholePathRoute
from service.schemas import HealthResponse, ProbeResponse, Problem, RefusedModel
from service.vitals import Vitals

router = APIRouter(route_class=WholePathRoute)


async def vitals(request: Request) -> Vitals:
    """How the service is that was asked."""
    found: Vitals = request.app.state.vitals
    return found


TheVitals = Annotated[Vitals, Depends(vitals)]


@router.get("/livez", operation_id="live")
@router.get("/v2/health/live", operation_id="live_kserve")
async def live() -> ProbeResponse:
    """Say that the process answers; it depends on nothing else. Start it again where this is not answered."""
    return ProbeResponse(status="ok")


@router.get(
    "/readyz",
    operation_id="ready",
    responses={503: {"model": Problem, "description": "No requests shall be sent here now."}},
)
@router.get(
    "/v2/health/ready",
    operation_id="ready_kserve",
    responses={503: {"model": Problem, "description": "No requests shall be sent here now."}},
)
async def ready(vitals: TheVitals) -> ProbeResponse:
    """Say whether requests may be sent here: it makes a real search, and says no while the service is leaving."""
    reason = vitals.why_not_ready()
    if reason is not None:
        raise HTTPException(503, reason)
    return ProbeResponse(status="ok")


@router.get(
    "/health",
    operation_id="health",
    responses={503: {"model": HealthResponse, "description": "No model is loaded."}},
)
async def health(vitals: TheVitals, response: Response) -> HealthResponse:
    """Say whether recommendations can be had, from which model, and what is wrong."""
    problems, engine, refusal = vitals.problems(), vitals.engine, vitals.last_refusal
    refused = None if refusal is None else RefusedModel.model_validate(refusal, from_attributes=True)
    if engine is None:
        response.status_code = 503
        return HealthResponse(
            status="unavailable", problems=problems, uptime_seconds=vitals.uptime_seconds, last_refusal=refused
        )
    artifact = engine.artifact
    return HealthResponse(
        status="degraded" if problems else "ok",
        problems=problems,
        uptime_seconds=vitals.uptime_seconds,
        model_version=artifact.manifest.version,
        model_created=artifact.manifest.created,
        model_age_seconds=(datetime.now(UTC) - artifact.manifest.created).total_seconds(),
        users=len(artifact.users),
        items=len(artifact.items),
        index=engine.index.kind,
        index_recall=engine.opened.recall,
        last_refusal=refused,
    )


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Of all workers."}},
)
def metrics(request: Request) -> Response:
    """What the service counts and times, in Prometheus' text format."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})
