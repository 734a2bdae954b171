"""Charts of tables, and the report of a run on one: what is on them, read off the figure, the file and the page."""

import json
import math
import warnings
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from sure import Cli

from ornstein.core.numerics import Estimate
from ornstein.data.schema import ColumnType
from ornstein.experiment import pictures
from ornstein.experiment.cells import score
from ornstein.experiment.charts import ACCENT, PANELS, figure
from ornstein.experiment.charts_of_tables import _cut_off, _Scale, table_chart
from ornstein.experiment.page import number
from ornstein.experiment.run import Run

#: whose subject it is that nothing overlaps or is cut off
pytestmark = pytest.mark.usefixtures("laid_out")

NAN = math.nan
TYPES = (
    ColumnType("colour $x$", "category", levels=("red", "green", "<b>blue</b>", *(f"shade {i}" for i in range(9)))),
    ColumnType("price", "number", decimals=2, format="short"),
    ColumnType("rooms", "integer", format="short"),
    ColumnType("sold", "date", format="%Y-%m-%d"),
    ColumnType("id", "identifier"),
    ColumnType("land", "constant", levels=("here",)),
    ColumnType("new", "boolean", levels=("no", "yes")),
)


def rows(n: Any, seed: Any) -> Any:
    g = torch.Generator().manual_seed(seed)
    colour = torch.multinomial(1 / torch.arange(1, 13).double(), n, True, generator=g).double()
    price = torch.where(
        torch.rand(n, generator=g) < 0.7, 0.0, (3 * torch.randn(n, generator=g) + colour).exp().double()
    )
    rooms = torch.where(torch.rand(n, generator=g) < 0.25, NAN, (colour + 3).round())
    sold = 86_400.0 * torch.randint(15_000, 16_000, (n,), generator=g).double()
    new = torch.where(torch.rand(n, generator=g) < 0.5, NAN, (colour > 1).double())
    none, zero = torch.full((n,), NAN, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    return torch.stack([colour, price, rooms, sold, none, zero, new], 1)


def panels(figure: Any) -> Any:
    """The panels that something is drawn in, by their titles, and those of pairs in a list."""
    drawn = [axes for axes in figure.get_axes() if axes.axison]
    pairs = [axes for axes in drawn if axes.get_title().startswith("Cramér")]
    return {axes.get_title(): axes for axes in drawn if axes not in pairs}, pairs


def words(axis: Any) -> Any:
    return [label.get_text() for label in axis.get_ticklabels()]


def heights(axes: Any, color: Any) -> Any:
    """Of the bars with this edge, in order."""
    return [p.get_width() for p in axes.patches if p.get_edgecolor() == to_rgba(color)]


def test_each_column_is_drawn_as_what_it_is() -> None:
    x, real = rows(400, 1), rows(500, 2)
    figure = table_chart(x, TYPES, real)
    each, pairs = panels(figure)
    assert list(each) == [r"colour \$x\$", "price", "rooms", "sold", "new"]  # nothing to say of an identifier
    said = " ".join(text.get_text() for part in figure.subfigs for text in part.texts)
    assert "not drawn, as they say nothing of a row: id, land" in said
    # words: their own bars, the others as one, and no bar for holes where there are none
    colour = each[r"colour \$x\$"]
    assert words(colour.yaxis)[0] == "red"
    assert words(colour.yaxis)[-1] == "6 others"
    shares = heights(colour, ACCENT)
    assert shares[0] == pytest.approx(float((x[:, 0] == 0).double().mean()))
    outlines = [bar.get_linewidth() for bar in colour.patches if bar.get_facecolor()[3] == 0]
    assert len(outlines) == len(shares)
    assert min(outlines) > 1  # thick enough to be told from the real ones' bars
    assert sum(shares) == pytest.approx(1)
    # a boolean's holes are a bar
    assert words(each["new"].yaxis) == ["no", "yes", "missing"]
    assert heights(each["new"], ACCENT)[2] == pytest.approx(float(x[:, 6].isnan().double().mean()))
    # and a number's
    assert "missing" in [text.get_text() for text in each["rooms"].texts]
    # dates have a calendar below them
    figure.canvas.draw()
    assert any(label.startswith("20") for label in words(each["sold"].xaxis))
    assert len(pairs) == 3


def test_a_heavy_tail_and_a_spike_leave_the_rest_to_be_seen() -> None:
    x, real = rows(400, 1), rows(500, 2)
    each, _ = panels(table_chart(x, TYPES, real))
    price = each["price"]
    said = " ".join(text.get_text() for text in price.texts)
    zeros = [f"{float((part[:, 1] == 0).double().mean()):.1%}" for part in (real, x)]
    assert said == " and ".join(zeros)  # the bar that is cut off says how high it is
    assert price.get_ylim()[1] < 0.3
    values = price.patches[-1].get_data().values
    assert (values > 0).sum() > 10  # on a straight axis all but a few would lie in one bar
    scale = _Scale.of(TYPES[1], real[:, 1].numpy())
    places = [place for place, _ in scale.ticks]
    assert (np.diff(places) > 0).all()
    assert scale.shares(x[:, 1].numpy()).sum() == pytest.approx(1)
    beyond = np.array([1e30, -1e30, NAN, 0.0])
    assert scale.shares(beyond).sum() == pytest.approx(3 / 4)  # what lies beyond counts in the outermost bars


def test_a_bar_is_cut_off_where_it_towers_above_all_others() -> None:
    edges = np.arange(6.0)
    for shares, top in (([0.01, 0.02, 0.03, 0.9, 0.04], 1.6 * 0.04), ([0.01, 0.02, 0.03, 0.44, 0.5], None)):
        _, axes = figure()
        before = axes.get_ylim()
        _cut_off(axes, [np.array(shares), 0.5 * np.array(shares)], edges)
        assert axes.get_ylim() == (before if top is None else pytest.approx((0, top)))
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == (
            [] if top is None else [("90.0% and 45.0%", 3.5)]
        )


@pytest.mark.parametrize("real", [True, False])
def test_holes_everywhere_warn_of_nothing(tmp_path: Path, real: Any) -> None:
    x = rows(60, 1)
    x[:, 1] = NAN
    x[:, 6] = NAN
    x[1:, 2] = NAN
    other = rows(60, 2) if real else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.draw(x, "table", tmp_path / "x.png", real=other, types=TYPES)
        if not real:  # nothing real lies beside these
            pictures.draw(torch.full((9, 7), NAN).double(), "table", tmp_path / "y.png", types=TYPES)
            pictures.film([torch.full((9, 7), NAN).double(), x[:9]], "table", tmp_path / "x.gif", types=TYPES)
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_of_very_many_columns_those_are_shown_that_are_least_alike() -> None:
    g = torch.Generator().manual_seed(0)
    x, real = (torch.randn(80, PANELS + 9, generator=g).double() for _ in range(2))
    x[:, PANELS + 5] += 9
    each, _ = panels(table_chart(x, [ColumnType(f"n{i}", "number", format="short") for i in range(PANELS + 9)], real))
    assert len(each) == PANELS
    assert f"n{PANELS + 5}" in each
    assert list(each) == sorted(each, key=lambda name: int(name[1:]))  # in the order of the table


@pytest.mark.usefixtures("brief_reports")
def test_a_run_on_a_table_is_measured_drawn_and_told_on_a_page(cli: Cli, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    lines = ["<b>kind</b>,size,day,note"]
    for i in range(400):
        kind = int(torch.randint(3, (1,), generator=g))
        size = "" if i % 9 == 0 else str(kind * 10 + int(torch.randint(4, (1,), generator=g)))
        word = "" if i % 7 == 0 else ("red", "green", "blue")[kind]
        lines.append(f"{word},{size},2021-02-{i % 28 + 1:02d},x")
    path, run = tmp_path / "things.csv", tmp_path / "run"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    tiny = ["net.width=32", "net.depth=1", "training.steps=60", "training.batch_size=64", "training.validate_every=60"]
    assert cli("train", path, *tiny, "sampling.preview=50", "--out", run).code == 0
    answer = cli("evaluate", run, "-n", 80)
    assert answer.code == 0, answer.err
    assert "rank a draw above a held-out row" in answer.out
    found = json.loads((run / "evaluation.json").read_text())
    assert set(found["columns"]) == {"<b>kind</b>", "size", "day"}
    assert {"columns", "pairs", "closest record", "membership", "copies"} <= set(found["rows"])
    assert any(name.startswith("predict ") for name in found["rows"])
    train = found["counts"]["train"]
    assert found["counts"] == {"samples": 80, "train": train, "heldout": 400 - train}
    page = (run / "report.html").read_text("utf-8")
    assert f"{train} rows of" in page
    assert "Column by column" in page
    assert "&lt;b&gt;kind&lt;/b&gt; with size" in page or "&lt;b&gt;kind&lt;/b&gt;" in page
    assert "<b>kind" not in page
    copied = page[page.index("Is anything copied?") :]
    assert "of the draws lie nearer to training rows" in copied
    assert "Boosted trees" not in copied[: copied.index("</section>")]
    # each figure is said to be in what it is in
    assert {row["on"] for row in found["rows"].values()} >= {"data", "AUC", "R2"}
    for name, row in found["rows"].items():
        place = page.index(f'<span class="name">{escape(name)}</span>')
        said = page[place : page.index("</td>", place)]
        assert ("In AUC" in said, "In R2" in said) == (row["on"] == "AUC", row["on"] == "R2"), said
        assert "photographs" not in said
    # the bound on what the page says it is of: held-out rows, and as many of training
    opened = Run.load(run)
    data, order = opened.load_data(), torch.Generator().manual_seed(0)
    for part, noun in ((data.test, "for a held-out row"), (data.train, "for a training row")):
        some = part[torch.randperm(len(part), generator=order.manual_seed(0))[:200]]
        mean = Estimate.of(score(opened, some)[0])
        assert f"{number(mean.value, 4)} ± {number(mean.standard_error, 2)}" in page[: page.index(noun) + 60]
    assert "How likely held-out data are to the model" in page
    assert "hidden tokens for each known one" in page[page.index("Error by how much is lost") :]
    assert f"things.csv: {train} rows of 4 columns" in page
    assert (run / "evaluation.png").stat().st_size > 10_000
