"""Drawing masked tokens: the walk of `ornstein.core.walk`, from nothing known to everything known.

Each token of a row is drawn only once, by one uniform number that is a function of the row's seed and the token; the
seed also determines the order of the tokens. So a row does not depend on the batch that it is drawn in, and a walk in
more steps is the same walk, better resolved.

*Given anything.* A masked model answers p(token given any others), so a walk simply starts from what is known of a row.
If it is only known that tokens lie in sets (a price between two numbers), they are drawn first, one after the other,
each from the model's distribution within its set. A row drawn in this way is too likely by the inverse of the
probabilities of the sets; so it is kept with just these probabilities, or else drawn again (rejection, exact).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.copies import beside
from ornstein.core.drive import sample_seeds
from ornstein.core.numerics import uniform
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import Asked, State, walk
from ornstein.discrete.denoiser import MaskedDenoiser
from ornstein.discrete.objective import outline_first, ranks, token_nats
from ornstein.errors import InputError

#: numbers of a row's random draws: its order, its tokens, and the first try of those that are to lie in sets
_ORDER, _TOKENS, _TRIES = 0, 1, 2
#: tries after which sets of tokens count as impossible together
MOST_TRIES = 1000


class AskClasses(Asked[Tensor, Level, Prediction]):
    """What an unmasker calls: `ask(x, level).x0` is each token's probabilities, (B, width)."""

    def __init__(self, denoiser: MaskedDenoiser, condition: Condition, steps: int) -> None:
        super().__init__(lambda x, level: denoiser.predict(x, level, condition), steps)


class Order:
    """The order in which a walk's rows reveal their tokens, and the random numbers that they are drawn with.

    Args:
        categories: the tokens of a row.
        seeds: (B,) int64, one per row.
        known: (B, T) bool: the tokens that the walk begins with, which come first.
        allowed: (B, width) or (width,) in [0, 1]: factors of the classes' probabilities; None for none.
        shuffled: whether each row has a random order of its own, cell by cell; if not, rows of which nothing is known
            follow the order of the columns, the outline first.
    """

    def __init__(
        self, categories: Categories, seeds: Tensor, known: Tensor, allowed: Tensor | None = None, shuffled: bool = True
    ) -> None:
        self.categories, self._allowed = categories, allowed
        ahead = known.sum(1, keepdim=True)
        # rows of which something is known are always drawn cell by cell
        self._outlined = (ahead == 0) & (not shuffled)
        keys = torch.where(known, -1.0, uniform(seeds, categories.tokens, _ORDER))
        order = torch.where(self._outlined, outline_first(categories, known), ranks(categories, keys))
        # ranks of the unknown tokens among themselves, in this order
        self._rank = torch.where(known, -1, torch.where(known, categories.tokens, order).argsort(1).argsort(1))
        self._left = categories.tokens - ahead
        self._most = int(self._left.max())  # once a walk
        self._u = uniform(seeds, categories.tokens, _TOKENS)

    def due(self, s: Level[float]) -> Tensor:
        """Which tokens are to be known at level s, (B, T) bool: a share alpha of those that the walk has to draw."""
        return self._rank < (self._left * s.alpha + 1e-9).floor()

    def depth(self, t: Level[float], s: Level[float]) -> int:
        """How many calls the step from t to s takes, so that each token is drawn after the one that it refines."""
        return min(self.categories.deepest + 1, max(1, math.ceil(float(self._most) * (s.alpha - t.alpha) - 1e-9)))

    def reveal(self, x: Tensor, probabilities: Tensor, due: Tensor) -> Tensor:
        """x with those tokens drawn that are due and whose turn has come."""
        known = self.categories.known(x)
        drawn = draw(self.categories, probabilities, self._u, self._allowed)
        # the tokens of one step take turns: first those of the outline, then what refines them
        waits = self.categories.begun(known) | (beside(self.categories.order, known, torch.int64) < 0)
        new = due & ~known & waits
        return x + self.categories.one_hot(torch.where(new, drawn, -1)).to(x.dtype)


