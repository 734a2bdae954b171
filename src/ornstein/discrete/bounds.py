"""Objectives and measures of models of tokens: bounds on -log p(x_0), in nats.

*The variational bound* of a walk in n steps from t_max = t_n to t_0 = 0 (Austin et al. 2021, 2107.03006):

    -log p(x_0)  <=  sum over k = 2..n of KL( q(x_{k-1} given x_k, x_0) || p(x_{k-1} given x_k) ) - log p(x_0 given x_1)

the prior's term being 0, since clocks end where nothing is left. As n grows it falls to its continuous limit, which has
a closed form for every kernel, *score entropy* (Lou et al. 2024, 2310.16834; Campbell et al. 2022, 2205.14987):

    E integral of  sum over y of G(y, x_t) ( s(y) - s*(y) log s(y) + s*(y) (log s*(y) - 1) )  (-d log alpha),

with s the model's ratios (`readings`) and s* those of x_0 itself. For masked tokens this is exactly a cross-entropy,

    E integral of  (1/(1 - alpha))  sum over masked tokens of -log p(x_0 given x_t)  (-d alpha),

the bound on which masked diffusion is trained (Sahoo et al. 2024, 2406.07524; Shi et al. 2024, 2406.04329). Both are
integrals over alpha, the share of tokens left, so they do not depend on the clock. *Discrete flow matching* (Gat et al.
2024, 2407.15595; Campbell et al. 2024, 2402.04997) is the unweighted cross-entropy of x_0 given x_t, over all tokens;
the *hybrid* adds a little of it to the bound.

In rows that train filling in, known tokens are shown as they are and do not count in the loss.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.drive import sample_seeds
from ornstein.core.numerics import Estimate, strata, uniform
from ornstein.core.process import Level
from ornstein.discrete.drive import drawn
from ornstein.discrete.kernels import Kernel, at_share, share
from ornstein.discrete.readings import ratios
from ornstein.discrete.tokens import TokenDenoiser
from ornstein.errors import InputError, must_be_whole

#: shares this close to the ends are never drawn: at most 1e-5 of the integral
_END = 1e-5


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of tokens, and the random numbers with which a bound is estimated on them.

    Attributes:
        codes: x_0, (B, T).
        condition: what the rows are given.
        place: (B,) in (0, 1), the place along the way from data to noise.
        u: (B, T) in (0, 1), uniform numbers from which x_t is drawn.
        known: tokens that are shown and do not count, (B, T) bool; None for none.
        taught: whether the model trains on these rows, and must answer as if it had not counted them.
    """

    codes: Tensor
    condition: Condition
    place: Tensor
    u: Tensor
    known: Tensor | None = None
    taught: bool = False

    def __getitem__(self, part: slice) -> "Rows":
        known = None if self.known is None else self.known[part]
        return Rows(self.codes[part], self.condition[part], self.place[part], self.u[part], known, self.taught)

    def log_p(self, model: TokenDenoiser, xt: Tensor, level: Level) -> Tensor:
        """log p(x_0 given x_t), (B, T, K)."""
        return self.asked(model).log_probs(xt, level, self.condition, self.known)

    def asked(self, model: TokenDenoiser) -> TokenDenoiser:
        """The model, without what it has counted of these rows if it is taught by them."""
        return model.apart_from(self.codes) if self.taught else model

    def noised(self, kernel: Kernel, classes: int, level: Level) -> Tensor:
        """x_t, (B, T); known tokens stay as they are."""
        xt = drawn(kernel.log_rows(self.codes, classes, share(level)), self.u)
        return xt if self.known is None else torch.where(self.known, self.codes, xt)

    def nats(self, log_p: Tensor) -> Tensor:
        """-log p(x_0) of each token, (B, T), from log_p (B, T, K)."""
        return -log_p.gather(-1, self.codes[..., None])[..., 0]

    def counted(self, each: Tensor) -> Tensor:
        """The sum of (B, T) over the tokens that are not known: (B,)."""
        return each.sum(1) if self.known is None else torch.where(self.known, 0.0, each).sum(1)


