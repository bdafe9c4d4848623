"""The console when something is wrong: keys that are not accepted, a service that goes away, no model at all."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from shared.api_keys import Scope, new_key, save_keys
from tests.e2e.console.conftest import ELSEWHERE, Service, Shop, Watched, settled, violations

pytestmark = pytest.mark.slow


def forget(watched: Watched, *expected: str) -> None:
    """Take away the faults that a browser reports of itself where a request is refused."""
    watched.faults = [fault for fault in watched.faults if not any(word in fault for word in expected)]


@pytest.fixture
def guarded(shop: Shop, tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    """A service that asks for keys, and its keys file."""
    keys = tmp_path / "keys.json"
    save_keys(keys, [new_key("nobody", [Scope.READ])[1]])
    environment = {"MTS4MM_KEYS": str(keys), "MTS4MM_STATE": str(tmp_path / "state")}
    service = Service(shop.store, shop.folder, environment)
    service.start()
    yield service, keys
    service.stop()


def test_a_key_is_asked_for_kept_in_the_tab_and_asked_for_again_when_it_is_revoked(
    watched: Watched, guarded: tuple[Service, Path]
) -> None:
    page, (service, keys) = watched.page, guarded
    secret, entry = new_key("ada", [Scope.READ])
    other = new_key("bob", [Scope.READ])[1]
    save_keys(keys, [entry, other])
    page.wait_for_timeout(1200)  # the service looks at the file once a second
    page.goto(f"{service.url}/console#/users/u0001")
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Key", exact=True).fill(secret)
    page.get_by_role("button", name="Use key").click()
    expect(page.locator(".ranked > li")).to_have_count(20)
    expect(page.locator(".pic.seen").first).to_be_visible()  # pictures come by the key, too
    assert page.evaluate("[sessionStorage.getItem('mts4mm.key'), localStorage.getItem('mts4mm.key')]") == [secret, None]
    assert secret not in page.url

    save_keys(keys, [other])
    page.wait_for_timeout(1200)
    page.evaluate("location.hash = '#/models'")  # a picture that comes late may have opened the dialog already
    expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text(re.compile("not known here.*revoked"))
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    forget(watched, "401")


def test_an_expired_key_is_told_from_a_wrong_one_and_a_new_one_goes_on(
    watched: Watched, guarded: tuple[Service, Path]
) -> None:
    page, (service, keys) = watched.page, guarded
    (secret, entry), (fresh, other) = new_key("ada", [Scope.READ]), new_key("bob", [Scope.READ])
    save_keys(keys, [entry, other])
    page.wait_for_timeout(1200)
    page.goto(f"{service.url}/console#/users/u0001")
    page.get_by_label("Key", exact=True).fill(secret)
    page.get_by_role("button", name="Use key").click()
    expect(page.locator(".ranked > li")).to_have_count(20)

    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    save_keys(keys, [entry.model_copy(update={"expires": soon}), other])
    page.wait_for_timeout(1600)
    page.evaluate("location.hash = '#/models'")
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_role("alert")).to_have_text(
        f"This API key expired on {soon:%Y-%m-%d at %H:%M} UTC. Ask for a new one."
    )
    assert violations(page) == []
    page.get_by_label("Key", exact=True).fill(fresh)
    page.get_by_role("button", name="Use key").click()
    expect(page.get_by_role("heading", name="Models")).to_be_visible()
    expect(page.get_by_role("table").first.get_by_role("row")).to_have_count(3)
    expect(dialog).to_have_count(0)
    forget(watched, "401")


def test_a_key_that_lacks_a_scope_is_replaced_without_losing_what_was_filled_in(
    watched: Watched, guarded: tuple[Service, Path]
) -> None:
    page, (service, keys) = watched.page, guarded
    (reading, reader), (ruling, ruler) = new_key("ada", [Scope.READ]), new_key("bob", [Scope.READ, Scope.ADMIN])
    save_keys(keys, [reader, ruler])
    page.wait_for_timeout(1200)
    held: list[Route] = []
    page.route("**/console/api/items*", lambda route: held.append(route), times=1)
    with page.expect_request("**/console/api/items*"):
        page.goto(f"{service.url}/console#/items")
    secret, use = page.get_by_label("Key", exact=True), page.get_by_role("button", name="Use key")
    secret.fill("schlüssel\u200b")
    use.click()
    expect(secret).to_be_visible()  # what no header can carry is no key
    secret.fill(reading)
    use.click()
    held[0].continue_()  # asked for before there was a key
    settled(page)
    expect(page.get_by_role("heading", name="Most interactions")).to_be_visible()

    page.get_by_role("button", name="Add an item").click()
    page.get_by_label("Id", exact=True).fill("mug")
    page.get_by_label("Title", exact=True).fill("Red mug")
    page.get_by_role("button", name="Add", exact=True).click()
    alert = page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_have_text("This API key lacks the scope 'admin'.")
    secret.fill(ruling)
    use.click()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("Retrievable after")).to_be_visible()
    forget(watched, "401", "403")


def test_without_keys_a_refusal_does_not_ask_for_one(watched: Watched, service: Service) -> None:
    page = watched.page
    page.goto(f"{service.url}/console#/live")
    settled(page)
    foreign = {"origin": "https://x.test", "sec-fetch-site": "cross-site"}

    def from_another_site(route: Route) -> None:
        route.fulfill(response=route.fetch(headers={**route.request.headers, **foreign}))

    page.route("**/events", from_another_site)
    page.get_by_role("list", name="Items to click").get_by_role("button").first.click()
    expect(page.locator(".toast")).to_contain_text("A page of another site may change nothing")
    expect(page.get_by_role("dialog")).to_have_count(0)
    forget(watched, "403")


def test_a_service_that_goes_away_is_looked_for_and_the_view_comes_back_with_it(watched: Watched, shop: Shop) -> None:
    page = watched.page
    service = Service(shop.store, shop.folder)
    service.start()
    page.goto(f"{service.url}/console#/users/u0001")
    expect(page.locator(".ranked > li")).to_have_count(20)
    service.stop()
    page.get_by_label("Diversity").fill("0.5")
    expect(page.get_by_text("The service does not answer. Looking for it")).to_be_visible()
    assert violations(page) == []
    service.start()
    expect(page.get_by_text("Looking for it")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".ranked > li")).to_have_count(20)
    expect(page.get_by_label("Diversity")).to_have_value("0.5")
    forget(watched, "ERR_CONNECTION", "ERR_EMPTY_RESPONSE")
    service.stop()


def test_over_plain_http_from_another_machine_the_live_view_works(watched: Watched, service: Service) -> None:
    page = watched.page
    page.goto(f"{service.url.replace('127.0.0.1', ELSEWHERE)}/console#/live")
    assert not page.evaluate("isSecureContext")
    settled(page)
    page.get_by_role("list", name="Items to click").get_by_role("button").first.click()
    expect(page.get_by_role("list", name="What you clicked").get_by_role("listitem")).to_have_count(1)


def test_an_address_of_no_view_shows_the_overview(watched: Watched, service: Service) -> None:
    watched.page.goto(f"{service.url}/console#/constructor")
    expect(watched.page.get_by_role("heading", name="Overview")).to_be_visible()


def test_an_address_that_cannot_be_read_is_said_to_be_wrong(watched: Watched, service: Service) -> None:
    watched.page.goto(f"{service.url}/console#/items/100%25%")
    expect(watched.page.get_by_role("alert")).to_contain_text("URI malformed")
    expect(watched.page.get_by_role("button", name="Try again")).to_be_visible()


def test_without_a_model_every_view_says_so(watched: Watched, shop: Shop, tmp_path: Path) -> None:
    page = watched.page
    service = Service(tmp_path / "none", shop.folder)
    service.store.mkdir()
    service.start()
    for view, said in (
        ("overview", "There is no model yet"),
        ("users", "No model is loaded"),
        ("items", "No model is loaded"),
        ("live", "No model is loaded"),
        ("models", "There is no model yet"),
    ):
        page.goto(f"{service.url}/console#/{view}")
        expect(page.get_by_text(said).first).to_be_visible()
        settled(page)
    forget(watched, "503")
    service.stop()
