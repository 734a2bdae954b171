"""Score distillation: a picture, a drawing or a solid, optimised until a denoiser finds nothing to correct in it.

A sampler walks x itself. Often x is only the *render* x = g(parameters) of what is wanted: strokes on paper, a volume
seen from some side. The denoiser then trains the parameters through g, which only has to be differentiable. Add noise
to a render, ask the denoiser, and move towards its answer:

    gradient by x  =  W(t) (E_own[x_0 given x_t] - E_model[x_0 given x_t]),      x_t = alpha x + sigma eps,

carried to the parameters by dx/d(parameters). Let mu be the distribution of the renders, mu_t and p_t that distribution
and the model's data noised to level t, and E_own the posterior mean under mu. Then this is the gradient of

    E_t[ lambda(t) KL(mu_t || p_t) ],      lambda = W sigma^2 / alpha^2.

For the score of mu_t is (alpha E_own - x_t)/sigma^2, and that of p_t the same with E_model. Differentiate the KL along
x_t: alpha times the difference of the scores remains, as the term in which the density itself changes has mean zero. So
one formula serves all methods, which differ in what they assume about the renders, a `Law`:

    law        E_own                            from
    point      x: each render is a point        SDS, Poole et al. 2022 (2209.14988)
    gaussian   x + k sigma eps                  the same with a control variate, see below
    particles  softmax of distances to all x    VSD with its distribution in closed form
    learned    that of a network trained on x   VSD, Wang et al. 2023 (2305.16213)

**A point seeks a mode.** (alpha/sigma) (x - x0) is eps_hat - eps, so the first line is SDS as it is written elsewhere.
One render is always a point, and KL(mu_t || p_t) is then -E log p_t(x_t) plus a constant: x goes to the mode of p
noised twice. On N(m, C) that is m, at every level, whatever C is. If the assumed distribution knows how the renders
spread, the KL has its minimum where they spread as the data do.

**Less noise, same mean.** eps has mean zero, so any multiple of it may be added (Stein's identity with a constant
baseline; Wang et al. 2024, 2401.00604, treat the others). With s the standard deviation of the data, k = alpha
s^2/(alpha^2 s^2 + sigma^2) is E_model's own response to a change of x_t where the data are N(m, s^2 I): there the noise
cancels entirely.

**Guidance** acts as a denoiser: at scale w the score of p_t is (1 - w) free + w given. If both are Gaussian, and the
data have variances v_free and v_given and the means 0 and m, a point is driven to

    x = w m/V_given / (w/V_given - (w - 1)/V_free),      V = alpha^2 v + sigma^2.

Where the noise is large both V are alike, and x = w m: the colours that score distillation exaggerates are w times
their distance from the mean of all data. As the noise falls they return, to m/(1 - v_given/v_free) at most.

**Levels that fall, noise that stays.** Hold eps fixed and let t fall; plain descent of x by 1 - q_s/q_t, with q =
sigma/alpha and W = 1, then *is* DDIM: x + q eps is its state over alpha. So score distillation becomes the
probability-flow ODE seen through g (flow score distillation, Yan et al. 2024, 2405.10988), and ends at a sample, not a
mode. With falling levels and fresh noise it ends at a mode again, coarse before fine (DreamTime, Huang et al. 2023,
2306.12422). Under a learned law nothing else takes the noise of the steps away: E_own follows x only as fast as the
network learns, so a render wanders, and at levels drawn anew it ends covered with grain. Wang et al. lower the greatest
level half way; here it falls all along.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Around, Denoiser, FunctionDenoiser, NetDenoiser
from ornstein.core.exact import Empirical
from ornstein.core.grids import MOST_STEPS, ends
from ornstein.core.numerics import noise_like, strata
from ornstein.core.process import Level
from ornstein.errors import InputError, lookup, must_be_whole
from ornstein.objectives import Objective
from ornstein.objectives.regression import edm
from ornstein.optimisers import eager

#: the default range of noise: q = sigma/(alpha sigma_data), the least and the most
NOISE = (0.05, 20.0)
#: W(t) as a function of q = sigma/(alpha sigma_data)
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sds": lambda q: q / (1 + q * q),  # sigma^2 on eps_hat - eps, as in DreamFusion, on a clock of variance one
    "eps": lambda q: 1 / q,
    "x0": torch.ones_like,
    "kl": lambda q: 1 / (q * q),  # lambda = sigma_data^2 at all levels
}


class Law(ABC):
    """What is assumed about the renders: `(x, condition, generator) -> a denoiser`, their E[x_0 given x_t].

    Args:
        denoiser: the model that judges the renders.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser

    @abstractmethod
    def __call__(self, x: Tensor, condition: Condition, generator: Generator) -> Denoiser:
        """The denoiser of the renders x (B, ...), called with their own x_t, row by row, without gradients."""


