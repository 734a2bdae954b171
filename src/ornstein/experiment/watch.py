"""What is measured and drawn of a model while it trains."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ornstein import ranks
from ornstein.core.learner import Judgement
from ornstein.data import Dataset
from ornstein.experiment import pictures
from ornstein.experiment.run import Run
from ornstein.training import Progress


@dataclass(frozen=True, eq=False)
class Moment:
    """What training yields: the loop's progress, and what was measured and drawn at this step, if anything was."""

    progress: Progress
    held_out: float | None = None
    picture: Path | None = None


def look(run: Run, data: Dataset, progress: Progress) -> Moment:
    """The model judged by held-out data, as a picture of how that goes with the level; and the same noise drawn again.

    The moment's picture is that of the samples, of a model that draws.
    """
    drawn = _preview(run) if run.learner.draws else None
    if ranks.rank():  # it drew its share; the first process does the rest
        return Moment(progress)
    found, measure = judgement(run, data), run.learner.judges
    shown = run.folder / f"{measure.name}.png"
    pictures.by_noise(found, measure, shown)
    if drawn is not None:
        shown = run.folder / "samples" / f"step-{progress.step:08d}.png"
        real = data.test[: max(1000, len(drawn))] if run.kind == "vector" else None
        for place in (shown, shown.with_name("latest.png")):
            run.picture(drawn, place, columns=_columns(run), real=real)
    return Moment(progress, found.value, shown)


def judgement(run: Run, data: Dataset) -> Judgement:
    """How good the run is on the held-out data, at fixed levels with fixed noise: see `ornstein.core.learner`."""
    return run.learner.judge(run.model, data.transform.forward(data.test), data.test_labels)


def _columns(run: Run) -> int | None:
    """Of a preview of pictures: one for each class."""
    return len(run.classes) if 4 <= len(run.classes) <= 16 and run.kind == "image" else None


def _preview(run: Run) -> Tensor:
    count, columns = run.experiment.sampling.preview, _columns(run)
    if columns and count > columns:
        count -= count % columns  # whole rows
    return run.draw(count, seed=0, label=run.every_class(count), together=True)
