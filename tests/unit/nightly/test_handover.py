"""The new model takes over from the champion that it was judged against, and from no other."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shared import artifact, forgotten
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from shared.errors import UserError
from shared.object_store import ObjectStore
from shared.state import LiveItem, UserState, open_state
from trainer.nightly import fault
from trainer.nightly.handover import Handover
from trainer.nightly.job import Night
from trainer.nightly.journal import Journal
from trainer.nightly.outcome import EndedError, Outcome
from trainer.nightly.places import Places
from trainer.nightly.service_watch import Service
from trainer.nightly.settings import NightlySettings


def published(store: Path, seed: int, *, activate: bool = True, until: datetime | None = None) -> str:
    dice = np.random.default_rng(seed)
    model = StudentModel(
        user_ids=["u", "v"],
        item_ids=["i", "j", "k"],
        user_embeddings=dice.normal(size=(2, 4)),
        item_embeddings=dice.normal(size=(3, 4)),
        train_indptr=np.array([0, 1, 2]),
        train_indices=np.array([0, 1]),
        attachments={} if until is None else {forgotten.ATTACHMENT: forgotten.attachment(until, trained=until)},
    )
    known = DatasetInfo(name="d", fingerprint="d", users=2, items=3, interactions=2, split=Split(kind="given"))
    return artifact.publish(store, model, Provenance(known, {}, seed, {}), activate=activate)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


def handover(store: Path, champion: str, models_url: str | None = None) -> Handover:
    places = Places(store.parent / "shop", store, store / ".events", models_url=models_url)
    journal = Journal.begin(store / ".nightly" / "runs", {"champion": champion})
    return Handover(
        places, NightlySettings(), lambda: open_state(None, store / ".state"), Service("http://127.0.0.1:9"), journal
    )


class Killed(BaseException):
    """As a SIGKILL: nothing after it is done."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    def kill_at(wanted: str | None) -> None:
        def point(name: str) -> None:
            if name == wanted:
                raise Killed

        monkeypatch.setattr(fault, "point", point)

    return kill_at


def again(night: Handover) -> Handover:
    """The night as the next command takes it up."""
    if night.places.models_url is not None:
        ObjectStore(night.places.models_url, night.places.store).pull()
    return replace(night, journal=Journal.read(night.journal.folder))


def test_a_night_whose_redis_is_away_is_live_all_the_same(store: Path) -> None:
    night = replace(handover(store, published(store, 1)), open_state=lambda: open_state("redis://127.0.0.1:9/0", None))
    version = published(store, 2, activate=False)
    night.journal.step("activate", lambda: night.activate(version))
    assert artifact.current_version(store) == version


AROUND_THE_SWITCH = ["activate:noted", "activate:switched", "activate:end", "confirm:begin"]
"""The last is only come to: the step is noted as done."""


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("point", AROUND_THE_SWITCH)
def test_killed_around_the_switch_it_ends_as_if_nothing_had_been(
    store: Path, kill_at: Callable[[str | None], None], point: str, bucket: bool
) -> None:
    url = f"file://{store.parent}/bucket" if bucket else None
    night, version = killed_at(point, store, kill_at, url)

    night = again(night)
    night.require_not_rolled_back()
    night.journal.step("activate", lambda: night.activate(version))

    assert artifact.activations(store) == [version, night.journal.identity["champion"]]
    assert url is None or ObjectStore(url, store.parent / "elsewhere").pull() == version


@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("point", AROUND_THE_SWITCH[1:])
def test_a_champion_that_somebody_went_back_to_before_the_night_is_gone_on_with_stays(
    store: Path, kill_at: Callable[[str | None], None], point: str, bucket: bool
) -> None:
    url = f"file://{store.parent}/bucket" if bucket else None
    night, version = killed_at(point, store, kill_at, url)
    artifact.rollback(store)
    if url is not None:
        ObjectStore(url, store).push()

    night = again(night)
    for work in (night.require_not_rolled_back, lambda: night.activate(version)):
        with pytest.raises(EndedError, match="is live again, and stays") as ended:
            work()
        assert ended.value.outcome == Outcome.ROLLED_BACK
    assert artifact.activations(store) == [night.journal.identity["champion"]]


def killed_at(point: str, store: Path, kill_at: Callable[[str | None], None], url: str | None) -> tuple[Handover, str]:
    champion = published(store, 1)
    if url is not None:
        ObjectStore(url, store).push()
    night = handover(store, champion, url)
    version = published(store, 2, activate=False)
    kill_at(point)
    with suppress(Killed):
        night.journal.step("activate", lambda: night.activate(version))
    kill_at(None)
    return night, version


def test_a_model_that_somebody_made_live_meanwhile_stays(store: Path) -> None:
    before, champion = published(store, 1), published(store, 2)
    night = handover(store, champion)
    version = published(store, 3, activate=False)
    artifact.rollback(store)

    with pytest.raises(EndedError, match=f"{before} was made live while the night went on") as ended:
        night.activate(version)

    assert ended.value.outcome == Outcome.REFUSED
    assert artifact.current_version(store) == before


