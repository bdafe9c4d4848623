"""The model that answers now, and how it gives way to the next one while requests go on.

Follows ``CURRENT`` of a store. A new version is loaded beside the live one, checked (the artefact's own checks, then
real searches whose answers are computed a second time without the index) and only then put in its place. What does
not pass is refused, and the live one stays. Knows nothing of HTTP, Redis or metrics.
"""

import logging
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.engine import Engine
from service.queries import Query, RankedItem
from shared import artifact
from shared.artifact import CURRENT, Artifact
from shared.errors import UserError

STOP_SECONDS = 5.0
"""How long :meth:`LiveModel.stop` waits for a load that is under way."""

Outcome = Literal["unchanged", "swapped", "refused"]

_CANARY_USERS = 8
_CANARY_K = 20
_CANARY_RECALL = 0.9
_Evidence = tuple[object, ...]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwapResult:
    """What one look at the store led to.

    Attributes:
        outcome: ``unchanged`` if the live version is the current one already, or there is neither.
        wanted: the version that ``CURRENT`` names; None if it names none.
        before: the version that was live, or None.
        after: the version that is live now, or None.
        seconds: how long it took, with any load.
        reason: why the wanted version was refused; None if it was not.
    """

    outcome: Outcome
    wanted: str | None
    before: str | None
    after: str | None
    seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Which version was refused, why, and when; ``version`` is None where ``CURRENT`` names none."""

    version: str | None
    reason: str
    when: datetime


class LiveModel:
    """The engine of the current version of a store. Safe from any number of threads.

    Attributes:
        engine: the engine that answers now, or None. Take it once a request and keep to it: it answers on its own
            however often it is replaced meanwhile, and is freed when the last request lets go of it.
        last_refusal: why the version that ``CURRENT`` names is not live; None again as soon as it is.
    """

    def __init__(self, store: Path, poll_seconds: float, on_swap: Callable[[SwapResult], None] | None = None) -> None:
        """Load nothing yet; see :meth:`refresh` and :meth:`start`.

        Args:
            store: the folder of versions; it need not exist yet.
            poll_seconds: how often the started model looks at the store by itself.
            on_swap: told of every swap and every refusal, one after the other, but not of a refusal that only
                goes on. It must not call :meth:`refresh`; what it raises is logged.

        Raises:
            ValueError: ``poll_seconds`` is not a time that can be waited for.
        """
        if not 0 < poll_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"poll_seconds is {poll_seconds}: give a number of seconds above 0")
        self.engine: Engine | None = None
        self.last_refusal: Refusal | None = None
        self._store = store
        self._poll_seconds = poll_seconds
        self._on_swap = on_swap
        self._refreshing = threading.Lock()
        self._evidence: _Evidence | None = None
        self._awake = threading.Event()
        self._stopping = threading.Event()
        self._poller: threading.Thread | None = None

    @property
    def version(self) -> str | None:
        """The version that answers now, or None."""
        engine = self.engine
        return None if engine is None else engine.artifact.manifest.version

    def refresh(self) -> SwapResult:
        """Look at the store, and make its current version live if that is another one than now.

        Never raises for anything the store holds or lacks. Who comes while another thread loads waits for it, and
        loads nothing if that made the current version live. A version that was refused is loaded again when its
        files or ``CURRENT`` changed (also: was written again), or when it was the reading itself that had failed.
        """
        with self._refreshing:
            started = time.perf_counter()
            before, known = self.version, self.last_refusal
            wanted = self._follow()
            refusal = self.last_refusal
            outcome: Outcome = "swapped" if self.version != before else "unchanged" if refusal is None else "refused"
            reason = None if refusal is None else refusal.reason
            result = SwapResult(outcome, wanted, before, self.version, time.perf_counter() - started, reason)
            if outcome == "swapped" or (refusal is not None and refusal is not known):
                self._report(result)
            return result

    def fall_back(self, version: str) -> bool:
        """While there is no live model, make one live that ``CURRENT`` does not name; returns whether that worked.

        The refusal of the one that it names stays, and that one is still followed.
        """
        with self._refreshing:
            if self.engine is not None:
                return False
            try:
                engine = try_out(self._store, version)
            except Exception as error:
                _log.error("no falling back to model %s: %s", version, error)
                return False
            self.engine = engine
            return True

    def start(self) -> None:
        """Look at the store from now on, every ``poll_seconds`` and when woken, in a thread of its own."""
        if self._poller is not None:
            return
        if self.engine is None:
            command = f"mts4mm train DATASET --out {quote(str(self._store))}"
            _log.warning("%s: holds no model yet; answers 503 until '%s' publishes one", self._store, command)
        self._stopping = threading.Event()
        self._poller = threading.Thread(target=self._poll, args=(self._stopping,), name="live-model", daemon=True)
        self._poller.start()

    def wake(self) -> None:
        """Make the started thread look at the store at once; returns without waiting for it."""
        self._awake.set()

    def stop(self) -> None:
        """Stop looking. A load under way is waited for up to ``STOP_SECONDS``; the engine stays."""
        if self._poller is None:
            return
        self._stopping.set()
        self._awake.set()
        self._poller.join(STOP_SECONDS)
        self._poller = None

    def _poll(self, stopping: threading.Event) -> None:
        while True:
            self._awake.wait(self._poll_seconds)
            self._awake.clear()
            if stopping.is_set():
                return
            self.refresh()

    def _follow(self) -> str | None:
        """Make what ``CURRENT`` names live, or remember why not; returns what it names."""
        evidence: _Evidence = _identity(self._store / CURRENT)
        try:
            wanted = artifact.current_version(self._store)
        except UserError as error:
            self._refuse(None, str(error), evidence)
            return None
        if wanted == self.version:
            self.last_refusal = None
        elif wanted is None:
            self._refuse(None, f"{self._store / CURRENT}: is missing. Activate a version of this store", evidence)
        else:
            # Taken before the files are read: what changes during the load is loaded again.
            evidence += _identities(self._store / wanted)
            if self.last_refusal is None or evidence != self._evidence:
                self._load(wanted, evidence)
        return wanted

    def _load(self, version: str, evidence: _Evidence) -> None:
        try:
            engine = try_out(self._store, version)
        except Exception as error:  # whatever is wrong with a new version, the live one goes on
            reason = str(error) if isinstance(error, UserError) else f"{self._store / version}: {error!r}"
            self._refuse(version, reason, () if _may_pass(error) else evidence)
        else:
            self.engine, self.last_refusal = engine, None

    def _refuse(self, version: str | None, reason: str, evidence: _Evidence) -> None:
        known = self.last_refusal
        if known is None or (known.version, known.reason, self._evidence) != (version, reason, evidence):
            self.last_refusal, self._evidence = Refusal(version, reason, datetime.now(UTC)), evidence

    def _report(self, result: SwapResult) -> None:
        if result.outcome == "swapped":
            _log.info("model %s is live instead of %s after %.2f s", result.after, result.before, result.seconds)
        elif result.before is not None or self._poller is not None:  # at the start whoever asked says it
            _log.error("model %s is refused, %s stays: %s", result.wanted, result.after, result.reason)
        if self._on_swap is None:
            return
        try:
            self._on_swap(result)
        except Exception:
            _log.exception("the callback of a model swap failed")


def try_out(store: Path, version: str) -> Engine:
    """Load a version of a store, with its encoders, which the first live item would need, and check its answers.

    Raises:
        UserError: it is not as it was published, an encoder cannot be opened, or it answers wrongly.
    """
    engine = Engine(artifact.load(store, version))
    engine.content.open_encoders()
    check_answers(engine)
    return engine


def check_answers(engine: Engine) -> None:
    """Ask an engine for a few users' recommendations and compute them again from the tables, item by item.

    An approximate index may miss some of the best items; what it does answer must be exact.

    Raises:
        UserError: an answer is wrong; the message names the artefact and the user's dense index.
    """
    model = engine.artifact
    longest = float(engine.opened.index.lengths.max())
    found = [_checked(engine, user, longest) for user in _canary_users(model)]
    best, wanted = (sum(counts) for counts in zip(*found, strict=True))
    if best < _CANARY_RECALL * wanted:
        raise _wrong(model, f"found {best} of {wanted} best items")


def _canary_users(model: Artifact) -> list[int]:
    """Users from all over the table: with training interactions as far as there are any, and one without."""
    active = np.diff(model.train_indptr) > 0
    trained, untrained = np.flatnonzero(active), np.flatnonzero(~active)
    spread = np.linspace(0, len(trained) - 1, min(_CANARY_USERS, len(trained))).astype(np.int64)
    return [*trained[spread].tolist(), *untrained[:1].tolist()]


def _checked(engine: Engine, user: int, longest: float) -> tuple[int, int]:
    """How many of a user's best items were answered, and how many there are to answer."""
    model = engine.artifact
    scores, rounding = _exact_scores(engine, user, longest)
    seen = model.seen(user)
    wanted = min(_CANARY_K, len(scores) - len(seen))
    answer = engine.recommend(Query(user_id=model.users.outside(user), k=_CANARY_K))
    if answer.strategy != ("personal" if len(seen) else engine.impersonal):
        raise _wrong(model, f"answered user {user} by {answer.strategy!r}")
    items = [_dense(model, item) for item in answer.items]
    if len(set(items)) != len(items) or len(items) != wanted:
        raise _wrong(model, f"answered user {user} {len(set(items))} different items instead of {wanted}")
    if np.isin(items, seen).any():
        raise _wrong(model, f"answered user {user} an item of the user's own")
    given = np.array([item.score for item in answer.items])
    if not np.allclose(given, scores[items], rtol=0, atol=rounding):  # never close where there is a NaN
        raise _wrong(model, f"answered user {user} scores that are not those of the embeddings")
    if wanted == 0:
        return 0, 0
    scores[seen] = -np.inf
    last = np.partition(scores, -wanted)[-wanted]
    return int(np.count_nonzero(scores[items] >= last - rounding)), wanted


