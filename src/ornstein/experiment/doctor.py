"""What is wrong with a run, and what to change: `ornstein doctor RUN`.

Each check of `CHECKS` measures one thing that an experienced practitioner looks at, and gives beside the figure that of
a healthy run. A figure beyond the bound is a finding. The bounds were set by measurement on healthy runs and checked on
others (docs/doctor.md has the figures). Nothing in the run folder is written: a check that needs other weights opens
them beside the run's own.

A new check is a function of the `Evidence` and a line in the table; it returns None if it does not apply to a run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ornstein.errors import InputError
from ornstein.experiment import checks, checks_of_samples
from ornstein.experiment.checks import Examined
from ornstein.experiment.evidence import Evidence
from ornstein.experiment.run import Run

#: what is looked at, in the order in which it is told
CHECKS: dict[str, Callable[[Evidence], Examined | None]] = {
    "broken-steps": checks.broken_steps,
    "broken-draws": checks_of_samples.broken_draws,
    "signal-left": checks.signal_left,
    "smallest-noise": checks.smallest_noise,
    "error-by-noise": checks.error_by_noise,
    "under-fitting": checks.under_fitting,
    "over-fitting": checks.over_fitting,
    "ema-length": checks.ema_length,
    "curl": checks.curl,
    "sampler": checks_of_samples.sampler,
    "memorisation": checks_of_samples.memorised,
    "modes-missed": checks_of_samples.modes_missed,
}


#: samples that say something
_FEWEST = 20


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the doctor found.

    Attributes:
        examined: every check that applied, by name.
        advice: which would help more, data or minutes; "" if that cannot be told.
        left_out: what was not checked, and why, in a sentence; "" if everything was.
        measured: how: samples drawn, examples judged by, seed.
    """

    examined: dict[str, Examined]
    advice: str
    measured: dict[str, int]
    left_out: str = ""

    @property
    def findings(self) -> dict[str, Examined]:
        """What is wrong, by name; {} of a healthy run."""
        return {name: found for name, found in self.examined.items() if not found.healthy}

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, fit for JSON."""
        rows = {name: found.to_dict() for name, found in self.examined.items()}
        return {"healthy": not self.findings, "findings": list(self.findings), "checks": rows,
                "advice": self.advice, "left_out": self.left_out, "measured": self.measured}  # fmt: skip

    def text(self) -> str:
        """For people: the findings first, then what is as it should be."""
        lines = []
        for name, found in self.findings.items():
            lines += [f"{name}: {found.said}", f"  {found.measured}: {found.of_bounds}.", f"  Do: {found.do}", ""]
        well = [f"{name} {found.written}" for name, found in self.examined.items() if found.healthy]
        if not lines:
            lines = ["Nothing is wrong.", ""]
        if well:
            lines.append(f"As it should be: {', '.join(well)}.")
        lines += filter(None, (self.advice, self.left_out))
        return "\n".join(lines)


def doctor(
    run: "Run | str | Path", *, n: int = 500, seed: int = 0, stage: Callable[[str], None] | None = None
) -> Diagnosis:
    """Check a run for what an experienced practitioner would check; nothing of it is changed.

    Args:
        run: a run folder, or a run that was opened from one.
        n: how many samples to draw, for the checks of samples.
        seed: random seed.
        stage: called with the name of each check as it begins.

    Raises:
        InputError: no run; fewer than 20 samples; data that are no longer there, or others than those trained on.
    """
    opened = run if isinstance(run, Run) else Run.load(run)
    opened.must_hold(n)
    if n < _FEWEST:
        raise InputError(f"n={n} must be at least {_FEWEST}, the samples to judge by.")
    return examine(Evidence(opened, opened.load_data(), n, seed), stage)


def examine(evidence: Evidence, stage: Callable[[str], None] | None = None) -> Diagnosis:
    """Every check of `CHECKS` on what is known of a run; `stage` is called with the name of each as it begins."""
    examined = {}
    with torch.random.fork_rng([]):
        for name, check in CHECKS.items():
            if stage is not None:
                stage(name)
            if (found := check(evidence)) is not None:
                examined[name] = found
    measured = {"samples": evidence.count, "held_out": len(evidence.held_out.x0), "seed": evidence.seed}
    left_out = []
    if evidence.denoises and evidence.data.missing:
        left_out.append(
            f"{evidence.data.missing:.2%} of the data's cells are missing: what compares with closed forms of complete "
            "data (signal-left, error-by-noise, curl) was not looked at."
        )
    if (times := len(evidence.checked)) < checks.TOLD_BY:
        left_out.append(
            f"The held-out error was measured {('never', 'once', 'twice')[times]} in training, and three times are "
            "needed to see it fall or rise: under-fitting and over-fitting were not looked at (a smaller "
            "training.validate_every measures it more often)."
        )
    learning = "under-fitting" in examined and not examined["under-fitting"].healthy
    return Diagnosis(examined, data_or_minutes(evidence, learning), measured, " ".join(left_out))


def data_or_minutes(evidence: Evidence, learning: bool = False) -> str:
    """Which would help more, in a sentence; "" if training left no record of its held-out error.

    More data can win at most the gap between the errors on held-out and on training examples: with endless data both
    meet, somewhere between. The gain in the last quarter of training shows what more training can win. A network that
    is found to be still `learning` needs the minutes first: where both errors will end is not known yet.
    """
    drop = checks.falling(evidence)
    if drop is None:
        return ""
    held_out, trained = evidence.on_held_out, evidence.on_trained
    gap = max(0.0, 1 - trained.mean / held_out.mean) if held_out.mean > 0 else 0.0
    noise = 2 * math.hypot(trained.standard_error, held_out.standard_error) / (held_out.mean or 1.0)
    known = f"(error on training data {gap:.0%} below that on held-out data, which fell by {max(drop, 0):.1%} in the "
    known += "last quarter of training)"
    if gap <= max(noise, 0.02) and drop < 0.01:
        return f"Neither more data nor more minutes would change much {known}; a larger network may."
    if learning:
        return f"More minutes of training are needed first {known}."
    if gap / 2 > max(drop, 0):
        return f"More data would help more than more minutes {known}."
    return f"More minutes of training would help more than more data {known}."
