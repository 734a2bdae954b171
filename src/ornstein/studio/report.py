"""The room of reports: all runs at a glance, and of one, or two side by side, how good it is and what is wrong."""

import html
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from ornstein.errors import InputError
from ornstein.experiment.doctor import Diagnosis, doctor
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.gallery import Entry, entries, entry, measures
from ornstein.experiment.report import describe
from ornstein.studio import look
from ornstein.studio.desk import Job, Replaced
from ornstein.studio.frames import thumbnail
from ornstein.studio.state import Studio
from ornstein.studio.words import sentence

ROOM = "report"
NOBODY = ""
#: samples that an evaluation and the doctor judge by; runs that are listed
JUDGED, EXAMINED, LISTED = 500, 200, 100
COLUMNS = ("", "run", "data", "examples", "weights", "steps", "minutes", "held-out error", "as good as real")


def row(one: Entry) -> dict[str, Any]:
    """A run as a line of the table: what is read, and what it is sorted by."""
    pictures = list(one.pictures.values())
    said = [
        thumbnail(pictures[0]) if pictures else None, one.name, one.data, f"{one.count:,}", f"{one.weights:,}",
        f"{one.steps:,}", f"{one.minutes:.1f}", "" if one.held_out is None else f"{one.held_out:.4f}",
        "not evaluated" if one.matching is None else f"{one.matching:.0%} of measures",
    ]  # fmt: skip
    sort = [None, one.name, one.data, one.count, one.weights, one.steps, one.minutes, one.held_out, one.matching]
    return {"name": one.name, "cells": said, "sort": sort}


def rendered(name: str, folder: Path) -> str:
    """A run as a column of a page: what it is, its pictures, its evaluation."""
    one = entry(name, folder)
    facts = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in describe(folder).items()
        if key not in ("files", "versions", "evaluation")
    )  # fmt: skip
    pictures = "".join(
        f'<figure><img src="{picture}" alt="{html.escape(title)}">'
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, path in one.pictures.items() if (picture := thumbnail(path, 900))
    )  # fmt: skip
    return (
        f'<article class="report"><h3>{html.escape(name)}</h3><div><dl>{facts}</dl>{evaluation(folder)}</div>'
        f'<div class="report-pictures">{pictures}</div></article>'
    )


