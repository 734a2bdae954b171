"""The report of a run as one page: `report.html`, which opens in any browser and loads nothing from elsewhere.

Everything is embedded: style, pictures as data URIs, charts as SVG. Text from the user (names of files, of
classes, of columns) goes through the template's escaping. The wording of the page is in `report.html.jinja`, that of
measures in `wording.py`; the contents are put together here.

A kind of data that has measures of its own adds a `Table`, and a picture a `Figure`; the page shows what it is given.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein._version import __version__
from ornstein.core.numerics import Estimate
from ornstein.data.condition import LABEL
from ornstein.data.holes import filled
from ornstein.errors import shown
from ornstein.experiment import charts
from ornstein.experiment.charts_of_tables import table_chart
from ornstein.experiment.curves import Line, chart, legend
from ornstein.experiment.doctor import Diagnosis
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.pictures import beside, channel_names, image_grid
from ornstein.experiment.report import describe, examples
from ornstein.experiment.wording import MEASURED_IN, plainly, tones
from ornstein.files import write_text
from ornstein.metrics import METRICS, Report, Score, TableReport, nearest
from ornstein.metrics.table import AMONG_MANY
from ornstein.training import threads

#: samples of a picture; training examples that are looked up beside them
_SHOWN, _PAIRS = 60, 10
IMAGE = "image"


@dataclass(frozen=True)
class Row:
    """One measure: a number beside what real data score in place of the samples."""

    name: str
    plainly: str
    score: Score

    @property
    def measured_in(self) -> str:
        """What it was measured in, in a sentence; "" of the data as they are."""
        return MEASURED_IN.get(self.score.on, f"In the features of {self.score.on}.")

    @property
    def tone(self) -> str:
        """How the page colours the verdict, from good to bad."""
        return tones().get(self.score.verdict, "")

    @property
    def strip(self) -> dict[str, float]:
        """The places of value and floor on a line of 0 to 100: `low` and `high` are two spreads about the floor."""
        score = self.score
        low, high = score.floor - 2 * score.spread, score.floor + 2 * score.spread
        first, last = min(low, score.value), max(high, score.value)
        room = 0.12 * (last - first) or 1.0

        def place(value: float) -> float:
            return round(100 * (value - first + room) / (last - first + 2 * room), 1)

        return {"low": place(low), "high": place(high), "floor": place(score.floor), "value": place(score.value)}


@dataclass(frozen=True)
class Table:
    """Measures that belong together, under a heading and a sentence."""

    title: str
    sentence: str
    rows: Sequence[Row]

    @staticmethod
    def of(report: Report | TableReport) -> "Table":
        """The measures of a report."""
        rows = [Row(name, plainly(name), score) for name, score in report.rows.items()]
        sentence = (
            f"Each number is shown beside what real data score when they stand in place of the samples, "
            f"{report.train:,} training examples against {report.heldout:,} that were held out. A good model scores "
            "what real data score, not zero."
        )
        if isinstance(report, Report) and not set(METRICS) <= set(report.rows):
            sentence += (
                " Those measures are left out that need 50 samples and 50 held-out examples; the others see only gross "
                "faults."
            )
        return Table("How good the samples are", f"{sentence} {report.units}".strip(), rows)


@dataclass(frozen=True)
class Figure:
    """A picture or chart with a title and the sentence that says how to read it; `markup` is ours and not escaped."""

    title: str
    sentence: str
    markup: str
    key: str = ""
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Likely:
    """How likely examples are to the model: `log_prob` (N,) in nats; `bits` per number, None of a table's rows."""

    log_prob: Tensor
    bits: Estimate | None = None

    @property
    def nats(self) -> Estimate:
        """The mean, and its standard error."""
        return Estimate.of(self.log_prob)


