"""Diffusion in the plane, where everything can be seen and everything is known.

Around each of N points lies a Gaussian of width w, so the density is a mixture, and so is that of
x_t = alpha x_0 + sigma eps at every time: its log-density, its score and E[x_0 given x_t] are closed forms
(`core.exact`). Then

- data dissolve along the forward process, here the Ornstein-Uhlenbeck SDE in the clock of `VP`;
- the *reverse SDE*, dx = (f x - g^2 score) dt + g dB, and the *probability-flow ODE*, dx = (f x - g^2 score/2) dt, both
  take the noise back to the density, the one with fresh noise and the other without (Song et al. 2021, 2011.13456);
- *Langevin dynamics* on the density itself, x <- x + gamma score + sqrt(2 gamma) z, has it as its stationary
  distribution as gamma falls, but seldom crosses the empty space between two modes, so that their weights come out
  wrong;
- *annealed Langevin* (Song & Ermon 2019, 1907.05600) goes through noisier densities first, in which the modes meet.

What a network has learned can be shown beside the exact score: the same field, from a run on points in the plane.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import field as kept
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ornstein.core.clocks import VE, VP
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.process import Process
from ornstein.data import DATA
from ornstein.data.toys import Toy
from ornstein.errors import InputError, lookup
from ornstein.experiment.run import Run
from ornstein.samplers import STEPPERS, trajectory
from ornstein.samplers.langevin import langevin

#: the half side of the window: data are scaled to variance one
REACH = 3.0
#: points that a density is made of; moments that are shown; steps between two of them
POINTS, MOMENTS, BETWEEN = 200, 25, 3
#: cells of the heat map's side, arrows of the field's side
CELLS, ARROWS = 40, 13
#: Langevin steps between two moments, and their size in units of the width squared
LANGEVIN, GAMMA = 10, 0.5

Tick = Callable[[], None]


def names() -> tuple[str, ...]:
    """The built-in densities."""
    return tuple(name for name, entry in DATA.items() if isinstance(entry, type) and issubclass(entry, Toy))


def points_of(name: str, seed: int = 0) -> Tensor:
    """Points (POINTS, 2) of a built-in data set, scaled to mean 0 and variance 1 over both axes.

    Raises:
        InputError: no such data set.
    """
    known: dict[str, Any] = {name: DATA[name] for name in names()}
    source = lookup(known, name, "density")
    return scaled(source(count=POINTS + 2, noise=0.0, seed=seed).load().train[:POINTS])


def scaled(points: Tensor) -> Tensor:
    """Points (N, 2) shifted, and scaled equally in both axes, to mean 0 and mean square 1 a coordinate.

    Raises:
        InputError: fewer than two different points.
    """
    centred = points.double() - points.double().mean(0)
    size = float(centred.square().mean().sqrt())
    if not (math.isfinite(size) and size > 1e-9):
        raise InputError("the points are all in one place: set at least two apart.")
    return centred / size


@dataclass(frozen=True, eq=False)
class Plane:
    """A density in the plane and its process.

    Attributes:
        mixture: the density, a Gaussian about each point.
        width: of each, in units of the data's deviation.
        process: the clock of its noise.
    """

    mixture: GaussianMixture
    width: float
    process: Process = kept(default_factory=VP)

    @staticmethod
    def of(points: Tensor, width: float = 0.12) -> "Plane":
        """The density of points (N, 2), scaled.

        Raises:
            InputError: a width that is none.
        """
        if not (isinstance(width, int | float) and 0.02 <= width <= 1):
            raise InputError(f"width={width!r} must be from 0.02 to 1, in units of the data's deviation.")
        return Plane(GaussianMixture(torch.ones(len(points)), points, torch.full((len(points),), width**2)), width)

    @property
    def denoiser(self) -> Denoiser:
        """The exact one."""
        return self.mixture.denoiser(self.process)

    def moments(self) -> list[float]:
        """Times (MOMENTS,) from data to noise, closer together near the data, where more happens."""
        last = float(self.process.t_max)
        return [last * (0.02 + 0.98 * (k / (MOMENTS - 1)) ** 1.5) for k in range(MOMENTS)]


@dataclass(frozen=True, eq=False)
class Flow:
    """Particles on their way back from noise.

    Attributes:
        name: of the dynamics.
        path: (MOMENTS, count, 2), from the noise on.
        said: where its own walk is at each moment, in words.
    """

    name: str
    path: Tensor
    said: list[str]


def lattice(side: int) -> Tensor:
    """Points (side^2, 2) in the middles of the window's cells, row by row from below, float64."""
    middles = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 * REACH - REACH
    return torch.cartesian_prod(middles, middles)[:, [1, 0]]


