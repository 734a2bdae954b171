"""The floor: what would real data score?

"Sliced Wasserstein distance 0.43": is that good? A number from finite sets has a unit, a noise and often a bias, and
only one comparison removes all three: let *real* data take the place of the samples. So each metric is computed twice
against the same held-out data, in sets of the same size,

    value = metric(samples, held-out)        floor = metric(training data, held-out),

the floor over several random subsets of the training data, which also gives its spread. A perfect model *is* one more
draw of real data, so its value is one more draw from the floor's spread; ratio = value / floor then is about 1, and no
model can honestly stay much below it. (One that has memorised the training set scores exactly the floor; hence
the row "memorisation", where the roles differ: how far from the training examples, beside how far held-out data lie.)

The floor printed is the root mean square over the subsets. For a metric that is positive between equal distributions
(sliced Wasserstein, Fréchet) this is its mean to within the spread; for an unbiased one (energy, MMD, kernel), which is
zero on average and as often negative, it is the size of its noise, and the ratio says how many times the noise the
value is. Since floors fall as sets grow, ratios grow with them: compare models at equal numbers.

**Units.** `report` measures distances in the standard deviation of each column or channel over the training data, and
shows the two-sample test what its values are (`ornstein.metrics.ruler`): otherwise the largest column decides.
`compare` takes points as they are given.

The word at the end of a row: "matches", no worse than real data within two spreads; "close", within the metric's
own tolerance of the floor (1.5 times for a distance); "differs" beyond. For memorisation: "fresh", "near", "too
near"; and "copies" if more samples than chance allows lie close to a single training example (`memorisation`).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor

from ornstein.errors import InputError, lookup
from ornstein.metrics.features import Classifier, class_agreement, fit_classifier
from ornstein.metrics.metric import Metric, choose
from ornstein.metrics.named import METRICS
from ornstein.metrics.neighbours import Copying, memorisation, ratio
from ornstein.metrics.ruler import Ruler

#: samples that are shown to a network of others
SHOWN = 1000


@final
@dataclass(frozen=True)
class Score:
    """One number, and what real data score in place of the samples.

    `value`: of the samples; `floor` and `spread`: of real data, root mean square and standard deviation over random
    subsets; `ratio`: value / floor; `verdict`: one word; `size`: points in a set; `on`: what was compared, "data",
    "features" (of a classifier of the data), "labels", or the name of other features.
    """

    value: float
    floor: float
    spread: float
    ratio: float
    verdict: str
    size: int
    on: str = "data"


def compare(
    metric: Metric,
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    generator: torch.Generator,
    *,
    repeats: int = 10,
    most: int = 2000,
) -> Score:
    """The metric of the samples (N, *shape) beside its floor from real data, from sets of equal size.

    Subsets have n points, n the least of N, `most` and half of the training set (half, so that subsets differ); if
    n < N the value is a mean over subsets too. The held-out set is cut to `most` points, at random. If the metric
    compares with the training set (memorisation), held-out data, at most 2 `most` of them, set the floor and the
    training set is used whole.

    Raises `InputError` if a set is too small or `repeats` below 2.
    """
    if repeats < 2:
        raise InputError(f"repeats={repeats} must be at least 2, to know the floor's spread.")
    for name, points in (("train", train), ("heldout", heldout)):
        if len(points) < 4:
            raise InputError(f"{name} has {len(points)} points; a floor needs at least 4.")
    if metric.fixed == "heldout":
        real, fixed = train, heldout[choose(len(heldout), most, generator, heldout)]
    else:
        real, fixed = heldout[choose(len(heldout), 2 * most, generator, heldout)], train
    size = min(len(samples), most, len(real) // 2)

    values = metric.on_subsets(samples, fixed, size, repeats if size < len(samples) else 1, generator)
    floors = metric.on_subsets(real, fixed, size, repeats, generator)
    # subsets of one finite set vary too little, by 1 - size / N in variance
    spread = float(floors.std()) / math.sqrt(1 - size / len(real))
    value, floor = float(values.mean()), float(floors.square().mean().sqrt())
    return Score(
        value=value,
        floor=floor,
        spread=spread,
        ratio=ratio(value, floor),
        verdict=judge(
            value,
            float(floors.mean()),
            spread,
            ratio(value, floor),
            metric.better == "higher",
            metric.close,
            metric.words,
        ),
        size=size,
    )


def judge(
    value: float, floor: float, spread: float, ratio: float, higher: bool, close: float, words: tuple[str, str, str]
) -> str:
    """The first word for a value at most two spreads worse than the floor, the second for a ratio within `close`."""
    sign = -1 if higher else 1
    if sign * (value - floor) <= 2 * spread:
        return words[0]
    return words[1] if sign * (ratio - close) <= 0 else words[2]


@final
@dataclass(frozen=True)
class Report:
    """Scores by name; `table()` is for people, `to_dict()` for files.

    `samples`, `train`, `heldout`: sizes of the sets. `copying`: how close the samples lie to the training examples and
    how many copy one, None if memorisation was not asked for. `units`: what distances were
    measured in, in words. `classifier`: the one that was fitted or given.
    """

    rows: Mapping[str, Score]
    samples: int
    train: int
    heldout: int
    copying: Copying | None
    units: str = ""
    classifier: Classifier | None = field(default=None, repr=False, compare=False)

    @property
    def near_copies(self) -> float | None:
        """The share of samples that lie closer to a training example than 99 % of held-out data do."""
        return None if self.copying is None else self.copying.share

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, fit for JSON: a number that is not finite, which JSON cannot hold, is None."""
        counts = {"samples": self.samples, "train": self.train, "heldout": self.heldout}
        copies = None if self.copying is None else self.copying.copies
        return {
            "rows": plain(self.rows),
            "counts": counts,
            "near_copies": self.near_copies,
            "copies": copies,
            "units": self.units,
        }

    def table(self) -> str:
        """The report as plain text, one row per score, with the notes needed to read it."""
        text = [
            *lines(self.rows),
            "",
            f"{self.samples:,} samples; real data: {self.train:,} for training, {self.heldout:,} held out.",
            'The column "real data" is what real data score in place of the samples: ratio 1 is as good as real.',
        ]
        if self.units:
            text.append(self.units)
        if (found := self.copying) is not None:
            noise = math.sqrt(0.01 * 0.99 * (1 / self.samples + 1 / self.heldout))
            text += [
                f"{found.share:.1%} of the samples lie closer to a training example than 99 % of held-out data do "
                f"(honest: 1 ± {noise:.1%});",
                f"{found.copies:.1%} by one alone, three times closer than to the next, as copies do "
                f"(held-out data: {found.honest:.1%}).",
            ]
        if any(score.ratio < 0 for score in self.rows.values()):
            text.append("Below zero: an unbiased estimate of a distance too small to be seen.")
        return "\n".join(text)


