"""Training an experiment into a folder (`ornstein.experiment.folder`), as a stream of moments."""

import copy
import dataclasses
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ornstein import ranks
from ornstein._version import __version__
from ornstein.core.grids import times
from ornstein.data import Dataset
from ornstein.errors import InputError
from ornstein.experiment import pictures
from ornstein.experiment.build import (
    Parts,
    build_for,
    build_stepper,
    load_data,
    loss_of,
    measured_precision,
    remembered,
    settle,
    with_net,
)
from ornstein.experiment.config import CLASSIFIER, Experiment
from ornstein.experiment.folder import read_folder, read_metrics
from ornstein.experiment.run import Run
from ornstein.experiment.watch import Moment, judged, measured
from ornstein.files import write_text
from ornstein.training import AUTO, Progress, fit
from ornstein.training import Diverged as Diverged
from ornstein.training.log import Log

#: samples and their labels
Batch = tuple[Tensor, Tensor | None]


def train(
    experiment: Experiment, folder: "str | Path", data: Dataset | None = None, resume: bool = False
) -> Iterator[Moment]:
    """Train an experiment into a folder, yielding a `Moment` at each report.

    Of several processes (`torchrun`) each calls this alike and reads to the end; the first measures and writes.

    Args:
        experiment: what to train.
        folder: the run folder; made if absent.
        data: the experiment's data, if already loaded.
        resume: go on with the run in the folder.

    Raises:
        InputError: the folder holds a run and `resume` is not set, data that differ from those the run began with, ...
        Diverged: the loss stopped being finite.
    """
    folder = Path(folder)
    data = data or load_data(experiment)
    experiment, reasons = settle(experiment, data)
    ranks.join(experiment.training.cpu)
    experiment = _divided(experiment)
    parts = build_for(experiment, data)
    about = _facts(data, parts.net, reasons)
    _check_folder(folder, about, resume)
    averaged = copy.deepcopy(parts.net).eval().requires_grad_(False)
    watched = Run(folder, experiment, about, with_net(parts.denoiser, averaged), data.transform)
    first_batch = data.batch(0, experiment.training.batch_size, experiment.training.seed)
    memory = _rehearsed(watched, parts, first_batch)
    if experiment.training.precision == AUTO:
        experiment, why = _decided(experiment, parts, first_batch)
        about.setdefault("reasons", {})["training.precision"] = why
    config = experiment.training
    # pictures and held-out errors cost as little as a step does: in its precision
    watched = dataclasses.replace(watched, experiment=experiment).drawing(config.precision)
    first = not ranks.rank()  # of several processes, the one that writes
    ranks.meet()
    if not resume and first:
        write_text(folder / "experiment.yaml", experiment.to_yaml())
        write_text(folder / "run.yaml", yaml.safe_dump(about, sort_keys=False))
    log: Log | None = None
    for progress in fit(
        parts.net, loss_of(parts, memory), lambda step: data.batch(step, config.batch_size, config.seed), config,
        folder, describe=_describe(parts, memory), resume=resume, meta={"data": about["data"]["sha256"]},
        memory=memory,
    ):  # fmt: skip
        if log is None and first:
            log = Log(folder, progress.step if resume else 0)
            if resume:  # only now is it known that what was changed goes with what was trained
                write_text(folder / "experiment.yaml", experiment.to_yaml())
        moment = _look(watched, averaged, parts.net, data, progress)
        if log is not None:
            _record(log, moment, folder)
        yield moment
    if log is not None:
        log.close()