@dataclass(frozen=True, eq=False)
class Page:
    """What a page is made of; `likely`: likelihoods of "test" and "train" examples, {} if they were not measured."""

    evidence: Evidence
    report: Report | TableReport
    drawn: Mapping[str, Any]
    diagnosis: Diagnosis
    samples: Tensor
    likely: Mapping[str, Likely] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)

    def write(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())

    def html(self) -> str:
        """The page."""
        from jinja2 import Environment, StrictUndefined

        source = resources.files("ornstein.experiment").joinpath("report.html.jinja").read_text("utf-8")
        made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        made.filters |= {"number": number, "name": shown}
        run = self.evidence.run
        return made.from_string(source).render(
            facts=run.about["data"],
            summary=self._summary(),
            samples=self._samples(),
            tables=[Table.of(self.report), *_of_table(self.report), *self.tables],
            said=self.report.copied() if isinstance(self.report, TableReport) else (),
            figures=[(title, group) for title, group in self._groups() if group],
            copies=self._copies(),
            near_copies=self.report.near_copies,
            counts=(self.report.samples, self.report.train, self.report.heldout),
            noise=math.sqrt(0.01 * 0.99 * (1 / self.report.samples + 1 / self.report.heldout)),
            likely=self.likely,
            bound=run.transform.levels is not None,
            diagnosis=self.diagnosis,
            settings=describe(run.folder),
            yaml=run.experiment.to_yaml(),
            drawn=self.drawn,
            run=run,
            version=__version__,
        )

    def _summary(self) -> dict[str, Any]:
        run, rows, records = self.evidence.run, self.report.rows, self.evidence.records
        kind, shape = examples(run.about["data"])
        return {
            "well": sum(Row(name, "", score).tone == "good" for name, score in rows.items()),
            "of": len(rows),
            "kind": kind,
            "shape": shape,
            "steps": int(records[-1]["step"]) if records else 0,
        }

    # --- pictures

    def _samples(self) -> list[Figure]:
        """Samples beside real data."""
        run, data = self.evidence.run, self.evidence.data
        order = torch.randperm(len(data.test), generator=self.evidence.dice())
        if run.kind == IMAGE:
            few = min(_SHOWN, len(self.samples), len(data.test))
            real = as_shown(run, filled(data.test[self._alike(order, few)], data.train))
            grids = (("Samples", run.transform.pictures(self.samples[:few])), ("Real, held out", real))
            across = min(10, math.ceil(math.sqrt(few)))
            return [Figure(name, "", picture(image_grid(x, across, 720)), wide=False) for name, x in grids]
        some = data.test[order[: max(200, len(self.samples))]]
        real = beside(some, data)
        mine = run.transform.inverse(self.samples)
        if run.types:
            made = table_chart(mine, run.types, real)
        else:
            made = charts.chart(mine, real=real, names=channel_names(run.about["data"]))
        return [
            Figure(
                "",
                "Samples in red, real data in grey."
                if mine.ndim == 2
                else "Samples and real data side by side."
                + " Real ones have gaps." * (mine.ndim == 3 and data.missing > 0),
                _charted(made, tall=bool(run.types) or mine.ndim == 3),
                wide=True,
            )
        ]

    def _alike(self, order: Tensor, few: int) -> Tensor:
        """Which real examples stand beside the first few samples: of the same classes, in the same places."""
        wanted, labels = self.evidence.given.parts.get(LABEL), self.evidence.data.test_labels
        if wanted is None or labels is None:
            return order[:few]
        left, chosen = order.tolist(), []
        for label in wanted[:few].tolist():
            same = next((i for i in left if int(labels[i]) == label), left[0])
            left.remove(same)
            chosen.append(same)
        return torch.tensor(chosen)

    def _copies(self) -> Figure | None:
        """Samples above the training examples that they are most like, of images."""
        run, data = self.evidence.run, self.evidence.data
        if run.kind != IMAGE:
            return None
        few = run.transform.inverse(self.samples[:_PAIRS], quantise=True).float()
        train = filled(data.train, data.train)
        _, index = nearest(few, train.float())
        pairs = torch.cat([run.transform.pictures(self.samples[:_PAIRS]), as_shown(run, train[index])])
        sentence = "Above, samples; below each, the training example most like it. Identical pairs would be copies."
        return Figure("Closest relatives", sentence, picture(image_grid(pairs, len(few), 720)))

    # --- charts

    def _groups(self) -> list[tuple[str, Sequence[Figure]]]:
        by_noise = "Error at each level of noise" if self.evidence.denoises else "Error by how much is lost"
        return [(by_noise, self._by_noise()), ("How it learned", self._learning()),
                ("More pictures", self.figures)]  # fmt: skip

    def _by_noise(self) -> list[Figure]:
        evidence = self.evidence
        if not evidence.denoises:
            return self._by_level()
        held_out, trained = evidence.on_held_out, evidence.on_trained
        found = [("this model, held out", held_out.by_level.mean(1)), ("this model, training data",
                 trained.by_level.mean(1)), *(evidence.rivals if evidence.closed_forms else {}).items()]  # fmt: skip
        lines = [
            Line(name, list(zip(held_out.ratios, errors.tolist(), strict=True)), dots=not number)
            for number, (name, errors) in enumerate(found)
        ]
        sentence = (
            "Noise is added to data, and the model estimates what was there before. To the left there is little noise, "
            "and little to guess; the lower the line the better. "
            + "Two formulas that need no training are drawn beside it: a model should stay below both. "
            * evidence.closed_forms
            + "If the line for training data runs far below that for held-out data, the model has begun to learn the "
            "training data by heart."
        )
        across = "noise in proportion to the data (sigma/alpha)"
        markup = chart(lines, across, "mean squared error", log_x=True, log_y=True)
        return [Figure("", sentence, markup, legend(lines), wide=True)]

    def _by_level(self) -> list[Figure]:
        """The same of a learner that is no denoiser of Gaussian noise: what it is judged by, level by level."""
        evidence, run = self.evidence, self.evidence.run
        measure, parts = run.learner.judges, {"this model, held out": evidence.held_out}
        if evidence.data.far is None:  # what a bridge starts from is known beside held-out examples alone
            parts["this model, training data"] = evidence.trained_on
        with threads(1) if run.types else nullcontext():
            found = {name: run.learner.judge(run.model, part.x0, part.condition) for name, part in parts.items()}
        lines = [Line(name, list(zip(one.ratios, one.found, strict=True)), dots=not number)
                 for number, (name, one) in enumerate(found.items())]  # fmt: skip
        one = found["this model, held out"]
        lines.append(Line(measure.known, list(zip(one.ratios, one.known, strict=True))))
        sentence = (
            f"{measure.found[0].upper()}{measure.found[1:]}, against {measure.across}: the "
            f"{'higher' if measure.share else 'lower'} the line the better. Beside it, what knows next to nothing: "
            f"{measure.known}. If the line for training data is far better than that for held-out data, the model has "
            "begun to learn the training data by heart."
            + " A token is a word, a number, or the place of a number in its column."
            * bool(run.types)
        )
        markup = chart(lines, measure.across, measure.found, log_x=True)
        return [Figure("", sentence, markup, legend(lines), wide=True)]

    def _learning(self) -> list[Figure]:
        figures, evidence = [], self.evidence
        if len(evidence.checked) > 1:
            sentence = (
                "Measured during training; 1 is a baseline that knows only how far the data spread. If the line rises "
                "at the end, the model has begun to learn by heart; if it still falls, training was stopped early."
            )
            lines = [Line("held-out error", evidence.checked, dots=True)]
            figures.append(Figure("Error on held-out data", sentence, chart(lines, "training step", "held-out error")))
        loss = [(r["step"], r["loss"]) for r in evidence.records if r.get("loss") is not None]
        if len(loss) > 1:
            sentence = (
                "The quantity that training minimises, in its own unit. It fluctuates, since each point is from other "
                "examples and other noise, and it need not come near zero."
            )
            lines = [Line("loss", loss)]
            figures.append(Figure("Training loss", sentence, chart(lines, "training step", "loss", log_y=True)))
        return figures


