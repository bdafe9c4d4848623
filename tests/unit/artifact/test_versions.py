"""Versions, the current one, and the way back."""

import shutil
from pathlib import Path

import pytest

from shared import artifact
from shared.errors import UserError
from tests.unit.artifact.damages import flip
from tests.unit.artifact.models import MODEL, PROVENANCE


def test_the_latest_published_is_current_unless_it_was_not_to_be(store: Path) -> None:
    first = artifact.publish(store, MODEL, PROVENANCE)
    second = artifact.publish(store, MODEL, PROVENANCE)
    third = artifact.publish(store, MODEL, PROVENANCE, activate=False)

    assert len({first, second, third}) == 3
    assert [summary.version for summary in artifact.list_versions(store)] == [first, second, third]
    assert [summary.current for summary in artifact.list_versions(store)] == [False, True, False]
    assert artifact.load(store).manifest.version == second
    assert artifact.load(store, third).manifest.version == third


def test_any_version_can_be_made_current(store: Path) -> None:
    first = artifact.publish(store, MODEL, PROVENANCE)
    artifact.publish(store, MODEL, PROVENANCE)

    artifact.activate(store, first)

    assert artifact.current_version(store) == first
    assert (store / "CURRENT").read_text().splitlines()[0] == first


def test_rolling_back_undoes_one_activation_a_time(store: Path) -> None:
    a, b, c = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(3))

    assert artifact.rollback(store) == b
    assert artifact.current_version(store) == b
    assert artifact.rollback(store) == a
    with pytest.raises(UserError, match="CURRENT: knows of no version before"):
        artifact.rollback(store)
    assert artifact.current_version(store) == a

    artifact.activate(store, c)
    assert artifact.rollback(store) == a


def test_a_version_rolled_back_from_is_not_come_back_to(store: Path) -> None:
    a, b, c = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(3))
    artifact.activate(store, b)
    artifact.rollback(store)
    artifact.rollback(store)
    assert artifact.current_version(store) == b

    d = artifact.publish(store, MODEL, PROVENANCE)

    assert [artifact.rollback(store) for _ in range(2)] == [b, a]
    assert {c, d}.isdisjoint((store / "CURRENT").read_text().split())


def test_activating_the_live_version_again_changes_nothing_for_a_rollback(store: Path) -> None:
    a, b = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    for _ in range(3):
        artifact.activate(store, b)
    artifact.publish(store, MODEL, PROVENANCE, activate=False)

    assert artifact.rollback(store) == a


def test_a_rollback_to_a_version_that_is_damaged_or_gone_is_refused(store: Path) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    flip("item_embeddings.npy")(store / first)
    with pytest.raises(UserError, match=f"{first}/item_embeddings.npy"):
        artifact.rollback(store)
    shutil.rmtree(store / first)
    with pytest.raises(UserError, match=f"{first}: there is no such version"):
        artifact.rollback(store)

    assert artifact.current_version(store) == second


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_there_is_no_rollback_without_a_current_model(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UserError, match="holds no current model"):
        artifact.rollback(tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_what_was_live_before_is_remembered_to_a_bound(store: Path) -> None:
    a, b = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))
    for _ in range(30):
        artifact.activate(store, a)
        artifact.activate(store, b)

    assert (store / "CURRENT").read_text().split() == [b, a] * 10
    for expected in [a, b] * 9 + [a]:
        assert artifact.rollback(store) == expected
    with pytest.raises(UserError, match="knows of no version before"):
        artifact.rollback(store)


@pytest.mark.parametrize("below", ["", "../models", f"20261122T231501Z-3fa9c1d2 {'x' * 5000}"])
def test_a_current_with_anything_but_versions_is_refused_and_mended_by_activating(
    store: Path, version: Path, below: str
) -> None:
    (store / "CURRENT").write_text(f"{version.name}\n{below}\n")
    for call in (artifact.current_version, artifact.rollback, artifact.load):
        with pytest.raises(UserError, match=r"CURRENT: .* is not the name of a version"):
            call(store)

    artifact.activate(store, version.name)

    assert (store / "CURRENT").read_text() == f"{version.name}\n"


def test_a_rollback_that_cannot_be_finished_changes_nothing(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (artifact.publish(store, MODEL, PROVENANCE) for _ in range(2))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(step, fail)
            with pytest.raises(UserError, match="No space left on device"):
                artifact.rollback(store)
        assert artifact.current_version(store) == second
        assert list(store.glob(".tmp-*")) == []

    assert artifact.rollback(store) == first


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_a_store_without_models_says_what_to_do(tmp_path: Path, folder: str) -> None:
    store = tmp_path / folder

    assert artifact.current_version(store) is None
    assert artifact.list_versions(store) == []
    with pytest.raises(UserError, match="holds no current model"):
        artifact.load(store)


@pytest.mark.parametrize(
    "name", ["..", "../models", "/etc", "", ".", "CURRENT", "20261122T231501Z-3fa9c1d2/../x", "a\0b"]
)
def test_a_version_that_is_no_versions_name_never_becomes_a_path(store: Path, version: Path, name: str) -> None:
    for call in (artifact.load, artifact.activate):
        with pytest.raises(UserError, match="is not the name of a version"):
            call(store, name)
    (store / "CURRENT").write_text(name + "\n")
    with pytest.raises(UserError, match=r"CURRENT: .* is not the name of a version"):
        artifact.load(store)
    assert [summary.current for summary in artifact.list_versions(store)] == [False]


def test_a_version_that_is_not_there_is_named(store: Path, version: Path) -> None:
    gone = "20200101T000000Z-00000000"
    (store / "CURRENT").write_text(f"{gone}\n")

    with pytest.raises(UserError, match=f"{gone}: there is no such version"):
        artifact.load(store)
    with pytest.raises(UserError, match=f"{gone}: there is no such version"):
        artifact.activate(store, gone)


def test_links_in_the_store_are_refused(store: Path, version: Path, tmp_path: Path) -> None:
    (store / "CURRENT").rename(tmp_path / "CURRENT")
    (store / "CURRENT").symlink_to(tmp_path / "CURRENT")
    with pytest.raises(UserError, match="CURRENT: is a symbolic link"):
        artifact.load(store)

    version.rename(tmp_path / version.name)
    version.symlink_to(tmp_path / version.name)
    with pytest.raises(UserError, match=f"{version.name}: is a symbolic link"):
        artifact.load(store, version.name)


def test_foreign_folders_are_listed_as_damaged_and_foreign_files_left_out(store: Path, version: Path) -> None:
    (store / "notes").mkdir()
    (store / "notes.txt").write_text("x")

    listed = {summary.version: summary.damage for summary in artifact.list_versions(store)}

    assert listed.keys() == {version.name, "notes"}
    assert listed[version.name] is None
    assert "'notes' is not the name of a version" in (listed["notes"] or "")