def lines(rows: Mapping[str, Score]) -> list[str]:
    """Scores as plain text, a line each, under a line of headings."""
    cells = [("", "value", "real data", "ratio", "verdict", "on")]
    for name, score in rows.items():
        floor = f"{_written(score.floor, 3)} ± {_written(score.spread, 1)}"
        times = "< 0" if score.ratio < 0 else f"{score.ratio:.2f}"
        cells.append((name, _written(score.value, 3), floor, times, score.verdict, score.on))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = (False, True, True, True, False, False)
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]


def _written(value: float, digits: int) -> str:
    """A number to so many digits, up to ten million without an exponent."""
    short = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in short and abs(value) < 1e7 else short


def plain(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    """Scores as plain numbers and strings, fit for JSON: a number that is not finite is None."""
    return {
        name: {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in asdict(score).items()}
        for name, score in scores.items()
    }


def report(
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    generator: torch.Generator,
    *,
    labels: Tensor | None = None,
    train_labels: Tensor | None = None,
    heldout_labels: Tensor | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    classifier: Classifier | None = None,
    metrics: Iterable[str] | None = None,
    other_features: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    repeats: int = 10,
    most: int = 2000,
    shown: int = SHOWN,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Every metric of `metrics` (names of `METRICS`; None: all) on the samples, each beside its floor.

    samples, train, heldout: (N, *shape), floats in the data's own units, on any devices. With `train_labels` (N,),
    integers from 0, a classifier is fitted to the training data (unless one is given): with `labels`, the classes that
    the samples were asked for, and `heldout_labels`, the row "class-agreement" says how many samples it recognises,
    beside how many real held-out data. If `features` is None its features are used, except for tables: its features
    lack whatever does not help to tell the classes, and a table's columns are features already. For each function in
    `other_features`, by name, points (N, *shape) to (N, d), the metrics of features are computed once more, on at most
    `shown` samples and as many real points as needed: rows "frechet NAME", and so on. `repeats` and `most` as in
    `compare`. `progress` is called with the name of what is computed next.
    """
    chosen = {name: lookup(METRICS, name, "metric")() for name in (METRICS if metrics is None else metrics)}
    train, heldout = train.to(samples.device), heldout.to(samples.device)
    tell = progress or (lambda name: None)
    if classifier is None and train_labels is not None:
        tell("a classifier of the real data")
        classifier = fit_classifier(train, train_labels, generator=generator)
    if features is None and classifier is not None and samples.ndim > 2:
        features = classifier.features

    rows: dict[str, Score] = {}
    if labels is not None:
        if classifier is None or heldout_labels is None:
            raise InputError(
                "labels is given, but its agreement needs train_labels (or a classifier) and heldout_labels too."
            )
        rows["class-agreement"] = agreement(classifier, samples, labels, heldout, heldout_labels)
    ruler, sets = Ruler.of(train), (samples, train, heldout)
    views: dict[str, Callable[[Tensor], Tensor]] = {"data": ruler.measured, "marks": ruler.marks}
    if features is not None:
        views["features"] = features
    reads = {name: metric.reads if metric.reads in views else "data" for name, metric in chosen.items()}
    spaces = {view: [views[view](points) for points in sets] for view in {"data", *reads.values()}}
    for name, metric in chosen.items():
        tell(name)
        made, seen, unseen = spaces[reads[name]]
        score = compare(metric, made, seen, unseen, generator, repeats=repeats, most=most)
        rows[name] = replace(score, on="features" if reads[name] == "features" else "data")
    of_features = {name: metric for name, metric in chosen.items() if metric.reads == "features"}
    for view, seen_by in (other_features or {}).items() if of_features else ():
        tell(view)
        rows |= _in_view(view, seen_by, of_features, sets, generator, repeats, shown)
    copying = None
    if any(metric.fixed == "train" for metric in chosen.values()):
        tell("near copies")
        made, seen, unseen = spaces["data"]
        copying = memorisation(made, seen, unseen[choose(len(unseen), 2 * most, generator, unseen)])
        if copying.copied:
            rows |= {name: replace(rows[name], verdict="copies") for name, m in chosen.items() if m.fixed == "train"}
    return Report(rows, len(samples), len(train), len(heldout), copying, ruler.text, classifier)


def _in_view(
    view: str,
    seen_by: Callable[[Tensor], Tensor],
    metrics: Mapping[str, Metric],
    sets: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
    repeats: int,
    shown: int,
) -> dict[str, Score]:
    """Metrics of features in those of a view, which may take long to look: of some samples, training and held-out."""
    few = min(shown, len(sets[0]))
    made, seen, unseen = (
        seen_by(points[choose(len(points), size, generator, points)])
        for points, size in zip(sets, (few, 2 * few, few), strict=True)
    )
    with warnings.catch_warnings():  # of fewer points than features; the floor has as few
        warnings.simplefilter("ignore", UserWarning)
        found = {
            n: compare(metric, made, seen, unseen, generator, repeats=repeats, most=few)
            for n, metric in metrics.items()
        }
    return {f"{name} {view}": replace(score, on=view) for name, score in found.items()}


def agreement(
    classifier: Classifier, samples: Tensor, labels: Tensor, heldout: Tensor, heldout_labels: Tensor
) -> Score:
    """The share of samples recognised as what they were asked to be, beside the share of real held-out data."""
    value = class_agreement(classifier, samples, labels)
    floor = class_agreement(classifier, heldout, heldout_labels)
    # binomial, of the difference of the two shares
    spread = math.sqrt(value * (1 - value) / len(samples) + floor * (1 - floor) / len(heldout))
    verdict = judge(value, floor, spread, ratio(value, floor), True, 0.95, Metric.words)
    return Score(value, floor, spread, ratio(value, floor), verdict, len(samples), "labels")
