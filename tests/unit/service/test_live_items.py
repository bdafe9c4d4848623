"""Items put over HTTP: found at once and everywhere, as their content says, until they are deleted or trained."""

import base64
import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.app import create_app
from service.client import Client, ServiceError
from service.content import Content
from service.engine import Engine
from service.filters import OneOf
from service.live_table import LiveTable
from service.queries import Query
from service.schemas import PutItemRequest, RecommendRequest
from service.settings import Settings
from shared.encoders import PictureError, RawItem, open_encoder, read_folder, write_folder
from shared.kept_pictures import keep_picture
from shared.state import Encoded, LiveItem
from tests.unit.encoders.conftest import PLAIN, WORDS, colour_network, word_network, word_tokenizer
from tests.unit.encoders.test_pictures import png_header
from tests.unit.service.test_every_answer import publish as random_shop
from trainer.dataset import TRAIN, Dataset, Modality, SplitSpec
from trainer.encoders.attributes import fit_attributes
from trainer.encoders.sources import Items
from trainer.encoders.store import add_image_network, add_text_network
from trainer.export import publish
from trainer.recipe import Recipe
from trainer.training import TrainedStudent

USERS, ITEMS, WIDTH = 30, 24, 4


def dataset(items: int = ITEMS) -> Dataset:
    """Two tastes; features say to which an item belongs."""
    generator = np.random.default_rng(0)
    liked = generator.random((USERS, items)) < np.where(
        np.arange(USERS)[:, None] % 2 == np.arange(items)[None, :] % 2, 0.5, 0.02
    )
    users, taken = np.nonzero(liked)
    features = generator.normal(0, 0.2, (items, 3)).astype(np.float32)
    features[np.arange(items), np.arange(items) % 2] += 1
    return Dataset(
        name="shop",
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(items)],
        users=users,
        items=taken,
        labels=np.zeros(len(users), np.int8),
        timestamps=None,
        weights=None,
        modalities={"text": Modality("text", features, np.ones(items, bool), None, None)},
        catalogue=[{"title": f"Item {item}", "colour": "red" if item % 3 else "blue"} for item in range(items)],
        split=SplitSpec("given"),
        fingerprint="f",
    )


def publish_model(store: Path, items: int = ITEMS, modalities: tuple[str, ...] = ("text",)) -> str:
    return publish_of(store, dataset(items), modalities)


def publish_of(store: Path, data: Dataset, modalities: tuple[str, ...]) -> str:
    left, values, right = np.linalg.svd(data.interactions(TRAIN).toarray(), full_matrices=False)
    users, of_items = ((left * values)[:, :WIDTH], right[:WIDTH].T)
    trained = TrainedStudent(users.astype(np.float32), of_items.astype(np.float32), {}, {}, {}, {}, {}, 1, 1)
    return publish(store, data, Recipe(modalities=modalities), 0, trained)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_model(tmp_path / "m")
    return tmp_path / "m"


def mug(**more: Any) -> PutItemRequest:
    fields: dict[str, Any] = {"metadata": {"title": "Mug", "colour": "green"}, "features": {"text": [1.0, 0.0, 0.1]}}
    return PutItemRequest(**{**fields, **more})


def ids(shop: Client, user_id: str = "u0", **more: Any) -> list[str]:
    return [item.item_id for item in shop.recommend(RecommendRequest(user_id=user_id, k=100, **more)).items]


def picture(kind: str = "PNG", size: tuple[int, int] = (900, 300), colour: tuple[int, int, int] = (10, 200, 30)) -> str:
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, kind)
    return base64.b64encode(written.getvalue()).decode()


def test_an_item_is_found_as_soon_as_it_is_put_and_by_those_it_suits(shop: Client) -> None:
    before = ids(shop)
    answer = shop.put_item("new/mug", mug())
    assert (answer.known, answer.modalities) == (False, ["text"])
    after = shop.recommend(RecommendRequest(user_id="u0", k=100)).items
    assert sorted(item.item_id for item in after) == sorted([*before, "new/mug"])
    (new,) = (item for item in after if item.item_id == "new/mug")
    assert (new.reason, new.metadata) == ("cold_item", {"title": "Mug", "colour": "green"})
    assert {item.reason for item in after if item is not new} == {None}
    ranks = {user: ids(shop, user, exclude_seen=False).index("new/mug") for user in ("u0", "u1")}
    assert ranks["u0"] < ranks["u1"]


