"""What the console changes, in a real Chromium and a real service on a copy of the store: items, models, events."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.e2e.console.conftest import Service, Shop, Watched, settled, violations
from tests.unit.service.test_live_items import publish_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose store and state nobody else has."""
    folder = tmp_path_factory.mktemp("changes")
    without_state = shutil.ignore_patterns(".state")  # a service of another file may have it open
    store = Path(shutil.copytree(shop.store, folder / "models", symlinks=True, ignore=without_state))
    service = Service(store, shop.folder, {"MTS4MM_STATE": str(folder / "state")})
    service.start()
    yield service
    service.stop()


def recommended(page: Page, service: Service, user_id: str, k: int = 20) -> list[str]:
    answer = page.request.post(f"{service.url}/recommend", data={"user_id": user_id, "k": k}).json()
    return [item["item_id"] for item in answer["items"]]


def live_version(page: Page, service: Service) -> str:
    return str(page.request.get(f"{service.url}/health").json()["model_version"])


def red_picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (64, 48), (250, 10, 10)).save(written, "PNG")
    return written.getvalue()


def agree(page: Page, name: str, action: str) -> None:
    page.get_by_role("dialog", name=name).get_by_role("button", name=action).click()


def test_an_item_is_added_becomes_retrievable_and_is_removed(page: Page, own: Service) -> None:
    page.goto(f"{own.url}/console#/items")
    settled(page)
    page.get_by_role("button", name="Add an item").click()
    expect(page.get_by_label("Id", exact=True)).to_be_focused()
    assert violations(page) == []
    page.get_by_label("Id", exact=True).fill("new/mug 1")
    page.get_by_label("Title", exact=True).fill("Red mug")
    page.get_by_label("Category", exact=True).fill("mug")
    image = {"name": "red.png", "mimeType": "image/png", "buffer": red_picture()}
    page.get_by_label("Choose a picture of the item").set_input_files(image)  # type: ignore[arg-type]
    assert page.request.get(f"{own.url}/items/new%2Fmug%201").status == 404
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text(re.compile("Retrievable after .*s"))).to_be_visible()
    expect(page.get_by_text("Placed by image and text")).to_be_visible()
    assert violations(page) == []

    said = page.request.get(f"{own.url}/items/new%2Fmug%201").json()
    assert said["metadata"] == {"title": "Red mug", "category": "mug"}
    near = page.request.get(f"{own.url}/items/new%2Fmug%201/similar?k=12").json()["items"]
    links = page.locator(".outcome .short a.what")
    assert [link.get_attribute("href") for link in links.all()] == [f"#/items/{item['item_id']}" for item in near]

    page.get_by_role("combobox", name="Find items by their words").fill("red mug")
    expect(page.get_by_role("option", name="Red mug").first).to_be_visible()
    page.locator(".outcome").get_by_role("link", name="Red mug").click()
    expect(page.get_by_role("heading", name="Red mug")).to_be_visible()
    expect(page.locator(".item .pic.seen")).to_be_visible()
    expect(page.locator(".pairs > div", has_text="By the text").locator("li")).to_have_count(12)
    for name in page.locator(".pairs > div", has_text="By the text").locator(".name").all_inner_texts()[:3]:
        assert "mug" in name.lower()

    page.get_by_role("button", name="Hide this item").click()
    agree(page, "Hide this item?", "Hide")
    expect(page.get_by_text("Red mug is hidden.")).to_be_visible()
    assert page.request.get(f"{own.url}/items/new%2Fmug%201").status == 404


