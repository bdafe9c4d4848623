"""What is known of users, until they ask to be forgotten."""

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.access import requires
from service.live_model import LiveModel
from service.recent import since_training
from service.routes.base import FORGET_PROBLEMS, USER_PROBLEMS, CurrentOverlay, LoadedEngine
from service.schemas import ForgottenResponse, RecentEvent, UserResponse
from shared.api_keys import Scope
from shared.events import require_visible

router = APIRouter(dependencies=[requires(Scope.READ)])
changes = APIRouter(dependencies=[requires(Scope.ADMIN)])


@router.get("/users/{user_id:id}", operation_id="user", responses=USER_PROBLEMS)
def user(user_id: str, engine: LoadedEngine, overlay: CurrentOverlay) -> UserResponse:
    """What is known of a user: from the training, and from events since."""
    (recent,) = overlay.call("recent", lambda state: state.recent([user_id]))
    since = since_training(recent, overlay.weights)
    trained = engine.user(user_id, since)
    if trained is None and not recent.events and not since.hidden:
        raise HTTPException(404, "There is no such user.")
    return UserResponse(
        model_version=engine.artifact.manifest.version,
        user_id=user_id,
        trained=trained is not None,
        items=[] if trained is None else trained.items,
        recent=[RecentEvent(**event._asdict()) for event in recent.events],
        hidden=sorted(since.hidden),
    )


@changes.delete("/users/{user_id:id}", operation_id="forget_user", responses=FORGET_PROBLEMS)
def forget(user_id: str, overlay: CurrentOverlay, request: Request) -> ForgottenResponse:
    """Forget a user at once, and in the next model; also one who is not known, or not any more.

    What the training knew is not used from now on, recent events are deleted, and events from before are refused.
    What the user does from now on counts as a new user's.
    """
    live: LiveModel = request.app.state.live
    if live.engine is None or live.engine.artifact.users.dense(user_id) is None:
        _require_visible(user_id)
    forgotten_at = overlay.call("forget", lambda state: state.forget(user_id))
    overlay.look()
    return ForgottenResponse(user_id=user_id, forgotten_at=forgotten_at)


def _require_visible(user_id: str) -> None:
    try:
        require_visible(user_id)
    except ValueError as error:
        wrong = {"type": "value_error", "loc": ("path", "user_id"), "msg": str(error)}
        raise RequestValidationError([wrong]) from None
