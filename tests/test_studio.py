"""The studio: its line of jobs, what it keeps at home, and its rooms in a real browser.

What wants Gradio, or Debian's Chromium and Playwright, is skipped where they are absent.
"""

import asyncio
import base64
import dataclasses
import io
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sure import Cli

from ornstein.core.chains import Tabulated
from ornstein.errors import InputError
from ornstein.experiment import packaged, theory
from ornstein.experiment.compare import reference
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, Seen, rows_of, stream
from ornstein.studio.desk import EACH, MOST, Desk, Job, Stopped

CHROMIUM = "/usr/bin/chromium"
FILM = "document.querySelector('.film')"


# The line of jobs -----------------------------------------------------------------------------------------------------


def busy(seconds: float, log: list[str], name: str) -> Any:
    """A job that computes for so long, in ticks of a hundredth of a second."""

    def work(job: Job) -> str:
        for _ in range(round(seconds * 100)):
            time.sleep(0.01)
            job.tick()
        log.append(name)
        return name

    return work


async def followed(desk: Desk, *jobs: Job) -> list[Any]:
    async def one(job: Job) -> Any:
        places = [news.place async for news in desk.follow(job)]
        return places, job.result

    return await asyncio.gather(*map(one, jobs))


def test_whoever_asks_for_much_delays_a_neighbour_by_one_job() -> None:
    desk = Desk(slice_=60)
    log: list[str] = []
    mine = [desk.submit("a", busy(0.1, log, f"a{k}"), f"room {k}") for k in range(3)]
    other = desk.submit("b", busy(0.1, log, "b"))
    assert [desk.place(job) for job in (*mine, other)] == [0, 2, 3, 1]
    seen = asyncio.run(followed(desk, *mine, other))
    assert log == ["a0", "b", "a1", "a2"]
    assert seen[2][0] == [3, 2, 1, 0]  # everybody is told each change of his place
    assert [result for _, result in seen] == ["a0", "a1", "a2", "b"]
    assert desk.count() == 0


def test_a_long_job_gives_its_turn_to_a_short_one() -> None:
    desk = Desk(slice_=0.1)
    log: list[str] = []
    long = desk.submit("a", busy(1.0, log, "long"))
    short = desk.submit("b", busy(0.05, log, "short"))
    asyncio.run(followed(desk, long, short))
    assert log == ["short", "long"]


def test_a_job_stops_within_a_second_and_one_that_nobody_follows_is_let_go() -> None:
    desk = Desk(patience=0.3)
    log: list[str] = []
    first, waiting = desk.submit("a", busy(30, log, "a")), desk.submit("b", busy(30, log, "b"))
    began = time.perf_counter()
    desk.leave("b")
    assert waiting.done  # at once, having not begun
    desk.leave("a")
    while not first.done:
        time.sleep(0.01)
    assert time.perf_counter() - began < 1
    assert isinstance(first.error, Stopped)
    left = desk.submit("c", busy(30, log, "c"))  # whose page was closed: nobody asks after it
    while not left.done and time.perf_counter() - began < 5:
        time.sleep(0.01)
    assert isinstance(left.error, Stopped)
    assert log == []
    assert desk.count() == 0


def test_who_stops_listening_ends_the_job() -> None:
    desk = Desk()

    async def listen() -> Job:
        job = desk.submit("a", busy(30, [], "a"))
        news = desk.follow(job)
        await anext(news)
        await news.aclose()
        return job

    job = asyncio.run(listen())
    job._thread.join(1)  # type: ignore[union-attr]
    assert job.done


def test_the_line_is_bounded_and_says_so_in_a_sentence() -> None:
    desk, free = Desk(), threading.Event()
    for k in range(EACH):
        desk.submit("a", lambda job: free.wait(10), f"room {k}")
    with pytest.raises(InputError, match=f"{EACH} jobs of yours wait already"):
        desk.submit("a", lambda job: None, "another room")
    desk.submit("a", lambda job: None, "room 1")  # takes the place of the one before in that room
    for k in range(MOST - EACH):
        desk.submit(f"owner {k}", lambda job: None)
    with pytest.raises(InputError, match="The studio is full"):
        desk.submit("late", lambda job: None)
    free.set()


# What is drawn --------------------------------------------------------------------------------------------------------


