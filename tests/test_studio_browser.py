"""The studio's rooms in a real browser: Debian's Chromium, through Playwright's Python package.

Each step waits for a state of the page or of the studio, however long a busy machine takes to get there. Skipped where
Gradio, Chromium or Playwright is absent.
"""

import base64
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from studio_opened import digit_of, studio

from ornstein.experiment import background
from ornstein.experiment.course import course
from ornstein.experiment.folder import held_by, newest_step

# a browser beside a whole suite waits longer than a person would
pytestmark = pytest.mark.timeout(900)

CHROMIUM = "/usr/bin/chromium"
ROOMS = ("Playground", "Theory", "Compare", "Edit", "Training", "Report")
#: milliseconds that a state is waited for
PATIENCE = 240_000
FILM = "document.querySelector('.film')"


def until(true: Callable[[], object]) -> None:
    """Wait for a state of the studio."""
    end = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with studio(tmp_path_factory.mktemp("studio")) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"{CHROMIUM} is not there: Debian's package chromium has it")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(opened: Any, browser: Any) -> Iterator[Any]:
    """A page on which the first picture is done; no script failed, and no other host was asked for anything."""
    one = browser.new_page(viewport={"width": 1280, "height": 900})
    one.set_default_timeout(PATIENCE)
    asked, failed = [], []
    one.on("request", lambda request: asked.append(request.url))
    one.on("pageerror", lambda error: failed.append(str(error)))
    one.goto(opened.address)
    one.wait_for_selector(".film[data-done]")
    yield one
    one.close()
    home = opened.address.rstrip("/")
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == []
    assert failed == []


def seen(page: Any, which: int = 0) -> np.ndarray:
    """The pixels (H, W) of a picture of the playground, as the page shows it."""
    uri = page.locator("#film img").nth(which).get_attribute("src")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("L"))


def choose(page: Any, name: str, value: str) -> None:
    """Choose from one of Gradio's menus, until it says so."""
    field = page.locator(f"#{name} input")
    field.click()
    field.fill(value)
    page.locator(f"[role=option][aria-label='{value}']").click()
    page.wait_for_function(
        "([name, value]) => document.querySelector(`#${name} input`).value === value", arg=[name, value]
    )


def open_digits(page: Any) -> None:
    """The playground on the digits; its controls are then those of this run."""
    choose(page, "run", "digits")
    page.get_by_text("Trained on 1,437 images").wait_for()
    page.locator("#label input").wait_for()  # which the first run, of points, has not


def settle(page: Any, name: str, value: int) -> None:
    """A number into a control, and see that it took it."""
    field = page.locator(f"#{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")
    page.wait_for_function(
        "([name, value]) => document.querySelector(`#${name} input[type=number]`).value === value",
        arg=[name, str(value)],
    )


def go_to(page: Any, room: str) -> None:
    page.get_by_role("tab", name=room).click()


def drag(page: Any, canvas: str, *places: tuple[float, float]) -> None:
    """With the mouse pressed, over a canvas, from place to place in shares of its sides."""
    there = page.locator(canvas)
    there.scroll_into_view_if_needed()
    box = there.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()


def test_the_playground_draws_what_is_asked_and_shows_its_way(page: Any) -> None:
    open_digits(page)
    choose(page, "label", "3")
    settle(page, "count", 9)
    before = page.locator(".film").first.get_attribute("data-done")
    page.locator("#draw").click()
    page.wait_for_function(f"k => (({FILM}).dataset.done ?? k) !== k && ({FILM}).querySelector('img')", arg=before)
    end = seen(page)
    digits = torch.tensor(
        np.stack([end[1 + 9 * i : 9 + 9 * i, 1 + 9 * k : 9 + 9 * k] for i in range(3) for k in range(3)])
    )
    assert digit_of((digits.flatten(1).float() / 255 * 16).round()).count(3) >= 8
    slider = page.locator("#film .film-slider")
    slider.focus()
    slider.press("Home")  # by the keyboard, to the noise
    start = seen(page)
    assert np.abs(start.astype(int) - end).mean() > 20  # the pixels are other ones
    assert "noise is" in page.locator("#film .film-said").inner_text()
    assert "ornstein sample digits -n 9 --label 3" in page.locator("#terminal textarea").input_value()
    page.wait_for_selector("#npz a, a#npz, #npz:not([disabled])")
    with page.expect_download() as got:
        page.locator("#npz").click()
    assert np.load(got.value.path())["samples"].shape == (9, 1, 8, 8)


