"""The best solver for one model at K calls, fitted to where the model's own trajectories end.

Orders of convergence say what a solver does as steps become many. At five or ten calls they say little: what counts is
how this model's answers change along its own trajectories, which cost only some drawing to compute. Follow N
trajectories of the probability-flow ODE finely, from noise z_n to their ends y_n; then choose the levels and the
weights of a linear multistep method (`ornstein.samplers.tuned`: K levels, about K^2/2 numbers) so that K calls arrive
as near as possible,

    minimise  (1/N) sum_n |solve_K(z_n) - y_n|.

This is the mean distance and not its square, or the few trajectories on a watershed between two modes would decide
everything. Even in the mean they weigh so much that the search stalls on them; so most of the rounds minimise the mean
*root* of the distance, in which every trajectory counts, and only the last ones the mean.
The first level is one of the unknowns. At the top of the clock the network sees only noise and answers with the mean of
the data; a solver that begins lower, from the same noise at the scale of that level, saves this call at the price of a
small error of the state there.

The gradient goes back through the K calls to levels and weights. There are so few unknowns that L-BFGS (Liu & Nocedal
1989) on one fixed set of trajectories finds them in a few hundred rounds. It starts from known methods, each a point of
the search space. From each of several starts it makes a few rounds on a part of the trajectories; from the best of them
it makes many, including the weights that lean on each sample's own path; and the rest of the rounds use all
trajectories. On these the error can only fall; whether it falls on others must be checked on fresh noise, with
`endpoint_error`. Few of a thousand trajectories pass near a watershed, yet they carry much of the mean: in few
dimensions it takes thousands of trajectories to fit the distribution and not just these.

Fitted solvers: Watson et al. 2022 (2202.05830), to sample quality; Tong et al. 2024 (2405.15506), levels, to a
teacher's ends; Frankel et al. 2025 (2502.17423) and Wang et al. 2025 (2505.21114), levels and weights. The network
itself does not change.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser, Reclocked
from ornstein.core.drive import Stepper, sample_seeds, trajectory
from ornstein.core.grids import NOISE_RATIOS, times
from ornstein.core.numerics import Estimate, normal
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.core.walk import Asked, end, walk
from ornstein.distill.ladder import falling
from ornstein.errors import InputError
from ornstein.optimisers import eager
from ornstein.samplers.exponential import Multistep
from ornstein.samplers.tuned import Triangles, Tuned, as_tuned, leaning_sizes, squared
from ornstein.samplers.unipc import UniPC

#: what fitting starts from: the best of these methods, on even steps of a power of flow time from these noise ratios,
#: in units of sigma_data
_METHODS: tuple[Stepper, ...] = (
    UniPC(order=4, clock="signal", last=3),
    UniPC(order=3, clock="signal", last=3),
    Multistep(order=2, clock="signal", last=3),
)
_TOPS, _POWERS = (math.inf, 40.0, 15.0, 6.0), (1.0, 1.5)
#: how many numbers the ends have in all, hundreds for each unknown, and the least and the most trajectories
_NUMBERS, _FEWEST, _MOST = 2**15, 64, 8192
#: the first rounds use one trajectory in this many; how many numbers are processed at a time
_SCOUTED, _AT_ONCE = 4, 2**14


def endpoints(
    denoiser: Denoiser, x: Tensor, *, steps: int = 200, condition: Given = None, batch: int | None = None
) -> Tensor:
    """Where the probability-flow trajectories from x end, as accurately as `steps` calls of a fourth-order method give.

    Args:
        denoiser: of the ODE.
        x: (N, ...) at the first level of the default grid: see `starting_noise`.
        steps: the number of steps, even in flow time.
        condition: with N rows; see `Condition.of`.
        batch: samples at a time; None for 16,384 numbers.
    """
    grid = times(denoiser.process, steps, "flow", denoiser.unit)
    grid[0] = _top(denoiser)
    condition = Condition.of(condition).matches(len(x), "x")
    return _arrive(denoiser, x, UniPC(order=4, clock="signal"), grid, condition, batch)


def endpoint_error(
    denoiser: Denoiser,
    x: Tensor,
    ends: Tensor,
    stepper: Stepper,
    grid: "str | Sequence[float] | Tensor | None" = None,
    *,
    calls: int,
    condition: Given = None,
    batch: int | None = None,
) -> Estimate:
    """The mean distance |solve(x) - end|, per sample, of a deterministic method at a number of network calls.

    Args:
        x, ends: (N, ...) noise at the first level of the default grid, and where it ends: see `endpoints`. A grid that
            begins at another level starts from the same noise at its scale, as `ornstein.sample` would.
        stepper, grid: the method; a `Tuned` stepper has its own grid.
        calls: the most calls for each sample; a method of two calls a step gets half the steps.
    """
    # the last step is one call whatever the method
    steps = 1 + (calls - 1) // (stepper.calls or 1)
    given = times(denoiser.process, steps, stepper.grid if isinstance(stepper, Tuned) else grid, denoiser.unit)
    scale = _spread(denoiser, float(given[0])) / _spread(denoiser, _top(denoiser))
    condition = Condition.of(condition).matches(len(x), "x")
    found = _arrive(denoiser, x * scale, stepper, given, condition, batch)
    return Estimate.of((found - ends).flatten(1).norm(dim=1))


def fit_endpoint(
    denoiser: Denoiser,
    shape: Sequence[int],
    steps: int,
    *,
    count: int | None = None,
    condition: Given = None,
    rounds: int = 240,
    teacher_steps: int = 200,
    batch: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] | None = None,
) -> Tuned:
    """Fit levels and weights to this denoiser for `steps` network calls.

    Args:
        denoiser: the denoiser whose trajectories to fit; gradients flow through it, but its parameters do not change.
        shape: of one sample.
        steps: K, network calls of the solver, in [1, 64].
        count: trajectories to fit to; None for 32,768 numbers in all, but 64 to 8,192 samples.
        condition: what each trajectory is given, with `count` rows; see `Condition.of`.
        rounds: of L-BFGS. Each costs about three times K calls on every trajectory; the first 17 in 24 rounds use only
            one trajectory in four, but at least 64.
        teacher_steps: calls to compute where each trajectory ends.
        batch: samples at a time, as memory allows for K calls with gradients; None for 16,384 numbers.
        seed: of the noise that the trajectories start from.
        dtype: of the trajectories: float32 or float64.
        progress: called with (rounds done, rounds).

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
    batch, condition = batch or _batch(shape), Condition.of(condition)
    if count is None:
        count = condition.rows or trajectories(shape)
    condition = condition.matches(count, f"count={count}").to(denoiser.device)
    x = starting_noise(denoiser, (count, *shape), seed, dtype)
    ends = endpoints(denoiser, x, steps=teacher_steps, condition=condition, batch=batch)
    if not bool(torch.isfinite(ends).all()):
        raise InputError("the trajectories of this denoiser do not end in finite numbers: there is nothing to fit to.")
    return _Search(denoiser, x, ends, condition, steps, rounds, batch, progress).best()


