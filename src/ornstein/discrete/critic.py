"""A critic of drawn rows: boosted trees that know real rows, by whose odds some draws are made again.

A network of masked tokens blurs what it says: a town spreads into the hills around it, and prices that people round are
a little off. Boosted trees cut where the blur does not follow, and so they tell draws from rows of the data. Here they
are asked before a draw is shown.

*Rejection.* Let q be the law of the data, p that of the draws, and l(x) = log q(x)/p(x), which is what a classifier of
the two learns. Draw x from p, and keep it with probability

    min(1, exp(l(x) - c)),

or else draw again. What is kept has a law proportional to p(x) min(exp l(x), exp c), which is q wherever l is below c
(Azadi et al. 2019, 1810.06758). A larger c comes closer to q, and throws away more. A critic that sees nothing says
l = 0 everywhere, and keeps the same share of all rows; a wrong one cannot make a row that the network would not draw.

*Symmetric trees.* The critic is a sum of trees, each of which asks every row the same D questions of the kind "is
number f above h?". The answers, read as bits, are the place of its value. Tree by tree, questions and values follow the
gradient and the curvature of the logistic loss (Friedman 2001; Chen & Guestrin 2016, 1603.02754; symmetric trees:
Prokhorenkova et al. 2018, 1706.09516): with G and H their sums over the rows of a leaf, its value is -G/(H + penalty),
and the questions are those that gain most of G^2/(H + penalty).

Their few tensors are all that a run has to keep. Trees of other libraries, such as scikit-learn's, which judge draws in
`ornstein.metrics.boosted`, come as pickles, which nothing here opens.

The penalty keeps the critic from knowing the training rows by heart. If it did, it would throw away what is not like
one of them, and keep draws that are too near.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.copies import beside
from ornstein.core.drive import other_seeds
from ornstein.core.numerics import uniform
from ornstein.core.walk import State

#: questions of a tree; the share of each tree's values that is added; what counts as rows beside those of a leaf
_DEPTH, _RATE, _PENALTY = 6, 0.1, 60.0
#: places at which a number may be cut; the share of the rows that each tree sees
_CUTS, _SEEN = 255, 0.5
#: a row is drawn this often at most; then the last draw stays
_MOST_DRAWS = 30
#: the share of draws that are always kept, by which c is chosen
_SURE = 0.2
#: the numbers, among those of a row's random draws, of what says whether it is kept, and of the seeds of further draws:
#: beyond all those of `drive`
_KEPT, _AGAIN = 2000, 2**34


@dataclass(frozen=True, eq=False)
class Critic:
    """Symmetric trees that say how much likelier a row is among the data than among the draws.

    Args:
        which: (trees, D) int64, the number that each question is about.
        above: (trees, D), what it must exceed.
        value: (trees, 2^D), what each tree adds to the logarithm of the odds; question d has the bit of worth 2^d.
        limit: (), c, the logarithm of the odds from which a row is always kept.
    """

    which: Tensor
    above: Tensor
    value: Tensor
    limit: Tensor

    def log_odds(self, numbers: Tensor) -> Tensor:
        """log q/p of rows of numbers (B, F) as `numbers_of` gives them: (B,) float64."""
        answers = numbers[:, self.which] > self.above
        bits = 2 ** torch.arange(self.which.shape[1], device=numbers.device)
        return self.value.double().gather(1, (answers * bits).sum(2).T).sum(0)

    def chance(self, numbers: Tensor) -> Tensor:
        """The probability of each row (B, F) to be kept: (B,) float64 in (0, 1]."""
        return (self.log_odds(numbers) - self.limit).clamp(max=0).exp()

    def to(self, device: torch.device) -> "Critic":
        """The same critic on another device."""
        return Critic(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "Critic":
        """The critic that is made of these; others are left alone."""
        return Critic(**{field.name: tensors[field.name] for field in fields(Critic)})


def numbers_of(categories: Categories, x: Tensor) -> Tensor:
    """What a critic sees of rows (B, width): a number for each token of the outline, (B, F) float32.

    It is the token's class and, where another token refines it, a fraction for how far into the class the row lies.
    """
    codes = categories.codes(x)
    found = codes.double()
    for token, other in enumerate(categories.after):
        if other < 0:
            continue
        counts = torch.tensor(categories.within[token] or (categories.sizes[token],) * categories.sizes[other])
        count = beside(counts, codes, torch.int64)[codes[:, other].clamp_min(0)]
        found[:, other] += (codes[:, token].double() + 0.5) / count
    return found[:, beside(categories.depth, codes, torch.int64) == 0].float()


def learn(real: Tensor, drawn: Tensor, trees: int, generator: torch.Generator) -> Critic:
    """A critic that tells rows of numbers of the data (N, F) from those of draws (M, F), which weigh as much.

    Args:
        trees: how many.
        generator: of a CPU: which rows each tree sees.
    """
    numbers = torch.cat([real, drawn]).cpu()
    label = torch.cat([torch.ones(len(real)), torch.zeros(len(drawn))]).double()
    weight = torch.where(label > 0, 0.5 / len(real), 0.5 / len(drawn)) * len(label)
    cuts = _cuts(numbers)
    binned = torch.stack([torch.searchsorted(c, x.contiguous()) for c, x in zip(cuts, numbers.T, strict=True)], 1)
    bins = max(map(len, cuts)) + 1
    log_odds = torch.zeros(len(label), dtype=torch.float64)
    which, above, value = [], [], []
    for _ in range(trees):
        chance = log_odds.sigmoid()
        slope, curve = weight * (chance - label), weight * chance * (1 - chance)
        seen = (torch.rand(len(label), generator=generator) < _SEEN).nonzero().flatten()
        questions = _questions(binned[seen], slope[seen], curve[seen], bins)
        leaf = _leaf(binned, questions)
        g, h = (torch.bincount(leaf[seen], part[seen], 2**_DEPTH) for part in (slope, curve))
        values = -_RATE * g / (h + _PENALTY)
        log_odds += values[leaf]
        which.append([f for f, _ in questions])
        above.append([float(cuts[f][cut]) if cut < len(cuts[f]) else math.inf for f, cut in questions])
        value.append(values)
    limit = log_odds[len(real) :].quantile(1 - _SURE).float()
    return Critic(torch.tensor(which), torch.tensor(above), torch.stack(value).float(), limit)


def _cuts(numbers: Tensor) -> list[Tensor]:
    """For each number of rows (N, F) up to `_CUTS` values, ascending, that it may be asked to exceed."""
    found = []
    for x in numbers.T:
        values = x.unique()
        if len(values) > _CUTS:
            values = x.sort().values[torch.linspace(0, len(x) - 1, _CUTS + 1).long()].unique()
        found.append(values[:-1].contiguous())
    return found


def _questions(binned: Tensor, slope: Tensor, curve: Tensor, bins: int) -> list[tuple[int, int]]:
    """The questions (number, cut) of a tree, each the one that gains most after those before it."""
    rows, count = binned.shape
    leaf = torch.zeros(rows, dtype=torch.int64)
    places = (binned + torch.arange(count) * bins).flatten()
    questions: list[tuple[int, int]] = []
    for depth in range(_DEPTH):
        cell = (leaf * (count * bins)).repeat_interleave(count) + places
        shape = (2**depth, count, bins)
        low, low_curve = (
            torch.bincount(cell, part.repeat_interleave(count), math.prod(shape)).view(shape).cumsum(2)
            for part in (slope, curve)
        )
        gain = sum(
            (g.square() / (h + _PENALTY)).sum(0)
            for g, h in ((low, low_curve), (low[..., -1:] - low, low_curve[..., -1:] - low_curve))
        )
        assert isinstance(gain, Tensor)
        number, cut = divmod(int(gain.argmax()), bins)
        questions.append((number, cut))
        leaf = leaf + ((binned[:, number] > cut).long() << depth)
    return questions


def _leaf(binned: Tensor, questions: list[tuple[int, int]]) -> Tensor:
    """The place of each row's value in a tree, (N,) int64: its answers as bits."""
    bits = [(binned[:, number] > cut).long() << d for d, (number, cut) in enumerate(questions)]
    return torch.stack(bits).sum(0)


def choosy(
    states: Iterator[State[Tensor]],
    critic: Critic,
    categories: Categories,
    seeds: Tensor,
    again: Callable[[Tensor, Tensor], Tensor],
) -> Iterator[State[Tensor]]:
    """The states of a walk, in the last of which rows that the critic does not keep have been drawn again.

    Args:
        states: of the walk.
        seeds: (B,) int64 of its rows, on their device.
        again: `again(rows, seeds)` draws rows anew, given their numbers (K,) in the walk and seeds (K,): (K, width).
    """
    last = next(states)
    for state in states:
        yield last
        last = state
    x = last.x.clone()
    waiting, keys = torch.arange(len(x), device=x.device), seeds
    for attempt in range(1, _MOST_DRAWS):
        kept = uniform(keys, 1, _KEPT)[:, 0] < critic.chance(numbers_of(categories, x[waiting]))
        waiting = waiting[~kept]
        if not len(waiting):
            break
        keys = other_seeds(seeds[waiting], _AGAIN + attempt)
        x[waiting] = again(waiting, keys)
    yield replace(last, x=x, x0=x)
