"""The variational bound: how many bits a diffusion model needs for an example.

Read as a latent-variable model, a chain t_0 > t_1 > ... > t_n = 0 has a prior p(x_{t_0}) and Gaussian steps
p(x_s given x_t). The forward process, which is fixed, gives the posterior of the latents, and Jensen's inequality

    -log p(x_0) <= L_T + sum over steps t -> s of L_t + L_0                                         (in nats)
    L_T = KL( q(x_{t_0} given x_0) || prior )
    L_t = E KL( q(x_s given x_t, x_0) || p(x_s given x_t) )
    L_0 = E[ -log p(x_0 given x_{t_{n-1}}) ],      the decoder

(Sohl-Dickstein et al. 2015, 1503.03585; Ho et al. 2020, 2006.11239, equation 5). The prior is the one that sampling
starts from, N(0, alpha^2 sigma_data^2 + sigma^2), which is N(0, I) for a variance-preserving clock and unit data.

**A step** has the posterior's mean with x0_hat in place of x_0, so with variances `small` of the posterior and V
of the model, and c the posterior's coefficient of x_0, each element costs

    L_t = 1/2 [ log(V/small) + small/V - 1 + c^2 |x0_hat - x_0|^2 / V ].

V is "small" itself, or "large", the step's b^2 (the lower and upper bounds of the true reverse variance, for data at
a point and data N(0, I)), or "learned" between the two on a log scale (Nichol & Dhariwal 2021, 2102.09672, equation
15). With "small", L_t = (SNR_s - SNR_t)/2 |x0_hat - x_0|^2: only the signal-to-noise ratios count (Kingma et al.
2021, 2107.00630), and Ho's weight beta^2/(2 sigma^2 alpha (1 - alpha_bar)) on the noise is the same number.

**The decoder** is the last step, N(x0_hat, V): for continuous data its density; for data on a grid of levels, the
probability of the bin around the value, the outermost bins open to infinity (`Bins`). The posterior's own variance
cannot serve there, as it is zero. "small" and "large" both take the step's b^2 = sigma^2; "learned" ranges, as in
Nichol's code, from the posterior variance of the step above to b^2.

A chain and the same chain respaced are different models with different bounds: the bound belongs to its grid.

This file has what all uses of the bound share: the levels of data, the prior, the decoder and the steps. `measured`
sums the terms of a model, `variational` trains by them, and `continuous` takes the limit of ever finer steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.copies import beside
from ornstein.core.grids import times
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError, lookup

#: steps of a chain made of a process in continuous time, where nothing is said
STEPS = 1000


@dataclass(frozen=True)
class Bins:
    """The grid on which quantised data lie in model space: `count` evenly spaced levels over [low, high].

    A byte is Bins(256), scikit-learn's digits Bins(17).
    """

    count: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 2:
            raise InputError(f"count={self.count!r} must be a whole number of levels, at least 2.")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"low={self.low!r} and high={self.high!r} must be finite and rising.")

    @property
    def width(self) -> float:
        """Distance of two neighbouring levels."""
        return (self.high - self.low) / (self.count - 1)

    def check(self, x0: Tensor) -> None:
        """Refuse data that do not lie on the levels."""
        place = (x0.double() - self.low) / self.width
        off = (place - place.round().clamp(0, self.count - 1)).abs()
        if bool((off > 0.01).any()):
            value = float(x0.flatten()[off.argmax()])
            raise InputError(
                f"x0 holds {value:g}, which is none of the {self.count} levels from {self.low:g} to {self.high:g}: "
                "give the data's own levels, or bins=None for continuous data."
            )

    def nats(self, x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        """-log of the probability that N(mean, exp(log_var)) gives the bin of each x0: same shape.

        It is computed from logarithms of tails, so that a bin a thousand deviations away still has a finite cost and a
        gradient.
        """
        half, inverse = self.width / 2, (-0.5 * log_var).exp()
        lower, upper = (x0 - half - mean) * inverse, (x0 + half - mean) * inverse
        # mirrored, where need be, into the lower tail, where small probabilities keep their digits
        mirrored = lower + upper > 0
        near = torch.special.log_ndtr(torch.where(mirrored, -lower, upper))
        far = torch.special.log_ndtr(torch.where(mirrored, -upper, lower))
        inside = near + torch.log(-torch.expm1(far - near))
        lowest, highest = x0 < self.low + half, x0 > self.high - half
        outside = torch.special.log_ndtr(torch.where(lowest, upper, -lower))
        return -torch.where(lowest | highest, outside, inside)

    def posterior_nats(self, x0: Tensor, place: Tensor, ratio: float) -> Tensor:
        """-log of the probability of each x0's level where x0 + ratio * noise was seen at `place`: same shape.

        All levels are equally likely beforehand; those further than twelve deviations are left out.
        """
        centre = ((place - self.low) / self.width).round().clamp(0, self.count - 1)
        total = torch.full_like(place, -math.inf)
        for offset in range(1 - self.count, self.count):
            if abs(offset) * self.width > 12 * ratio + self.width:
                continue
            k = centre + offset
            logit = -0.5 * ((place - self.low - k * self.width) / ratio) ** 2
            total = torch.logaddexp(total, torch.where((k >= 0) & (k < self.count), logit, -math.inf))
        return total + 0.5 * ((place - x0) / ratio) ** 2


def decoder_nats(x0: Tensor, mean: Tensor, log_var: Tensor, bins: Bins | None) -> Tensor:
    """L_0 of each element: of its bin, or of its density."""
    if bins is not None:
        return bins.nats(x0, mean, log_var)
    return 0.5 * ((x0 - mean) ** 2 * (-log_var).exp() + log_var + math.log(2 * math.pi))


def prior_nats(first: Level[float], sigma_data: float, x0: Tensor) -> Tensor:
    """L_T of each sample, (B,): from q(x_t given x_0) at the first level to the noise that sampling starts from."""
    signal, noise = first.alpha**2, first.sigma**2
    spread = signal * sigma_data**2 + noise
    squares = widest(x0).flatten(1).square().mean(1)
    return 0.5 * x0[0].numel() * (signal * (squares - sigma_data**2) / spread + math.log(spread / noise))


def widest(x: Tensor) -> Tensor:
    """x in the type that bounds are computed in: sums of many small terms, float64 where the device has it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a chain: all that their terms depend on, besides the error of x0; tables over n steps, float64.

    `small` and `large` are the variances that a learned one lies between, `fixed` the one that is not learned.
    """

    times: Tensor
    small: Tensor
    large: Tensor
    from_x0: Tensor
    fixed: Tensor | None

    def nats(self, i: "int | Tensor", prediction: Prediction, x0: Tensor, bins: Bins | None) -> Tensor:
        """The term of step i, (B,): one step for all, or (B,) steps."""
        clean, mean = widest(x0), widest(prediction.x0)

        def of(table: Tensor) -> Tensor:
            if isinstance(i, Tensor):
                return beside(table, clean)[i].reshape(-1, *[1] * (x0.ndim - 1))
            return table[i]

        log_small, log_large = of(self.small).log(), of(self.large).log()
        log_var = prediction.log_variance(log_small, log_large) if self.fixed is None else of(self.fixed).log()
        decoder = len(self.small) - 1
        if isinstance(i, int) and i == decoder:
            return decoder_nats(clean, mean, widest(log_var), bins).flatten(1).sum(1)
        squares = of(self.small) + of(self.from_x0) ** 2 * (mean - clean) ** 2
        kl = 0.5 * (log_var - log_small - 1 + squares * (-log_var).exp())
        if isinstance(i, Tensor):
            last = (i == decoder).reshape(-1, *[1] * (x0.ndim - 1))
            kl = torch.where(last, decoder_nats(clean, mean, widest(log_var), bins), kl)
        return kl.flatten(1).sum(1)


def coefficients(process: Process, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The variances "small" and "large", and the posterior's coefficient of x_0, of steps from t to s, float64."""
    upper, lower = (Level(process, at, process.alpha(at), process.sigma(at)) for at in (t, s))
    posterior, (_, large) = upper.posterior(lower), upper.kernel_from(lower)
    return posterior.variance, large, posterior.from_x0


