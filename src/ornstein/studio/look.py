"""How the studio looks: system fonts, colours that people who see fewer of them can tell apart, light and dark."""

import html
import json
from typing import Any

import gradio as gr

from ornstein.studio.pages import PREFIX, text_of
from ornstein.studio.pages import title as title_of

#: how a page's events are answered: none is an endpoint, and none covers what is there while it is awaited
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
#: those that wait in line: a click while the one before is being answered counts too, and what is newer takes its place
ASKS: dict[str, Any] = {**PRIVATE, "concurrency_limit": None, "trigger_mode": "multiple"}


def drawn_by(name: str, value: Any = None, **how: Any) -> Any:
    """A component that shows its value by NAME.html and NAME.js; `put` and `given` of draw.js are at hand there."""
    return gr.HTML(
        value=value, html_template=text_of(f"{name}.html"), js_on_load=text_of("draw.js") + text_of(f"{name}.js"),
        padding=False, apply_default_css=False, **how,
    )  # fmt: skip


def told(value: Any) -> str:
    """A value for such a component to show, as text that `given` reads.

    Not as an object: of those Gradio sends the browser what is new, and writes it into the one that was sent before, so
    that what was sent shortly before is lost where the page has not come to it yet; and each number of one costs the
    page far more than a text of them all.
    """
    return json.dumps(value, separators=(",", ":"))


def theme() -> Any:
    """Gradio's base theme in our colours, with the fonts that the machine has."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue, neutral_hue=gr.themes.colors.slate, font=fonts, font_mono=mono,
        radius_size=gr.themes.sizes.radius_md, text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="#f6f7f9", body_background_fill_dark="#0e131c",
        block_background_fill="#ffffff", block_background_fill_dark="#161d29",
        block_border_color="#dde3ec", block_border_color_dark="#2a3547",
        button_primary_background_fill="#0b5fa5", button_primary_background_fill_hover="#094d87",
        button_primary_background_fill_dark="#2f86d1", button_primary_background_fill_hover_dark="#4b9be0",
        button_primary_text_color="#ffffff", slider_color="#0b5fa5", slider_color_dark="#4b9be0",
        block_label_text_size="0.8rem", body_text_color_subdued="#51607a", body_text_color_subdued_dark="#a9b6c8",
    )  # fmt: skip


def introduction(title: str, words: str, page: str) -> None:
    """The paragraph that a room begins with, for people who are new, and a link to the page with the theory."""
    link = f'<a href="{PREFIX}/{page}" target="_blank" rel="noopener">{html.escape(title_of(page))}</a>'
    gr.HTML(
        f'<section class="intro"><h2>{html.escape(title)}</h2><p>{html.escape(words)} '
        f'<span class="intro-more">The theory: {link}</span></p></section>',
        padding=False,
    )


def note(words: str, kind: str = "") -> str:
    """One line on how things stand; kind "bad" is a refusal, "busy" work."""
    return f'<p class="note {kind}" role="status" aria-live="polite">{html.escape(words)}</p>'


def place_in_line(place: int) -> str:
    """Where a job stands."""
    if place == 0:
        return note("Your turn: working.", "busy")
    before = "One job is" if place == 1 else f"{place} jobs are"
    return note(f"In line, place {place}: {before} before yours. Turns are short.", "busy")