def _divided(experiment: Experiment) -> Experiment:
    """The experiment with its batches in pieces that all processes get as many of.

    It is kept so, so that any number of processes can do the same again.
    """
    config = experiment.training
    if not config.accumulate % ranks.count():
        return experiment
    config = dataclasses.replace(config, accumulate=-(-config.accumulate // ranks.count()) * ranks.count())
    return dataclasses.replace(experiment, training=config)


def _facts(data: Dataset, net: nn.Module, reasons: dict[str, str]) -> dict[str, Any]:
    """What run.yaml says."""
    facts = {
        "data": data.fingerprint(),
        "transform": data.transform.to_dict(),
        "parameters": sum(p.numel() for p in net.parameters()),
        "versions": {"ornstein": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    return {**facts, "reasons": reasons} if reasons else facts


def _check_folder(folder: Path, about: Mapping[str, Any], resume: bool) -> None:
    """Refuse to begin where a run is, and to go on with one on other data."""
    if resume:
        _, before = read_folder(folder)
        if before["data"]["sha256"] != about["data"]["sha256"]:
            raise InputError(f"the data are not those that {folder} was trained on: their content differs.")
    elif (folder / "run.yaml").exists():
        raise InputError(f"out={str(folder)!r} holds a run already; go on with --resume {folder}, or name another.")


def _rehearsed(run: Run, parts: Parts, batch: Batch) -> dict[str, Tensor]:
    """What the loss remembers, after a rehearsal: parts that do not fit say so before anything is written."""
    times(parts.process, run.steps, run.experiment.sampling.grid)
    build_stepper(run.experiment.sampling.stepper)
    x0, labels = batch
    memory = remembered(parts, x0)
    loss = loss_of(parts, {key: tensor.clone() for key, tensor in memory.items()})
    with torch.no_grad():
        few = slice(2)
        dice = torch.Generator().manual_seed(run.experiment.training.seed)
        loss(parts.net, (x0[few], None if labels is None else labels[few]), dice)
    return memory


def _decided(experiment: Experiment, parts: Parts, batch: Batch) -> tuple[Experiment, str]:
    """The experiment with the precision of training measured, and why it is that."""
    config, (x0, labels) = experiment.training, batch
    device = torch.device("cuda" if ranks.take_device(config.cpu) else "cpu")
    piece = -(-config.batch_size // config.accumulate)
    few_labels = None if labels is None else labels[:piece]
    precision, why = measured_precision(experiment, parts, x0[:piece], few_labels, device)
    config = dataclasses.replace(config, precision=precision)
    return dataclasses.replace(experiment, training=config), f"{precision}, {why}"


def _describe(parts: Parts, memory: dict[str, Tensor]) -> Callable[[Batch, torch.Generator], str]:
    """Says of a step that went wrong at which levels it was."""

    def describe(batch: Batch, generator: torch.Generator) -> str:
        draw_times = getattr(parts.objective, "draw_times", None)
        if draw_times is None or memory:  # what it remembers has moved on since
            return ""
        t = draw_times(parts.process, len(batch[0]), generator, parts.denoiser.sigma_data)
        ratio = torch.exp(-0.5 * parts.process.log_snr(t.double()))
        return f"noise ratios sigma/alpha from {ratio.min():.3g} to {ratio.max():.3g}"

    return describe


def _look(run: Run, averaged: nn.Module, net: nn.Module, data: Dataset, progress: Progress) -> Moment:
    """The moment, measured if it is time to."""
    config = run.experiment.training
    if progress.step % config.validate_every and progress.step != config.steps:
        return Moment(progress)
    _average(averaged, net, progress, run.experiment.sampling.ema)
    measure = judged if run.experiment.objective["name"] == CLASSIFIER else measured
    return measure(run, data, progress)


def _average(averaged: nn.Module, net: nn.Module, progress: Progress, ema: float) -> None:
    """Give `averaged` the average of that length, or the weights as they are if it is 0."""
    if ema:
        progress.ema.copy_to(averaged, ema)
    else:
        averaged.load_state_dict({name: ranks.whole(value) for name, value in net.state_dict().items()})
    averaged.to(next(net.parameters()).device)


def _record(log: Log, moment: Moment, folder: Path) -> None:
    """Log a moment, and draw the curve anew where it was measured."""
    p = moment.progress
    record = {"loss": p.loss, "grad_norm": p.grad_norm, "lr": p.lr, "rate": p.rate, "skipped": p.skipped}
    log.write(p.step, record if moment.held_out is None else {**record, "held_out": moment.held_out})
    if moment.held_out is not None:
        pictures.loss_curve(read_metrics(folder), folder / "loss.png")