def test_without_encoders_the_form_asks_for_features(watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    publish_model(tmp_path / "models")
    service = Service(tmp_path / "models", tmp_path, {"MTS4MM_STATE": str(tmp_path / "state")})
    service.start()
    page.goto(f"{service.url}/console#/items")
    settled(page)
    page.get_by_role("button", name="Add an item").click()
    expect(page.get_by_text("This model brings no encoders")).to_be_visible()
    page.get_by_label("Id", exact=True).fill("mug")
    page.get_by_label("Features of text").fill("1, 0")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Features of text: the model takes 3 numbers, here are 2.")
    page.get_by_label("Features of text").fill("")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("nothing says what the item is like")
    page.get_by_label("Features of text").fill("[1, 0, 0.1]")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Placed by text.")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_role("button", name="Remove this item").click()
    agree(page, "Remove this item?", "Remove")
    expect(page.locator(".outcome")).to_have_count(0)
    assert page.request.get(f"{service.url}/items/mug").status == 404
    watched.faults = [fault for fault in watched.faults if "422" not in fault and "404" not in fault]
    service.stop()


def test_the_longest_words_are_wrapped(watched: Watched, own: Service) -> None:
    page = watched.page
    metadata = {"title": "W" * 300, "description": "x" * 400, "y" * 200: "z" * 200}
    put = page.request.put(f"{own.url}/items/{'i' * 400}", data={"metadata": metadata})
    assert put.ok, put.text()
    page.goto(f"{own.url}/console#/items/{'i' * 400}")
    for width in (375, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Hide this item").click()
    assert page.get_by_role("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")
    agree(page, "Hide this item?", "Hide")
    said = page.get_by_text("is hidden.").bounding_box()
    assert said
    assert said["x"] > 0
    watched.faults = [fault for fault in watched.faults if "404" not in fault]  # it has no picture


def test_a_half_filled_form_outlasts_a_request_that_gets_no_answer(watched: Watched, own: Service) -> None:
    page = watched.page
    page.goto(f"{own.url}/console#/items")
    settled(page)
    page.get_by_role("button", name="Add an item").click()
    page.get_by_label("Description").fill("half a descr")
    page.route("**/console/api/items*", lambda route: route.abort())
    page.get_by_role("combobox", name="Find items by their words").fill("mug")
    expect(page.get_by_text("The service does not answer. Looking for it")).to_be_visible()
    expect(page.get_by_text("Looking for it")).to_be_hidden()
    expect(page.get_by_label("Description")).to_have_value("half a descr")
    watched.faults = [fault for fault in watched.faults if "ERR_FAILED" not in fault]


def test_an_item_is_hidden_only_when_that_is_confirmed(page: Page, own: Service) -> None:
    item = recommended(page, own, "u0001")[0]
    page.goto(f"{own.url}/console#/items/{item}")
    settled(page)
    page.get_by_role("button", name="Hide this item").click()
    agree(page, "Hide this item?", "Cancel")
    assert recommended(page, own, "u0001")[0] == item
    page.get_by_role("button", name="Hide this item").click()
    agree(page, "Hide this item?", "Hide")
    expect(page.get_by_text("is hidden.")).to_be_visible()
    assert item not in recommended(page, own, "u0001", k=500)
    page.get_by_role("combobox", name="Find items by their words").fill(item)
    expect(page.get_by_role("option", name="Nothing found.")).to_be_visible()


def test_a_version_is_activated_and_rolled_back_only_when_that_is_confirmed(page: Page, own: Service) -> None:
    newer = live_version(page, own)
    (older,) = (
        each["version"]
        for each in page.request.get(f"{own.url}/console/api/versions").json()["versions"]
        if not each["current"]
    )
    page.goto(f"{own.url}/console#/models/{older}")
    settled(page)
    page.get_by_role("button", name="Activate").click()
    agree(page, "Activate this version?", "Cancel")
    assert live_version(page, own) == newer
    page.get_by_role("button", name="Activate").click()
    agree(page, "Activate this version?", "Activate")
    expect(page.get_by_text("is live after")).to_be_visible()
    assert live_version(page, own) == older
    expect(page.get_by_role("button", name="Is live")).to_be_disabled()

    page.get_by_role("button", name="Roll back").click()
    agree(page, "Roll back?", "Cancel")
    assert live_version(page, own) == older
    page.get_by_role("button", name="Roll back").click()
    agree(page, "Roll back?", "Roll back")
    expect(page.get_by_text("is live after")).to_have_count(2)
    assert live_version(page, own) == newer


def test_a_click_changes_what_the_visitor_gets(page: Page, own: Service) -> None:
    page.goto(f"{own.url}/console#/live")
    settled(page)
    gets = page.get_by_role("list", name="Recommended to this visitor").get_by_role("listitem")
    expect(gets).to_have_count(16)
    visitor = page.evaluate("sessionStorage.getItem('mts4mm.visitor')")
    before = [each.get_attribute("data-item") for each in gets.all()]
    assert before == recommended(page, own, visitor, k=16)
    page.get_by_role("list", name="Items to click").get_by_role("button").last.click()
    expect(page.get_by_role("status").filter(has_text="items are new")).to_be_visible()
    after = recommended(page, own, visitor, k=16)
    assert after != before
    assert [each.get_attribute("data-item") for each in gets.all()] == after
    clicked = page.request.get(f"{own.url}/users/{visitor}").json()["recent"]
    assert len(clicked) == 1
    assert clicked[0]["item_id"] not in after
    assert json.dumps(clicked[0]["type"]) == '"click"'


def test_a_new_visitor_has_the_old_one_forgotten_with_a_click_that_is_under_way(page: Page, own: Service) -> None:
    page.goto(f"{own.url}/console#/live")
    settled(page)
    old = page.evaluate("sessionStorage.getItem('mts4mm.visitor')")
    held: list[Route] = []
    page.route("**/events", lambda route: held.append(route), times=1)
    with page.expect_request("**/events"):
        page.get_by_role("list", name="Items to click").get_by_role("button").last.click()
    page.get_by_role("button", name="New visitor").click()
    expect(page.get_by_text(old)).to_have_count(0)
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        held[0].continue_()
    assert page.request.get(f"{own.url}/users/{old}").status == 404
    expect(page.get_by_role("list", name="What you clicked")).to_have_text("Nothing yet.")
    assert page.evaluate("sessionStorage.getItem('mts4mm.clicked')") is None