def test_an_item_put_is_like_any_other_item(shop: Client, http: TestClient) -> None:
    shop.put_item("mug", mug())
    assert ids(shop, filter={"colour": "green"}) == ["mug"]
    assert shop.item("mug").metadata == {"title": "Mug", "colour": "green"}
    assert shop.item("mug").popularity == 0
    alike = [item.item_id for item in shop.similar("mug", 5).items]
    assert all(int(name[1:]) % 2 == 0 for name in alike)
    assert "mug" in [item.item_id for item in shop.similar(alike[0], 100).items]
    taken = shop.recommend(RecommendRequest(history=["mug"], k=3))
    assert taken.strategy == "history"
    assert taken.unknown_items == []
    assert "mug" not in [item.item_id for item in taken.items]
    assert shop.recommend(RecommendRequest(user_id="nobody", k=100)).items[-1].item_id == "mug"
    explained = shop.recommend(RecommendRequest(user_id="u0", k=100, explain=True)).items
    (own,) = (item for item in explained if item.item_id == "mug")
    assert own.explanation is not None
    assert sum(part.score for part in own.explanation) == pytest.approx(own.score, rel=1e-5, abs=1e-7)


def test_what_is_deleted_is_gone_and_what_is_put_again_is_back(shop: Client, http: TestClient) -> None:
    shop.put_item("mug", mug())
    shop.retire_item("mug")
    assert "mug" not in ids(shop)
    assert http.get("/items/mug").status_code == 404
    shop.put_item("mug", mug(metadata={"title": "Another"}))
    assert "mug" in ids(shop)
    assert shop.item("mug").metadata == {"title": "Another"}


def test_the_metadata_of_a_known_item_change_and_its_vector_stays(shop: Client) -> None:
    before = shop.recommend(RecommendRequest(user_id="u0", k=100)).items
    answer = shop.put_item("i3", PutItemRequest(metadata={"title": "Renamed", "size": 7}))
    assert (answer.known, answer.modalities) == (True, [])
    after = shop.recommend(RecommendRequest(user_id="u0", k=100)).items
    assert [(item.item_id, item.score) for item in after] == [(item.item_id, item.score) for item in before]
    assert shop.item("i3").metadata == {"title": "Renamed", "size": 7}
    assert ids(shop, filter={"size": 7}, exclude_seen=False) == ["i3"]
    assert ids(shop, filter={"size": {"min": 5}}, exclude_seen=False) == ["i3"], "it alone has a number there"
    assert "i3" not in ids(shop, filter={"colour": {"in": ["red", "blue"]}}, exclude_seen=False)


def test_an_item_outlives_a_restart_and_a_swap_until_the_model_knows_it(models: Path) -> None:
    with TestClient(create_app(Settings(models=models))) as http:
        Client("http://testserver", http=http).put_item("i24", mug())
    with TestClient(create_app(Settings(models=models))) as http:
        shop = Client("http://testserver", http=http)
        assert shop.similar("i24", 1).items[0].item_id != "i24"
        (first,) = [item for item in shop.recommend(RecommendRequest(user_id="u0", k=100)).items if item.reason]
        version = publish_model(models, ITEMS - 1)
        http.app.state.live.refresh()  # type: ignore[attr-defined]
        answer = shop.recommend(RecommendRequest(user_id="u0", k=100))
        (second,) = [item for item in answer.items if item.reason]
        assert (answer.model_version, first.item_id, second.item_id) == (version, "i24", "i24")
        assert second.score != first.score
        publish_model(models, ITEMS + 1)
        http.app.state.live.refresh()  # type: ignore[attr-defined]
        answer = shop.recommend(RecommendRequest(user_id="u0", k=100, exclude_seen=False))
        assert [item.item_id for item in answer.items].count("i24") == 1
        assert [item for item in answer.items if item.reason] == []


