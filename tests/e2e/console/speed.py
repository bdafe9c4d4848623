"""Measures how soon the console's views are there with a large catalogue, in Chromium.

.venv/bin/python -m tests.e2e.console.speed [ITEMS]

The model is of random numbers and texts of 45 words. *first* is a page that is opened at that view, of a service that
has just started and that nobody has asked anything; *again* is the same page loaded once more; *after overview* is
going there from the overview, where somebody has looked for 5 seconds.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.console.conftest import CHROMIUM_FLAGS, Service, settled
from trainer.measurement.random_model import publish_random_model

USERS, WORDS, VOCABULARY = 20_000, 45, 5_000
LOOKED_SECONDS = 5.0
VIEWS = ("overview", "users", "users/u7", "items", "items/i7", "live", "models")


def texts(items: int) -> list[dict[str, object]]:
    """The metadata of so many items; words are ``w0`` to ``w4999``."""
    words = np.array([f"w{word}" for word in range(VOCABULARY)])
    drawn = words[np.random.default_rng(0).integers(0, VOCABULARY, (items, WORDS))].tolist()
    return [
        {"title": " ".join(text[:5]), "description": " ".join(text[5:]), "category": f"c{item % 20}", "price": item}
        for item, text in enumerate(drawn)
    ]


@contextmanager
def just_started(store: Path) -> Iterator[str]:
    """The address of a service that has just started."""
    service = Service(store, store)
    service.start()
    try:
        yield service.url
    finally:
        service.stop()


def seconds(page: Page, act: Callable[[], object]) -> float:
    """From what is done until the page shows what it wants to, with nothing loading any more."""
    started = time.perf_counter()
    act()
    settled(page)
    return time.perf_counter() - started


def first_and_again(page: Page, url: str, view: str) -> tuple[float, float]:
    """Open a page at a view, and once more."""
    page.goto("about:blank")
    return seconds(page, lambda: page.goto(f"{url}/console/#/{view}")), seconds(page, page.reload)


def after_overview(page: Page, url: str) -> float:
    """Look at the overview, then go to the items."""
    page.goto(f"{url}/console/#/overview")
    page.wait_for_timeout(LOOKED_SECONDS * 1000)
    return seconds(page, lambda: page.locator("a[href='#/items']").first.click())


def found(page: Page) -> float:
    """Type two words of an item, and wait for it to be offered."""
    box = page.get_by_placeholder("Find an item by its words or id")
    started = time.perf_counter()
    box.fill("w17 w4")
    expect(page.get_by_role("option").first).to_be_visible()
    return time.perf_counter() - started


def main(items: int) -> None:
    """Print a table."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    expect.set_options(timeout=60_000)
    with tempfile.TemporaryDirectory(prefix="mts4mm-console-") as folder, sync_playwright() as playwright:
        store = Path(folder) / "models"
        publish_random_model(store, USERS, texts(items))
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1240, "height": 860}, reduced_motion="reduce")
        print(f"{items:,} items; seconds until the view is there\n{'view':<12}{'first':>8}{'again':>8}")
        for view in VIEWS:
            with just_started(store) as url:
                first, again = first_and_again(page, url, view)
            print(f"{view:<12}{first:8.2f}{again:8.2f}", flush=True)
        with just_started(store) as url:
            print(f"items, after overview: {after_overview(page, url):.2f}")
            print(f"a search of two words, from the keys to the item: {found(page):.2f}")
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