def digit_of(pictures: torch.Tensor) -> list[int]:
    """Which digit each picture (N, 64) in 0..16 is like, by its nearest real ones."""
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    real = load_digits()
    found: list[int] = KNeighborsClassifier(3).fit(real.data, real.target).predict(pictures.numpy()).tolist()
    return found


def test_the_carried_models_are_small_sound_and_draw_what_is_asked() -> None:
    assert packaged.names() == ("digits", "adult", "moons")
    size = sum(path.stat().st_size for path in packaged.HOME.rglob("*") if path.is_file())
    assert size < 3_000_000
    run = Run.load("digits")
    labels = [str(k % 10) for k in range(40)]
    drawn = run.sample(40, label=labels, seed=0, steps=10).flatten(1).float()
    assert sum(str(a) == b for a, b in zip(digit_of(drawn), labels, strict=True)) >= 38
    moons = Run.load("moons").sample(200, seed=0, steps=10)
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])
    off = (torch.cdist(moons, centre) - 1).abs().amin(1)
    assert float((off < 0.2).double().mean()) > 0.9  # near one of the half circles of radius 1


def test_a_carried_model_is_not_written_into(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("sample", "digits", "-n", 2, "--steps", 2).code == 0
    assert (tmp_path / "digits-drawn.png").is_file()
    for verb in (["evaluate", "digits"], ["tune", "digits", "--steps", 3]):
        said = cli(*verb)
        assert said.code == 2
        assert "comes with ornstein" in said.err
    (tmp_path / "digits").mkdir()  # a folder of that name is what is meant
    assert "no experiment.yaml" in cli("sample", "digits", "-n", 2).err


@pytest.mark.parametrize("asked", [Drawing(count=40, label="3", seed=1, steps=4, stepper="ddim", scale=2.0),
                                   Drawing(count=18, seed=2, steps=3, grid="karras")])  # fmt: skip
def test_what_the_page_draws_is_what_the_command_line_draws(asked: Drawing, cli: Cli, tmp_path: Path) -> None:
    from ornstein.studio.words import command, snippet

    run, where = Run.load("digits"), tmp_path / "drawn.npz"
    seen = list(stream(run, asked))
    assert [moment.step for moment in seen] == list(range(asked.steps + 1))  # type: ignore[operator]
    said = shlex.split(command("digits", asked, str(where)))
    assert cli(*said[1:]).code == 0
    own = run.layout.give_back(run.transform.inverse(seen[-1].noisy, quantise=True)).numpy()
    assert np.abs(own.astype(int) - np.load(where)["samples"].astype(int)).max() <= 1  # a sum rounded otherwise
    names: dict[str, Any] = {}
    exec(snippet("digits", asked, run), names)
    assert np.abs(own.astype(int) - names["samples"].numpy().astype(int)).max() <= 1


def test_rows_of_the_page_are_those_of_the_command_line(cli: Cli, tmp_path: Path) -> None:
    from ornstein.studio.words import command

    run, asked = Run.load("adult"), Drawing(count=20, where="income=>50K, age=30..40", seed=3)
    seen = list(stream(run, asked))
    known = [run.transform.categories.known(moment.noisy).sum().item() for moment in seen]  # type: ignore[union-attr]
    assert known == sorted(known)
    assert cli(*shlex.split(command("adult", asked, str(tmp_path / "rows.csv")))[1:]).code == 0
    rows = [line.split(",") for line in (tmp_path / "rows.csv").read_text().splitlines()]
    ages = [float(row[rows[0].index("age")]) for row in rows[1:]]
    assert len(ages) == 20
    assert all(30 <= age <= 40 for age in ages)
    assert rows_of(run, asked, seen[-1].noisy)[:, 0].tolist() == ages


def test_more_than_fits_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(InputError, match=r"^n=1000000000000 takes"):
        next(stream(Run.load("digits"), Drawing(count=10**12, label="3")))


def test_a_chain_is_the_reference_in_as_many_steps_as_it_has() -> None:
    run = Run.load("moons")
    seen: list[Seen] = []
    chained = dataclasses.replace(run, model=run.denoiser.on(Tabulated.from_betas("cosine", 8)))
    reference(chained, Drawing(count=2), lambda: None, seen.append)
    assert {state.steps for state in seen} == {chained.model.process.chain}


def test_stopping_is_felt_between_two_steps_of_a_few_samples() -> None:
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Stopped

    with pytest.raises(Stopped):
        list(stream(Run.load("digits"), Drawing(count=600, steps=1000), tick))
    assert calls == 5


# Theory ---------------------------------------------------------------------------------------------------------------


def test_the_plane_is_the_closed_form_and_the_ways_back_lead_there() -> None:
    plane = theory.Plane.of(theory.points_of("eight-gaussians"), 0.15)
    t = plane.moments()[8]
    level = plane.process.at(t)
    at = theory.lattice(theory.ARROWS)
    variance = float(level.alpha) ** 2 * 0.15**2 + float(level.sigma) ** 2
    means = float(level.alpha) * plane.mixture.means
    share = (-torch.cdist(at, means).square() / (2 * variance)).softmax(1)
    score = (share @ means - at) / variance
    assert torch.allclose(theory.field(plane.denoiser, t), score, atol=1e-3)
    path = theory.forward(plane, 4000)
    assert path[-1].var().item() == pytest.approx(1, abs=0.05)
    own = theory.forward(plane, 4000)[0]
    assert torch.cdist(own, plane.mixture.means).amin(1).square().mean().item() < 0.06
    for name, way in theory.flows(plane, 60):
        assert way.shape == (theory.MOMENTS, 60, 2), name
        off = torch.cdist(way[-1], plane.mixture.means).amin(1)
        assert float(off.square().mean()) < 3 * 0.15**2, name  # two coordinates, each of variance 0.15^2, at most
    assert theory.disagreement(plane, plane.denoiser, t) == 0
    assert theory.disagreement(plane, theory.Plane.of(theory.points_of("moons")).denoiser, t) > 0.1


def test_what_a_run_has_learned_is_near_what_is_exact() -> None:
    data, mine = theory.learned(Run.load("moons"))
    plane = theory.Plane.of(data, 0.12)
    assert theory.disagreement(plane, mine, plane.moments()[14]) < 0.25
    with pytest.raises(InputError, match="the plane is of runs on points of two numbers"):
        theory.learned(Run.load("digits"))


# The server -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio that serves a folder with one run, and a link that leads out of it."""
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    from ornstein.studio.server import open_studio

    home = tmp_path_factory.mktemp("studio")
    shutil.copytree(packaged.HOME / "moons", home / "runs" / "plane")
    shutil.copytree(packaged.HOME / "moons", home / "outside")
    (home / "runs" / "link").symlink_to(home / "outside")
    studio = open_studio(home / "runs", port=0, block=False)
    yield studio
    studio.close()


def ask(opened: Any, path: str, **how: Any) -> Any:
    import httpx

    return httpx.get(opened.address.rstrip("/") + path, timeout=30, **how)


def test_nothing_but_what_was_made_for_a_page_can_be_read(opened: Any) -> None:
    from gradio_client import Client

    runs = opened.studio.shelf.root
    inside = runs / "plane" / "run.yaml"
    for path in ("/etc/passwd", str(inside), f"{runs}/../outside/run.yaml", "../../../../etc/passwd"):
        for form in (f"/gradio_api/file={path}", f"/file={path}"):
            answer = ask(opened, form)
            assert answer.status_code in (403, 404), (form, answer.status_code)
    names = opened.studio.shelf.places()
    assert str(runs / "plane") in names
    assert not any("link" in name for name in names)
    client = Client(opened.address, verbose=False)
    for name in ("../outside", str(runs / "link"), str(runs.parent / "outside"), "/etc", ""):
        for endpoint in ("/sample", "/report", "/compare"):
            with pytest.raises(Exception, match="is not known") as refused:
                client.predict(run=name, api_name=endpoint)
            assert "Traceback" not in str(refused.value)
    policy = ask(opened, "/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert opened.address.startswith("http://127.0.0.1:")


def test_two_clients_get_their_own_samples_and_too_much_is_refused_in_a_sentence(opened: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from gradio_client import Client

    def draw(label: str) -> list[int]:
        said, files = Client(opened.address, verbose=False).predict(
            run="digits", count=6, label=label, steps=8, api_name="/sample"
        )
        assert said["calls"] == 8
        assert f"--label {label}" in said["command"]
        place = next(file for file in files if file.endswith(".npz"))
        return digit_of(torch.from_numpy(np.load(place)["samples"]).flatten(1).float())

    labels = ["3", "7", "0", "1"]
    with ThreadPoolExecutor(4) as pool:
        for label, found in zip(labels, pool.map(draw, labels), strict=True):
            assert found.count(int(label)) >= 5
    client = Client(opened.address, verbose=False)
    for wrong, sentence in (
        ({"count": 1001}, "count=1001 must be a whole number from 1 to 1,000 in the studio."),
        ({"steps": 10**9}, "steps=1000000000 must be a whole number from 1 to 1,000"),
        ({"label": "cat"}, "label='cat' is not a class"),
        ({"stepper": "dim"}, "did you mean 'ddim'"),
        ({"seed": -1}, "seed=-1 must be"),
    ):
        with pytest.raises(Exception, match=sentence[:30]):
            client.predict(**wrong, api_name="/sample")
    assert opened.studio.desk.count() == 0


def test_every_endpoint_is_listed_in_the_docs_and_answers(opened: Any) -> None:
    from gradio_client import Client

    from ornstein.studio.api import ENDPOINTS

    client = Client(opened.address, verbose=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    page = (Path(__file__).parents[1] / "docs" / "studio.md").read_text("utf-8")
    assert all(f"`/{name}`" in page for name in ENDPOINTS)
    found = client.predict(api_name="/runs")[0]["runs"]
    assert [one["name"] for one in found][1:] == ["digits", "adult", "moons"]
    gif = client.predict(run="digits", count=2, steps=3, api_name="/film")[1][0]
    with Image.open(gif) as film:
        assert (film.format, film.n_frames) == ("GIF", 4)  # type: ignore[attr-defined]
    both = client.predict(count=2, left_steps=3, right_steps=30, exact=False, api_name="/compare")[0]
    assert 0 < both["apart"] < 1
    assert len(client.predict(density="spirals", api_name="/plane")[0]["flows"]) == 4
    own = client.predict(density="my own points", points="0 1; 1 0; -1 -1", api_name="/plane")[0]
    assert own["cells"] == theory.CELLS
    assert client.predict(run="digits", api_name="/report")[0]["measures"][0]["name"] == "class-agreement"
    with pytest.raises(Exception, match="comes with ornstein"):
        client.predict(run="digits", api_name="/evaluate")
    edited = client.predict(example=1, mask="0" * 32 + "1" * 32, count=2, api_name="/inpaint")[0]
    assert edited["right"]["payload"]["pixels"].startswith("data:image/png;base64,")
    with pytest.raises(Exception, match="the mask has 3 cells"):
        client.predict(mask="101", api_name="/inpaint")
    assert client.predict(first=0, last=3, api_name="/interpolate")[0]["done"]
    head = "age,education,marital_status,occupation,sex,hours_per_week,income"
    rows = f"{head}\n30,Bachelors,Never-married,,Male,40,\n"
    holes = client.predict(rows=rows, api_name="/impute")[0]
    assert [hole["column"] for hole in holes] == ["occupation", "income"]
    assert holes[1]["centre"] in ("<=50K", ">50K")
    assert 0.99 < sum(holes[1]["shares"].values()) <= 1.01
    (example,) = re.findall(r"^```py\n(.*?)^```", page, re.S | re.M)
    assert len(example.splitlines()) == 10
    code = example.replace("http://127.0.0.1:7860", opened.address).replace("exact=True", "exact=False")
    exec(code.replace("steps=20", "steps=4"), {})


def test_the_verb_warns_of_an_open_host_and_refuses_in_a_sentence(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in cli("studio", tmp_path / "file", "--port", 0).err
    assert "must be NAME:FILE" in cli("studio", tmp_path, "--auth", "ada").err
    assert "cannot be read" in cli("studio", tmp_path, "--auth", f"ada:{tmp_path / 'none'}").err
    said = cli("studio", tmp_path / "file", "--host", "0.0.0.0", "--port", 0)
    assert said.code == 2
    assert "whoever reaches this address can use the studio" in said.err
    assert cli("studio", tmp_path, "--port", 70000).err.count("port=70000 must be from 0 to 65535") == 1


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
