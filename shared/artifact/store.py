"""The versions of a store folder: published, listed, made live, gone back from, removed."""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared import durable
from shared import manifest as manifests
from shared.artifact.layout import CURRENT, MANIFEST, damage, reading, require_regular
from shared.artifact.loading import Artifact, check_names, check_size, load_path, read_manifest
from shared.artifact.writing import Provenance, StudentModel, checked_tables, write_version
from shared.errors import UserError
from shared.manifest import Manifest

_LOCK = ".lock"
_ACTIVATIONS_KEPT = 20


@dataclass(frozen=True)
class VersionSummary:
    """An entry of :func:`list_versions`.

    ``damage`` says what is wrong with the version, ``None`` if it is sound; ``manifest`` is ``None`` where it
    cannot be read.
    """

    version: str
    current: bool
    damage: str | None
    manifest: Manifest | None


def publish(store: Path, model: StudentModel, provenance: Provenance, *, activate: bool = True) -> str:
    """Write a new version into a store folder (made if need be); whole or, after any failure, not at all.

    Publishers of one store take turns. What killed ones left behind is removed.

    Args:
        store: the folder of versions.
        model: the student to publish.
        provenance: where it comes from.
        activate: also make it the current version.

    Returns:
        The name of the version.

    Raises:
        UserError: the model or its provenance is not sound, or the store cannot be written.
    """
    tables = checked_tables(model, provenance.dataset)
    with _writing(store):
        store.mkdir(parents=True, exist_ok=True)
        with durable.exclusive(store / _LOCK):
            _remove_unfinished(store)
            version = write_version(store, model, tables, provenance)
            if activate:
                _point_current(store, version)
    return version


def load(store: Path, version: str | None = None) -> Artifact:
    """Load a version of a store, the current one by default; see :func:`load_path`.

    Raises:
        UserError: there is no such version, or it is not as it was published.
    """
    name = current_version(store) if version is None else _version(version)
    if name is None:
        raise _no_current(store)
    artifact = load_path(store / name)
    if artifact.manifest.version != name:
        raise damage(store / name / MANIFEST, f"is that of version {artifact.manifest.version}")
    return artifact


def list_versions(store: Path) -> list[VersionSummary]:
    """Every folder of a store that is not hidden, each checked as :func:`load` does, oldest first.

    An empty list where there is no store.

    Raises:
        UserError: the store cannot be read.
    """
    return _summaries(store, lambda name: load(store, name).manifest)


def glance(store: Path) -> list[VersionSummary]:
    """Every version as :func:`list_versions` has it, but without reading more than the manifests.

    Files that are missing, or not of their size, are damage here too; changed bytes in them are not seen.
    """
    return _summaries(store, lambda name: _glanced(store / name))


def activate(store: Path, version: str, *, instead_of: Collection[str | None] | None = None) -> bool:
    """Make a version the current one, after checking it.

    Args:
        store: the folder of versions.
        version: the one to be current.
        instead_of: what may be current until now, None for no version at all; without it whatever is.

    Returns:
        Whether it is current; False where another one is than may be, which then stays.

    Raises:
        UserError: there is no such version, it is damaged, or the store cannot be written.
    """
    load(store, version)
    with _writing(store), durable.exclusive(store / _LOCK):
        if instead_of is not None and current_version(store) not in instead_of:
            return False
        _point_current(store, version)
    return True


def rollback(store: Path) -> str:
    """Make the version current, after checking it, that was so before the current one.

    Each call undoes one activation, as far back as the last 20: activate A, B, C and roll back twice, and A is
    current. A version that was rolled back from is not come back to; :func:`activate` it to have it again.

    Returns:
        The name of the version that is current now.

    Raises:
        UserError: there is no version to go back to, it is damaged or gone, or the store cannot be written.
    """
    if current_version(store) is None:
        raise _no_current(store)
    with _writing(store), durable.exclusive(store / _LOCK):
        trail = activations(store)
        if len(trail) < 2:
            raise UserError(f"{store / CURRENT}: knows of no version before. Activate one that `models list` shows")
        load(store, trail[1])
        _write_current(store, trail[1:])
    return trail[1]


def follow(store: Path, trail: Sequence[str]) -> None:
    """Take over the activations of another copy of the store, newest first, after checking the one to be live.

    Raises:
        UserError: the first is not there or damaged, or the store cannot be written.
    """
    load(store, trail[0])
    with _writing(store), durable.exclusive(store / _LOCK):
        _write_current(store, trail)


