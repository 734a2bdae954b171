"""Laws of every objective: what it depends on, the times it uses, and that the exact denoiser is its minimum.

The minimum is measured, not assumed. For a regression the expected loss of D + theta d, along a direction d, is a
parabola in theta. Half the difference of the losses at theta = 3 and -3 is proportional to its slope at D: it must be
zero to five standard errors on a mixture whose exact denoiser is D, and not zero at a denoiser that is off by as much.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ornstein.core.clocks import VP, Flow
from ornstein.core.condition import Given
from ornstein.core.denoiser import NetDenoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.grids import ends
from ornstein.core.prediction import READINGS, Prediction
from ornstein.core.process import Level, Process
from ornstein.laws.broken import hold, near
from ornstein.laws.oracles import ZERO_SNR, Known, mixture, processes
from ornstein.nets.contract import NOTHING
from ornstein.objectives import Objective

F64 = torch.float64
#: standard deviation of the data that the laws use
S = 0.7


def seeded(seed: int) -> torch.Generator:
    """A new generator with this seed."""
    return torch.Generator().manual_seed(seed)


def data(n: int = 64, seed: int = 0, shape: tuple[int, ...] = (3,)) -> tuple[Tensor, Tensor]:
    """x0 (with spread S about zero) and eps, (n, *shape)."""
    g = seeded(seed)
    return S * torch.randn(n, *shape, generator=g, dtype=F64), torch.randn(n, *shape, generator=g, dtype=F64)


def wrong(process: Process) -> Known:
    """Some denoiser, far from the exact one for any data."""
    return Known(lambda x, level: torch.tanh(x) * 0.8 + 0.1, process, S)


def every() -> dict[str, Process]:
    """The processes with which an objective must work, including those without any signal at the end."""
    return processes() | ZERO_SNR


# ------------------------------------------------------------------------------------ what a loss is a function of


def is_finite_and_per_sample(objective: Objective, process: Process) -> None:
    """A finite loss for each sample, (B,), of x0's type, which depends only on the generator and that sample."""
    x0 = data(32, shape=(2, 4))[0].float()
    before = torch.get_rng_state()
    first = objective(wrong(process), x0, None, seeded(10))
    hold(first.shape == (32,), f"on {process} the loss of 32 samples has shape {tuple(first.shape)}; it must be (32,).")
    hold(first.dtype == torch.float32, f"on {process} the loss of float32 data is {first.dtype}.")
    hold(first.isfinite().all(), f"on {process} {int((~first.isfinite()).sum())} of 32 losses are not finite.")
    again = objective(wrong(process), x0, None, seeded(10))
    hold(torch.equal(first, again), f"on {process} the same generator gives another loss.")
    hold(torch.equal(before, torch.get_rng_state()), "it draws from torch's global random state, not its generator.")
    # a change of one sample changes its loss and no other
    other = x0.clone()
    other[5] += 1
    changed = objective(wrong(process), other, None, seeded(10))
    rest = torch.arange(32) != 5
    hold(torch.equal(first[rest], changed[rest]), f"on {process} the loss of a sample depends on another sample.")
    hold(bool(first[5] != changed[5]), f"on {process} the loss does not depend on x0.")


def has_a_loss_for_each_sample(objective: Objective) -> None:
    """On every process: a loss of shape (B,), finite, determined by the generator, and independent of other samples."""
    for process in every().values():
        is_finite_and_per_sample(objective, process)


#: torch functions that make random numbers from a generator, on a device
_MAKERS = (torch.rand, torch.randn, torch.randint, torch.randperm)
#: torch functions that make random numbers like another tensor, and take no generator
_UNSEEDED = (torch.rand_like, torch.randn_like, torch.randint_like)