@final
class Point(Law):
    """Each render is a known point: score distillation sampling (Poole et al. 2022, 2209.14988)."""

    def __call__(self, x: Tensor, condition: Condition, generator: Generator) -> Denoiser:
        return FunctionDenoiser(lambda xt, level, given: x, self.denoiser.process, self.denoiser.sigma_data)


@final
class Spread(Law):
    """N(x, sigma_data^2 I) about each render: the mean gradient of a point, with less noise (see the module)."""

    def __call__(self, x: Tensor, condition: Condition, generator: Generator) -> Denoiser:
        unit = self.denoiser.sigma_data

        def mean(xt: Tensor, level: Level, given: Condition) -> Tensor:
            k = level.alpha * unit**2 / ((level.alpha * unit) ** 2 + level.sigma * level.sigma)
            return x + k * (xt - level.alpha * x)

        return FunctionDenoiser(mean, self.denoiser.process, unit)


@final
class Particles(Law):
    """The renders of a batch with equal conditions are all that there are, equally likely: exact for particles.

    Particles as far apart as pictures are affect each other only where the noise is large.
    """

    def __call__(self, x: Tensor, condition: Condition, generator: Generator) -> Denoiser:
        asked = [part.double().nan_to_num(nan=math.pi).flatten(1) for part in _columns(condition)]
        alike = torch.cat(asked, 1).unique(dim=0, return_inverse=True)[1] if asked else None
        law = Empirical(x, alike)

        def mean(xt: Tensor, level: Level, given: Condition) -> Tensor:
            return law.posterior_mean(xt, level, alike).to(xt)

        return FunctionDenoiser(mean, self.denoiser.process, self.denoiser.sigma_data)


def _columns(condition: Condition) -> list[Tensor]:
    """The parts of a condition, each with a second axis."""
    return [part[:, None] if part.ndim == 1 else part for part in condition.parts.values()]


@final
class Learned(Law):
    """A copy of the model's network, trained one step on each batch of renders (Wang et al. 2023, 2305.16213).

    It starts as the model, so at first only guidance moves the renders.

    Args:
        denoiser: a network's, guided or not; the copy learns without guidance.
        objective: its loss: `(denoiser, x, condition, generator) -> loss (B,)`.
        lr: of its Adam.

    Raises:
        InputError: a denoiser that is not a network.
    """

    def __init__(self, denoiser: Denoiser, objective: Objective | None = None, lr: float = 1e-3) -> None:
        super().__init__(denoiser)
        while isinstance(denoiser, Around):
            denoiser = denoiser.base
        if not isinstance(denoiser, NetDenoiser):
            raise InputError(
                f"law='learned' teaches a copy of a network, and {type(denoiser).__name__} is none; take 'particles'."
            )
        net = deepcopy(denoiser.net).requires_grad_(True).eval()
        self.copy = replace(denoiser, net=net)
        self.objective: Objective = objective or edm(p_mean=0.0, drop_label=0.0)
        self.optimiser = eager(torch.optim.Adam)(net.parameters(), lr)

    def __call__(self, x: Tensor, condition: Condition, generator: Generator) -> Denoiser:
        with torch.enable_grad():
            loss = self.objective(self.copy, x, condition, generator).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return self.copy if self.copy.process == self.denoiser.process else self.copy.on(self.denoiser.process)


