"""The kinds of model that a run can learn, each a line of `LEARNERS`; the contract is in `ornstein.core.learner`.

An experiment that names none means the first that its `predicts` and its objective imply. So `predicts=energy`
learns an energy, `objective=hybrid` a variance too, `objective=classifier` a classifier of noisy data for guidance.
"""

import dataclasses
import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.bridge import Bridging
from ornstein.core.condition import Condition, Given
from ornstein.core.gaps import GIVEN, Filled, apart, some_known, told
from ornstein.core.learner import Judgement, Learner, Measure, Problem, noised_alike, with_shares
from ornstein.discrete import MaskedColumns, Read, Sequences, TokenClasses
from ornstein.energies import ENERGY_OBJECTIVES, EnergyDenoiser
from ornstein.errors import InputError
from ornstein.experiment.denoising import READINGS, LearnedVariance, NoiseExperts, on_the_datas_levels
from ornstein.experiment.denoising import Denoising as Denoising
from ornstein.experiment.taught import Student
from ornstein.guidance import ClassifierFree, NoisyClassifier, NoisyCrossEntropy
from ornstein.latent import Autoencoding, Cascade, Cascading
from ornstein.mixed import Mixed, PriorAndDecoder, PriorDecoding
from ornstein.nets import NETS, Picture
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import STEPPERS

#: held-out examples that a classifier is judged by
_JUDGED_BY = 1000


