"""The best solver for one model at K calls: fitted to where its own trajectories end.

Orders of convergence say what a solver does as steps become many. At five or ten calls they say little: what counts is
how this model's answers change along its own trajectories, and those can be had for the price of some drawing. Follow
N trajectories of the probability-flow ODE finely, from noise z_n to their ends y_n; then choose the levels and the
weights of a linear multistep method (`ornstein.samplers.tuned`: K levels, some K^2/2 numbers) so that K calls arrive
as nearly as they can,

    minimise  (1/N) sum_n |solve_K(z_n) - y_n|,

the mean distance and not its square, or the few trajectories on a watershed between two modes would decide everything.
The gradient goes back through the K calls to levels and weights. There are so few unknowns that L-BFGS (Liu & Nocedal
1989) on one fixed set of trajectories settles them in a few hundred rounds. It starts from the best of some known
methods, each a point of the space that is searched. On these trajectories it can only come nearer; whether it does on
others is to be seen on fresh noise, which is what `endpoint_error` is for.

Fitted solvers: Watson et al. 2022 (2202.05830), to sample quality; Tong et al. 2024 (2405.15506), levels, to a
teacher's ends; Frankel et al. 2025 (2502.17423) and Wang et al. 2025 (2505.21114), levels and weights. The network is
not touched.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ornstein.core.denoiser import Denoiser, Reclocked
from ornstein.core.drive import Stepper, sample_seeds, trajectory
from ornstein.core.grids import NOISE_RATIOS, times
from ornstein.core.numerics import Estimate, normal
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.samplers.exponential import Multistep, UniPC
from ornstein.samplers.tuned import Tuned, as_tuned

#: what fitting starts from: the best of these on these grids
_STARTS: tuple[Stepper, ...] = (UniPC(order=5, clock="signal", last=3), UniPC(order=3, clock="signal", last=3),
                                Multistep(order=2, clock="signal", last=3))  # fmt: skip
_GRIDS = ("flow", "power", "uniform", "logsnr")
#: numbers in all the ends that are fitted to: in few dimensions more trajectories are needed, and cost little
_NUMBERS = 2**16


def endpoints(
    denoiser: Denoiser, x: Tensor, *, steps: int = 200, grid: "str | None" = None, cond: Tensor | None = None,
    batch: int = 256,
) -> Tensor:  # fmt: skip
    """Where the probability-flow trajectories from x end, as near as `steps` calls of a high-order method can say.

    Args:
        denoiser: of the ODE.
        x: (N, ...) at the first level of the grid.
        steps, grid: of the solve: "flow" if no grid is named.
        cond: (N, ...) the condition.
        batch: samples at a time.
    """
    return _arrive(denoiser, x, UniPC(order=4, clock="signal"), times(denoiser.process, steps, grid or "flow"), cond,
                   batch)  # fmt: skip


def endpoint_error(
    denoiser: Denoiser, x: Tensor, ends: Tensor, stepper: Stepper, grid: "str | Sequence[float] | Tensor | None" = None,
    *, calls: int, cond: Tensor | None = None, batch: int | None = None,
) -> Estimate:  # fmt: skip
    """The mean distance |solve(x) - end|, per sample, of a deterministic method at a number of network calls.

    Args:
        x, ends: (N, ...) noise at the grid's first level, and where it ends: see `endpoints`.
        stepper, grid: the method; a `Tuned` brings its grid.
        calls: what may be spent on each sample; a method of two calls a step gets half the steps.
    """
    grid = stepper.grid if isinstance(stepper, Tuned) else grid
    per_step = stepper.calls or 1
    # the last step is one call whatever the method
    given = times(denoiser.process, 1 + (calls - 1) // per_step, grid)
    found = _arrive(denoiser, x, stepper, given, cond, batch)
    return Estimate.of((found - ends).flatten(1).norm(dim=1))


def fit_endpoint(
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    *,
    count: int | None = None,
    cond: Tensor | None = None,
    rounds: int = 200,
    teacher_steps: int = 200,
    batch: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Fit levels and weights to this denoiser for `steps` network calls.

    Args:
        denoiser: whose trajectories to fit; gradients flow through it, its parameters are left alone.
        shape: of one sample.
        steps: K, network calls of the solver, in [1, 64].
        count: trajectories to fit to; None for 65,536 numbers in all, but 256 to 2,048 samples.
        cond: (count, ...) conditions, one for each trajectory.
        rounds: of L-BFGS; each costs about three times K calls on every trajectory.
        teacher_steps: calls for finding out where each trajectory ends.
        batch: samples at a time: what memory allows, K calls deep; None for 65,536 numbers.
        seed: of the noise that the trajectories start from.
        dtype: of the trajectories: float32 or float64.
        progress: called with (rounds made, rounds).

    Returns:
        The stepper, with its grid: sample(denoiser, ..., stepper=tuned, grid=tuned.grid).

    Raises:
        InputError: numbers out of range; a model whose trajectories do not end in finite numbers.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 64:
        raise InputError(f"steps={steps!r} must be a whole number in [1, 64].")
    for name, value in (("count", count), ("rounds", rounds), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} must be a positive whole number.")
    shape = tuple(shape)
    batch = batch or _batch(shape)
    if count is None:
        count = len(cond) if cond is not None else trajectories(shape)
    if cond is not None and len(cond) != count:
        raise InputError(f"cond has {len(cond)} rows; it must have one for each of the {count} trajectories.")
    process = denoiser.process
    x = starting_noise(denoiser, (count, *shape), seed, dtype)
    cond = None if cond is None else cond.to(denoiser.device)
    ends = endpoints(denoiser, x, steps=teacher_steps, cond=cond, batch=batch)
    if not bool(torch.isfinite(ends).all()):
        raise InputError("the trajectories of this denoiser do not end in finite numbers: there is nothing to fit to.")
    starts: list[tuple[float, int, Tuned]] = []
    for grid in _GRIDS:
        for stepper in _STARTS:
            start = as_tuned(stepper, process, times(process, steps, grid))
            error = endpoint_error(denoiser, x, ends, start, calls=steps, cond=cond, batch=batch).value
            starts.append((error if math.isfinite(error) else math.inf, len(starts), start))
    start = min(starts)[2]
    if steps == 1:
        return start
    # on a clock read off another, levels carry no gradient: it is fitted on the denoiser's own, and read back
    home = denoiser
    while isinstance(home, Reclocked):
        home = home.base
    unknowns = _Unknowns(process, home.process, start)
    vector = unknowns.of(start).requires_grad_()
    x = unknowns.at_home(x)
    best, least = start, math.inf

    def mean_distance() -> float:
        """The mean over all trajectories; its gradient is gathered a batch at a time. The best so far is kept."""
        nonlocal best, least
        total, gradient = 0.0, torch.zeros_like(vector)
        for k in range(0, count, batch):
            part = slice(k, k + batch)
            with torch.enable_grad():
                arrived = unknowns.arrive(home, x[part], vector, None if cond is None else cond[part])
                # the norm has no gradient at nought
                distance = ((arrived - ends[part]).flatten(1).square().sum(1) + 1e-12).sqrt().sum() / count
                # of the unknowns alone: a network's parameters keep whatever gradient they have
                gradient += torch.autograd.grad(distance, vector)[0]
            total += float(distance.detach())
        vector.grad = gradient
        if not math.isfinite(total) or not bool(torch.isfinite(gradient).all()):
            vector.grad.zero_()
            return math.inf
        if total < least:
            best, least = unknowns.tuned(vector.detach()), total
        return total

    search = torch.optim.LBFGS(
        [vector], max_iter=10, max_eval=20, history_size=40, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )
    for made in range(0, rounds, 10):
        before = least
        search.step(mean_distance)  # ten rounds; what it knows of the curvature is kept for the next ten
        if progress is not None:
            progress(min(made + 10, rounds), rounds)
        if least > before * (1 - 1e-4):
            break
    return best


def trajectories(shape: Sequence[int]) -> int:
    """How many to fit to: 65,536 numbers in all, but from 256 to 2,048 samples."""
    return min(max(_NUMBERS // math.prod(shape), 256), 2048)


def starting_noise(denoiser: Denoiser, shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What `ornstein.sample` starts from with this seed, (N, ...), at the first level of the default grid."""
    keys = sample_seeds(shape[0], seed, None, None).to(denoiser.device)
    first = denoiser.process.at(float(times(denoiser.process, 1)[0]))
    spread = math.sqrt((float(first.alpha) * denoiser.sigma_data) ** 2 + float(first.sigma) ** 2)
    return spread * normal(keys, tuple(shape[1:]), 0, dtype)


