"""One shop with two models, one service and one Chromium for all tests of the console; a page for each."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from shared import artifact
from tests.e2e.conftest import Cli

HOSTILE = "<script>alert('owned')</script><img src=x onerror=alert(1)> kettle"
"""The title of an item, as somebody who means harm would write it."""
SECONDS_TO_START = 60
ELSEWHERE = "shop.test"
"""A name of this machine that a browser does not take for its own, so that plain HTTP from it is not secure."""
CHROMIUM_FLAGS = (
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Service:
    """A service process over one store."""

    store: Path
    catalogue: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "service", "--models", self.store, "--catalogue", self.catalogue]
        log = self.store.parent / "service.log"
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*map(str, command), "--port", str(self.port)],
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            found = re.search(r"Listening on http://127\.0\.0\.1:(\d+)", log.read_text())
            if found:
                self.port = int(found[1])
                if self._answers():
                    return
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/livez", timeout=2):
                return True
        except OSError:
            return False


@dataclass(frozen=True)
class Shop:
    """A demo shop, one of whose items has a hostile title, and a store with two models of it, the later one live."""

    folder: Path
    store: Path
    versions: list[str]
    hostile: str


@pytest.fixture(scope="session")
def shop(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("console")
    made = cli("demo-data", folder / "shop", "--users", 200, "--items", 100)
    assert made.returncode == 0, made.stderr
    hostile = _rename_first_item(folder / "shop" / "items.csv")
    store = folder / "models"
    for seed in (0, 1):
        options = ("--recipe", "demo", "--set", "epochs=3", "--seed", seed)
        run = cli("train", folder / "shop", "--out", store, *options)
        assert run.returncode == 0, run.stderr
    versions = [summary.version for summary in artifact.list_versions(store)]
    assert len(versions) == 2
    return Shop(folder / "shop", store, versions, hostile)


def _rename_first_item(table: Path) -> str:
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["title"] = HOSTILE
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows[0]["item_id"]


@pytest.fixture(scope="session")
def service(shop: Shop) -> Iterator[Service]:
    service = Service(shop.store, shop.folder)
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one file: Playwright's event loop runs as long, and tests after it may want one of their own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium: install it (Debian: apt-get install chromium), or run `make test`, which does"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()


class Watched:
    """A page and what went wrong on it: console errors, broken policies and exceptions."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A desktop page that is judged at the end: nothing may have gone wrong that the test did not take away."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    expect.set_options(timeout=10_000)
    watched = Watched(context.new_page())
    yield watched
    faults = list(watched.faults)
    context.close()
    assert not faults


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def settled(page: Page) -> None:
    """Wait until nothing is loading any more."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(".ghost")).to_have_count(0)


def violations(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is shown, by rule and element."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]
