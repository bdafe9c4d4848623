"""Users' events, forgotten users, retired items and models over HTTP: what one request changes, the next one shows."""

import errno
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from service import last_known
from service.app import create_app
from service.client import Client, ServiceError
from service.schemas import BatchRequest, RecommendRequest
from service.settings import Settings
from shared import artifact
from shared.events import Event
from shared.forgotten import ATTACHMENT, attachment
from tests.integration.redis_server import Server, wait_until
from tests.unit.service.conftest import ITEM_IDS, SEEN, publish
from tests.unit.service.test_api import problem

NOW = datetime.now(UTC)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def stateless(models: Path) -> Iterator[TestClient]:
    """A service whose Redis is not there."""
    settings = Settings(models=models, redis_url="redis://127.0.0.1:9/0")  # type: ignore[arg-type]
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def event(user_id: str, item_id: str, type_: str = "purchase", at: datetime = NOW) -> Event:
    ids = {"event_id": f"{user_id} {item_id} {type_}", "user_id": user_id, "item_id": item_id}
    return Event.model_validate(ids | {"type": type_, "timestamp": at})


def recommended(shop: Client, user_id: str, **more: Any) -> list[str]:
    return [item.item_id for item in shop.recommend(RecommendRequest(user_id=user_id, **more)).items]


# Events


def test_an_event_counts_in_the_very_next_answer(shop: Client) -> None:
    assert recommended(shop, "ann") == ["hat", "sock", "42", "pen"]

    shop.record_events([event("ann", "hat"), event("new", "pen"), event("new", "not in the model")])

    known = shop.recommend(RecommendRequest(user_id="ann"))
    assert (known.strategy, known.reason, known.degraded) == ("personal", "trained_and_new_events", False)
    assert [item.item_id for item in known.items] == [
        item.item_id for item in shop.recommend(RecommendRequest(user_id="ann", history=["hat"])).items
    ]
    assert "hat" not in {item.item_id for item in known.items}
    stranger = shop.recommend(RecommendRequest(user_id="new"))
    assert (stranger.strategy, stranger.reason, stranger.unknown_items) == ("history", "folded_in", [])
    assert "pen" not in {item.item_id for item in stranger.items}
    batch = shop.recommend_batch(BatchRequest(user_ids=["new", "ann", "nobody"])).recommendations
    assert [answer.reason for answer in batch] == ["folded_in", "trained_and_new_events", "unknown_user"]
    assert [answer.items for answer in batch[:2]] == [stranger.items, known.items]


def test_a_hidden_item_is_in_no_answer_to_the_user_until_it_is_liked(shop: Client) -> None:
    shop.record_events([event("ann", "hat", "hide"), event("nobody", "mug", "dislike")])

    assert recommended(shop, "ann") == ["sock", "42", "pen"]
    assert "hat" not in recommended(shop, "ann", exclude_seen=False, history=["hat"])
    stranger = shop.recommend(RecommendRequest(user_id="nobody"))
    assert (stranger.reason, stranger.items[0].item_id) == ("unknown_user", "lamp")
    assert recommended(shop, "other")[0] == "mug"
    assert shop.user("ann").hidden == ["hat"]
    shop.record_events([event("ann", "hat", "like", NOW + timedelta(seconds=1))])
    assert "hat" in recommended(shop, "ann", exclude_seen=False)
    assert shop.user("ann").hidden == []


# Users


def test_a_user_is_shown_with_training_and_events(shop: Client) -> None:
    shop.record_events([event("ann", "hat", "view"), event("a/new one?", "pen", "cart")])

    ann, new = shop.user("ann"), shop.user("a/new one?")

    assert (ann.trained, ann.items, ann.hidden) == (True, ["mug", "lamp"], [])
    assert [(kept.item_id, kept.type, kept.timestamp) for kept in ann.recent] == [("hat", "view", NOW)]
    assert (new.trained, new.items, [kept.item_id for kept in new.recent]) == (False, [], ["pen"])
    with pytest.raises(ServiceError, match="404: There is no such user"):
        shop.user("nobody")


def test_a_forgotten_user_is_unknown_everywhere_at_once_and_may_come_back_as_somebody_new(shop: Client) -> None:
    shop.record_events([event("ann", "hat"), event("ann", "pen", "hide")])
    before = datetime.now(UTC)

    forgotten = shop.forget_user("ann")

    assert before <= forgotten.forgotten_at <= datetime.now(UTC)
    with pytest.raises(ServiceError, match="404"):
        shop.user("ann")
    unknown = shop.recommend(RecommendRequest(user_id="nobody"))
    answer = shop.recommend(RecommendRequest(user_id="ann"))
    assert (answer.strategy, answer.reason, answer.items) == ("popular", "unknown_user", unknown.items)
    assert [rejected.pointer for rejected in shop.record_events([event("ann", "42", at=before)]).rejected] == [
        "#/events/0/timestamp"
    ]
    shop.record_events([event("ann", "sock", at=datetime.now(UTC) + timedelta(seconds=1))])
    assert shop.recommend(RecommendRequest(user_id="ann")).reason == "folded_in"
    assert (shop.user("ann").trained, shop.user("ann").items) == (False, [])