def _of_table(report: Report | TableReport) -> list[Table]:
    """The columns of a table, and the pairs that are furthest from real."""
    if not isinstance(report, TableReport):
        return []
    sentence = (
        f"How far each column is from real rows: 0 if distributed alike, 1 without a value in common. {AMONG_MANY}"
    )
    columns = Table("Column by column", sentence, [Row(name, "", score) for name, score in report.columns.items()])
    far = sorted(report.pairs, key=lambda of: -report.pairs[of].ratio)[:_PAIRS]
    rows = [
        Row(
            f"{a} with {b}",
            "Cramér's V {:.2f}, in real rows {:.2f}".format(*report.association[a, b]),
            report.pairs[a, b],
        )
        for a, b in far
    ]
    sentence = (
        "How far the relation of two columns is from that in real rows: 0 if it is the same. Shown are the pairs "
        "furthest from their real figure. Cramér's V is 0 if one column says nothing about the other, 1 if it says "
        f"all. {AMONG_MANY}"
    )
    return [columns, *([Table("Pairs of columns", sentence, rows)] if rows else [])]


def number(value: float, digits: int = 3) -> str:
    """A number as people read it: with significant digits, thousands separators and a true minus."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    written = f"{value:.{digits}g}"
    if "e" in written and abs(value) >= 1e-6:
        written = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return written.replace("-", "−")


def picture(image: Any) -> str:
    """An image of PIL as an `<img>` that holds it."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return _img(stream.getvalue())


def _charted(figure: Any, tall: bool = False) -> str:
    stream = io.BytesIO()
    charts.save(figure, stream)
    return _img(stream.getvalue(), chart=True, tall=tall)


def _img(png: bytes, chart: bool = False, tall: bool = False) -> str:
    kinds = " ".join(name for name, holds in (("chart", chart), ("tall", tall)) if holds)
    how = f' class="{kinds}"' if kinds else ""
    return f'<img alt=""{how} src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def as_shown(run: Any, x: Tensor) -> Tensor:
    """Pictures in the data's own units as they are shown, not as a codec would read them back."""
    plain = run.transform.plain
    found: Tensor = plain.pictures(plain.forward(x))
    return found
