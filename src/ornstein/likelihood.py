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

**Digital data** have probabilities, not densities. The density of a pixel plus noise u within its bin bounds the
probability from below, log P(x) >= E log p(x + u) - log q(u given x), with q uniform (Theis et al. 2016, 1511.01844)
or fitted (Ho et al. 2019, 1902.00275: "variational dequantisation"); several draws within the logarithm tighten it
(Burda et al. 2016, 1509.00519). See `Dequantiser` and `fit_dequantiser`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import deflated_forms, exact_trace, linearised, orthonormal
from ornstein.core.drive import sample_seeds
from ornstein.core.exact import ExactDenoiser
from ornstein.core.grids import ends
from ornstein.core.numerics import Estimate, normal
from ornstein.core.process import Level
from ornstein.data import Levels, Transform
from ornstein.errors import InputError, lookup
from ornstein.memory import keep_freed_memory

#: elements of a sample up to which trace="auto" is exact
EXACT_UP_TO = 128
#: steps of the first attempt, a multiple of four, and how often they are doubled at most
STEPS, DOUBLINGS = 48, 4
#: where steps are shortest, in log(u/s), and over how far tau they grow by half
_CENTRE, _WIDTH = -1.0, 1.5
#: Adams & Bashforth's prediction from the last five slopes, and Moulton's correction with the one ahead first; order 5
_PREDICT = (1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720)
_CORRECT = (251 / 720, 646 / 720, -264 / 720, 106 / 720, -19 / 720)
#: numbers of a batch that are worked on at a time, and samples at most
_AT_ONCE, _ROWS = 2**16, 4096
#: the noise ratio down to which exact denoisers are asked, whose answers are right at any
_FINEST = 1e-4
#: counters of `numerics.normal` that one likelihood may use, and where those of dequantisation begin
_DRAWS, _NOISE = 2**24, 2**31

Pull = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


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


