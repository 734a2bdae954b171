"""The report page: whole in itself, safe with any name, readable by a program that reads it as a browser does."""

import base64
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sure import Cli, there

import ornstein
from ornstein.experiment import page as room
from ornstein.experiment.config import Experiment
from ornstein.experiment.curves import Line, _axis, chart
from ornstein.experiment.doctor import CHECKS
from ornstein.experiment.evaluate import evaluate
from ornstein.experiment.page import Row, number
from ornstein.experiment.train import train
from ornstein.experiment.wording import PLAINLY
from ornstein.metrics import METRICS, Score

VOID = {"meta", "img", "br", "line", "circle", "polyline", "input", "hr"}


class Read(HTMLParser):
    """Every element with its attributes, the text, and whether all that was opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def tags(self, *names: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in names]


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of points whose file, classes and folder are named as someone would who wants to write into the page."""
    root = tmp_path_factory.mktemp("<i>page")
    g = np.random.default_rng(0)
    x = g.normal(size=(300, 2)).astype(np.float32)
    np.savez(
        root / "<script>alert(1)&.npz",
        x=x,
        y=np.array(["<b>bold</b>", "{{ 7 * 7 }}"])[g.integers(2, size=300)],
    )
    few = [f"data.path={root}/<script>alert(1)&.npz", "net={name: mlp, width: 16, depth: 1}",
           "training.steps=40", "training.validate_every=10", "training.log_every=10", "training.cpu=true",
           "sampling.preview=4", "sampling.steps=3"]  # fmt: skip
    for _ in train(Experiment.read("array", few), root / "run", draws=False):  # what is drawn is not on the page
        pass
    evaluate(ornstein.load(root / "run"), n=60)
    return root / "run"


def test_the_page_asks_nothing_of_anyone(nasty: Path) -> None:
    text = (nasty / "report.html").read_text("utf-8")
    read = Read(text)
    for _, attributes in read.elements:
        for name, value in attributes.items():
            assert name not in ("href", "srcset", "onload", "onerror", "action"), (name, value)
            if name == "src":
                assert value.startswith("data:image/png;base64,")
    assert not read.tags("script", "link", "iframe", "object", "embed", "form", "base")
    style = there(re.search(r"<style>(.*?)</style>", text, re.S))[1]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert "prefers-color-scheme: dark" in style
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.tags("meta")


def test_names_with_markup_are_words_on_the_page(nasty: Path) -> None:
    read = Read((nasty / "report.html").read_text("utf-8"))
    assert not read.tags("script", "b") or all("style" in attributes for attributes in read.tags("b"))
    assert "<script>alert(1)&" in read.text
    assert not read.tags("i") or all("class" in a or "style" in a for a in read.tags("i"))


def test_everything_measured_stands_on_the_page_with_a_sentence(nasty: Path) -> None:
    read = Read((nasty / "report.html").read_text("utf-8"))
    found = json.loads((nasty / "evaluation.json").read_text())
    for name, row in found["rows"].items():
        assert f"{name} {PLAINLY[name]}" in read.text
        assert number(row["value"]) in read.text
        assert number(row["floor"]) in read.text
        assert row["verdict"] in read.text
    for name in set(CHECKS) - {"signal-left"}:
        assert name in read.text, name
    for heading in ("Samples beside real data", "How good the samples are", "Is anything copied?",
                    "How likely held-out data are to the model", "What is wrong, and what to change",
                    "Error at each level of noise", "Error on held-out data", "Training loss", "Settings"):  # fmt: skip
        assert heading in read.text, heading
    assert "This is exact" in read.text  # of continuous data
    assert len(read.tags("svg")) == 3
    assert len(read.tags("img")) == 1
    assert re.search(r'<figure class="wide">\s*<img', (nasty / "report.html").read_text("utf-8"))


def test_every_measure_of_the_table_has_a_sentence() -> None:
    of_tables = {"columns", "pairs", "trees", "network", "predict", "closest record", "copies", "membership"}
    assert set(METRICS) | {"class-agreement"} | of_tables | {"wasserstein"} == set(PLAINLY)  # the last of bridges
    for sentence in PLAINLY.values():
        assert sentence.endswith((".", "?"))


