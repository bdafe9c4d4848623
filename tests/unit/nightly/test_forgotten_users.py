"""Who was forgotten is trained on never again, and leaves the live model in the very next night."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shared import artifact, forgotten
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError
from shared.events import Event
from shared.state import UserState, open_state
from trainer.dataset import load_dataset
from trainer.nightly import fault, tombstones
from trainer.nightly.job import Night
from trainer.nightly.outcome import EndedError, Outcome
from trainer.nightly.places import Places
from trainer.nightly.settings import NightlySettings

TRAINED = datetime(2026, 1, 1, tzinfo=UTC)
USERS = ["ann", "bob", "cyd"]


class Killed(BaseException):
    """As a SIGKILL: nothing after it is done."""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A shop whose live model knows all of its users, from before any of them was forgotten."""
    base, store = tmp_path / "base", tmp_path / "models"
    base.mkdir()
    rows = "".join(f"{user},i{row}\n" for user in USERS for row in range(3))
    (base / "interactions.csv").write_text(f"user_id,item_id\n{rows}")
    dice = np.random.default_rng(0)
    parts = {name: dice.normal(size=(3, 2)) for name in ("id", "image")}
    model = StudentModel(
        user_ids=USERS,
        item_ids=["i0", "i1", "i2"],
        user_embeddings=parts["id"] + parts["image"],
        item_embeddings=dice.normal(size=(3, 2)),
        train_indptr=np.array([0, 1, 3, 6]),
        train_indices=np.array([0, 0, 1, 0, 1, 2]),
        items=[{"title": f"title {row}"} for row in range(3)],
        user_parts=parts,
        attachments={forgotten.ATTACHMENT: forgotten.attachment(TRAINED, trained=TRAINED), "other.bin": b"kept"},
    )
    info = DatasetInfo(name="d", fingerprint="d", users=3, items=3, interactions=6, split=Split(kind="given"))
    artifact.publish(store, model, Provenance(info, {}, 0, {"test.ndcg@20": 0.2}))
    return Places(base, store, tmp_path / "log")


@pytest.fixture
def forget(places: Places) -> Callable[..., None]:
    def forgotten_now(*users: str) -> None:
        with opened(places) as state:
            for user in users:
                state.forget(user)

    return forgotten_now


def opened(places: Places) -> UserState:
    return open_state(None, places.store / ".state")


def night(places: Places) -> Night:
    return Night(places, NightlySettings(), partial(opened, places), {"view": 1.0})


def trained_on(tonight: Night) -> list[str]:
    """Whose the night's interactions are."""
    data = load_dataset(tonight.journal.folder / "dataset")
    return sorted(data.user_ids[user] for user in data.users)


def a_year_goes_by(places: Places) -> None:
    """Redis lets go of its tombstones."""
    with opened(places) as state:
        state._client.delete(*state._client.keys("mts4mm:forgotten*"))
        assert list(state.forgotten()) == []


def test_who_was_forgotten_is_not_trained_on_when_redis_knows_it_no_more(
    places: Places, forget: Callable[..., None]
) -> None:
    forget("ann", "dan")
    night(places).run()
    a_year_goes_by(places)
    with opened(places) as state:
        came = [("old", "dan", TRAINED), ("back", "ann", datetime.now(UTC))]
        state.record(
            [Event(event_id=id_, user_id=user, item_id="i0", type="view", timestamp=at) for id_, user, at in came]
        )
    later = night(places)
    later.run()
    assert trained_on(later) == ["ann", "bob", "bob", "bob", "cyd", "cyd", "cyd"], (
        "of ann what she did when she was back"
    )
    assert "ann" not in (places.own / tombstones.FILE).read_text()


def test_a_damaged_list_of_forgotten_users_ends_the_night_before_it_trains(places: Places) -> None:
    places.own.mkdir(parents=True)
    (places.own / tombstones.FILE).write_text("[")
    with pytest.raises(UserError, match=r"forgotten.json: cannot be read .* restore it"):
        night(places).run()


def test_who_was_forgotten_leaves_the_live_model_in_a_night_with_nothing_new_and_nobody_else_does(
    places: Places, forget: Callable[..., None]
) -> None:
    before = artifact.load(places.store)
    forget("bob", "stranger")
    forgot = datetime.now(UTC)

    ended = night(places).run()

    live = artifact.load(places.store)
    assert ended.outcome == Outcome.NOTHING_NEW
    assert ended.reason.endswith("users forgotten since its training left the live model: 1")
    assert list(live.users) == ["ann", "cyd"]
    assert [live.seen(row).tolist() for row in range(2)] == [[0], [0, 1, 2]]
    assert live.popularity.tolist() == [2, 1, 1]
    assert np.array_equal(live.user_embeddings, before.user_embeddings[[0, 2]])
    assert np.array_equal(live.item_embeddings, before.item_embeddings)
    assert before.parts is not None
    assert live.parts is not None
    assert np.array_equal(live.parts.users, before.parts.users[:, [0, 2]])
    assert [live.item_metadata(row) for row in range(3)] == [{"title": f"title {row}"} for row in range(3)]
    kept = live.attachment("other.bin")
    assert kept is not None
    assert kept.read_bytes() == b"kept"
    assert live.manifest.metrics == before.manifest.metrics
    assert (live.manifest.dataset.users, live.manifest.dataset.interactions) == (2, 4)
    until = forgotten.forgotten_until(live)
    assert until is not None
    assert until >= forgot
    assert forgotten.trained_until(live) == TRAINED, "what came since is not in it"
    again = night(places).run()
    assert "left the live model" not in again.reason
    assert artifact.current_version(places.store) == live.manifest.version


def test_a_refused_night_lets_forgotten_users_leave_too_and_a_dry_run_does_not(
    places: Places, forget: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Night) -> None:
        raise EndedError(Outcome.REFUSED, "it is worse")

    monkeypatch.setattr(Night, "_validate", refused)
    champion = artifact.current_version(places.store)
    forget("bob")
    settings = NightlySettings().model_copy(update={"least_new": 0})
    for dry_run in (True, False):
        ended = Night(places, settings, partial(opened, places), {"view": 1.0}, dry_run=dry_run).run()
        assert ended.outcome == Outcome.REFUSED
        assert (artifact.current_version(places.store) == champion) == dry_run
    assert list(artifact.load(places.store).users) == ["ann", "cyd"]


@pytest.mark.parametrize("point", ["forget:begin", "activate:noted", "activate:switched", "forget:end", "report:begin"])
def test_killed_while_users_leave_a_night_ends_as_if_nothing_had_been(
    places: Places, forget: Callable[..., None], point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    forget("bob")
    with monkeypatch.context() as dying:
        dying.setattr(fault, "point", die)
        with pytest.raises(Killed):
            night(places).run()
    ended = night(places).run()
    assert ended.outcome == Outcome.NOTHING_NEW
    assert "left the live model: 1" in ended.reason
    assert list(artifact.load(places.store).users) == ["ann", "cyd"]
    assert len(artifact.list_versions(places.store)) == 2


def test_a_model_of_which_everybody_was_forgotten_stays(places: Places, forget: Callable[..., None]) -> None:
    champion = artifact.current_version(places.store)
    with (places.base / "interactions.csv").open("a") as file:
        file.write("".join(f"dan,i{row}\n" for row in range(3)))
    forget(*USERS)
    assert night(places).run().outcome == Outcome.NOTHING_NEW
    assert artifact.current_version(places.store) == champion
