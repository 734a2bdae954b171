"""Laws of paths between two data sets and of their steppers, against the Gaussian bridge in closed form."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ornstein.bridge import (
    Bridge,
    BridgeStepper,
    Brownian,
    Ends,
    FunctionBridge,
    GaussianBridge,
    GaussianCoupling,
    Linear,
    Path,
    Trigonometric,
    crossing,
    translate,
)
from ornstein.bridge.drive import Ask, stages
from ornstein.bridge.path import READINGS
from ornstein.laws.broken import hold, near

F64 = torch.float64


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def laws(d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two Gaussians in d dimensions, of different sizes, whose covariances do not commute: mean0, cov0, mean1, cov1."""
    a, b = normals(d, d, seed=d) / d**0.5, normals(d, d, seed=d + 1) / d**0.5
    eye = torch.eye(d, dtype=F64)
    return normals(d, seed=2), a @ a.mT + 0.2 * eye, 1 + normals(d, seed=3), 2 * b @ b.mT + 0.1 * eye


# ------------------------------------------------------------------------------------------------------- paths


def joins_its_ends(path: Path) -> None:
    """(alpha, beta, variance) goes from (1, 0, 0) to (0, 1, 0); rates are slopes; batched times equal single ones."""
    for t, alpha, beta in ((0.0, 1.0, 0.0), (path.t_max, 0.0, 1.0)):
        stage = path.at(t)
        for name, expected in (("alpha", alpha), ("beta", beta), ("variance", 0.0)):
            near(f"{name} at t = {t}", getattr(stage, name), expected, atol=1e-12)
    times = torch.linspace(0.05, 0.95, 7, dtype=F64) * path.t_max
    batch = path.at(times, like=torch.zeros(7, 2, 3, dtype=F64))
    for i, t in enumerate(times.tolist()):
        one = path.at(t)
        h = 1e-5 * path.t_max
        low, high = path.at(t - h), path.at(t + h)
        for name, rate in zip(("alpha", "beta", "variance"), one.rates, strict=True):
            near(f"{name} at t = {t:.3g} of a batch", getattr(batch, name)[i, 0, 0], getattr(one, name), rtol=1e-9)
            slope = (getattr(high, name) - getattr(low, name)) / (2 * h)
            near(f"the rate of {name} at t = {t:.3g}", rate, slope, rtol=1e-5, atol=1e-6)
        hold(one.variance >= 0, f"the variance at t = {t:.3g} is {one.variance:.3g}.")
        for name, reading in READINGS.items():
            if path.noiseless and name in ("eps", "score"):
                continue
            for by_one, by_batch in zip(reading(one), reading(batch), strict=True):
                if by_one is not None and by_batch is not None:
                    at_i = by_batch[i, 0, 0].item() if isinstance(by_batch, Tensor) else by_batch
                    near(f"{name} at t = {t:.3g} of a batch", at_i, by_one, rtol=1e-9, atol=1e-12)


def any_two_readings_give_its_ends(path: Path) -> None:
    """Any two independent readings give back both ends, and a reading of a single end gives back that end."""
    if path.noiseless:  # one reading gives both
        return
    x, x0, x1 = normals(3, 5, 2)
    stage = path.at(torch.linspace(0.2, 0.8, 5, dtype=F64) * path.t_max, like=x)
    ends = Ends(x0, x1, x, stage)
    for names in itertools.combinations(READINGS, 2):
        if names == ("eps", "score") or set(names) in ({"x0", "down"}, {"x1", "up"}):  # each follows from the other
            continue
        back = Ends.of(x, stage, {name: ends.read(name) for name in names})
        size = 1 + max(float(ends.read(name).abs().max()) for name in names)
        for what, found, true in (("x_0", back.x0, x0), ("x_1", back.x1, x1)):
            assert found is not None
            near(f"{what} by {' and '.join(names)}", found, true, rtol=1e-6, atol=1e-8 * size)
    for name, end, true in (("x0", "x0", x0), ("down", "x0", x0), ("x1", "x1", x1), ("up", "x1", x1)):
        said = ends.read(name)
        one = getattr(Ends.of(x, stage, {name: said}), end)
        near(f"{end} by {name}", one, true, rtol=1e-6, atol=1e-8 * (1 + float(said.abs().max())))


def its_steps_compose(path: Path) -> None:
    """Two steps with a known near end equal one long step; a short step gives the path's drift and diffusion."""
    t, s, r = (path.at(share * path.t_max) for share in (0.9, 0.5, 0.2))
    (a, b, v), (c, d, w) = t.step_to(s), s.step_to(r)
    for what, found, expected in zip(
        ("x_t", "x_0", "variance"), t.step_to(r), (a * c, d + b * c, w + c * c * v), strict=True
    ):
        near(f"{what} in one step for two", found, expected, rtol=1e-9, atol=1e-12)
    close = path.at(0.5 * path.t_max * (1 - 1e-6))
    ratio, from_x0, variance = s.step_to(close)
    h, row = s.t - close.t, READINGS["down"](s)
    near("the drift by x_t", (1 - ratio) / h, row.xt, rtol=1e-4)
    assert row.x0 is not None
    near("the drift by x_0", -from_x0 / h, row.x0, rtol=1e-4)
    near("the diffusion", variance / h, s.g2_down, rtol=1e-4, atol=1e-9)


