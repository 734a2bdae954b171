"""The studio: its line of jobs, what it keeps at home, and its endpoints. Its rooms: test_studio_browser.py.

What wants Gradio is skipped where it is absent.
"""

import asyncio
import dataclasses
import itertools
import json
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from studio_opened import digit_of, studio
from sure import Cli

from ornstein.core.chains import Tabulated
from ornstein.errors import InputError
from ornstein.experiment import packaged, theory
from ornstein.experiment.compare import reference
from ornstein.experiment.course import LOG
from ornstein.experiment.folder import holding
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, Seen, rows_of, stream
from ornstein.studio.desk import EACH, MOST, Desk, Job, Replaced, Stopped

#: of the studio here
AUTH = ("ada", "lovelace")


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


def test_what_is_newer_in_a_room_takes_the_place_of_the_older() -> None:
    desk = Desk()
    log: list[str] = []
    old, elsewhere = desk.submit("a", busy(30, log, "old"), "room"), desk.submit("a", busy(0.05, log, "b"), "other")
    new = desk.submit("a", busy(0.05, log, "new"), "room")

    async def both() -> list[Any]:
        jobs = (followed(desk, job) for job in (old, elsewhere, new))
        return list(await asyncio.gather(*jobs, return_exceptions=True))

    ended = asyncio.run(both())
    assert isinstance(ended[0], Replaced)  # of which its page says nothing
    assert log == ["b", "new"]


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
    starts, ticks = [], [0]
    for flow in theory.flows(plane, 60, tick=lambda: ticks.append(ticks.pop() + 1)):
        assert ticks.pop() >= theory.MOMENTS, flow.name  # each can be ended on its way
        ticks.append(0)
        assert flow.path.shape == (theory.MOMENTS, 60, 2), flow.name
        off = torch.cdist(flow.path[-1], plane.mixture.means).amin(1)
        assert float(off.square().mean()) < 3 * 0.15**2, flow.name  # two coordinates, each of variance 0.15^2, at most
        starts.append(flow.path[0])
        if flow.name == "langevin":
            assert flow.said[20] == "step 200 of 240"
            continue
        # it is where it says that it is: as spread as the density dissolved to that time
        assert flow.said[20] == f"t = {plane.moments()[4]:.2f}"
        level = plane.process.at(plane.moments()[4])
        wide = float(level.alpha) ** 2 * (1 + 0.15**2) + float(level.sigma) ** 2
        assert float(flow.path[20].square().mean()) == pytest.approx(wide, rel=0.25), flow.name
    assert all(torch.equal(start, starts[0]) for start in starts)
    assert theory.disagreement(plane, plane.denoiser, t) == 0
    assert theory.disagreement(plane, theory.Plane.of(theory.points_of("moons")).denoiser, t) > 0.1


def test_what_a_run_has_learned_is_near_what_is_exact() -> None:
    data, mine = theory.learned(Run.load("moons"))
    plane = theory.Plane.of(data, 0.12)
    assert theory.disagreement(plane, mine, plane.moments()[14]) < 0.25
    with pytest.raises(InputError, match="the plane is of runs on points of two numbers"):
        theory.learned(Run.load("digits"))


# What is sent to a page ----------------------------------------------------------------------------------------------


def test_nothing_that_a_room_sends_is_lost_by_what_it_sends_next(tmp_path: Path) -> None:
    """Gradio writes what is new of an object into the one before, which the page may not have come to yet."""
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    from ornstein.studio.compare import Compare
    from ornstein.studio.edit import Edit
    from ornstein.studio.playground import Playground
    from ornstein.studio.shelf import Shelf
    from ornstein.studio.state import Studio
    from ornstein.studio.theory import Theory

    studio = Studio(Shelf(tmp_path))
    assert set(Compare(studio).names()) == {"digits", "moons"}  # and not the table, whose draws are no walk from noise
    page: Any = SimpleNamespace(session_hash="a")

    async def sent(answer: Any) -> list[Any]:
        return [said async for said in answer]

    mask, sides = "0" * 32 + "1" * 32, ("", 2, 1, "", 3, 1)
    for answer, place, key in (
        (Playground(studio).draw(page, "digits", "3", "", 4, 1, "", 3, "", "", "", 0), 1, "frames"),
        (Theory(studio).show(page, "my own points", 0.1, "0 1; 1 0; -1 -1", "", 0), 1, "flows"),
        (Compare(studio).show(page, "digits", "", 2, 0, False, *sides), 1, "apart"),
        (Edit(studio).fill(page, "digits", 0, None, {"mask": mask}, 1, "pigdm", 0), 1, "right"),
    ):
        steps = asyncio.run(sent(answer))
        shown = [step[place] for step in steps if isinstance(step[place], str)]
        assert key in json.loads(shown[-1]), answer
        for before, after in itertools.pairwise(steps):
            for one, other in zip(before, after, strict=True):
                if isinstance(one, dict) and isinstance(other, dict):
                    assert one.keys() <= other.keys(), (one, other)