def _batch(shape: Sequence[int]) -> int:
    return max(1, min(_NUMBERS // math.prod(shape), 4096))


def _arrive(
    denoiser: Denoiser, x: Tensor, stepper: Stepper, grid: Tensor, cond: Tensor | None, batch: int | None
) -> Tensor:
    """Where a deterministic method takes x, a batch at a time."""
    found = []
    batch = batch or _batch(x.shape[1:])
    for k in range(0, len(x), batch):
        part = x[k : k + batch]
        given = None if cond is None else cond[k : k + batch]
        *_, last = trajectory(denoiser, part.shape, stepper, grid=grid, x=part, dtype=x.dtype, seed=0, cond=given)
        found.append(last.x)
    return torch.cat(found)


class _Unknowns:
    """A vector of what is fitted, and the method that it is: log steps in log(sigma/alpha), drift, weights."""

    def __init__(self, process: Process, home: Process, start: Tuned) -> None:
        self.process, self.home = process, home
        self.steps, self.first = len(start.grid) - 1, start.grid[0]
        asked = process.at(self.first)
        self.begin = home.at(home.time(asked.log_snr))
        #: what a change of clock does to x
        self.scale = math.hypot(*map(float, (self.begin.alpha, self.begin.sigma))) / math.hypot(
            *map(float, (asked.alpha, asked.sigma))
        )
        # steps are counted from here: from no signal at all the first would be without end
        self.top = min(math.log(NOISE_RATIOS[1]), -0.5 * float(asked.log_snr))

    def of(self, tuned: Tuned) -> Tensor:
        """The vector of a method, float64."""
        inner = torch.tensor(tuned.grid[1:-1], dtype=torch.float64)
        ratios = torch.cat([inner.new_tensor([self.top]), -0.5 * self.process.log_snr(inner)])
        # the last weight is what the others leave of one
        rows = [torch.tensor(row, dtype=torch.float64) for row in tuned.weights]
        rows[-1] = rows[-1][:-1]
        return torch.cat([(-ratios.diff()).clamp(min=1e-3).log(), inner.new_tensor(tuned.drift), *rows])

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """log(sigma/alpha) of the levels after the first, the drift, and the rows of weights."""
        k = self.steps
        ratios = self.top - vector[: k - 1].exp().cumsum(0)
        rows = list(vector[2 * k - 2 :].split([*range(1, k), k - 1]))
        rows[-1] = torch.cat([rows[-1], (1 - rows[-1].sum())[None]])
        return ratios, vector[k - 1 : 2 * k - 2], rows

    def tuned(self, vector: Tensor) -> Tuned:
        """The method of a vector."""
        ratios, drift, rows = self.split(vector)
        inner = self.process.time(-2 * ratios)
        assert isinstance(inner, Tensor)
        return Tuned((self.first, *inner.tolist(), 0.0), tuple(drift.tolist()), tuple(tuple(r.tolist()) for r in rows))

    def at_home(self, x: Tensor) -> Tensor:
        """Data at the first level, on the clock that is fitted on."""
        return self.scale * x

    def arrive(self, denoiser: Denoiser, x: Tensor, vector: Tensor, cond: Tensor | None) -> Tensor:
        """Where the method of the vector takes x, differentiably."""
        ratios, drift, rows = self.split(vector)
        with torch.no_grad():
            t = self.home.time(-2 * ratios)
            assert isinstance(t, Tensor)
            alpha_rate, sigma_rate = self.home._rates(t)
            slope = 2 * (alpha_rate / self.home.alpha(t) - sigma_rate / self.home.sigma(t))
        # one step of Newton's from the time already found: the inverse function, with its derivative
        t = t + (-2 * ratios - self.home.log_snr(t)) / slope
        alphas, sigmas = self.home.alpha(t), self.home.sigma(t)
        alpha, sigma = (torch.tensor(float(v), dtype=torch.float64) for v in (self.begin.alpha, self.begin.sigma))
        answers = []
        for i in range(self.steps):
            level = self.begin if i == 0 else self.home.at(t[i - 1].expand(len(x)), like=x)
            answers.append(denoiser(x, level, cond).x0)
            mixed = sum(weight.to(x) * answer for weight, answer in zip(rows[i], answers, strict=True))
            assert isinstance(mixed, Tensor)
            if i == self.steps - 1:
                return mixed
            ratio = sigmas[i] / sigma
            x = (ratio * (1 + drift[i])).to(x) * x + (alphas[i] - ratio * alpha).to(x) * mixed
            alpha, sigma = alphas[i], sigmas[i]
        raise AssertionError("unreachable")
