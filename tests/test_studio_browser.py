# In a browser ---------------------------------------------------------------------------------------------------------


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
    one.set_default_timeout(60_000)
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
    uri = page.locator(".film img").nth(which).get_attribute("src")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("L"))


def choose(page: Any, name: str, value: str) -> None:
    """Choose from one of Gradio's menus, as with the keyboard."""
    field = page.locator(f"#{name} input")
    field.click()
    field.fill(value)
    page.locator("[role=option]", has_text=value).first.wait_for()  # the menu has it
    field.press("Enter")


@pytest.mark.slow  # a browser beside a whole suite waits longer than a person would
def test_the_playground_draws_what_is_asked_and_shows_its_way(page: Any) -> None:
    choose(page, "run", "digits")
    page.get_by_text("Trained on 1,437 images").wait_for()  # the controls become those of this run with it
    page.wait_for_timeout(500)
    choose(page, "label", "3")
    page.locator("#count input[type=number]").fill("9")
    before = page.locator(".film").get_attribute("data-done")
    page.locator("#draw").click()
    page.wait_for_function(f"k => (({FILM}).dataset.done ?? k) !== k && ({FILM}).querySelector('img')", arg=before)
    end = seen(page)
    digits = torch.tensor(
        np.stack([end[1 + 9 * i : 9 + 9 * i, 1 + 9 * k : 9 + 9 * k] for i in range(3) for k in range(3)])
    )
    assert digit_of((digits.flatten(1).float() / 255 * 16).round()).count(3) >= 8
    slider = page.locator(".film .film-slider")
    slider.focus()
    slider.press("Home")  # by the keyboard, to the noise
    start = seen(page)
    assert np.abs(start.astype(int) - end).mean() > 20
    assert "noise is" in page.locator(".film .film-said").inner_text()
    assert "ornstein sample digits -n 9 --label 3" in page.locator("#terminal textarea").input_value()
    page.wait_for_selector("#npz a, a#npz, #npz:not([disabled])")
    with page.expect_download() as got:
        page.locator("#npz").click()
    assert np.load(got.value.path())["samples"].shape == (9, 1, 8, 8)


@pytest.mark.slow  # a browser beside a whole suite waits longer than a person would
def test_stop_bad_input_and_a_closed_tab(page: Any, opened: Any, browser: Any) -> None:
    desk = opened.studio.desk
    choose(page, "run", "digits")
    page.get_by_text("Trained on 1,437 images").wait_for()
    page.locator("#steps input[type=number]").fill("200")
    page.locator("#count input[type=number]").fill("900")
    page.locator("#draw").click()
    page.wait_for_function(f"({FILM}).dataset.done === undefined")
    assert desk.count() == 1
    page.locator("#stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert desk.count() == 0
    page.locator("#seed input").fill("-3")
    page.locator("#draw").click()
    page.get_by_text("seed=-3 must be a whole number from 0").wait_for()
    page.reload()
    page.wait_for_selector(".film[data-done]")
    other = browser.new_page()
    other.goto(opened.address)
    other.wait_for_selector(".film[data-done]", timeout=60_000)
    choose(other, "run", "digits")
    other.get_by_text("Trained on 1,437 images").wait_for()
    other.locator("#steps input[type=number]").fill("200")
    other.locator("#count input[type=number]").fill("900")
    other.locator("#draw").click()
    other.wait_for_function(f"({FILM}).dataset.done === undefined")
    assert desk.count() == 1
    other.close()
    until = time.monotonic() + 20
    while desk.count() and time.monotonic() < until:
        time.sleep(0.1)
    assert desk.count() == 0  # a closed tab frees its job


@pytest.mark.slow  # a browser beside a whole suite waits longer than a person would
def test_theory_compare_edit_and_report(page: Any) -> None:
    page.get_by_role("tab", name="Theory").click()
    page.wait_for_selector(".plane[data-flows='4']")
    pixels = "() => document.querySelector('.plane-density').toDataURL()"
    slider = page.locator(".plane .film-slider")
    slider.press("End")
    data = page.evaluate(pixels)
    slider.press("Home")
    assert page.evaluate(pixels) != data
    assert "t = 1.00" in page.locator(".plane .film-said").inner_text()
    page.get_by_role("tab", name="Compare").click()
    choose(page, "compare-run", "digits")
    page.locator("#compare-go").click()
    page.wait_for_selector(".versus[data-done='1']")
    assert "deviation apart" in page.locator(".versus").inner_text()
    assert page.locator(".versus img").count() == 3
    page.get_by_role("tab", name="Edit").click()
    page.wait_for_function("document.querySelector('.mask canvas').height > 100")
    page.get_by_role("button", name="lower half").click()
    page.locator("#fill").click()
    page.wait_for_selector("#edited .versus[data-done='1']")
    assert page.locator("#edited img").count() == 3
    age = page.get_by_label("age of row 1")
    age.fill("")
    age.press("Tab")
    page.locator("#complete").click()
    page.locator("#holes td", has_text="age").first.wait_for()
    page.get_by_role("tab", name="Report").click()
    page.wait_for_selector("#gallery tr[data-run='digits']")
    page.get_by_role("button", name="Sort by weights").click()
    first = page.locator("#gallery tbody tr").first.get_attribute("data-run")
    assert first == "digits"  # 485,217 weights, the most
    page.locator("#gallery tr[data-run='digits'] .gallery-pick").click()
    page.get_by_text("class-agreement").wait_for()
    assert page.locator(".report-pictures img").count() >= 2
