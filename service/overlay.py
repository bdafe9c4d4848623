"""What has changed since the training, as this process knows it: users' recent events and retired items.

Stands between the engine, which knows one model, and the state in Redis, which may be slow or away. Then the answers
go on from the model alone, and from what was known of retired items; whoever would write is told to come again.
Knows nothing of HTTP.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from shared.errors import UserError
from shared.state import RecentEvents, RetiredItems, StateUnavailable, UserState

RETRY_SECONDS = 5
"""When to come again while there is no state at all."""

_log = logging.getLogger(__name__)


class Overlay:
    """The state of one service process, followed by a thread of its own. Safe from any number of threads.

    Attributes:
        retired: the items not to be recommended, as of the last look; the same object until they change.
    """

    def __init__(
        self, open_state: Callable[[], UserState], poll_seconds: float, on_change: Callable[[], None] = lambda: None
    ) -> None:
        """Open nothing yet; see :meth:`start`.

        Args:
            open_state: opens the state; it may fail, and is then tried again.
            poll_seconds: how often changes are looked for besides those that Redis tells of.
            on_change: told when Redis says that something has changed: models, or items.
        """
        self.retired = RetiredItems(frozenset(), None)
        self._open_state = open_state
        self._poll_seconds = poll_seconds
        self._on_change = on_change
        self._state: UserState | None = None
        self._missing: str | None = "it is not open yet"
        self._stopping = threading.Event()
        self._follower: threading.Thread | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the state; None while it answers."""
        state = self._state
        if state is None:
            return self._missing
        return None if state.available else "Redis does not answer"

    @property
    def state(self) -> UserState:
        """The state, to write to.

        Raises:
            StateUnavailable: there is none.
        """
        state = self._state
        if state is None:
            raise StateUnavailable(self._missing or "it is not open", RETRY_SECONDS)
        return state

    def recent(self, user_ids: Sequence[str]) -> list[RecentEvents] | None:
        """What users did since the training, in one round trip; None where Redis does not say."""
        try:
            return self.state.recent(user_ids)
        except StateUnavailable:
            return None

    def start(self) -> None:
        """Open the state, and follow it from now on."""
        if self._follower is not None:
            return
        self._stopping = threading.Event()
        self._look()
        self._follower = threading.Thread(target=self._follow, args=(self._stopping,), name="overlay", daemon=True)
        self._follower.start()

    def stop(self) -> None:
        """Stop following, and close the state."""
        if self._follower is None:
            return
        self._stopping.set()
        self._follower.join()
        self._follower = None
        if self._state is not None:
            self._state.close()
            self._state, self._missing = None, "it is closed"

    def _follow(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._poll_seconds):
            self._look()

    def _look(self) -> None:
        """Open the state if need be, and read the retired items if they changed."""
        if self._state is None:
            self._open()
        if self._state is None:
            return
        try:
            if self._state.retired_version() != self.retired.version:
                self.retired = self._state.retired()
        except StateUnavailable as error:
            _log.debug("retired items stay as they were known: %s", error)

    def _open(self) -> None:
        try:
            self._state = self._open_state()
        except UserError as error:
            if self._missing != str(error):
                _log.error("answers go on without users' events: %s", error)
            self._missing = str(error)