#: what may be assumed about the renders
LAWS: dict[str, Callable[[Denoiser], Law]] = {
    "point": Point,
    "gaussian": Spread,
    "particles": Particles,
    "learned": Learned,
}


@dataclass(frozen=True)
class ScoreDistillation:
    """An objective whose data are renders: `(denoiser, x, own, ...) -> loss (B,)`, with the gradient of the module.

    Args:
        law: a key of `LAWS`.
        weight: a key of `WEIGHTS`: W at a level.
        noise: q = sigma/(alpha sigma_data), the least and the most noise used. Levels are spread evenly in q/(1 + q)
            between them, the time of flow matching whatever the clock, and stay within what the model has learned.
        falls: the level falls from the most to the least as the work goes on; else each step draws it anew.
        held: each render keeps its noise; else each step draws it anew.

    Raises:
        InputError: an unknown law or weight, noise that is not two positive numbers in order.
    """

    law: str = "point"
    weight: str = "sds"
    noise: tuple[float, float] = NOISE
    falls: bool = False
    held: bool = False

    def __post_init__(self) -> None:
        lookup(LAWS, self.law, "law")
        lookup(WEIGHTS, self.weight, "weight")
        if not (len(self.noise) == 2 and 0 < self.noise[0] < self.noise[1] < math.inf):
            raise InputError(f"noise={self.noise!r} must be two positive noise ratios, the smaller first, as 0.05,20.")

    def times(self, denoiser: Denoiser, n: int, generator: Generator, progress: float = 0.0) -> Tensor:
        """The times of n renders, (n,) float64, when a share `progress` in [0, 1] of the work is done."""
        process, unit = denoiser.process, denoiser.unit
        low, high = (q / (1 + q) for q in self.noise)
        if self.falls:
            share = torch.full((n,), 1 - progress, dtype=torch.float64)
        else:  # strata, shifted around, so that no render always has the same one
            share = (strata(n, generator) + torch.rand(1, generator=generator, device=generator.device)) % 1
        u = low + (high - low) * share
        t = process.time(-2 * (unit * u / (1 - u)).log()).clamp(*ends(process, unit))
        return t if process.chain is None else t.round().clamp(min=1)

    @torch.no_grad()
    def pull(
        self, denoiser: Denoiser, own: Denoiser, x: Tensor, level: Level[Tensor], eps: Tensor, condition: Condition
    ) -> Tensor:
        """The gradient by x, (B, ...), at given levels and with given noise."""
        xt = level.noised(x, eps)
        apart = own.predict(xt, level, condition).x0 - denoiser.predict(xt, level, condition).x0
        return WEIGHTS[self.weight](level.noise_ratio / denoiser.unit) * apart

    def __call__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        condition: Given,
        generator: Generator,
        own: Denoiser,
        progress: float = 0.0,
        eps: Tensor | None = None,
    ) -> Tensor:
        """|gradient|^2/2 of each render, (B,); its derivative by x is the gradient itself.

        Args:
            denoiser: the model, guided or not; called without gradients, once for each render.
            x: (B, ...) renders, in model space.
            condition: what each render is to be, with B rows.
            generator: of levels and noise.
            own: the denoiser of the renders, made by a `Law`.
            progress: share of the work done, in [0, 1]; matters where levels fall.
            eps: noise like x; None to draw it.
        """
        seen = x.detach()
        t = self.times(denoiser, len(x), generator, progress)
        level = denoiser.process.at(t.to(x.device), like=seen)
        eps = noise_like(seen, generator) if eps is None else eps
        pull = self.pull(denoiser, own, seen, level, eps, Condition.of(condition))
        return (x - (seen - pull)).square().flatten(1).sum(1) / 2


