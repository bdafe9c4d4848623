"""Takes the pictures of the console that the README shows, from a service that runs.

make demo                                                                    in one terminal, and in another
.venv/bin/python -m tests.e2e.console.pictures http://localhost:8000 docs/images
"""

import io
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

WIDE, PHONE = (1240, 860), (390, 800)


@dataclass(frozen=True)
class Shot:
    """A picture: the view, how it looks, and what to type into its box for words."""

    name: str
    view: str
    scheme: str = "light"
    size: tuple[int, int] = WIDE
    words: str = ""


SHOTS = (
    Shot("users", "users/u0001"),
    Shot("items", "items/{item}"),
    Shot("overview", "overview", "dark"),
    Shot("search", "items", words="warm colours for the kitchen"),
    Shot("models", "models", "dark"),
    Shot("live", "live"),
    Shot("night", "overview/night"),
    Shot("phone", "users/u0001", "dark", PHONE),
    Shot("phone-overview", "overview", size=PHONE),
    Shot("phone-items", "items/{item}", size=PHONE),
    Shot("add", "items", size=WIDE),
)


def take(page: Page, url: str, shot: Shot) -> bytes:
    """Go to a view, wait until nothing loads any more, and take its picture."""
    item = page.request.get(f"{url}/console/api/shelf?limit=3").json()["items"][1]["item_id"]
    page.set_viewport_size({"width": shot.size[0], "height": shot.size[1]})
    page.emulate_media(color_scheme=shot.scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto(f"{url}/console#/{shot.view.format(item=item)}")
    page.reload()
    if shot.words:
        page.get_by_role("searchbox", name="By meaning").fill(shot.words)
        page.get_by_role("button", name="Search", exact=True).click()
    if shot.name == "add":
        page.get_by_role("button", name="Add an item").click()
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator(".ghost")).to_have_count(0)
    page.wait_for_timeout(2500)  # pictures come in, and the overview measures traffic
    return page.screenshot()


def main(url: str, folder: Path, names: set[str]) -> None:
    """Write ``console-NAME.png`` for each picture, or for those of these names."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        for shot in SHOTS:
            if names and shot.name not in names:
                continue
            path = folder / f"console-{shot.name}.png"
            Image.open(io.BytesIO(take(page, url, shot))).convert("RGB").save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), set(sys.argv[3:]))
