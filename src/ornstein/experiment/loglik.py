"""Scoring data by a run: `ornstein loglik RUN DATA --out scores.csv`.

Each example gets its log-likelihood in nats, in the data's own units (`ornstein.likelihood`): a density for continuous
data, a bound on the log-probability for digital ones. Examples are ranked from the least likely, which is the simplest
detector of anomalies, and compared with the run's own held-out data, without which a likelihood says little.

A known limit of the method: likelihood favours smooth and simple images. A model of one collection of pictures can give
those of a plainer one a higher likelihood than its own (Nalisnick et al. 2019, 1810.09136), so look at both ends of the
ranking.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.numerics import Estimate
from ornstein.data.array import read_rows
from ornstein.data.before import read_for_model
from ornstein.data.condition import LABEL
from ornstein.data.folder import Lying, lie, passing_over
from ornstein.data.frames import is_frame
from ornstein.data.pictures import SUFFIXES
from ornstein.data.series import windows
from ornstein.data.tracks import called, is_table
from ornstein.data.tracks import read as read_tracks
from ornstein.data.zipped import is_zip
from ornstein.errors import InputError, shown
from ornstein.experiment import charts
from ornstein.experiment.folder import as_read
from ornstein.experiment.run import Run
from ornstein.experiment.series import dated, timeline
from ornstein.files import replacing_all
from ornstein.likelihood import LogLikelihood, log_likelihood
from ornstein.likelihood.through import loses


@dataclass(frozen=True, eq=False)
class Given:
    """Samples to be scored, in the data's own units, and what is known of each.

    Attributes:
        name: where they come from.
        x: (N, *shape).
        labels: the name of each one's class, or None.
        files: the name of each one's file, or where each window of a series begins, or None.
        condition: what each is given, in the run's model space, or None: then labels say it.
        note: what of it was left out, or "".
        named: what `files` are, which heads their column.
    """

    name: str
    x: Tensor
    labels: Sequence[str] | None = None
    files: Sequence[str] | None = None
    condition: Condition | None = None
    note: str = ""
    named: str = "file"

    def first(self, count: int | None) -> "Given":
        """The first `count` of them; all for None."""
        if count is None or count >= len(self.x):
            return self
        return Given(
            self.name,
            self.x[:count],
            None if self.labels is None else self.labels[:count],
            None if self.files is None else self.files[:count],
            None if self.condition is None else self.condition[:count],
            self.note,
            self.named,
        )


@dataclass(frozen=True, eq=False)
class Scores:
    """What `loglik` found.

    Attributes:
        given: what was scored.
        found: its likelihoods.
        reference: those of the run's held-out data, or None.
        rank: (N,) int64, 1 for the least likely.
    """

    given: Given
    found: LogLikelihood
    reference: LogLikelihood | None

    @property
    def rank(self) -> Tensor:
        place = self.found.log_prob.argsort(stable=True)
        return torch.empty_like(place).index_copy_(0, place, torch.arange(1, len(place) + 1))

    def rows(self) -> list[dict[str, Any]]:
        """One for each sample, in the order given: the lines of the CSV."""
        found, labels, files = self.found, self.given.labels, self.given.files
        columns = (found.log_prob, found.bits_per_dim, found.standard_error, self.rank)
        return [
            {
                "index": i,
                **({} if files is None else {self.given.named: files[i]}),
                **({} if labels is None else {"label": labels[i]}),
                "log_likelihood": f"{log_prob:.6f}",
                "bits_per_dim": f"{bits:.6f}",
                "standard_error": f"{error:.6f}",
                "rank": rank,
            }
            for i, (log_prob, bits, error, rank) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
        ]

    def text(self) -> str:
        """For people."""

        def line(name: str, found: LogLikelihood) -> str:
            nats, bits = Estimate.of(found.log_prob), found.bits
            errors = (f" ± {one.standard_error:.2g}" if len(found.log_prob) > 1 else "" for one in (nats, bits))
            return (
                f"{name:<22} {len(found.log_prob):>7,}   {nats.value:>12,.3f}{next(errors):<12}"
                f"{bits.value:>10.4f}{next(errors)}"
            )

        lines = [f"{self.given.name}: {self.given.note}\n"] if self.given.note else []
        lines += [f"{'':<22} samples    log-likelihood, nats      bits/dim", line(self.given.name, self.found)]
        if self.reference is not None:
            lines.append(line("held-out data", self.reference))
            low = self.reference.log_prob.quantile(0.05)
            share = (self.found.log_prob < low).double().mean()
            lines.append(f"{share:.1%} of {self.given.name} are less likely than 95% of held-out data are")
        least = self.found.log_prob.argsort()[:5].tolist()
        names = [str(i) if self.given.files is None else self.given.files[i] for i in least]
        lines.append(f"least likely: {', '.join(names)}")
        worst = float(self.found.integration_error.max())
        if worst > 0.1:
            lines.append(f"the integration of the hardest sample is off by up to {worst:.2g} nats")
        return "\n".join(lines)

    def save(self, path: Path) -> Path:
        """Write the CSV, and beside it a histogram, `path` with .png, whose place is returned.

        Both are drawn up before either takes its place.
        """
        rows, picture = self.rows(), path.with_suffix(".png")
        with replacing_all(path, picture) as (beside, drawn):
            with beside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            self._draw(drawn)
        return picture

    def _draw(self, path: Path) -> None:
        mine = self.found.log_prob
        both = mine if self.reference is None else torch.cat([mine, self.reference.log_prob])
        # a few outliers would squeeze the rest into one bar: they are gathered in the outermost
        low, high = both.quantile(0.005).item(), both.quantile(0.995).item()
        low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
        edges = torch.linspace(low, high, 41).tolist()
        figure, axes = charts.figure()
        shown = [(mine, self.given.name, charts.ACCENT, 0.75)]
        if self.reference is not None:
            shown.insert(0, (self.reference.log_prob, "held-out data", charts.PALE, 1.0))
        for values, name, color, alpha in shown:
            inside = values.clamp(low, high).numpy()
            weights = [1 / len(inside)] * len(inside)
            axes.hist(inside, bins=edges, weights=weights, color=color, alpha=alpha, label=f"{name} ({len(inside):,})")
        axes.set(xlabel="log-likelihood, nats", ylabel="share of the samples")
        axes.legend(frameon=False)
        charts.save(figure, path)


def loglik(
    run: Run,
    data: "Given | Tensor | str | Path" = "test",
    *,
    count: int | None = None,
    reference: int = 0,
    conditional: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Scores:
    """The log-likelihood of each sample under a run, in nats of the data's own units.

        scores = loglik(ornstein.load("runs/mnist"), "test", count=500, conditional=True)
        print(scores.found.bits)                    # bits per dimension and their standard error

    Args:
        data: "test" or "train", the run's own; a path as for `read`; or samples in the data's own units.
        count: score only the first so many; None: all.
        reference: how many of the run's held-out samples to score beside them; 0 for none.
        conditional: log p(x given what is known of the sample, such as its label) instead of log p(x).
        progress: called with (samples done, samples in all).
        **options: of `ornstein.log_likelihood`: dequantise, draws, trace, probes, tolerance, seed, ...

    Raises:
        InputError: data that are absent or do not fit the run, labels missing or unknown to it, options out of range.
    """
    run.must_walk("a likelihood by the probability-flow ODE")
    if run.learner.unlike:
        raise InputError(f"run={str(run.folder)!r} has no likelihood: {run.learner.unlike}.")
    for name, value, least in (("count", count, 1), ("reference", reference, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InputError(f"{name}={value!r} must be a whole number of samples, at least {least}.")
    if isinstance(data, Tensor):
        data = Given("given data", data)
    given = (data if isinstance(data, Given) else read(run, data)).first(count)
    if tuple(given.x.shape[1:]) != run.shape:
        raise InputError(
            f"data={given.name!r} holds samples of shape {_by(given.x.shape[1:])}, "
            f"but {run.folder} was trained on {_by(run.shape)}."
        )
    if bool(given.x.isnan().any()) and not run.denoiser.gaps:
        raise InputError(
            f"data={given.name!r} has cells missing (NaN), and {run.folder} was not trained on data with gaps, so it "
            "knows no law of some cells alone; score complete samples, or train on data with gaps."
        )
    beside = own(run, "test").first(reference) if reference else None
    if loses(run.transform):
        bound = "lower bounds, through the encoder of its codec"
        given = replace(given, note="; ".join(filter(None, [given.note, bound])))
    total = len(given.x) + (0 if beside is None else len(beside.x))
    done = 0

    def score(part: Given) -> LogLikelihood:
        nonlocal done
        before = done
        condition = _condition(run, part) if conditional else None

        def report(now: int, _: int) -> None:
            nonlocal done
            done = before + now
            if progress is not None:
                progress(done, total)

        return log_likelihood(
            run.denoiser, part.x, condition=condition, transform=run.transform, progress=report, **options
        )

    return Scores(given, score(given), None if beside is None else score(beside))


def read(run: Run, data: Any, noun: str = "data") -> Given:
    """Samples of a run's kind: "train" or "test", an .npy or .npz file, an image file, or a folder or zip of images.

    For a run on series also a table or a data frame with the same columns, cut into adjacent windows. Arrays are read
    as data of the run's kind, with labels if the file has them; a folder's sub-folders are labels. Pictures of a folder
    that cannot be read are skipped, as in training, and named in the note.

    Args:
        noun: what they are, for errors.

    Raises:
        InputError: what cannot be read, or does not fit the run.
    """
    if is_frame(data):
        return _windows(run, data, "the frame", noun)
    if str(data) in ("train", "test"):
        return own(run, str(data))
    place = Path(data).expanduser()
    if place.is_dir() or is_zip(place) or place.suffix.lower() in SUFFIXES:
        return _pictures(run, place, noun)
    series = bool(run.about["data"].get("series"))
    if series and is_table(place):
        return _windows(run, place, place.name, noun)
    if place.suffix.lower() not in (".npy", ".npz"):
        table = "a table, " if series else ""
        raise InputError(
            f"{noun}={str(data)!r} must be train, test, {table}an .npy or .npz file, an image, or a folder or zip of "
            "images."
        )
    if not place.is_file():
        raise InputError(
            f"{noun}={str(data)!r} is not a file; give an .npy or .npz file, a folder or zip of images, train or test."
        )
    x, labels = read_rows(place, run.shape, run.layout, noun=noun, missing=True)
    return Given(place.name, x, labels)


def own(run: Run, part: str) -> Given:
    """The run's own "train" or "test" data.

    Raises:
        InputError: they are no longer there, or differ from those it was trained on.
    """
    data = run.load_data()
    x, given = (data.train, data.train_condition) if part == "train" else (data.test, data.test_condition)
    index = given.parts.get(LABEL)
    labels = None if index is None else [data.classes[i] if i >= 0 else "-1" for i in index.tolist()]
    return Given(f"{part} data", x, labels, condition=given)


def _windows(run: Run, data: Any, name: str, noun: str) -> Given:
    """A table as windows that lie side by side, each named by its series and its first moment."""
    line = timeline(run)
    tracks = read_tracks(line, data, noun)
    x, at = windows(tracks, line.window, line.window, lambda first: True)
    if not len(x):
        longest = max(len(track.values) for track in tracks)
        raise InputError(
            f"{called(data, noun)} has series of up to {longest:,} steps; a window of {shown(run.folder)} has "
            f"{line.window}."
        )
    firsts = [first for _, first in at]
    names = [line.said(first, 1)[0] for first in firsts]
    parts = dict(dated(run, len(x), line.window, firsts).parts)
    several = line.by is not None and LABEL in run.conditions
    if several:
        names = [f"{tracks[k].name} {name}" for (k, _), name in zip(at, names, strict=True)]
        parts[LABEL] = run.conditions[LABEL].model([tracks[k].name for k, _ in at], len(x), LABEL)
    left = sum(len(track.values) for track in tracks) - len(x) * line.window
    note = f"{left:,} steps that fill no window were left out" if left else ""
    labels = [tracks[k].name for k, _ in at] if several else None
    return Given(name, x.float(), labels, names, Condition(parts), note, "window")


def _pictures(run: Run, place: Path, noun: str) -> Given:
    if run.kind != "image":
        raise InputError(f"{noun}={str(place)!r} are images, but {run.folder} was trained on {run.kind}s.")
    if not place.exists():
        raise InputError(f"{noun}={str(place)!r} does not exist.")
    several = place.is_dir() or is_zip(place)
    lying = lie(place, noun) if several else Lying([(place.name,)], [place], lambda rows: [place])
    if not lying.places:
        raise InputError(f"{noun}={str(place)!r} holds no images; looked for {', '.join(SUFFIXES)}.")
    names = [shown("/".join(parts)) for parts in lying.places]
    x, broken = passing_over(
        len(names) if several and run.experiment.data.get("broken") != "stop" else 0,
        lambda most: read_for_model(
            lying.read(range(len(names))), run.shape, run.transform.plain, **as_read(run.experiment),
            name=names.__getitem__, most_broken=most,
        ),
    )  # fmt: skip
    kept = [i for i in range(len(names)) if i not in broken]
    tops = [lying.places[i][0] if len(lying.places[i]) > 1 else None for i in kept]
    labels = None if None in tops else [top for top in tops if top is not None]
    return Given(place.resolve().name, x, labels, [names[i] for i in kept], note="; ".join(lying.left_out(broken)))


def _condition(run: Run, given: Given) -> Condition:
    """What given samples are conditioned on, in the run's model space."""
    if not run.conditions:
        raise InputError(f"conditional=True needs a run with labels or the like; {run.folder} was trained without.")
    if given.condition is not None:
        return given.condition
    if LABEL not in run.conditions:
        raise InputError(
            f"conditional=True needs the {' and '.join(run.conditions)} of each sample, which {given.name!r} does not "
            "say; use the run's own data, train or test."
        )
    if given.labels is None:
        raise InputError(f"conditional=True needs the label of each sample, and {given.name!r} has none.")
    return run.condition(len(given.x), list(given.labels))


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
