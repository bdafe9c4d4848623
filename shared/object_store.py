"""A store folder and its copy in an object store, such as ``s3://bucket/models``.

The object store has the layout of the folder (``shared/artifact/``). A version travels whole: its manifest goes last,
so that what has a manifest is complete; ``CURRENT`` follows it. Readers fetch into a hidden folder, check every file as
on any load, and rename. So neither side ever sees half a version, and the object store needs no rename or lock of its
own. Reaches everything that fsspec does; S3 needs the extra ``object-store``. Credentials and endpoints come from the
environment, as each provider's own tools read them.

Each side mends the other. A version that was damaged in the folder is fetched again: every process reads it whole once,
and again when one of its files changes. What is missing in the object store, or not of its size, is sent again with
every push; bytes that changed there without a change of size are found by :meth:`ObjectStore.push` alone.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from shared import artifact, durable, kept_pictures, last_night
from shared.artifact import CURRENT
from shared.errors import SupersededError, UserError
from shared.manifest import decode, is_version

FETCHED = 2
"""Versions that are fetched: the live one, and the one before, for a rollback that cannot wait."""
KEPT = 3
"""How many of the newest versions a follower keeps: one that was rolled back from can be live again without a fetch."""

_MANIFEST = "manifest.json"
_FETCHING = ".fetching-"
_FETCH_LOCK = ".object-store.lock"
"""Who fetches; the others wait, and find all of it there."""
_LIVE_LOCK = ".object-store.live.lock"
"""Who compares the two sides' live versions, or changes them; never for long."""

_SENT_AGAIN = 5
"""How often what was made live is sent when somebody removes it meanwhile."""
_Files = dict[str, tuple[int, int, int]]
"""Of each file in a folder the inode, size in bytes, and time of the last change in nanoseconds."""

_log = logging.getLogger(__name__)


