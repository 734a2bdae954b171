"""Sixteen problems with known ends, on which a default is chosen and judged.

    python benchmarks/problems.py                     # what they are, and how well their ends are known

A problem is a denoiser, some starting noise, and the ends of the probability-flow trajectories from it. Twelve have an
exact denoiser (Gaussian mixtures, and the points of a data set); four have a network that is trained here, in seconds,
whose own trajectories are then the truth. They differ in dimension (1 to 1,024), in how far apart and how narrow their
modes are, in weights, in sigma_data (0.25 to 2.3) and in process. Ten are for choosing. Six are *kept out*: from other
families and seeds, and looked at only after a choice has been made.

The ends come from the classical fourth-order Runge-Kutta rule in log(sigma/alpha), from the first level of the grids
down to 1e-5 sigma_data, where a last call denoises; with a network, down to the lowest level that it was trained on,
0.002 sigma_data.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

import ornstein
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.exact import ExactDenoiser, Gaussian, GaussianMixture, LowRank
from ornstein.core.grids import NOISE_RATIOS, times
from ornstein.core.process import Level, Process
from ornstein.data.dataset import Source
from ornstein.data.standard import Digits
from ornstein.data.toys import Moons, Pinwheel
from ornstein.nets import MLP, UNet
from ornstein.nets.contract import NetConfig
from ornstein.objectives.regression import Regression
from ornstein.samplers import stepper_named

F64 = torch.float64


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(d: int, seed: int, count: int = 5, scale: float = 1.0) -> GaussianMixture:
    """Unequal components with full covariances; their scales run from far below 1 to about 1.4."""
    g = _generator(seed)
    means = 1.2 * torch.randn(count, d, generator=g, dtype=F64)
    factors = 0.7 / math.sqrt(d) * torch.randn(count, d, d, generator=g, dtype=F64)
    weights = torch.arange(count + 1, 1, -1) / (0.5 * count * (count + 3))
    return GaussianMixture(weights, scale * means, scale**2 * factors @ factors.mT)


def graded(d: int, seed: int, count: int, narrowest: float) -> GaussianMixture:
    """Isotropic components, evenly in the logarithm of their width, from `narrowest` to 1."""
    means = 1.2 * torch.randn(count, d, generator=_generator(seed), dtype=F64)
    return GaussianMixture(torch.ones(count), means, torch.logspace(2 * math.log10(narrowest), 0, count, dtype=F64))


def far_apart(d: int, seed: int, count: int, width: float) -> GaussianMixture:
    """Narrow components of very unequal weight, on a sphere of radius 3, all of it scaled to sigma_data = 1."""
    means = torch.randn(count, d, generator=_generator(seed), dtype=F64)
    means = 3 * means / means.norm(dim=1, keepdim=True)
    weights = 0.6 ** torch.arange(count, dtype=F64)
    scale = math.sqrt(d) / 3
    return GaussianMixture(weights, scale * means, torch.full((count,), (scale * width) ** 2, dtype=F64))


def thin(d: int, seed: int, count: int, rank: int, scale: float) -> GaussianMixture:
    """Components that fill a few of many dimensions, as pictures do."""
    g = _generator(seed)
    means = torch.randn(count, d, generator=g, dtype=F64)
    factor = math.sqrt(d / rank) * 0.6 * torch.randn(count, d, rank, generator=g, dtype=F64) / math.sqrt(d)
    rest = torch.full((count,), (0.02 * scale) ** 2, dtype=F64)
    return GaussianMixture(torch.ones(count), 0.6 * scale * means, LowRank(scale * factor, rest))


def spectrum(d: int, scale: float) -> GaussianMixture:
    """One Gaussian whose variances fall as 1/k^2, as the frequencies of natural pictures do."""
    return Gaussian(0.3 * scale * torch.ones(d, dtype=F64), scale**2 * torch.arange(1, d + 1, dtype=F64) ** -2.0)


def heavy_and_light() -> GaussianMixture:
    """A line with one component of 94 % that all but hides two others, one broad and one narrow."""
    return GaussianMixture(torch.tensor([0.94, 0.05, 0.01]), torch.tensor([[0.0], [1.1], [-2.2]], dtype=F64),
                           torch.tensor([0.16, 0.36, 0.0025], dtype=F64))  # fmt: skip


def pictures(count: int, scale: float, blur: float) -> GaussianMixture:
    """Handwritten digits, 64 numbers each: a finite data set, each point blurred a little.

    Without blur a trajectory ends exactly on a point, right or wrong, and errors of zero would be divided by.
    """
    data = Digits().load()
    points = data.transform.forward(data.train[:count]).flatten(1).double()
    return GaussianMixture(torch.ones(count), scale * points, torch.full((count,), (scale * blur) ** 2))


def measurements() -> Tensor:
    """A table: scikit-learn's 569 breast cancer cases, 30 measurements each, in units of their own spread."""
    from sklearn.datasets import load_breast_cancer

    table = torch.from_numpy(load_breast_cancer().data)
    return (table - table.mean(0)) / table.std(0)


