"""How the service is."""

import time
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from service.engine import Engine
from service.overlay import Overlay
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
    overlay: Overlay = request.app.state.overlay
    problems = [] if overlay.problem is None else [f"User state: {overlay.problem}."]
    engine: Engine | None = request.app.state.live.engine
    if engine is None:
        response.status_code = 503
        return HealthResponse(
            status="unavailable", problems=["Model: none is loaded.", *problems], uptime_seconds=uptime
        )
    artifact = engine.artifact
    return HealthResponse(
        status="degraded" if problems else "ok",
        problems=problems,
        uptime_seconds=uptime,
        model_version=artifact.manifest.version,
        model_created=artifact.manifest.created,
        model_age_seconds=(datetime.now(UTC) - artifact.manifest.created).total_seconds(),
        users=len(artifact.users),
        items=len(artifact.items),
        index=engine.index.kind,
    )