def test_another_process_follows(models: Path) -> None:
    """Two services on one Redis; the second hears of the change or looks by itself."""
    with TestClient(create_app(Settings(models=models))) as one, TestClient(create_app(Settings(models=models))) as two:
        here, there = (Client("http://testserver", http=http) for http in (one, two))
        here.put_item("mug", mug())
        two.app.state.overlay.look()  # type: ignore[attr-defined]
        assert "mug" in ids(there)
        here.retire_item("mug")
        two.app.state.overlay.look()  # type: ignore[attr-defined]
        assert "mug" not in ids(there)


def test_where_the_model_fails_over_live_items_its_own_are_answered_and_health_says_so(
    http: TestClient, shop: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, overlay = ids(shop), http.app.state.overlay  # type: ignore[attr-defined]
    shop.put_item("mug", mug())
    with monkeypatch.context() as broken:
        broken.setattr(Content, "vectors", raising(RuntimeError("the tower fails")))
        shop.put_item("jug", mug())
        overlay.look()
        assert ids(shop) == before
        health = http.get("/health").json()
        assert (health["status"], len(health["problems"])) == ("degraded", 1)
        assert "Live items: they are in no answer: RuntimeError('the tower fails')" in health["problems"][0]
        assert [record.levelname for record in caplog.records if record.name == "service.live_items"] == ["ERROR"]
        shop.retire_item("mug")
        assert http.delete("/items/nonsense").status_code == 404
    overlay.look()
    assert sorted(ids(shop)) == sorted([*before, "jug"])
    assert http.get("/health").json()["status"] == "ok"


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_picture_is_kept_small_and_shown(shop: Client, http: TestClient) -> None:
    shop.put_item("mug", mug(image=picture()))
    answer = http.get("/items/mug/image")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).size == (512, 171)


def test_a_picture_goes_with_the_put_that_lacks_one_and_with_the_item(
    shop: Client, http: TestClient, models: Path
) -> None:
    keep_picture(models, "mug", base64.b64decode(picture("JPEG")))  # as a night does
    shop.put_item("mug", mug(image=picture("JPEG", colour=(200, 0, 0))))
    put = http.get("/items/mug/image").content
    shop.put_item("mug", mug())
    assert http.get("/items/mug/image").status_code == 404
    http.app.state.overlay._state.live_items.drop(["mug"])  # type: ignore[attr-defined]
    night = http.get("/items/mug/image")
    assert night.status_code == 200
    assert night.content != put
    shop.retire_item("mug")
    assert http.get("/items/mug/image").status_code == 404


def with_encoders(folder: Path, image_network: str = "colours") -> Dataset:
    """The shop of two tastes, for red mugs and for blue lamps, whose words and pictures two networks read."""
    folder.mkdir()
    network, tokenizer = word_network(folder / "words.onnx"), word_tokenizer(folder / "tokenizer.json")
    words = {"normalise": False, "columns": ["kind", "title"]}
    encoders = {
        "text": add_text_network(folder / "store", "words", network, tokenizer, words),
        "image": add_image_network(folder / "store", image_network, colour_network(folder / "colours.onnx"), PLAIN),
    }
    generator, kinds = np.random.default_rng(1), np.arange(ITEMS) % 2
    text = generator.random((ITEMS, len(WORDS))).astype(np.float32) / 10
    image = generator.random((ITEMS, 3)).astype(np.float32) / 10
    for kind, (shares, channel) in enumerate(((RED_MUG, 0), (BLUE_LAMP, 2))):
        text[kinds == kind] += shares
        image[kinds == kind, channel] += 0.9
    everywhere = np.ones(ITEMS, bool)
    features = {
        name: Modality(name, table, everywhere, None, None) for name, table in (("text", text), ("image", image))
    }
    return replace(dataset(), modalities=features, encoders=encoders)


RED_MUG = np.array([0, 0.5, 0, 0.5, 0], np.float32)
BLUE_LAMP = np.array([0, 0, 0.5, 0, 0.5], np.float32)