def trained(
    data: Tensor, net: NetConfig, process: Process, predicts: str, steps: int, batch: int = 256, seed: int = 0
) -> NetDenoiser:
    """A small network, trained on `data` for some seconds; in float64 afterwards, so that rounding plays no part."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # for the net's weights, which alone have no generator of their own
    module = net.build(tuple(data.shape[1:]))
    torch.set_rng_state(state)
    denoiser = NetDenoiser(module, process, predicts, float(data.square().mean().sqrt()))
    objective, g = Regression(weight=predicts), _generator(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(data), (batch,), generator=g)
        loss = objective(denoiser, data[rows].float(), None, g).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.eval().double()
    return denoiser


def _points(source: Source) -> Tensor:
    data = source.load()
    return data.transform.forward(data.train)


@dataclass(frozen=True)
class Problem:
    """A denoiser and its name; `kept_out` says whether it plays no part in the choice."""

    name: str
    make: Callable[[], Denoiser]
    shape: tuple[int, ...]
    kept_out: bool = False
    count: int = 128


VP, EDM, FLOW, COSINE, VE = ornstein.VP(), ornstein.EDM(), ornstein.Flow(), ornstein.Cosine(), ornstein.VE()

PROBLEMS = (
    Problem("correlated, d = 2", lambda: correlated(2, 0).denoiser(VP), (2,)),
    Problem("correlated, d = 16", lambda: correlated(16, 1).denoiser(FLOW), (16,)),
    Problem("correlated, d = 64", lambda: correlated(64, 2, scale=0.4).denoiser(EDM), (64,), count=48),
    Problem("graded widths, d = 8", lambda: graded(8, 3, 9, 0.01).denoiser(VP), (8,)),
    Problem("far apart, d = 2", lambda: far_apart(2, 4, 4, 0.15).denoiser(COSINE), (2,)),
    Problem("heavy and light, d = 1", lambda: heavy_and_light().denoiser(VE), (1,)),
    Problem("thin, d = 256", lambda: thin(256, 5, 6, 8, 0.3).denoiser(COSINE), (256,), count=48),
    Problem("200 digits, d = 64", lambda: pictures(200, 1.0, 0.1).denoiser(VP), (64,), count=48),
    Problem(
        "network, moons",
        lambda: trained(_points(Moons()), MLP(width=64, depth=2), VP, "v", 1500),
        (2,),
    ),
    Problem(
        "network, a table",
        lambda: trained(measurements(), MLP(width=128, depth=2), EDM, "edm", 1200),
        (30,),
    ),
    Problem("correlated, d = 8", lambda: correlated(8, 11, 7, scale=1.6).denoiser(VE), (8,), kept_out=True),
    Problem("far apart, d = 32", lambda: far_apart(32, 12, 8, 0.3).denoiser(FLOW), (32,), kept_out=True),
    Problem("spectrum, d = 128", lambda: spectrum(128, 5.0).denoiser(EDM), (128,), kept_out=True),
    Problem("thin, d = 1024", lambda: thin(1024, 13, 4, 12, 0.5).denoiser(EDM), (1024,), kept_out=True, count=48),
    Problem(
        "network, pinwheel",
        lambda: trained(_points(Pinwheel()), MLP(width=64, depth=2), COSINE, "x0", 1500, seed=1),
        (2,),
        kept_out=True,
    ),
    Problem(
        "network, digits",
        lambda: trained(
            _points(Digits()), UNet(channels=16, multipliers=(1, 2), blocks=1, attention=()), FLOW, "velocity", 400, 64
        ),
        (1, 8, 8),
        kept_out=True,
        count=32,
    ),
)


class Trajectories:
    """Some trajectories of a problem: their noise at the first level of the grids, and where they end."""

    def __init__(self, problem: Problem, seed: int = 0, steps: int = 400) -> None:
        self.problem, self.steps = problem, steps
        self.denoiser = problem.make()
        self.process, self.unit = self.denoiser.process, self.denoiser.unit
        self.top = self.process.at(float(times(self.process, 1, "flow", self.unit)[0]))
        noise = torch.randn(problem.count, *problem.shape, generator=_generator(1000 + seed), dtype=F64)
        self.x = math.hypot(self.top.alpha * self.denoiser.sigma_data, self.top.sigma) * noise
        self.ends = self._end(steps)

    @cached_property
    def uncertainty(self) -> float:
        """How far the ends are from those of half the steps."""
        return self.error(self._end(self.steps // 2))

    def error(self, found: Tensor) -> float:
        """The mean distance to the ends, the root mean square over a sample's numbers, in units of sigma_data."""
        return ((found - self.ends) / self.unit).flatten(1).square().mean(1).sqrt().mean().item()

    def of(self, stepper: str | ornstein.Stepper, grid: "str | Tensor | None", calls: int) -> float:
        """The error of a method that makes this many calls of the network."""
        made = stepper_named(stepper)
        steps = 1 + (calls - 1) // (made.calls or 1)  # the last step is one call
        with torch.no_grad():
            found = ornstein.sample(
                self.denoiser, self.x.shape, stepper=made, grid=grid, steps=steps, x=self.x, seed=0, dtype=F64
            )
        return self.error(found)

    def answer(self, y: Tensor, ratio: float) -> Tensor:
        """E[x_0 given x_t] at y = x/alpha; beyond the end of the clock the same as at its end."""
        return self._answer(y, self.process.at(self.process.time(-2 * math.log(ratio))))

    def _answer(self, y: Tensor, level: Level) -> Tensor:
        with torch.no_grad():
            return self.denoiser(level.alpha * y, level).x0

    def follow(self, y: Tensor, top: float, bottom: float, steps: int) -> Tensor:
        """y = x/alpha carried along the ODE from one noise ratio to another."""
        # dy/dl = E[x_0] - y in l = -log(sigma/alpha); all levels at once, since each is found by search
        ends = torch.linspace(-math.log(top), -math.log(bottom), 2 * steps + 1, dtype=F64)
        levels, h = self.process.levels(self.process.time(2 * ends)), float(ends[2] - ends[0])
        for first, middle, last in zip(levels[:-2:2], levels[1::2], levels[2::2], strict=True):
            k1 = self._answer(y, first) - y
            k2 = self._answer(z := y + h / 2 * k1, middle) - z
            k3 = self._answer(z := y + h / 2 * k2, middle) - z
            k4 = self._answer(z := y + h * k3, last) - z
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    def _end(self, steps: int) -> Tensor:
        low = (1e-5 if isinstance(self.denoiser, ExactDenoiser) else NOISE_RATIOS[0]) * self.unit
        y = self.follow(self.x / self.top.alpha, float(self.top.noise_ratio), low, steps)
        return self.answer(y, low)


def main() -> None:
    argparse.ArgumentParser(description="The problems that the default is chosen and judged on.").parse_args()
    torch.set_num_threads(1)
    print(f"{'problem':<26}{'process':<12}{'sigma_data':>10}{'uncertainty':>13}")
    for problem in PROBLEMS:
        known = Trajectories(problem)
        kept = "   kept out" if problem.kept_out else ""
        process = type(known.process).__name__
        print(f"{problem.name:<26}{process:<12}{known.unit:10.3f}{known.uncertainty:13.1e}{kept}", flush=True)


if __name__ == "__main__":
    main()