def test_forgetting_outlives_redis_and_a_model_that_does_not_know_of_it(models: Path, tmp_path: Path) -> None:
    with Server(tmp_path) as redis:
        settings = Settings(models=models, redis_url=redis.url)  # type: ignore[arg-type]
        with TestClient(create_app(settings)) as http:
            shop = Client("http://testserver", http=http)
            shop.forget_user("ann")
            publish(models)
            http.app.state.live.refresh()  # type: ignore[attr-defined]
            assert shop.recommend(RecommendRequest(user_id="ann")).reason == "unknown_user"

            redis.kill()

            away = shop.recommend(RecommendRequest(user_id="ann"))
            assert (away.reason, away.degraded) == ("unknown_user", True)
            assert shop.recommend(RecommendRequest(user_id="cyd")).reason == "trained"


def test_the_console_knows_no_forgotten_users_and_no_retired_items_also_without_redis(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path) as redis, TestClient(create_app(_with(models, redis))) as http:
        before = artifact.current_version(models)
        shop = Client("http://testserver", http=http)
        shop.forget_user("ann")
        shop.retire_item("mug")
        until = datetime.now(UTC)
        after = publish(models, attachments={ATTACHMENT: attachment(until, trained=until)})
        assert _found(http, "") == ["dan", "cyd", "007"]
        assert _found(http, "a") == []
        assert _compared(http, "ann", before, after) == {before: None, after: ["hat", "sock", "42", "pen"]}
        without_mug = ["pen", "lamp", "sock", "hat", "42"]
        assert _compared(http, "007", before, after) == {before: without_mug, after: without_mug}
        http.app.state.live.refresh()  # type: ignore[attr-defined]
        assert _found(http, "a") == ["ann"], "the model was trained with who came back as somebody new"
        with TestClient(create_app(_with(models, redis))) as other:
            shop_there = Client("http://testserver", http=other)
            shop_there.forget_user("ann")
            shop_there.forget_user("dan")
        assert _found(http, "", limit=1) == ["cyd"]

        redis.kill()

        assert _found(http, "") == ["cyd", "007"]
        assert _compared(http, "ann", before, after) == {before: None, after: None}


def _with(models: Path, redis: Server) -> Settings:
    return Settings(models=models, redis_url=redis.url)  # type: ignore[arg-type]


def _found(http: TestClient, prefix: str, limit: int = 20) -> list[str]:
    found = http.get("/console/api/users", params={"q": prefix, "limit": limit}).json()
    return [user["user_id"] for user in found["users"]]


def _compared(http: TestClient, user_id: str, before: str, after: str) -> dict[str, list[str] | None]:
    asked = {"user_id": user_id, "before": before, "after": after, "k": 6}
    answer = http.get("/console/api/compare", params=asked).json()
    return {
        each["version"]: [item["item_id"] for item in each["items"]] if each["known"] else None
        for each in (answer["before"], answer["after"])
    }


def test_a_process_that_starts_while_redis_is_away_goes_by_what_was_last_known(models: Path, tmp_path: Path) -> None:
    with Server(tmp_path) as redis:
        settings = Settings(models=models, redis_url=redis.url)  # type: ignore[arg-type]
        with TestClient(create_app(settings)) as http:
            shop = Client("http://testserver", http=http)
            shop.forget_user("ann")
            shop.retire_item("hat")
        redis.kill()

        with TestClient(create_app(settings)) as http:
            shop = Client("http://testserver", http=http)
            anonymous, known = RecommendRequest(history=["mug"]), RecommendRequest(user_id="cyd", exclude_seen=False)
            away = [shop.recommend(asked) for asked in (RecommendRequest(user_id="ann"), anonymous, known)]
            assert [answer.reason for answer in away] == ["unknown_user", "folded_in", "trained"]
            assert all(answer.degraded for answer in away)
            assert "hat" not in {item.item_id for answer in away for item in answer.items}

            redis.start()
            wait_until(lambda: not any(shop.recommend(asked).degraded for asked in (anonymous, known)), 30)
            shop.restore_item("hat")
            assert shop.recommend(RecommendRequest(user_id="ann")).reason == "unknown_user"
        redis.kill()

        with TestClient(create_app(settings)) as http:
            assert "hat" in recommended(Client("http://testserver", http=http), "nobody")


