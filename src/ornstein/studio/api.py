"""Every action of the rooms as an endpoint, for programs: what docs/studio.md lists.

An endpoint is a method of `Api`: its arguments are those that the client names, each with a default, and it answers
with facts as JSON and with files. It waits in the same line, within the same limits, and opens the same runs as a page.
"""

import asyncio
import csv
import inspect
import io
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ornstein.errors import InputError
from ornstein.experiment import background, theory
from ornstein.experiment.cells import draws_rows
from ornstein.experiment.course import course
from ornstein.experiment.doctor import doctor
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.gallery import entries, measures
from ornstein.experiment.measured import METHODS
from ornstein.experiment.report import describe
from ornstein.studio import compare, edit, playground, training
from ornstein.studio.compare import Compare
from ornstein.studio.desk import Job
from ornstein.studio.playground import Controls
from ornstein.studio.report import EXAMINED, JUDGED, LISTED
from ornstein.studio.state import Studio
from ornstein.studio.theory import perform as show_plane
from ornstein.studio.theory import plane_of
from ornstein.studio.words import command, sentence

#: facts, and files
Answer = tuple[Any, list[str]]
_FIELDS: dict[Any, Any] = {str: gr.Textbox, float: gr.Number, bool: gr.Checkbox, str | None: gr.File}