def test_a_page_can_be_left_out(nasty: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(nasty, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    answer = cli("evaluate", tmp_path / "run", "-n", 20, "--no-page")
    assert answer.code == 0, answer
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.usefixtures("brief_reports")
def test_the_page_of_images_shows_them_beside_real_ones_and_the_verb_says_what_it_is_doing(
    run: Path, tmp_path: Path, cli: Cli
) -> None:
    shutil.copytree(run, tmp_path / "run")
    answer = cli("evaluate", tmp_path / "run", "-n", 20, "--steps", 2)
    assert answer.code == 0, answer
    assert "report.html" in answer.out
    # where there is no terminal, a line each
    assert answer.err.split("\n")[:-1] == [
        "drawing", "a classifier of the real data", "sliced-wasserstein", "energy-distance", "mmd", "memorisation",
        "near copies", "the picture", *(f"the doctor: {name}" for name in CHECKS), "the page",
    ]  # fmt: skip
    assert "drawing" not in answer.out
    read = Read((tmp_path / "run" / "report.html").read_text("utf-8"))
    said = "that need 50 samples and 50 held-out examples; the others see only gross faults"
    for words in ("Real, held out", "Closest relatives", "8×8 pixels", "in 10 classes", "steps 2", said):
        assert words in read.text, words
    assert len(read.tags("img")) == 3
    relatives = Image.open(io.BytesIO(base64.b64decode(read.tags("img")[-1]["src"].partition(",")[2])))
    assert relatives.width / relatives.height == pytest.approx(5, abs=0.3)  # ten samples, and below each its nearest
    assert "How likely" not in read.text  # it takes minutes of pictures, and was not asked for


def test_a_chart_puts_its_points_where_the_axes_say() -> None:
    lines = [
        Line("one & only", [(1.0, 1.0), (10.0, 10.0), (100.0, 100.0), (math.nan, 3.0)]),
        Line("flat", [(1.0, 10.0)]),
    ]
    read = Read(chart(lines, "x < y", "y", log_x=True, log_y=True))
    points = [tuple(map(float, p.split(","))) for p in read.tags("polyline")[-1]["points"].split()]
    assert len(points) == 3  # what is no number has no place
    (a, b, c) = points
    assert b[0] == pytest.approx((a[0] + c[0]) / 2, abs=0.11)  # a decade is a decade
    assert b[1] == pytest.approx((a[1] + c[1]) / 2, abs=0.11)
    assert a[0] < c[0]
    assert a[1] > c[1]  # up is more
    assert read.tags("svg")[0]["aria-label"] == "y against x < y"
    assert "1 10 100" in read.text
    assert chart([Line("none", [])], "x", "y") == ""
    assert Read(chart([Line("same", [(0.0, 2.0), (1.0, 2.0)])], "x", "y")).tags("polyline")


def test_a_curve_keeps_a_little_room_on_either_side() -> None:
    for values, log in (((1.0, 3.0), False), ((1.0, 100.0), True)):
        place, _ = _axis(values, log, 20.0, 128.0)
        assert [place(value) for value in values] == pytest.approx([24.0, 124.0])
    place, named = _axis([2.0], False, 100.0, 0.0)
    assert place(2.0) == pytest.approx(50.0)
    assert 2.0 in named


def test_numbers_are_written_for_people() -> None:
    assert [number(v) for v in (0.0, 0.5, -0.0511, 1234567.0, 0.00055, math.nan)] == [
        "0", "0.5", "−0.0511", "1,234,567", "0.00055", "–"]  # fmt: skip
    assert number(0.00001234) == "0.0000123"


def test_the_strip_shows_where_a_value_lies_among_real_ones() -> None:
    def strip(value: float) -> Any:
        return Row("x", "", Score(value, 1.0, 0.1, value, "matches", 10)).strip

    inside, outside = strip(1.0), strip(3.0)
    assert inside["low"] < inside["value"] == inside["floor"] < inside["high"]
    assert outside["value"] > outside["high"]
    assert all(0 <= place <= 100 for place in (*inside.values(), *outside.values()))


def test_the_template_travels_with_the_package() -> None:
    assert (Path(room.__file__).parent / "report.html.jinja").is_file()
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"experiment/*.jinja"' in text