def test_words_and_a_picture_alone_place_an_item_as_the_features_that_the_encoders_make_of_them(tmp_path: Path) -> None:
    publish_of(tmp_path / "m", with_encoders(tmp_path / "encoders"), ("text", "image"))
    red = picture(colour=(255, 0, 0))
    with TestClient(create_app(Settings(models=tmp_path / "m"))) as http:
        shop = Client("http://testserver", http=http)
        metadata = {"Kind": "Red mug", "description": "Blue lamp, which the model's words do not come from"}
        answer = shop.put_item("by-content", PutItemRequest(metadata=metadata, image=red))
        assert (answer.known, sorted(answer.modalities)) == (False, ["image", "text"])
        for name, words, channels in (("red", RED_MUG, [1.0, 0, 0]), ("blue", BLUE_LAMP, [0, 0, 1.0])):
            shop.put_item(name, PutItemRequest(features={"text": words.tolist(), "image": channels}))
        near = {item.item_id: item.score for item in shop.similar("by-content", 100).items}
        assert near["red"] == pytest.approx(1, abs=0.002)  # but for what JPEG takes away
        assert near["blue"] < 0.9
        ranks = {user: ids(shop, user, exclude_seen=False).index("by-content") for user in ("u0", "u1")}
        assert ranks["u0"] < ranks["u1"]


def test_what_another_model_encodes_is_waited_for_by_nobody_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two items one cannot be read by the new model's encoder, which is not asked for it again."""
    models = tmp_path / "m"
    publish_of(models, with_encoders(tmp_path / "old"), ("text", "image"))
    with TestClient(create_app(Settings(models=models))) as http:
        for name in ("mug", "odd"):
            shop = Client("http://testserver", http=http)
            shop.put_item(name, PutItemRequest(image=picture(colour=(255, 0, 0))))
    publish_of(models, with_encoders(tmp_path / "new", "colours-2"), ("text", "image"))
    asked, goes_on, encoded = Counter[str](), threading.Event(), Content.encoded

    def slowly(content: Content, item: LiveItem, modality: str) -> Encoded:
        asked[item.item_id] += 1
        goes_on.wait(60)
        if item.item_id == "odd":
            raise PictureError("cannot be read")
        return encoded(content, item, modality)

    monkeypatch.setattr(Content, "encoded", slowly)
    with TestClient(create_app(Settings(models=models))) as http:
        shop, overlay = Client("http://testserver", http=http), http.app.state.overlay  # type: ignore[attr-defined]
        until(lambda: asked.total() == 1)
        assert "mug" not in ids(shop)
        shop.retire_item("i1")
        assert "i1" not in ids(shop, exclude_seen=False)
        goes_on.set()
        until(lambda: "mug" in ids(shop))
        overlay.look()
        assert not overlay.live_items.encode(overlay._state.live_items, overlay._engine(), threading.Event())
        assert asked == {"mug": 1, "odd": 1}
        assert "odd" not in ids(shop)
    with TestClient(create_app(Settings(models=models))) as http:
        assert "mug" in ids(Client("http://testserver", http=http))
        assert asked == {"mug": 1, "odd": 1}


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_attributes_alone_place_an_item_by_those_that_the_catalogue_taught(tmp_path: Path) -> None:
    """Written and read back by the folder, as ``mts4mm encode`` leaves it."""
    records = [{"item_id": f"i{n}", "Kind": ("mug", "lamp")[n % 2], "price": 10.0 + n} for n in range(ITEMS)]
    fitted = fit_attributes(Items(tmp_path, records), ["Kind", "price"])
    write_folder(tmp_path / "encoder", fitted.spec, fitted.files)
    encoder = read_folder(tmp_path / "encoder")
    rows = [open_encoder(encoder).encode_item(RawItem(record, lambda: None)) for record in records]
    attributes = Modality("attributes", np.stack(rows), np.ones(ITEMS, bool), None, None)
    data = replace(dataset(), modalities={"attributes": attributes}, encoders={"attributes": encoder})
    publish_of(tmp_path / "m", data, ("attributes",))
    with TestClient(create_app(Settings(models=tmp_path / "m"))) as http:
        shop = Client("http://testserver", http=http)
        answer = shop.put_item("new", PutItemRequest(metadata={"kind": "MUG", "price": "14"}))
        assert (answer.known, answer.modalities) == (False, ["attributes"])
        ranks = {user: ids(shop, user, exclude_seen=False).index("new") for user in ("u0", "u1")}
        assert ranks["u0"] < ranks["u1"]
        shop.put_item("lamp", PutItemRequest(metadata={"kind": "lamp", "price": 14}))
        ranks = {user: ids(shop, user, exclude_seen=False).index("lamp") for user in ("u0", "u1")}
        assert ranks["u0"] > ranks["u1"]
        refused = http.put("/items/odd", json={"metadata": {"kind": "sofa", "price": "dear"}})
        assert refused.status_code == 422


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({}, "#/features", "nothing says what the item is like: give features of text"),
        ({"features": {"text": [1.0, 2.0]}}, "#/features/text", "must have 3 numbers, has 2"),
        ({"features": {"sound": [1.0]}}, "#/features/sound", "the model takes text"),
        ({"features": {"text": [0.0, 0, 0]}}, "#/features/text", "must not be all zero"),
        ({"features": {"text": [1e-46, 0, 0]}}, "#/features/text", "must not be all zero"),
        ({"features": {"text": [1e300, 0, 0]}}, "#/features/text", "single precision"),
        ({"features": {"text": [1e38, 1e38, 1e38]}}, "#/features/text", "single precision"),
        ({"features": {"text": [1e-30, 0, 0]}}, "#/features/text", "so small"),
        ({"image": "no base64!"}, "#/image", "is not base64"),
        ({"image": "é"}, "#/image", "is not base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "#/image", "is no picture that is understood"),
        ({"image": base64.b64encode(png_header(60_000, 60_000)).decode()}, "#/image", "pixels"),
        ({"image": picture(size=(1, 1))}, "#/image", "no picture to go by"),
        ({"metadata": {"text": "x" * 40_000}}, "#/metadata", "at most 32768 bytes"),
        ({"metadata": {}, "colour": "red"}, "#/colour", "Extra inputs"),
    ],
)
def test_what_cannot_be_an_item_is_refused_by_field(
    http: TestClient, body: dict[str, Any], pointer: str, says: str
) -> None:
    answer = http.put("/items/mug", json=body)
    assert answer.status_code == 422
    assert [(error["pointer"], says in error["detail"]) for error in answer.json()["errors"]] == [(pointer, True)]
    assert http.get("/items/mug").status_code == 404


