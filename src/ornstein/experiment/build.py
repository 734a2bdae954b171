"""From names to objects: the only room that does it, and the only file of the room."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.core.denoiser import NetDenoiser
from ornstein.core.drive import Stepper
from ornstein.core.process import Process
from ornstein.data import DATA, Dataset, Levels
from ornstein.energies import EnergyDenoiser
from ornstein.errors import InputError
from ornstein.experiment.config import CLASSIFIER, ENERGY, OBJECTIVES, PROCESSES, Experiment, choice, construct
from ornstein.guidance import NoisyClassifier, NoisyCrossEntropy
from ornstein.nets import NETS
from ornstein.objectives import Objective
from ornstein.samplers import STEPPERS
from ornstein.samplers.noise_ladder import AdvisedLadder
from ornstein.training import quickest_training

#: examples that the distances within a data set are taken of
_LOOKED_AT = 20_000
#: sigma/alpha up to which x0 can be had from the noise; DDPM's linear betas end at 157
_NOISIEST = 1000.0


@dataclass(frozen=True, eq=False)
class Parts:
    """The objects that an experiment names, short of its data."""

    process: Process
    net: nn.Module
    denoiser: NetDenoiser | EnergyDenoiser
    objective: Objective


def load_data(experiment: Experiment) -> Dataset:
    """The experiment's data, read or made.

    Raises:
        InputError: data that are absent or unfit.
    """
    return construct(DATA, experiment.data).load()


def settle(experiment: Experiment, data: Dataset) -> tuple[Experiment, dict[str, str]]:
    """The experiment with all that it leaves to the data decided, and why: a sentence for each choice.

    Raises:
        InputError: data that allow no choice.
    """
    if experiment.objective["name"] == CLASSIFIER and not experiment.objective["shares"]:
        if len(data.classes) < 2 or data.train_labels is None:
            raise InputError(f"objective='{CLASSIFIER}' needs labels of two classes or more; {data.name} has none.")
        counted = torch.bincount(data.train_labels, minlength=len(data.classes)).tolist()
        shares = [count / len(data.train) for count in counted]
        objective = choice(OBJECTIVES, {**experiment.objective, "shares": shares}, "objective")
        experiment = dataclasses.replace(experiment, objective=objective)
    process, sampling = construct(PROCESSES, experiment.process), experiment.sampling
    if not isinstance(process, AdvisedLadder):
        return experiment, {}
    stepper = dict(sampling.stepper)
    advice = process.advise(data.transform.forward(data.train[:_LOOKED_AT]), stepper.get("corrections", 5))
    reasons = dict(advice.reasons)
    if stepper["name"] == "annealed-langevin" and stepper["step_size"] is None:
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


def build(
    experiment: Experiment, shape: tuple[int, ...], classes: int, sigma_data: float, levels: Levels | None = None
) -> Parts:
    """The objects for data of this shape, number of classes, standard deviation and quantisation in model space.

    The network's weights are a function of `training.seed`. An objective
    that learns the variance of the reverse step gets a network with twice the channels; one with a `levels` of 0 gets
    those of the data.

    Raises:
        InputError: parts that do not fit each other.
    """
    process = construct(PROCESSES, experiment.process)
    objective = construct(OBJECTIVES, experiment.objective)
    if levels is not None and getattr(objective, "levels", None) == 0:
        objective = dataclasses.replace(objective, levels=levels.count)
    learns_variance = getattr(objective, "learns_variance", False)
    energy = experiment.predicts == ENERGY
    if energy and learns_variance:
        raise InputError(
            f"objective={experiment.objective['name']!r} learns a variance, which predicts=energy has not."
        )
    for field, value, kind, instead in (("compile", True, "compiled", "False"), ("shard", "fsdp", "sharded", "'none'")):
        twice = energy or getattr(objective, "twice_differentiated", False)
        if twice and getattr(experiment.training, field) == value:
            raise InputError(
                f"training.{field}={value!r} does not go with "
                f"{'predicts=energy' if energy else 'objective=' + experiment.objective['name']}, which takes two "
                f"derivatives of the network where a {kind} one has one; leave it {instead}."
            )
    tells_classes = isinstance(objective, NoisyCrossEntropy)
    out_multiple = NoisyClassifier.out_multiple(shape, classes) if tells_classes else 2 if learns_variance else 1
    net = construct(NETS, experiment.net).build(
        shape, classes=0 if tells_classes else classes, out_multiple=out_multiple, seed=experiment.training.seed
    )
    ends_at = float(process.at(process.t_max).noise_ratio)
    if experiment.predicts in ("eps", "score") and ends_at > _NOISIEST:
        raise InputError(
            f"predicts={experiment.predicts!r} does not go with {process}, which ends at sigma/alpha = {ends_at:.3g}: "
            "x0 would have the network's errors times that; predict v, x0, velocity or edm."
        )
    denoiser: NetDenoiser | EnergyDenoiser
    if energy:
        denoiser = EnergyDenoiser(net, process, sigma_data)
    else:
        denoiser = NetDenoiser(net, process, experiment.predicts, sigma_data, learns_variance)
    return Parts(process, net, denoiser, objective)


def build_for(experiment: Experiment, data: Dataset) -> Parts:
    """The objects for these data: see `build`."""
    return build(experiment, data.shape, len(data.classes), data.sigma_data, data.transform.levels)


def with_net(denoiser: NetDenoiser | EnergyDenoiser, net: nn.Module) -> NetDenoiser | EnergyDenoiser:
    """The denoiser with another network, as a copy or what a device or precision has wrapped."""
    return dataclasses.replace(denoiser, net=net)  # type: ignore[arg-type]


def remembered(parts: Parts, x0: Tensor) -> dict[str, Tensor]:
    """What the loss keeps from one step to the next, as it begins: chains of samples; {} of most losses."""
    return parts.objective.memory(parts.denoiser, x0) if hasattr(parts.objective, "memory") else {}


def loss_of(parts: Parts, memory: dict[str, Tensor] | None = None) -> Callable[..., Tensor]:
    """The objective as the training loop calls it, loss(net, (x0, labels), generator), with what it remembers."""
    remembering: dict[str, Any] = {"memory": memory} if memory else {}

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor | None], generator: torch.Generator) -> Tensor:
        return parts.objective(with_net(parts.denoiser, net), *batch, generator, **remembering)

    return loss


def needs_float32(experiment: Experiment, parts: Parts, x0: Tensor) -> bool:
    """Whether the loss takes second derivatives or remembers chains, to which narrow types do harm."""
    twice = experiment.predicts == ENERGY or getattr(parts.objective, "twice_differentiated", False)
    return twice or bool(remembered(parts, x0))


def measured_precision(
    experiment: Experiment, parts: Parts, x0: Tensor, labels: Tensor | None, device: torch.device
) -> tuple[str, str]:
    """What "auto" means for `training.precision` here, and why: the fastest on a piece of a batch.

    Second derivatives and chains that a loss remembers get float32 unmeasured.
    """
    if needs_float32(experiment, parts, x0):
        return "float32", "which second derivatives and chains want."
    batch = (x0.to(device), None if labels is None else labels.to(device))
    return quickest_training(parts.net, loss_of(parts), batch, device, experiment.training.seed)


def build_stepper(chosen: dict[str, Any]) -> Stepper:
    """The stepper that a complete choice describes."""
    return construct(STEPPERS, chosen)


def stepper_with(name: str, options: dict[str, Any]) -> Stepper:
    """The stepper of that name with options as a person typed them.

    Raises:
        InputError: an unknown name, or an option that it does not take or that is of the wrong type.
    """
    if "name" in options:
        raise InputError("stepper.name is no option: the stepper is named already.")
    return build_stepper(choice(STEPPERS, {**options, "name": name}, "stepper"))
