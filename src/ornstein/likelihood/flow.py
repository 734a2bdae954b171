"""The exact log-density of a diffusion model, by its probability-flow ODE.

Noising spreads the data out; the probability-flow ODE does so without randomness. The density of a point is therefore
the density at the end of its path, where it is effectively N(0, I), times how much the flow stretched on the way (Chen
et al. 2018, 1806.07366; Song et al. 2021, 2011.13456, section 4.3). The flow is the same on every clock: in y = x/alpha
and u = sigma/alpha it reads dy/du = (y - x0)/u. Also divide out the spread of y, with s the data's standard deviation,

    z = y/sqrt(s^2 + u^2),     tau = log u,     dz/dtau = v(z) = (s^2 z/r - x0(r z))/r,     r = sqrt(s^2 + u^2),

and there is no needless motion: for Gaussian data of that deviation v is zero. The log-density follows,

    log p(x) = log p_T(z_T) + integral of div v dtau - d log s        (z = x/s where u = 0).

**The quadrature.** v and its divergence fade like u^2 below the data's finest scale and like 1/u^2 above its
coarsest. For such a function on the whole line the plain trapezoid rule converges faster than any power of its step
(Trefethen & Weideman 2014, SIAM Review 56:385), in any smooth clock: in that of q,

    tau = log s - 1 + 1.5 sinh(q/1.5),

even steps are short where data have structure, within about tenfold of s/e, and long where there is none. The flow goes
along the same steps by Adams' methods of order 5, Bashforth's prediction and Moulton's correction: two calls a step,
whose past is known from the first step on, since v falls as u^2 below. So the divergence, which is the costly part, is
computed once a step, while an adaptive solver of both equations together needs it at each of its stages. About fifty
evaluations give three decimals of a nat.

**Its error** is estimated for each sample: from the rules of two and four times the step, whose values are known
already (with e = |T_h - T_2h|, e' = |T_2h - T_4h| and p = e/e', halving the step for ever would change the result by
e (p + p^2 + ..), of which twice is stated); and from what Boole's rule gives for the same steps of the flow, times the
score, which is what a displaced z costs in nats. Only samples whose estimate exceeds the tolerance are repeated with
half the step. The step therefore depends on the sample alone, and its likelihood does not depend on the batch. If the
integrand is cut before it has vanished, the rule has Euler & Maclaurin's correction for it.

**The lower end.** No network is asked below the smallest noise ratio that sampling asks at, 0.002 (the first level of
a chain). From zero up to there the integrals are those of functions proportional to u^2, half the value at the end,
with a small part in u^4, found from the first two levels. Twice the contribution of that part is included in the
stated error: more may be left if the first level is near the size of the finest structure.

**The upper end** uses the distribution of noisy data there, measured through the denoiser's own score ("centred",
`ornstein.likelihood.end`): effectively a Gaussian if the clock ends with much noise, some other if signal is left.
Its uncertainty is included in the stated error. Samplers start from N(0, alpha^2 s^2 + sigma^2) ("sampling"): this
gives the density of what they draw by the ODE, and that of the data as far as the Gaussian is q_T. It is off by
about |m|/u in log-density if u is not yet large against the data's mean (0.02 nats in 64 dimensions at u = 160).

**The trace** of the Jacobian is exact up to `EXACT_UP_TO` dimensions: d backward passes through one forward pass,
many at a time. Beyond, random probes estimate it (`core.divergence`): "hutchinson", whose signs see no error in the
diagonal, where the Jacobian of a denoiser of images is largest; or "hutch++", which first takes out exactly a
subspace that follows the flow, each step's products making the next one's basis, for data that vary in few
directions. Probes are fresh at each step, so that their errors average out along the flow; with one probe for the
whole flow, the usual practice, they add up (Grathwohl et al. 2019, 1810.01367). Two or more at each step also give the
standard error: the variances of the steps, weighted as the quadrature weighs them, add.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import deflated_forms, exact_trace, linearised, orthonormal
from ornstein.core.exact import ExactDenoiser
from ornstein.core.grids import ends
from ornstein.core.numerics import Estimate, normal, widening
from ornstein.core.process import Level
from ornstein.errors import InputError, lookup
from ornstein.likelihood.end import EndLaw

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
            more) of dequantisation, from its expectation: widened by Student's t, so that 1.96 of it cover 95 % however
            few probes or draws. Zero for an exact trace of continuous data.
        integration_error: (B,) float64, nats: an estimate, on the high side, of the error of the integrals and of the
            distribution at the upper end, as far as it shows above that of the probes.
        calls: (B,) int64, evaluations of the denoiser.
        products: (B,) int64, backward passes.
        dims: elements of one sample; (B,) where samples have holes, those that were seen.
    """

    log_prob: Tensor
    standard_error: Tensor
    integration_error: Tensor
    calls: Tensor
    products: Tensor
    dims: int | Tensor

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
        """The part of the trace known exactly, (B,); independent estimates of the rest, (m, B); what to remember."""
        if self.name == "exact":
            return exact_trace(pull, z), None, None
        shape = tuple(z.shape[1:])
        half = 0 if self.name == "hutchinson" else self.probes // 2
        drawn = normal(keys, shape, range(draw + (0 if memory is None else half), draw + self.probes), z.dtype)
        probes = drawn[half - self.probes :]
        if self.name == "hutchinson":
            signs = torch.where(probes >= 0, 1.0, -1.0).to(z)
            return z.new_zeros(len(z)), (pull(signs) * signs).flatten(2).sum(2), None
        start = pull(drawn[: min(half, z[0].numel())]) if memory is None else memory
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
    _end: list[EndLaw] = field(default_factory=list, repr=False)

    def log_prob(self, x: Tensor, condition: Condition, keys: Tensor, draw: int) -> LogLikelihood:
        """log p in model space of x (B, *shape), with steps halved for the samples that need it."""
        found, settled = self._walk(x, condition, keys, draw, STEPS)
        left, steps = (~settled).nonzero().flatten(), STEPS
        for _ in range(DOUBLINGS):
            if len(left) == 0:
                break
            draw += (steps + 1) * self.how.probes
            steps *= 2
            again, settled = self._walk(x[left], condition[left], keys[left], draw, steps)
            found.log_prob[left], found.standard_error[left] = again.log_prob, again.standard_error
            found.integration_error[left] = again.integration_error
            found.calls[left] += again.calls
            found.products[left] += again.products
            left = left[~settled]
        return found

    def _points(self, steps: int) -> tuple[list[Level[float]], Tensor, Tensor, float]:
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
        return self.denoiser.process.levels(times), rates, before, h

    def _walk(  # long: one quadrature, whose ten sums move together
        self, x: Tensor, condition: Condition, keys: Tensor, draw: int, steps: int
    ) -> tuple[LogLikelihood, Tensor]:
        """From the data to the noise in so many steps; and which samples need no more of them, (B,)."""
        s, d = self.denoiser.sigma_data, x[0].numel()
        levels, rates, before, h = self._points(steps)

        def slope(level: Level[float]) -> Callable[[Tensor], Tensor]:
            alpha, r = level.alpha, _spread(level, s)
            return lambda z: (s * s / r * z - self.denoiser.predict(alpha * r * z, level, condition).x0.to(z)) / r

        # up to the lowest level v grows as u^2, and a little as u^4: its integral from zero by what it is at two levels
        bent = _bent(float(levels[0].noise_ratio), float(levels[1].noise_ratio))
        first, second = (slope(level)(x / _spread(level, s)) for level in levels[:2])
        shift = bent[0] * first + bent[1] * second
        z = x / s + first / 2 + shift
        total, double, quadruple, tail, variance, fourth, doubt, displaced = (x.new_zeros(len(x)) for _ in range(8))
        boole, score = z, torch.zeros_like(z)
        memory: Tensor | None = None
        past: list[Tensor] = []
        for i, (level, rate) in enumerate(zip(levels, rates.tolist(), strict=True)):
            v, pull = linearised(slope(level), z)
            known, forms, memory = self.how.forms(pull, z, keys, draw + i * self.how.probes, memory)
            del pull
            below = bent[i] if i < len(bent) else 0.0
            weight, weight2, weight4 = (below + _trapezoid(i, stride, steps, h, rate) for stride in (1, 2, 4))
            value = known
            if forms is not None:
                value = known + forms.mean(0)
                spread = forms.var(0) / len(forms)
                variance += weight**2 * spread
                # E[spread^2] is (m + 1)/(m - 1) of what it estimates, squared: an m-th part of the sum of V^2/(m - 1)
                fourth += (weight**2 * spread) ** 2 / (len(forms) + 1)
                doubt += (weight - weight2) ** 2 * spread
            tail += below * value
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
                score = -z - (1 + (s / level.noise_ratio) ** 2) * v
                if i == 2:
                    moved = (score * shift).flatten(1).sum(1)
            if i < steps:
                ahead = z + h * _combined(_PREDICT, past)
                dz = float(rates[i + 1]) * slope(levels[i + 1])(ahead)
                z = z + h * _combined(_CORRECT, [dz, *past])
        end, doubt_of_end, asked = self._at_the_end(levels[-1], z, condition)
        log_prob = total - d * math.log(s) + end
        if not bool(torch.isfinite(log_prob).all()):
            raise InputError("the flow is not finite: the model has diverged, or x lies far outside its data.")
        fine, coarse = (total - double).abs(), (double - quadruple).abs()
        share = (fine / coarse.clamp(min=1e-300)).clamp(max=0.5)
        rule = fine * share / (1 - share)
        # differences of the rules that are no more than the probes' own say nothing of the step
        rule = torch.where(fine <= 3 * doubt.sqrt(), 0.0, rule)
        error = displaced.abs() + rule
        products = keys.new_full((len(x),), (steps + 1) * self.how.products(d))
        # shorter steps do not help against what is not of the steps
        lower = moved.abs() + torch.where(tail.abs() <= 3 * variance.sqrt(), 0.0, tail.abs())
        stated = error + rule + doubt_of_end + 2 * lower
        # as many degrees of freedom as the steps' variances have together (Satterthwaite 1946)
        spread = variance.sqrt() * widening(variance**2 / fourth.clamp(min=1e-300))
        found = LogLikelihood(log_prob, spread, stated, asked + 2 * steps + 3, products, d)
        return found, error <= self.tolerance

    def _at_the_end(self, level: Level[float], z: Tensor, condition: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """Log-density of z at the upper end, its error in nats, and calls of the denoiser for it: (B,) each."""
        if not self.centred:
            d = z[0].numel()
            value = -0.5 * (z.flatten(1).square().sum(1) + d * math.log(2 * math.pi))
            return value, torch.zeros_like(value), torch.zeros_like(value, dtype=torch.int64)
        if not self._end:
            self._end.append(EndLaw(self.denoiser, level, 0.5 * self.tolerance))
        return self._end[0].log_prob(z, condition)


def _trapezoid(i: int, stride: int, steps: int, h: float, rate: float) -> float:
    """The weight of point i in the trapezoid rule of `stride` steps, with the tail below the first point.

    At the two ends it has Euler & Maclaurin's correction, h^2/12 of the derivative there by q of rate times the
    divergence, which falls outwards as u^2 or 1/u^2: it is what is left of an integrand cut before it has vanished.
    """
    if i % stride:
        return 0.0
    h *= stride
    if i not in (0, steps):
        return h * rate
    bend = math.sqrt(max(rate * rate - 1, 0.0)) / _WIDTH  # of tau by q, twice
    return 0.5 * h * rate + h * h / 12 * (2 * rate * rate - bend) + (0.5 if i == 0 else 0.0)


def _bent(first: float, second: float) -> tuple[float, float]:
    """What the tail below the first point has beside half the divergence there: its next power of u.

    Of a u^2 + b u^4 the integral over tau from below is a u^2/2 + b u^4/4; b from the first two points.
    """
    b = -0.25 * first**4 / (second**2 - first**2)
    return -b / first**2, b / second**2


def _combined(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """The sum of slopes by these weights, as many as there are weights."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        total.add_(slope, alpha=weight)
    return total


def _spread(level: Level[float], s: float) -> float:
    """The standard deviation of y = x/alpha."""
    return math.hypot(s, level.noise_ratio)


def reach(denoiser: Denoiser, ratios: tuple[float, float] | None) -> tuple[float, float]:
    """The lowest and the highest noise ratio to integrate between."""
    process = denoiser.process
    if ratios is None:
        first, last = ends(process, denoiser.unit)
        # a chain has no level below its first
        lowest = process.at(max(first, 1.0) if process.chain else first).noise_ratio
        if isinstance(denoiser, ExactDenoiser):
            lowest = _FINEST
        return lowest, process.at(last).noise_ratio
    low, high = ratios
    if not (0 < low < high < math.inf):
        raise InputError(f"ratios={ratios!r} must be two positive numbers, the lower noise ratio first.")
    top = process.at(process.t_max).noise_ratio
    if low >= top:
        raise InputError(f"ratios={ratios!r} lie beyond the clock of {process}, which ends at {top:g}.")
    return low, min(high, top)
