"""The console in a real Chromium, against a real service over a real demo model."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from shared import artifact
from tests.e2e.console.conftest import HOSTILE, Service, Shop, Watched, violations

pytestmark = pytest.mark.slow

VIEWS = ("overview", "users", "users/u0001", "items", "live", "models")


def settled(page: Page) -> None:
    """Wait until nothing is loading any more."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(".ghost")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_accessible_in_light_and_dark(page: Page, service: Service, view: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{service.url}/console#/{view}")
    settled(page)
    assert violations(page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_no_view_is_wider_than_a_phone(page: Page, service: Service, view: str) -> None:
    page.set_viewport_size({"width": 375, "height": 740})
    page.goto(f"{service.url}/console#/{view}")
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    for name in ("Overview", "Users", "Items", "Live", "Models"):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_in_viewport()


def test_the_overview_says_what_is_live_and_what_it_is_worth(page: Page, service: Service, shop: Shop) -> None:
    page.goto(f"{service.url}/console")
    manifest = artifact.load(shop.store).manifest
    expect(page).to_have_title(re.compile("Overview"))
    expect(page.locator(".figures").first).to_contain_text("200")
    student = page.locator(".bars li", has_text="Student")
    expect(student).to_contain_text(f"{manifest.metrics['test.recall@20']:.3f}")
    expect(page.get_by_role("table").get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("row", name=re.compile("live"))).to_contain_text(manifest.version[-8:-4])


def test_a_user_is_found_by_keys_alone(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/users")
    settled(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    search = page.get_by_role("combobox")
    search.focus()
    page.keyboard.type("u000")
    expect(page.get_by_role("option")).to_have_count(10)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name=re.compile("u0002"))).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option", name=re.compile("u0001"))).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="u0001")).to_be_visible()
    expect(page).to_have_url(re.compile("#/users/u0001$"))


def ids(page: Page) -> list[str]:
    return [row.get_attribute("data-item") or "" for row in page.locator(".ranked > li").all()]


def served(page: Page, service: Service, **wanted: object) -> list[dict[str, object]]:
    answer = page.request.post(f"{service.url}/recommend", data={"k": 20, **wanted})
    items: list[dict[str, object]] = answer.json()["items"]
    return items


def test_the_list_follows_the_sliders_and_says_how_far_each_row_moved(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/users/u0001")
    neutral = [item["item_id"] for item in served(page, service, user_id="u0001", k=500)]
    expect(page.locator(".ranked > li")).to_have_count(20)
    assert ids(page) == neutral[:20]
    expect(page.locator(".move").first).to_have_text(re.compile("same place"))

    slider = page.get_by_label("Behaviour")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".slider output").first).to_have_text("×0.00")
    wanted = [item["item_id"] for item in served(page, service, user_id="u0001", weights={"id": 0})]
    assert wanted != neutral[:20]
    expect(page.locator(".ranked > li").first).to_have_attribute("data-item", str(wanted[0]))
    assert ids(page) == wanted
    for place, row in enumerate(page.locator(".ranked > li").all(), start=1):
        moved = neutral.index(row.get_attribute("data-item")) + 1 - place
        said = row.locator(".move").inner_text()
        assert re.sub(r"\D", "", said) == ("" if moved == 0 else str(abs(moved)))
        assert ("up" in said) == (moved > 0)
        assert ("down" in said) == (moved < 0)

    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".ranked > li").first).to_have_attribute("data-item", str(neutral[0]))
    assert ids(page) == neutral[:20]


def test_the_parts_of_a_score_are_those_of_the_answer(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/users/u0001")
    (first, *_) = served(page, service, user_id="u0001", explain=True)
    row = page.locator(".ranked > li").first
    expect(row.locator(".score")).to_have_text(f"{first['score']:.3f}".replace("-", "−"))
    parts = first["explanation"]
    assert isinstance(parts, list)
    shown = [text.replace("−", "-") for text in row.locator(".part .value").all_inner_texts()]
    assert [float(text) for text in shown] == pytest.approx([part["score"] for part in parts], abs=0.00501)
    because = row.locator(".because:not(.none)")
    expect(because).to_have_count(sum(part["because"] is not None for part in parts))


def test_a_filter_keeps_only_what_meets_it(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/users/u0001")
    settled(page)
    page.get_by_label("Category").select_option("mug")
    wanted = served(page, service, user_id="u0001", filter={"category": "mug"})
    expect(page.locator(".ranked > li")).to_have_count(len(wanted))
    assert ids(page) == [item["item_id"] for item in wanted]
    page.get_by_label("Diversity").fill("0.6")
    diverse = served(page, service, user_id="u0001", filter={"category": "mug"}, diversity=0.6)
    expect(page.locator(".ranked > li").nth(1)).to_have_attribute("data-item", str(diverse[1]["item_id"]))


def test_hostile_titles_are_text(page: Page, service: Service, shop: Shop) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a title was run: {dialog.message}"))
    page.goto(f"{service.url}/console#/items")
    page.get_by_role("combobox").fill("owned")
    page.get_by_role("option", name="kettle").click()
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert page.locator("main script, main img[src=x]").count() == 0
    expect(page.locator(".short li").first).to_be_visible()


def test_pictures_are_those_of_the_catalogue_and_only_where_there_are_any(watched: Watched, service: Service) -> None:
    asked = []
    watched.page.on("response", lambda answer: asked.append(answer) if answer.url.endswith("/image") else None)
    watched.page.goto(f"{service.url}/console#/items")
    expect(watched.page.locator(".pic.seen").first).to_be_visible()
    assert {answer.status for answer in asked} == {200}
    for picture in watched.page.locator(".pic.seen img").all()[:3]:
        assert picture.evaluate("image => image.naturalWidth") > 0


def test_two_models_differ_for_a_user_as_their_answers_do(page: Page, service: Service, shop: Shop) -> None:
    page.goto(f"{service.url}/console#/models")
    settled(page)
    page.get_by_role("combobox", name="User to compare for").fill("u0001")
    page.get_by_role("option", name=re.compile("u0001")).click()
    expect(page.locator(".pairs > div")).to_have_count(2)
    live = [item["item_id"] for item in served(page, service, user_id="u0001")]
    after = page.locator(".pairs > div").nth(1).locator("a.what")
    expect(after).to_have_count(20)
    assert [link.get_attribute("href") for link in after.all()] == [f"#/items/{item}" for item in live]
    before = page.locator(".pairs > div").nth(0).locator("a.what")
    gone = {link.get_attribute("href") for link in before.all()} - {f"#/items/{item}" for item in live}
    expect(page.locator(".badge", has_text="gone")).to_have_count(len(gone))
    assert gone


def test_the_page_asks_nobody_but_the_service(browser: Browser, service: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for view in VIEWS:
        page.goto(f"{service.url}/console#/{view}")
        settled(page)
    context.close()
    assert asked
    assert {url for url in asked if not url.startswith((service.url, "blob:", "data:"))} == set()
