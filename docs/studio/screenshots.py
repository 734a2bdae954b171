"""Takes the pictures of the studio that the docs show: each room at desktop width in light, at phone width in dark.

    python docs/studio/screenshots.py [--out docs/studio] [--only ROOM] [--steps 800]

It works in a folder of its own, in which it trains two small models to show the training room; a few minutes. Needs the
studio's extra, Playwright's Python package and Debian's chromium.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ornstein.experiment import background
from ornstein.experiment.course import PREPARING, TRAINING, course
from ornstein.studio.server import open_studio

CHROMIUM = "/usr/bin/chromium"
#: name -> width, height, colours
SIZES: dict[str, tuple[int, int, Any]] = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}


def playground(page: Any) -> None:
    """Nothing to do: it draws when it is opened."""


def theory(page: Any) -> None:
    page.wait_for_selector(".plane[data-flows='4']")


def compare(page: Any) -> None:
    page.locator("#compare-go").click()
    page.wait_for_selector("#versus .versus[data-done='1']")


def edit(page: Any) -> None:
    page.wait_for_selector(".mask canvas[data-ready]")
    page.get_by_role("button", name="lower half").click()
    page.locator("#fill").click()
    page.wait_for_selector("#edited .versus[data-done='1']")
    page.locator("#complete").click()
    page.wait_for_selector("#holes table")


def training(page: Any) -> None:
    """Both runs over each other, and of one the samples."""
    for name in ("runs/digits-flow", "runs/digits-v"):
        page.locator(f".training-run[data-run='{name}'] input").check()
    page.wait_for_function("document.querySelectorAll('.training-run input:checked').length === 2")
    page.wait_for_selector(".training-samples img")


def report(page: Any) -> None:
    page.wait_for_selector("#gallery tbody tr")
    page.locator("#gallery tr[data-run='digits'] .gallery-pick").click()
    page.wait_for_selector("#report-left .measures")


Rooms = dict[str, Callable[[Any], None]]
#: before anything is trained, and after it
BEFORE: Rooms = {"playground": playground, "theory": theory, "compare": compare, "edit": edit}
AFTER: Rooms = {"training": training, "report": report}


def trained(steps: int) -> None:
    """Two runs on the same data by two methods, one after the other."""
    for name, changes in (("v", []), ("flow", ["preset=flow"])):
        folder = Path("runs") / f"digits-{name}"
        background.begin("digits", [f"training.steps={steps}", "training.validate_every=100", *changes], folder)
        try:
            while course(folder.name, folder).state in (PREPARING, TRAINING):
                time.sleep(1)
        except BaseException:
            background.stop(folder)
            raise


def pictured(browser: Any, address: str, rooms: Rooms, out: Path) -> None:
    """A picture of each room in each size."""
    for size, (width, height, colours) in SIZES.items():
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
        page.set_default_timeout(240_000)
        page.goto(address)
        page.wait_for_selector(".film[data-done]")
        for name, ready in rooms.items():
            page.get_by_role("tab", name=name.capitalize()).click()
            ready(page)
            page.wait_for_timeout(1500)  # what moves into its place has done so
            place = out / f"{name}-{size}.png"
            page.screenshot(path=place, full_page=True)
            with Image.open(place) as picture:
                picture.convert("RGB").quantize(160).save(place, optimize=True)
        page.close()


def main() -> None:
    asked = argparse.ArgumentParser(description="Takes the pictures of the studio.")
    asked.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked.add_argument("--only", choices=(*BEFORE, *AFTER))
    asked.add_argument("--steps", type=int, default=800, help="of the two models that are trained")
    said = asked.parse_args()
    out, only = said.out.resolve(), said.only
    before, after = ({name: do for name, do in rooms.items() if only in (None, name)} for rooms in (BEFORE, AFTER))
    with tempfile.TemporaryDirectory() as empty, sync_playwright() as started:
        os.chdir(empty)  # so that runs are called runs/NAME, as at home
        studio = open_studio(Path("runs"), port=0, block=False)
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        if before:
            pictured(chromium, studio.address, before, out)
        if after:
            trained(said.steps)
            pictured(chromium, studio.address, after, out)
        chromium.close()
        studio.close()
        os.chdir(out)


if __name__ == "__main__":
    main()
