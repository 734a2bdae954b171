"""The playground: draw from a run and see noise become data."""

import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ornstein.errors import InputError
from ornstein.experiment.catalogue import tables
from ornstein.experiment.cells import draws_rows
from ornstein.experiment.learner import steppers_of
from ornstein.experiment.plain import parsed
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, Seen, stream
from ornstein.studio import look
from ornstein.studio.desk import Job, Replaced
from ornstein.studio.frames import FRAMES, Window
from ornstein.studio.saving import save
from ornstein.studio.state import Studio
from ornstein.studio.words import command, sentence, snippet

ROOM = "playground"
EVERY = ""  # the value of a menu that leaves it to the run


@dataclass(frozen=True)
class Controls:
    """What a page's controls say, in their order."""

    run: str
    label: str
    where: str
    count: float
    scale: float
    stepper: str
    steps: float
    grid: str
    options: str
    given: str
    seed: float
    text: str = ""

    def drawing(self, studio: Studio, run: Run) -> Drawing:
        """What is asked for.

        Raises:
            InputError: anything that is not available, or more than one page may ask for.
        """
        rows, known = draws_rows(run), run.conditions
        steps = None if self.steps == 0 else self.steps
        n, steps = studio.limits.drawing(self.count, steps, math.prod(run.shape))
        return Drawing(
            count=n,
            label=self.label or None,
            text=tuple(filter(None, (text.strip() for text in (self.text or "").split(";")))),
            given=_pairs(self.given, "given") or None,
            where=(self.where.strip() or None) if rows else None,
            scale=None if rows or not known or self.scale == 1 else float(self.scale),
            stepper=None if rows else self.stepper or None,
            options=_pairs(self.options, "options") or None,
            steps=steps,
            grid=None if rows else self.grid or None,
            seed=studio.limits.whole(self.seed, "seed", 2**31 - 1, 0),
        )


def _pairs(text: str, name: str) -> dict[str, Any]:
    """The words NAME=VALUE, separated by commas, as a mapping."""
    found: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in (text or "").split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"{name}={part!r} must look like NAME=VALUE, separated by commas.")
        found[key.strip()] = parsed(value, f"{name} {part!r}")
    return found


@dataclass(frozen=True)
class Drawn:
    """What came of a drawing: files, network calls for each sample, and seconds with the turns of others."""

    files: tuple[Path, ...]
    calls: int
    seconds: float


