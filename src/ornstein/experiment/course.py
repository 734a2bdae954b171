"""How far the training of a run is, read from its folder alone, at any time and by any process.

The operating system's lock on the folder says whether a process trains there (`ornstein.training.lock`); metrics.jsonl
has a line for each report; samples/ has what the model drew during training. A run started in the background
(`background.py`) also writes its output to training.log, which tells why one never started.
"""

import math
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ornstein.core.learner import Judgement, Measure
from ornstein.errors import InputError, shown
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import ABOUT, CRITIC, EXPERIMENT, held_by, newest_step, read_folder, read_metrics
from ornstein.experiment.learner import LEARNERS
from ornstein.files import read_text

#: what a training that was begun in the background said
LOG = "training.log"
#: states of a training
PREPARING, TRAINING, STOPPED, DONE, FAILED = "preparing", "training", "stopped", "done", "failed"
_PREPARES = "Preparing: reading the data, choosing threads."
#: seconds that a process may take until it holds its folder; letters of a log that are read, and of a sentence
_BEGINS, _TAIL, _SENTENCE = 60.0, 20_000, 400
#: points of a curve at most; moments at which it was judged
POINTS, MOMENTS = 400, 60
_LEVEL = "by-noise/"
_PICTURE = re.compile(r"step-(\d{8,})\.png")

Curve = list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Course:
    """A training, as its folder tells.

    Attributes:
        name: by which it is asked for.
        folder: where it lies.
        state: "preparing", "training", "stopped" (it can be resumed), "done", or "failed" (it never saved anything).
        said: the same in a sentence.
        step, steps: steps done, and in all; 0 before that is known.
        rate: steps a second, by the newest report.
        loss: of training, the objective's own.
        held_out: the held-out error, relative to a baseline at 1.
        by_noise: step -> the error at each noise ratio, in the units of `measure`; the newest last.
        measure: what is judged; None before that is known.
        pictures: the steps at which samples were drawn.
    """

    name: str
    folder: Path
    state: str
    said: str
    step: int
    steps: int
    rate: float
    loss: Curve
    held_out: Curve
    by_noise: dict[int, Curve]
    measure: Measure | None
    pictures: list[int]

    @property
    def left(self) -> float | None:
        """Seconds until its steps are done, without validations; None if they are, or if it does not train."""
        going = self.state == TRAINING and self.rate > 0 and self.step < self.steps
        return (self.steps - self.step) / self.rate if going else None

    def picture(self, step: int) -> Path | None:
        """What the model drew at a step; None if nothing."""
        place = self.folder / "samples" / f"step-{step:08d}.png"
        return place if step in self.pictures and place.is_file() and not place.is_symlink() else None


def course(name: str, folder: Path) -> Course:
    """How far a training is.

    Raises:
        InputError: a run that cannot be read.
    """
    held = held_by(folder)
    busy = held is not None and held.get("doing", "training") == "training"
    if not (folder / ABOUT).is_file():
        state, said = _beginning(folder, busy)
        return Course(name, folder, state, said, 0, 0, 0.0, [], [], {}, None, [])
    (experiment, wanted), told = _described(folder, _stamps(folder)), _told(folder, _stamps(folder, "metrics.jsonl"))
    steps, step, saved = experiment.training.steps, told.step, newest_step(folder)
    if busy:
        state = TRAINING if step else PREPARING
        said = f"Step {step:,} of {steps:,}." if step else _PREPARES
        if held is not None and step >= steps > 0:
            said = f"All {steps:,} steps are done; {held.get('note') or 'what comes after them is under way'}."
    elif saved is not None and saved >= steps and wanted and not (folder / CRITIC).is_file():
        state, said = STOPPED, f"Trained, all {steps:,} steps, but not its critic; resume it for that."
    elif saved is not None and saved >= steps:
        state, said = DONE, f"Done: {steps:,} steps."
    elif saved is None and any(folder.glob("*.safetensors")):
        state, said = DONE, "Trained; it has no checkpoints to go on from."  # copied without them
    elif saved is None:
        state, said = FAILED, _last(folder) or f"It ended before anything was saved; {LOG} may say more."
    else:
        state, said = STOPPED, f"Stopped; saved up to step {saved:,} of {steps:,}. {_last(folder)}".strip()
    return Course(
        name, folder, state, said, step, steps, told.rate, told.loss, told.held_out, told.by_noise,
        LEARNERS[experiment.learner["name"]].judges, _pictures(folder),  # type: ignore[index]
    )  # fmt: skip