class Unmasker(ABC):
    """Goes from a level to one at which more tokens are known: the stepper of masked tokens, a frozen dataclass.

    Facts, like those of `ornstein.core.drive.Stepper`, are checked by tests: with as many steps as tokens it is exact.
    """

    @property
    def shuffled(self) -> bool:
        """Whether each row's tokens come in a random order of its own, not in that of the columns."""
        return True

    @abstractmethod
    def step(
        self, ask: AskClasses, x: Tensor, t: Level[float], s: Level[float], memory: Any, order: Order
    ) -> tuple[Tensor, Any]:
        """One step from level t to s; x is (B, width), with zeros for unknown tokens."""


def draw(categories: Categories, probabilities: Tensor, u: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The class of each token, (B, T) int64, at quantile u (B, T) in (0, 1) of its probabilities (B, width).

    Args:
        allowed: factors of the probabilities; the products need not sum to 1.
    """
    weights = probabilities.double() if allowed is None else probabilities.double() * allowed
    summed = weights.cumsum(1)
    starts = beside(categories.starts, u, torch.int64)
    sizes = beside(torch.tensor(categories.sizes), u, torch.int64)
    before = torch.cat([summed.new_zeros(len(summed), 1), summed], 1).index_select(1, starts)
    upto = summed.index_select(1, starts + sizes - 1)
    found = torch.searchsorted(summed, before + u * (upto - before), right=True) - starts
    return torch.minimum(found.clamp_min(0), sizes - 1)


def drawn(log_p: Tensor, u: Tensor) -> Tensor:
    """States (B, T) int64 at quantiles u (B, T) in (0, 1) of log-probabilities (B, T, S)."""
    return draw(_alike(log_p.shape[1], log_p.shape[2]), log_p.exp().flatten(1), u)


@lru_cache(maxsize=64)
def _alike(tokens: int, states: int) -> Categories:
    """Tokens of one size; cached, so that their derived properties are computed once."""
    return Categories((states,) * tokens)


def unmask(
    denoiser: MaskedDenoiser,
    rows: int,
    stepper: Unmasker,
    *,
    steps: int | None = None,
    seed: int | None = None,
    seeds: Any = None,
    generator: torch.Generator | None = None,
    condition: Given = None,
    x: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Iterator[State[Tensor]]:
    """Draw rows token by token, yielding each state: `steps + 1` of them.

    Args:
        denoiser: the model to draw from.
        rows: how many.
        stepper: the stepper.
        steps: how many steps; None for one per token.
        seed, seeds, generator: one source of randomness, as for `ornstein.core.drive.trajectory`.
        condition: what to draw given, with `rows` rows.
        x: (rows, width), the known tokens; None for none.
        allowed: (width,) or (rows, width) in [0, 1]: factors of the probabilities wherever a token is drawn.

    Raises:
        InputError: an argument that does not fit.
    """
    categories, device = denoiser.categories, denoiser.device
    x = torch.zeros(rows, categories.width) if x is None else x
    if tuple(x.shape) != (rows, categories.width):
        raise InputError(f"x has shape {tuple(x.shape)}; it must be {(rows, categories.width)}.")
    left = int((~categories.known(x)).sum(1).max())
    steps = max(left, 1) if steps is None else steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r} must be a whole number, at least 1.")
    x = x.to(device)
    condition = Condition.of(condition).matches(rows, f"rows={rows}").to(device)
    keys = sample_seeds(rows, seed, seeds, generator).to(device)
    factors = None if allowed is None else allowed.to(device)
    order = Order(categories, keys, categories.known(x), factors, stepper.shuffled)
    levels = denoiser.process.levels(torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    return walk(
        AskClasses(denoiser, condition, len(levels) - 1),
        x,
        levels,
        lambda ask, x, t, s, memory: stepper.step(ask, x, t, s, memory, order),
        lambda ask, x, t, memory: stepper.step(ask, x, t, levels[-1], memory, order)[0],
    )


@torch.no_grad()
def constrained(
    denoiser: MaskedDenoiser, x: Tensor, sets: Mapping[int, Tensor], seeds: Tensor, condition: Given = None
) -> Tensor:
    """Draw the tokens that are to lie in sets, exactly: from the model's law given the known tokens and the sets.

    Args:
        x: (B, width), the known tokens.
        sets: token -> (K,) in [0, 1], the share of each of its classes that lies in the set; (K before, K) if that
            depends on the class of the token that it refines.
        seeds: (B,) int64.
        condition: what else is given.

    Returns:
        (B, width): x with those tokens drawn.

    Raises:
        InputError: in `MOST_TRIES` tries no row met all the sets.
    """
    categories, device = denoiser.categories, denoiser.device
    condition, found = Condition.of(condition).to(device), x.to(device)
    waiting = torch.arange(len(x), device=device)
    free = [torch.ones(size) for size in categories.sizes]
    cells = {int(categories.cell[token]) for token in sets}
    queue = [i for i, cell in enumerate(categories.cell.tolist()) if cell in cells]  # cells come whole
    for attempt in range(MOST_TRIES):
        tried = found[waiting]
        u = uniform(seeds.to(device)[waiting], categories.tokens + 1, _TRIES + attempt)
        chance = torch.ones(len(waiting), device=device, dtype=torch.float64)
        for number, token in enumerate(queue):
            at = categories.block(token)
            share = sets.get(token, free[token]).to(device, torch.float64)
            if share.ndim == 2:
                share = share[categories.codes(tried)[:, categories.after[token]].clamp_max(len(share) - 1)]
            known = tried[:, at].sum(1) > 0
            told = torch.where(known[:, None], tried[:, at], denoiser.log_probs(tried, condition[waiting])[:, at].exp())
            weights = told.double() * share
            met = weights.sum(1)
            # the first token's probability is the same in every try, so it need only be possible
            chance = chance * (met if number else (met > 0).double())
            drawn = draw(Categories((categories.sizes[token],)), weights, u[:, token, None])
            tried[:, at] = torch.nn.functional.one_hot(drawn[:, 0], categories.sizes[token]).to(tried.dtype)
        kept = u[:, -1] < chance
        found[waiting[kept]] = tried[kept]
        waiting = waiting[~kept]
        if not len(waiting):
            return found
    raise InputError(
        f"what was asked for was not met in {MOST_TRIES:,} tries: for this model it is too rare, or impossible; ask "
        "for less."
    )


@torch.no_grad()
def bound(
    denoiser: MaskedDenoiser, x0: Tensor, seeds: Tensor, condition: Given = None, orders: int = 4
) -> tuple[Tensor, Tensor]:
    """The bound on each row's log-probability, in nats: its mean over random orders, and that mean's standard error.

    Args:
        x0: (B, width) one-hot; unknown tokens, which are zeros, are integrated out.
        seeds: (B,) int64: they determine the rows' orders.
        orders: how many, at least 2; each costs as many calls as there are tokens.

    Returns:
        (B,) and (B,) float64.
    """
    categories, device = denoiser.categories, denoiser.device
    if orders < 2:
        raise InputError(f"orders={orders!r} must be at least 2, so that an error can be computed.")
    x0, condition = x0.to(device), Condition.of(condition).to(device)
    found = []
    for number in range(orders):
        order = ranks(categories, uniform(seeds.to(device), categories.tokens, number))
        total = torch.zeros(len(x0), dtype=torch.float64, device=device)
        for place in range(categories.tokens):
            nats = token_nats(denoiser, x0, condition, order < place)
            total -= torch.where(order == place, nats, 0.0).sum(1)
        found.append(total)
    each = torch.stack(found)
    return each.mean(0).cpu(), (each.std(0) / math.sqrt(orders)).cpu()
