"""Nights over a real store, a real Redis and real processes: how they end, and what a kill -9 does to them."""

import json
import re
import shutil
import signal
import threading
import time
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from service.live_model import LiveModel, SwapResult
from shared import artifact
from shared.errors import ExitCode
from shared.events import Event
from shared.item_tower import load_item_tower
from shared.state import open_state
from tests.e2e.faulty_service import faulty_service
from tests.e2e.nights import SETTINGS, Shop, night, opened_shop, send, settings_file
from tests.integration.test_service_process import service
from trainer.dataset import load_dataset
from trainer.item_tower import SCALES
from trainer.nightly.event_log import EventLog
from trainer.nightly.outcome import Outcome
from trainer.warm_start import WarmStart

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
    "activate:noted",
    "activate:switched",
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
    return json.loads(max((store / ".nightly" / "reports").glob("*.json")).read_text())


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
    of_the_last_night = [(store / ".nightly" / name).read_text() for name in ("status.json", "metrics.prom")]
    assert night(opened.shop.base, store, opened.settings, dry_run=True) == Outcome.PROMOTED
    assert versions(store) == [live]
    assert [(store / ".nightly" / name).read_text() for name in ("status.json", "metrics.prom")] == of_the_last_night
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
        for n in range(12_000)
    ]
    for start in range(0, 12_000, 1000):
        send(store, poison[start : start + 1000])
    assert night(opened.shop.base, store, opened.settings) == Outcome.REFUSED
    assert artifact.current_version(store) == live
    assert versions(store) == [live]
    found = report(store)
    assert found["outcome"] == "refused"
    assert any("NDCG@20" in reason for reason in found["reasons"])


