"""How the service is."""

import time
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from service.engine import Engine
from service.schemas import HealthResponse

router = APIRouter()


@router.get(
    "/health",
    operation_id="health",
    responses={503: {"model": HealthResponse, "description": "No model is loaded."}},
)
def health(request: Request, response: Response) -> HealthResponse:
    """Say whether recommendations can be had, and from which model."""
    uptime = time.monotonic() - request.app.state.started
    engine: Engine | None = request.app.state.live.engine
    if engine is None:
        response.status_code = 503
        return HealthResponse(status="unavailable", uptime_seconds=uptime)
    artifact = engine.artifact
    return HealthResponse(
        status="ok",
        uptime_seconds=uptime,
        model_version=artifact.manifest.version,
        model_created=artifact.manifest.created,
        model_age_seconds=(datetime.now(UTC) - artifact.manifest.created).total_seconds(),
        users=len(artifact.users),
        items=len(artifact.items),
        index=engine.index.kind,
    )
