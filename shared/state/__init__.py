"""What changes between two trainings: users' recent events, forgotten users and retired items, in Redis.

The same code runs against a server of one's own and against one embedded in a folder; only
:func:`open_state` knows the difference. It knows nothing of HTTP, models or the log of events.
"""

from shared.state.breaker import StateRefused, StateUnavailable
from shared.state.live_items import Encoded, LiveItem, LiveItems, LiveItemsFull
from shared.state.opening import check_url, open_state
from shared.state.store import RecentEvent, RecentEvents, Recorded, RetiredItems, UserState, digest

__all__ = [
    "Encoded",
    "LiveItem",
    "LiveItems",
    "LiveItemsFull",
    "RecentEvent",
    "RecentEvents",
    "Recorded",
    "RetiredItems",
    "StateRefused",
    "StateUnavailable",
    "UserState",
    "check_url",
    "digest",
    "open_state",
]