class Api:
    """The endpoints."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self) -> None:
        """Put each into the page, where nobody sees it."""
        for name in ENDPOINTS:
            method = getattr(self, name)
            fields = [
                _FIELDS[parameter.annotation](value=parameter.default, visible=False, label=label)
                for label, parameter in inspect.signature(method).parameters.items() if label != "request"
            ]  # fmt: skip
            outputs = [gr.JSON(visible=False), gr.Files(visible=False)]
            gr.Button(visible=False).click(
                _answering(method), fields, outputs, api_name=name, concurrency_limit=None,
                api_description=inspect.getdoc(method),
            )  # fmt: skip

    async def _done(self, request: gr.Request, work: Callable[[Job], Any], room: str) -> Any:
        job = self.studio.desk.submit(str(request.session_hash), work, room)
        async for _ in self.studio.desk.follow(job):
            pass
        return job.result

    async def runs(self, request: gr.Request) -> Answer:
        """All runs at a glance: data, weights, steps, minutes, held-out error, share of measures as good as real."""
        places = dict(list(self.studio.shelf.places().items())[:LISTED])
        found, refused = await asyncio.to_thread(entries, places)
        keys = ("name", "kind", "data", "count", "weights", "steps", "minutes", "held_out", "matching")
        return {"runs": [{key: getattr(one, key) for key in keys} for one in found], "unreadable": refused}, []

    async def sample(
        self, request: gr.Request, run: str = "digits", count: float = 16, label: str = "", where: str = "",
        scale: float = 1, stepper: str = "", steps: float = 0, grid: str = "", options: str = "", given: str = "",
        seed: float = 0, text: str = "",
    ) -> Answer:  # fmt: skip
        """Draw: a picture, arrays and a table; "" and 0 leave a setting to the run."""
        opened = await self.studio.open(run)
        asked = Controls(run, label, where, count, scale, stepper, steps, grid, options, given, seed, text)
        drawing = asked.drawing(self.studio, opened)
        drawn = await self._done(
            request, lambda job: playground.perform(job, self.studio, opened, drawing), playground.ROOM
        )
        said = command(run, drawing, "rows.csv" if draws_rows(opened) else "drawn.png")
        return {"calls": drawn.calls, "seconds": drawn.seconds, "command": said}, [str(file) for file in drawn.files]

    async def film(
        self, request: gr.Request, run: str = "digits", count: float = 16, label: str = "", scale: float = 1,
        stepper: str = "", steps: float = 0, grid: str = "", options: str = "", seed: float = 0, text: str = "",
    ) -> Answer:  # fmt: skip
        """The way from noise to samples as an animation, .gif."""
        opened = await self.studio.open(run)
        asked = Controls(run, label, "", count, scale, stepper, steps, grid, options, "", seed, text)
        drawing = asked.drawing(self.studio, opened)
        path: Path = await self._done(request, lambda job: playground.film(self.studio, job, opened, drawing), "film")
        return {"frames": "one for each step, 61 at most"}, [str(path)]

    async def plane(
        self, request: gr.Request, density: str = "moons", width: float = 0.12, points: str = "", learned: str = "",
        seed: float = 0,
    ) -> Answer:  # fmt: skip
        """A density in the plane, its scores and particles, as the page gets them: numbers in base64, see theory.js."""
        plane, mine = await asyncio.to_thread(plane_of, self.studio, density, width, points, learned)
        start = self.studio.limits.whole(seed, "seed", 2**31 - 1, 0)
        return await self._done(request, lambda job: show_plane(job, plane, mine, start, "api"), "theory"), []

    async def compare(
        self, request: gr.Request, run: str = "digits", label: str = "", count: float = 16, seed: float = 0,
        left_stepper: str = "", left_steps: float = compare.FEW, left_scale: float = 1,
        right_stepper: str = "", right_steps: float = compare.MANY, right_scale: float = 1, exact: bool = False,
    ) -> Answer:  # fmt: skip
        """Two ways from the same noise: how far apart they end, and with `exact` how far from 1,000 steps."""
        opened = await self.studio.open(run)
        sides = (left_stepper, left_steps, left_scale, right_stepper, right_steps, right_scale)
        pair = Compare(self.studio).pair(opened, label, count, seed, sides)
        return await self._done(request, lambda job: compare.perform(job, opened, pair, exact), compare.ROOM), []

    async def report(self, request: gr.Request, run: str = "digits") -> Answer:
        """What a run is, and its evaluation where there is one."""
        folder = self.studio.shelf.place(run)
        return {"about": describe(folder), "measures": [vars(line) for line in measures(folder)]}, []

    async def evaluate(self, request: gr.Request, run: str = "") -> Answer:
        """Evaluate a run of your own; evaluation.json is written into its folder."""
        folder = self.studio.shelf.place(run)

        def work(job: Job) -> None:
            opened = self.studio.shelf.open(run)
            evaluate(opened, n=JUDGED, page=False, stage=job.show, progress=lambda done, total: job.tick())

        await self._done(request, work, "report")
        return {"measures": [vars(line) for line in measures(folder)]}, []

    async def doctor(self, request: gr.Request, run: str = "digits") -> Answer:
        """What is wrong with a run and what to change."""
        opened = await self.studio.open(run)
        found = await self._done(request, lambda job: doctor(opened, n=EXAMINED, stage=job.show), "report")
        return found.to_dict(), []

    async def inpaint(
        self, request: gr.Request, run: str = "digits", example: float = 0, mask: str = "", count: float = 8,
        method: str = METHODS[0], seed: float = 0, picture: str | None = None,
    ) -> Answer:  # fmt: skip
        """Answers for the hidden part of a held-out picture, or of a file's; the mask has 1 where it is hidden."""
        opened, limits = await self.studio.open(run), self.studio.limits
        number = limits.whole(example, "example", 10**9, 0)
        given = await asyncio.to_thread(edit.example, opened, number, picture, limits)
        n, start = limits.whole(count, "count", edit.ANSWERS), limits.whole(seed, "seed", 2**31 - 1, 0)
        work = edit.filled_in
        return await self._done(request, lambda job: work(job, opened, given, mask, n, method, start), edit.ROOM), []

    async def interpolate(self, request: gr.Request, run: str = "digits", first: float = 0, last: float = 1) -> Answer:
        """Pictures on the way from one held-out example to another."""
        opened, limits = await self.studio.open(run), self.studio.limits
        numbers = [limits.whole(one, "example", 10**9, 0) for one in (first, last)]
        ends = [await asyncio.to_thread(edit.example, opened, number, None, limits) for number in numbers]
        return await self._done(request, lambda job: edit.between(job, opened, *ends), edit.ROOM), []

    async def impute(self, request: gr.Request, run: str = "adult", rows: str = "", seed: float = 0) -> Answer:
        """What may stand in the empty cells of rows, written as CSV with the run's columns as header."""
        opened, start = await self.studio.open(run), self.studio.limits.whole(seed, "seed", 2**31 - 1, 0)
        names, *lines = [*csv.reader(io.StringIO(rows[: edit.TEXT]))] or [[]]
        grid = {"names": names, "rows": lines}
        return await self._done(
            request, lambda job: edit.holes_of(job, self.studio, opened, grid, start), edit.ROOM
        ), []

    async def train(
        self, request: gr.Request, data: str = "digits", file: str | None = None, name: str = "", method: str = "",
        steps: float = 0, looks: float = 0, seed: float = 0,
    ) -> Answer:  # fmt: skip
        """Begin a training on built-in data, or on a file; it goes on by itself. Its name, and the command."""
        run, words = await asyncio.to_thread(
            training.begin, self.studio, data, file, name, method, steps, looks, seed
        )  # fmt: skip
        return {"run": run, "command": shlex.join(["ornstein", *words])}, []

    async def trainings(self, request: gr.Request) -> Answer:
        """All trainings at a glance: state, step, steps, steps a second, seconds left."""
        found = await asyncio.to_thread(training.listed, self.studio)
        return {"trainings": [training.facts(one) for one in found]}, []

    async def training(self, request: gr.Request, run: str = "") -> Answer:
        """How one goes: its state, its curves, the error by noise level; the newest picture of its samples."""
        one = await asyncio.to_thread(lambda: course(run, training.place(self.studio, run)))
        picture = one.picture(one.pictures[-1]) if one.pictures else None
        files = [] if picture is None else [shutil.copy(picture, self.studio.place() / picture.name)]
        return {**training.facts(one), **training.curves(one)}, [str(file) for file in files]

    async def pause(self, request: gr.Request, run: str = "") -> Answer:
        """Ask a training to save and end."""
        await asyncio.to_thread(lambda: background.pause(training.place(self.studio, run)))
        return {"paused": run}, []

    async def stop(self, request: gr.Request, run: str = "") -> Answer:
        """End a training within a second."""
        await asyncio.to_thread(lambda: background.stop(training.place(self.studio, run)))
        return {"stopped": run}, []

    async def resume(self, request: gr.Request, run: str = "") -> Answer:
        """Go on with a training from what was saved last."""
        words = await asyncio.to_thread(training.go_on, self.studio, run)
        return {"resumed": run, "command": shlex.join(["ornstein", *words])}, []

    async def densities(self, request: gr.Request) -> Answer:
        """The densities that are built in."""
        return {"densities": list(theory.names())}, []


#: every endpoint, by its name
ENDPOINTS = (
    *("runs", "sample", "film", "densities", "plane", "compare"),
    *("inpaint", "interpolate", "impute", "report", "evaluate", "doctor"),
    *("train", "trainings", "training", "pause", "stop", "resume"),
)


def _answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with its errors as sentences for the client; its signature is what the client is told."""

    async def answer(*said: Any) -> Answer:
        try:
            found: Answer = await method(*said)
            return found
        except Exception as error:
            raise gr.Error(sentence(error), print_exception=not isinstance(error, InputError)) from None

    answer.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    answer.__annotations__ = dict(method.__annotations__)
    answer.__name__ = method.__name__
    return answer