def test_a_page_is_told_of_a_carried_model_by_its_name() -> None:
    from ornstein.studio.words import sentence

    with pytest.raises(InputError, match=re.escape(str(packaged.HOME))) as refused:
        Run.load("adult").must_walk("comparing")
    said = sentence(refused.value)
    assert "run='adult'" in said
    assert "/" not in said


# The server -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A studio that asks for a name and a password."""
    with studio(tmp_path_factory.mktemp("studio"), auth=AUTH) as one:
        yield one


@pytest.fixture(scope="module")
def client(opened: Any) -> Any:
    """Somebody who was let in."""
    from gradio_client import Client

    return Client(opened.address, auth=AUTH, verbose=False)


@pytest.fixture(scope="module")
def browser(opened: Any) -> Iterator[Any]:
    """Somebody who was let in, asking by hand."""
    import httpx

    with httpx.Client(base_url=opened.address, timeout=60) as one:
        assert one.post("/login", data=dict(zip(("username", "password"), AUTH, strict=True))).status_code == 200
        yield one


def test_nobody_is_let_in_without_the_password(opened: Any) -> None:
    import httpx
    from gradio_client import Client

    with httpx.Client(base_url=opened.address, timeout=60) as stranger:
        for path in (
            "/config",
            "/gradio_api/info",
            "/gradio_api/queue/data?session_hash=a",
            "/gradio_api/file=/etc/passwd",
        ):
            assert stranger.get(path).status_code == 401, path
        for name, password in (("ada", "byron"), ("bob", "lovelace"), ("ada", "")):
            answer = stranger.post("/login", data={"username": name, "password": password})
            assert answer.status_code in (400, 422), (name, password)
        assert stranger.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert "Playground" not in stranger.get("/").text
        assert "Playground" not in stranger.get("/config").text
    with pytest.raises(Exception, match=r"401|login|auth"):
        Client(opened.address, verbose=False).predict(api_name="/runs")


def test_nothing_but_what_was_made_for_a_page_can_be_read_or_written(opened: Any, client: Any, browser: Any) -> None:
    from ornstein.studio.api import ENDPOINTS, Api

    runs = opened.studio.shelf.root
    inside = runs / "plane" / "run.yaml"
    for path in ("/etc/passwd", str(inside), f"{runs}/../outside/run.yaml", "../../../../etc/passwd"):
        for form in (f"/gradio_api/file={path}", f"/file={path}"):
            answer = browser.get(form)
            assert answer.status_code in (403, 404), (form, answer.status_code)
    names = opened.studio.shelf.places()
    assert str(runs / "plane") in names
    assert not any("link" in name for name in names)
    asked = [name for name in ENDPOINTS if "run" in Api.__dict__[name].__annotations__]
    assert len(asked) >= 12
    outside = ("../outside", str(runs / "link"), str(runs.parent / "outside"), "/etc", "")
    for name, endpoint in [("/etc", one) for one in asked] + [(one, "report") for one in outside]:
        with pytest.raises(Exception, match="is not known") as refused:
            client.predict(run=name, api_name=f"/{endpoint}")
        assert "Traceback" not in str(refused.value)
    for name in ("../outside", "/tmp/outside", "..", "link", "a b"):
        with pytest.raises(Exception, match=r"must be of up to 64 letters|is a link"):
            client.predict(data="moons", name=name, steps=1, api_name="/train")
    assert sorted(path.name for path in runs.parent.iterdir()) == ["outside", "runs"]
    assert sorted(path.name for path in runs.iterdir()) == ["link", "plane"]
    policy = browser.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert opened.address.startswith("http://127.0.0.1:")


def test_every_room_leads_to_its_theory_which_is_served_here(browser: Any) -> None:
    from ornstein.studio import pages

    config = browser.get("/config").text
    assert {"choosing-a-sampler", "table", "guidance", "methods", "doctor"} == set(pages.names())
    for name in pages.names():
        assert f"{pages.PREFIX}/{name}" in config  # a room links to it
        answer = browser.get(f"/{pages.PREFIX}/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"]
        assert pages.title(name) == (pages.HOME / f"{name}.md").read_text().splitlines()[0][2:]
        for where in re.findall(r'(?:href|src)="([^"]*)"', answer.text):  # what is led to is there
            assert where in pages.names(), where
        assert "<script" not in answer.text
    for wrong in ("house", "..%2fhouse", "..%2f..%2flook.css", "page.html", "%00"):
        assert browser.get(f"/{pages.PREFIX}/{wrong}").status_code == 404