class ObjectStore:
    """Copies versions between a store folder and a URL. Safe from any number of processes on the same folder."""

    def __init__(self, url: str, folder: Path) -> None:
        """Name both sides; nothing is read yet.

        Args:
            url: such as ``s3://bucket/models``, or a ``file://`` one.
            folder: the store folder; made if need be.

        Raises:
            UserError: the URL's kind is unknown, its library is not installed, or it connects at once and cannot.
        """
        self._url, self._folder = url.rstrip("/"), folder
        try:
            # Listings must not be remembered: another machine changes what is there.
            self._files, root = url_to_fs(self._url, use_listings_cache=False, skip_instance_cache=True)
        except Exception as error:  # some connect at once; every provider's library has exceptions of its own
            raise UserError(f"{url}: cannot be used as an object store: {error}") from None
        self._root = str(root)
        self._unsound: set[str] = set()
        """What was fetched and is not whole: told once, and not fetched with every pull."""
        self._told: dict[str, str] = {}
        self._whole: dict[str, _Files] = {}
        """The files of each version in the folder when it was read and found whole."""

    @contextmanager
    def held(self) -> Iterator[Callable[[], list[str]]]:
        """Keep others from changing the folder's live version; yields what pushes a change that is made in here.

        A pull in between would take the change back. It is a change of what the folder had at the beginning: where
        the object store has another version, or got to it by another way, the push raises SupersededError, and the
        folder has again what it had. Else the push is :meth:`push`.

        Raises:
            UserError: the folder cannot be written.
        """
        with self._alone(_LIVE_LOCK):
            before = self._activations()

            def push() -> list[str]:
                return self._push(instead_of=before)

            yield push

    def push(self) -> list[str]:
        """Copy the live version, and those before it that are still in the folder, then ``CURRENT``, whatever is there.

        The live version and the one before are read there, and compared by sha256; of those before them only the names
        and sizes of the files are.

        Returns:
            The versions that were not there before, or not whole.

        Raises:
            UserError: the folder has no live version or cannot be written, or the object store refuses.
        """
        with self._alone(_LIVE_LOCK), self._reaching():
            return [*self._send_missing(artifact.activations(self._folder)[:FETCHED], by_content=True), *self._push()]

    def send(self, version: str) -> None:
        """Copy one version, if it is not there whole, so that the push that makes it live takes no time.

        Raises:
            UserError: it is not whole, or the object store refuses.
        """
        with self._reaching():
            if not self._has(version):
                self._upload(version)

    def push_pictures(self) -> None:
        """Copy the kept pictures that are not there, and take away there what they took the place of.

        For who keeps them, the nightly job; a service only has what it pulled.

        Raises:
            UserError: the object store cannot be reached or refuses.
        """
        with self._reaching():
            self._push_pictures()

    def push_night(self) -> None:
        """Copy the status of the last night, if there is one, and its report, which takes the place of earlier ones.

        For the nightly job; what watches the services is told by their copies.

        Raises:
            UserError: the status cannot be read, or the object store cannot be reached or refuses.
        """
        status = self._folder / last_night.STATUS
        if not status.exists():
            return
        with self._reaching():
            names = [name for name in last_night.reports(status.read_bytes()) if (self._folder / name).exists()]
            for name in [*names, last_night.STATUS]:
                self._put(name)
            there = f"{self._root}/{last_night.REPORTS}"
            for path in self._files.find(there) if self._files.exists(there) else []:
                if str(path)[len(self._root) :].lstrip("/") not in names:
                    self._files.rm_file(path)

    def pull(self) -> str | None:
        """Make the folder's live version that of the object store; fetch it, and the one before, if they are not here.

        One that is here but damaged is fetched again. A version before that is damaged there or gone is left out; the
        live one must be whole. What goes wrong with that version, the pictures or the last night's status is logged,
        and tried again with the next pull.

        Returns:
            The live version; None where the object store has none yet.

        Raises:
            UserError: the object store cannot be reached, what it names is not whole, or the folder cannot be written.
        """
        with self._alone(_FETCH_LOCK), self._reaching():
            trail = self._trail()
            while trail:
                self._fetch(trail[0])
                with self._doing_without("the version before"):
                    for name in dict.fromkeys(trail[1:FETCHED]):
                        self._fetch_before(name)
                with self._doing_without("pictures"):
                    self._pull_pictures()
                with self._doing_without("the last night's status"):
                    self._pull_night()
                fetched = trail
                with self._alone(_LIVE_LOCK):
                    trail = self._trail()  # fetching takes time, in which somebody may have pushed
                    if trail == fetched:
                        if self._activations() != trail:
                            artifact.follow(self._folder, trail)
                        return trail[0]
            return None

    def changed_at(self) -> str | None:
        """When the live version was last told to the object store; None if never, or if it does not say.

        Raises:
            UserError: the object store cannot be reached.
        """
        path = f"{self._root}/{CURRENT}"
        with self._reaching():
            try:
                return str(self._files.modified(path)) if self._files.exists(path) else None
            except NotImplementedError:
                return None

    def tidy(self, serving: str | None) -> None:
        """Remove from the folder what a follower needs no more, and what fetches that were killed left.

        The newest versions stay, the live one, the one before, and the one that answers; of reports the last night's.
        The nightly job's own folder is left to it.

        Args:
            serving: the version that answers, which may be none of the others.

        Raises:
            UserError: the folder cannot be written.
        """
        if last_night.is_the_jobs(self._folder):
            return
        with self._alone(_FETCH_LOCK):
            for path in self._folder.glob(f"{_FETCHING}*"):
                shutil.rmtree(path, ignore_errors=True)
            self._tidy_reports()
            with self._alone(_LIVE_LOCK):
                trail = artifact.activations(self._folder)
                if artifact.prune(self._folder, KEPT, spare={serving}):
                    artifact.follow(self._folder, trail)  # which is the object store's, and names those removed too

    def prune(self, keep: int) -> list[str]:
        """Remove from the object store all versions but the newest, the live one and the one before it.

        The manifest goes first, so that a reader sees a version whole or not at all. One that is made live meanwhile
        stays, or is sent again by who did so.

        Args:
            keep: how many of the newest stay, one at least.

        Returns:
            The names of those removed, oldest first.

        Raises:
            UserError: the object store cannot be reached or refuses.
        """
        with self._reaching():
            paths = self._files.ls(self._root, detail=False)
            names = sorted(name for name in (str(path).rpartition("/")[2] for path in paths) if is_version(name))
            return [name for name in names[:-keep] if self._remove(name)]

    def _push(self, instead_of: list[str] | None = None) -> list[str]:
        trail = artifact.activations(self._folder)
        if not trail:
            raise UserError(f"{self._folder}: holds no current model to copy")
        with self._reaching():
            sent = self._send_missing(trail)
            if instead_of is not None and self._trail() not in ([], instead_of):
                if instead_of:
                    artifact.follow(self._folder, instead_of)
                raise SupersededError(f"{self._url}: another version is live there by now; try again in a moment")
            self._files.pipe_file(f"{self._root}/{CURRENT}", "".join(f"{name}\n" for name in trail).encode())
            for _ in range(_SENT_AGAIN):
                if not self._send_missing(trail[:FETCHED]):
                    return sent
                # somebody removed them before they read that they are needed
        raise UserError(f"{self._url}: what is sent there does not stay; look for what removes or changes its files")

    def _send_missing(self, trail: list[str], *, by_content: bool = False) -> list[str]:
        """Copy those that are in the folder and not there whole; returns those copied. The first must be whole here."""
        sent = []
        for name in dict.fromkeys(trail):
            if (self._folder / name).is_dir() and not self._has(name, by_content=by_content):
                try:
                    self._upload(name)
                    sent.append(name)
                except UserError as error:
                    if name == trail[0]:
                        raise
                    self._tell_once(name, f"{name} cannot be sent: {error}")
        return sent

    def _remove(self, version: str) -> bool:
        """Remove a version there, unless it is live or the one before; whether it was removed.

        Who makes a version live names it in ``CURRENT`` and then looks whether it is there; here its manifest goes, and
        then ``CURRENT`` is read. So one of the two sees the other.
        """
        manifest = f"{self._root}/{version}/{_MANIFEST}"
        if version in self._trail()[:FETCHED]:
            return False
        if self._files.exists(manifest):
            content = self._files.cat_file(manifest)
            self._files.rm_file(manifest)
            if version in self._trail()[:FETCHED]:
                self._files.pipe_file(manifest, content)
                return False
        self._files.rm(f"{self._root}/{version}", recursive=True)
        return True

    def _push_pictures(self) -> None:
        there = self._pictures()
        kept = (path.relative_to(self._folder) for path in self._folder.glob(f"{kept_pictures.FOLDER}/*/*"))
        here = {path.as_posix() for path in kept if kept_pictures.is_name(path.as_posix())}
        for name in sorted(here - there):
            self._put(name)
        items = {name.rpartition("/")[0] for name in here}
        for name in sorted(there - here):
            if name.rpartition("/")[0] in items:
                self._files.rm_file(f"{self._root}/{name}")

    def _pull_pictures(self) -> None:
        for name in sorted(self._pictures()):
            path = self._folder / name
            if path.exists() or name in self._unsound:
                continue
            content = self._files.cat_file(f"{self._root}/{name}")
            if not kept_pictures.is_whole(name, content):
                self._leave_out(name, "its content is not that of its name")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with durable.replacing(path) as file:
                file.write(content)
            kept_pictures.only(path)

    def _put(self, name: str) -> None:
        if isinstance(self._files, LocalFileSystem):
            self._files.makedirs(f"{self._root}/{name.rpartition('/')[0]}", exist_ok=True)
        self._files.put_file(str(self._folder / name), f"{self._root}/{name}")

    def _pull_night(self) -> None:
        if last_night.is_the_jobs(self._folder) or not self._files.exists(f"{self._root}/{last_night.STATUS}"):
            return
        status, path = self._small(last_night.STATUS), self._folder / last_night.STATUS
        if path.exists() and path.read_bytes() == status:
            return
        names = [name for name in last_night.reports(status) if self._files.exists(f"{self._root}/{name}")]
        (self._folder / last_night.REPORTS).mkdir(parents=True, exist_ok=True)
        for name in names:
            content = self._small(name)
            with durable.replacing(self._folder / name) as file:
                file.write(content)
        with durable.replacing(path) as file:
            file.write(status)

    def _small(self, name: str) -> bytes:
        content = bytes(self._files.cat_file(f"{self._root}/{name}", end=last_night.MOST_BYTES + 1))
        if len(content) > last_night.MOST_BYTES:
            raise UserError(f"{self._url}/{name}: is too large")
        return content

    def _tidy_reports(self) -> None:
        status = self._folder / last_night.STATUS
        try:
            named = last_night.reports(status.read_bytes()) if status.exists() else []
        except UserError:  # the next pull brings a better one
            return
        for path in (self._folder / last_night.REPORTS).glob("*"):
            if path.relative_to(self._folder).as_posix() not in named:
                path.unlink(missing_ok=True)

    def _pictures(self) -> set[str]:
        """The files of pictures there, by their names below the root; whatever else is there is nobody's picture."""
        root = f"{self._root}/{kept_pictures.FOLDER}"
        if not self._files.exists(root):
            return set()
        names = (str(path)[len(self._root) :].lstrip("/") for path in self._files.find(root))
        return {name for name in names if kept_pictures.is_name(name)}

    def _leave_out(self, name: str, reason: str) -> None:
        self._unsound.add(name)
        _log.warning("%s/%s is left out: %s", self._url, name, reason)

    def _trail(self) -> list[str]:
        path = f"{self._root}/{CURRENT}"
        if not self._files.exists(path):
            return []
        names = self._files.cat_file(path).decode("ascii", errors="replace").split()
        if not all(is_version(name) for name in names):
            raise UserError(f"{self._url}/{CURRENT}: holds anything but names of versions. Push a model again")
        return list(names)

    def _activations(self) -> list[str]:
        """The folder's; none where they cannot be read, which the next pull mends."""
        try:
            return artifact.activations(self._folder)
        except UserError:
            return []

    def _has(self, version: str, *, by_content: bool = False) -> bool:
        """Whether a version is whole there, by the names and sizes of its files, or by their content too."""
        folder = f"{self._root}/{version}"
        try:
            manifest = decode(self._files.cat_file(f"{folder}/{_MANIFEST}"))
            found = self._files.ls(folder, detail=True)
        except (FileNotFoundError, UserError):
            return False
        sizes = {str(entry["name"]).rpartition("/")[2]: entry["size"] for entry in found}
        if manifest.version != version or any(sizes.get(name) != file.size for name, file in manifest.files.items()):
            return False
        return not by_content or all(
            self._sha256(f"{folder}/{name}") == file.sha256 for name, file in manifest.files.items()
        )

    def _sha256(self, path: str) -> str:
        with self._files.open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _upload(self, version: str) -> None:
        folder = self._folder / version
        artifact.load_path(folder)
        names = sorted(path.name for path in folder.iterdir() if path.name != _MANIFEST)
        if isinstance(self._files, LocalFileSystem):  # others have no folders; S3's would make the bucket
            self._files.makedirs(f"{self._root}/{version}", exist_ok=True)
        for name in [*names, _MANIFEST]:
            self._files.put_file(str(folder / name), f"{self._root}/{version}/{name}")

    def _fetch(self, version: str) -> None:
        folder, staging = self._folder / version, self._folder / f"{_FETCHING}{version}"
        if self._is_whole(version):
            return
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            for remote in self._files.ls(f"{self._root}/{version}", detail=False):
                self._files.get_file(remote, str(staging / str(remote).rpartition("/")[2]))
            self._check(version, staging)
        except (FileNotFoundError, UserError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise UserError(
                f"{self._url}/{version}: is not there as it was published; "
                f"'mts4mm models push {self._url} STORE', from a store that has it whole, sends it again: {error}"
            ) from error
        durable.sync_directory(staging)
        damaged = self._folder / f"{_FETCHING}{version}.damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        if folder.exists():
            folder.rename(damaged)
        staging.rename(folder)
        shutil.rmtree(damaged, ignore_errors=True)
        durable.sync_directory(self._folder)

    def _is_whole(self, version: str) -> bool:
        """Whether the folder has a version as it was published; what was found whole is read again if it changes."""
        folder = self._folder / version
        if not folder.exists():
            return False
        try:
            if self._whole.get(version) != _files(folder):
                self._check(version, folder)
        except UserError as error:
            self._tell_once(version, f"{version} is damaged here, and is fetched again: {error}")
            return False
        return True

    def _check(self, version: str, folder: Path) -> None:
        found = artifact.load_path(folder).manifest.version
        if found != version:
            raise UserError(f"{folder}: is version {found}")
        self._whole[version] = _files(folder)

    def _fetch_before(self, version: str) -> None:
        if version in self._unsound or not self._files.exists(f"{self._root}/{version}/{_MANIFEST}"):
            return
        try:
            self._fetch(version)
        except UserError as error:
            self._leave_out(version, str(error))

    @contextmanager
    def _alone(self, lock: str) -> Iterator[None]:
        with ExitStack() as held:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(durable.exclusive(self._folder / lock))
            except OSError as error:
                raise UserError(f"{self._folder}: models cannot be written here: {error}") from None
            yield

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # every provider's library has exceptions of its own
            raise UserError(f"{self._url}: cannot be reached or refuses: {error}") from error

    @contextmanager
    def _doing_without(self, what: str) -> Iterator[None]:
        """Log what goes wrong, once as long as it stays the same: the live model needs none of it."""
        try:
            yield
        except Exception as error:  # every provider's library has exceptions of its own
            self._tell_once(what, f"{what} cannot be fetched: {error}")
        else:
            self._told.pop(what, None)

    def _tell_once(self, about: str, what: str) -> None:
        if self._told.get(about) != what:
            _log.warning("%s: %s", self._url, what)
        self._told[about] = what


def _files(folder: Path) -> _Files:
    found = ((path.name, path.lstat()) for path in folder.iterdir())
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found}