def trajectories(shape: Sequence[int]) -> int:
    """How many trajectories to fit to: 32,768 numbers in all, but 64 to 8,192 samples."""
    return min(max(_NUMBERS // math.prod(shape), _FEWEST), _MOST)


def starting_noise(denoiser: Denoiser, shape: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What `ornstein.sample` starts from with this seed, (N, ...), at the first level of the default grid."""
    keys = sample_seeds(shape[0], seed, None, None).to(denoiser.device)
    return _spread(denoiser, _top(denoiser)) * normal(keys, tuple(shape[1:]), 0, dtype)


def _top(denoiser: Denoiser) -> float:
    """Where the default grid begins."""
    return float(times(denoiser.process, 1, sigma_data=denoiser.unit)[0])


def _top_ratio(denoiser: Denoiser) -> float:
    """log(sigma/alpha) of the noisiest level at which a solver may begin."""
    first = -0.5 * float(denoiser.process.at(_top(denoiser)).log_snr)
    return min(first, math.log(NOISE_RATIOS[1] * denoiser.unit))


def _spread(denoiser: Denoiser, t: float) -> float:
    """The standard deviation of what sampling starts from at time t."""
    level = denoiser.process.at(t)
    return math.hypot(level.alpha * denoiser.sigma_data, level.sigma)


def _batch(shape: Sequence[int]) -> int:
    return max(1, min(_AT_ONCE // math.prod(shape), 4096))


def _arrive(
    denoiser: Denoiser, x: Tensor, stepper: Stepper, grid: Tensor, condition: Condition, batch: int | None
) -> Tensor:
    """Where a deterministic method takes x, a batch at a time."""
    found = []
    batch = batch or _batch(x.shape[1:])
    for k in range(0, len(x), batch):
        part = x[k : k + batch]
        given = condition[k : k + batch]
        states = trajectory(denoiser, part.shape, stepper, grid=grid, x=part, dtype=x.dtype, seed=0, condition=given)
        found.append(end(states).x)
    return torch.cat(found)


class _Unknowns:
    """The method as a vector of what is fitted: log steps in log(sigma/alpha), drift, weights, leanings.

    Drift and weights mean the same on every clock; levels are on `home`, the denoiser's own clock, during the fit, and
    on `process` afterwards.
    """

    def __init__(self, denoiser: Denoiser, home: Process, steps: int) -> None:
        self.process, self.home, self.sigma_data, self.steps = denoiser.process, home, denoiser.sigma_data, steps
        # steps count down from just above the noisiest level at which a solver may begin
        self.top = 0.1 + _top_ratio(denoiser)
        self.lowest = min(math.log(NOISE_RATIOS[0] * denoiser.unit), self.top - 1)

    def of(self, tuned: Tuned, leaning: bool) -> Tensor:
        """The vector of a method, float64; its leanings are included, as zeros if `leaning` and it has none."""
        times = torch.tensor(tuned.grid[:-1], dtype=torch.float64)
        ratios = torch.cat([times.new_tensor([self.top]), -0.5 * self.process.log_snr(times)])
        # the weights of the last row sum to one, so its last weight follows from the others
        rows = [torch.tensor(row, dtype=torch.float64) for row in tuned.weights]
        rows[-1] = rows[-1][:-1]
        leanings = times.new_zeros(2, sum(leaning_sizes(self.steps)) if leaning else 0)
        if tuned.leanings:
            leanings = torch.cat([times.new_tensor(rows) for rows in tuned.leanings], 1)
        return torch.cat([(-ratios.diff()).log(), times.new_tensor(tuned.drift), *rows, leanings.flatten()])

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """log(sigma/alpha) of the levels, the drift, the rows of weights, and the leanings, (2, n) for each step."""
        k = self.steps
        plain = 2 * k - 1 + k * (k + 1) // 2 - 1
        leanings = list(vector[plain:].reshape(2, -1).split(leaning_sizes(k), 1)) if len(vector) > plain else []
        vector = vector[:plain]
        ratios = (self.top - vector[:k].exp().cumsum(0)).clamp(max=self.top - 0.1)
        rows = list(vector[2 * k - 1 :].split([*range(1, k), k - 1]))
        rows[-1] = torch.cat([rows[-1], (1 - rows[-1].sum())[None]])
        return ratios, vector[k : 2 * k - 1], rows, leanings

    def allowed(self, vector: Tensor) -> bool:
        """Whether the levels fall, but not below those at which networks are called."""
        ratios = self.split(vector)[0]
        return bool(vector.isfinite().all() and (ratios >= self.lowest).all() and (ratios.diff() < -1e-6).all())

    def tuned(self, vector: Tensor) -> Tuned:
        """The method of a vector."""
        ratios, drift, rows, leanings = self.split(vector)
        found = self.process.time(-2 * ratios)
        return Tuned(
            (*found.tolist(), 0.0),
            tuple(drift.tolist()),
            tuple(tuple(row.tolist()) for row in rows),
            tuple(tuple(tuple(row) for row in rows.tolist()) for rows in leanings),
        )

    def arrive(self, denoiser: Denoiser, noise: Tensor, vector: Tensor, condition: Condition) -> Tensor:
        """Where the method of the vector takes standard normal noise, differentiably."""
        ratios, drift, rows, leanings = self.split(vector)
        with torch.no_grad():
            t = self.home.time(-2 * ratios)
            alpha_rate, sigma_rate = self.home._rates(t)
            slope = 2 * (alpha_rate / self.home.alpha(t) - sigma_rate / self.home.sigma(t))
        # one Newton step from the time already found: it gives the inverse function its derivative
        t = (t + (-2 * ratios - self.home.log_snr(t)) / slope).clamp(max=self.home.t_max)
        alpha, sigma = self.home.alpha(t), self.home.sigma(t)
        x = ((alpha[0] * self.sigma_data) ** 2 + sigma[0] ** 2).sqrt().to(noise) * noise
        levels = [Level(self.home, *row) for row in zip(t, alpha, sigma, strict=True)]
        clean = Level(self.home, t.new_zeros(()), t.new_ones(()), t.new_zeros(()))
        triangles = Triangles(drift.to(x).unbind(), [row.to(x) for row in rows], [pair.to(x) for pair in leanings])
        # with a time for each sample: a single one would be converted to a float, which carries no gradient
        ask: Asked[Tensor, Level[Tensor], Prediction] = Asked(
            lambda x, level: denoiser(x, level.t.expand(len(x)), condition), self.steps
        )
        return end(walk(ask, x, [*levels, clean], triangles.step, triangles.finish, gradients=True)).x


class _Search:
    """The search for the method that comes nearest to the ends, from several starts, in `rounds` of L-BFGS."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        ends: Tensor,
        condition: Condition,
        steps: int,
        rounds: int,
        batch: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.denoiser, self.x, self.ends, self.condition = denoiser, x, ends, condition
        self.steps, self.rounds, self.batch, self.progress = steps, rounds, batch, progress
        # levels of a `Reclocked` denoiser carry no gradient, so the fit uses its base's clock and converts the result
        self.home = denoiser
        while isinstance(self.home, Reclocked):
            self.home = self.home.base
        self.unknowns = _Unknowns(denoiser, self.home.process, steps)
        self.scouted = min(len(x), max(_FEWEST, len(x) // _SCOUTED))
        self.noise = x / _spread(denoiser, _top(denoiser))
        # a distance below this counts as zero when its root is taken
        self.little = 3e-4 * float(squared(ends).mean().sqrt())
        self.made = 0

    def best(self) -> Tuned:
        """The method found after all rounds."""
        rounds, scouted, count = self.rounds, self.scouted, len(self.x)
        scouting, plain, ahead = max(1, rounds // 12), max(1, rounds // 8), max(1, rounds // 4)
        scouts = [self.settle(self.beginning(top), scouting, scouted, False) for top in _TOPS]
        start = min(scouts, key=lambda found: found[0])[1]
        # without leanings first, since from a poor start they lead astray; and far on a part of the trajectories, which
        # is cheap, before all of them
        start = self.settle(start, plain, scouted, False)[1]
        start = self.settle(start, ahead, scouted, True)[1]
        left = max(2, rounds - scouting * len(scouts) - plain - ahead)
        start = self.settle(start, left // 2, count, True)[1]
        return self.settle(start, left - left // 2, count, True, root=False)[1]

    def beginning(self, top: float) -> Tuned:
        """The best known method, on the grids that start at this noise ratio."""
        x, ends = self.x[: self.scouted], self.ends[: self.scouted]
        given = self.condition[: self.scouted]
        starts: list[tuple[float, int, Tuned]] = []
        for power in _POWERS:
            grid = falling(self.denoiser.process, self.steps, self.denoiser.unit, top, power)
            for method in _METHODS:
                start = as_tuned(method, self.denoiser.process, grid, self.denoiser.unit)
                error = endpoint_error(
                    self.denoiser, x, ends, start, calls=self.steps, condition=given, batch=self.batch
                ).value
                starts.append((error if math.isfinite(error) else math.inf, len(starts), start))
        return min(starts)[2]

    def settle(self, start: Tuned, rounds: int, count: int, leaning: bool, root: bool = True) -> tuple[float, Tuned]:
        """The least mean distance, or mean root of it, over `count` trajectories that is reached from a start, and the
        method that has it."""
        vector = self.unknowns.of(start, leaning).requires_grad_()
        best, least = start, math.inf

        def mean() -> float:
            """The value for the search; the best method so far is kept."""
            nonlocal best, least
            total, vector.grad = self.mean(vector, count, root)
            if total < least:
                best, least = self.unknowns.tuned(vector.detach()), total
            return total

        search = eager(torch.optim.LBFGS)(
            [vector], max_iter=10, max_eval=20, history_size=40, line_search_fn="strong_wolfe", tolerance_change=1e-12
        )
        idle = 0
        for done in range(0, rounds, 10):
            before, part = least, min(10, rounds - done)
            search.param_groups[0].update(max_iter=part, max_eval=2 * part)
            search.step(mean)  # it keeps what it knows of the curvature for the next call
            self.made += part
            if self.progress is not None:
                self.progress(min(self.made, self.rounds), self.rounds)
            # the first steps on new unknowns may be short, so several idle ones end the search
            idle = idle + 1 if least > before * (1 - 3e-4) else 0
            if idle == 3:
                break
        return least, best

    def mean(self, vector: Tensor, count: int, root: bool) -> tuple[float, Tensor]:
        """The mean of the distance, or of its root, and its gradient, summed over batches; infinity and zero if the
        method cannot be used, so that a line search turns back."""
        total, gradient, nowhere = 0.0, torch.zeros_like(vector), (math.inf, torch.zeros_like(vector))
        if not self.unknowns.allowed(vector.detach()):
            return nowhere  # a step too far
        for k in range(0, count, self.batch):
            part = slice(k, min(k + self.batch, count))
            given = self.condition[part]
            with torch.enable_grad():
                arrived = self.unknowns.arrive(self.home, self.noise[part], vector, given)
                # the norm has no gradient at zero
                distance = (squared(arrived - self.ends[part]) + 1e-12).sqrt()
                share = ((distance + self.little).sqrt() if root else distance).sum() / count
                # of the unknowns only: a network's parameters keep the gradients that they have
                gradient += torch.autograd.grad(share, vector)[0]
            total += float(share.detach())
        if not math.isfinite(total) or not bool(torch.isfinite(gradient).all()):
            return nowhere
        return total, gradient