def heat(plane: Plane, t: float) -> Tensor:
    """The log-density (CELLS, CELLS) in nats at a time, the first row below."""
    return plane.mixture.log_prob(lattice(CELLS), plane.process.at(t)).reshape(CELLS, CELLS)


def field(denoiser: Denoiser, t: float) -> Tensor:
    """The score (ARROWS^2, 2) of a denoiser of points in the plane at a time, at `lattice(ARROWS)`."""
    with torch.no_grad():
        return denoiser(lattice(ARROWS).float(), t).score.double().cpu()


def forward(plane: Plane, count: int, seed: int = 0) -> Tensor:
    """Particles that dissolve, (MOMENTS, count, 2): one path each of the forward SDE, by its exact kernels."""
    dice = torch.Generator().manual_seed(seed)
    x0 = plane.mixture.sample(count, dice).double()
    path, x, before = [], x0, plane.process.at(0.0)
    for t in plane.moments():
        level = plane.process.at(t)
        a = float(level.alpha) / float(before.alpha)
        b = math.sqrt(max(float(level.sigma) ** 2 - (a * float(before.sigma)) ** 2, 0.0))
        x = a * x + b * torch.randn(x.shape, generator=dice, dtype=x.dtype)
        path.append(x)
        before = level
    return torch.stack(path)


def flows(plane: Plane, count: int, seed: int = 0, tick: Tick = lambda: None) -> Iterator[Flow]:
    """Particles that come back, by each of four dynamics from the same noise.

    Moment 0 is the noise. The SDE, the ODE and annealed Langevin are at the times of `moments`, from the last to the
    first, where they end at 0. Langevin dynamics on the density itself has no time: it takes equally many steps between
    any two moments.

    Args:
        tick: called now and then; an exception in it ends the computation.
    """
    times = [*plane.moments()[:0:-1], 0.0]
    said = [f"t = {t:.2f}" for t in times]
    for name, between in (("euler-maruyama", BETWEEN), ("heun", BETWEEN), ("annealed-langevin", 1)):
        grid = [a + (b - a) * k / between for a, b in pairwise(times) for k in range(between)]
        walk = trajectory(
            plane.denoiser, (count, 2), stepper=name, steps=len(grid), grid=[*grid, times[-1]], seed=seed
        )  # fmt: skip
        kept = []
        for state in walk:
            tick()
            if state.step % between == 0:
                kept.append(state.x.double())
        yield Flow(name, torch.stack(kept), said)
    yield Flow("langevin", _langevin(plane, kept[0], seed, tick), [
        f"step {LANGEVIN * k} of {LANGEVIN * (MOMENTS - 1)}" for k in range(MOMENTS)
    ])  # fmt: skip


def _langevin(plane: Plane, start: Tensor, seed: int, tick: Tick) -> Tensor:
    # the score of the density is that of so little noise that it is one with it
    process = VE(sigma_min=plane.width / 50, sigma_max=REACH)
    denoiser, level = plane.mixture.denoiser(process), process.at(process.time(-2 * math.log(plane.width / 50)))

    def score(x: Tensor) -> Tensor:
        tick()
        return denoiser.predict(x, level, Condition.of(None)).score

    chain = langevin(score, start, steps=LANGEVIN * (MOMENTS - 1), gamma=GAMMA * plane.width**2, seed=seed)
    return torch.stack([state.x for state in chain if state.step % LANGEVIN == 0])


def summaries() -> dict[str, str]:
    """What each of the dynamics is, in a line from the table if it has one."""
    from ornstein.experiment.catalogue import summary

    named = {name: summary(STEPPERS[name]) for name in ("euler-maruyama", "heun", "annealed-langevin")}
    return {**named, "langevin": "Langevin dynamics on the density itself, by nothing but its score."}


def learned(run: Run) -> tuple[Tensor, Denoiser]:
    """Of a run on points in the plane: its data (N, 2) in model space, and what it has learned of them.

    Raises:
        InputError: a run on anything else, or whose data are gone.
    """
    run.must_walk("the field of a score")
    if run.shape != (2,):
        raise InputError(f"run={run.folder.name!r} draws {run.kind}s; the plane is of runs on points of two numbers.")
    data = run.load_data()
    return data.transform.forward(data.train[:POINTS]).double(), run.denoiser


def disagreement(plane: Plane, mine: Denoiser, t: float, count: int = 512) -> float:
    """The error of a learned score, averaged over the density: root mean square, relative to that of the exact one."""
    level = plane.process.at(t)
    dice = torch.Generator().manual_seed(0)
    x0 = plane.mixture.sample(count, dice)
    xt = float(level.alpha) * x0 + float(level.sigma) * torch.randn(x0.shape, generator=dice)
    with torch.no_grad():
        exact, own = plane.denoiser(xt, t).score.double(), mine(xt, t).score.double().cpu()
    return float((own - exact).square().mean().sqrt() / exact.square().mean().sqrt())
