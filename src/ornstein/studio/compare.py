"""The room that compares: two ways to draw, from the same noise."""

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from torch import Tensor

from ornstein.errors import InputError
from ornstein.experiment import compare
from ornstein.experiment.catalogue import tables
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, Seen
from ornstein.studio import look
from ornstein.studio.desk import Job, Replaced
from ornstein.studio.frames import Window, pixels
from ornstein.studio.playground import EVERY
from ornstein.studio.state import Studio
from ornstein.studio.words import sentence

ROOM = "compare"
#: samples at most; the quick number of steps and the slow one that the room begins with
MOST, FEW, MANY = 64, 5, 30


def difference(window: Window, one: Tensor, other: Tensor) -> dict[str, Any]:
    """What differs: of images its root, black to white for the most; of points the way from one to the other."""
    if window.run.kind == "image":
        shown = window.run.transform.pictures
        off = (shown(one) - shown(other)).abs()
        # a few pixels differ much and most little: by the root these are seen too
        return pixels((off / max(float(off.max()), 1e-6)).sqrt() * 2 - 1, window.columns)
    first, last = window.payload(one), window.payload(other)
    if "points" in last:
        return {**last, "before": first["points"]}
    return window.payload(one - other)


def perform(job: Job, run: Run, pair: list[Drawing], exact: bool) -> dict[str, Any]:
    """Draw both, then what they differ by, then how far they are from the reference."""
    window, sides = Window(run, pair[0].count), []
    shown: dict[str, Any] = {"left": None, "right": None, "apart": None}

    def watch(name: str, what: str) -> Any:
        def seen(moment: Seen) -> None:
            if what:
                said = f"{what}: step {moment.step} of {moment.steps}"
                job.show({**shown, name: {**shown[name], "said": f"{shown[name]['said']}; {said}"}})
            else:
                said = f"step {moment.step} of {moment.steps}"
                job.show({**shown, name: {"payload": window.payload(moment.noisy, moment.spread), "said": said}})

        return seen

    for name, asked in zip(("left", "right"), pair, strict=True):
        side = compare.draw(run, asked, job.tick, watch(name, ""))
        sides.append(side)
        said = f"{side.calls} network calls each, {side.seconds:.2f} s"
        shown[name] = {"payload": window.payload(side.samples), "said": said}
        job.show(dict(shown))
    off = compare.apart(run, sides[0].samples, sides[1].samples)
    shown["apart"] = {
        "payload": difference(window, sides[0].samples, sides[1].samples),
        "said": f"{off:.3g} of the data's standard deviation apart (root mean square)",
    }
    job.show(dict(shown))
    if exact:
        for name, asked, side in zip(("left", "right"), pair, sides, strict=True):
            if side.stochastic:
                shown[name]["said"] += "; its stepper draws noise, so there is no exact path to compare with"
                continue
            end = compare.reference(run, asked, job.tick, watch(name, "the reference"))
            error = compare.apart(run, side.samples, end)
            shown[name]["said"] += f"; {error:.3g} standard deviations from the result of {compare.REFERENCE:,} steps"
    job.show({**shown, "done": True})
    return {"apart": off, "said": [shown[name]["said"] for name in ("left", "right")]}


class Compare:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, page: gr.Blocks, tab: Any) -> None:
        """Lay out the room."""
        names = self.names()
        look.introduction(
            "Compare",
            "The same noise, turned into samples in two ways. A method that needs fewer network calls is faster; the "
            "question is what that costs. With small steps all deterministic steppers follow the same path, so both "
            "are measured against the result of a thousand steps.",
            "choosing-a-sampler",
        )
        grids = tables()["steppers"]
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=290):
                run = gr.Dropdown(names, value=names[0] if names else None, label="Run", elem_id="compare-run")
                label = gr.Dropdown(
                    **self._classes(names[0] if names else None), label="Class", elem_id="compare-label"
                )
                both = []
                for side, steps in (("Left", FEW), ("Right", MANY)):
                    with gr.Group():
                        both += [
                            gr.Dropdown([("the run's own", EVERY), *grids], value=EVERY, label=f"{side}: stepper"),
                            gr.Slider(1, 200, steps, step=1, label=f"{side}: steps", elem_id=f"{side.lower()}-steps"),
                            gr.Slider(0, 8, 1, step=0.1, label=f"{side}: guidance scale"),
                        ]
                count = gr.Slider(1, MOST, 16, step=1, label="Count")
                seed = gr.Number(0, precision=0, label="Seed")
                exact = gr.Checkbox(False, label="Measure against 1,000 steps", elem_id="exact")
                go = gr.Button("Compare", variant="primary", elem_id="compare-go")
                halt = gr.Button("Stop")
            with gr.Column(scale=5, min_width=320):
                note = gr.HTML(look.note("Ready."), elem_id="compare-note", padding=False)
                view = look.drawn_by("compare", elem_id="versus")
        go.click(self.show, [run, label, count, seed, exact, *both], [note, view], **look.ASKS)
        halt.click(self.studio.halt, None, None, queue=False, **look.PRIVATE)
        run.change(lambda name: gr.update(**self._classes(name)), [run], [label], queue=False, **look.PRIVATE)
        tab.select(lambda: gr.update(choices=self.names()), None, [run], queue=False, **look.PRIVATE)

    def names(self) -> list[str]:
        """The runs that two ways can be compared of: those drawn by a walk of Gaussian noise."""
        found = []
        for name in self.studio.shelf.names():
            try:
                run = self.studio.shelf.open(name)
            except InputError:
                continue
            if run.learner.draws and run.learner.walks:
                found.append(name)
        return found

    def _classes(self, name: str | None) -> dict[str, Any]:
        try:
            classes = self.studio.shelf.open(name or "").classes
        except Exception:  # the sentence comes when it is drawn from
            classes = ()
        return {"choices": [("all in turn", EVERY), *classes], "value": EVERY, "visible": bool(classes)}

    def pair(self, run: Run, label: str, count: Any, seed: Any, sides: tuple[Any, ...]) -> list[Drawing]:
        """What is asked for on both sides.

        Raises:
            InputError: more than a page may ask for.
        """
        limits, found = self.studio.limits, []
        for stepper, steps, scale in (sides[:3], sides[3:]):
            n = limits.whole(count, "count", MOST)
            guided = None if scale == 1 or not run.conditions else float(scale)
            found.append(
                Drawing(
                    count=n,
                    label=label or None,
                    scale=guided,
                    stepper=stepper or None,
                    steps=limits.whole(steps, "steps", limits.steps),
                    seed=limits.whole(seed, "seed", 2**31 - 1, 0),
                )
            )
        return found

    async def show(
        self, request: gr.Request, name: str, label: str, count: Any, seed: Any, exact: bool, *sides: Any
    ) -> AsyncIterator[list[Any]]:
        """Compare what the controls say."""
        try:
            run = await self.studio.open(name)
            pair = self.pair(run, label, count, seed, sides)
            job = self.studio.desk.submit(str(request.session_hash), lambda job: perform(job, run, pair, exact), ROOM)
            async for news in self.studio.desk.follow(job):
                yield [look.place_in_line(news.place), gr.skip() if news.shown is None else look.told(news.shown)]
            yield [look.note("Done."), gr.skip()]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), gr.skip()]
