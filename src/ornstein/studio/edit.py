"""The room that edits: fill in a part of a picture, go from one picture to another, fill the empty cells of rows."""

import csv
import html
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from torch import Tensor

from ornstein.errors import InputError
from ornstein.experiment.cells import draws_rows, must_be_table
from ornstein.experiment.interpolate import interpolate
from ornstein.experiment.measured import METHODS
from ornstein.experiment.restore import inpaint, longest_side, read_input
from ornstein.experiment.rows import fill, read_rows
from ornstein.experiment.run import Run
from ornstein.experiment.stream import heard
from ornstein.studio import look
from ornstein.studio.desk import Job, Replaced
from ornstein.studio.frames import pixels
from ornstein.studio.limits import Limits
from ornstein.studio.state import Studio
from ornstein.studio.words import sentence

ROOM = "edit"
#: answers at most, their steps, pictures on a way, rows of a grid, draws of a hole
ANSWERS, STEPS, WAY, ROWS, DRAWS = 16, 50, 8, 4, 19
#: letters of rows that a program sends
TEXT = 20_000


def example(run: Run, number: int, file: str | None, limits: Limits) -> Tensor:
    """A picture (1, *shape) in model space: an uploaded one, or a held-out example by its number.

    Raises:
        InputError: a run on something else, a file that does not fit or is too large, a number of no example.
    """
    if run.kind != "image":
        raise InputError(f"run={run.folder.name!r} draws {run.kind}s; pictures are wanted here.")
    if file:
        limits.small(longest_side(Path(file)), "the picture")
        given = read_input(run, Path(file))[:1]
        if tuple(given.shape[1:]) != run.shape:
            raise InputError(f"the picture is {tuple(given.shape[1:])}; this run's pictures are {run.shape}.")
        return run.transform.plain.forward(given).float()
    data = run.load_data()
    if not 0 <= number < len(data.test):
        raise InputError(f"example={number} must be from 0 to {len(data.test) - 1}, the held-out examples.")
    return data.transform.plain.forward(data.test[number][None])


def known_of(run: Run, mask: str) -> Tensor:
    """What is known, (1, *shape) bool, of a mask as the page has it: "1" where to fill in.

    Raises:
        InputError: a mask of another size.
    """
    height, width = run.shape[1:]
    if len(mask) != height * width or set(mask) - {"0", "1"}:
        raise InputError(f"the mask has {len(mask)} cells; this run's pictures have {height * width}.")
    hidden = torch.tensor([one == "1" for one in mask]).reshape(1, 1, height, width)
    return ~hidden.expand(1, *run.shape)


def filled_in(job: Job, run: Run, given: Tensor, mask: str, draws: int, method: str, seed: int) -> dict[str, Any]:
    """Answers for the hidden part, their mean and how far they differ."""
    known = known_of(run, mask)
    found = inpaint(heard(run, job.tick), given, known, draws=draws, method=method, seed=seed, steps=STEPS)
    shown = given.masked_fill(~known, 1.0)
    spread = found.std / max(float(found.std.max()), 1e-6) * 2 - 1
    return {
        "titles": ["given, with the hidden part white", "answers", "their mean, and where they differ (white: most)"],
        "left": {"payload": pixels(shown, 1), "said": ""},
        "right": {"payload": pixels(found.samples[0]), "said": f"{draws} draws by {method}"},
        "apart": {"payload": pixels(torch.cat([found.mean, spread])), "said": f"deviation up to {found.std.max():.2g}"},
        "done": True,
    }


def between(job: Job, run: Run, first: Tensor, last: Tensor) -> dict[str, Any]:
    """Pictures on the way from one to the other."""
    start, end = (run.transform.forward(run.transform.plain.inverse(one)) for one in (first, last))
    way = run.transform.pictures(interpolate(heard(run, job.tick), start, end, WAY, steps=STEPS))
    return {
        "titles": ["from", "in between", "to"],
        "left": {"payload": pixels(first, 1), "said": ""},
        "right": {"payload": pixels(way), "said": f"{WAY} pictures, encoded and decoded in {STEPS} steps"},
        "apart": {"payload": pixels(last, 1), "said": ""},
        "done": True,
    }


