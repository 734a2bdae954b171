"""The exact log-density of a diffusion model, by its probability-flow ODE.

Noising spreads the data out; the probability-flow ODE does it without randomness, so that the density of a datum is
the density of where it ends, N(0, I) in effect, times what the flow stretched on the way (Chen et al. 2018,
1806.07366; Song et al. 2021, 2011.13456, section 4.3). On every clock the flow is one: in y = x/alpha and u =
sigma/alpha it reads dy/du = (y - x0)/u. In addition divide out the spread of y, with s the data's standard deviation,

    z = y/sqrt(s^2 + u^2),     tau = log u,     dz/dtau = v(z) = (s^2 z/r - x0(r z))/r,     r = sqrt(s^2 + u^2),

and nothing moves that need not: for Gaussian data of that deviation v is zero. The log-density follows,

    log p(x) = log p_T(z_T) + integral of div v dtau - d log s        (z = x/s where u = 0).

**The quadrature.** v and its divergence fade like u^2 below the data's finest scale and like 1/u^2 above its
coarsest. For such a function on the whole line the plain trapezoid rule converges faster than any power of its step
(Trefethen & Weideman 2014, SIAM Review 56:385), in any smooth clock: in that of q,

    tau = log s - 1 + 1.5 sinh(q/1.5),

even steps are short where data have structure, within some tenfold of s/e, and long where there is none. The flow goes
along the same steps by Adams' methods of order 5, Bashforth's prediction and Moulton's correction: two calls a step,
and their past is known from the first, v falling as u^2 below. So the divergence, which is the dear part, is taken once
a step, where an adaptive solver of both equations together takes it at each of its stages. About fifty evaluations give
three decimals of a nat.

**Its error** is estimated for each sample: from the rules of two and four times the step, whose values are there
already (with e = |T_h - T_2h| and e' = |T_2h - T_4h|, the error of T_h is about e^2/e'); and from what Boole's rule
says of the same steps of the flow, times the score, which is what a displaced z costs in nats. Samples whose estimate
exceeds the tolerance are done again with half the step, and only those. The step therefore depends on nothing but the
sample, and its likelihood does not depend on the batch.

**The lower end.** No network is asked below the smallest noise ratio that sampling asks at, 0.002 (the first level of
a chain): the integrals from zero up to there are those of functions proportional to u^2, half the value at the end.
What is neglected is of order (u/c)^4 per dimension for data with structure of size c.

**The upper end** has the law N(alpha m, alpha^2 (s^2 - |m|^2/d) + sigma^2) with m the mean that the denoiser itself
reports for pure noise ("centred"). Samplers start from N(0, alpha^2 s^2 + sigma^2) ("sampling"), which is as good for
drawing, but off by about |m|/u in log-density where u is not yet large against the mean (0.02 nats in 64 dimensions
at u = 160). Either presumes a clock that ends with much noise: on a ladder that ends at the data's own scale neither
law is that of the data.

**The trace** of the Jacobian is exact up to `EXACT_UP_TO` dimensions: d backward passes through one forward pass,
many at a time. Beyond, random probes estimate it (`core.divergence`): "hutchinson", whose signs see no error in the
diagonal, where the Jacobian of a denoiser of images is largest; or "hutch++", which first takes out exactly a
subspace that follows the flow, each step's products making the next one's basis, for data that vary in few
directions. Probes are fresh at each of the steps, so that their errors average along the flow; usual practice, one
probe for the whole of it, has them add up (Grathwohl et al. 2019, 1810.01367). Two or more at each step also give the
standard error: the variances of the steps, weighted as the quadrature weighs them, add.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import deflated_forms, exact_trace, linearised, orthonormal
from ornstein.core.exact import ExactDenoiser
from ornstein.core.grids import ends
from ornstein.core.numerics import Estimate, normal
from ornstein.core.process import Level
from ornstein.errors import InputError, lookup

#: elements of a sample up to which trace="auto" is exact
EXACT_UP_TO = 128
#: steps of the first attempt, a multiple of four, and how often they are doubled at most
STEPS, DOUBLINGS = 48, 4
#: how the trace is taken: name -> the fewest probes that it needs
TRACES: dict[str, int] = {"exact": 0, "hutchinson": 2, "hutch++": 3}
#: where steps are shortest, in log(u/s), and over how far tau they grow by half
_CENTRE, _WIDTH = -1.0, 1.5
#: Adams & Bashforth's prediction from the last five slopes, and Moulton's correction with the one ahead first; order 5
_PREDICT = (1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720)
_CORRECT = (251 / 720, 646 / 720, -264 / 720, 106 / 720, -19 / 720)
#: the noise ratio down to which exact denoisers are asked, whose answers are right at any
_FINEST = 1e-4

Pull = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """What `log_likelihood` found, for each sample.

    Attributes:
        log_prob: (B,) float64, nats.
        standard_error: (B,) float64, nats: how far log_prob is, from the randomness of probes and (with two draws or
            more) of dequantisation, from its expectation. Zero for an exact trace of continuous data.
        integration_error: (B,) float64, nats: an estimate, on the high side, of the integration's error, as far as it
            shows above that of the probes.
        calls: (B,) int64, evaluations of the denoiser.
        products: (B,) int64, backward passes.
        dims: elements of one sample.
    """

    log_prob: Tensor
    standard_error: Tensor
    integration_error: Tensor
    calls: Tensor
    products: Tensor
    dims: int

    @property
    def bits_per_dim(self) -> Tensor:
        """(B,) float64: -log2 p / d, of the space that log_prob is of."""
        return -self.log_prob / (self.dims * math.log(2))

    @property
    def bits(self) -> Estimate:
        """The mean of bits_per_dim, and its standard error over the samples (which holds all other randomness too)."""
        return Estimate.of(self.bits_per_dim)


@dataclass(frozen=True)
class Trace:
    """A way to take the trace at one step after another."""

    name: str
    probes: int

    @staticmethod
    def named(name: str, probes: int, dims: int) -> "Trace":
        if name == "auto":
            name = "exact" if dims <= EXACT_UP_TO else "hutchinson"
        least = lookup(TRACES, name, "trace")
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < least:
            raise InputError(f"probes={probes!r} must be a whole number, at least {least} for trace={name!r}.")
        return Trace(name, probes)

    def products(self, dims: int) -> int:
        """Backward passes of a step."""
        return dims if self.name == "exact" else self.probes

    def forms(
        self, pull: Pull, z: Tensor, keys: Tensor, draw: int, memory: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What is known of the trace exactly, (B,); independent estimates of the rest, (m, B); and what to remember."""
        if self.name == "exact":
            return exact_trace(pull, z), None, None
        shape = tuple(z.shape[1:])
        half = 0 if self.name == "hutchinson" else self.probes // 2
        drawn = [normal(keys, shape, draw + k, z.dtype) for k in range(0 if memory is None else half, self.probes)]
        probes = torch.stack(drawn[half - self.probes :])
        if self.name == "hutchinson":
            signs = torch.where(probes >= 0, 1.0, -1.0).to(z)
            return z.new_zeros(len(z)), (pull(signs) * signs).flatten(2).sum(2), None
        start = pull(torch.stack(drawn[: min(half, z[0].numel())])) if memory is None else memory
        basis = orthonormal(start)
        known, forms, image = deflated_forms(pull, basis, probes)
        # the next basis: directions that differ from the bulk, whose share the probes know without error
        bulk = forms.mean(0) / max(1, z[0].numel() - len(basis))
        return known, forms, image - bulk.reshape(-1, *[1] * (z.ndim - 1)) * basis


