"""From names to objects: the only room that does it, and the only file of the room."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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
from ornstein.data import DATA, Coded, Dataset, Known, Latents, Source, Transform
from ornstein.data.before import load_as_before
from ornstein.data.between import opened
from ornstein.data.coded import told
from ornstein.errors import InputError, shown
from ornstein.experiment.afford import afford_network
from ornstein.experiment.arguments import choice, choice_with, construct
from ornstein.experiment.config import PROCESSES, Experiment, nets, objectives, steppers
from ornstein.experiment.folder import CODEC, read_folder, read_measured, weights_name, weights_of
from ornstein.experiment.learner import LEARNERS, steppers_of
from ornstein.files import digest
from ornstein.latent import NetCodec
from ornstein.nets import Label, NetConfig, Number, Part, Picture, Tokens, Vector
from ornstein.objectives import OBJECTIVES

#: samples and what they are given
Batch = tuple[Tensor, Condition]


@dataclass(frozen=True, eq=False)
class Built:
    """The objects that an experiment names, except its data: a learner, and the network that it trains."""

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


def load_data(experiment: Experiment, about: Mapping[str, Any] | None = None, folder: Path | None = None) -> Dataset:
    """The experiment's data, read or made.

    Args:
        about: run.yaml of the run, if there is one: what began with another keeps its types and scales, also when that
            other is gone. None: they are the other's.
        folder: of the run, if there is one, which holds the codec of its latents. None: it lies where the data say.

    Raises:
        InputError: data that are absent or unfit.
    """
    source: Source = construct(DATA, experiment.data)
    if experiment.start is not None:
        about = read_folder(Path(experiment.start))[1] if about is None else about
    if isinstance(source, Latents):
        return _latents(source, about, folder, experiment.start is not None)
    if about is None or experiment.start is None:
        return source.load()
    return load_as_before(source, about["data"], Transform.from_dict(about["transform"]))


def build(experiment: Experiment, facts: Mapping[str, Any], transform: Transform, times: float = 1.0) -> Built:
    """The objects for data described by these facts.

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
        correlation=torch.tensor(series) if (series := facts.get("series", {}).get("correlation")) else None,
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
        seed = experiment.training.seed
        found: nn.Module = learner.network(partial(net.build, seed=seed), seed)
        return found

    net = construct(nets(), experiment.net)
    afford_network(net, made, times, ranks.device(experiment.training.cpu))
    return Built(learner, made(net))


def _latents(source: Latents, about: Mapping[str, Any] | None, folder: Path | None, goes_on: bool) -> Dataset:
    """Data in the latents of the codec that they name, or of its copy in the folder of the run that was taught them.

    Of a run that goes on from another, in the classes and words of that other's data, of which `about` tells.
    """
    place = Path(source.codec) if folder is None else folder / CODEC
    if not place.is_dir():
        raise InputError(
            f"data.codec={shown(place)!r} is not a folder; give the run of a codec, trained with preset=autoencoder."
        )
    codec, sha256, base = open_codec(place)
    facts = None if about is None else about["data"]
    if facts is not None and goes_on:
        data = source.checked(load_as_before(opened(source.of), facts, base))
    else:
        data = source.load()
    if data.shape == codec.shape and data.transform.to_dict() != base.to_dict():
        raise InputError(
            f"data.codec={shown(source.codec)!r} was trained on data in other units ({base}) than data={data.name!r} "
            f"({data.transform})."
        )
    return told(data, codec, sha256, None if facts is None else (facts["mean"], facts["sigma_data"]))


def open_codec(folder: Path) -> tuple[NetCodec, str, Transform]:
    """The codec that a run has learned, the hash of its weights, and the transform to what it is shown.

    Raises:
        InputError: no run there; one of something else; one whose latents have not been measured.
    """
    experiment, about = read_folder(folder)
    transform = Transform.from_dict(about["transform"])
    built = build(experiment, about["data"], transform)
    if not isinstance(built.model, NetCodec):
        raise InputError(
            f"data.codec={shown(folder)!r} is no codec but a {experiment.learner['name']}; train one with "  # type: ignore[index]
            "preset=autoencoder."
        )
    measured, ema = read_measured(folder), experiment.sampling.ema
    weights, sha256 = weights_of(folder, experiment, ema), digest(folder / weights_name(ema), "sha256")
    if measured is None or measured["weights"] != sha256:
        raise InputError(
            f"data.codec={shown(folder)!r} is not trained to its end, where its latents are measured; go on with "
            f"ornstein train --resume {shown(folder)}."
        )
    try:
        built.net.load_state_dict(weights)
    except RuntimeError:
        raise InputError(f"data.codec={shown(folder)!r} has weights of another network than it names.") from None
    built.net.eval().requires_grad_(False).to(ranks.device(experiment.training.cpu))
    scaled = {name: measured[name] for name in ("shift", "scale", "spread")}
    return NetCodec(built.net, **scaled), sha256, transform  # type: ignore[arg-type]


def transform_of(about: Mapping[str, Any], folder: Path) -> Transform:
    """The transform of a run by its run.yaml; of latents with the codec that lies in its folder.

    Raises:
        InputError: it is damaged; or a codec that is missing, or is not the one that the run was trained with.
    """
    transform = Transform.from_dict(about["transform"])
    if not isinstance(transform, Coded):
        return transform
    if not (folder / CODEC).is_dir():
        raise InputError(f"run={shown(folder)!r} is of latents, and its codec is missing: put back {CODEC}/.")
    codec, sha256, _ = open_codec(folder / CODEC)
    if sha256 != transform.sha256:
        raise InputError(f"run={shown(folder)!r} was trained in the latents of another codec than {CODEC}/ holds.")
    return replace(transform, codec=codec)


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
    """The stepper of that name with options as the user typed them.

    Raises:
        InputError: an unknown name, or an option that it does not take or that is of the wrong type.
    """
    return build_stepper(choice_with(steppers(), name, options, "stepper"))