def test_what_is_older_than_the_window_is_not_missed(opened: Opened, tmp_path: Path) -> None:
    store = opened.copy(tmp_path)
    send(store, opened.shop.later)
    times = sorted(load_dataset(opened.shop.base).timestamps.tolist())
    days = (opened.shop.later[-1].timestamp.timestamp() - times[len(times) // 5]) / 86_400
    night(opened.shop.base, store, settings_file(tmp_path, events={"window_days": days}), dry_run=True)
    found = report(store)
    assert found["data"]["left_out"]["outside_window"] >= len(times) // 5
    (kept,) = [check for check in found["gate"]["checks"] if check["name"] == "interactions kept"]
    assert kept["value"] == 1
    assert kept["passed"]


def test_forgotten_users_are_in_no_log_and_no_model_but_for_what_they_did_after_they_came_back(
    opened: Opened, tmp_path: Path
) -> None:
    store = opened.copy(tmp_path)
    send(store, opened.shop.later)
    gone, back = sorted({event.user_id for event in opened.shop.later})[:2]
    with open_state(None, store / ".state") as state:
        for user in (gone, back):
            state.forget(user)
    returned = [
        event.model_copy(update={"user_id": back, "event_id": f"back-{n}", "timestamp": datetime.now(UTC)})
        for n, event in enumerate(opened.shop.later[:6])
    ]
    send(store, returned)
    assert night(opened.shop.base, store, opened.settings) == Outcome.PROMOTED
    live = artifact.load(store)
    assert live.users.dense(gone) is None
    assert {event.item_id for event in returned} == {live.items.outside(i) for i in live.seen(live.users.dense(back))}
    kept = EventLog(store / ".events").read()
    assert gone not in kept["user_id"].to_list()
    assert len(kept.filter(kept["user_id"] == back)) == len(returned)
    with service(store, tmp_path / "log") as running:
        answered = httpx.post(f"{running.url}/recommend", json={"user_id": back, "k": 5}).raise_for_status().json()
    assert (answered["strategy"], answered["reason"]) == ("personal", "trained")
    with open_state(None, store / ".state") as state:
        state.forget(back)
    assert night(opened.shop.base, store, opened.settings) == Outcome.NOTHING_NEW
    without = artifact.load(store)
    assert set(live.users) - set(without.users) == {back}
    warm = WarmStart.load(store / ".nightly" / "warm" / f"{without.manifest.version}.pt")
    assert set(warm.user_ids) == set(without.users)
    served = LiveModel(store, poll_seconds=1.0)
    served.refresh()
    assert served.engine is not None


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


def wait_until_it_answers_with(version: str | None, url: str) -> None:
    """A service may take a moment to see that CURRENT has changed."""
    deadline = time.monotonic() + 20
    while httpx.get(f"{url}/health").json()["model_version"] != version:
        assert time.monotonic() < deadline, f"the service does not come back to {version}"
        time.sleep(0.1)


def test_a_service_that_gets_worse_after_the_activation_brings_the_champion_back(
    opened: Opened, tmp_path: Path
) -> None:
    """A real service that fails every fourth answer with any model but the champion, as one that outgrew it might."""
    settings = settings_file(tmp_path, watch_seconds=20)
    store = opened.copy(tmp_path)
    live = artifact.current_version(store)
    send(store, opened.shop.later)
    with faulty_service(store, live, tmp_path / "log") as running:
        ended = night(opened.shop.base, store, settings, service=running.url)
        wait_until_it_answers_with(live, running.url)
    assert ended == Outcome.ROLLED_BACK
    assert artifact.current_version(store) == live
    said = report(store)
    assert said["outcome"] == "rolled_back"
    assert re.search(r"% of the requests fail since the activation, before it 0.0% did", said["reason"])
    assert f"{live} is live again" in said["reason"]
    assert "rolled back" in (store / ".nightly" / "reports" / f"{said['night']}.html").read_text()
    assert 'outcome="rolled_back"} 1' in (store / ".nightly" / "metrics.prom").read_text()


@pytest.mark.parametrize(
    ("budget", "said"),
    [({"minutes": 0.0001}, "the night took longer than its 0.0001 minutes"), ({"memory_mb": 20}, "the budget is 20")],
)
def test_a_night_over_its_budget_ends_says_so_and_leaves_the_champion(
    opened: Opened, tmp_path: Path, budget: dict[str, float], said: str
) -> None:
    store = opened.copy(tmp_path)
    live = artifact.current_version(store)
    send(store, opened.shop.later[:3])
    assert night(opened.shop.base, store, settings_file(tmp_path, **budget)) == ExitCode.BAD_INPUT
    status = json.loads((store / ".nightly" / "status.json").read_text())
    assert status["outcome"] == "failed"
    assert said in status["reason"]
    assert versions(store) == [live]
    assert night(opened.shop.base, store, opened.settings) == Outcome.NOTHING_NEW
    assert len(EventLog(store / ".events").read()) == 3


def test_training_stops_in_time_to_be_judged(opened: Opened, tmp_path: Path) -> None:
    """With epochs for hours and a budget of seconds there is a verdict all the same."""
    store = opened.copy(tmp_path)
    send(store, opened.shop.later)
    long = SETTINGS["train"] | {"set": ["epochs=5000", "patience=5000"], "warm_epochs": 5000}
    ended = night(opened.shop.base, store, settings_file(tmp_path, train=long, minutes=0.5))
    assert ended in (Outcome.PROMOTED, Outcome.REFUSED)
    assert 0 < report(store)["training"]["epochs"] < 5000
    assert report(store)["gate"]["verdict"] in ("promoted", "refused", "undecided")


def test_an_item_that_was_put_is_trained_on_by_its_words_and_picture_and_keeps_its_picture(
    opened: Opened, tmp_path: Path
) -> None:
    store, catalogue = opened.copy(tmp_path), load_dataset(opened.shop.base)
    twin = next(row for row, record in enumerate(catalogue.catalogue) if record["image"] and record["description"])
    like = catalogue.catalogue[twin]
    picture = (opened.shop.base / like["image"]).read_bytes()
    put = {
        "metadata": {name: like[name] for name in ("title", "description")},
        "image": b64encode(picture).decode(),
    }
    settings = settings_file(tmp_path, least_new=1)
    half = len(opened.shop.later) // 2
    with service(store, tmp_path / "log") as running:
        httpx.put(f"{running.url}/items/twin", json=put).raise_for_status()
        shown = httpx.get(f"{running.url}/items/twin/image").raise_for_status().content
        send(store, opened.shop.later[:half])
        assert night(opened.shop.base, store, settings, service=running.url) == Outcome.PROMOTED
        first = report(store)
        send(store, opened.shop.later[half:])
        assert night(opened.shop.base, store, settings, service=running.url) == Outcome.PROMOTED
        with open_state(None, store / ".state") as state:
            assert list(state.live_items.changes()) == []
        kept = httpx.get(f"{running.url}/items/twin/image").raise_for_status().content
        asked = {"user_id": opened.shop.later[0].user_id, "k": 500}
        answered = httpx.post(f"{running.url}/recommend", json=asked).raise_for_status().json()["items"]
    assert kept == shown
    (of_twin,) = [item for item in answered if item["item_id"] == "twin"]
    assert of_twin["reason"] != "cold_item"
    assert first["data"]["new_items"] == 1
    tonight = load_dataset(store / ".nightly" / "runs" / report(store)["night"] / "dataset")
    row = tonight.item_ids.index("twin")
    for name, modality in tonight.modalities.items():
        assert modality.present[row]
        other = tonight.item_ids.index(like["item_id"])
        assert modality.features[row] == pytest.approx(modality.features[other], abs=0.05), name


def test_the_item_tower_is_as_long_as_the_validation_bears(opened: Opened) -> None:
    tower = load_item_tower(artifact.load(opened.store))
    assert tower is not None
    assert tower.description.scale in SCALES, "without validation interactions it is 1, which is none of them"