@pytest.mark.parametrize("item_id", ["", "%20", "%0A", "%C2%A0"])
def test_an_item_has_an_id_that_can_be_seen(http: TestClient, item_id: str) -> None:
    answer = http.put(f"/items/{item_id}", json={"features": {"text": [1, 0, 0]}})
    assert answer.status_code == 422
    assert "must not be blank" in answer.text


@pytest.mark.parametrize("item_id", ["mug\n", "m\nug", "mug/similar\n"])
def test_an_item_whose_id_has_a_line_end_is_put_and_retired_itself(shop: Client, item_id: str) -> None:
    shop.put_item("mug", mug())
    assert shop.put_item(item_id, mug()).item_id == item_id
    assert shop.similar(item_id, k=1).items[0].item_id == "mug"
    assert shop.retire_item(item_id).item_id == item_id
    with pytest.raises(ServiceError, match="404"):
        shop.item(item_id)
    assert shop.restore_item(item_id).item_id == item_id
    assert shop.item("mug").item_id == "mug"


def test_an_item_has_an_id_that_events_can_name(http: TestClient) -> None:
    answer = http.put("/items/mug%00", json={"features": {"text": [1, 0, 0]}})
    assert answer.status_code == 422
    assert "NUL" in answer.text


@pytest.mark.parametrize("metadata", ['{"price": NaN}', '{"size": {"wide": [1, -1e999]}}'])
def test_metadata_with_a_number_that_is_not_finite_say_so_once(http: TestClient, metadata: str) -> None:
    body = f'{{"metadata": {metadata}, "features": {{"text": [1, 0, 0]}}}}'
    answer: Response = http.put("/items/mug", content=body, headers={"content-type": "application/json"})
    detail = "holds a number that is not finite, or is nested too deeply"
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"pointer": "#/metadata", "detail": detail}])


