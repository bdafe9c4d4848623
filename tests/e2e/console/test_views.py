"""The console in a real Chromium, against a real service over a real demo model."""

import json
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from shared import artifact
from tests.e2e.console.conftest import HOSTILE, Service, Shop, Watched, settled, violations

pytestmark = pytest.mark.slow

VIEWS = ("overview", "users", "users/u0001", "items", "live", "models")


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
    state = page.locator(".figures").first
    expect(state).to_contain_text("200 users")
    expect(state.locator(".figure", has_text="Redis")).to_contain_text("answers")
    data = f"{manifest.dataset.interactions:,} interactions"
    expect(state.locator(".figure", has_text="Training data")).to_contain_text(data)
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
    expect(page.get_by_role("option")).to_have_count(12)
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option").last).to_have_attribute("aria-selected", "true")
    page.keyboard.type("u000")
    expect(page.get_by_role("option")).to_have_count(10)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option", name=re.compile("u0002"))).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option", name=re.compile("u0001"))).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(search).to_have_value("u000")
    expect(page.get_by_role("listbox")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="u0001")).to_be_visible()
    expect(page).to_have_url(re.compile("#/users/u0001$"))


def test_enter_takes_what_is_typed_and_never_a_row_of_less_of_it(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/live")
    settled(page)
    search = page.get_by_role("combobox", name="Find an item to click")
    shirts = page.request.get(f"{service.url}/console/api/items?q=shirt&limit=12").json()["items"]
    wanted = shirts[-1]["item_id"]
    search.press_sequentially("shirt")
    expect(page.get_by_role("option")).to_have_count(len(shirts))
    with page.expect_request("**/events") as sent:
        search.press_sequentially(wanted.removeprefix("shirt"))
        search.press("Enter")
    assert sent.value.post_data_json["item_id"] == wanted
    expect(page.get_by_role("list", name="What you clicked").get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_role("listbox")).to_have_count(0)  # a late answer would open it again
    expect(search).to_have_value("")


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

    slider = page.get_by_label("ID", exact=True)
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


def test_a_limit_keeps_at_most_one_of_a_value(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/users/u0001")
    settled(page)
    free = [item["item_id"] for item in served(page, service, user_id="u0001")]
    wanted = [item["item_id"] for item in served(page, service, user_id="u0001", at_most={"category": 1})]
    assert len(wanted) < len(free)
    page.get_by_label("At most", exact=True).fill("1")
    page.get_by_label("of one", exact=True).select_option("Category")
    expect(page.locator(".ranked > li")).to_have_count(len(wanted))
    assert ids(page) == wanted
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".ranked > li")).to_have_count(len(free))
    assert ids(page) == free


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


