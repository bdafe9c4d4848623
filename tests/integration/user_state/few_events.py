"""Events for the state, and what it has of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.events import Event
from shared.state import StateUnavailable, UserState

START = datetime(2024, 1, 1, tzinfo=UTC)


def event(event_id: str, user_id: str = "u", item_id: str = "i", at: float = 0, **more: Any) -> Event:
    """An event ``at`` seconds after START."""
    ids = {"event_id": event_id, "user_id": user_id, "item_id": item_id}
    return Event.model_validate(ids | {"type": "view", "timestamp": START + timedelta(seconds=at)} | more)


def item_ids(state: UserState, user_id: str = "u") -> list[str]:
    return [kept.item_id for kept in state.recent([user_id])[0].events]


def answers(state: UserState) -> bool:
    try:
        state.ping()
    except StateUnavailable:
        return False
    return True