# What is logged of a judgement ----------------------------------------------------------------------------------------


def by_level(judged: Judgement, measure: Measure) -> dict[str, float]:
    """A judgement as numbers of a line of metrics.jsonl: how good the model is at each noise ratio.

    In units of knowing next to nothing, so that their mean is the held-out error; shares as they are.
    """
    return {
        f"{_LEVEL}{ratio:.4g}": found if measure.share else found / max(known, 1e-12)
        for ratio, found, known in zip(judged.ratios, judged.found, judged.known, strict=True)
    }


def curve(records: list[dict[str, float]], key: str) -> Curve:
    """(step, value) of those lines that have a finite one."""
    found = [(record["step"], record.get(key)) for record in records]
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def thinned(points: Curve, most: int = POINTS) -> Curve:
    """At most so many points, each the mean of those that it replaces; the last is kept."""
    if len(points) <= most:
        return points
    size = math.ceil((len(points) - 1) / (most - 1))
    parts = [points[k : k + size] for k in range(0, len(points) - 1, size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts] + [points[-1]]


def _by_noise(records: list[dict[str, float]]) -> dict[int, Curve]:
    judged = [record for record in records if any(key.startswith(_LEVEL) for key in record)]
    every = max(1, math.ceil(len(judged) / MOMENTS))
    found = {}
    for record in judged[::-1][::every][::-1]:  # the newest is among them
        levels = [(key.removeprefix(_LEVEL), value) for key, value in record.items() if key.startswith(_LEVEL)]
        found[int(record["step"])] = sorted((float(level), value) for level, value in levels if value is not None)
    return found


# What lies in the folder ----------------------------------------------------------------------------------------------


def _stamps(folder: Path, *names: str) -> tuple[float, ...]:
    """When files were written: what was read of them holds until that changes."""
    found = []
    for name in names or (EXPERIMENT, ABOUT, "manifest.json"):
        try:
            kept = (folder / name).stat()
            found += [kept.st_mtime_ns, kept.st_size]
        except OSError:
            found.append(0)
    return tuple(found)


@lru_cache(maxsize=128)
def _described(folder: Path, stamps: tuple[float, ...]) -> tuple[Experiment, bool]:
    """The experiment, and whether a critic is to be taught when its steps are done."""
    experiment, about = read_folder(folder)
    return experiment, bool(about.get("critic"))


@dataclass(frozen=True, eq=False)
class _Told:
    """What metrics.jsonl tells, in few numbers."""

    step: int
    rate: float
    loss: Curve
    held_out: Curve
    by_noise: dict[int, Curve]


@lru_cache(maxsize=128)
def _told(folder: Path, stamps: tuple[float, ...]) -> _Told:
    records = read_metrics(folder)
    loss, held_out = (thinned(curve(records, key)) for key in ("loss", "held_out"))
    last = records[-1] if records else {}
    return _Told(int(last.get("step", 0)), float(last.get("rate") or 0), loss, held_out, _by_noise(records))


def _pictures(folder: Path) -> list[int]:
    found = [_PICTURE.fullmatch(place.name) for place in (folder / "samples").glob("step-*.png")]
    return sorted(int(match[1]) for match in found if match)


def _beginning(folder: Path, busy: bool) -> tuple[str, str]:
    """Of a folder that has no run yet: its state and a sentence."""
    why = _last(folder)
    try:
        young = time.time() - (folder / LOG).stat().st_mtime < _BEGINS
    except OSError:
        young = False
    if busy or (young and not why):
        return PREPARING, _PREPARES
    return FAILED, why or f"It ended before anything was trained; {LOG} may say more."


def _last(folder: Path) -> str:
    """The sentence by which the newest training here has gone wrong, "" without one."""
    try:
        if (folder / LOG).stat().st_mtime < (folder / "metrics.jsonl").stat().st_mtime:
            return ""  # of one that was before it
    except OSError:
        pass
    try:
        lines = read_text(folder / LOG)[-_TAIL:].split("\n")
    except InputError:
        return ""
    said = [line.removeprefix("ornstein:").strip() for line in lines if line.startswith("ornstein:")]
    return shown(said[-1])[:_SENTENCE] if said else ""