# ---------------------------------------------------------------------------------------------------- steppers

_WALKED: tuple[Path, ...] = (Brownian(0.5), Trigonometric(0.8), Linear())


def carries_constant_ends(stepper: BridgeStepper, paths: tuple[Path, ...] = _WALKED) -> None:
    """An end that is always c comes out as c, in both directions, in 1, 2, 3 and 10 steps."""
    for path in paths:
        bridge = FunctionBridge(lambda x, stage, condition: {"x0": x * 0 + 0.3, "x1": x * 0 - 1.7}, path)
        x = normals(4, 2)
        ways: tuple[tuple[Bridge, float], ...] = ((bridge, 0.3), (bridge.reversed(), -1.7))
        for steps in (1, 2, 3, 10):
            for way, c in ways:
                found = translate(way, x, stepper=stepper, steps=steps, seed=0)
                near(f"an end that is always {c}, on {path} in {steps} steps,", found, c)
            states = len(list(crossing(bridge, x, stepper=stepper, steps=steps, seed=0)))
            hold(states == steps + 1, f"{steps} steps give {states} states; there must be {steps + 1}.")


def walked(bridge: GaussianBridge, stepper: BridgeStepper, steps: int) -> tuple[Tensor, Tensor, int]:
    """Covariance at the near end and cov(x_0, x_1) of a walk down, with no sampling error, and calls of the bridge.

    A step is affine in x and in its noise, so its effect on 0 and on unit vectors determines it.
    """
    levels, d = stages(bridge.path, steps), len(bridge.coupling.mean0)
    ask: Ask = Ask(lambda x, stage: bridge(x, stage))
    basis = torch.cat([torch.zeros(1, d, dtype=F64), torch.eye(d, dtype=F64)])
    cov = cross = bridge.coupling.cov1
    for t, s in itertools.pairwise(levels[:-1]):
        by_x = stepper.step(ask, basis, t, s, lambda: 0 * basis)
        by_z = stepper.step(ask, 0 * basis, t, s, lambda: basis)
        slope, spread = (by_x[1:] - by_x[:1]).mT, (by_z[1:] - by_z[:1]).mT
        cov, cross = slope @ cov @ slope.mT + spread @ spread.mT, slope @ cross
    slope = bridge.affine("x0", float(levels[-2].t))[0]
    return slope @ cov @ slope.mT, slope @ cross, ask.calls


def has_its_declared_order(stepper: BridgeStepper) -> None:
    """On the Gaussian Schrodinger bridge: the order of the near end's covariance and of the pairs', and the calls."""
    for path in _WALKED:
        coupling = GaussianCoupling.entropic(*laws(2), 0.0 if path.noiseless else path.stiffness)
        bridge, gaps = GaussianBridge(coupling, path), []
        for n in (32, 64, 128):
            cov, cross, calls = walked(bridge, stepper, n)
            hold(calls == 2 * stepper.calls * (n - 1), f"{calls} calls in {n - 1} steps made twice.")
            gaps.append([float((cov - coupling.cov0).norm()), float((cross - coupling.cross).norm())])
        if path.noiseless:  # straight lines that do not cross are walked exactly
            worst = max(max(gap) for gap in gaps)
            hold(worst < 1e-9, f"straight lines that do not cross are walked with an error of {worst:.3g}.")
            continue
        for coarse, fine in itertools.pairwise(gaps):
            for a, b in zip(coarse, fine, strict=True):
                # E[x_0 given x_t] is a martingale, so cov(x_0, x_1) may be exact
                order = stepper.order if b < 1e-12 else math.log2(a / b)
                hold(
                    abs(order - stepper.order) < 0.3,
                    f"on {path} halving the steps gives order {order:.2f}; {stepper.order} is declared.",
                )


def walks_each_row_by_its_seed_alone(stepper: BridgeStepper) -> None:
    """A batch equals its rows walked one by one; on a path with noise another seed gives other rows."""
    bridge, x = GaussianBridge.schrodinger(*laws(2), Brownian(0.7)), normals(5, 2)
    together = translate(bridge, x, stepper=stepper, steps=4, seeds=range(5))
    one = translate(bridge, x[2:3], stepper=stepper, steps=4, seeds=[2])
    near("a row that is walked alone", one, together[2:3], rtol=1e-12)
    other = translate(bridge, x, stepper=stepper, steps=4, seed=1)
    hold(not torch.equal(other, together), "another seed gives the same rows.")


def _named(*laws: Callable[..., None]) -> dict[str, Callable[..., None]]:
    return {law.__name__.replace("_", "-"): law for law in laws}


PATH_LAWS = _named(joins_its_ends, any_two_readings_give_its_ends, its_steps_compose)
BRIDGE_STEPPER_LAWS = _named(carries_constant_ends, has_its_declared_order, walks_each_row_by_its_seed_alone)
