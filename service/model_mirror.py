"""Follows an object store: its live version comes into the models folder, where ``LiveModel`` finds it.

Several workers of one machine share the folder; they take turns, and each fetches only what is missing. While the
object store cannot be reached, or what it names is not whole, the service goes on with what it has.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from shared.errors import UserError

if TYPE_CHECKING:
    from shared.object_store import ObjectStore

FOLLOW_SECONDS = 10.0
"""How often the object store is asked what is live."""
STOP_SECONDS = 5.0
"""How long :meth:`ModelMirror.stop` waits for a fetch that is under way; what is unfinished is fetched again."""

_log = logging.getLogger(__name__)


class ModelMirror:
    """Copies what is live in an object store into a folder, by a thread of its own.

    Attributes:
        problem: what was wrong at the last look; None if nothing was.
    """

    def __init__(self, store: "ObjectStore", on_look: Callable[[], None], serving: Callable[[], str | None]) -> None:
        """Look nowhere yet; see :meth:`look` and :meth:`start`.

        Args:
            store: what is followed.
            on_look: is told of every look that went well.
            serving: the version that answers, which stays in the folder.
        """
        self.problem: str | None = None
        self._store = store
        self._on_look = on_look
        self._serving = serving
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="model-mirror", daemon=True)

    def look(self) -> None:
        """Fetch what is live there, if it is not here, and remove what is not needed any more.

        A failure is told once and kept in ``problem``.
        """
        try:
            if self._store.pull() is not None:
                self._store.tidy(self._serving())
        except UserError as error:
            if str(error) != self.problem:
                _log.error("models cannot be fetched: %s", error)
            self.problem = str(error)
        else:
            self.problem = None
            self._on_look()

    def held(self) -> AbstractContextManager[Callable[[], object]]:
        """Keep looks from changing the folder's live version; gives what makes it that of the object store.

        What it gives raises UserError where the object store cannot be reached, and SupersededError where it has
        another version live than the folder had.
        """
        return self._store.held()

    def start(self) -> None:
        """Look regularly from now on."""
        self._follower.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopping.set()
        self._follower.join(STOP_SECONDS)

    def _follow(self) -> None:
        while not self._stopping.wait(FOLLOW_SECONDS):
            self.look()
