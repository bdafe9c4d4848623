"""What is known of users."""

from fastapi import APIRouter

from service.access import requires
from service.routes.base import USER_PROBLEMS, JsonRoute, LoadedEngine, known
from service.schemas import UserResponse
from shared.api_keys import Scope

router = APIRouter(route_class=JsonRoute, dependencies=[requires(Scope.READ)])


@router.get("/users/{user_id:path}", operation_id="user", responses=USER_PROBLEMS)
def user(user_id: str, engine: LoadedEngine) -> UserResponse:
    """What the model knows of a user."""
    found = known(lambda: engine.user(user_id), "user")
    return UserResponse(model_version=engine.artifact.manifest.version, user_id=user_id, items=found.items)