def holes_of(job: Job, studio: Studio, run: Run, grid: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """What may stand in the empty cells of rows: of each the centre, and the words with their shares or the range.

    Raises:
        InputError: other columns than the run's, too many rows, words that a column cannot have, no empty cell.
    """
    _, types = must_be_table(run)
    names, rows = [str(name) for name in grid["names"]], [[str(word) for word in row] for row in grid["rows"]]
    if names != [kind.name for kind in types] or not 0 < len(rows) <= ROWS:
        raise InputError(f"the grid must have the columns {', '.join(k.name for k in types)} and up to {ROWS} rows.")
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    place = studio.place() / "rows.csv"
    place.write_text(text.getvalue(), "utf-8")
    filled, found = fill(run, read_rows(run, place), DRAWS, seed, progress=lambda done, total: job.tick()), []
    for row, column in filled.holes.nonzero().tolist():
        kind, values = types[column], filled.draws[:, row, column]
        hole: dict[str, Any] = {"row": row + 1, "column": kind.name}
        hole["centre"] = kind.render([float(filled.centre[row, column])])[0]
        if kind.numeric or kind.kind == "date":
            hole["range"] = kind.render([float(values.min()), float(values.max())])
        else:
            shares = Counter(kind.render(values.numpy())).most_common(4)
            hole["shares"] = {word: count / DRAWS for word, count in shares}
        found.append(hole)
    if not found:
        raise InputError("no cell is empty: empty those that are to be filled in.")
    return found


def rendered(holes: list[dict[str, Any]]) -> str:
    """The holes as a table."""
    lines = []
    for hole in holes:
        said = " to ".join(map(html.escape, hole.get("range", ()))) or "<br>".join(
            f'<span class="share" style="--share:{share:.2f}">{html.escape(word)} {share:.0%}</span>'
            for word, share in hole["shares"].items()
        )
        cells = (str(hole["row"]), html.escape(hole["column"]), f"<b>{html.escape(hole['centre'])}</b>", said)
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return (
        f'<table class="measures"><caption>By {DRAWS} draws of all holes of a row together.</caption>'
        "<thead><tr><th>row</th><th>column</th><th>filled with</th><th>what the draws say</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


class Edit:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, page: gr.Blocks, tab: Any) -> None:  # long: two forms, one control after the other
        """Lay out the room."""
        look.introduction(
            "Edit",
            "A model of pictures also knows what fits the rest of a picture. Hide a part, and it draws several answers "
            "for it: where they agree, the rest of the picture decides; where they differ, the model guesses. It can "
            "also turn one picture into another through the noise that each comes from. A model of a table fills empty "
            "cells, and says how sure it is.",
            "guidance",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=290):
                run = gr.Dropdown([], label="Run on pictures", elem_id="edit-run")
                number = gr.Number(0, precision=0, label="Held-out example", elem_id="edit-example")
                file = gr.File(label="Or your own picture", file_types=[".png", ".jpg", ".npy"], height=150)
                mask = look.drawn_by("mask", elem_id="mask")
                draws = gr.Slider(1, ANSWERS, 9, step=1, label="Answers")
                method = gr.Dropdown(list(METHODS), value=METHODS[0], label="Method", info="See docs/guidance.md.")
                seed = gr.Number(0, precision=0, label="Seed")
                go = gr.Button("Fill in", variant="primary", elem_id="fill")
                other = gr.Number(5, precision=0, label="Another held-out example", info="The picture to end at.")
                way = gr.Button("Go from one to the other", elem_id="way")
                halt = gr.Button("Stop")
            with gr.Column(scale=5, min_width=320):
                note = gr.HTML(look.note("Choose a run."), elem_id="edit-note", padding=False)
                view = look.drawn_by("compare", elem_id="edited")
                table = gr.Dropdown([], label="Run on a table", elem_id="cells-run")
                grid = look.drawn_by("cells", elem_id="cells")
                complete = gr.Button("Fill the empty cells", elem_id="complete")
                holes = gr.HTML("", elem_id="holes", padding=False, apply_default_css=False)
        tab.select(self.menus, None, [run, table], queue=False, **look.PRIVATE)
        for event in (run.change, number.change, file.change):
            event(self.picture, [run, number, file], [note, mask], queue=False, **look.PRIVATE)
        table.change(self.rows, [table], [note, grid], queue=False, **look.PRIVATE)
        go.click(self.fill, [run, number, file, mask, draws, method, seed], [note, view], **look.ASKS)
        way.click(self.way, [run, number, file, other], [note, view], **look.ASKS)
        complete.click(self.complete, [table, grid, seed], [note, holes], **look.ASKS)
        halt.click(self.studio.halt, None, None, queue=False, **look.PRIVATE)

    def menus(self) -> list[Any]:
        """The runs on pictures, and those on tables."""
        kinds: dict[bool, list[str]] = {True: [], False: []}
        for name in self.studio.shelf.names():
            try:
                run = self.studio.shelf.open(name)
            except InputError:
                continue
            if run.learner.draws and (draws_rows(run) or run.kind == "image"):
                kinds[draws_rows(run)].append(name)
        return [gr.update(choices=names, value=names[0] if names else None) for names in (kinds[False], kinds[True])]

    def picture(self, name: str, number: Any, file: str | None) -> list[Any]:
        """The picture to paint on."""
        try:
            run = self.studio.shelf.open(name)
            limits = self.studio.limits
            given = example(run, limits.whole(number, "example", 10**9, 0), file, limits)
            height, width = run.shape[1:]
            value = {"pixels": pixels(given, 1)["pixels"], "size": [width, height], "mask": "0" * (height * width)}
            return [look.note("Paint over the picture what is to be filled in."), value]
        except Exception as error:
            return [look.note(sentence(error), "bad"), gr.skip()]

    def rows(self, name: str) -> list[Any]:
        """Rows to begin with, drawn by the model, with a few cells empty."""
        try:
            run = self.studio.shelf.open(name)
            _, types = must_be_table(run)
            drawn = run.sample(2, seed=0)
            columns = [kind.render(drawn[:, place].double().numpy()) for place, kind in enumerate(types)]
            rows = [list(row) for row in zip(*columns, strict=True)]
            rows[0][-1] = rows[1][0] = rows[1][-2] = ""
            value = {"names": [kind.name for kind in types], "rows": rows, "key": f"{name} {time.monotonic_ns()}"}
            return [gr.skip(), value]
        except Exception as error:
            return [look.note(sentence(error), "bad"), gr.skip()]

    async def fill(  # what the controls say, in their order
        self,
        request: gr.Request,
        name: str,
        number: Any,
        file: str | None,
        mask: Any,
        draws: Any,
        method: str,
        seed: Any,
    ) -> AsyncIterator[list[Any]]:
        """Fill in what is painted over."""

        def work(job: Job) -> str:
            limits, run = self.studio.limits, self.studio.shelf.open(name)
            given = example(run, limits.whole(number, "example", 10**9, 0), file, limits)
            marks = str((mask or {}).get("mask", ""))
            n, start = limits.whole(draws, "answers", ANSWERS), limits.whole(seed, "seed", 2**31 - 1, 0)
            return look.told(filled_in(job, run, given, marks, n, method, start))

        async for said in self._followed(request, work):
            yield said

    async def way(
        self, request: gr.Request, name: str, number: Any, file: str | None, other: Any
    ) -> AsyncIterator[list[Any]]:
        """Go from one picture to another."""

        def work(job: Job) -> str:
            limits, run = self.studio.limits, self.studio.shelf.open(name)
            first = example(run, limits.whole(number, "example", 10**9, 0), file, limits)
            last = example(run, limits.whole(other, "example", 10**9, 0), None, limits)
            return look.told(between(job, run, first, last))

        async for said in self._followed(request, work):
            yield said

    async def complete(self, request: gr.Request, name: str, grid: Any, seed: Any) -> AsyncIterator[list[Any]]:
        """Fill the empty cells of the grid."""

        def work(job: Job) -> str:
            start = self.studio.limits.whole(seed, "seed", 2**31 - 1, 0)
            if not isinstance(grid, dict):
                raise InputError("Choose a run on a table first.")
            return rendered(holes_of(job, self.studio, self.studio.shelf.open(name), grid, start))

        async for said in self._followed(request, work):
            yield said

    async def _followed(self, request: gr.Request, work: Callable[[Job], Any]) -> AsyncIterator[list[Any]]:
        try:
            job = self.studio.desk.submit(str(request.session_hash), work, ROOM)
            async for news in self.studio.desk.follow(job):
                yield [look.place_in_line(news.place), gr.skip()]
            yield [look.note("Done."), job.result]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), gr.skip()]