def sds(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """Each render is a point, at levels drawn anew each step: score distillation sampling (Poole et al. 2022)."""
    return ScoreDistillation("point", "sds", noise)


def annealed(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """SDS at levels that fall, coarse before fine: modes that are easy to recognise (Huang et al. 2023)."""
    return ScoreDistillation("point", "x0", noise, falls=True)


def controlled(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """SDS with a control variate: the same gradient on average, with less noise (after Wang et al. 2024)."""
    return ScoreDistillation("gaussian", "sds", noise)


def flow(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """Levels that fall and noise that stays: the probability-flow ODE, which ends at a sample (Yan et al. 2024)."""
    return ScoreDistillation("point", "x0", noise, falls=True, held=True)


def particles(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """Variational; the renders of a batch are all that there are, so they spread as the data do."""
    return ScoreDistillation("particles", "sds", noise)


def vsd(noise: tuple[float, float] = NOISE) -> ScoreDistillation:
    """Variational; a copy of the network learns the renders as they change, at levels that fall (Wang et al. 2023)."""
    return ScoreDistillation("learned", "x0", noise, falls=True)


#: the methods by their common names
SCORE_DISTILLATIONS: dict[str, Callable[..., ScoreDistillation]] = {
    "annealed": annealed,
    "sds": sds,
    "controlled": controlled,
    "flow": flow,
    "particles": particles,
    "vsd": vsd,
}
#: a rate beyond this is a typing error: parameters are of unit size
_FASTEST = 1000.0

#: what renders parameters: pictures in model space, (B, ...), or these and a condition that says what each is a view of
Render = Callable[[Mapping[str, Tensor], Generator], "Tensor | tuple[Tensor, Condition]"]


class Moment(NamedTuple):
    """Where the work stands: steps made, the last renders (B, ...), and their losses (B,) before that step."""

    step: int
    x: Tensor
    loss: Tensor


def dream(
    denoiser: Denoiser,
    render: Render,
    parameters: Mapping[str, Tensor],
    condition: Given = None,
    *,
    by: ScoreDistillation,
    generator: Generator,
    steps: int = 500,
    lr: float = 0.02,
) -> Iterator[Moment]:
    """Optimise parameters in place until the denoiser finds their renders likely; yields a moment for each step.

    Args:
        denoiser: the model, guided or not.
        render: differentiable; called once a step; it need not know of diffusion.
        parameters: leaves, which Adam changes; its rate falls to zero in a straight line.
        condition: what the renders are to be, with a row for each; parts that `render` returns are added.
        by: the method.
        generator: of views, levels and noise.
        steps: from 1 to 100,000.
        lr: Adam's rate at the start, in the parameters' own units.

    Raises:
        InputError: no steps, or a rate out of range.
    """
    must_be_whole("steps", steps, 1, MOST_STEPS)
    if not 0 < lr <= _FASTEST:
        raise InputError(f"lr={lr!r} must be a positive number, at most {_FASTEST:g}.")
    law, given = LAWS[by.law](denoiser), Condition.of(condition)
    leaves = [leaf.requires_grad_(True) for leaf in parameters.values()]
    optimiser = eager(torch.optim.Adam)(leaves, lr, betas=(0.9, 0.99))
    eps: Tensor | None = None
    for step in range(steps):
        rendered = render(parameters, generator)
        x, seen = rendered if isinstance(rendered, tuple) else (rendered, Condition())
        asked = Condition({**given.parts, **seen.parts}).matches(len(x), "render")
        if by.held and eps is None:
            eps = noise_like(x.detach(), generator)
        own = law(x.detach(), asked, generator)
        loss = by(denoiser, x, asked, generator, own, step / max(1, steps - 1), eps)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        yield Moment(step + 1, x.detach(), loss.detach())