def test_anybody_can_be_forgotten_and_more_than_once(shop: Client) -> None:
    first, second = shop.forget_user("never/seen ?#%"), shop.forget_user("never/seen ?#%")

    assert first.user_id == "never/seen ?#%"
    assert first.forgotten_at < second.forgotten_at


@pytest.mark.parametrize("user_id", ["ann\n", "an\nn", "\nann", "ann/\n"])
def test_a_user_whose_id_has_a_line_end_is_forgotten_and_nobody_else(shop: Client, user_id: str) -> None:
    shop.record_events([event(user_id, "mug")])
    assert [seen.item_id for seen in shop.user(user_id).recent] == ["mug"]

    assert shop.forget_user(user_id).user_id == user_id

    with pytest.raises(ServiceError, match="404"):
        shop.user(user_id)
    assert shop.user("ann").trained


@pytest.mark.parametrize("user_id", ["", "%20", "%0A", "%C2%A0"])
def test_nobody_has_an_id_that_cannot_be_seen(http: TestClient, user_id: str) -> None:
    [error] = problem(http.delete(f"/users/{user_id}"), 422)["errors"]
    assert error == {"pointer": "#/user_id", "detail": "must not be blank: give it a visible character"}


def test_a_user_whom_a_model_has_by_a_blank_id_can_be_forgotten(tmp_path: Path) -> None:
    publish(tmp_path / "m", user_ids=[" ", *list(SEEN)[1:]])
    with TestClient(create_app(Settings(models=tmp_path / "m"))) as http:
        assert http.get("/users/%20").json()["trained"]
        assert http.delete("/users/%20").status_code == 200
        assert http.get("/users/%20").status_code == 404


