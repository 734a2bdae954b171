"""Measuring a run: every metric beside what real data score in place of the samples, and a picture to look at."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein import ranks
from ornstein.bridge import Bridging
from ornstein.core.condition import SOURCE, Condition
from ornstein.data import Dataset
from ornstein.data.condition import LABEL
from ornstein.data.holes import alike, filled
from ornstein.errors import InputError
from ornstein.experiment import pictures
from ornstein.experiment.cells import draws_rows, score
from ornstein.experiment.doctor import examine
from ornstein.experiment.evidence import Evidence, looks
from ornstein.experiment.latents import evaluate_codec, in_words, is_codec
from ornstein.experiment.loglik import loglik
from ornstein.experiment.packaged import must_be_ones_own
from ornstein.experiment.page import Likely, Page, as_shown
from ornstein.experiment.run import Run
from ornstein.experiment.translate import scored
from ornstein.files import write_text
from ornstein.metrics import METRICS, Report, TableReport, inception, nearest, report, table_report
from ornstein.metrics.floor import SHOWN
from ornstein.training import threads

#: the measures that say something of a handful of points; the others are left out below fifty
_FEW_WILL_DO = ("sliced-wasserstein", "energy-distance", "mmd", "memorisation")
#: the page that evaluation writes into a run folder
REPORT = "report.html"
#: numbers of an example up to which a likelihood takes seconds, and how many of them then
_CHEAP, _CHEAP_COUNT = 8, 200


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found: the report, how the samples were drawn, and the path energy of a bridge."""

    report: Report | TableReport
    drawn: dict[str, Any]
    carried: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """For people."""
        how = ", ".join(f"{key} {value}" for key, value in self.drawn.items())
        return "\n".join([self.report.table(), *_said(self.carried), how])


def _said(carried: dict[str, float]) -> list[str]:
    """What a bridge spends, in a sentence; [] of what is none."""
    if not carried:
        return []
    return [
        f"Path energy {carried['path_energy']:.3g} per row beside {carried['transport']:.3g}, the squared distance of "
        f"source and target, below which no way lies: {carried['wasted']:+.1%} (in units of model space)."
    ]


def evaluate(
    run: Run,
    *,
    n: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    stepper: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    stage: Callable[[str], None] | None = None,
    page: bool = True,
    likelihood: int | None = None,
    weights: Path | None = None,
) -> Evaluation | None:
    """Draw n samples, with classes in the training data's proportions, and measure them against the held-out data.

    Writes evaluation.json, and evaluation.png: samples above their nearest training examples (images), or beside
    training data drawn at random. If the data have holes, samples get the same holes (`ornstein.data.holes`). With
    `page` it also writes report.html, which explains everything to a reader who does not know the field, with what the
    doctor finds and the log-likelihood of `likelihood` held-out examples and as many training ones; None: of 200, if
    that takes only seconds (rows of a table, and vectors of up to 8 numbers). With `weights`, the file of the network
    that FID is measured with (`ornstein.metrics.inception`), pictures get a true FID and KID. With several processes
    (`torchrun`) each draws its share; the first measures, and the others get None. `progress` is called with (calls
    made, calls in all) while samples are drawn, `stage` with what is done next: "drawing", then each measure by name,
    "the picture", the doctor's checks, the page. A codec is measured by what it decodes: see
    `ornstein.experiment.latents`.

    Raises:
        InputError: a run that draws nothing, or text; its data are no longer there, or differ from those that it
            was trained on.
    """
    must_be_ones_own(run.folder, "the evaluation")
    if is_codec(run):
        measured, read_back = evaluate_codec(run, n, seed, stage or (lambda name: None))
        return Evaluation(read_back, {"training data, read back, in the place of samples": in_words(measured)})
    run.must_draw()
    if run.transform.letters:
        raise InputError(f"the measures are of numbers, and run={str(run.folder)!r} draws text, which has loglik.")
    if likelihood is not None and (isinstance(likelihood, bool) or not isinstance(likelihood, int) or likelihood < 0):
        raise InputError(f"likelihood={likelihood!r} must be a whole number of held-out examples, 0 for none.")
    views = looks(run, weights)
    condition, stage = run.examples(n), stage or (lambda name: None)
    if ranks.rank():
        run.draw(n, seed=seed, condition=condition, steps=steps, stepper=stepper, together=True)
        return None
    data = run.load_data()
    stage("drawing")
    began = time.perf_counter()
    z = run.draw(n, seed=seed, condition=condition, steps=steps, stepper=stepper, progress=progress, together=True)
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(z).all()):
        raise InputError("the samples are not finite: the model has diverged, or the stepper needs more steps.")
    result = _measured(run, data, z, condition, torch.Generator().manual_seed(seed), views, stage)
    carried: dict[str, Any] = {}
    if data.far is not None and isinstance(run.learner, Bridging):
        stage("transport")
        assert isinstance(result, Report)  # a bridge carries numbers
        carried = scored(run, data, z, torch.Generator().manual_seed(seed))
        result = dataclasses.replace(result, rows={"wasserstein": carried.pop("wasserstein"), **result.rows})
    sampling = run.experiment.sampling
    drawn = {
        "stepper": stepper or sampling.stepper["name"],
        "steps": steps or run.steps,
        "seed": seed,
        "seconds": round(seconds, 2),
    }
    write_text(
        run.folder / "evaluation.json",
        json.dumps({**result.to_dict(), **carried, "drawn": drawn}, indent=2, allow_nan=False) + "\n",
    )
    stage("the picture")
    _picture(run, z, condition, data, run.folder / "evaluation.png", torch.Generator().manual_seed(seed))
    if page:
        # the doctor judges the run's own way of drawing: samples drawn otherwise are not his
        own = z if steps is None and stepper is None else None
        _page(Evidence(run, data, n, seed, own), result, drawn, z, likelihood, stage)
    return Evaluation(result, drawn, carried)


