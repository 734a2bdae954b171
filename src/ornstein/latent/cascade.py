"""Cascades: a coarse picture first, then one with sides twice as long given it, and so on.

The coarse picture c has the means of squares of 2^d pixels of the fine picture x, so p(x) = p(c) p(x given c): a base
model draws c, a stage of super-resolution draws x. Each is an ordinary denoiser trained with the ordinary objective,
all in one network and one run (Ho et al. 2022, 2106.15282). Small networks learn each factor better than the whole, and
the coarse pictures cost little, having fewer pixels.

*Noise on the coarse picture.* In training a stage sees the coarse picture of data, in drawing that of the stage before,
whose faults it has never seen and would add to. So in training that picture is noised, c + s u eps with s drawn evenly
from 0 to `augmentation`, u the data's unit, and the stage is told s. Drawing adds noise of the level `level`: with more
of it, the stage corrects more faults of the stage before and keeps less of its picture. At any level the distribution
is exact if the stages are, since the stage draws p(x given c + s u eps), and that is what it is given.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Around, Denoiser, NetDenoiser
from ornstein.core.drive import other_seeds, sample_seeds, trajectory
from ornstein.core.learner import JUDGED_BY, Judgement, Learner, mean_of
from ornstein.core.numerics import normal
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import State
from ornstein.errors import InputError, must_be_whole
from ornstein.nets import Number, Picture

#: the parts that a stage is given beside the condition: the coarse picture, and how noisy it is
COARSE, NOISE = "coarse", "coarse.noise"
#: counters of `normal` and `uniform` for the noise of a coarse picture, and for the seeds of a stage
_NOISED, _SEEDS = 2**33, 2**34
_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def halved(x: Tensor, times: int = 1) -> Tensor:
    """Means of squares with sides of 2^times positions, (B, C, *space) -> (B, C, *space / 2^times)."""
    return _POOL[x.ndim - 2](x, 2**times) if times else x


def repeated(x: Tensor, space: tuple[int, ...]) -> Tensor:
    """(B, C, *coarse) -> (B, C, *space), each value repeated over the square that it is the mean of."""
    return x if tuple(x.shape[2:]) == tuple(space) else F.interpolate(x, size=space, mode="nearest")


def noise_levels(x: Tensor, most: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A level of noise for each sample x (B, ...), even from 0 to `most`, and a seed of that noise: (B,) each."""
    n, device = len(x), generator.device
    level = most * torch.rand(n, generator=generator, device=device).to(x)
    return level, torch.randint(2**62, (n,), generator=generator, device=device).to(x.device)


def with_noise(x: Tensor, sigma: Tensor, seeds: Tensor, counter: int) -> Tensor:
    """Samples x (B, ...) with noise of deviations sigma (B,), each by its seed (B,) and the counter."""
    eps = normal(seeds, tuple(x.shape[1:]), counter).to(x)
    return x + sigma.reshape(-1, *[1] * (x.ndim - 1)) * eps