@dataclass(frozen=True, eq=False)
class Filling(Denoising):
    """The posterior mean given clean values of some cells: a model that draws rows, and fills rows that have holes.

    In training each row is given some of its own cells, at random (`ornstein.core.gaps.some_known`), and the loss
    counts the others; so one network serves p(x) and p(x given any of its cells) without guidance (Tashiro et al. 2021,
    2107.03502). For series it learns how far the others lie from the value predicted by the nearest known ones, in
    units of its uncertainty (`ornstein.core.nearest`).
    """

    teaches: ClassVar[bool] = False

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gaps:
            raise InputError(
                f"objective={self.problem.taught_by!r} does not go with learner='filling', which leaves cells out; "
                "take v, edm, flow or another regression."
            )
        object.__setattr__(self, "problem", dataclasses.replace(self.problem, gaps=True))

    @property
    def told(self) -> Mapping[str, Any]:
        channels, *space = self.problem.shape
        return {**super().told, GIVEN: Picture(2 * channels, tuple(space))}

    def model(self, net: nn.Module) -> Filled:  # type: ignore[override]
        return Filled(super().model(net))

    def loss(
        self, model: Any, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        known = some_known(len(x0), tuple(x0.shape[1:]), generator).to(x0.device) & ~x0.isnan()
        given = told(x0, known, self.problem.correlation)
        also = Condition({**Condition.of(condition).parts, GIVEN: given})
        return super().loss(model, apart(x0, given), also, generator, memory)

    def times(self, n: int, generator: torch.Generator) -> Tensor | None:
        some_known(n, self.problem.shape, generator)  # drawn first
        return super().times(n, generator)

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        if not isinstance(model, Filled):
            return model
        return dataclasses.replace(model, base=super().in_precision(model.base, precision))


def each_stage_guided(
    base: Cascade, scale: float = 2.0, interval: tuple[float, float] | None = None, rescale: float = 0.0
) -> Cascade:
    """Classifier-free guidance of each stage of a cascade, which keeps what it is given of the coarse picture."""
    ClassifierFree(base.stages[0], scale, interval, rescale)  # which refuses numbers out of range
    return base.around(lambda stage, _: ClassifierFree(stage, scale, interval, rescale))


@dataclass(frozen=True, eq=False)
class Staged(Cascading):
    """A coarse picture first, then finer ones given it: a cascade of denoisers (Ho et al. 2022).

    Args:
        stages: how many stages, each with twice the sides of the one before; 1 for a plain denoiser.
        augmentation: the greatest noise ratio sigma/alpha of the coarse picture in training.
        level: the noise ratio of the coarse picture in drawing, at most `augmentation`.
    """

    readings: ClassVar[Mapping[str, str]] = READINGS
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = OBJECTIVES
    guidance: ClassVar[Mapping[str, Callable[..., Any]]] = {"classifier-free": each_stage_guided}

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be_a_regression(self.problem, "the stages of a cascade")


def both_guided(
    base: PriorAndDecoder, scale: float = 2.0, interval: tuple[float, float] | None = None, rescale: float = 0.0
) -> PriorAndDecoder:
    """Classifier-free guidance of a prior and of its decoder, each away from what it draws told nothing."""
    ClassifierFree(base.decoder, scale, interval, rescale)  # which refuses numbers out of range
    return dataclasses.replace(base, guide=lambda one: ClassifierFree(one, scale, interval, rescale))


@dataclass(frozen=True, eq=False)
class Prior(PriorDecoding):
    """An embedding first, then the picture given it: a prior and a decoder (DALL-E 2; Ramesh et al. 2022).

    The decoder begins as the model of the run that this one begins with (`--from`), if any.

    Args:
        embedding: how many numbers an embedding has.
        prior_steps: of the prior, whose network is small; the decoder takes those of the drawing.
        width, depth: of the prior's network, a residual perceptron.
        channels: of the finest level of the network that embeds pictures.
        silent: share of the rows whose decoder is not told the condition beside the embedding.
        noise: the greatest noise ratio sigma/alpha of pictures that the embedding is learned of.
    """

    readings: ClassVar[Mapping[str, str]] = READINGS
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = OBJECTIVES
    guidance: ClassVar[Mapping[str, Callable[..., Any]]] = {"classifier-free": both_guided}

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be_a_regression(self.problem, "a prior and its decoder")


def must_be_a_regression(problem: Problem, what: str) -> None:
    """Refuse objectives and readings that do not teach several plain denoisers side by side."""
    if not getattr(problem.objective, "gaps", False):
        raise InputError(
            f"objective={problem.taught_by!r} does not teach {what}; take v, edm, flow or another regression."
        )
    Denoising(problem)  # which refuses what x0 cannot be had from


@dataclass(frozen=True, eq=False)
class Energy(Learner):
    """An energy whose gradient is the score: a density up to its constant (LeCun et al. 2006)."""

    readings: ClassVar[Mapping[str, str]] = {
        "energy": "An energy, minus the log density up to a constant, whose gradient is the score (LeCun et al. 2006)."
    }
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = ChainMap(ENERGY_OBJECTIVES, OBJECTIVES)

    def __post_init__(self) -> None:
        if getattr(self.problem.objective, "learns_variance", False):
            raise InputError(f"objective={self.problem.taught_by!r} learns a variance, which predicts=energy has not.")
        object.__setattr__(self, "problem", on_the_datas_levels(self.problem))

    def model(self, net: nn.Module) -> EnergyDenoiser:
        return EnergyDenoiser(net, self.problem.process, self.problem.sigma_data, self.problem.noise_unit)

    @property
    def twice(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class Classifier(Learner):
    """The class of noisy data, at every level: not a model of the data, but one that can guide another."""

    readings: ClassVar[Mapping[str, str]] = READINGS  # of which it makes nothing
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = {"classifier": NoisyCrossEntropy}
    draws: ClassVar[bool] = False
    then: ClassVar[str] = "ornstein sample RUN --guidance classifier --guide {run}"
    judges: ClassVar[Measure] = Measure(
        "accuracy-by-noise", "share told right", "the commonest class", "the classes' shares", share=True
    )

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return isinstance(objective, NoisyCrossEntropy)

    @classmethod
    def completed(cls, objective: Mapping[str, Any], shares: tuple[float, ...], data: str) -> Mapping[str, Any]:
        return with_shares(objective, shares, data)

    @property
    def out_multiple(self) -> int:
        return NoisyClassifier.out_multiple(self.problem.shape, self.problem.classes)

    @property
    def told(self) -> Mapping[str, Any]:
        return {}

    def model(self, net: nn.Module) -> NoisyClassifier:
        problem = self.problem
        return NoisyClassifier(net, problem.process, self._shares, problem.sigma_data, problem.noise_unit)

    @property
    def _shares(self) -> tuple[float, ...]:
        taught = self.problem.objective
        assert isinstance(taught, NoisyCrossEntropy)  # no other is named in `objectives`
        return taught.shares

    @torch.no_grad()
    def judge(self, model: NoisyClassifier, x0: Tensor, condition: Given) -> Judgement:
        """Its cross-entropy relative to that of knowing the shares alone; `found` is the share classified correctly."""
        device = next(model.net.parameters()).device
        labels = Condition.of(condition).parts["label"]
        told = (labels >= 0).nonzero().flatten()[:_JUDGED_BY]  # of the rest nobody knows what is right
        x0, labels = x0[told].to(device), labels[told].to(device)
        ratios, accuracies, losses = [], [], []
        for level, noisy in noised_alike(model, x0):
            found = model.log_probs(noisy, level)
            losses.append(-float(found.gather(1, labels[:, None]).mean()))
            accuracies.append(float((found.argmax(1) == labels).float().mean()))
            ratios.append(float(level.noise_ratio))
        known = -sum(share * math.log(share) for share in self._shares)
        return Judgement(sum(losses) / len(losses) / known, ratios, accuracies, [max(self._shares)] * len(ratios))


#: every kind of model; the first that is implied is meant where none is named, so the most general comes last
LEARNERS: dict[str, type[Learner]] = {
    "classifier": Classifier,
    "masked": MaskedColumns,
    "token-classes": TokenClasses,
    "read-tokens": Read,
    "tokens": Sequences,
    "bridge": Bridging,
    "mixed": Mixed,
    "codec": Autoencoding,
    "energy": Energy,
    "variance": LearnedVariance,
    "filling": Filling,
    "student": Student,
    "experts": NoiseExperts,
    "cascade": Staged,
    "prior": Prior,
    "denoiser": Denoising,
}


def steppers_of(entry: Learner | type[Learner]) -> Mapping[str, Callable[..., Any]]:
    """The steppers of a kind of model, by name."""
    return entry.steppers or STEPPERS


def nets_of(entry: Learner | type[Learner]) -> Mapping[str, Callable[..., Any]]:
    """The networks that a kind of model can be made of, by name."""
    return entry.nets or NETS


def objectives() -> dict[str, Callable[..., Any]]:
    """Every objective by name: those of each learner."""
    return {name: entry for learner in reversed(LEARNERS.values()) for name, entry in learner.objectives.items()}


def steppers() -> dict[str, Callable[..., Any]]:
    """Every stepper by name: those of each learner."""
    return {name: entry for learner in reversed(LEARNERS.values()) for name, entry in steppers_of(learner).items()}


def nets() -> dict[str, Callable[..., Any]]:
    """Every network by name: those of each learner."""
    return {name: entry for learner in reversed(LEARNERS.values()) for name, entry in nets_of(learner).items()}


def readings() -> dict[str, str]:
    """The values of `predicts`, and what they mean: the readings of each learner."""
    return {name: line for learner in reversed(LEARNERS.values()) for name, line in learner.readings.items()}
