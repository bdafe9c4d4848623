"""Which models there are, and which one answers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from service.access import requires
from service.live_model import LiveModel, try_out
from service.model_mirror import ModelMirror
from service.overlay import Overlay
from service.routes.base import ADMIN_PROBLEMS, CurrentOverlay, WholePathRoute
from service.schemas import ActivationResponse, ModelsResponse, ModelVersion
from shared import artifact
from shared.api_keys import Scope
from shared.artifact import VersionSummary
from shared.errors import SupersededError, UserError
from shared.state import StateUnavailable

router = APIRouter(prefix="/admin", route_class=WholePathRoute, dependencies=[requires(Scope.ADMIN)])


@router.get("/models", operation_id="models")
def models(request: Request) -> ModelsResponse:
    """The versions in the models folder."""
    live: LiveModel = request.app.state.live
    refusal = live.last_refusal
    return ModelsResponse(
        live=live.version,
        refused=None if refusal is None else refusal.reason,
        models=[_described(summary, live.version) for summary in artifact.glance(request.app.state.models)],
    )


@router.post("/models/{version}:activate", operation_id="activate_model", responses=ADMIN_PROBLEMS)
def activate(version: str, request: Request, overlay: CurrentOverlay) -> ActivationResponse:
    """Serve a version, after it has been read whole and tried out."""
    store: Path = request.app.state.models
    if version not in {summary.version for summary in artifact.glance(store)}:
        raise HTTPException(404, "There is no such version.")
    try:
        try_out(store, version)
        with _held(request) as push:
            artifact.activate(store, version)
            _tell_object_store(push)
    except UserError as error:
        raise HTTPException(409, str(error)) from None
    return _switched(request, overlay)


@router.post("/rollback", operation_id="roll_back", responses={status: ADMIN_PROBLEMS[status] for status in (409, 503)})
def rollback(request: Request, overlay: CurrentOverlay) -> ActivationResponse:
    """Serve the version again that was served before the current one."""
    try:
        with _held(request) as push:
            artifact.rollback(request.app.state.models)
            _tell_object_store(push)
    except UserError as error:
        raise HTTPException(409, str(error)) from None
    return _switched(request, overlay)


def _held(request: Request) -> AbstractContextManager[Callable[[], object] | None]:
    """Keep what follows the object store from undoing a change before the object store knows of it."""
    mirror: ModelMirror | None = request.app.state.mirror
    return nullcontext() if mirror is None else mirror.held()


def _tell_object_store(push: Callable[[], object] | None) -> None:
    if push is None:
        return
    try:
        push()
    except SupersededError:
        raise
    except UserError as error:
        raise HTTPException(503, f"Not told to the object store, whose version comes back: {error}") from None


def _switched(request: Request, overlay: Overlay) -> ActivationResponse:
    live: LiveModel = request.app.state.live
    result = live.refresh()
    _announce(overlay)
    if result.after is None or result.reason is not None:
        raise HTTPException(409, result.reason or "No model is loaded.")
    return ActivationResponse(live=result.after, before=result.before)


def _announce(overlay: Overlay) -> None:
    try:
        overlay.call("announce", lambda state: state.announce())
    except StateUnavailable:
        return  # whoever does not hear of it looks by itself


def _described(summary: VersionSummary, live: str | None) -> ModelVersion:
    manifest = summary.manifest
    return ModelVersion(
        version=summary.version,
        current=summary.current,
        live=summary.version == live,
        created=None if manifest is None else manifest.created,
        metrics=None if manifest is None else manifest.metrics,
        gate=None if manifest is None else manifest.gate,
        users=None if manifest is None else manifest.dataset.users,
        items=None if manifest is None else manifest.dataset.items,
        bytes=None if manifest is None else sum(entry.size for entry in manifest.files.values()),
        damage=summary.damage,
    )