def steps_of(process: Process, falling: Tensor, variance: "str | Tensor") -> Steps:
    """The steps of a chain that walks these times, with this variance."""
    small, large, from_x0 = coefficients(process, falling[:-1], falling[1:])
    small[-1] = small[-2] if len(small) > 1 else large[-1]  # the decoder's: the posterior's own is zero
    if isinstance(variance, Tensor):
        fixed = variance.detach().to("cpu", torch.float64)
        if fixed.shape != small.shape or not bool((fixed > 0).all()):
            raise InputError(f"variance has shape {tuple(variance.shape)}; it must be {len(small)} positive numbers.")
        return Steps(falling, small, large, from_x0, fixed)
    known = {"small": torch.cat([small[:-1], large[-1:]]), "large": large, "learned": None}
    return Steps(falling, small, large, from_x0, lookup(known, variance, "variance"))


def chain_times(
    process: Process, steps: int | None, grid: "str | Sequence[float] | Tensor | None", sigma_data: float = 1.0
) -> Tensor:
    """The times of a chain, falling to 0; by default all that the process has, or `STEPS` of them."""
    return times(process, (process.chain or STEPS) if steps is None else steps, grid, sigma_data)


def check_whole(**values: int) -> None:
    """Refuse numbers that are not positive and whole, by their names."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive whole number.")
