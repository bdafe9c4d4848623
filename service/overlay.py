"""What has changed since the training, as this process knows it: users, their recent events, retired and live items.

Stands between the engine, which knows one model, and the state in Redis, which may be slow or away. Then the answers
go on from the model alone, and from what was known of forgotten users and retired items, also before the process began
(``service/last_known.py``); whoever would write is told to come again. Knows nothing of HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service import last_known
from service.engine import Engine
from service.gathering import Gathering
from service.last_known import LastKnown
from service.live_items import LiveCatalogue
from service.recent import NOTHING, SinceTraining, since_training
from shared.errors import UserError
from shared.state import RetiredItems, StateUnavailable, UserState, digest
from shared.state.changes import Changes

RETRY_SECONDS = 5
"""When to come again while there is no state at all."""
TRIAL_SECONDS = 30.0
"""How often it is tried whether Redis takes writes; at every look while it does not."""

Answer = TypeVar("Answer")

_STOP_SECONDS = 0.2
"""How soon :meth:`Overlay.stop` is heard."""
_CLOCKS_APART = timedelta(minutes=5)
"""How much the clocks of those who forget users may differ."""
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)


class Overlay:
    """The state of one service process, followed by a thread of its own. Safe from any number of threads.

    Attributes:
        retired: the items not to be recommended, as of the last look; the same object until they change.
        live_items: the items that came after the training, as of the last look.
        weights: of the event types.
    """

    def __init__(
        self,
        open_state: Callable[[], UserState],
        weights: Mapping[str, float],
        poll_seconds: float,
        on_change: Callable[[], None] = lambda: None,
        on_call: Callable[[str, str, float], None] = lambda operation, outcome, seconds: None,
        engine: Callable[[], Engine | None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        """Open nothing yet; see :meth:`start`.

        Args:
            open_state: opens the state; it may fail, and is then tried again.
            weights: of the event types, see :data:`shared.events.DEFAULT_WEIGHTS`.
            poll_seconds: how often changes are looked for besides those that Redis tells of.
            on_change: told when Redis says that something has changed: models, or items.
            on_call: told of every call of a request to Redis: its name, ``ok`` or ``unavailable``, and its seconds.
            engine: gives the engine that answers now, to have the live items ready for.
            folder: keeps what is known of retired items and forgotten users; nothing does by default.
        """
        known = LastKnown() if folder is None else last_known.read(folder)
        self.retired = RetiredItems(known.retired, None)
        self.live_items = LiveCatalogue()
        self._engine = engine
        self._open_state = open_state
        self.weights = weights
        self._poll_seconds = poll_seconds
        self._on_change = on_change
        self._on_call = on_call
        self._state: UserState | None = None
        self._missing = "it is not open yet"
        self._folder = folder
        self._forgotten = {user: SinceTraining(forgotten_at=when) for user, when in known.forgotten.items()}
        self._is_read = self._is_kept = False
        self._unkept: str | None = None
        self._next_trial = time.monotonic()
        self._looking = threading.Lock()
        self._gathered = Gathering(self._each_since)
        self._rows: tuple[Engine, RetiredItems, NDArray[np.int64]] | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def answers(self) -> bool:
        """Whether the state is open, and answered last."""
        return self._state is not None and self._state.available

    @property
    def problem(self) -> str | None:
        """What is wrong with the state; None while it answers and takes writes."""
        state = self._state
        if state is None:
            return self._missing
        return state.refusal if state.available else "Redis does not answer"

    def call(self, operation: str, work: Callable[[UserState], Answer]) -> Answer:
        """Do something with the state, on behalf of a request.

        Raises:
            StateUnavailable: there is no state, or it does not answer.
        """
        state, started, outcome = self._state, time.perf_counter(), "unavailable"
        try:
            if state is None:
                raise StateUnavailable(self._missing, RETRY_SECONDS)
            answer = work(state)
            outcome = "ok"
            return answer
        finally:
            self._on_call(operation, outcome, time.perf_counter() - started)

    def since(self, user_ids: Sequence[str]) -> tuple[list[SinceTraining], bool]:
        """What users did since the training, in few round trips, and whether all that an answer needs is known.

        Where Redis does not answer it is not: then there is nothing but who was forgotten. Nor is it before the
        retired items have been read.
        """
        if not user_ids:
            return [], self._is_read
        try:
            found = self.call("recent", lambda state: state.recent(user_ids))
        except StateUnavailable:
            return [self.remembered(user_id) for user_id in user_ids], False
        return [since_training(recent, self.weights) for recent in found], self._is_read

    async def since_soon(self, user_id: str | None) -> tuple[SinceTraining, bool]:
        """The same for one user, or nobody, together with others who ask now; for the event loop."""
        if user_id is None:
            return NOTHING, self._is_read
        state = self._state
        if state is not None and not state.refuses:
            return await self._gathered(user_id)
        self._on_call("recent", "unavailable", 0.0)
        return self.remembered(user_id), False

    def remembered(self, user_id: str) -> SinceTraining:
        """What is known of a user without asking Redis: when they were forgotten, as of the last look."""
        return self._forgotten.get(digest(user_id), NOTHING) if self._forgotten else NOTHING

    def _each_since(self, user_ids: Sequence[str]) -> list[tuple[SinceTraining, bool]]:
        found, complete = self.since(user_ids)
        return [(since, complete) for since in found]

    def retired_rows(self, engine: Engine) -> NDArray[np.int64]:
        """The rows of the retired items in an engine's tables, int64 [any], rising."""
        known, retired = self._rows, self.retired
        if known is None or known[0] is not engine or known[1] is not retired:
            known = self._rows = (engine, retired, engine.rows(retired.item_ids))
        return known[2]

    def look(self) -> None:
        """Open the state if need be, and read what has changed of retired items and forgotten users."""
        with self._looking:
            if self._state is None:
                self._open()
            if self._state is None:
                return
            self._try_write(self._state)
            try:
                self._read(self._state)
            except StateUnavailable as error:
                _log.debug("retired items and forgotten users stay as they were known: %s", error)

    def start(self) -> None:
        """Open the state, and follow it from now on."""
        if self._threads:
            return
        self._stopping = threading.Event()
        self.look()
        for work in (self._follow, self._encode):
            name = f"overlay{work.__name__}"
            self._threads.append(threading.Thread(target=work, args=(self._stopping,), name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Stop following, and close the state."""
        self._stopping.set()
        while self._threads:
            self._threads.pop().join()
        if self._state is not None:
            self._state.close()
            self._state, self._missing = None, "it is closed"

    def _follow(self, stopping: threading.Event) -> None:
        changes: Changes | None = None
        while not stopping.is_set():
            if changes is None and self._state is not None:
                changes = self._state.changes()
            if self._told(changes, stopping) and not stopping.is_set():
                self._on_change()
            try:
                self.look()
            except Exception:  # whatever is wrong with what was found, looking goes on
                _log.exception("what has changed is not known")
        if changes is not None:
            changes.close()

    def _encode(self, stopping: threading.Event) -> None:
        """Beside the follower, which must not wait for it: thousands of items take minutes."""
        more = True
        while not stopping.wait(0 if more else self._poll_seconds):
            state, engine, more = self._state, self._engine(), False
            if state is None or engine is None:
                continue
            try:
                more = self.live_items.encode(state.live_items, engine, stopping)
            except StateUnavailable as error:
                _log.debug("live items wait for being encoded: %s", error)
            except Exception:
                _log.exception("live items are not encoded")

    def _told(self, changes: Changes | None, stopping: threading.Event) -> bool:
        """Wait until Redis tells of a change, which is True, or until it is time to look anyway."""
        deadline = time.monotonic() + self._poll_seconds
        while not stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            if changes is None:
                stopping.wait(left)
                continue
            try:
                if changes.wait(min(left, _STOP_SECONDS)):
                    return True
            except Exception as error:  # whatever is wrong with hearing, looking goes on
                _log.debug("announcements cannot be heard: %r", error)
                changes = None
        return False

    def _read(self, state: UserState) -> None:
        if not self._is_read or state.retired_version() != self.retired.version:
            self.retired, self._is_kept = state.retired(), False
        self._follow_items(state)
        newest = max((each.forgotten_at for each in self._forgotten.values() if each.forgotten_at), default=_LONG_AGO)
        after = newest - _CLOCKS_APART if self._is_read else _LONG_AGO
        for user, when in state.forgotten_after(after).items():
            since = SinceTraining(forgotten_at=when)
            self._is_kept = self._is_kept and self._forgotten.get(user) == since
            self._forgotten[user] = since
        self._is_read = True
        self._keep()

    def _try_write(self, state: UserState) -> None:
        """Where nobody writes, it would be seen too late that nobody can."""
        now = time.monotonic()
        if state.refusal is None and now < self._next_trial:
            return
        self._next_trial = now + TRIAL_SECONDS
        with suppress(StateUnavailable):  # the state says it
            state.try_write()

    def _keep(self) -> None:
        if self._folder is None or self._is_kept:
            return
        forgotten = {user: each.forgotten_at for user, each in self._forgotten.items() if each.forgotten_at}
        failed = last_known.keep(self._folder, LastKnown(self.retired.item_ids, forgotten))
        if failed is not None and str(failed) != self._unkept:
            _log.warning("retired items and forgotten users are known to this process alone: %s", failed)
        self._is_kept, self._unkept = failed is None, None if failed is None else str(failed)

    def _follow_items(self, state: UserState) -> None:
        try:
            self.live_items.follow(state.live_items, self._engine())
        except UserError as error:
            _log.error("live items stay as they were known: %s", error)

    def _open(self) -> None:
        try:
            self._state = self._open_state()
        except UserError as error:
            if self._missing != str(error):
                _log.error("answers go on without users' events: %s", error)
            self._missing = str(error)