def _exact_scores(engine: Engine, user: int, longest: float) -> tuple[NDArray[np.float32], float]:
    """The score of every item for a user, float32 [items], and how far two sums of it in float32 can be apart."""
    model, single = engine.artifact, np.finfo(np.float32)
    if len(model.seen(user)) == 0:
        return engine.demand.astype(np.float32), float(single.eps) * float(engine.demand.max())
    vector = model.user_embeddings[user]
    scores: NDArray[np.float32] = model.item_embeddings @ vector
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return scores, 2 * model.width * (float(single.eps) * longest * length + float(single.tiny))


def _dense(model: Artifact, item: RankedItem) -> int:
    index = model.items.dense(item.item_id)
    if index is None:
        raise _wrong(model, f"answered the item {item.item_id!r}, which it does not have")
    return index


def _wrong(model: Artifact, what: str) -> UserError:
    return UserError(f"{model.path}: {what} when it was tried out. Publish the model again, or use another version")


def _identities(folder: Path) -> _Evidence:
    """What changes whenever a file of a folder does."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return *_identity(folder), error.errno
    return *_identity(folder), *(_identity(path) for path in paths)


def _identity(path: Path) -> _Evidence:
    """What changes whenever a file does, or why that cannot be told."""
    try:
        found = path.lstat()
    except OSError as error:
        return (path.name, error.errno)
    return (path.name, stat.S_IFMT(found.st_mode), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _may_pass(error: Exception) -> bool:
    """Whether reading failed for what no look at the files can show: too many open ones, memory, the disk."""
    cause = error.__cause__ or error
    if isinstance(cause, FileNotFoundError | PermissionError):
        return False
    return isinstance(cause, OSError | MemoryError)