class Noise(Protocol):
    """A law of dequantisation noise within a bin."""

    def __call__(self, x: Tensor, uniform: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """Noise from uniform numbers.

        Args:
            x: (B, *shape) float64, the levels, in data units.
            uniform: (B, *shape) in (0, 1).
            cond: the denoiser's condition.

        Returns:
            u (B, *shape) in (0, 1), and log q(u given x), (B,).
        """


def uniform_noise(x: Tensor, uniform: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
    """Uniform dequantisation: u is the uniform number itself, and log q is zero."""
    return uniform, uniform.new_zeros(len(x))


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    *,
    cond: Tensor | None = None,
    transform: Transform | None = None,
    dequantise: "Noise | Literal['auto', 'none', 'uniform']" = "auto",
    draws: int = 1,
    trace: str = "auto",
    probes: int = 8,
    tolerance: float | None = None,
    prior: Literal["centred", "sampling"] = "centred",
    ratios: tuple[float, float] | None = None,
    seed: int | None = None,
    seeds: "Sequence[int] | Tensor | None" = None,
    progress: Progress | None = None,
) -> LogLikelihood:
    """log p of each sample under a denoiser, by the probability-flow ODE; theory and method at the top of the module.

    Args:
        denoiser: any: trained, exact, of an energy, guided, on any clock.
        x: (B, *shape). Without a transform in model space, and log_prob is a density there; with one in the data's own
            units, and so is log_prob.
        cond: (B, ...) what to condition on, log p(x given cond); None: none.
        transform: from the data's units to model space (`ornstein.data`), with its log-determinant.
        dequantise: for data with levels, so that log_prob is a bound on a log-probability: "uniform", or a
            `Dequantiser`. "auto": uniform if the transform has levels; "none": a density at x as it stands.
        draws: of dequantisation noise, their densities averaged under the logarithm: a bound that rises with their
            number, 1 to 100. From two on standard_error holds their spread (by the jackknife).
        trace: a key of `TRACES`, or "auto": "exact" up to `EXACT_UP_TO` dimensions, else
            "hutchinson".
        probes: products at each step of the two estimates, at least 2 ("hutchinson") or 3 ("hutch++", of which half,
            rounded down, are spent on the subspace).
        tolerance: on `integration_error`, nats; None: 0.01, and in proportion to the dimensions beyond 64. A
            sample that does not reach it in 48 * 2^4 steps says so by its integration_error.
        prior: the law at the upper end, see the module: "centred" or "sampling".
        ratios: lowest and highest noise ratio sigma/alpha to integrate between, cut to the clock's; None: those
            between which sampling asks, and for an exact denoiser from 1e-4 on.
        seed, seeds: of all randomness: a number, or one per sample; neither: 0, so that a likelihood repeats. A
            sample's result is the same in any batch.
        progress: called with (samples done, samples in all).

    Raises:
        InputError: arguments out of range, shapes that do not fit, data off their levels, x that is not finite.
    """
    if x.ndim < 2 or len(x) == 0:
        raise InputError(f"x has shape {tuple(x.shape)}; it must be (number of samples, *shape of one sample).")
    if cond is not None and len(cond) != len(x):
        raise InputError(f"cond has {len(cond)} rows, x {len(x)}: one for each sample.")
    if isinstance(draws, bool) or not isinstance(draws, int) or not 1 <= draws <= 100:
        raise InputError(f"draws={draws!r} must be a whole number from 1 to 100.")
    lookup({"centred": None, "sampling": None}, prior, "prior")
    dims = x[0].numel()
    if tolerance is None:
        tolerance = 0.01 * max(1.0, dims / 64)
    if not tolerance > 0:
        raise InputError(f"tolerance={tolerance!r} must be positive, in nats.")
    how = _Trace.named(trace, probes, dims)
    noise = _noise(dequantise, transform, draws)
    keys = sample_seeds(len(x), 0 if seed is None and seeds is None else seed, seeds, None)
    device = denoiser.device
    keep_freed_memory(device)
    flow = _Flow(denoiser, *_reach(denoiser, ratios), how, tolerance, prior == "centred")
    # an exact trace works on d times the numbers: fewer samples are as fast, and say sooner how far the work is
    numbers = max(dims, dims**2 // 2) if how.name == "exact" else dims
    size = max(1, min(_ROWS, _AT_ONCE // numbers))
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(size):
            part, key = x[rows].to(device), keys[rows].to(device)
            given = None if cond is None else cond[rows].to(device)
            found = [_one_draw(flow, part, given, transform, noise, key, draw) for draw in range(draws)]
            parts.append(found[0] if draws == 1 else _averaged(found))
            if progress is not None:
                progress(int(rows[-1]) + 1, len(x))
    return LogLikelihood(
        torch.cat([part.log_prob for part in parts]).cpu(),
        torch.cat([part.standard_error for part in parts]).cpu(),
        torch.cat([part.integration_error for part in parts]).cpu(),
        torch.cat([part.calls for part in parts]).cpu(),
        torch.cat([part.products for part in parts]).cpu(),
        dims,
    )


@dataclass(frozen=True, eq=False)
class _Flow:
    """The probability-flow ODE of a denoiser between two noise ratios, and how it is to be walked."""

    denoiser: Denoiser
    low: float
    high: float
    how: "_Trace"
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

    def _walk(
        self, x: Tensor, cond: Tensor | None, keys: Tensor, draw: int, steps: int
    ) -> tuple[LogLikelihood, Tensor]:
        """From the data to the noise in so many steps; and which samples need no more of them, (B,)."""
        s, d = self.denoiser.sigma_data, x[0].numel()
        centre = math.log(s) + _CENTRE
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
        levels = self.denoiser.process.levels(times)

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


def _one_draw(
    flow: _Flow,
    x: Tensor,
    cond: Tensor | None,
    transform: Transform | None,
    noise: "Noise | None",
    keys: Tensor,
    draw: int,
) -> LogLikelihood:
    """The likelihood of a batch in its own units, with one draw of dequantisation noise if there is any."""
    x = _wide(x)
    if not bool(torch.isfinite(x).all()):
        raise InputError("x holds values that are not finite.")
    extra = x.new_zeros(len(x))
    if noise is not None:
        u = torch.special.ndtr(normal(keys, tuple(x.shape[1:]), _NOISE + draw, x.dtype))
        u, log_q = noise(x, u.clamp(1e-9, 1 - 1e-9), cond)
        x, extra = x + u - 0.5, -log_q
    if transform is not None:
        extra = extra + transform.log_abs_det(x)
        x = transform.forward(x)
    found = flow.log_prob(x, cond, keys, draw * _DRAWS)
    return replace(found, log_prob=found.log_prob + extra)


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


def _reach(denoiser: Denoiser, ratios: tuple[float, float] | None) -> tuple[float, float]:
    """The lowest and the highest noise ratio to integrate between."""
    process = denoiser.process
    if ratios is None:
        first, last = ends(process)
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


def _wide(x: Tensor) -> Tensor:
    """Sums of many small terms: float64 where the device has it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


# --- the trace --------------------------------------------------------------------------------------------------------


#: how the trace is taken: name -> the fewest probes that it needs
TRACES: dict[str, int] = {"exact": 0, "hutchinson": 2, "hutch++": 3}


@dataclass(frozen=True)
class _Trace:
    """A way to take the trace at one step after another."""

    name: str
    probes: int

    @staticmethod
    def named(name: str, probes: int, dims: int) -> "_Trace":
        if name == "auto":
            name = "exact" if dims <= EXACT_UP_TO else "hutchinson"
        least = lookup(TRACES, name, "trace")
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < least:
            raise InputError(f"probes={probes!r} must be a whole number, at least {least} for trace={name!r}.")
        return _Trace(name, probes)

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


# --- digital data -----------------------------------------------------------------------------------------------------


def _noise(dequantise: "Noise | str", transform: Transform | None, draws: int) -> Noise | None:
    levels = None if transform is None else transform.levels
    if dequantise == "auto":
        dequantise = "none" if levels is None else "uniform"
    if dequantise == "none":
        if draws != 1:
            raise InputError(f"draws={draws} are of dequantisation noise, of which there is none: draws=1.")
        return None
    if levels is None:
        raise InputError("dequantise needs a transform with levels, which says what the bins are: Levels(256).")
    noise: Noise = uniform_noise if dequantise == "uniform" else dequantise  # type: ignore[assignment]
    if isinstance(noise, str):
        raise InputError(f"dequantise={noise!r} must be 'auto', 'none', 'uniform' or a Dequantiser.")

    def checked(x: Tensor, uniform: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        _on_levels(x, levels)
        return noise(x, uniform, cond)

    return checked


def _on_levels(x: Tensor, levels: Levels) -> None:
    off = (x != x.round()) | (x < levels.low) | (x > levels.low + levels.count - 1)
    if bool(off.any()):
        raise InputError(
            f"x holds {float(x[off][0]):g}, which is none of the levels {levels.low} to "
            f"{levels.low + levels.count - 1}: give data in their own units, or dequantise='none'."
        )


def _averaged(found: list[LogLikelihood]) -> LogLikelihood:
    """The mean of several densities; its logarithm's error by the jackknife, which holds that of the probes too."""
    logs, k = torch.stack([each.log_prob for each in found]), len(found)
    # without each in turn, as a sum of the others: a difference would lose their digits
    others = ~torch.eye(k, dtype=torch.bool, device=logs.device)
    without = torch.stack([logs[keep].logsumexp(0) for keep in others])
    return LogLikelihood(
        logs.logsumexp(0) - math.log(k),
        ((k - 1) / k * (without - without.mean(0)).square().sum(0)).sqrt(),
        (logs.softmax(0) * torch.stack([each.integration_error for each in found])).sum(0),
        torch.stack([each.calls for each in found]).sum(0),
        torch.stack([each.products for each in found]).sum(0),
        found[0].dims,
    )


class Dequantiser(nn.Module):
    """Logistic noise within each bin, its place and width by the level and by the slope of the log-density there.

        u = sigmoid(a + exp(b) l),  l standard logistic;     a, b = MLP(level, slope)       for each element

    With a = b = 0, as before fitting, u is uniform: the family holds uniform dequantisation, and fitting only improves
    on it. The slope is the model's own, its score at the centre of the bin times the bin's width; the density within a
    bin is nearly exponential with that rate. One call of the denoiser.

    Made by `fit_dequantiser`; give it to `log_likelihood` as `dequantise`.
    """

    def __init__(self, denoiser: Denoiser, transform: Transform, hidden: int = 32) -> None:
        super().__init__()
        if transform.levels is None:
            raise InputError("a Dequantiser needs a transform with levels, which says what the bins are: Levels(256).")
        self.denoiser, self.transform = denoiser, transform
        self.level = denoiser.process.at(denoiser.process.time(-2 * math.log(_reach(denoiser, None)[0])))
        generator = torch.Generator().manual_seed(0)
        self.inner, self.outer = nn.Linear(3, hidden).double(), nn.Linear(hidden, 2).double()
        with torch.no_grad():
            self.inner.weight.normal_(0, 0.5, generator=generator)
            self.inner.bias.zero_()
            self.outer.weight.zero_()
            self.outer.bias.zero_()

    def slope(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """d log p/dx in data units, (B, *shape), at the lowest noise level; x in data units."""
        shifted = x + 1.0
        z = self.transform.forward(x)
        score = self.denoiser.predict(float(self.level.alpha) * z, self.level, cond).score.to(z)
        # element-wise and affine: the distance of two neighbouring levels is the derivative
        return float(self.level.alpha) * score * (self.transform.forward(shifted) - z)

    def forward(self, x: Tensor, uniform: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """u and log q(u given x): see `Noise`."""
        levels = self.transform.levels
        assert levels is not None
        place = 2 * (x - levels.low) / (levels.count - 1) - 1
        with torch.no_grad():
            slope = self.slope(x, cond)
        # slopes of any size: what is small is told linearly, what is large by its logarithm
        told = torch.stack([place, torch.tanh(slope / 4), torch.asinh(slope)], -1)
        a, b = self.outer(nn.functional.silu(self.inner(told))).unbind(-1)
        logistic = torch.logit(uniform)
        inner = a + b.exp() * logistic
        u = torch.sigmoid(inner).clamp(1e-9, 1 - 1e-9)
        # log of the logistic density at l, over the derivative of u by l
        log_q = nn.functional.logsigmoid(logistic) + nn.functional.logsigmoid(-logistic)
        log_q = log_q - b - nn.functional.logsigmoid(inner) - nn.functional.logsigmoid(-inner)
        return u, log_q.flatten(1).sum(1)


def fit_dequantiser(
    denoiser: Denoiser,
    x: Tensor,
    transform: Transform,
    *,
    cond: Tensor | None = None,
    steps: int = 300,
    batch: int = 128,
    rate: float = 0.01,
    seed: int = 0,
) -> Dequantiser:
    """Fit dequantisation noise to a model, so that the bound E[log p(x + u) - log q(u given x)] is as high as can be.

    The gradient of log p(x + u) by u is the model's score, at its lowest noise level: nothing is differentiated through
    the flow, and a step costs two calls of the denoiser.

    Args:
        denoiser: whose likelihood is to be bounded.
        x: (N, *shape) training data in their own units: whole numbers.
        transform: from there to model space, with levels.
        cond: (N, ...) their conditions.
        steps, batch, rate, seed: of Adam, its rate falling to zero linearly.

    Raises:
        InputError: a transform without levels, data off them.
    """
    made = Dequantiser(denoiser, transform).to(denoiser.device)
    assert transform.levels is not None
    _on_levels(x, transform.levels)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(made.parameters(), lr=rate)
    for step in range(steps):
        chosen = torch.randint(len(x), (min(batch, len(x)),), generator=generator)
        part = x[chosen].to(denoiser.device).double()
        given = None if cond is None else cond[chosen].to(denoiser.device)
        uniform = torch.rand(part.shape, generator=generator, dtype=torch.float64).to(part)
        u, log_q = made(part, uniform.clamp(1e-9, 1 - 1e-9), given)
        with torch.no_grad():
            slope = made.slope(part + u - 0.5, given)
        # its gradient by u is the score
        gain = (slope * u).flatten(1).sum(1) - log_q
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        (-gain.mean() / part[0].numel()).backward()
        optimiser.step()
    return made.requires_grad_(False)