def test_words_find_items_by_what_they_mean_to_the_encoder(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/items")
    page.get_by_role("searchbox", name="By meaning").fill("mug")
    page.get_by_role("button", name="Search", exact=True).click()
    by_text = page.locator(".pairs > div", has_text="By the text")
    expect(by_text.locator("li")).to_have_count(12)
    for name in by_text.locator(".name").all_inner_texts()[:3]:
        assert "mug" in name.lower()
    expect(page.locator(".pairs > div", has_text="By the student").locator("li")).to_have_count(12)


DROP = """async ([url, zone]) => {
  const blob = await (await fetch(url)).blob();
  const carried = new DataTransfer();
  carried.items.add(new File([blob], "dropped.png", { type: "image/png" }));
  document.querySelector(zone).dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}"""


def pictured(page: Page, service: Service) -> dict[str, object]:
    """An item that has a picture."""
    items = page.request.get(f"{service.url}/console/api/items?limit=20").json()["items"]
    found: dict[str, object] = next(item for item in items if item["metadata"]["image"])
    return found


def test_a_dropped_picture_finds_its_own_item_first(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/items")
    settled(page)
    item = pictured(page, service)
    page.evaluate(DROP, [f"{service.url}/items/{item['item_id']}/image", ".drop"])
    nearest = page.locator(".pairs > div", has_text="By the image").locator("a.what").first
    expect(nearest).to_have_attribute("href", f"#/items/{item['item_id']}")
    expect(page.get_by_alt_text("The picture searched by")).to_be_visible()
    assert violations(page) == []


def test_a_file_that_is_no_picture_is_refused_in_words(watched: Watched, service: Service) -> None:
    page = watched.page
    page.goto(f"{service.url}/console#/items")
    bad = {"name": "bad.png", "mimeType": "image/png", "buffer": b"<script>alert(1)</script>"}
    page.get_by_label("Choose a picture to search by").set_input_files(bad)  # type: ignore[arg-type]
    expect(page.get_by_role("alert")).to_contain_text("picture")
    watched.faults = [fault for fault in watched.faults if "422" not in fault]


def test_the_nearest_items_stand_side_by_side(page: Page, service: Service) -> None:
    item = pictured(page, service)
    page.goto(f"{service.url}/console#/items/{item['item_id']}")
    settled(page)
    expect(page.locator(".pairs h3")).to_have_text(["By the student", "By the image", "By the text"])
    for by in ("image", "text"):
        query = f"item_id={item['item_id']}&by={by}&k=12"
        wanted = page.request.get(f"{service.url}/console/api/near?{query}").json()["items"]
        links = page.locator(".pairs > div", has_text=f"By the {by}").locator("a.what").all()
        assert [link.get_attribute("href") for link in links] == [f"#/items/{each['item_id']}" for each in wanted]


def test_a_click_is_an_event_that_the_service_counts(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/live")
    settled(page)
    chosen = page.get_by_role("list", name="Items to click").get_by_role("listitem").first
    with page.expect_response(lambda answer: answer.url.endswith("/events")) as sent:
        chosen.get_by_role("button").click()
    assert sent.value.json()["accepted"] == 1
    expect(page.get_by_role("list", name="What you clicked").get_by_role("listitem")).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="Event counted")).to_be_visible()


def test_requests_show_up_as_traffic(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/overview")
    requests = page.locator(".flow .figure", has_text="Requests")
    expect(requests).to_contain_text("in all")
    before = int(re.sub(r"\D", "", requests.locator(".note").inner_text()))
    for _ in range(30):
        served(page, service, user_id="u0001")
    expect(requests.locator(".note")).to_have_text(f"{before + 30} in all")
    expect(page.locator(".flow .figure", has_text="Median")).to_contain_text("ms")


def night(items: list[dict[str, object]]) -> dict[str, object]:
    """A night's report, in the form in which the nightly job leaves it."""
    named = [{"item_id": item["item_id"], "title": item["metadata"]["title"]} for item in items]  # type: ignore[index]
    checks = [
        {"name": "ndcg@20", "passed": True, "value": 0.01234, "bound": -0.002, "reason": "0.012 better"},
        {"name": "coverage", "passed": False, "value": 0.2, "bound": 0.5, "reason": "only a fifth is ever shown"},
    ]
    return {
        "started": "2026-11-24T03:00:00+00:00",
        "ended": "2026-11-24T03:20:00+00:00",
        "outcome": "refused",
        "reason": "the gate refused it",
        "reasons": ["only a fifth is ever shown"],
        "champion": None,
        "version": None,
        "steps": [{"step": "train", "seconds": 65.0}],
        "data": {"interactions": 1234},
        "gate": {"verdict": "refused", "champion": None, "judged_users": 77, "checks": checks, "figures": {}},
        "samples": [
            {
                "user_id": "u0001",
                "took": named[:1],
                "held_out": named[1:2],
                "student": [named[1] | {"also": ["image"]}, named[2] | {"also": []}],
                "teachers": {"image": named[1:2], "id": named[3:5]},
                "shares": {"image": 0.5, "id": 0.0},
            }
        ],
    }


@pytest.fixture
def refused_night(page: Page, service: Service, shop: Shop) -> Iterator[None]:
    items = page.request.get(f"{service.url}/console/api/items?limit=8").json()["items"]
    report = night(items)
    own = shop.store / ".nightly"
    (own / "reports").mkdir(parents=True)
    (own / "reports" / "n1.json").write_text(json.dumps(report))
    (own / "reports" / "n1.html").write_text("<!doctype html><title>n1</title>")
    short = ("outcome", "reason", "reasons", "champion", "version", "ended")
    status = {name: report[name] for name in short} | {"seconds": 1200, "report": "reports/n1.json"}
    (own / "status.json").write_text(json.dumps(status | {"last_success": None}))
    yield
    shutil.rmtree(own)


@pytest.mark.usefixtures("refused_night")
def test_the_last_night_says_why_and_who_taught_what(page: Page, service: Service) -> None:
    page.goto(f"{service.url}/console#/overview")
    expect(page.locator(".card", has_text="Last night")).to_contain_text("Only a fifth is ever shown")
    page.get_by_role("link", name="What the gate saw").click()
    settled(page)
    rows = page.get_by_role("table").locator("tbody").get_by_role("row")
    expect(rows.first).to_contain_text("coverage")  # what failed comes first
    expect(rows.first).to_contain_text("failed")
    student = page.locator(".pairs > div", has_text="Student")
    expect(student.locator("li")).to_have_count(2)
    expect(student.locator("li").nth(0)).to_contain_text("taken")
    expect(student.locator("li").nth(0)).to_contain_text("Image")
    expect(student.locator("li").nth(1)).to_contain_text("the student alone")
    expect(page.locator(".pairs > div", has_text="ID teacher").locator("li")).to_have_count(2)
    assert violations(page) == []
    with page.expect_download() as kept:
        page.get_by_role("button", name="Download the report").click()
    assert kept.value.path().read_text() == "<!doctype html><title>n1</title>"
