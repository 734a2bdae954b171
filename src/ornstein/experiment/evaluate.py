"""Measuring a run: every metric beside what real data score in its place, and a picture to check it by eye."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ornstein import ranks
from ornstein.data.condition import LABEL
from ornstein.errors import InputError
from ornstein.experiment import pictures
from ornstein.experiment.build import load_data
from ornstein.experiment.run import Run
from ornstein.files import write_text
from ornstein.metrics import METRICS, Report, nearest, report

#: the measures that say something of a handful of points; the others are left out below fifty
_FEW_WILL_DO = ("sliced-wasserstein", "energy-distance", "mmd", "memorisation")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found: the report, and how the samples were drawn."""

    report: Report
    drawn: dict[str, Any]

    def text(self) -> str:
        """For people."""
        how = ", ".join(f"{key} {value}" for key, value in self.drawn.items())
        return f"{self.report.table()}\n{how}"


def evaluate(
    run: Run,
    *,
    n: int = 1000,
    seed: int = 0,
    steps: int | None = None,
    stepper: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    stage: Callable[[str], None] | None = None,
) -> Evaluation | None:
    """Draw n samples, of each class in the training data's share, and measure them against the run's held-out data.

    Writes evaluation.json, and evaluation.png: samples above their nearest training examples (images), or beside
    training data drawn at random. Of several processes (`torchrun`) each draws its share; the first measures, and the
    others get None. `progress` is called with (calls made, calls in all) while samples are drawn, `stage` with what is
    done next: "drawing", then each measure by name, then "the picture".

    Raises:
        InputError: a run that draws nothing; its data are no longer to be had, or differ from those it was trained on.
    """
    run.must_draw()
    condition, stage = run.examples(n), stage or (lambda name: None)
    if ranks.rank():
        run.draw(n, seed=seed, condition=condition, steps=steps, stepper=stepper, together=True)
        return None
    data = load_data(run.experiment)
    if data.fingerprint()["sha256"] != run.about["data"]["sha256"]:
        raise InputError(f"the data are not those that {run.folder} was trained on: their content differs.")
    stage("drawing")
    began = time.perf_counter()
    z = run.draw(n, seed=seed, condition=condition, steps=steps, stepper=stepper, progress=progress, together=True)
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(z).all()):
        raise InputError("the samples are not finite: the model has diverged, or the stepper needs more steps.")
    samples = run.transform.inverse(z, quantise=True).float()
    train, heldout = data.train.float(), data.test.float()
    # a classifier is fitted to rows that all have a label; where some have none (-1), the data are compared as they are
    some_have_none = any(part is not None and int(part.min()) < 0 for part in (data.train_labels, data.test_labels))
    result = report(
        samples,
        train,
        heldout,
        torch.Generator().manual_seed(seed),
        labels=None if some_have_none else condition.parts.get(LABEL),
        train_labels=None if some_have_none else data.train_labels,
        heldout_labels=None if some_have_none else data.test_labels,
        metrics=[name for name in METRICS if name in _FEW_WILL_DO or min(n, len(heldout)) >= 50],
        progress=stage,
    )
    sampling = run.experiment.sampling
    drawn = {
        "stepper": stepper or sampling.stepper["name"],
        "steps": steps or run.steps,
        "seed": seed,
        "seconds": round(seconds, 2),
    }
    write_text(
        run.folder / "evaluation.json",
        json.dumps({**result.to_dict(), "drawn": drawn}, indent=2, allow_nan=False) + "\n",
    )
    stage("the picture")
    _picture(run, z, samples, train, run.folder / "evaluation.png", torch.Generator().manual_seed(seed))
    return Evaluation(result, drawn)


def _picture(
    run: Run, z: torch.Tensor, samples: torch.Tensor, train: torch.Tensor, path: Path, generator: torch.Generator
) -> None:
    if run.kind == "image":
        shown = 20
        _, index = nearest(samples[:shown], train)
        neighbours = run.transform.forward(train[index])
        pairs = torch.cat([z[:10], neighbours[:10], z[10:shown], neighbours[10:shown]])
        pictures.draw(pairs, "image", path, columns=10)
    else:
        # at random: files are often sorted, and their first rows are of one kind
        some = train[torch.randperm(len(train), generator=generator)[: len(z)]]
        pictures.draw(run.transform.inverse(z), run.kind, path, real=some, names=run.about["data"].get("columns"))