class _Drawing(TorchFunctionMode):
    """Raises for random numbers that are not drawn from a generator, on its device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        called = f"torch.{getattr(function, '__name__', '?')}"
        if function in _UNSEEDED or (function in _MAKERS and given.get("generator") is None):
            hold(False, f"{called} is called without the generator.")
        if function in _MAKERS and given.get("device") is None:
            hold(False, f"{called} is called without device=generator.device, so a generator on a GPU cannot be used.")
        return function(*args, **given)


def draws_from_its_generator_alone(objective: Objective) -> None:
    """All randomness comes from the generator, on the device of the generator."""
    x0, labels = data(16)[0].float(), torch.arange(16) % 3
    with _Drawing():
        objective(wrong(VP()), x0, labels, seeded(1))


@contextmanager
def _asked(process: Process) -> Iterator[tuple[Known, list[Tensor]]]:
    """A denoiser that records the times at which it is called."""
    times: list[Tensor] = []

    def answer(x: Tensor, level: Level) -> Tensor:
        times.append(torch.as_tensor(level.t, dtype=F64).flatten())
        return 0.8 * torch.tanh(x)

    yield Known(answer, process, S), times


def asks_within_the_clock(objective: Objective) -> None:
    """It calls the network within `grids.ends` in continuous time, or at levels above 0 of a chain; finite losses."""
    x0 = data(4096, shape=(2,))[0]
    for process in every().values():
        low, high = ends(process, S) if process.chain is None else (0.0, float(process.chain))
        with _asked(process) as (denoiser, asked):
            loss = objective(denoiser, x0, None, seeded(3))
        hold(loss.isfinite().all(), f"on {process} {int((~loss.isfinite()).sum())} of 4096 losses are not finite.")
        times = torch.cat(asked)
        least, most = float(times.min()), float(times.max())
        where = f"on {process} it calls the network at t = {{:.6g}}; grids.ends allows {low:.6g} to {high:.6g}."
        hold(least > 0 and least >= low * (1 - 1e-6), where.format(least))
        hold(most <= high * (1 + 1e-6), where.format(most))


# ------------------------------------------------------------------------------------------------------- labels


class _Watch(nn.Module):
    """A network that records its condition."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.condition: Mapping[str, Tensor] = {}

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] = NOTHING) -> Tensor:
        self.condition = condition
        return torch.cat([x, x], 1) if self.twice else x


def parts_seen(objective: Objective, condition: Given, n: int) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The losses of n samples, and the condition that the network was given for them."""
    double = getattr(objective, "learns_variance", False)
    watch = _Watch(double)
    denoiser = NetDenoiser(watch, VP(), "v", learns_variance=double)
    return objective(denoiser, torch.zeros(n, 1), condition, seeded(8)), watch.condition


def drops_labels_at_its_rate(objective: Objective) -> None:
    """The network sees the condition, except in a share `drop_label` (0 if it has none) of each part's rows."""
    n, rate = 10000, getattr(objective, "drop_label", 0.0)
    labels = torch.arange(n) % 10
    _, nothing = parts_seen(objective, None, n)
    hold(not nothing, "without a condition the network is given one.")
    _, parts = parts_seen(objective, {"label": labels, "vector": torch.ones(n, 4)}, n)
    for name in ("label", "vector"):
        hold(name in parts, f"the network is not given the condition's part {name!r}.")
    seen, allowed = parts["label"], 5 * math.sqrt(rate * (1 - rate) / n)
    gone = seen == -1
    hold(seen.dtype == torch.int64, f"the network is given labels of {seen.dtype}; they must be int64.")
    hold(torch.equal(seen[~gone], labels[~gone]), "the network is given labels that are not those of its samples.")
    share = float(gone.double().mean())
    hold(abs(share - rate) <= allowed, f"a share of {share:.3g} of the labels is dropped; drop_label is {rate:g}.")
    rows = parts["vector"].isnan()
    hold(torch.equal(rows.any(1), rows.all(1)), "some numbers of a sample's vector are dropped and others are not.")
    share = float(rows.all(1).double().mean())
    hold(abs(share - rate) <= allowed, f"a share of {share:.3g} of the vectors is dropped; drop_label is {rate:g}.")


# ---------------------------------------------------------------------------------------------- what it teaches


class Spoken(nn.Module):
    """A network whose x0 is always the same function of a parameter, output in the reading `predicts`."""

    def __init__(self, process: Process, predicts: str) -> None:
        super().__init__()
        self.process, self.predicts = process, predicts
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=F64))

    def forward(self, scaled: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] = NOTHING) -> Tensor:
        ratio = noise_level.exp()[:, None]
        y = scaled * (S**2 + ratio**2).sqrt()  # x/alpha
        x0 = torch.tanh(y * self.weight) + 0.2 * self.weight / (1 + ratio)
        level = self.process.at(self.process.time(-2 * noise_level), like=y)
        return Prediction(x0, level.alpha * y, level).read(self.predicts, S)


def gradient_is_the_same_in_every_reading(objective: Objective, process: Process) -> None:
    """The gradient by the parameters of one function is the same, whichever reading the network outputs."""
    x0, _ = data(32)
    gradients = {}
    for reading in READINGS:
        net = Spoken(process, reading)
        objective(NetDenoiser(net, process, reading, S), x0, None, seeded(1)).mean().backward()
        gradients[reading] = net.weight.grad
    for reading, gradient in gradients.items():
        assert gradient is not None
        near(f"on {process} a gradient through predicts={reading!r}", gradient, gradients["x0"], rtol=1e-6)  # type: ignore[arg-type]