@dataclass(frozen=True)
class TokenObjective(ABC):
    """A loss for each row, in nats. To add one, write `terms`.

    Args:
        drop: share of the rows in which a part of the condition is left out.
        shown: share of the rows in which some tokens are shown as they are, so that filling in is learned; not used
            by the absorbing kernel, whose unmasked tokens are shown anyway.
    """

    drop: float = field(default=0.1, kw_only=True)
    shown: float = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("drop", "shown"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"objective.{name}={value!r} must be in [0, 1].")

    def __call__(self, model: TokenDenoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """x0 (B, T K) one-hot -> (B,) float32."""
        codes = model.categories.codes(x0)
        condition = Condition.of(condition).dropped(self.drop, generator)
        place = strata(len(x0), generator)[torch.randperm(len(x0), generator=generator, device=generator.device)]
        u, shown = (torch.rand(codes.shape, generator=generator, device=generator.device) for _ in range(2))
        known = None
        if self.shown and not model.process.masks:
            among, chosen = torch.rand(2, len(x0), 1, generator=generator, device=generator.device)
            known = ((shown < among) & (chosen < self.shown)).to(x0.device)
        rows = Rows(codes, condition, place.to(x0.device), u.to(x0.device), known, taught=True)
        return self.terms(model, rows).float()

    def must_suit(self, kernel: Kernel) -> None:  # noqa: B027 - most suit all
        """Refuse a kernel for which this objective is no bound.

        Raises:
            InputError: the kernel is such a one.
        """

    @abstractmethod
    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        """The loss of each row, (B,), unbiased over its random numbers."""


@dataclass(frozen=True)
class VariationalBound(TokenObjective):
    """The bound of a walk in n steps, even along the clock: D3PM (Austin et al. 2021).

    Args:
        steps: n.
        beside: weight of the cross-entropy of x_0 that is added; 0.001 is Austin et al.'s hybrid.
    """

    steps: int = 1000
    beside: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        must_be_whole("objective.steps", self.steps)
        if not 0 <= self.beside < math.inf:
            raise InputError(f"objective.beside={self.beside!r} must not be negative.")

    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        kernel, k = model.process, (rows.place * self.steps).floor().clamp_max(self.steps - 1)
        ends = ((k + i) * (kernel.t_max / self.steps) for i in (1, 0))
        t, s = (kernel.at(end.clamp_max(kernel.t_max), like=rows.codes.float()) for end in ends)
        xt = rows.noised(kernel, model.classes, t)
        log_p = rows.log_p(model, xt, t)
        plain = rows.nats(log_p)
        first = k == 0
        # the first step is the cross-entropy itself; the value computed for it below is not used
        s = Level(kernel, s.t, torch.where(first[:, None], 0.5 * (1 + t.alpha), s.alpha), s.sigma)
        exact = torch.where(torch.nn.functional.one_hot(rows.codes, model.classes).bool(), 0.0, -torch.inf)
        q, p = (kernel.log_posterior(xt, told, t, s) for told in (exact.to(log_p), log_p))
        divergence = torch.where(q > -torch.inf, q.exp() * (q.clamp_min(-1e4) - p.clamp_min(-1e4)), 0.0).sum(-1)
        each = torch.where(first[:, None], plain, divergence)
        return rows.counted(self.steps * each + self.beside * plain)


@dataclass(frozen=True)
class Hybrid(VariationalBound):
    """The variational bound plus a thousandth of the cross-entropy (Austin et al. 2021)."""

    beside: float = 0.001


@dataclass(frozen=True)
class ScoreEntropy(TokenObjective):
    """The bound in continuous time, for any kernel (Lou et al. 2024; Campbell et al. 2022)."""

    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        kernel = model.process
        # squared, so drawn more often where little is gone (the weight below makes up for it): there few tokens have
        # moved, and each counts by one over the share that is gone
        gone = rows.place.square().clamp(_END, 1 - _END)
        level = at_share(kernel, 1 - gone)
        xt = rows.noised(kernel, model.classes, level)
        log_p = rows.log_p(model, xt, level)
        exact = torch.where(torch.nn.functional.one_hot(rows.codes, model.classes).bool(), 0.0, -torch.inf).to(log_p)
        log_s, log_true = (ratios(kernel, xt, told, level) for told in (log_p, exact))
        rate, true = kernel.rates_to(xt, model.classes), log_true.exp()
        gap = torch.where(true > 0, true * (log_true.clamp_min(-1e4) - log_s.clamp_min(-1e4) - 1), 0.0)
        each = torch.where(rate > 0, rate * (log_s.exp() + gap), 0.0).sum(-1)
        return 2 * rows.place * rows.counted(each / (1 - gone)[:, None])


@dataclass(frozen=True)
class MaskedBound(TokenObjective):
    """The bound in continuous time for masked tokens: a weighted cross-entropy (Sahoo et al. 2024; Shi et al. 2024)."""

    def must_suit(self, kernel: Kernel) -> None:
        if not kernel.masks:
            name = next((name for name, entry in TOKEN_OBJECTIVES.items() if entry is type(self)), type(self).__name__)
            raise InputError(f"objective={name!r} is of process=absorbing; take score-entropy, d3pm or discrete-flow.")

    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        self.must_suit(model.process)
        gone = rows.place.clamp(_END, 1 - _END)
        level = at_share(model.process, 1 - gone)
        masked = rows.u < gone[:, None]
        xt = torch.where(masked, model.classes, rows.codes)
        log_p = rows.log_p(model, xt, level)
        return (torch.where(masked, rows.nats(log_p), 0.0) / gone[:, None]).sum(1)


@dataclass(frozen=True)
class LeftToRight(MaskedBound):
    """The exact -log p(x_0), token after token, each given those before it: masked diffusion in the order of reading.

    A model of masked tokens is a model for every order in which they may be unmasked, and `MaskedBound` is the mean
    over all of them (Hoogeboom et al. 2021, 2110.02037). In the order of reading a text takes fewer bits, and a model
    that `reads` says every token of a row in one call; the mean over orders learns from those that one draw has masked.

    Args:
        any_order: share of the rows that are taught by `MaskedBound`, so that blanks before the end can be filled in.
    """

    any_order: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.any_order <= 1:
            raise InputError(f"objective.any_order={self.any_order!r} must be in [0, 1].")

    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        self.must_suit(model.process)
        few, found = round(self.any_order * len(rows.codes)), []
        if few:
            found.append(super().terms(model, rows[:few]))
        if few < len(rows.codes):
            rest = rows[few:]
            found.append(rest.nats(rest.asked(model).in_order(rest.codes, rest.condition)).sum(1))
        return torch.cat(found)


@dataclass(frozen=True)
class CrossEntropy(TokenObjective):
    """The cross-entropy of x_0, with all shares weighted equally: discrete flow matching (Gat et al. 2024)."""

    def terms(self, model: TokenDenoiser, rows: Rows) -> Tensor:
        level = at_share(model.process, 1 - rows.place.clamp(_END, 1 - _END))
        xt = rows.noised(model.process, model.classes, level)
        return rows.counted(rows.nats(rows.log_p(model, xt, level)))


#: the objectives of models of tokens, by name
TOKEN_OBJECTIVES: dict[str, Callable[..., Any]] = {
    "masked-bound": MaskedBound,
    "left-to-right": LeftToRight,
    "score-entropy": ScoreEntropy,
    "d3pm": VariationalBound,
    "d3pm-hybrid": Hybrid,
    "discrete-flow": CrossEntropy,
}


@dataclass(frozen=True, eq=False)
class Measured:
    """A bound on -log p of rows, with its error.

    Attributes:
        nats: per row, mean and standard error over rows and random numbers.
        tokens: the number of tokens in a row.
        each: nats of each row, (N,) float64.
    """

    nats: Estimate
    tokens: int
    each: Tensor

    @property
    def bits(self) -> Estimate:
        """Bits per token, which is per dimension."""
        each = self.tokens * math.log(2)
        return Estimate(self.nats.value / each, self.nats.standard_error / each)

    def __str__(self) -> str:
        return f"{self.nats} nats a row, {self.bits} bits a token"


@torch.no_grad()
def measured(
    model: TokenDenoiser,
    x0: Tensor,
    seed: int = 0,
    condition: Given = None,
    draws: int = 4,
    batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
    in_order: bool = True,
) -> Measured:
    """The bound in continuous time for rows x0 (N, T K) under a model, at stratified shares: a pure function of seed.

    Of a model that `reads` it is -log p itself, in order.

    Args:
        draws: the number of shares for each row; 1 if there is nothing to draw.
        batch: rows at a time.
        progress: called with (rows done, rows in all).
        in_order: False for the mean over all orders of such a model, too.
    """
    objective: TokenObjective = MaskedBound() if model.process.masks else ScoreEntropy()
    if model.reads and in_order:
        objective, draws = LeftToRight(any_order=0.0), 1
    categories, found = model.categories, []
    condition = Condition.of(condition)
    seeds = sample_seeds(len(x0), seed, None, None)
    # a randomly shifted lattice: the shares of each row are evenly spread, and so are those of all rows together
    shift = uniform(torch.tensor([seed]), 1, draws).double()[0]
    first = (torch.arange(len(x0), dtype=torch.float64) * 0.6180339887498949 + shift) % 1.0
    for start in range(0, len(x0), batch):
        part = slice(start, start + batch)
        codes = categories.codes(x0[part]).to(model.device)
        given, total = condition[part].to(model.device), torch.zeros(len(codes), dtype=torch.float64)
        for number in range(draws):
            place = (first[part] + number) / draws
            u = uniform(seeds[part], categories.tokens, number).to(codes.device)
            nats = objective.terms(model, Rows(codes, given, place.float().to(codes.device), u))
            total += nats.double().cpu() / draws
        found.append(total)
        if progress is not None:
            progress(min(start + batch, len(x0)), len(x0))
    each = torch.cat(found)
    return Measured(Estimate.of(each), categories.tokens, each)