def test_what_could_not_be_kept_for_want_of_room_is_kept_when_there_is_some(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with TestClient(create_app(Settings(models=models, state=tmp_path / "s"))) as http:
        shop = Client("http://testserver", http=http)
        with monkeypatch.context() as full:
            full.setattr(last_known, "replacing", no_room)
            shop.retire_item("hat")
            wait_until(lambda: "known to this process alone" in caplog.text)
            time.sleep(2.5)
            assert caplog.text.count("known to this process alone") == 1
        wait_until(lambda: last_known.read(tmp_path / "s").retired == {"hat"})


# Items


def test_a_retired_item_is_nowhere_until_it_is_restored(shop: Client) -> None:
    before = recommended(shop, "ann")
    assert "hat" in before

    assert shop.retire_item("hat").retired
    assert shop.retire_item("hat").retired

    assert "hat" not in recommended(shop, "ann")
    assert "hat" not in recommended(shop, "nobody")
    assert "hat" not in recommended(shop, "ann", exclude_seen=False, history=["mug"])
    assert "hat" not in {item.item_id for item in shop.similar("mug", k=10).items}
    batch = shop.recommend_batch(BatchRequest(user_ids=["ann", "nobody"], exclude_seen=False))
    assert all("hat" not in {item.item_id for item in answer.items} for answer in batch.recommendations)
    for look_up in (shop.item, shop.similar):
        with pytest.raises(ServiceError, match="404: The item is retired"):
            look_up("hat")
    assert not shop.restore_item("hat").retired
    assert recommended(shop, "ann") == before
    assert shop.item("hat").item_id == "hat"


def test_a_retired_item_that_the_model_has_no_more_can_be_restored_for_the_next_one(models: Path) -> None:
    """The nightly job leaves a retired item out that nobody took."""
    with TestClient(create_app(Settings(models=models))) as http:
        shop = Client("http://testserver", http=http)
        shop.retire_item("hat")
        shop.activate(publish(models, item_ids=["cap" if item == "hat" else item for item in ITEM_IDS]))
        assert not shop.restore_item("hat").retired
        with pytest.raises(ServiceError, match="404: The model knows no such item"):
            shop.restore_item("hat")
        shop.activate(publish(models))
        assert shop.item("hat").item_id == "hat"


@pytest.mark.parametrize("item_id", ["mug\n", "m\nug", "mug:restore\n"])
def test_an_id_with_a_line_end_is_another_items(shop: Client, item_id: str) -> None:
    for ask in (shop.item, shop.similar, shop.retire_item, shop.restore_item):
        with pytest.raises(ServiceError, match="404: The model knows no such item"):
            ask(item_id)
    shop.retire_item("mug")
    with pytest.raises(ServiceError, match="404"):
        shop.restore_item(item_id)
    with pytest.raises(ServiceError, match="404"):
        shop.item("mug")


def test_an_item_that_is_not_there_cannot_be_retired(shop: Client) -> None:
    for change in (shop.retire_item, shop.restore_item):
        with pytest.raises(ServiceError, match="404: The model knows no such item"):
            change("a/b?c")


def test_a_retirement_outlives_the_process_and_the_model(models: Path) -> None:
    for _ in range(2):
        with TestClient(create_app(Settings(models=models))) as http:
            shop = Client("http://testserver", http=http)
            shop.retire_item("hat")
            assert "hat" not in recommended(shop, "nobody")
        publish(models)
    with TestClient(create_app(Settings(models=models))) as http:
        assert "hat" not in recommended(Client("http://testserver", http=http), "nobody")


def test_another_process_hears_of_a_retirement(models: Path, shop: Client) -> None:
    with TestClient(create_app(Settings(models=models))) as http:
        other = Client("http://testserver", http=http)
        shop.retire_item("hat")
        wait_until(lambda: "hat" not in recommended(other, "ann"))


def test_all_items_may_be_retired(shop: Client) -> None:
    for item_id in ITEM_IDS:
        shop.retire_item(item_id)

    assert recommended(shop, "ann") == recommended(shop, "nobody") == []


# Models


def test_models_are_listed_activated_and_rolled_back(models: Path, shop: Client) -> None:
    first = artifact.current_version(models)
    second = publish(models)
    assert first is not None
    listed = shop.models()
    assert [(model.version, model.current, model.damage) for model in listed.models] == [
        (first, False, None),
        (second, True, None),
    ]
    assert listed.models[0].users == 4

    activated = shop.activate(first)
    assert activated.live == first
    assert artifact.current_version(models) == first
    assert shop.recommend(RecommendRequest(user_id="ann")).model_version == first
    back = shop.roll_back()
    assert (back.live, back.before) == (second, first)
    assert shop.health().model_version == second


def test_no_version_before_is_a_conflict(models: Path, http: TestClient) -> None:
    assert "no version before" in problem(http.post("/admin/rollback"), 409)["detail"]


@pytest.mark.parametrize("version", ["20200101T000000Z-00000000", "CURRENT", "..", "a%2Fb", ".state"])
def test_a_version_that_is_not_there_is_not_activated(http: TestClient, version: str) -> None:
    before = http.get("/health").json()["model_version"]
    assert http.post(f"/admin/models/{version}:activate").status_code == 404
    assert http.get("/health").json()["model_version"] == before


def test_a_damaged_version_is_not_activated_and_is_listed_as_damaged(models: Path, http: TestClient) -> None:
    good = artifact.current_version(models)
    assert good is not None
    changed, short = publish(models), publish(models)
    artifact.activate(models, good)
    for version, cut in ((changed, 0), (short, 1)):
        path = models / version / "item_embeddings.npy"
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.chmod(0o644)
        path.write_bytes(content[: len(content) - cut])

    for version in (changed, short):
        refused = problem(http.post(f"/admin/models/{version}:activate"), 409)
        assert "item_embeddings.npy" in refused["detail"]
    assert artifact.current_version(models) == good
    damage = {model["version"]: model["damage"] for model in http.get("/admin/models").json()["models"]}
    assert damage[good] is None
    assert "bytes instead of" in damage[short]


# Without Redis


def test_without_redis_answers_go_on_and_what_needs_it_is_to_be_tried_later(
    stateless: TestClient, http: TestClient
) -> None:
    def without_id(response: Response) -> dict[str, Any]:
        return {name: value for name, value in response.json().items() if name != "recommendation_id"}

    for body in ({"user_id": "ann"}, {"user_id": "nobody"}):
        answered = without_id(stateless.post("/recommend", json=body))
        assert answered == without_id(http.post("/recommend", json=body)) | {"degraded": True}
    assert without_id(stateless.post("/recommend", json={"history": ["mug"]}))["degraded"] is True
    batch = stateless.post("/recommend:batch", json={"user_ids": ["ann", "nobody"]}).json()["recommendations"]
    assert [answer["degraded"] for answer in batch] == [True, True]
    for method, path in (
        ("GET", "/users/ann"),
        ("DELETE", "/users/ann"),
        ("DELETE", "/items/mug"),
        ("POST", "/items/mug:restore"),
    ):
        refused = stateless.request(method, path)
        assert problem(refused, 503)["detail"].startswith("The user state is away")
        assert int(refused.headers["retry-after"]) >= 1
    assert stateless.get("/admin/models").status_code == 200
    assert stateless.get("/items/mug").status_code == 200


def test_a_folder_that_cannot_hold_the_state_is_told_in_health(models: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with TestClient(create_app(Settings(models=models, state=tmp_path / "file"))) as http:
        health = http.get("/health").json()
        assert http.post("/recommend", json={"user_id": "ann"}).json()["degraded"] is True

    assert health["status"] == "degraded"
    assert "choose another or set MTS4MM_REDIS_URL" in json.dumps(health["problems"])
