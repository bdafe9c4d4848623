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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from shared import artifact
from shared.artifact import DatasetInfo, Provenance, Split, StudentModel
from tests.e2e.console.conftest import CHROMIUM_FLAGS, Service, settled

USERS, WIDTH, TAKEN, WORDS, VOCABULARY = 20_000, 64, 10, 45, 5_000
LOOKED_SECONDS = 5.0
VIEWS = ("overview", "users", "users/u7", "items", "items/i7", "live", "models")


def publish(store: Path, items: int) -> None:
    """Publish a model with so many items; words of a text are ``w0`` to ``w4999``."""
    draw = np.random.default_rng(0)
    words = np.array([f"w{word}" for word in range(VOCABULARY)])
    texts = words[draw.integers(0, VOCABULARY, (items, WORDS))]
    seen = np.sort(draw.integers(0, items - TAKEN, (USERS, TAKEN)), axis=1) + np.arange(TAKEN)
    model = StudentModel(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(items)],
        user_embeddings=draw.normal(size=(USERS, WIDTH)).astype(np.float32),
        item_embeddings=draw.normal(size=(items, WIDTH)).astype(np.float32),
        train_indptr=np.arange(USERS + 1) * TAKEN,
        train_indices=seen.ravel(),
        items=[
            {"title": " ".join(text[:5]), "description": " ".join(text[5:]), "category": f"c{item % 20}", "price": item}
            for item, text in enumerate(texts.tolist())
        ],
    )
    dataset = DatasetInfo(
        name=f"random-{items}",
        fingerprint="",
        users=USERS,
        items=items,
        interactions=USERS * TAKEN,
        split=Split(kind="none"),
    )
    artifact.publish(store, model, Provenance(dataset, {}, 0, {}))


def seconds(page: Page, act: Callable[[], object]) -> float:
    """From what is done until the page shows what it wants to, with nothing loading any more."""
    started = time.perf_counter()
    act()
    settled(page)
    return time.perf_counter() - started


def first_and_again(page: Page, service: Service, view: str) -> tuple[float, float]:
    """Open a page at a view of a service that has just started, and once more."""
    service.port = 0
    service.start()
    page.goto("about:blank")
    first = seconds(page, lambda: page.goto(f"{service.url}/console/#/{view}"))
    again = seconds(page, page.reload)
    return first, again


def after_overview(page: Page, service: Service) -> float:
    """Look at the overview of a service that has just started, then go to the items."""
    service.port = 0
    service.start()
    page.goto(f"{service.url}/console/#/overview")
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
        publish(store, items)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": 1240, "height": 860}, reduced_motion="reduce")
        service = Service(store, store)
        print(f"{items:,} items; seconds until the view is there\n{'view':<12}{'first':>8}{'again':>8}")
        for view in VIEWS:
            first, again = first_and_again(page, service, view)
            print(f"{view:<12}{first:8.2f}{again:8.2f}", flush=True)
            service.stop()
        print(f"items, after overview: {after_overview(page, service):.2f}")
        print(f"a search of two words, from the keys to the item: {found(page):.2f}")
        service.stop()
        browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
