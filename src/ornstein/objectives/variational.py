"""The variational bound of a chain as an objective: a random term of it for each sample.

The bound (`ornstein.objectives.bound`) is a sum over hundreds of steps. One term, drawn with probability p_i and
divided by it, has the whole sum as its mean, whatever p is; its variance is least if p_i is proportional to
sqrt(E[L_i^2]) (Nichol & Dhariwal 2021, 2102.09672, equation 18). So p may be uniform; a table measured once
(`importance`); or follow the last terms of each step during training (`loss_aware`, `note_terms`), which are all
that this objective remembers.

`hybrid` trains the mean by the regression of the noise, and the variance, which the regression does not reach, by a
thousandth of the bound.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.copies import beside
from ornstein.core.denoiser import Denoiser
from ornstein.core.numerics import noise_like, strata
from ornstein.core.process import Process
from ornstein.errors import InputError, lookup
from ornstein.objectives.bound import Bins, Steps, chain_times, check_whole, prior_nats, steps_of, widest
from ornstein.objectives.measured import Bound

#: terms of each step that loss-aware sampling looks back on, and the share of all draws that stays uniform
HISTORY, UNIFORM_SHARE = 10, 0.001


def loss_aware(memory: dict[str, Tensor]) -> Tensor:
    """How often to train each step, (n,): sqrt(E[L_t^2]) over its last terms, uniform until every step has enough.

    Nichol & Dhariwal 2021 (2102.09672), equation 18, with a thousandth of the draws uniform, so that no step is lost.
    """
    terms, seen = memory["terms"][:-1], memory["seen"][:-1]
    p = terms.square().mean(1).sqrt()
    p = (1 - UNIFORM_SHARE) * p / p.sum().clamp(min=torch.finfo(p.dtype).tiny) + UNIFORM_SHARE / len(p)
    return torch.where((seen >= HISTORY).all(), p, 1 / len(p))


def note_terms(memory: dict[str, Tensor], i: Tensor, terms: Tensor) -> None:
    """Write the terms (B,) of steps i (B,) into `memory`, over the oldest of each step."""
    nowhere = len(memory["seen"]) - 1  # a row for what is not kept
    order = i.argsort(stable=True)
    i, terms = i[order], terms.detach().to(memory["terms"])[order]
    place = torch.arange(len(i), device=i.device)
    first = torch.searchsorted(i, i)  # of the run of the same step
    rank, left = place - first, torch.searchsorted(i, i, right=True) - 1 - place
    row = torch.where((left < HISTORY) & terms.isfinite(), i, nowhere)
    memory["terms"][row, (memory["seen"][i] + rank) % HISTORY] = terms
    memory["seen"].index_add_(0, i, torch.ones_like(i))
    memory["terms"][nowhere] = 0


def importance(bound: Bound, parts: int = 50) -> tuple[float, ...]:
    """How often to train each part of a chain: sqrt(E[L_t^2]), by `parts` equal runs of steps, summing to 1.

    Drawing steps in this proportion gives the estimate of the bound its least variance (Nichol & Dhariwal 2021,
    2102.09672, equation 18). This table is measured once, on a model trained for a while, and stated in the experiment
    (`bound(importance=...)`); `bound(adaptive=True)` follows the losses during training.
    """
    squares = bound.terms[:, 1:].square().mean(0)
    n = len(squares)
    check_whole(parts=parts)
    part = torch.arange(n) * min(parts, n) // n
    sums = torch.zeros(min(parts, n), dtype=torch.float64).index_add(0, part, squares)
    found = (sums / torch.bincount(part)).sqrt()
    return tuple((found / found.sum()).tolist())


@lru_cache(maxsize=64)
def _shares(n: int, importance: tuple[float, ...]) -> Tensor:
    """How often each of n steps is drawn, (n,) float64, by runs of steps; () for evenly."""
    if not importance:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    table = torch.tensor(importance, dtype=torch.float64)
    p = table[torch.arange(n) * len(table) // n]
    return p / p.sum()


def _step_at(how_often: Tensor, u: Tensor) -> Tensor:
    """The steps that even numbers u (B,) in (0, 1) fall on."""
    return torch.searchsorted(how_often.cumsum(0)[:-1].to(u), u, right=True)


@lru_cache(maxsize=64)
def _chain(process: Process, steps: int | None, grid: str | None, variance: str, sigma_data: float) -> Steps:
    return steps_of(process, chain_times(process, steps, grid, sigma_data), variance)


@dataclass(frozen=True)
class Variational:
    """The variational bound as an objective: one random term of a sample, weighted so that its mean is the bound.

    In bits per dimension (in model space, where `levels` is 0). One network call.

    Args:
        variance: that of the reverse steps: "small", "large" or "learned" (the denoiser must have learned one).
        weight: weight of the bound in the loss.
        simple: train the mean by the noise regression of `ddpm`, added with weight 1, and let the bound's gradient
            reach the variance only.
        levels: the number of the data's own levels, evenly spaced over [-1, 1] (256 for bytes); 0 for continuous data.
        steps, grid: the chain; by default every level of a chain, or 1,000 steps in continuous time.
        importance: how often to train the parts of the chain, relative numbers for equal runs of steps from the
            noise to the data (see `importance`); () for all equally.
        adaptive: let the losses so far decide how often instead: loss-aware sampling, which has a memory.
        stratified: draw the steps of a batch evenly spread.
        drop_label: the probability of training a sample without its label.

    Raises:
        InputError: numbers out of range, or a learned variance of a denoiser without one.
    """

    variance: str = "small"
    weight: float = 1.0
    simple: bool = False
    levels: int = 0
    steps: int | None = None
    grid: str | None = None
    importance: tuple[float, ...] = ()
    adaptive: bool = False
    stratified: bool = True
    drop_label: float = 0.1

    def __post_init__(self) -> None:
        lookup({"small": 0, "large": 0, "learned": 0}, self.variance, "variance")
        if self.simple and self.variance != "learned":
            raise InputError(f"variance={self.variance!r} leaves the bound nothing to train beside simple=True.")
        if not self.weight > 0:
            raise InputError(f"weight={self.weight!r} must be positive.")
        if self.levels:
            Bins(self.levels)
        object.__setattr__(self, "importance", tuple(self.importance))
        if not all(math.isfinite(p) and p > 0 for p in self.importance):
            raise InputError("importance must be positive numbers: a step never trained would bias the bound.")
        if self.adaptive and self.importance:
            raise InputError("importance is measured as training goes with adaptive=True; give one of the two.")
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")

    @property
    def learns_variance(self) -> bool:
        """Whether the denoiser must predict a variance: a network with `out_multiple=2`."""
        return self.variance == "learned"

    def memory(self, denoiser: Denoiser, x0: Tensor) -> dict[str, Tensor]:
        """What `adaptive` sampling remembers, at its start: the last terms of each step. Else nothing."""
        n = len(self._of(denoiser.process, denoiser.unit).small) if self.adaptive else 0
        return {"terms": torch.zeros(n + 1, HISTORY), "seen": torch.zeros(n + 1, dtype=torch.long)} if n else {}

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        condition: Given,
        generator: torch.Generator,
        memory: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, and a condition of B rows."""
        u = strata(len(x0), generator, self.stratified)
        how_often = self._probabilities(denoiser.process, memory, u, denoiser.unit)
        i = _step_at(how_often, u).to(x0.device)
        eps = noise_like(x0, generator)
        condition = Condition.of(condition).dropped(self.drop_label, generator)
        terms, error = self._terms(denoiser, x0, i, eps, condition)
        if memory:
            note_terms(memory, i, terms)
        return self._loss(terms, error, how_often.to(x0.device)[i], denoiser, x0)

    def draw_times(self, process: Process, n: int, generator: torch.Generator, sigma_data: float = 1.0) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator, where it is not adaptive."""
        u = strata(n, generator, self.stratified)
        how_often = self._probabilities(process, None, u, sigma_data)
        return self._of(process, sigma_data).times[_step_at(how_often, u).cpu()]

    def loss_at(self, denoiser: Denoiser, x0: Tensor, i: Tensor, eps: Tensor, condition: Given) -> Tensor:
        """The loss of each sample at given steps i (B,), 0 the noisiest, with given noise, (B,)."""
        terms, error = self._terms(denoiser, x0, i, eps, Condition.of(condition))
        how_often = self._probabilities(denoiser.process, None, widest(x0), denoiser.unit)[i]
        return self._loss(terms, error, how_often, denoiser, x0)

    def _terms(
        self, denoiser: Denoiser, x0: Tensor, i: Tensor, eps: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor]:
        """The bound's terms of steps i in bits per dimension, (B,) float64, and the mean squared error of the noise."""
        chain, wide = self._of(denoiser.process, denoiser.unit), widest(x0)
        level = denoiser.process.at(beside(chain.times, wide)[i], like=x0)
        prediction = denoiser(level.noised(x0, eps), level, condition)
        mean = replace(prediction, x0=prediction.x0.detach()) if self.simple else prediction
        terms = chain.nats(i, mean, x0, Bins(self.levels) if self.levels else None)
        error = (level.alpha / level.sigma) ** 2 * (prediction.x0 - x0) ** 2
        return terms / (x0[0].numel() * math.log(2)), error.flatten(1).mean(1)

    def _loss(self, terms: Tensor, error: Tensor, how_often: Tensor, denoiser: Denoiser, x0: Tensor) -> Tensor:
        """An estimate of the objective from one step of each sample, drawn this often, (B,)."""
        chain, how_often = self._of(denoiser.process, denoiser.unit), how_often.to(terms)
        bits = x0[0].numel() * math.log(2)
        prior = prior_nats(denoiser.process.at(float(chain.times[0])), denoiser.sigma_data, x0) / bits
        loss = self.weight * (terms / how_often + prior)
        if self.simple:
            loss = loss + error / (len(chain.small) * how_often)
        return loss.to(error.dtype)

    def _of(self, process: Process, sigma_data: float) -> Steps:
        return _chain(process, self.steps, self.grid, self.variance, sigma_data)

    def _probabilities(
        self, process: Process, memory: dict[str, Tensor] | None, like: Tensor, sigma_data: float
    ) -> Tensor:
        """How often each step is drawn, (n,), summing to 1; where nothing is remembered, on the device of `like`."""
        if memory:
            return loss_aware(memory)
        n = len(self._of(process, sigma_data).small)
        if len(self.importance) > n:
            raise InputError(f"importance has {len(self.importance)} parts, and the chain {n} steps: at most as many.")
        return beside(_shares(n, self.importance), like)


def bound(
    variance: str = "small",
    levels: int = 0,
    steps: int | None = None,
    grid: str | None = None,
    importance: tuple[float, ...] = (),
    adaptive: bool = False,
    stratified: bool = True,
    drop_label: float = 0.1,
) -> Variational:
    """The variational bound of the chain, whole, in bits per dimension (Sohl-Dickstein et al. 2015, 1503.03585)."""
    return Variational(variance, 1.0, False, levels, steps, grid, importance, adaptive, stratified, drop_label)


def hybrid(
    weight: float = 0.001,
    levels: int = 0,
    steps: int | None = None,
    grid: str | None = None,
    importance: tuple[float, ...] = (),
    adaptive: bool = False,
    stratified: bool = True,
    drop_label: float = 0.1,
) -> Variational:
    """Predict the noise, and learn the variance by a thousandth of the bound (Nichol & Dhariwal 2021, 2102.09672)."""
    return Variational("learned", weight, True, levels, steps, grid, importance, adaptive, stratified, drop_label)
