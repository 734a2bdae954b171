"""The log-likelihood of data in their own units, many samples at a time: the public function.

Data are dequantised (`digital`) and carried to model space with the log-determinant of that map, and their density
there is found along the flow (`flow`). For a model of latents it is a bound, through the codec (`through`). A sample's
random numbers come from its own seed and counter, so its result depends neither on its batch nor on how many samples
are worked on at a time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import SEEN, Denoiser
from ornstein.core.drive import sample_seeds
from ornstein.core.gaps import OnSeen
from ornstein.core.numerics import normal
from ornstein.data import Coded, Transform
from ornstein.errors import InputError, lookup
from ornstein.likelihood.digital import BinNoise, averaged, noise_within
from ornstein.likelihood.flow import LogLikelihood, ProbabilityFlow, Trace, reach
from ornstein.likelihood.through import drawn_latents, loses

#: numbers of a batch that are worked on at a time, and samples at most
_AT_ONCE, _ROWS = 2**16, 4096
#: counters of `numerics.normal` that one likelihood may use, and where those of dequantisation begin
_DRAWS, _NOISE = 2**24, 2**31

Progress = Callable[[int, int], None]


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    *,
    condition: Given = None,
    transform: Transform | None = None,
    dequantise: BinNoise | Literal["auto", "none", "uniform"] = "auto",
    draws: int = 1,
    trace: str = "auto",
    probes: int = 8,
    tolerance: float | None = None,
    prior: Literal["centred", "sampling"] = "centred",
    ratios: tuple[float, float] | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    progress: Progress | None = None,
) -> LogLikelihood:
    """log p of each sample under a denoiser, by the probability-flow ODE; theory and method in `likelihood.flow`.

    Args:
        denoiser: any: trained, exact, of an energy, guided, on any clock.
        x: (B, *shape), in the data's own units with a transform, else in model space; log_prob is a density in the same
            units. NaN where not seen, for a denoiser with `gaps`: then log_prob is the marginal of the seen cells
            alone, exact for the model like everything else here.
        condition: what to condition on, log p(x given condition), with B rows; see `Condition.of`.
        transform: from the data's units to model space (`ornstein.data`), with its log-determinant. If it goes to the
            latents of a lossy codec, log_prob is a lower bound (`likelihood.through`).
        dequantise: for data with levels, so that log_prob is a bound on a log-probability: "uniform", or a
            `Dequantiser`. "auto": uniform if the transform has levels; "none": a density at x as it stands.
        draws: how many draws of dequantisation noise, 1 to 100, whose densities are averaged under the logarithm: a
            bound that rises with their number. From two on standard_error includes their spread (by the jackknife).
        trace: a key of `TRACES`, or "auto": "exact" up to `EXACT_UP_TO` dimensions, else
            "hutchinson".
        probes: products at each step of the two estimates, at least 2 ("hutchinson") or 3 ("hutch++", of which half,
            rounded down, are spent on the subspace).
        tolerance: on the error of the steps, nats; None: 0.01, and in proportion to the dimensions beyond 64. For a
            sample that does not reach it in 48 * 2^4 steps, integration_error shows it; that also includes the error
            at the two ends.
        prior: the distribution at the upper end, see `likelihood.flow`: "centred" or "sampling".
        ratios: lowest and highest noise ratio sigma/alpha to integrate between, cut to the clock's; None: those
            between which sampling asks, and for an exact denoiser from 1e-4 on.
        seed, seeds: of all randomness: a number, or one per sample; by default 0, so that a likelihood repeats. A
            sample's result is the same in any batch.
        progress: called with (samples done, samples in all).

    Raises:
        InputError: arguments out of range, shapes that do not fit, data off their levels, x that is not finite; holes
            in data with levels, or for a model that was not trained with any.
    """
    known = Condition.of(condition)
    _check(x, known, draws, prior)
    if dequantise != "auto" and loses(transform):
        raise InputError(f"dequantise={dequantise!r} is of densities of x; in latents of a codec leave it 'auto'.")
    dims = x[0].numel()
    if x.is_floating_point() and bool((seen := ~x.isnan()).logical_not().any()):
        x, known, beyond = _without_holes(denoiser, x, seen, known, transform)
        denoiser = OnSeen(denoiser)
        found = log_likelihood(
            denoiser, x, condition=known, transform=transform, dequantise="none", trace=trace, probes=probes,
            tolerance=tolerance, prior=prior, ratios=ratios, seed=seed, seeds=seeds, progress=progress,
        )  # fmt: skip
        return replace(found, log_prob=found.log_prob - beyond, dims=seen.flatten(1).sum(1).cpu())
    wide = math.prod(transform.shape(tuple(x.shape[1:]))) if transform is not None else dims
    if tolerance is None:
        tolerance = 0.01 * max(1.0, wide / 64)
    if not tolerance > 0:
        raise InputError(f"tolerance={tolerance!r} must be positive, in nats.")
    how = Trace.named(trace, probes, wide)
    noise = None if loses(transform) else noise_within(dequantise, transform and transform.plain, draws)
    keys = sample_seeds(len(x), 0 if seed is None and seeds is None else seed, seeds, None)
    device = denoiser.device
    flow = ProbabilityFlow(denoiser, *reach(denoiser, ratios), how, tolerance, prior == "centred")
    # an exact trace works on d times the numbers: fewer samples are as fast, and say sooner how far the work is
    numbers = max(dims, wide**2 // 2 if how.name == "exact" else wide)
    size = max(1, min(_ROWS, _AT_ONCE // numbers))
    parts = []
    with torch.no_grad():
        for rows in torch.arange(len(x)).split(size):
            part, key = x[rows].to(device), keys[rows].to(device)
            given = known[rows].to(device)
            drawn = [_one_draw(flow, part, given, transform, noise, key, draw) for draw in range(draws)]
            parts.append(drawn[0] if draws == 1 else averaged(drawn))
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


def _without_holes(
    denoiser: Denoiser, x: Tensor, seen: Tensor, condition: Condition, transform: Transform | None
) -> tuple[Tensor, Condition, Tensor]:
    """x (B, *shape) with each hole at the 0 of model space; the condition with `SEEN`; and log p beyond that of x."""
    if not denoiser.gaps:
        raise InputError(
            f"x has {int((~seen).sum()):,} cells missing (NaN), and this model was not trained on data with gaps, so "
            "it knows no law of some cells alone; score complete samples, or train on data with gaps."
        )
    if not bool(seen.flatten(1).any(1).all()):
        raise InputError("x has a sample without any value: there is nothing to score.")
    if transform is not None and transform.levels is not None:
        raise InputError("x has cells missing and levels, whose probability is not known together.")
    x, beyond = _wide(x), OnSeen(denoiser).surplus(seen)
    whole = torch.where(seen, x, 0.0)
    if transform is not None:
        whole = torch.where(seen, x, transform.inverse(torch.zeros_like(x)))
        with torch.enable_grad():  # element by element, as transforms are
            leaf = whole.clone().requires_grad_()
            (slope,) = torch.autograd.grad(transform.forward(leaf).sum(), leaf)
        beyond = beyond + torch.where(seen, 0.0, slope.abs().log()).flatten(1).sum(1)
    return whole, Condition({**condition.parts, SEEN: seen.float()}), beyond.cpu()


def _check(x: Tensor, condition: Condition, draws: int, prior: str) -> None:
    if x.ndim < 2 or len(x) == 0:
        raise InputError(f"x has shape {tuple(x.shape)}; it must be (number of samples, *shape of one sample).")
    condition.matches(len(x), "x")
    if isinstance(draws, bool) or not isinstance(draws, int) or not 1 <= draws <= 100:
        raise InputError(f"draws={draws!r} must be a whole number from 1 to 100.")
    lookup({"centred": None, "sampling": None}, prior, "prior")


def _one_draw(
    flow: ProbabilityFlow,
    x: Tensor,
    condition: Condition,
    transform: Transform | None,
    noise: BinNoise | None,
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
        u, log_q = noise(x, u.clamp(1e-9, 1 - 1e-9), condition)
        x, extra = x + u - 0.5, -log_q
    if isinstance(transform, Coded) and loses(transform):
        eps = normal(keys, transform.latent, _NOISE + draw, x.dtype)
        x, extra = drawn_latents(transform, x, eps)
    elif transform is not None:
        extra = extra + transform.log_abs_det(x)
        x = transform.forward(x)
    found = flow.log_prob(x, condition, keys, draw * _DRAWS)
    return replace(found, log_prob=found.log_prob + extra)


def _wide(x: Tensor) -> Tensor:
    """Sums of many small terms: float64 where the device has it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
