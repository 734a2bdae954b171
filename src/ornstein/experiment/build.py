"""From names to objects: the only room that does it, and the only file of the room."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks
from ornstein.core.condition import Condition
from ornstein.core.denoiser import SEEN
from ornstein.core.drive import Stepper
from ornstein.core.gaps import GIVEN
from ornstein.core.learner import Learner, Problem
from ornstein.data import DATA, Dataset, Known, Source, Transform
from ornstein.data.before import load_as_before
from ornstein.errors import InputError
from ornstein.experiment.afford import afford_network
from ornstein.experiment.arguments import choice, construct
from ornstein.experiment.config import PROCESSES, Experiment, objectives, steppers
from ornstein.experiment.folder import read_folder
from ornstein.experiment.learner import LEARNERS, steppers_of
from ornstein.nets import NETS, Label, NetConfig, Number, Part, Picture, Tokens, Vector
from ornstein.objectives import OBJECTIVES

#: samples and what they are given
Batch = tuple[Tensor, Condition]


@dataclass(frozen=True, eq=False)
class Built:
    """The objects that an experiment names, short of its data: a learner, and the network that it teaches."""

    learner: Learner
    net: nn.Module

    @property
    def process(self) -> Any:
        """The clock, or a bridge's path."""
        return self.learner.problem.process

    @property
    def model(self) -> Any:
        """The network as what it learns to be."""
        return self.learner.model(self.net)

    def loss(self, memory: dict[str, Tensor]) -> Callable[[nn.Module, Batch, torch.Generator], Tensor]:
        """The loss as the training loop calls it, of a network that a device or a precision may have wrapped."""
        learner = self.learner

        def loss(net: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            return learner.loss(learner.model(net), *batch, generator, memory)

        return loss


def load_data(experiment: Experiment, about: Mapping[str, Any] | None = None) -> Dataset:
    """The experiment's data, read or made.

    Args:
        about: run.yaml of the run, if there is one: what began with another keeps its types and scales, also when that
            other is gone. None: they are the other's.

    Raises:
        InputError: data that are absent or unfit.
    """
    source: Source = construct(DATA, experiment.data)
    if experiment.start is None:
        return source.load()
    about = read_folder(Path(experiment.start))[1] if about is None else about
    return load_as_before(source, about["data"], Transform.from_dict(about["transform"]))


def build(experiment: Experiment, facts: Mapping[str, Any], transform: Transform, times: float = 1.0) -> Built:
    """The objects for data of which this is known.

    Args:
        facts: `Dataset.fingerprint()`, which a run folder keeps.
        transform: of the data.
        times: how many times the memory of the network's weights its use will take: once to draw.

    The network's weights are a function of `training.seed`.

    Raises:
        InputError: parts that do not fit each other, or a network that does not fit into memory.
    """
    problem = Problem(
        process=construct(PROCESSES, experiment.process),
        predicts=experiment.predicts,
        objective=construct(objectives(), experiment.objective),
        shape=transform.shape(tuple(facts["shape"])),
        sigma_data=facts["sigma_data"],
        classes=len(facts["classes"]),
        conditions={name: _part(about) for name, about in Known.of_facts(facts).items()},
        levels=None if transform.levels is None else transform.levels.count,
        categories=transform.categories,
        taught_by=experiment.objective["name"],
        noise_unit=experiment.noise_unit,
        gaps=bool(facts.get("missing")),
        far=facts["far"]["sigma_data"] if "far" in facts else None,
        paired="far" in facts and facts["far"]["paired"],
    )
    assert experiment.learner is not None
    learner = construct(LEARNERS, experiment.learner, problem)
    if problem.gaps and not learner.gaps:
        raise InputError(
            f"data={facts['name']!r} have {facts['missing']:.2%} of their cells missing, which objective="
            f"{problem.taught_by!r} with learner={experiment.learner['name']!r} cannot leave out; take "
            f"{', '.join(name for name, entry in OBJECTIVES.items() if getattr(entry(), 'gaps', False))}."
        )
    for name in learner.told if learner.gaps else ():
        if name in (SEEN, GIVEN) and name in problem.conditions:
            raise InputError(f"data.condition={name!r} is what models of data with gaps are told; rename that array.")
    for field, value, kind, instead in (("compile", True, "compiled", "False"), ("shard", "fsdp", "sharded", "'none'")):
        if learner.twice and getattr(experiment.training, field) == value:
            raise InputError(
                f"training.{field}={value!r} does not go with predicts={problem.predicts} and objective="
                f"{problem.taught_by}, which take two derivatives of the network where a {kind} one has one; leave it "
                f"{instead}."
            )

    def made(net: NetConfig) -> nn.Module:
        return net.build(learner.shown, learner.told, out_multiple=learner.out_multiple, seed=experiment.training.seed)

    net = construct(NETS, experiment.net)
    afford_network(net, made, times, ranks.device(experiment.training.cpu))
    return Built(learner, made(net))


def _part(about: Known) -> Part:
    """A part of the condition as networks are told of it."""
    if about.kind == "label":
        return Label(len(about.classes))
    if about.is_tokens:
        return Tokens(len(about.classes), about.shape[0])
    if about.kind == "number":
        return Number()
    return Vector(about.shape[0]) if len(about.shape) == 1 else Picture(about.shape[0], about.shape[1:])


def build_stepper(chosen: Mapping[str, Any]) -> Stepper:
    """The stepper that a complete choice describes."""
    made: Stepper = construct(steppers(), chosen)
    return made


def stepper_of(learner: Learner, stepper: "str | Stepper") -> Any:
    """The stepper of that name with its usual options, or the stepper given.

    Raises:
        InputError: a name that is not known, or of one that does not draw from this kind of model.
    """
    known = steppers_of(learner)
    if not isinstance(stepper, str):
        name = next((name for name, entry in steppers().items() if entry is type(stepper)), None)
        if name is not None and type(stepper) not in known.values():
            raise InputError(f"stepper={name!r} does not draw from such a model; take {', '.join(known)}.")
        return stepper
    return construct(known, choice(known, stepper, "stepper"))


def stepper_with(name: str, options: dict[str, Any]) -> Stepper:
    """The stepper of that name with options as a person typed them.

    Raises:
        InputError: an unknown name, or an option that it does not take or that is of the wrong type.
    """
    if "name" in options:
        raise InputError("stepper.name is no option: the stepper is named already.")
    return build_stepper(choice(steppers(), {**options, "name": name}, "stepper"))
