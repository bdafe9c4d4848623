"""The versions of a store, by their manifests, and how two of them answer the same user."""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.recent import NOTHING, SinceTraining
from shared import artifact, manifest
from shared.artifact import Artifact
from shared.errors import UserError
from shared.forgotten import forgotten_until
from shared.manifest import Manifest

_MOST = 50


@dataclass(frozen=True)
class Version:
    """A version of the store; ``manifest`` is None where it cannot be read, and ``damage`` then says why."""

    version: str
    current: bool
    manifest: Manifest | None
    damage: str | None


class Versions:
    """Looks at one store. Keeps the last two versions that were compared; safe from any number of threads."""

    def __init__(self, store: Path) -> None:
        """Look at ``store``; it need not exist yet."""
        self._store = store
        self._loaded: dict[str, Artifact] = {}
        self._loading = threading.Lock()

    def newest(self) -> list[Version]:
        """The newest versions, newest first. Reads manifests and nothing else, so it says nothing of other damage."""
        try:
            current = artifact.current_version(self._store)
            names = sorted(
                (path.name for path in self._store.iterdir() if manifest.is_version(path.name)), reverse=True
            )
        except (OSError, UserError):
            return []
        return [self._version(name, current) for name in names[:_MOST]]

    def open(self, version: str) -> Artifact:
        """Load a version, or give the one loaded before.

        Raises:
            UserError: there is no such version, or it is damaged.
        """
        if not manifest.is_version(version):
            raise UserError(f"{version!r} is not the name of a version")
        with self._loading:
            if version not in self._loaded:
                while len(self._loaded) >= 2:
                    self._loaded.pop(next(iter(self._loaded)))
                self._loaded[version] = artifact.load(self._store, version)
            return self._loaded[version]

    def _version(self, name: str, current: str | None) -> Version:
        try:
            read = manifest.decode((self._store / name / "manifest.json").read_bytes())
        except (OSError, UserError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            return Version(name, name == current, None, reason)
        return Version(name, name == current, read, None)


def ranked(
    model: Artifact, user_id: str, k: int, since: SinceTraining = NOTHING, retired: Collection[str] = ()
) -> list[int] | None:
    """The best items of a user by the embeddings alone, without those of the training and retired ones.

    Args:
        model: a version.
        user_id: the user.
        k: how many items are wanted.
        since: when the user was forgotten, if ever.
        retired: ids of items that nobody is to get.

    Returns:
        Rows of items, best first; None for a user whom the version does not know, or not any more.

    Raises:
        UserError: the version says in a wrong way until when users are forgotten.
    """
    user = model.users.dense(user_id)
    if user is None or since.outdates(forgotten_until(model)):
        return None
    scores = model.item_embeddings @ model.user_embeddings[user]
    rows = [row for item_id in retired if (row := model.items.dense(item_id)) is not None]
    left_out = np.union1d(model.seen(user), np.array(rows, dtype=np.int64))
    scores[left_out] = -np.inf
    count = min(k, len(scores) - len(left_out))
    best = np.argpartition(-scores, count - 1)[:count] if 0 < count < len(scores) else np.arange(count)
    return [int(item) for item in best[np.lexsort((best, -scores[best]))]]
