"""Categories as vectors: one of K things, in a space where means make sense.

A category has no mean, but its *one-hot vector* does: for x_0 = e_k with probability p_k,

    E[x_0] = (p_1, ..., p_K),

the vector of its probabilities. So a row of T *tokens*, of K_1, ..., K_T classes, is represented here by the T one-hot
vectors laid end to end, with K_i zeros for a token that is not known. The posterior mean of such a row, which every
denoiser here returns, is then the probabilities of every token's classes. A network that reads and writes vectors needs
to know nothing of categories.

Some tokens *refine* another, as the place of a number within a bin refines the bin. The second says little without the
first, so it is never known before it. A token and what refines it are a *cell*; tokens that refine none are the
*outline*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.core.copies import beside
from ornstein.errors import InputError

#: the log-probability of what is impossible: finite, so that a weight of 0 times it is 0
IMPOSSIBLE = -1e30


@dataclass(frozen=True)
class Categories:
    """How many classes each token of a row has, and which token it refines.

    Args:
        sizes: the number of classes of each of T tokens, at least 1.
        after: for each token the earlier one that it refines, or -1; () if none refines another. No token is refined
            by two.
        along: for each token, where its classes lie along their column, from -1 to 1, rising; what is missing comes
            last, with 0 for a place; () for a token without order, or for all. For a token that refines another: for
            each class of the other in turn, what its own classes add to that place.
        space: the grid whose places the tokens are, row by row: (length,), (height, width); () for none.
        within: for each token that refines another, how many of its classes each class of the other has, the first
            ones; () for a token with all of them in each, or for all tokens.

    Raises:
        InputError: no tokens, sizes below 1, an impossible order, numbers of classes that do not fit, or a grid with
            another number of places.
    """

    sizes: tuple[int, ...]
    after: tuple[int, ...] = ()
    along: tuple[tuple[float, ...], ...] = ()
    space: tuple[int, ...] = ()
    within: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"sizes={self.sizes!r} must be the number of classes of one or more tokens, each above 0.")
        after = tuple(self.after) or (-1,) * len(self.sizes)
        refined = [other for other in after if other >= 0]
        if len(after) != len(self.sizes) or any(other >= i for i, other in enumerate(after)) or min(after) < -1:
            raise InputError(f"after={self.after!r} must name for each token an earlier one, or -1.")
        if len(set(refined)) < len(refined):
            raise InputError(f"after={self.after!r} refines a token twice.")
        along = tuple(map(tuple, self.along)) or ((),) * len(self.sizes)
        within = tuple(map(tuple, self.within)) or ((),) * len(self.sizes)
        for i, (size, places, counts) in enumerate(zip(self.sizes, along, within, strict=True)):
            before = self.sizes[after[i]] if after[i] >= 0 else 0
            wanted = size * (before or 1)
            if places and len(places) != wanted:
                raise InputError(f"along has {len(places)} places for token {i}, which needs {wanted}.")
            if places and after[i] < 0 and _rising(places) < size - 1:
                raise InputError(f"along={places!r:.80} must rise, up to a last class for what is missing (token {i}).")
            if counts and (len(counts) != before or not 0 < min(counts) <= max(counts) <= size):
                raise InputError(f"within={counts!r:.80} does not say how many classes token {i} has in each class.")
        if self.space and math.prod(self.space) != len(self.sizes):
            raise InputError(f"space={self.space!r} has {math.prod(self.space)} places for {len(self.sizes)} tokens.")
        object.__setattr__(self, "along", along)
        object.__setattr__(self, "within", within)
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "after", after)

    @property
    def tokens(self) -> int:
        """T, how many tokens a row has."""
        return len(self.sizes)

    @property
    def width(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> Tensor:
        """(T,) int64: where each token's classes begin."""
        return torch.tensor(self.sizes).cumsum(0) - torch.tensor(self.sizes)

    def block(self, token: int) -> slice:
        """The places in the vector of a token's classes."""
        start = sum(self.sizes[:token])
        return slice(start, start + self.sizes[token])

    @cached_property
    def order(self) -> Tensor:
        """(T,) int64: which token each refines, -1 for none."""
        return torch.tensor(self.after)

    @cached_property
    def depth(self) -> Tensor:
        """(T,) int64: how many tokens each refines, one after the other: 0 for those of the outline."""
        found: list[int] = []
        for other in self.after:
            found.append(0 if other < 0 else found[other] + 1)
        return torch.tensor(found)

    @cached_property
    def deepest(self) -> int:
        """The largest depth."""
        return int(self.depth.max())

    @cached_property
    def cell(self) -> Tensor:
        """(T,) int64: the token of the outline that each token ultimately refines; tokens of one cell share it."""
        found: list[int] = []
        for i, other in enumerate(self.after):
            found.append(i if other < 0 else found[other])
        return torch.tensor(found)

    def begun(self, known: Tensor) -> Tensor:
        """The tokens that are unknown while those that they refine are known, (B, T) bool."""
        order = beside(self.order, known, torch.int64)
        return ~known & (order >= 0) & known.index_select(1, order.clamp_min(0))

    @cached_property
    def ordered(self) -> tuple[int, ...]:
        """The tokens whose classes lie along a column, except those that refine one."""
        return tuple(i for i, places in enumerate(self.along) if places and self.after[i] < 0)

    @cached_property
    def placed(self) -> tuple[int, ...]:
        """For each token how many of its classes, the first ones, have a place of their own along its column."""
        each = zip(self.along, self.after, strict=True)
        return tuple(_rising(places) if places and other < 0 else 0 for places, other in each)

    @cached_property
    def _along(self) -> Tensor:
        """(width, 2 ordered): what each class adds to the place along each column, refining tokens left out; and 1."""
        found = torch.zeros(self.width, 2, len(self.ordered))
        for column, token in enumerate(self.ordered):
            found[self.block(token), 0, column] = torch.tensor(self.along[token])
            found[self.block(token), 1, column] = 1.0
        return found.flatten(1)

    @cached_property
    def _refined(self) -> list[tuple[int, int, Tensor]]:
        """(column, refining token, (K before, K)) of those that say where within a class a number lies."""
        columns = {token: column for column, token in enumerate(self.ordered)}
        return [
            (columns[other], i, torch.tensor(self.along[i]).reshape(self.sizes[other], -1))
            for i, other in enumerate(self.after)
            if self.along[i] and other in columns
        ]

    def places(self, x: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Where along its column each number lies, 0, the middle, where unknown; and 1 for each known one, else 0.

        (B, width) -> (B, ordered) twice.

        Args:
            inside: what the method of that name says of x, if that has been asked.
        """
        found, known = (x @ beside(self._along, x)).tensor_split(2, 1)  # one product takes half the time of two
        if self._refined:
            inside = self.inside(x)[0] if inside is None else inside
            columns = beside(self._columns, x, torch.int64)
            found = found.index_add(1, columns, inside * beside(self._reach, x))
        return found, known

    def inside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where within its class, from -1 to 1, each number that a second token refines lies; and 1 if that is known.

        (B, width) -> (B, `finer`) twice, 0 where it is not known.
        """
        if not self._refined:
            return x.new_zeros(len(x), 0), x.new_zeros(len(x), 0)
        found, known = [], []
        for column, token, within in self._refined:
            first, second = (x[:, self.block(i)] for i in (self.ordered[column], token))
            found.append(((first @ beside(within, x)) * second).sum(1))
            known.append(second.sum(1))
        return torch.stack(found, 1) / beside(self._reach, x), torch.stack(known, 1)

    @cached_property
    def _columns(self) -> Tensor:
        """The column, among those that are ordered, of each refining token."""
        return torch.tensor([column for column, _, _ in self._refined])

    @cached_property
    def _reach(self) -> Tensor:
        """How far each refining token moves a number along its column, at most."""
        return torch.tensor([max(float(within.abs().max()), 1e-12) for _, _, within in self._refined])

    @property
    def finer(self) -> tuple[int, ...]:
        """The tokens that say where within a class of another a number lies."""
        return tuple(token for _, token, _ in self._refined)

    @cached_property
    def _barred(self) -> list[tuple[int, Tensor]]:
        """(refining token, (K before, K) of 0 for each class that is there) of those that lack some."""
        found = [
            (i, torch.where(torch.arange(self.sizes[i]) < torch.tensor(counts)[:, None], 0.0, IMPOSSIBLE))
            for i, counts in enumerate(self.within)
            if counts
        ]
        return [(i, barred) for i, barred in found if bool(barred.any())]

    def barred(self, x: Tensor) -> Tensor:
        """What the classes of refining tokens that the known class before them has not add to their logits.

        (B, width) -> (B, width) of 0, and of a number so low that it leaves no probability.
        """
        found = torch.zeros_like(x)
        for token, barred in self._barred:
            found[:, self.block(token)] = x[:, self.block(self.after[token])] @ beside(barred, x)
        return found

    def one_hot(self, codes: Tensor) -> Tensor:
        """Classes (B, T), -1 for an unknown one, as vectors (B, width), float32."""
        known = codes >= 0
        place = beside(self.starts, codes) + codes.clamp_min(0)
        x = torch.zeros(len(codes), self.width, device=codes.device)
        return x.scatter_(1, place, known.float())

    def codes(self, x: Tensor) -> Tensor:
        """The likeliest class of each token, (B, width) -> (B, T) int64; -1 where a token's vector is zero."""
        best = self.each(x, lambda block: block.argmax(-1))
        return torch.where(self.known(x), best, -1)

    def known(self, x: Tensor) -> Tensor:
        """Which tokens are known, (B, width) -> (B, T) bool."""
        return self.sums(x) > 0

    def sums(self, x: Tensor) -> Tensor:
        """The sum of each token's vector, (B, width) -> (B, T)."""
        return self.each(x, lambda block: block.sum(-1))

    def spread(self, token: Tensor) -> Tensor:
        """The value of each token, (B, T), repeated for each of its classes, (B, width)."""
        each = zip(token.split(1, 1), self.sizes, strict=True)
        return torch.cat([one.expand(-1, size) for one, size in each], 1)  # several times as fast as an index

    def log_softmax(self, logits: Tensor) -> Tensor:
        """Log-probabilities of each token's classes, (B, width) -> (B, width)."""
        return self.each(logits, lambda block: block.log_softmax(-1), whole=True)

    def each(self, x: Tensor, of: Callable[[Tensor], Tensor], whole: bool = False) -> Tensor:
        """A function of each token's vector, (..., K) -> (...), or to (..., K) where `whole`: (B, T) or (B, width)."""
        if self._even:
            found = of(x.unflatten(1, (self.tokens, -1)))
            return found.flatten(1) if whole else found
        blocks = [of(block) for block in x.split(self.sizes, 1)]
        return torch.cat(blocks, 1) if whole else torch.stack(blocks, 1)

    @property
    def _even(self) -> bool:
        return len(set(self.sizes)) == 1


def _rising(places: tuple[float, ...]) -> int:
    """How many places rise, from the first on."""
    return next((i for i in range(1, len(places)) if places[i] <= places[i - 1]), len(places))