def test_stop_bad_input_reload_and_a_closed_tab(page: Any, opened: Any, browser: Any) -> None:
    desk = opened.studio.desk

    def draw_for_long(one: Any) -> None:
        open_digits(one)
        settle(one, "steps", 200)
        settle(one, "count", 600)
        one.locator("#draw").click()
        one.wait_for_function(f"({FILM}).dataset.done === undefined")
        until(lambda: desk.count() == 1)

    draw_for_long(page)
    page.locator("#stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert desk.count() == 0
    draw_for_long(page)
    busy = time.process_time()
    page.locator("#stop").click()
    until(lambda: desk.count() == 0)
    assert time.process_time() - busy < 1.0  # of the processor, however many others want it too
    page.locator("#seed input").fill("-3")
    page.locator("#draw").click()
    page.get_by_text("seed=-3 must be a whole number from 0").wait_for()
    page.reload()
    page.wait_for_selector(".film[data-done]")
    other = browser.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(opened.address)
    other.wait_for_selector(".film[data-done]")
    draw_for_long(other)
    other.close()
    until(lambda: desk.count() == 0)  # a closed tab frees its job


def test_theory_moves_and_takes_points_drawn_with_the_mouse(page: Any) -> None:
    go_to(page, "Theory")
    page.wait_for_selector(".plane[data-flows='4']")
    pixels = "() => document.querySelector('.plane-density').toDataURL()"
    slider = page.locator(".plane .film-slider")
    slider.press("End")
    data, said = page.evaluate(pixels), page.locator(".plane-flows small")
    assert said.all_inner_texts() == ["t = 0.00", "t = 0.00", "step 240 of 240", "t = 0.00"]
    slider.press("Home")
    noise = page.evaluate(pixels)
    assert noise != data
    assert "t = 1.00" in page.locator(".plane > .film-said").inner_text()
    assert said.all_inner_texts() == ["t = 1.00", "t = 1.00", "step 0 of 240", "t = 1.00"]
    for name in ("dots", "arrows"):  # what is ticked is seen to be, and is drawn
        box = page.locator(f".plane-{name}")
        assert box.is_checked()
        assert box.evaluate("one => getComputedStyle(one).appearance") == "auto"
        box.uncheck()
    assert page.evaluate(pixels) != noise
    for k in (1, 2):  # asked anew before the first is shown: the newer counts
        page.locator("#theory-seed input").fill(str(k))
        page.locator("#show").click()
    page.wait_for_function("document.querySelector('.plane').dataset.key.endsWith(', 2)')")
    page.get_by_text("From the density to noise, and back.").wait_for()
    choose(page, "density", "my own points")
    drag(page, "#pad canvas", (0.2, 0.2), (0.8, 0.2))
    drag(page, "#pad canvas", (0.2, 0.8), (0.8, 0.8))
    field = page.locator("label", has_text="Points").locator("textarea")
    page.wait_for_function("one => one.value.split(';').length > 20", arg=field.element_handle())
    set_ = np.array([[float(x) for x in one.split()] for one in field.input_value().split(";")])
    assert np.abs(np.abs(set_[:, 1]) - 1.8).max() < 0.1  # two lines, where the mouse went: 0.2 and 0.8 of the height
    assert set_[:, 0].min() < -1.6
    assert set_[:, 0].max() > 1.6
    page.wait_for_function("document.querySelector('.plane').dataset.key.includes('my own points')")
    page.wait_for_selector(".plane[data-flows='4']")


def test_compare_and_edit_with_a_mask_painted_with_the_mouse(page: Any) -> None:
    go_to(page, "Compare")
    choose(page, "compare-run", "digits")
    page.locator("#compare-go").click()
    page.wait_for_selector("#versus .versus[data-done='1']")
    assert "deviation apart" in page.locator("#versus").inner_text()
    assert page.locator("#versus img").count() == 3
    go_to(page, "Edit")
    page.wait_for_selector(".mask canvas[data-ready]")
    drag(page, ".mask canvas", (0.1, 0.85), (0.9, 0.85))
    page.locator("#fill").click()
    page.wait_for_selector("#edited .versus[data-done='1']")
    assert page.locator("#edited img").count() == 3
    uri = page.locator("#edited img").first.get_attribute("src")  # what was given, what is hidden in white
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        given = np.asarray(picture.convert("L"))[1:9, 1:9]
    assert (given[6, 1:7] == 255).all()  # the mouse went through the seventh row
    assert given[:3].mean() < 200
    age = page.get_by_label("age of row 1")
    age.fill("")
    age.press("Tab")
    page.locator("#complete").click()
    page.locator("#holes td", has_text="age").first.wait_for()


def row(page: Any, folder: Path, state: str = "") -> Any:
    """The line of a training."""
    found = page.locator(f".training-run[data-run='{folder}']" + (f"[data-state={state}]" if state else ""))
    found.wait_for()
    return found


def charts(page: Any) -> list[bool]:
    """Of the training room's charts, whether there is anything in each."""
    full = "name => { const c = document.querySelector(name); return new Set(c.getContext('2d').getImageData(0, 0,"
    full += " c.width, c.height).data).size > 3; }"
    return [page.evaluate(full, f".training-{one}") for one in ("loss", "held", "noise")]


def train(page: Any, name: str, looks: int) -> None:
    """Begin a training on the moons."""
    go_to(page, "Training")
    page.wait_for_selector("#trainings .training[data-looks]")
    choose(page, "train-data", "moons")
    page.locator("#train-data").get_by_text(background.at_hand()["moons"]).wait_for()  # the controls fit it by then
    page.get_by_role("button", name="More").last.click()
    settle(page, "train-looks", looks)
    page.locator("#train-name input, #train-name textarea").fill(name)
    page.locator("#train").click()


def test_a_training_is_begun_and_stopped(page: Any, opened: Any) -> None:
    go_to(page, "Training")
    row(page, opened.studio.shelf.root / "plane", "done")
    page.wait_for_selector("#trainings .training[data-looks]")
    assert charts(page) == [True, True, True]
    train(page, "../out", 0)
    page.get_by_text("must be of up to 64 letters").wait_for()
    page.locator("#train-name input, #train-name textarea").fill("short")
    page.locator("#train").click()
    folder = opened.studio.shelf.root / "short"
    assert row(page, folder, "training").locator("input").is_checked()
    row(page, folder).get_by_role("button", name="Stop").click()
    row(page, folder, "stopped")
    until(lambda: held_by(folder) is None)


@pytest.mark.slow
def test_a_training_is_watched_paused_found_again_and_gone_on_with(page: Any, opened: Any, tmp_path: Path) -> None:
    train(page, "mine", 100)
    folder = opened.studio.shelf.root / "mine"
    row(page, folder, "training")
    assert page.locator("#train-terminal textarea").input_value().startswith("ornstein train moons training.")
    page.wait_for_selector(".training-samples img")  # drawn while it trains
    assert row(page, folder).locator("input").is_checked()
    assert charts(page) == [True, True, True]
    row(page, folder).get_by_role("button", name="Pause").click()
    row(page, folder, "stopped")
    saved = newest_step(folder)
    assert saved
    assert held_by(folder) is None
    row(page, folder).get_by_role("button", name="Resume").click()
    row(page, folder, "training")
    until(lambda: course("mine", folder).step > saved)
    page.reload()  # a closed page changes nothing, and another finds it
    page.wait_for_selector(".film[data-done]")
    go_to(page, "Training")
    row(page, folder, "training")
    row(page, opened.studio.shelf.root / "plane").locator("input").check()
    page.wait_for_function("document.querySelectorAll('.training-run input:checked').length === 2")  # over each other
    row(page, folder).get_by_role("button", name="Stop").click()
    row(page, folder, "stopped")
    until(lambda: held_by(folder) is None)
    table = tmp_path / "rows.csv"
    rows = [f"{k % 7},{'ab'[k % 2]},{k % 7 + 0.5}" for k in range(300)]
    table.write_text("\n".join(["size,kind,price", *rows]) + "\n")
    choose(page, "train-data", "a file of my own")
    page.locator("#train-file input[type=file]").set_input_files(str(table))
    page.locator("#train-file", has_text="rows").wait_for()
    page.locator("#train").click()
    own = opened.studio.shelf.root / "rows"
    row(page, own, "training").get_by_role("button", name="Stop").click()
    until(lambda: held_by(own) is None)
    assert (own / "uploaded" / "rows.csv").read_text() == table.read_text()


def test_report_and_links_to_the_theory(page: Any) -> None:
    go_to(page, "Report")
    page.wait_for_selector("#gallery tr[data-run='digits']")
    page.get_by_role("button", name="Sort by weights").click()
    first = page.locator("#gallery tbody tr").first.get_attribute("data-run")
    assert first == "digits"  # 485,217 weights, the most
    page.locator("#gallery tr[data-run='digits'] .gallery-pick").click()
    page.get_by_text("class-agreement").wait_for()
    assert page.locator(".report-pictures img").count() >= 2
    widths = set()
    for room in ROOMS:
        go_to(page, room)
        with page.expect_popup() as popup:
            page.locator(".intro-more a:visible").click()
        widths.add(page.locator("main").bounding_box()["width"])
        popup.value.locator("h1").wait_for()
        assert popup.value.title().endswith("- ornstein")
        assert len(popup.value.locator("main").inner_text()) > 1000
        popup.value.close()
    assert len(widths) == 1  # no room makes the page jump


def test_every_room_fits_a_phone_and_its_controls_have_names(opened: Any, browser: Any) -> None:
    one = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    one.set_default_timeout(PATIENCE)
    one.goto(opened.address)
    one.wait_for_selector(".film[data-done]")
    assert one.evaluate("document.body.classList.contains('dark')")
    one.locator(".light").click()
    assert not one.evaluate("document.body.classList.contains('dark')")
    before = one.locator(".film").first.get_attribute("data-done")
    one.locator("#draw").click()  # far below the picture, which is brought to who asked
    one.wait_for_function(f"k => (({FILM}).dataset.done ?? k) !== k", arg=before)
    place = one.locator("#film").bounding_box()
    assert place["y"] < 844
    assert place["y"] + place["height"] > 0
    nameless = """() => [...document.querySelectorAll("input, textarea, button, canvas[role]")].filter((c) =>
      c.offsetParent && !(c.getAttribute("aria-label") || c.getAttribute("aria-labelledby") || c.title ||
      c.textContent.trim() || (c.labels || []).length || c.closest("label"))).map((c) => c.outerHTML.slice(0, 200))"""
    here = "name => [...document.querySelectorAll('.intro h2')].some(h => h.offsetParent && h.textContent === name)"
    for room in ROOMS:
        go_to(one, room)
        one.wait_for_function(here, arg=room)
        assert one.evaluate("document.documentElement.scrollWidth") <= 390, room
        assert one.evaluate(nameless) == [], room
    one.close()