@dataclass(frozen=True, eq=False)
class Told(Around):
    """A denoiser that is always given some parts of a condition, whatever else it is given.

    Args:
        base: the denoiser.
        parts: name -> tensor, a row for each sample of a call; repeated if a call has the samples several times over.
    """

    parts: Mapping[str, Tensor]

    @property
    def process(self) -> Any:  # type: ignore[override]
        return self.base.process

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        always = Condition(self.parts)
        # guidance calls it with all rows twice, with the condition and without it, in one call
        always = always.repeat(len(x) // (always.rows or 1))
        return self.base.predict(x, level, Condition({**condition.parts, **always.parts}))


@dataclass(frozen=True, eq=False)
class Cascade:
    """Denoisers on one clock, the coarsest first; each of the others is given `COARSE` and `NOISE`.

    Args:
        stages: each with sides twice as long as those before.
        augmentation: the greatest level of noise that the stages were trained on.
        guide: makes a guided denoiser of each stage, given its number, when it is called; None for none.
    """

    stages: tuple[Denoiser, ...]
    augmentation: float = 0.0
    guide: Callable[[Denoiser, int], Denoiser] | None = None

    @property
    def process(self) -> Any:
        """The clock of all stages."""
        return self.stages[0].process

    @property
    def device(self) -> torch.device:
        return self.stages[0].device

    @property
    def sigma_data(self) -> float:
        return self.stages[-1].sigma_data

    @property
    def unit(self) -> float:
        """The unit of noise."""
        return self.stages[-1].unit

    def __call__(self, x: Tensor, t: "float | Tensor", condition: Given = None) -> Prediction:
        """The last stage's answer about x (B, C, *space) at time t, like that of a denoiser."""
        return self.predict(x, self.process.at(t, like=x), Condition.of(condition).matches(len(x), "x"))

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        """The last stage's answer about a picture at one level; each stage is called once."""
        count = len(self.stages)
        found = self.stages[0].predict(halved(x, count - 1), level, condition)
        for stage in range(1, count):
            coarser = halved(x, count - stage)
            given = self.given(stage, coarser, torch.zeros(len(x), device=x.device))
            found = given.predict(halved(x, count - 1 - stage), level, condition)
        return found

    def given(self, stage: int, coarse: Tensor, level: Tensor) -> Denoiser:
        """A stage after the first, given a coarse picture that already has noise of a level, (B,)."""
        share = level / self.augmentation if self.augmentation else torch.zeros_like(level)
        # of unit variance when levels are evenly spread
        told = (math.sqrt(3) * (2 * share - 1)).to(coarse)
        return self._guided(Told(self.stages[stage], {COARSE: coarse, NOISE: told}), stage)

    @property
    def base(self) -> Denoiser:
        """The first stage."""
        return self._guided(self.stages[0], 0)

    def _guided(self, denoiser: Denoiser, stage: int) -> Denoiser:
        return denoiser if self.guide is None else self.guide(denoiser, stage)

    def each(self, wrapped: Callable[[Denoiser], Denoiser]) -> "Cascade":
        """The same cascade with each stage wrapped, before it is guided."""
        return replace(self, stages=tuple(wrapped(stage) for stage in self.stages))

    def around(self, wrapped: Callable[[Denoiser, int], Denoiser]) -> "Cascade":
        """The same cascade with each stage wrapped as it is guided, given it and how often its sides are halved."""
        last = len(self.stages) - 1
        return replace(self, guide=lambda denoiser, stage: wrapped(self._guided(denoiser, stage), last - stage))


class StagesNet(nn.Module):
    """Several networks, as the stages of a cascade, the coarsest first; called with the number of one."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, stage: int, *given: Any) -> Any:
        return self.stages[stage](*given)


class OneOf(nn.Module):
    """One of the networks as a network of its own, called through the whole, which may be wrapped."""

    def __init__(self, net: nn.Module, stage: int) -> None:
        super().__init__()
        self.net, self.stage = net, stage

    def forward(self, *given: Any) -> Any:
        return self.net(self.stage, *given)


@dataclass(frozen=True, eq=False)
class Cascading(Learner):
    """A coarse picture first, then finer ones given it: a cascade of denoisers (Ho et al. 2022).

    Args:
        problem: the problem that all stages solve, each at its own size.
        stages: number of stages, each with sides twice as long as those before; 1 for a plain denoiser.
        augmentation: the greatest noise ratio sigma/alpha of the coarse picture in training.
        level: that of the coarse picture when drawing, at most `augmentation`.

    Raises:
        InputError: data whose sides cannot be halved so often; settings out of range.
    """

    stages: int = 2
    augmentation: float = 0.5
    level: float = 0.1

    walks: ClassVar[bool] = False
    instead: ClassVar[str] = "by several walks, stage by stage, for which there is sample"

    def __post_init__(self) -> None:
        must_be_whole("learner.stages", self.stages, 1, 6)
        if not 0 <= self.augmentation < 100 or not 0 <= self.level <= self.augmentation:
            raise InputError(
                f"learner.level={self.level!r} must be a noise ratio from 0 to learner.augmentation="
                f"{self.augmentation!r}, which is below 100."
            )
        shape, problem = self.problem.shape, self.problem
        if problem.categories is not None or problem.gaps or problem.far is not None or len(shape) < 2:
            raise InputError("learner='cascade' takes complete signals, pictures or volumes; these data are others.")
        if any(size % 2 ** (self.stages - 1) for size in shape[1:]):
            raise InputError(
                f"learner.stages={self.stages} halves the sides {self.stages - 1} times, which those of "
                f"{'x'.join(map(str, shape[1:]))} do not bear."
            )
        for name in (COARSE, NOISE):
            if name in problem.conditions:
                raise InputError(f"data.condition={name!r} is what the stages of a cascade are told; rename it.")

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return False

    @classmethod
    def explained(cls, settings: Mapping[str, Any], shape: tuple[int, ...]) -> str:
        count = settings["stages"]
        sizes = ("x".join(str(size // 2 ** (count - 1 - stage)) for size in shape[1:]) for stage in range(count))
        return (
            f"{', then '.join(sizes)}, each by a network of its own; what is coarse was noised up to "
            f"{settings['augmentation']:g} in training, and is by {settings['level']:g} in drawing"
        )

    def shape_of(self, stage: int) -> tuple[int, ...]:
        """The shape of a sample of a stage, the coarsest being 0."""
        channels, *space = self.problem.shape
        return (channels, *(size // 2 ** (self.stages - 1 - stage) for size in space))

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        return StagesNet([build(self.shape_of(stage), self._told(stage)) for stage in range(self.stages)])

    def _told(self, stage: int) -> Mapping[str, Any]:
        """The parts of the condition that a stage's network is given."""
        if not stage:
            return self.problem.conditions
        channels, *space = self.shape_of(stage - 1)
        return {**self.problem.conditions, COARSE: Picture(channels, tuple(space)), NOISE: Number()}

    def model(self, net: nn.Module) -> Cascade:
        problem = self.problem
        stages = (
            NetDenoiser(
                OneOf(net, stage),
                problem.process,
                problem.predicts,
                problem.sigma_data,
                noise_unit=problem.noise_unit,
            )
            for stage in range(self.stages)
        )
        return Cascade(tuple(stages), self.augmentation)

    @property
    def asks(self) -> int:
        return self.stages

    @property
    def halvings(self) -> tuple[int, ...]:
        return tuple(range(self.stages))[::-1]

    def around(self, model: Cascade, wrapped: Callable[[Denoiser, int], Denoiser]) -> Cascade:
        return model.around(wrapped)

    @property
    def narrow(self) -> bool:
        return True

    def in_precision(self, model: Cascade, precision: torch.dtype | None) -> Cascade:
        return model.each(lambda stage: super(Cascading, self).in_precision(stage, precision))

    def loss(
        self, model: Cascade, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        """The mean of the stages' losses, (B,), each with noise of its own."""
        losses = [self.problem.objective(model.stages[0], halved(x0, self.stages - 1), condition, generator)]
        for stage in range(1, self.stages):
            fine = halved(x0, self.stages - 1 - stage)
            level, seeds = noise_levels(x0, self.augmentation, generator)
            given = model.given(stage, self._noised(halved(fine), level, seeds, stage), level)
            losses.append(self.problem.objective(given, fine, condition, generator))
        return torch.stack(losses).mean(0)

    def _noised(self, coarse: Tensor, level: Tensor, seeds: Tensor, stage: int) -> Tensor:
        """A coarse picture with noise of a level, (B,), in units of the data's unit."""
        return with_noise(coarse, self.problem.unit * level, seeds, _NOISED + stage)

    def times(self, n: int, generator: torch.Generator) -> Tensor | None:
        return None  # each stage has others

    def trajectory(
        self,
        model: Cascade,
        rows: int,
        stepper: Any,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        *,
        condition: Given = None,
        seeds: "Sequence[int] | Tensor | None" = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        """From noise to coarse pictures, and from these to finer ones; the stages share the steps.

        Coarse pictures are shown at the size of the fine one, their values repeated.
        """
        steps = self.steps if steps is None else steps
        if grid is not None and not isinstance(grid, str):
            raise InputError("the stages of a cascade share its steps out, so that times do not fit: name a grid.")
        if "x" in options:
            raise InputError("a cascade begins from noise of several sizes, and takes no x.")
        if steps < self.stages:
            raise InputError(f"steps={steps} must be {self.stages} or more: one for each stage of the cascade.")
        keys = sample_seeds(rows, seed, seeds, generator)
        condition = Condition.of(condition).matches(rows, "n")
        shares = [steps // self.stages + (stage < steps % self.stages) for stage in range(self.stages)]

        def begun(stage: int, coarse: Tensor | None) -> Iterator[State[Tensor]]:
            denoiser, own = model.base, keys
            if coarse is not None:
                level = torch.full((rows,), self.level, device=coarse.device, dtype=coarse.dtype)
                noisy = self._noised(coarse, level, keys.to(coarse.device), stage)
                denoiser = model.given(stage, noisy, level)
                own = other_seeds(keys, _SEEDS + stage)
            shape = (rows, *self.shape_of(stage))
            how = {"steps": shares[stage], "grid": grid, "condition": condition, "seeds": own, **options}
            return trajectory(denoiser, shape, stepper, **how)

        return self._in_a_row(begun, begun(0, None), shares)  # refuses now what does not fit

    def _in_a_row(
        self, begun: Callable[[int, Tensor | None], Iterator[State[Tensor]]], first: Iterator[State[Tensor]],
        shares: Sequence[int],
    ) -> Iterator[State[Tensor]]:  # fmt: skip
        space, done, calls, states = self.problem.shape[1:], 0, 0, first
        for stage, share in enumerate(shares):
            for state in states:
                if stage and not state.step:
                    continue  # noise again, where the picture before is already shown
                x, x0 = (repeated(each, space) for each in (state.x, state.x0))
                yield State(done + state.step, state.t, x, x0, calls + state.calls)
            done, calls = done + share, calls + state.calls
            if stage + 1 < len(shares):
                states = begun(stage + 1, state.x)

    @torch.no_grad()
    def judge(self, model: Cascade, x0: Tensor, condition: Given) -> Judgement:
        """The mean of the stages' judgements; those of super-resolution are given clean coarse data."""
        x0, found = x0.to(model.device), []
        condition = Condition.of(condition).to(model.device)
        for stage in range(self.stages):
            fine = halved(x0, self.stages - 1 - stage)
            if stage:
                few = fine[:JUDGED_BY]
                given: Denoiser = model.given(stage, halved(few), torch.zeros(len(few), device=few.device))
            else:
                given = model.stages[0]
            found.append(super().judge(given, fine, condition))
        return mean_of(found)