def does_not_know_what_the_network_predicts(objective: Objective) -> None:
    """Gradients agree across the readings, on clocks of every kind; not checked if a variance is learned too."""
    if getattr(objective, "learns_variance", False):
        return
    made = processes()
    for name in ("vp", "sub-vp", "ve", "edm", "ou", "flow", "betas"):
        gradient_is_the_same_in_every_reading(objective, Flow(t_max=0.99) if name == "flow" else made[name])


#: directions away from the exact denoiser
DIRECTIONS: list[Callable[[Tensor], Tensor]] = [
    torch.ones_like,
    lambda x: x.flip(1),
    lambda x: torch.sin(3 * x + 1),
]


def sized(direction: Callable[[Tensor], Tensor], x: Tensor, level: Level) -> Tensor:
    """The direction, of bounded size in units of the noise at every level."""
    return direction(x / (level.alpha + level.sigma)) / (1 + 1 / level.noise_ratio)


def slope_and_bend(
    objective: Objective,
    process: Process,
    base: Callable[[Tensor, Level], Tensor],
    direction: Callable[[Tensor], Tensor],
    x0: Tensor,
    seed: int,
    theta: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """Per sample: half the difference, and the excess of the mean, of the losses at base +- theta direction."""

    def at(theta: float) -> Tensor:
        def answer(x: Tensor, level: Level) -> Tensor:
            return base(x, level) + theta * sized(direction, x, level)

        return objective(Known(answer, process, 1.3), x0, None, seeded(seed)).detach()

    up, here, down = at(theta), at(0.0), at(-theta)
    return (up - down) / 2, (up + down) / 2 - here


def exact_is_its_minimum(objective: Objective, process: Process) -> None:
    """On a mixture the expected slope along any direction is zero, and the loss rises on both sides."""
    mix, n = mixture(), 4000
    x0 = mix.sample(n, seeded(1002)).double()

    def exact(x: Tensor, level: Level) -> Tensor:
        return mix.posterior_mean(x, level)

    for seed, direction in enumerate(DIRECTIONS):
        slope, bend = slope_and_bend(objective, process, exact, direction, x0, seed)
        error = float(slope.std()) / math.sqrt(n)
        off = abs(float(slope.mean())) / error
        hold(
            off < 5, f"on {process} the loss falls away from the exact denoiser: a slope of {off:.1f} standard errors."
        )
        hold(
            bend.mean() > abs(slope.mean()), f"on {process} the loss is not higher on both sides of the exact denoiser."
        )

        # and the same measurement detects a denoiser that is off by as much
        def away(x: Tensor, level: Level, direction: Callable[[Tensor], Tensor] = direction) -> Tensor:
            return exact(x, level) + 3 * sized(direction, x, level)

        slope, _ = slope_and_bend(objective, process, away, direction, x0, seed)
        off = float(slope.mean()) / (float(slope.std()) / math.sqrt(n))
        hold(off > 5, f"on {process} the loss does not detect a wrong denoiser: a slope of {off:.1f} standard errors.")


def is_minimised_by_the_exact_denoiser(objective: Objective) -> None:
    """The posterior mean of a mixture is the minimum, on four clocks."""
    made = processes()
    for name in ("vp", "edm", "flow", "betas[cosine]"):
        exact_is_its_minimum(objective, made[name])


def skewed() -> GaussianMixture:
    """A mixture whose posterior median is far from its mean: nine tenths in one place, the rest away from it."""
    means = torch.tensor([[-0.2, -0.2], [1.8, 1.8]], dtype=F64)
    return GaussianMixture(torch.tensor([0.9, 0.1], dtype=F64), means, torch.full((2,), 0.01, dtype=F64))


def mean_is_taught(objective: Objective, process: Process) -> None:
    """On skewed data the slope at the posterior mean is zero in small steps too, as only for a squared loss."""
    mix, n = skewed(), 4000
    x0 = mix.sample(n, seeded(1002)).double()
    slope, _ = slope_and_bend(objective, process, mix.posterior_mean, torch.ones_like, x0, 0, theta=0.1)
    off = abs(float(slope.mean())) / (float(slope.std()) / math.sqrt(n))
    hold(off < 5, f"on {process} it teaches a point other than the mean: a slope of {off:.1f} standard errors there.")


def teaches_the_mean(objective: Objective) -> None:
    """On skewed data too it teaches the posterior mean, not the median or a point between."""
    made = processes()
    for name in ("vp", "edm", "flow", "betas[cosine]"):
        mean_is_taught(objective, made[name])


LAWS: dict[str, Callable[[Objective], None]] = {
    law.__name__.replace("_", "-"): law
    for law in (
        has_a_loss_for_each_sample,
        draws_from_its_generator_alone,
        asks_within_the_clock,
        drops_labels_at_its_rate,
        does_not_know_what_the_network_predicts,
        is_minimised_by_the_exact_denoiser,
        teaches_the_mean,
    )
}
