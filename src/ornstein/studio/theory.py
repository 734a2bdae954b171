"""The theory room: a density in the plane, its score, and four ways back from noise."""

import asyncio
import base64
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.experiment import theory
from ornstein.experiment.folder import read_folder
from ornstein.studio import look
from ornstein.studio.desk import Job, Replaced
from ornstein.studio.limits import Limits
from ornstein.studio.state import Studio
from ornstein.studio.words import sentence

ROOM = "theory"
OWN, NOBODY = "my own points", ""
#: particles; nats below the highest that are shown of a log-density; results that are kept
COUNT, NATS, KEPT = 200, 8.0, 12


def read_points(text: str, limits: Limits) -> Tensor:
    """Points that a person set, from "x y; x y; ...".

    Raises:
        InputError: they are not of that form, too few or too many.
    """
    pairs = [pair.replace(",", " ").split() for pair in (text or "").split(";") if pair.strip()]
    if not 2 <= len(pairs) <= limits.points:
        raise InputError(f"{len(pairs)} points are set; set 2 to {limits.points} on the pad, or write them.")
    try:
        found = torch.tensor([[float(x), float(y)] for x, y in pairs], dtype=torch.float64)
    except ValueError:
        raise InputError("points must be pairs of numbers separated by semicolons, as 0.5 1; -1 2.") from None
    return theory.scaled(found)


def _short(values: Tensor) -> str:
    whole = (values.double() * 1000).round().clamp(-32767, 32767).numpy().astype("<i2")
    return base64.b64encode(whole.tobytes()).decode()


def perform(job: Job, plane: theory.Plane, mine: Any, seed: int, key: str) -> dict[str, Any]:
    """All that the room shows of a density, a part after the other."""
    times = plane.moments()
    levels = [plane.process.at(t) for t in times]
    heats = []
    for t in times:
        heats.append(theory.heat(plane, t))
        job.tick()
    shades = torch.stack([((h - h.max()) / NATS + 1).clamp(0, 1) * 255 for h in heats]).round().byte()
    exact = torch.stack([theory.field(plane.denoiser, t) * float(v.sigma) for t, v in zip(times, levels, strict=True)])
    shown: dict[str, Any] = {
        "key": key, "t": times, "ratio": [float(level.noise_ratio) for level in levels], "reach": theory.REACH,
        "cells": theory.CELLS, "arrows": theory.ARROWS, "count": COUNT, "flows": {}, "learned": None, "off": None,
        "heat": base64.b64encode(shades.numpy().astype(np.uint8).tobytes()).decode(), "exact": _short(exact),
        "forward": _short(theory.forward(plane, COUNT, seed)),
    }  # fmt: skip
    if mine is not None:
        field = [theory.field(mine, t) * float(v.sigma) for t, v in zip(times, levels, strict=True)]
        shown["learned"] = _short(torch.stack(field))
        shown["off"] = [theory.disagreement(plane, mine, t) for t in times]
    job.show(dict(shown))
    for flow in theory.flows(plane, COUNT, seed, job.tick):
        shown = {**shown, "flows": {**shown["flows"], flow.name: {"particles": _short(flow.path), "said": flow.said}}}
        job.show(shown)
    return shown


def plane_of(studio: Studio, density: str, width: float, points: str, learned: str) -> tuple[theory.Plane, Any]:
    """The density that is asked for, and what a run has learned of it.

    Raises:
        InputError: what does not fit.
    """
    if learned:
        data, mine = theory.learned(studio.shelf.open(learned))
        return theory.Plane.of(data, width), mine
    cloud = read_points(points, studio.limits) if density == OWN else theory.points_of(density)
    return theory.Plane.of(cloud, width), None


class Theory:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._kept: OrderedDict[Any, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def build(self, page: gr.Blocks, tab: Any) -> None:
        """Lay out the room."""
        look.introduction(
            "Theory",
            "Blue is where data are likely. Add noise and the density melts into one round cloud (time runs to the "
            "left). The arrows are its score, which points to where the density grows. The score leads back from noise "
            "to data, and the four small windows follow it from the same noise: with fresh noise at each step (SDE), "
            "without (ODE), by the score of the data alone (Langevin, which stays in the first mode that it meets), "
            "and through all levels of noise (annealed Langevin). Nothing here is trained.",
            "table",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=260):
                known = theory.names()
                density = gr.Dropdown([*known, OWN], value=known[0], label="Density", elem_id="density")
                width = gr.Slider(
                    0.05, 0.5, 0.12, step=0.01, label="Width", elem_id="width",
                    info="Width of the Gaussian around each point; the data's standard deviation is 1.",
                )  # fmt: skip
                with gr.Group(visible=False) as own:
                    pad = look.drawn_by("pad", "", elem_id="pad")
                    points = gr.Textbox("", label="Points", info="Set with the mouse, or written: x y; x y", lines=2)
                learned = gr.Dropdown(
                    [("no run", NOBODY)], value=NOBODY, label="Learned score of", elem_id="learned",
                    info="Overlays the score that a run on points in the plane has learned.",
                )  # fmt: skip
                seed = gr.Number(0, precision=0, label="Seed", elem_id="theory-seed")
                go = gr.Button("Show", variant="primary", elem_id="show")
                halt = gr.Button("Stop", elem_id="theory-stop")
            with gr.Column(scale=4, min_width=320, elem_id="plane-column"):
                note = gr.HTML(look.note("Ready."), elem_id="theory-note", padding=False)
                view = look.drawn_by("theory", elem_id="plane")
        controls = [density, width, points, learned, seed]
        for event in (go.click, tab.select, density.input, width.release, learned.input, points.submit):
            event(self.show, controls, [note, view], **look.ASKS)
        halt.click(self.studio.halt, None, None, queue=False, **look.PRIVATE)
        density.change(lambda name: gr.update(visible=name == OWN), [density], [own], queue=False, **look.PRIVATE)
        pad.input(lambda text: text, [pad], [points], queue=False, **look.PRIVATE).then(
            self.show, controls, [note, view], **look.ASKS
        )
        tab.select(self.menu, None, [learned], queue=False, **look.PRIVATE)

    def menu(self) -> Any:
        """The runs on points in the plane."""
        found = []
        for name, folder in self.studio.shelf.places().items():
            try:
                if read_folder(folder)[1]["data"]["shape"] == [2]:
                    found.append(name)
            except InputError:
                continue
        return gr.update(choices=[("no run", NOBODY), *found])

    async def show(self, request: gr.Request, *said: Any) -> AsyncIterator[list[Any]]:
        """Show the density that the controls say."""
        try:
            density, width, points, learned, seed = said
            seed = self.studio.limits.whole(seed, "seed", 2**31 - 1, 0)
            key = repr((density, width, points if density == OWN else "", learned, seed))
            with self._lock:
                kept = self._kept.get(key)
            if kept is not None:
                self.studio.desk.leave(str(request.session_hash), ROOM)
                yield [look.note("From the density to noise, and back."), look.told(kept)]
                return
            plane, mine = await asyncio.to_thread(plane_of, self.studio, density, width, points, learned)
            job = self.studio.desk.submit(
                str(request.session_hash), lambda job: perform(job, plane, mine, seed, key), ROOM
            )
            async for news in self.studio.desk.follow(job):
                yield [look.place_in_line(news.place), gr.skip() if news.shown is None else look.told(news.shown)]
            with self._lock:
                self._kept[key] = job.result
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            yield [look.note("From the density to noise, and back."), gr.skip()]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), gr.skip()]