def test_two_clients_get_their_own_samples_and_too_much_is_refused_in_a_sentence(opened: Any, client: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from gradio_client import Client

    def draw(who: Any, label: str) -> list[int]:
        said, files = who.predict(run="digits", count=6, label=label, steps=8, api_name="/sample")
        assert said["calls"] == 8
        assert f"--label {label}" in said["command"]
        place = next(file for file in files if file.endswith(".npz"))
        return digit_of(torch.from_numpy(np.load(place)["samples"]).flatten(1).float())

    asked = [(client, "3"), (Client(opened.address, auth=AUTH, verbose=False), "7")]
    with ThreadPoolExecutor(2) as pool:
        for (_, label), found in zip(asked, pool.map(lambda one: draw(*one), asked), strict=True):
            assert found.count(int(label)) >= 5
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


def test_what_is_given_is_bounded_in_bytes_and_in_sides(opened: Any, client: Any, browser: Any, tmp_path: Path) -> None:
    from gradio_client import handle_file

    large = {"files": ("large.csv", bytes(opened.studio.limits.upload + 1))}
    assert browser.post("/gradio_api/upload", files=large).status_code == 413
    Image.new("L", (3000, 8)).save(tmp_path / "wide.png")
    with pytest.raises(Exception, match="the picture has a side of 3,000; the studio takes up to 2,048"):
        client.predict(mask="0" * 64, picture=handle_file(str(tmp_path / "wide.png")), api_name="/inpaint")
    (tmp_path / "not.png").write_bytes(b"GIF89a no picture")
    with pytest.raises(Exception, match=r"not\.png"):
        client.predict(mask="0" * 64, picture=handle_file(str(tmp_path / "not.png")), api_name="/inpaint")
    np.save(tmp_path / "wide.npy", np.zeros((40, 1, 4, 5000), np.uint8))
    np.save(tmp_path / "objects.npy", np.array([print], dtype=object), allow_pickle=True)  # it is not unpickled
    for wrong, sentence in (
        ({"file": handle_file(str(tmp_path / "wide.npy"))}, "the file has a side of 5,000"),
        ({"file": handle_file(str(tmp_path / "objects.npy"))}, "objects.npy"),
        ({"file": handle_file(str(tmp_path / "not.png"))}, "file='not.png' is of a kind that is not known"),
        ({"data": "mnist"}, "data='mnist' is not known"),
        ({"data": "/etc/passwd"}, "data='/etc/passwd' is not known"),
        ({"method": "dpm"}, "did you mean 'ddpm'|method='dpm' is not known"),
        ({"steps": 10**9}, "steps=1000000000 must be a whole number from 0 to 100,000"),
    ):
        with pytest.raises(Exception, match=sentence) as refused:
            client.predict(**wrong, api_name="/train")
        assert "Traceback" not in str(refused.value)
    runs = opened.studio.shelf.root
    assert sorted(path.name for path in runs.iterdir()) == ["link", "plane"]  # nothing of theirs is left
    with holding(runs / "one", "training"), holding(runs / "two", "training"):
        for name in ("one", "two"):
            (runs / name / LOG).touch()
        with pytest.raises(Exception, match="train already, as many as the studio has at a time"):
            client.predict(data="moons", steps=1, api_name="/train")
        states = {Path(one["name"]).name: one["state"] for one in client.predict(api_name="/trainings")[0]["trainings"]}
        assert states == {"one": "preparing", "two": "preparing", "plane": "done"}
    shutil.rmtree(runs / "one")
    shutil.rmtree(runs / "two")


def test_every_endpoint_is_listed_in_the_docs_and_answers(opened: Any, client: Any) -> None:
    from ornstein.studio.api import ENDPOINTS

    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    page = (Path(__file__).parents[1] / "docs" / "studio.md").read_text("utf-8")
    assert all(f"`/{name}`" in page for name in ENDPOINTS)
    found = client.predict(api_name="/runs")[0]["runs"]
    assert [one["name"] for one in found][1:] == ["digits", "adult", "moons"]
    gif = client.predict(run="digits", count=2, steps=3, api_name="/film")[1][0]
    with Image.open(gif) as film:
        assert (film.format, film.n_frames) == ("GIF", 4)  # type: ignore[attr-defined]
    own = client.predict(density="my own points", points="0 1; 1 0; -1 -1", api_name="/plane")[0]
    assert own["cells"] == theory.CELLS
    assert len(own["flows"]) == 4
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
    code = example.replace('"http://127.0.0.1:7860"', f"{opened.address!r}, auth={AUTH!r}")
    code = code.replace('run="digits", api_name="/doctor"', 'run="moons", api_name="/doctor"')  # sooner examined
    exec(code.replace("exact=True", "exact=False").replace("steps=20", "steps=4"), {})


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