def test_a_model_that_somebody_made_live_in_the_object_store_meanwhile_stays(store: Path) -> None:
    url, elsewhere = f"file://{store.parent}/bucket", store.parent / "elsewhere"
    before, champion = published(store, 1), published(store, 2)
    ObjectStore(url, store).push()
    night = handover(store, champion, url)
    version = published(store, 3, activate=False)
    ObjectStore(url, elsewhere).pull()
    artifact.rollback(elsewhere)
    ObjectStore(url, elsewhere).push()

    with pytest.raises(EndedError, match=f"{before} was made live while the night went on") as ended:
        night.activate(version)

    assert ended.value.outcome == Outcome.REFUSED
    assert ObjectStore(url, elsewhere).pull() == before


def test_a_night_that_was_killed_before_it_told_the_object_store_activates_again(store: Path) -> None:
    url = f"file://{store.parent}/bucket"
    champion = published(store, 1)
    ObjectStore(url, store).push()
    night = handover(store, champion, url)
    version = published(store, 2, activate=False)
    artifact.activate(store, version)
    night.activate(version)
    assert ObjectStore(url, store.parent / "elsewhere").pull() == version
    assert artifact.activations(store) == [version, champion]


def test_a_version_that_is_active_already_is_activated_again(store: Path) -> None:
    champion = published(store, 1)
    night = handover(store, champion)
    version = published(store, 2, activate=False)
    for _ in range(2):
        night.activate(version)
    assert artifact.activations(store) == [version, champion]


@pytest.fixture
def state(store: Path) -> Iterator[UserState]:
    with open_state(None, store / ".state") as state:
        yield state


BEFORE, AFTER = timedelta(microseconds=-1), timedelta()


@pytest.mark.parametrize(
    ("champion_until", "until", "stays"),
    [(AFTER, AFTER, False), (BEFORE, AFTER, True), (AFTER, BEFORE, True), (None, AFTER, True), (AFTER, None, True)],
)
def test_a_put_that_the_live_model_and_the_one_before_were_made_with_is_let_go_of_with_no_service_to_ask(
    store: Path, state: UserState, champion_until: timedelta | None, until: timedelta | None, stays: bool
) -> None:
    put = state.live_items.put(LiveItem("i", {"price": 99.0}))
    for seed, after in enumerate([champion_until, until]):
        published(store, seed, until=None if after is None else put + after)
    (store.parent / "shop").mkdir()
    (store.parent / "shop" / "interactions.csv").write_text("user_id,item_id\nu,i\n")
    places = Places(store.parent / "shop", store, store / ".events")
    night = Night(places, NightlySettings(), lambda: open_state(None, store / ".state"), {"view": 1.0})
    night._steps()["prune"]()
    assert list(state.live_items.changes()) == (["i"] if stays else [])


def test_a_put_that_no_model_knows_stays(store: Path, state: UserState) -> None:
    until = state.live_items.put(LiveItem("new", {}))
    champion = published(store, 1, until=until)
    published(store, 2, until=until)
    assert handover(store, champion).let_go_of_live_items() == 0
    assert list(state.live_items.changes()) == ["new"]


def test_a_new_price_outlives_a_rollback(store: Path, state: UserState, monkeypatch: pytest.MonkeyPatch) -> None:
    put = state.live_items.put(LiveItem("i", {"price": 99.0}))
    night = handover(store, published(store, 1, until=put + BEFORE))
    version = published(store, 2, activate=False, until=put + AFTER)
    monkeypatch.setattr(Service, "confirm", lambda *_: True)
    monkeypatch.setattr(Service, "watch", lambda *_: "9% of the requests fail")
    for step in (night.activate, night.confirm):
        night.journal.step(step.__name__, partial(step, version))
    with pytest.raises(EndedError, match="9% of the requests fail"):
        night.watch(version)
    assert list(state.live_items.changes()) == ["i"]


def test_live_items_that_redis_cannot_be_told_of_stay_and_end_no_night(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def away() -> UserState:
        raise UserError("Redis is away")

    now = datetime.now(UTC)
    night = replace(handover(store, published(store, 1, until=now)), open_state=away)
    published(store, 2, until=now)
    assert night.let_go_of_live_items() == 0
    assert "live items stay in Redis: Redis is away" in caplog.text


def test_what_is_live_is_named_when_it_is_not_the_champion(store: Path) -> None:
    before, champion = published(store, 1), published(store, 2)
    night = handover(store, champion)
    version = published(store, 3, activate=False)
    night.journal.step("activate", lambda: night.activate(version))
    artifact.activate(store, before)

    with pytest.raises(EndedError, match=f"{version} is not the current version any more, and {before} is live$"):
        night.watch(version)

    assert artifact.current_version(store) == before
