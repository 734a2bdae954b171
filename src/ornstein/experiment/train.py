"""Training an experiment into a folder (`ornstein.experiment.folder`), as a stream of reports."""

import copy
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ornstein import ranks
from ornstein._version import __version__
from ornstein.core.learner import Judgement
from ornstein.data import Coded, Dataset
from ornstein.errors import InputError
from ornstein.experiment import pictures
from ornstein.experiment.budget import in_time
from ornstein.experiment.build import Batch, load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.course import by_level
from ornstein.experiment.critics import criticise, rows_drawn
from ornstein.experiment.folder import (
    carry,
    holding,
    may_begin,
    newest_step,
    read_folder,
    read_metrics,
    write_experiment,
    write_facts,
)
from ornstein.experiment.latents import finish, is_codec
from ornstein.experiment.run import Run
from ornstein.experiment.settle import Settled, settle
from ornstein.experiment.start import start_from
from ornstein.experiment.watch import Moment, look
from ornstein.training import Diverged as Diverged
from ornstein.training import Lock, Progress, fit, threads
from ornstein.training.log import Log
from ornstein.training.trackers import begun, must_have

#: seconds after which a training's charts are drawn anew
_ANEW = 5.0


def train(
    experiment: Experiment,
    folder: "str | Path",
    data: Dataset | None = None,
    resume: bool = False,
    lock: Lock | None = None,
    draws: bool = True,
) -> Iterator[Moment]:
    """Train an experiment into a folder, yielding a `Moment` at each report.

    With several processes (`torchrun`) each must call this and exhaust it; the first measures and writes.

    Args:
        experiment: what to train.
        folder: the run folder; made if absent.
        data: the experiment's data, if already loaded.
        resume: continue the run in the folder.
        lock: the folder's, if the caller holds it (`ornstein.experiment.folder.holding`).
        draws: whether to draw the pictures that the experiment asks for (`sampling.preview`).

    Raises:
        InputError: another process writes in the folder; it holds a run and `resume` is not set; data that differ from
            those the run began with, ...
        Diverged: the loss stopped being finite.
    """
    if resume:
        read_folder(Path(folder))  # before anything is made there
    with holding(folder, "training") if lock is None and not ranks.rank() else nullcontext(lock) as held:
        yield from _train(experiment, Path(folder), data, resume, held, draws)


def _train(
    experiment: Experiment, folder: Path, data: Dataset | None, resume: bool, lock: Lock | None, draws: bool
) -> Iterator[Moment]:
    if resume and (minutes := experiment.training.minutes) is not None:
        raise InputError(f"training.minutes={minutes:g} is of a run that begins; go on with more training.steps.")
    must_have(experiment.training.trackers)
    data = data or load_data(experiment, *(read_folder(folder)[1], folder) if resume else ())
    _check_folder(folder, data, resume)
    experiment = in_time(experiment, data)
    ranks.join(experiment.training.cpu)
    settled = settle(experiment, data)
    experiment, built, config = settled.experiment, settled.built, settled.experiment.training
    draws = draws and experiment.sampling.preview > 0
    about = _facts(settled, data)
    if newest_step(folder) is None:
        if experiment.start is not None:
            start_from(built.learner, built.net, experiment.start)
            settled.memory.update(built.learner.memory(built.model, *data.batch(0, config.batch_size, config.seed)))
        # after the weights of another run, whose counts are of other data
        built.learner.count(built.net, data.train[:: data.overlap])
    averaged = copy.deepcopy(built.net).eval().requires_grad_(False)
    # pictures and held-out errors cost as little as a step does: in its precision
    watched = Run(folder, experiment, about, built.learner.model(averaged), data.transform, built.learner)
    charts = _Charts(watched := watched.drawing(config.precision), draws)
    first = not ranks.rank()  # of several processes, the one that writes
    ranks.meet()
    trackers = begun(config.trackers, folder.name, asdict(experiment)) if first else ()
    if not resume and first:
        write_facts(folder, experiment, about)
        if isinstance(data.transform, Coded):
            carry(Path(experiment.data["codec"]), folder)
    log: Log | None = None
    try:
        for progress in fit(
            built.net, built.loss(settled.memory), lambda step: data.batch(step, config.batch_size, config.seed),
            config, folder, describe=_describe(settled), resume=resume, meta={"data": about["data"]["sha256"]},
            memory=settled.memory, lock=lock, pace=settled.pace,
        ):  # fmt: skip
            if log is None and first:
                log = Log(folder, progress.step if resume else 0, trackers=trackers)
                if resume:  # only now is it known that what was changed goes with what was trained
                    write_experiment(folder, experiment)
            moment = Moment(progress)
            if progress.step % config.validate_every == 0 or progress.step == config.steps:
                _average(averaged, built.net, progress, experiment.sampling.ema)
                with threads(progress.threads):
                    moment = look(watched, data, progress, draws)
            if log is not None:
                _record(log, moment, charts)
            yield moment
        if log is not None:
            log.close()
            if is_codec(watched):
                finish(folder, data)
            if watched.learner.criticised:
                yield from criticise(folder, data, moment, lock)
    finally:
        charts.end()
        for tracker in trackers:
            tracker.finish()


