"""Takes the pictures of the studio that the docs show: each room at desktop and at phone width.

    python docs/studio/screenshots.py [RUNS-FOLDER] [--out docs/studio]

Needs the studio's extra, Playwright's Python package and Debian's chromium.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ornstein.studio.server import open_studio

CHROMIUM = "/usr/bin/chromium"
#: name -> width, height, colours
SIZES: dict[str, tuple[int, int, Any]] = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}


def playground(page: Any) -> None:
    """Nothing to do: it draws when it is opened."""


def theory(page: Any) -> None:
    page.get_by_role("tab", name="Theory").click()
    page.wait_for_selector(".plane[data-flows='4']")


def compare(page: Any) -> None:
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-go").click()
    page.wait_for_selector(".versus[data-done='1']")


def edit(page: Any) -> None:
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="lower half").click()
    page.locator("#fill").click()
    page.wait_for_selector("#edited .versus[data-done='1']")
    page.locator("#complete").click()
    page.wait_for_selector("#holes table")


def report(page: Any) -> None:
    page.get_by_role("tab", name="Report").click()
    page.wait_for_selector("#gallery tbody tr")
    page.locator("#gallery tr[data-run='digits'] .gallery-pick").click()
    page.wait_for_selector(".measures")


ROOMS: dict[str, Callable[[Any], None]] = {
    "playground": playground, "theory": theory, "compare": compare, "edit": edit, "report": report,
}  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description="Takes the pictures of the studio.")
    asked.add_argument("runs", type=Path, nargs="?", help="the runs folder; none for the carried models alone")
    asked.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked.add_argument("--only", choices=ROOMS)
    said = asked.parse_args()
    with tempfile.TemporaryDirectory() as empty, sync_playwright() as started:
        studio = open_studio(said.runs or Path(empty), port=0, block=False)
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for size, (width, height, colours) in SIZES.items():
            page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
            page.set_default_timeout(240_000)
            page.goto(studio.address)
            page.wait_for_selector(".film[data-done]")
            for name, open_room in ROOMS.items():
                if said.only in (None, name):
                    open_room(page)
                    page.wait_for_timeout(1500)
                    place = said.out / f"{name}-{size}.png"
                    page.screenshot(path=place, full_page=True)
                    with Image.open(place) as picture:
                        picture.convert("RGB").quantize(160).save(place, optimize=True)
            page.close()
        chromium.close()
        studio.close()


if __name__ == "__main__":
    main()
