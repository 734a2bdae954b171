"""The one page of the studio, with its rooms."""

from typing import Any

import gradio as gr

from ornstein.studio.api import Api
from ornstein.studio.compare import Compare
from ornstein.studio.edit import Edit
from ornstein.studio.playground import Playground
from ornstein.studio.report import Report
from ornstein.studio.state import Studio
from ornstein.studio.theory import Theory
from ornstein.studio.training import Training

#: the rooms by their names, in the order of their tabs
ROOMS: dict[str, Any] = {
    "Playground": Playground, "Theory": Theory, "Compare": Compare, "Edit": Edit, "Training": Training,
    "Report": Report,
}  # fmt: skip

_HEAD = """<header class="masthead"><h1>ornstein <span>studio</span></h1>
<p>See a diffusion model think.</p>
<button type="button" class="light" aria-label="Light or dark">◐</button></header>"""
_LIGHT = """element.querySelector(".light").addEventListener("click", () => document.body.classList.toggle("dark"));"""


def build(studio: Studio) -> gr.Blocks:
    """All rooms."""
    with gr.Blocks(title="ornstein studio", analytics_enabled=False, fill_width=True, delete_cache=(600, 1800)) as page:
        gr.HTML(_HEAD, js_on_load=_LIGHT, padding=False)
        with gr.Tabs():
            for name, room in ROOMS.items():
                with gr.Tab(name, id=name.lower()) as tab:
                    room(studio).build(page, tab)

        Api(studio).build()
        page.unload(studio.halt)
    page.queue(default_concurrency_limit=None, max_size=200, api_open=False)
    built: gr.Blocks = page
    return built
