"""Denoisers as what runs learn: the posterior mean by one network or several, with a variance or without."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.denoiser import SEEN, NetDenoiser
from ornstein.core.experts import Experts, check_cuts
from ornstein.core.learner import Learner
from ornstein.core.prediction import OF_THE_NOISE
from ornstein.errors import InputError
from ornstein.nets import Picture
from ornstein.objectives import OBJECTIVES

#: sigma/alpha up to which x0 can be had from the noise; DDPM's linear betas end at 157
_NOISIEST = 1000.0
#: what `predicts` may say of a denoiser's network
READINGS = {
    "x0": "The clean data.",
    "eps": "The noise (Ho et al. 2020).",
    "score": "The score, grad log q(x_t) (Song & Ermon 2019).",
    "v": "The velocity on the circle of signal and noise, v = alpha eps - sigma x0 (Salimans & Ho 2022).",
    "velocity": "The drift of the probability-flow ODE, which is the field of flow matching (Lipman et al. 2023).",
    "edm": "EDM's preconditioned output, of unit variance at every level (Karras et al. 2022).",
}


@dataclass(frozen=True, eq=False)
class Denoising(Learner):
    """The posterior mean E[x_0 given x_t], by a network that outputs one of its readings."""

    readings: ClassVar[Mapping[str, str]] = READINGS
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = OBJECTIVES
    teaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        problem = self.problem
        ends_at = float(problem.process.at(problem.process.t_max).noise_ratio)
        if problem.predicts in OF_THE_NOISE and ends_at > _NOISIEST:
            raise InputError(
                f"predicts={problem.predicts!r} does not go with {problem.process}, which ends at sigma/alpha = "
                f"{ends_at:.3g}: x0 would have the network's errors times that; predict v, x0, velocity or edm."
            )
        object.__setattr__(self, "problem", on_the_datas_levels(problem))

    def model(self, net: nn.Module) -> NetDenoiser:
        problem = self.problem
        return NetDenoiser(
            net,
            problem.process,
            problem.predicts,
            problem.sigma_data,
            self.out_multiple == 2,
            noise_unit=problem.noise_unit,
            gaps=problem.gaps,
        )

    @property
    def gaps(self) -> bool:
        return bool(getattr(self.problem.objective, "gaps", False))

    @property
    def told(self) -> Mapping[str, Any]:
        if not self.problem.gaps:
            return self.problem.conditions
        return {**self.problem.conditions, SEEN: Picture(self.problem.shape[0], self.problem.shape[1:])}

    @property
    def narrow(self) -> bool:
        return True


@dataclass(frozen=True, eq=False)
class LearnedVariance(Denoising):
    """The posterior mean and the variance of the reverse step, in as many channels again (Nichol & Dhariwal 2021)."""

    teaches: ClassVar[bool] = False

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return super().implied(predicts, objective) and getattr(objective, "learns_variance", False)

    @property
    def out_multiple(self) -> int:
        return 2


@dataclass(frozen=True, eq=False)
class NoiseExperts(Denoising):
    """The posterior mean by several networks, each for its own range of noise levels (eDiff-I; Balaji et al. 2022).

    They have the same shape, and start as copies of the network of the run that this one starts from (`--from`), if
    any.

    Args:
        cuts: the bounds between their ranges, rising, in log(sigma/(alpha sigma_data)).
    """

    cuts: tuple[float, ...] = (-0.7, 0.7)

    teaches: ClassVar[bool] = False

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return False

    @classmethod
    def explained(cls, settings: Mapping[str, Any], shape: tuple[int, ...]) -> str:
        cuts = [f"{math.exp(cut):.3g}" for cut in settings["cuts"]]
        return f"{len(cuts) + 1} networks, each of an interval of sigma/(alpha sigma_data), cut at {', '.join(cuts)}"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cuts(self.cuts)
        if getattr(self.problem.objective, "learns_variance", False):
            raise InputError(f"objective={self.problem.taught_by!r} learns a variance, which experts do not.")

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        return nn.ModuleList(super(NoiseExperts, self).network(build, seed) for _ in range(len(self.cuts) + 1))

    def begin(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        if weights.keys() == net.state_dict().keys():
            super().begin(net, weights)
            return
        assert isinstance(net, nn.ModuleList)  # of `network`
        for expert in net:
            super().begin(expert, weights)

    def model(self, net: nn.Module) -> Experts:  # type: ignore[override]
        assert isinstance(net, nn.ModuleList)  # of `network`
        return Experts(tuple(super(NoiseExperts, self).model(expert) for expert in net), self.cuts)

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        if not isinstance(model, Experts):
            return model
        return dataclasses.replace(
            model, each=tuple(super(NoiseExperts, self).in_precision(one, precision) for one in model.each)
        )


def on_the_datas_levels(problem: Any) -> Any:
    """The problem with an objective that leaves its number of levels to the data, by a 0, given those."""
    if problem.levels is None or getattr(problem.objective, "levels", None) != 0:
        return problem
    return dataclasses.replace(problem, objective=dataclasses.replace(problem.objective, levels=problem.levels))
