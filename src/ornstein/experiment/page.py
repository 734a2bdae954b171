"""The report of a run as one page: `report.html`, which opens in any browser and loads nothing from elsewhere.

Everything is embedded: style, pictures as data URIs, charts as SVG. Text from the user (names of files, of
classes, of columns) goes through the template's escaping. The wording of the page is in `report.html.jinja`; its
contents are put together here.

A kind of data that has measures of its own adds a `Table`, and a picture a `Figure`; the page shows what it is given.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein._version import __version__
from ornstein.data.condition import LABEL
from ornstein.data.holes import filled
from ornstein.errors import shown
from ornstein.experiment import charts
from ornstein.experiment.catalogue import summary
from ornstein.experiment.charts_of_tables import table_chart
from ornstein.experiment.curves import Line, chart, legend
from ornstein.experiment.doctor import Diagnosis
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.loglik import Scores
from ornstein.experiment.pictures import channel_names, image_grid
from ornstein.experiment.report import describe
from ornstein.files import write_text
from ornstein.metrics import METRICS, Report, Score, TableReport, nearest

#: what each measure says to one who has never met it; of others the first line of their docstring
PLAINLY: dict[str, str] = {
    "class-agreement": "A classifier trained on the real data looks at samples: how often does it see the class that "
    "was asked for?",
    "sliced-wasserstein": "How far would the samples have to be moved to turn them into real data, averaged over many "
    "directions?",
    "energy-distance": "Do samples lie as far from real data as real data lie from each other? 0 if so.",
    "mmd": "Are there regions with more samples, or fewer, than real data? 0 if there are none.",
    "frechet": "How far are the mean and spread of the samples' features from those of real data?",
    "kernel": "Like the row above, but also sensitive to the shape of the cloud of features. 0 if they are alike.",
    "c2st": "A classifier is trained to tell samples from real data: how often is it right? One half is guessing.",
    "precision": "What share of the samples looks like real data? Low means implausible samples.",
    "recall": "What share of the real data could be among the samples? Low means kinds that are never made.",
    "memorisation": "How far is a sample from the training example most like it? Far below real data means copies.",
    "trees": "Boosted trees are trained to tell samples from real rows: how often do they rank the two correctly? One "
    "half is guessing.",
    "network": "The same, with a small neural network.",
    "columns": "How far are words' shares and numbers' distributions from those of real rows, on average?",
    "pairs": "How far is the relation of two columns from that in real rows, on average?",
    "predict": "A model is trained on samples to predict this column from all others, and tested on real rows; beside "
    "it, one trained on as many real rows.",
    "closest record": "Among as many training as held-out rows, how often is the nearest to a sample a training row? "
    "One half is expected by chance.",
    "membership": "Do the samples betray whether a given row was trained on? One half is a coin toss.",
    "wasserstein": "How far must the carried points be moved, one by one, to lie where real points of the target lie?",
    "copies": "What share of the samples equals a training row to the last digit, beside the share that equals one of "
    "as many held-out rows?",
}
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
class Page:
    """What a page is made of."""

    evidence: Evidence
    report: Report | TableReport
    drawn: Mapping[str, Any]
    diagnosis: Diagnosis
    samples: Tensor
    scores: Scores | None = None
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
            said=self.report.sentences() if isinstance(self.report, TableReport) else (),
            figures=[(title, group) for title, group in self._groups() if group],
            copies=self._copies(),
            near_copies=self.report.near_copies,
            counts=(self.report.samples, self.report.train, self.report.heldout),
            noise=math.sqrt(0.01 * 0.99 * (1 / self.report.samples + 1 / self.report.heldout)),
            likelihood=self._likelihood(),
            diagnosis=self.diagnosis,
            settings=describe(run.folder),
            yaml=run.experiment.to_yaml(),
            drawn=self.drawn,
            run=run,
            version=__version__,
        )

    def _summary(self) -> dict[str, Any]:
        run, rows = self.evidence.run, self.report.rows
        facts = run.about["data"]
        records = self.evidence.records
        kind = "rows" if run.types else "series" if len(facts["shape"]) == 2 else f"{facts['kind']}s"
        shape = f"{len(run.types)} columns" if run.types else _by(facts["shape"], facts["kind"] == IMAGE)
        if facts.get("series"):
            features, steps = facts["shape"]
            kind, shape = "windows", f"{steps} steps, {features} feature{'s' * (features != 1)} each"
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
        real = filled(some, data.train) if data.missing else some  # a table's holes are values of their own
        mine = run.transform.inverse(self.samples)
        if run.types:
            made = table_chart(mine, run.types, real)
        else:
            made = charts.chart(mine, real=real, names=channel_names(run.about["data"]))
        return [
            Figure(
                "",
                "Samples in red, real data in grey." if mine.ndim == 2 else "Samples and real data side by side.",
                _charted(made, tall=bool(run.types)),
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
        return [("Error at each level of noise", self._by_noise()), ("How it learned", self._learning()),
                ("More pictures", self.figures)]  # fmt: skip

    def _by_noise(self) -> list[Figure]:
        evidence = self.evidence
        if not evidence.denoises:
            return []
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

    def _likelihood(self) -> dict[str, Any] | None:
        if self.scores is None:
            return None
        found = self.scores.found
        return {
            "bits": found.bits,
            "count": len(found.log_prob),
            "bound": self.evidence.run.transform.levels is not None,
            "nats": float(found.log_prob.mean()),
            "error": float(found.log_prob.std()) / math.sqrt(len(found.log_prob)),
        }


def _by(shape: Sequence[int], image: bool) -> str:
    """How large an example is, in words."""
    if len(shape) == 1:
        return f"{shape[0]} numbers"
    colours = "" if shape[0] == 1 else f" in {shape[0]} channels"
    return "×".join(map(str, shape[1:])) + (" pixels" if image else " values") + colours


def tones() -> dict[str, str]:
    """How the page colours the words of verdicts."""
    return {
        word: tone
        for made in METRICS.values()
        for word, tone in zip(made().words, ("good", "fair", "bad"), strict=True)
    }


def plainly(name: str) -> str:
    """What a measure says, for a reader who does not know it."""
    known = PLAINLY.get(name) or PLAINLY.get(name.partition(" ")[0])
    return known or (summary(METRICS[name]) if name in METRICS else "")


def _of_table(report: Report | TableReport) -> list[Table]:
    """The columns of a table, and the pairs that are furthest from real."""
    if not isinstance(report, TableReport):
        return []
    sentence = "How far each column is from real rows: 0 if distributed alike, 1 without a value in common."
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
        "furthest from their real figure. Cramér's V is 0 if one column says nothing about the other, 1 if it says all."
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