@pytest.mark.parametrize(
    "metadata",
    [
        '{"price": NaN}',
        '{"title": "\\ud83d"}',
        '{"\\ude00": 1}',
        '{"title": "\\n", "rows": ' + "[" * 99 + "]" * 99 + "}",
    ],
)
def test_metadata_that_no_answer_could_hold_are_refused(http: TestClient, metadata: str) -> None:
    body = f'{{"metadata": {metadata}, "features": {{"text": [1, 0, 0]}}}}'
    answer: Response = http.put("/items/mug", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert http.get("/items/mug").status_code == 404


def test_a_model_without_a_tower_says_that_it_cannot_place_items(tmp_path: Path) -> None:
    publish_model(tmp_path, modalities=())
    with TestClient(create_app(Settings(models=tmp_path))) as http:
        shop = Client("http://testserver", http=http)
        with pytest.raises(ServiceError, match="no item tower") as caught:
            shop.put_item("mug", mug())
        assert caught.value.status == 409
        assert shop.put_item("i1", PutItemRequest(metadata={"title": "Renamed"})).known


def test_without_room_an_item_is_refused_and_says_what_to_do(
    http: TestClient, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = http.app.state.overlay._state.live_items  # type: ignore[attr-defined]
    original = items.put
    monkeypatch.setattr(items, "put", lambda item: original(item, most_items=1))
    shop.put_item("a", mug())
    with pytest.raises(ServiceError, match="train, so that the model knows them, or delete some") as caught:
        shop.put_item("b", mug())
    assert caught.value.status == 507
    shop.put_item("a", mug(metadata={"title": "Changed"}))


@given(
    data=st.data(), seed=st.integers(0, 10_000), items=st.integers(1, 12), live=st.integers(0, 6), k=st.integers(1, 25)
)
@settings(deadline=None, max_examples=80)
def test_with_live_items_exactly_the_eligible_ones_each_once_by_score(
    data: st.DataObject, seed: int, items: int, live: int, k: int
) -> None:
    generator = np.random.default_rng(seed)
    engine, catalogue = random_shop(generator, 3, items)
    vectors = generator.integers(-2, 3, (live, 3)).astype(np.float32)
    table = LiveTable(
        [f"n{place}" for place in range(live)], vectors, [{"colour": "red"}] * live, {0: {"colour": "new"}}
    )
    joined = engine.with_live(table)
    everything = [f"i{item}" for item in range(items)] + list(table.ids)
    left_out = data.draw(st.lists(st.sampled_from(everything), max_size=5))
    retired = data.draw(st.lists(st.sampled_from(everything), max_size=3))
    wanted = data.draw(st.sampled_from([None, "red", "new"]))
    colours = [{"colour": "new"}, *catalogue[1:], *table.metadata]
    if wanted is not None and not any(wanted in _values(entry) for entry in colours):
        wanted = None
    query = Query(
        user_id=data.draw(st.sampled_from(["u0", "u1", "nobody"])),
        history=data.draw(st.lists(st.sampled_from(everything), max_size=3)),
        k=k,
        exclude_seen=False,
        exclude_items=left_out,
        filter={} if wanted is None else {"colour": OneOf([wanted])},
        diversity=data.draw(st.sampled_from([0.0, 0.5])),
    )

    answered = joined.recommend(query, joined.rows(retired))

    eligible = {
        item_id
        for item_id, entry in zip(everything, colours, strict=True)
        if item_id not in left_out and item_id not in retired and (wanted is None or wanted in _values(entry))
    }
    got = [item.item_id for item in answered.items]
    assert len(got) == len(set(got)) == min(k, len(eligible))
    assert set(got) <= eligible
    assert {item.item_id for item in answered.items if item.reason} == {name for name in got if name[0] == "n"}
    if query.diversity == 0 and got:
        scores = _scores(joined, query, everything)
        best = sorted(eligible, key=lambda name: (-scores[name], everything.index(name)))
        if answered.strategy != "popular":
            np.testing.assert_allclose([scores[name] for name in got], [scores[name] for name in best[:k]], atol=1e-5)
    assert engine.recommend(Query(user_id="u0", k=50, exclude_seen=False)).items == (
        Engine(engine.artifact).recommend(Query(user_id="u0", k=50, exclude_seen=False)).items
    )


def _values(entry: dict[str, Any]) -> list[Any]:
    value = entry.get("colour")
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]


def _scores(engine: Engine, query: Query, names: list[str]) -> dict[str, float]:
    """Every item asked for by itself."""
    scores = {}
    for name in names:
        others = [other for other in names if other != name]
        alone = Query(user_id=query.user_id, history=query.history, k=1, exclude_seen=False, exclude_items=others)
        scores[name] = engine.recommend(alone).items[0].score
    return scores