@dataclass(frozen=True, eq=False)
class ProbabilityFlow:
    """The probability-flow ODE of a denoiser between two noise ratios, and how it is to be walked."""

    denoiser: Denoiser
    low: float
    high: float
    how: Trace
    tolerance: float
    centred: bool

    def log_prob(self, x: Tensor, cond: Tensor | None, keys: Tensor, draw: int) -> LogLikelihood:
        """log p in model space of x (B, *shape), with steps halved for the samples that need it."""
        found, settled = self._walk(x, cond, keys, draw, STEPS)
        left, steps = (~settled).nonzero().flatten(), STEPS
        for _ in range(DOUBLINGS):
            if len(left) == 0:
                break
            draw += (steps + 1) * self.how.probes
            steps *= 2
            again, settled = self._walk(x[left], None if cond is None else cond[left], keys[left], draw, steps)
            found.log_prob[left], found.standard_error[left] = again.log_prob, again.standard_error
            found.integration_error[left] = again.integration_error
            found.calls[left] += again.calls
            found.products[left] += again.products
            left = left[~settled]
        return found

    def _points(self, steps: int) -> tuple[list[Level], Tensor, Tensor, float]:
        """The levels that so many steps pass, steps + 1 of them, and the steps themselves.

        Returns:
            levels; dtau/dq at each, (steps + 1,); by how much smaller than at the first level the slopes were at the
            points of the past that Adams' methods presume, times dtau/dq there; and the step in q.
        """
        centre = math.log(self.denoiser.sigma_data) + _CENTRE
        first, last = (_WIDTH * math.asinh((math.log(u) - centre) / _WIDTH) for u in (self.low, self.high))
        h = (last - first) / steps
        # what Adams' methods remember at first lies before the first point
        q = first + h * torch.arange(1 - len(_PREDICT), steps + 1, dtype=torch.float64)
        tau = centre + _WIDTH * (q / _WIDTH).sinh()
        early, rates = (q / _WIDTH).cosh().tensor_split([len(_PREDICT) - 1])
        before = early * (2 * (tau[: len(early)] - tau[len(early)])).exp()
        tau = tau[len(early) :].clamp(math.log(self.low), math.log(self.high))
        times = self.denoiser.process.time(-2 * tau)
        assert isinstance(times, Tensor)
        return self.denoiser.process.levels(times), rates, before, h

    def _walk(
        self, x: Tensor, cond: Tensor | None, keys: Tensor, draw: int, steps: int
    ) -> tuple[LogLikelihood, Tensor]:
        """From the data to the noise in so many steps; and which samples need no more of them, (B,)."""
        s, d = self.denoiser.sigma_data, x[0].numel()
        levels, rates, before, h = self._points(steps)

        def slope(level: Level) -> Callable[[Tensor], Tensor]:
            alpha, r = float(level.alpha), _spread(level, s)
            return lambda z: (s * s / r * z - self.denoiser.predict(alpha * r * z, level, cond).x0.to(z)) / r

        # up to the lowest level v grows as u^2: the integral from zero is half of what it has become there
        z = x / s + slope(levels[0])(x / _spread(levels[0], s)) / 2
        total, double, quadruple, variance, doubt, displaced = (x.new_zeros(len(x)) for _ in range(6))
        boole, score = z, torch.zeros_like(z)
        memory: Tensor | None = None
        past: list[Tensor] = []
        for i, (level, rate) in enumerate(zip(levels, rates.tolist(), strict=True)):
            v, pull = linearised(slope(level), z)
            known, forms, memory = self.how.forms(pull, z, keys, draw + i * self.how.probes, memory)
            del pull
            weight, weight2, weight4 = (_trapezoid(i, stride, steps, h * rate) for stride in (1, 2, 4))
            value = known
            if forms is not None:
                value = known + forms.mean(0)
                spread = forms.var(0) / len(forms)
                variance += weight**2 * spread
                doubt += (weight - weight2) ** 2 * spread
            total += weight * value
            double += weight2 * value
            quadruple += weight4 * value
            dz = rate * v
            past = [dz, *(past[:-1] if i else [share * v for share in before.flip(0).tolist()])]
            # Boole's rule over four steps, beside what Adams made of them; in nats by the score in the middle
            if i % 4 == 0:
                displaced += (score * (z - boole - 14 * h / 45 * dz)).flatten(1).sum(1)
                boole = z + 14 * h / 45 * dz
            else:
                boole = boole + (24 if i % 4 == 2 else 64) * h / 45 * dz
            if i % 4 == 2:
                score = -z - (1 + (s / float(level.noise_ratio)) ** 2) * v
            if i < steps:
                ahead = z + h * _combined(_PREDICT, past)
                dz = float(rates[i + 1]) * slope(levels[i + 1])(ahead)
                z = z + h * _combined(_CORRECT, [dz, *past])
        log_prob = total - d * math.log(s) + self._end(levels[-1], z, cond)
        if not bool(torch.isfinite(log_prob).all()):
            raise InputError("the flow is not finite: the model has diverged, or x lies far outside its data.")
        fine, coarse = (total - double).abs(), (double - quadruple).abs()
        rule = torch.where(fine < coarse, fine**2 / coarse, fine)
        # differences of the rules that are no more than the probes' own say nothing of the step
        error = displaced.abs() + torch.where(fine <= 3 * doubt.sqrt(), 0.0, rule)
        calls = keys.new_full((len(x),), 2 * steps + 2 + self.centred)
        products = keys.new_full((len(x),), (steps + 1) * self.how.products(d))
        return LogLikelihood(log_prob, variance.sqrt(), error, calls, products, d), error <= self.tolerance

    def _end(self, level: Level, z: Tensor, cond: Tensor | None) -> Tensor:
        """Log-density of z at the upper end, (B,)."""
        s, r = self.denoiser.sigma_data, _spread(level, self.denoiser.sigma_data)
        variance = z.new_ones(1)
        if self.centred:
            # what the denoiser takes for the data's mean when it sees nothing but noise; the same noise for all
            keys = torch.zeros(1 if cond is None else len(cond), dtype=torch.int64, device=z.device)
            xt = float(level.alpha) * r * normal(keys, tuple(z.shape[1:]), 0, z.dtype)
            mean = self.denoiser.predict(xt, level, cond).x0.to(z)
            # of the data's second moment s^2 the mean has its share
            variance = 1 - mean.flatten(1).square().mean(1).clamp(max=s * s) / r**2
            z = z - mean / r
        return -0.5 * (z.flatten(1).square().sum(1) / variance + z[0].numel() * (2 * math.pi * variance).log())