def current_version(store: Path) -> str | None:
    """Read the version that ``CURRENT`` names, ``None`` if there is no such file.

    Raises:
        UserError: the file holds anything but names of versions.
    """
    trail = activations(store)
    return trail[0] if trail else None


def activations(store: Path) -> list[str]:
    """The current version and those that were so before it, newest first; empty if there is no current one.

    Raises:
        UserError: ``CURRENT`` holds anything but names of versions.
    """
    path = store / CURRENT
    with reading(path):
        try:
            require_regular(path)
        except FileNotFoundError:
            return []
        with path.open("rb") as file:
            content = file.read(1000)
    names = content.decode("ascii", errors="replace").removesuffix("\n").split("\n")
    for name in names:
        if not manifests.is_version(name):
            raise UserError(f"{path}: {name!r} is not the name of a version. Activate one that `models list` shows")
    return names


def prune(store: Path, keep: int, *, spare: Collection[str | None] = ()) -> list[str]:
    """Remove all versions but the newest, the current one, the one before it and those to spare.

    A version vanishes in one step. Who has it open keeps it until they let go.

    Args:
        store: the folder of versions.
        keep: how many of the newest stay.
        spare: others that stay; None is nobody's name.

    Returns:
        The names of those removed, oldest first.

    Raises:
        UserError: the store cannot be written.
    """
    with _writing(store), durable.exclusive(store / _LOCK):
        lived = activations(store)
        names = sorted(path.name for path in store.iterdir() if path.is_dir() and manifests.is_version(path.name))
        old = names[: max(0, len(names) - keep)]
        removed = [name for name in old if name not in lived[:2] and name not in spare]
        if lived and removed:
            _write_current(store, [name for name in lived if name not in removed])
        for name in removed:
            (store / name).rename(durable.temporary_sibling(store / name))
        durable.sync_directory(store)
        _remove_unfinished(store)
    return removed


def _no_current(store: Path) -> UserError:
    return UserError(f"{store}: holds no current model. Train and publish one first (mts4mm train)")


def _version(name: str) -> str:
    if not manifests.is_version(name):
        raise UserError(f"{name!r} is not the name of a version (such as 20261122T231501Z-3fa9c1d2)")
    return name


def _summaries(store: Path, check: Callable[[str], Manifest]) -> list[VersionSummary]:
    if not store.exists():
        return []
    with reading(store):
        names = [path.name for path in store.iterdir() if _may_be_version(path)]
    try:
        current = current_version(store)
    except UserError:
        current = None
    return sorted((_summary(store, name, current, check) for name in names), key=_by_time)


def _summary(store: Path, name: str, current: str | None, check: Callable[[str], Manifest]) -> VersionSummary:
    try:
        return VersionSummary(name, name == current, None, check(name))
    except UserError as error:
        return VersionSummary(name, name == current, str(error), _manifest_if_readable(store / name))


def _glanced(directory: Path) -> Manifest:
    with reading(directory):
        manifest = read_manifest(directory)
        check_names(directory, manifest)
        for name, entry in sorted(manifest.files.items()):
            check_size(directory / name, entry)
    return manifest


def _manifest_if_readable(directory: Path) -> Manifest | None:
    try:
        return read_manifest(directory)
    except (UserError, OSError):
        return None


def _by_time(summary: VersionSummary) -> tuple[str, float, str]:
    created = 0.0 if summary.manifest is None else summary.manifest.created.timestamp()
    return summary.version.partition("-")[0], created, summary.version


def _may_be_version(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_dir()


@contextmanager
def _writing(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = store if error.filename is None else error.filename
        raise UserError(f"{where}: cannot be written: {error.strerror}. Mend that and try again") from error


def _point_current(store: Path, version: str) -> None:
    try:
        before = activations(store)
    except UserError:
        before = []  # what cannot be read is mended by being replaced
    _write_current(store, before if before[:1] == [version] else [version, *before])


def _write_current(store: Path, trail: Sequence[str]) -> None:
    with durable.replacing(store / CURRENT) as file:
        file.write("".join(f"{version}\n" for version in trail[:_ACTIVATIONS_KEPT]).encode())


def _remove_unfinished(store: Path) -> None:
    """Remove what killed publishers left; the caller holds the lock, so none of it is being written."""
    for path in store.glob(f"{durable.TEMPORARY_PREFIX}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