def evaluation(folder: Path) -> str:
    """The evaluation of a run as a table, each figure beside what real data score."""
    lines = measures(folder)
    if not lines:
        return '<p class="note">Not evaluated yet: the button below does it.</p>'
    rows = "".join(
        f'<tr><td><b>{html.escape(line.name)}</b><br><small>{html.escape(line.plainly)}</small></td>'
        f"<td>{line.value:.4g}</td><td>{line.floor:.4g}</td>"
        f'<td class="{html.escape(line.tone)}">{html.escape(line.verdict)}</td></tr>'
        for line in lines
    )  # fmt: skip
    return (
        '<table class="measures"><caption>How good the samples are. A good model scores what real data score, not '
        f"zero.</caption><thead><tr><th>measure</th><th>samples</th><th>real data</th><th>verdict</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def diagnosis(found: Diagnosis) -> str:
    """What the doctor found, the findings first."""
    parts = [
        f"<li><b>{html.escape(name)}</b>: {html.escape(one.said)}<br><small>{html.escape(one.measured)}: "
        f"{html.escape(one.of_bounds)}.</small><br>Do: {html.escape(one.do)}</li>"
        for name, one in found.findings.items()
    ]
    well = ", ".join(f"{name} {one.written}" for name, one in found.examined.items() if one.healthy)
    verdict = f"<ul>{''.join(parts)}</ul>" if parts else "<p>Nothing is wrong.</p>"
    return (
        f'<section class="report doctor"><h3>The doctor says</h3>{verdict}<p><small>As it should be: '
        f"{html.escape(well)}.</small></p><p>{html.escape(found.advice)}</p></section>"
    )


class Report:
    """The room: its controls, and what they do."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def build(self, page: gr.Blocks, tab: Any) -> None:
        """Lay out the room."""
        look.introduction(
            "Report",
            "Every run in the folder, newest first; a click on a column's name sorts, a click on a run opens it. Each "
            "measure compares samples with held-out real data; beside it stands what real data themselves score. The "
            "doctor looks for common faults: too little training, memorised examples, a sampler that is too coarse.",
            "doctor",
        )
        gallery = look.drawn_by("gallery", elem_id="gallery")
        with gr.Row():
            one = gr.Dropdown([], label="Run", elem_id="report-run")
            other = gr.Dropdown([("nothing", NOBODY)], value=NOBODY, label="Compared with", elem_id="report-other")
        with gr.Row():
            judge = gr.Button(f"Evaluate by {JUDGED} samples", size="sm", elem_id="evaluate")
            ask = gr.Button("Ask the doctor", size="sm", elem_id="doctor")
            halt = gr.Button("Stop", size="sm")
        note = gr.HTML(look.note("Choose a run."), elem_id="report-note", padding=False)
        told = gr.HTML("", elem_id="diagnosis", padding=False)
        with gr.Row(equal_height=False):
            left, right = (
                gr.HTML("", elem_id=f"report-{side}", padding=False, apply_default_css=False)
                for side in ("left", "right")
            )
        tab.select(self.every, None, [gallery, one, other], queue=False, **look.PRIVATE)
        gallery.select(self.chosen, None, [one], queue=False, **look.PRIVATE)
        for menu in (one, other):
            menu.change(self.show, [one, other], [note, left, right, told], queue=False, **look.PRIVATE)
        judge.click(self.judge, [one], [note, left], **look.ASKS)
        ask.click(self.examine, [one], [note, told], **look.ASKS)
        halt.click(self.studio.halt, None, None, queue=False, **look.PRIVATE)

    def every(self) -> list[Any]:
        """All runs."""
        found, refused = entries(dict(list(self.studio.shelf.places().items())[:LISTED]))
        names = [one.name for one in found]
        unread = f"; {len(refused)} cannot be read: {'; '.join(refused.values())}" if refused else ""
        value = {"columns": COLUMNS, "rows": [row(one) for one in found], "caption": f"{len(found)} runs{unread}"}
        return [look.told(value), gr.update(choices=names), gr.update(choices=[("nothing", NOBODY), *names])]

    def chosen(self, event: gr.EventData) -> Any:
        """The run of a click in the table."""
        return gr.update(value=event.run) if event.run in self.studio.shelf.places() else gr.skip()

    def show(self, one: str, other: str) -> list[Any]:
        """One run, or two side by side."""
        shown, note = [], look.note("")
        for name in (one, other):
            try:
                shown.append(rendered(name, self.studio.shelf.place(name)) if name else "")
            except Exception as error:
                shown.append("")
                note = look.note(sentence(error), "bad")
        return [note, *shown, ""]

    async def judge(self, request: gr.Request, name: str) -> AsyncIterator[list[Any]]:
        """Evaluate a run; evaluation.json and its picture are written into its folder."""

        def work(job: Job) -> str:
            run = self.studio.shelf.open(name)
            evaluate(run, n=JUDGED, page=False, stage=job.show, progress=lambda done, total: job.tick())
            return rendered(name, run.folder)

        async for said in self._followed(request, name, work):
            yield said

    async def examine(self, request: gr.Request, name: str) -> AsyncIterator[list[Any]]:
        """What the doctor finds; nothing of the run is changed."""

        def work(job: Job) -> str:
            return diagnosis(doctor(self.studio.shelf.open(name), n=EXAMINED, stage=job.show))

        async for said in self._followed(request, name, work):
            yield said

    async def _followed(self, request: gr.Request, name: str, work: Any) -> AsyncIterator[list[Any]]:
        try:
            if not name:
                raise InputError("Choose a run first.")
            job = self.studio.desk.submit(str(request.session_hash), work, ROOM)
            async for news in self.studio.desk.follow(job):
                doing = look.place_in_line(news.place) if news.shown is None else look.note(f"{news.shown} ...", "busy")
                yield [doing, gr.skip()]
            yield [look.note("Done."), job.result]
        except Replaced:
            return
        except Exception as error:
            yield [look.note(sentence(error), "bad"), gr.skip()]
