"""What is measured and drawn of a model while it trains."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from ornstein import ranks
from ornstein.core.condition import SOURCE, Condition
from ornstein.core.learner import Judgement
from ornstein.data import Dataset
from ornstein.data.condition import LABEL
from ornstein.experiment import pictures
from ornstein.experiment.run import Run
from ornstein.files import replacing
from ornstein.training import Progress


@dataclass(frozen=True, eq=False)
class Moment:
    """What training yields: the loop's progress, and what was measured and drawn at this step, if anything was.

    Attributes:
        progress: the loop's.
        judged: the model judged on held-out data.
        picture: of samples, or of the judgement if the model draws none.
        note: what is done after the last step, or has come of it, in words.
    """

    progress: Progress
    judged: Judgement | None = None
    picture: Path | None = None
    note: str = ""

    @property
    def held_out(self) -> float | None:
        """The held-out error, relative to a baseline at 1."""
        return None if self.judged is None else self.judged.value


def look(run: Run, data: Dataset, progress: Progress, draws: bool = True) -> Moment:
    """The model judged on held-out data, and the same noise drawn again.

    For a model that draws, the moment's picture is of its samples; for another the chart over noise levels, which
    `ornstein.experiment.train` draws. Without `draws` there are no pictures.
    """
    if not draws:
        return Moment(progress, None if ranks.rank() else judgement(run, data))
    condition = _preview(run, data)
    count = condition.rows or run.experiment.sampling.preview
    drawn = run.draw(count, seed=0, condition=condition, together=True) if run.learner.draws else None
    if ranks.rank():  # it drew its share; the first process does the rest
        return Moment(progress)
    found, measure = judgement(run, data), run.learner.judges
    shown = run.folder / f"{measure.name}.png"
    if drawn is not None:
        shown = run.folder / "samples" / f"step-{progress.step:08d}.png"
        # at random: files are often sorted, and their first rows are of one kind
        order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
        some = data.test[order[: max(1000, count)]]
        real = None if run.kind == "image" else pictures.beside(some, data)
        start = condition.parts.get(SOURCE)
        run.picture(drawn, shown, run.class_columns(condition.parts.get(LABEL)), real=real, start=start)
        with replacing(shown.with_name("latest.png")) as part:
            shutil.copyfile(shown, part)
    return Moment(progress, found, shown)


def judgement(run: Run, data: Dataset) -> Judgement:
    """How good the run is on the held-out data, at fixed levels with fixed noise: see `ornstein.core.learner`."""
    return run.learner.judge(run.model, data.transform.forward(data.test), data.test_condition)


def _preview(run: Run, data: Dataset) -> Condition:
    """What a preview is given: whole rows where the columns are classes, else one class after the other."""
    count = run.experiment.sampling.preview
    if run.kind == "image" and 4 <= len(run.classes) <= min(16, count):
        count -= count % len(run.classes)
    if set(run.conditions) - run.learner.drawn_too != {LABEL}:
        return run.examples(count, data.test_condition)
    labels = run.every_class(count)
    assert labels is not None
    return Condition.of(labels if run.class_columns(labels) else labels.sort().values)