def perform(job: Job, studio: Studio, run: Run, asked: Drawing) -> Drawn:
    """Draw, showing each moment; what a film keeps of it is evenly chosen."""
    window, kept = Window(run, asked.count), []
    last: Seen | None = None
    began = time.perf_counter()
    for seen in stream(run, asked, job.tick):
        last = seen
        every = max(1, -(-(seen.steps + 1) // FRAMES))
        if seen.step % every == 0 or seen.step == seen.steps:
            kept.append(window.frame(seen))
            job.show({"frame": kept[-1]})
    assert last is not None
    seconds = time.perf_counter() - began
    job.show({"frames": kept, "key": str(time.monotonic_ns())})
    files = save(studio.place(), run, asked, last.noisy)
    return Drawn(files, last.calls, seconds)


def film(studio: Studio, job: Job, run: Run, asked: Drawing) -> Path:
    """The drawing once more, as an animation: the same seed gives the same way."""
    few = min(asked.count, 36)
    states = [seen.noisy[:few] / seen.spread for seen in stream(run, asked, job.tick)]
    every = max(1, -(-len(states) // FRAMES))
    path = studio.place() / "denoising.gif"
    run.film([*states[:-1:every], states[-1]], path)
    return path


class Playground:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, page: gr.Blocks, tab: Any) -> None:  # long: a page's controls, one after the other
        """Lay out the room."""
        names = self.studio.shelf.names()
        first = names[0] if names else None
        facts = self._facts(first)
        look.introduction(
            "Playground",
            "A diffusion model has learned to remove noise. It starts from pure noise and removes a little at each "
            "step. On the left you see the samples as they are now, on the right the model's current estimate of the "
            "result. Pick a run, ask for a class, take fewer steps or another method, and see what changes.",
            "choosing-a-sampler",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=290):
                run = gr.Dropdown(names, value=first, label="Run", info="A trained model.", elem_id="run")
                about = gr.HTML(facts["about"], padding=False)
                label = gr.Dropdown(**facts["label"], label="Class", info="What to draw.", elem_id="label")
                text = gr.Textbox(
                    **facts["text"], label="Text", info="What to draw, as red heart; several by semicolons.",
                    elem_id="text",
                )  # fmt: skip
                count = gr.Slider(1, **facts["count"], step=1, label="Count", info="How many samples.", elem_id="count")
                where = gr.Textbox(
                    **facts["where"], label="Only rows with", info="As income=>50K, age=30..40", elem_id="where"
                )
                scale = gr.Slider(
                    0, 8, step=0.1, **facts["scale"], label="Guidance scale", elem_id="scale",
                    info="1 is the plain model; more makes classes and texts clearer, at the price of variety.",
                )  # fmt: skip
                stepper = gr.Dropdown(**facts["stepper"], label="Stepper", elem_id="stepper")
                steps = gr.Slider(**facts["steps"], label="Steps", elem_id="steps")
                with gr.Accordion("More", open=False):
                    grid = gr.Dropdown(**facts["grid"], label="Grid", elem_id="grid")
                    options = gr.Textbox("", label="Options of the stepper", info="As eta=0.5", elem_id="options")
                    given = gr.Textbox("", label="Given", info="Other conditions, as price=12000", elem_id="given")
                seed = gr.Number(
                    0, precision=0, label="Seed", info="The same seed gives the same samples.", elem_id="seed"
                )
                with gr.Row():
                    go = gr.Button("Draw", variant="primary", elem_id="draw")
                    halt = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=5, min_width=320, elem_id="view-column"):
                note = gr.HTML(look.note("Ready."), elem_id="note", padding=False)
                view = look.drawn_by("film", elem_id="film")
                with gr.Row(elem_classes="downloads"):
                    png = gr.DownloadButton("PNG", interactive=False, size="sm", elem_id="png")
                    npz = gr.DownloadButton("npz", interactive=False, size="sm", elem_id="npz")
                    csv = gr.DownloadButton("CSV", interactive=False, size="sm", elem_id="csv")
                    gif = gr.Button("Make a GIF", interactive=False, size="sm", elem_id="make-gif")
                    got = gr.DownloadButton("GIF", visible=False, size="sm", elem_id="gif")
                terminal = gr.Textbox(label="The same in the terminal", lines=1, buttons=["copy"], elem_id="terminal")
                python = gr.Textbox(label="The same in Python", lines=4, buttons=["copy"], elem_id="python")
        self.controls = [run, label, where, count, scale, stepper, steps, grid, options, given, seed, text]
        shown = [note, view, png, npz, csv, gif, got, terminal, python]
        for event in (go.click, seed.submit, where.submit, text.submit, page.load):
            event(self.draw, self.controls, shown, **look.ASKS)
        halt.click(self.studio.halt, None, None, queue=False, **look.PRIVATE)
        kinds = [about, label, text, count, where, scale, stepper, steps, grid]
        run.change(self.of_run, [run], kinds, queue=False, **look.PRIVATE)
        page.load(self.menu, None, [run], queue=False, **look.PRIVATE)
        stepper.change(self.line_of("steppers"), [stepper], [stepper], queue=False, **look.PRIVATE)
        grid.change(self.line_of("grids"), [grid], [grid], queue=False, **look.PRIVATE)
        gif.click(self.make_gif, self.controls, [note, gif, got], **look.ASKS)

    # What controls do -----------------------------------------------------------------------------------------------

    async def draw(self, request: gr.Request, *said: Any) -> AsyncIterator[list[Any]]:
        """Draw what the controls say: frames while it goes on, then the film and the files."""
        keep = gr.skip()
        # what is repeated while it goes on: of an update too the browser is sent what is new, see `look.told`
        early: list[Any] = [keep] * 7
        try:
            asked = Controls(*said)
            run = await self.studio.open(asked.run)
            drawing = asked.drawing(self.studio, run)
            words = [command(asked.run, drawing, "rows.csv" if draws_rows(run) else "drawn.png")]
            words.append(snippet(asked.run, drawing, run))
            owner = str(request.session_hash)
            job = self.studio.desk.submit(owner, lambda job: perform(job, self.studio, run, drawing), ROOM)
            early = [gr.update(interactive=False)] * 4 + [gr.update(visible=False), *words]
            yield [keep, keep, *early]
            async for news in self.studio.desk.follow(job):
                line = look.place_in_line(news.place)
                yield [line, keep if news.shown is None else look.told(news.shown), *early]
            drawn: Drawn = job.result
            line = look.note(f"{drawing.count} samples in {drawn.seconds:.1f} s; {drawn.calls} network calls each.")
            ready = [gr.update(value=str(file), interactive=True) for file in drawn.files]
            yield [line, keep, *ready, gr.update(interactive=True), *early[4:]]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), keep, *early]

    async def make_gif(self, request: gr.Request, *said: Any) -> AsyncIterator[list[Any]]:
        """The film as a file."""
        keep = gr.skip()
        try:
            asked = Controls(*said)
            run = await self.studio.open(asked.run)
            drawing = asked.drawing(self.studio, run)
            owner = str(request.session_hash)
            job = self.studio.desk.submit(owner, lambda job: film(self.studio, job, run, drawing), "film")
            async for news in self.studio.desk.follow(job):
                yield [look.place_in_line(news.place), keep, keep]
            yield [look.note("The film is ready."), keep, gr.update(value=str(job.result), visible=True)]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), keep, keep]

    def menu(self) -> Any:
        """The runs that there are now."""
        return gr.update(choices=self.studio.shelf.names())

    def of_run(self, name: str) -> list[Any]:
        """The controls as they fit a run."""
        facts = self._facts(name)
        menus = [gr.update(**facts[key]) for key in CONTROLS]
        return [facts["about"], *menus]

    def line_of(self, noun: str) -> Any:
        """Says of an entry of a table what it is."""
        lines = tables()[noun]
        return lambda name: gr.update(info=lines.get(name, "The run's own."))

    def _facts(self, name: str | None) -> dict[str, Any]:
        """What the controls are for a run: kind-aware."""
        try:
            if name is None:
                raise InputError("There is no run yet: train one with `ornstein train digits`.")
            run = self.studio.shelf.open(name)
            run.must_draw()
        except InputError as error:
            off: dict[str, Any] = {"visible": False}
            return {"about": look.note(sentence(error), "bad"), **dict.fromkeys(CONTROLS, off)}
        rows, walks, lines = draws_rows(run), run.learner.walks, tables()
        own = run.experiment.sampling
        shape = " x ".join(map(str, run.shape))
        what = f"rows of {shape} columns" if rows else f"{run.kind}s of {shape}"
        about = f"Trained on {run.about['data']['count']:,} {what}; {run.about['parameters']:,} weights."
        known = [name for name in lines["steppers"] if name in steppers_of(run.learner)]
        usual = [(f"the run's own ({own.stepper['name']})", EVERY)]
        classes = [("all in turn", EVERY), *run.classes]
        grids = [("the run's own", EVERY), *lines["grids"]]
        size = math.prod(run.shape)
        few = max(1, min(self.studio.limits.count, self.studio.limits.numbers // size))
        usual_count = 500 if size == 2 else 25
        most = 200 if walks else run.steps
        info = "As many calls of the network; 0 for the run's own."
        return {
            "about": look.note(about),
            "label": {"choices": classes, "value": EVERY, "visible": bool(run.classes)},
            "text": {"value": "", "visible": any(about.is_text for about in run.conditions.values())},
            "count": {"maximum": few, "value": min(few, usual_count)},
            "where": {"value": "", "visible": rows},
            "scale": {"value": 1, "visible": walks and bool(run.conditions)},
            "stepper": {"choices": [*usual, *known], "value": EVERY, "visible": walks, "info": "The run's own."},
            "steps": {"minimum": 0, "maximum": most, "step": 1, "value": run.steps if walks else 0, "info": info},
            "grid": {"choices": grids, "value": EVERY, "visible": walks, "info": "Where to step."},
        }  # fmt: skip


#: the controls that depend on the run
CONTROLS = ("label", "text", "count", "where", "scale", "stepper", "steps", "grid")
