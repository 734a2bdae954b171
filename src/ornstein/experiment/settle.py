"""Everything that an experiment leaves open, decided: by the data, by this machine, by the number of processes.

Training, planning and drawing read what is decided here and decide nothing themselves.
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein import ranks
from ornstein.core.drive import Stepper
from ornstein.core.learner import Learner
from ornstein.data import Dataset
from ornstein.errors import InputError, lookup
from ornstein.experiment.afford import afford_batch, afford_pieces, copies
from ornstein.experiment.arguments import choice, construct
from ornstein.experiment.build import Batch, Built, build, build_stepper, stepper_of
from ornstein.experiment.config import PROCESSES, Experiment, Sampling, objectives
from ornstein.experiment.learner import LEARNERS
from ornstein.samplers.noise_ladder import AdvisedLadder
from ornstein.training import AUTO, PRECISIONS, Pace, half, pace_of, quickest, quickest_training
from ornstein.training.count import Meter

#: examples that the distances within a data set are taken of; samples of a trial of how fast drawing is
_LOOKED_AT, _TRIED = 20_000, 16
#: examples of a rehearsal
_REHEARSED = 4


@dataclass(frozen=True, eq=False)
class Settled:
    """An experiment with nothing left open.

    Attributes:
        experiment: complete, as it is written to the run folder.
        reasons: a sentence for each choice, by its name.
        built: the objects that it names.
        memory: what the loss remembers, in its first state.
        pace: the number of threads to start with, and what decides when another is better.
    """

    experiment: Experiment
    reasons: dict[str, str]
    built: Built
    memory: dict[str, Tensor]
    pace: Pace


def settle(experiment: Experiment, data: Dataset, narrow: str | None = None, trains: bool = True) -> Settled:
    """Decide what the experiment leaves to the data and to the machine, and rehearse a step.

    Args:
        experiment: what to train.
        data: its data.
        narrow: for a device that this machine does not have: the type narrower than float32 that it is fast in, or
            "float32"; None to measure this machine.
        trains: whether it is to be trained here and now, rather than planned.

    Raises:
        InputError: data that allow no choice, parts that do not fit each other, or into memory.
    """
    experiment, reasons = _by_data(experiment, data)
    reasons = {**experiment.reasons, **reasons}
    experiment = _divided(experiment)
    config = experiment.training
    afford_batch(data, config)
    # for a device that is not at hand the network is only counted, with its gradients
    built = build(experiment, data.fingerprint(), data.transform, copies(config) if narrow is None else 2.0)
    kept = _rehearse(experiment, built, data.batch(0, min(config.batch_size, _REHEARSED), config.seed))
    if narrow is None and (trains or config.precision == AUTO):  # which tries a whole piece
        afford_pieces(config, kept, sum(p.nbytes for p in built.net.parameters()), ranks.device(config.cpu))
    batch = data.batch(0, config.batch_size, config.seed)
    memory = built.learner.memory(built.model, *batch)
    if config.precision == AUTO:
        precision, why = _training_precision(experiment, built, batch, memory, narrow)
        experiment = dataclasses.replace(experiment, training=dataclasses.replace(config, precision=precision))
        reasons["training.precision"] = f"{precision}, {why}"
    return Settled(experiment, reasons, built, memory, pace_of(experiment.training, ranks.device(config.cpu)))


def _by_data(experiment: Experiment, data: Dataset) -> tuple[Experiment, dict[str, str]]:
    """What is left to the data: the shares of classes, the levels and the step of an advised ladder."""
    assert experiment.learner is not None
    shares: tuple[float, ...] = ()
    if data.classes:
        shares = tuple(count / len(data.train) for count in data.class_counts)
    entry = LEARNERS[experiment.learner["name"]]
    completed = entry.completed(experiment.objective, shares, data.name)
    experiment = dataclasses.replace(experiment, objective=choice(objectives(), completed, "objective"))
    process, sampling = construct(PROCESSES, experiment.process), experiment.sampling
    if not isinstance(process, AdvisedLadder):
        return experiment, {}
    stepper = dict(sampling.stepper)
    if data.missing:
        raise InputError(
            f"process={experiment.process['name']!r} measures distances, and {data.name} has cells missing."
        )
    advice = process.advise(data.transform.forward(data.train[:_LOOKED_AT]), stepper.get("corrections", 5))
    reasons = dict(advice.reasons)
    if stepper.get("step_size", 0) is None:
        stepper["step_size"] = advice.step_size
    else:
        del reasons["step_size"]
    ladder = {"sigma_min": advice.sigmas[0], "sigma_max": advice.sigmas[-1], "steps": len(advice.sigmas)}
    settled = dataclasses.replace(
        experiment,
        process=choice(PROCESSES, {"name": "ladder", **ladder}, "process"),
        sampling=dataclasses.replace(sampling, stepper=stepper),
    )
    return settled, reasons


def _divided(experiment: Experiment) -> Experiment:
    """The experiment with its batches in pieces that all processes get as many of.

    It is kept so, so that any number of processes can do the same again.
    """
    config, count = experiment.training, ranks.count()
    config = dataclasses.replace(config, accumulate=-(-config.accumulate // count) * count)
    return dataclasses.replace(experiment, training=config)


def _rehearse(experiment: Experiment, built: Built, batch: Batch) -> float:
    """Take the loss of a few examples, and the grid: parts that do not fit say so before anything is written.

    Returns the bytes that the loss keeps of one for the backward pass: what four keep beyond two, halved; 0 of fewer.
    """
    (x0, condition), alive = batch, []
    if built.learner.draws:
        how = way(experiment.sampling, built.learner)
        built.learner.trajectory(built.model, 1, how.stepper, how.steps, how.grid, seed=0, condition=condition[:1])
    for few in (_REHEARSED // 2, _REHEARSED):
        memory = built.learner.memory(built.model, x0[:few], condition[:few])
        dice = torch.Generator().manual_seed(experiment.training.seed)
        with torch.random.fork_rng([]), Meter([*built.net.parameters(), *built.net.buffers()]) as meter:
            losses = built.loss(memory)(built.net, (x0[:few], condition[:few]), dice)
        alive.append(meter.live)
        del losses  # which held on to all that was counted
    return max(alive[1] - alive[0], 0) / 2 if len(x0) == _REHEARSED else 0.0


def _training_precision(
    experiment: Experiment, built: Built, batch: Batch, memory: dict[str, Tensor], narrow: str | None
) -> tuple[str, str]:
    """What "auto" means for `training.precision`, and why: the fastest on a piece of a batch.

    Second derivatives and chains that a loss remembers get float32 unmeasured.
    """
    config = experiment.training
    if built.learner.twice or memory:
        return "float32", "which second derivatives and chains want."
    if narrow is not None:
        return narrow, "assumed of a device that is not at hand."
    piece = slice(-(-config.batch_size // config.accumulate))
    device = ranks.device(config.cpu)
    x0, condition = batch
    few = (x0[piece].to(device), condition[piece].to(device))
    return quickest_training(built.net, built.loss({}), few, device, config.seed)


def drawing_precision(learner: Learner, model: object, asked: str, narrow: str | None = None) -> str:
    """The precision that a model draws in.

    Args:
        learner, model: of the run; the model where it is to draw.
        asked: a name in `PRECISIONS`; "auto" for the one that is measured to be fastest here.
        narrow: see `settle`.

    Raises:
        InputError: a name that is not known.
    """
    lookup({AUTO: None, **PRECISIONS}, asked, "precision")
    if not learner.narrow:
        return "float32"  # an energy's score and a classifier's guidance are derivatives
    if asked != AUTO:
        return asked
    if narrow is not None:
        return narrow
    device = model.device  # type: ignore[attr-defined]
    x = torch.randn(_TRIED, *learner.problem.shape, generator=torch.Generator().manual_seed(0)).to(device)

    @torch.inference_mode()
    def work(precision: str) -> None:
        with half(device, precision):
            model(x, 0.5 * learner.problem.process.t_max)  # type: ignore[operator]

    return quickest(work, device)[0]


def settle_drawing(settled: Settled, narrow: str | None = None) -> Experiment:
    """The experiment with the precision that its network will draw in, here or where `narrow` says, decided too."""
    experiment, learner = settled.experiment, settled.built.learner
    there = ranks.device(experiment.training.cpu)
    model = learner.model(copy.deepcopy(settled.built.net).eval().to(there))
    precision = drawing_precision(learner, model, experiment.sampling.precision, narrow)
    return dataclasses.replace(experiment, sampling=dataclasses.replace(experiment.sampling, precision=precision))


@dataclass(frozen=True, eq=False)
class Way:
    """How to draw: by which stepper, in how many steps, on which grid (None: the stepper's usual one)."""

    stepper: Stepper
    steps: int
    grid: "str | Sequence[float] | Tensor | None"


def way(
    sampling: Sampling,
    learner: Learner,
    stepper: "str | Stepper | None" = None,
    steps: int | None = None,
    grid: "str | Sequence[float] | Tensor | None" = None,
) -> Way:
    """How a run draws: as given, otherwise by its defaults.

    Raises:
        InputError: a stepper that is not known.
    """
    return Way(
        build_stepper(sampling.stepper) if stepper is None else stepper_of(learner, stepper),
        (sampling.steps or learner.steps) if steps is None else steps,
        sampling.grid if grid is None else grid,
    )
