"""The studio: its line of jobs, what it keeps at home, and its rooms in a real browser.

What wants Gradio, or Debian's Chromium and Playwright, is skipped where they are absent.
"""

import asyncio
import base64
import io
import os
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

from ornstein.errors import InputError
from ornstein.experiment import packaged, theory
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, rows_of, stream
from ornstein.studio.desk import EACH, MOST, Desk, Job, Stopped

CHROMIUM = "/usr/bin/chromium"


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
    desk, log = Desk(slice_=60), []
    mine = [desk.submit("a", busy(0.1, log, f"a{k}"), f"room {k}") for k in range(3)]
    other = desk.submit("b", busy(0.1, log, "b"))
    assert [desk.place(job) for job in (*mine, other)] == [0, 2, 3, 1]
    seen = asyncio.run(followed(desk, *mine, other))
    assert log == ["a0", "b", "a1", "a2"]
    assert seen[2][0] == [3, 2, 1, 0]  # everybody is told each change of his place
    assert [result for _, result in seen] == ["a0", "a1", "a2", "b"]
    assert desk.count() == 0


def test_a_long_job_gives_its_turn_to_a_short_one() -> None:
    desk, log = Desk(slice_=0.1), []
    long = desk.submit("a", busy(1.0, log, "long"))
    short = desk.submit("b", busy(0.05, log, "short"))
    asyncio.run(followed(desk, long, short))
    assert log == ["short", "long"]


def test_a_job_stops_within_a_second_and_one_that_nobody_follows_is_let_go() -> None:
    desk, log = Desk(patience=0.3), []
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
    assert packaged.names() == ("adult", "digits", "moons")
    size = sum(path.stat().st_size for path in packaged.HOME.rglob("*") if path.is_file())
    assert size < 3_000_000
    run = Run.load("digits")
    labels = [str(k % 10) for k in range(40)]
    drawn = run.sample(40, label=labels, seed=0, steps=10, quantise=True).flatten(1).float()
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
    assert np.abs(run.transform.forward(names["samples"]).numpy() - seen[-1].noisy.numpy()).max() < 0.13


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