def _trapezoid(i: int, stride: int, steps: int, h: float) -> float:
    """The weight of point i in the trapezoid rule of `stride` steps, with the tail below the first point."""
    if i % stride:
        return 0.0
    end = i in (0, steps)
    return stride * h * (0.5 if end else 1.0) + (0.5 if i == 0 else 0.0)


def _combined(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The sum of slopes by these weights, as many as there are weights."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        total.add_(slope, alpha=weight)
    return total


def _spread(level: Level, s: float) -> float:
    """The standard deviation of y = x/alpha."""
    return math.hypot(s, float(level.noise_ratio))


def reach(denoiser: Denoiser, ratios: tuple[float, float] | None) -> tuple[float, float]:
    """The lowest and the highest noise ratio to integrate between."""
    process = denoiser.process
    if ratios is None:
        first, last = ends(process, denoiser.sigma_data or 1.0)
        # a chain has no level below its first
        lowest = float(process.at(max(first, 1.0) if process.chain else first).noise_ratio)
        if isinstance(denoiser, ExactDenoiser) and not process.chain:
            lowest = _FINEST
        return lowest, float(process.at(last).noise_ratio)
    low, high = ratios
    if not (0 < low < high < math.inf):
        raise InputError(f"ratios={ratios!r} must be two positive numbers, the lower noise ratio first.")
    top = float(process.at(process.t_max).noise_ratio)
    if low >= top:
        raise InputError(f"ratios={ratios!r} lie beyond the clock of {process}, which ends at {top:g}.")
    return low, min(high, top)
