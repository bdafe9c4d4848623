"""Nights over a real store, a real Redis and real processes: how they end, and what a kill -9 does to them."""

import json
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from service.live_model import LiveModel, SwapResult
from shared import artifact
from shared.events import Event
from tests.e2e.nights import Shop, night, opened_shop, send, settings_file
from trainer.nightly.event_log import EventLog
from trainer.nightly.outcome import Outcome

pytestmark = pytest.mark.slow

POINTS = [
    "log:written",
    "log:committed",
    "drain:end",
    "snapshot:end",
    "validate:end",
    "train:begin",
    "train:end",
    "gate:end",
    "publish:begin",
    "publish:end",
    "activate:begin",
    "activate:end",
    "confirm:end",
    "watch:end",
    "prune:end",
    "report:begin",
    "report:end",
]


@dataclass(frozen=True)
class Opened:
    """A shop after its first night: a store with the model of the base."""

    shop: Shop
    store: Path
    settings: Path

    def copy(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.store, folder / "models"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp("n")
    shop, settings = opened_shop(folder), settings_file(folder)
    assert night(shop.base, folder / "models", settings) == Outcome.PROMOTED
    return Opened(shop, folder / "models", settings)


def report(store: Path) -> dict:
    status = json.loads((store / ".nightly" / "status.json").read_text())
    return json.loads((store / ".nightly" / status["report"]).read_text())


def versions(store: Path) -> list[str]:
    return [entry.version for entry in artifact.list_versions(store)]


def test_killed_in_every_step_a_night_ends_as_if_nothing_had_been(opened: Opened, tmp_path: Path) -> None:
    calm, killed = opened.copy(tmp_path / "calm"), opened.copy(tmp_path / "killed")
    for store in (calm, killed):
        send(store, opened.shop.later)
    assert night(opened.shop.base, calm, opened.settings) == Outcome.PROMOTED

    swaps: list[SwapResult] = []
    service = LiveModel(killed, poll_seconds=0.01, on_swap=swaps.append)
    service.refresh()
    service.start()
    for point in POINTS:
        ended = night(opened.shop.base, killed, opened.settings, fault=point)
        assert ended == -signal.SIGKILL, f"{point}: {ended}"
    assert night(opened.shop.base, killed, opened.settings) == Outcome.PROMOTED
    service.refresh()
    service.stop()

    one, other = artifact.load(calm), artifact.load(killed)
    for name in ("user_embeddings", "item_embeddings", "train_indptr", "train_indices", "fold_in"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert list(one.users) == list(other.users)
    assert one.manifest.metrics == other.manifest.metrics
    assert EventLog(calm / ".events").read().equals(EventLog(killed / ".events").read())
    assert len(versions(calm)) == len(versions(killed)) == 2
    first, second = (artifact.activations(store) for store in (calm, killed))
    assert first[1] == second[1]
    assert not list(killed.glob(".tmp-*"))
    assert [(swap.outcome, swap.after) for swap in swaps] == [("swapped", first[1]), ("swapped", second[0])]
    assert {name: report(calm)["gate"][name] for name in ("figures", "verdict")} == {
        name: report(killed)["gate"][name] for name in ("figures", "verdict")
    }


def test_what_users_did_is_in_the_next_model(opened: Opened, tmp_path: Path) -> None:
    store = opened.copy(tmp_path)
    stranger = [
        event.model_copy(update={"user_id": "stranger", "event_id": f"s{n}"})
        for n, event in enumerate(opened.shop.later[:8])
    ]
    disliked = opened.shop.later[10].model_copy(
        update={"type": "dislike", "event_id": "d", "timestamp": opened.shop.later[-1].timestamp}
    )
    send(store, [*opened.shop.later, *stranger, disliked])
    assert night(opened.shop.base, store, opened.settings) == Outcome.PROMOTED
    live, seen = artifact.load(store), {}
    for user in live.users:
        seen[user] = {live.items.outside(item) for item in live.seen(live.users.dense(user))}
    assert {event.item_id for event in stranger} == seen["stranger"]
    for event in opened.shop.later:
        if (event.user_id, event.item_id) != (disliked.user_id, disliked.item_id):
            assert event.item_id in seen[event.user_id]
    assert disliked.item_id not in seen[disliked.user_id]
    assert live.manifest.gate["verdict"] == "promoted"
    assert live.manifest.gate["night"]["warm_from"] == artifact.activations(store)[1]
    page = (store / ".nightly" / report(store)["night"]).parent / "reports" / f"{report(store)['night']}.html"
    html = page.read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert html.count("<svg") == 3
    sample = report(store)["samples"][0]
    assert set(sample["teachers"]) == {"id", "image", "text", "linear"}
    for entry in sample["student"]:
        for teacher in entry["also"]:
            assert 0 < sample["shares"][teacher] <= 1
    metrics = (store / ".nightly" / "metrics.prom").read_text()
    assert 'mts4mm_nightly_outcome{outcome="promoted"} 1' in metrics
    assert night(opened.shop.base, store, opened.settings) == Outcome.NOTHING_NEW
    assert versions(store) == versions(store)[:2]


def test_a_poisoned_log_is_refused_and_a_dry_run_publishes_nothing(opened: Opened, tmp_path: Path) -> None:
    store = opened.copy(tmp_path)
    live = artifact.current_version(store)
    send(store, opened.shop.later)
    assert night(opened.shop.base, store, opened.settings, dry_run=True) == Outcome.PROMOTED
    assert versions(store) == [live]
    rng = np.random.default_rng(0)
    items, users = artifact.load(store).items, artifact.load(store).users
    newest = opened.shop.later[0].timestamp
    poison = [
        Event(
            event_id=f"p{n}",
            user_id=users.outside(int(rng.integers(len(users)))),
            item_id=items.outside(int(rng.integers(len(items)))),
            type="purchase",
            timestamp=newest,
        )
        for n in range(6000)
    ]
    for start in range(0, 6000, 1000):
        send(store, poison[start : start + 1000])
    assert night(opened.shop.base, store, opened.settings) == Outcome.REFUSED
    assert artifact.current_version(store) == live
    assert versions(store) == [live]
    found = report(store)
    assert found["outcome"] == "refused"
    assert any("NDCG@20" in reason for reason in found["reasons"])


def test_forgotten_users_are_in_no_log_and_no_model(opened: Opened, tmp_path: Path) -> None:
    from shared.state import open_state

    store = opened.copy(tmp_path)
    send(store, opened.shop.later)
    gone = opened.shop.later[0].user_id
    with open_state(None, store / ".state") as state:
        state.forget(gone)
    assert night(opened.shop.base, store, opened.settings) == Outcome.PROMOTED
    assert artifact.load(store).users.dense(gone) is None
    assert gone not in EventLog(store / ".events").read()["user_id"].to_list()


def test_only_one_night_at_a_time(opened: Opened, tmp_path: Path) -> None:
    store = opened.copy(tmp_path)
    send(store, opened.shop.later)
    ends: list[int] = []
    threads = [
        threading.Thread(target=lambda: ends.append(night(opened.shop.base, store, opened.settings))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) in ([Outcome.PROMOTED, Outcome.BUSY], [Outcome.PROMOTED, Outcome.NOTHING_NEW])


def test_a_service_that_does_not_take_the_new_model_brings_the_champion_back(opened: Opened, tmp_path: Path) -> None:
    """The service follows another folder, so that it never answers with the night's version."""
    from tests.integration.test_service_process import service

    settings = settings_file(tmp_path, confirm_seconds=1)
    store, elsewhere = opened.copy(tmp_path), opened.copy(tmp_path / "elsewhere")
    live = artifact.current_version(store)
    send(store, opened.shop.later)
    with service(elsewhere, tmp_path / "log") as running:
        ended = night(opened.shop.base, store, settings, service=running.url)
    assert ended == Outcome.ROLLED_BACK
    assert artifact.current_version(store) == live
    assert len(versions(store)) == 2
    assert report(store)["outcome"] == "rolled_back"
    assert f"still answers with {live}" in report(store)["reason"]