def _check_folder(folder: Path, data: Dataset, resume: bool) -> None:
    """Refuse to begin where a run is, and to go on with one on other data."""
    if resume:
        _, before = read_folder(folder)
        if before["data"]["sha256"] != data.fingerprint()["sha256"]:
            raise InputError(f"the data are not those that {folder} was trained on: their content differs.")
    elif not ranks.rank():
        may_begin(folder)


def _facts(settled: Settled, data: Dataset) -> dict[str, Any]:
    """What run.yaml says."""
    facts = {
        "data": data.fingerprint(),
        "transform": data.transform.to_dict(),
        "parameters": sum(p.numel() for p in settled.built.net.parameters()),
        "versions": {"ornstein": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    if wanted := rows_drawn(settled.built.learner, settled.experiment.training, len(data.train)):
        facts["critic"] = {"rows": wanted}
    return {**facts, "reasons": settled.reasons} if settled.reasons else facts


def _describe(settled: Settled) -> Callable[[Batch, torch.Generator], str]:
    """Says of a step that went wrong at which levels it was."""

    def describe(batch: Batch, generator: torch.Generator) -> str:
        # what a loss remembers has moved on since
        t = None if settled.memory else settled.built.learner.times(len(batch[0]), generator)
        if t is None:
            return ""
        ratio = torch.exp(-0.5 * settled.built.process.log_snr(t.double()))
        return f"noise ratios sigma/alpha from {ratio.min():.3g} to {ratio.max():.3g}"

    return describe


def _average(averaged: nn.Module, net: nn.Module, progress: Progress, ema: float) -> None:
    """Give `averaged` the average of that length, or the weights as they are if it is 0."""
    if ema:
        progress.ema.copy_to(averaged, ema)
    else:
        averaged.load_state_dict({name: ranks.whole(value) for name, value in net.state_dict().items()})
    averaged.to(next(net.parameters()).device)


class _Charts:
    """The charts of a training: drawn anew where it was judged, but not more often than a reader opens them.

    To draw them takes a few tenths of a second, as long as many steps of a small network. Of a model that draws no
    samples they are what is shown, and drawn each time.
    """

    def __init__(self, run: Run, draws: bool) -> None:
        self.run, self._draws, self._drawn = run, draws, time.monotonic()
        self._waiting: Judgement | None = None

    def show(self, judged: Judgement, step: int) -> None:
        """Draw them, if it is time; else keep what they would be of."""
        self._waiting = judged if self._draws else None
        last = step == self.run.experiment.training.steps
        if last or not self.run.learner.draws or time.monotonic() - self._drawn >= _ANEW:
            self._draw()

    def end(self) -> None:
        """Draw what was kept, however the training ended: what went wrong with it is said, and not that a chart did."""
        with suppress(InputError):
            self._draw()

    def _draw(self) -> None:
        if self._waiting is None:
            return
        measure, folder = self.run.learner.judges, self.run.folder
        pictures.loss_curve(read_metrics(folder), folder / "loss.png")
        pictures.by_noise(self._waiting, measure, folder / f"{measure.name}.png")
        self._drawn, self._waiting = time.monotonic(), None


def _record(log: Log, moment: Moment, charts: _Charts) -> None:
    """Log a moment, and show how it was judged, if it was."""
    p, judged = moment.progress, moment.judged
    record = {"loss": p.loss, "grad_norm": p.grad_norm, "lr": p.lr, "rate": p.rate, "skipped": p.skipped}
    record["threads"] = p.threads  # so that two runs can be told to be the same
    if judged is not None:
        record |= {"held_out": judged.value, **by_level(judged, charts.run.learner.judges)}
    log.write(p.step, record)
    if judged is not None:
        charts.show(judged, p.step)