def _page(
    evidence: Evidence,
    result: Report | TableReport,
    drawn: dict[str, Any],
    z: Tensor,
    likelihood: int | None,
    stage: Callable[[str], None],
) -> None:
    """Write report.html."""
    run = evidence.run
    diagnosis = examine(evidence, lambda name: stage(f"the doctor: {name}"))
    rows = draws_rows(run)
    few = _CHEAP_COUNT * (rows or math.prod(run.shape) <= _CHEAP) if likelihood is None else likelihood
    few = few if rows or (run.learner.walks and not run.learner.unlike) else 0
    likely: dict[str, Likely] = {}
    if few:
        stage("likelihood")
        likely = {name: _likely(evidence, name, few) for name in ("test", "train")}
    stage("the page")
    Page(evidence, result, drawn, diagnosis, z, likely).write(run.folder / REPORT)


def _likely(evidence: Evidence, part: str, count: int) -> Likely:
    """How likely some held-out examples, or training ones, are to the run; of a table's rows there is a bound."""
    run, data = evidence.run, evidence.data
    x = data.test if part == "test" else data.train
    # at random: files are often sorted, and their first rows are of one kind
    x = x[torch.randperm(len(x), generator=evidence.dice())[:count]]
    if draws_rows(run):
        with threads(1):
            return Likely(score(run, x, seed=evidence.seed)[0])
    found = loglik(run, x, seed=evidence.seed).found
    return Likely(found.log_prob, found.bits)


def _measured(
    run: Run,
    data: Dataset,
    z: Tensor,
    condition: Condition,
    dice: torch.Generator,
    views: Mapping[str, Callable[[Tensor], Tensor]],
    stage: Callable[[str], None],
) -> Report | TableReport:
    """Every measure of samples in model space, in the data's own units."""
    if run.types:
        names, words = zip(*((kind.name, kind.worded) for kind in run.types), strict=True)
        rows = run.transform.inverse(z)
        return table_report(rows, data.train, data.test, words, dice, names=names, progress=stage)
    # a classifier is fitted to rows that all have a label; where some have none (-1), the data are compared as they are
    some_have_none = any(part is not None and int(part.min()) < 0 for part in (data.train_labels, data.test_labels))
    samples = run.transform.inverse(z, quantise=True).float()
    train, heldout = data.train.float(), data.test.float()
    if data.missing:
        samples, train, heldout = alike(samples, train, heldout)
    return report(
        samples,
        train,
        heldout,
        dice,
        labels=None if some_have_none else condition.parts.get(LABEL),
        train_labels=None if some_have_none else data.train_labels,
        heldout_labels=None if some_have_none else data.test_labels,
        metrics=[name for name in METRICS if name in _FEW_WILL_DO or min(len(z), len(data.test)) >= 50],
        other_features=views,
        shown=len(z) if inception.NAME in views else SHOWN,
        progress=stage,
    )


def _picture(run: Run, z: Tensor, condition: Condition, data: Dataset, path: Path, generator: torch.Generator) -> None:
    if run.kind == "image":
        most, train = 20, filled(data.train, data.train).float()
        _, index = nearest(run.transform.inverse(z[:most], quantise=True).float(), train)
        drawn, neighbours = run.transform.pictures(z[:most]), as_shown(run, train[index])
        pairs = torch.cat([drawn[:10], neighbours[:10], drawn[10:], neighbours[10:]])
        pictures.draw(pairs, "image", path, columns=10)
    else:
        # at random: files are often sorted, and their first rows are of one kind
        some = data.train[torch.randperm(len(data.train), generator=generator)[: len(z)]]
        run.picture(z, path, real=pictures.beside(some, data), start=condition.parts.get(SOURCE))
