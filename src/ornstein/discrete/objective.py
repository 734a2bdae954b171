"""The objective of models of masked tokens: the cross-entropy of the next one, in a random order.

Reveal the T tokens of a row one after the other, in an order drawn at random. For every order o, the model's
probability of the row is a product, and the mean of its logarithm over orders bounds that of the mixture over orders:

    log p(x) >= E_o sum_k log p(x_{o_k} given x_{o_1}, ..., x_{o_{k-1}}).

Draw k uniformly instead of summing over it, and average over the next token instead of drawing it:

    loss = T E_{k, o} mean over the next token i of  -log p(x_i given the first k).

This is exactly the continuous-time bound of masked diffusion: masking a share t of the tokens, t uniform, leaves k of
them with every k equally likely, and weights their cross-entropies with 1/t (Hoogeboom et al. 2022, 2110.02037; Ou et
al. 2024, 2406.03736; Shi et al. 2024, 2406.04329). Cells come whole: a token that refines another follows it at once.

*In order.* A model that must answer for every subset of T tokens has 2^T questions to learn; one that draws its rows in
a fixed order has T. So a share of the rows of each batch is trained in the order in which rows are drawn: first the
outline of every column, in the order of the columns, then all details. Details come last because a network that sees
details of some columns while it learns the outline of the next recognises the training rows by them, and does not learn
what rows are like. The other rows train all other questions, given everything that is known of other cells.

*All that is hidden.* The network says p(token given the known ones) of every hidden token, and the bound asks for one,
or one of a few. The others' cross-entropies are free, and each of them, too, is least for the true law. Taught along,
they say in every call what the known tokens tell of the whole row, so the network learns in fewer steps what columns
say of each other, and sooner learns training rows by heart, too.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.copies import beside
from ornstein.core.numerics import strata
from ornstein.discrete.denoiser import MaskedDenoiser
from ornstein.errors import InputError


def ranks(categories: Categories, keys: Tensor) -> Tensor:
    """The place of each token in an order of cells, (B, T) int64, sorted by the keys (B, T) of their first tokens."""
    cell = beside(categories.cell, keys, torch.int64)
    # the tokens of a cell have the same key, and a stable sort keeps their order
    return keys.index_select(1, cell).argsort(dim=1, stable=True).argsort(1)


def outline_first(categories: Categories, like: Tensor) -> Tensor:
    """The place of each token, (T,) int64, in the order of the columns, with tokens that refine others at the end."""
    return beside(categories.depth.argsort(stable=True).argsort(), like, torch.int64)


def next_weights(categories: Categories, known: Tensor) -> Tensor:
    """The probability of each token to come next in a random order of cells, (B, T), after the known ones (B, T)."""
    begun, outline = categories.begun(known), ~known & (beside(categories.order, known, torch.int64) < 0)
    turn = torch.where(begun.any(1, keepdim=True), begun, outline).float()
    return turn / turn.sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class MaskedCrossEntropy:
    """The bound on a row's negative log-probability, in nats: see the module.

    Args:
        ordered: share of the rows that are trained in the fixed order in which rows are drawn.
        drop: share of the rows in which a part of the condition is left out.
        others: weight of the mean cross-entropy of all hidden tokens of the outline, beside the bound; 0 for the bound
            alone.
    """

    ordered: float = 0.0
    drop: float = 0.1
    others: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.others < math.inf:
            raise InputError(f"objective.others={self.others!r} must be a weight, at least 0.")
        for name in ("ordered", "drop"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"objective.{name}={value!r} must be in [0, 1].")

    def __call__(self, model: MaskedDenoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each row: x0 (B, width) one-hot, zeros for unknown tokens -> (B,) float32."""
        categories = model.categories
        condition = Condition.of(condition).dropped(self.drop, generator)
        total = categories.tokens
        place = (strata(len(x0), generator) * total).long().to(x0.device)
        place = place[torch.randperm(len(x0), generator=generator, device=generator.device).to(x0.device)]
        keys = torch.rand(len(x0), total, generator=generator, device=generator.device).to(x0.device)
        order = ranks(categories, keys)
        if self.ordered:
            taught = torch.rand(len(x0), 1, generator=generator, device=generator.device).to(x0.device) < self.ordered
            order = torch.where(taught, outline_first(categories, order), order)
        known = order < place[:, None]
        weights = next_weights(categories, known)
        if self.ordered:  # in the fixed order only one token is next
            weights = torch.where(taught, (order == place[:, None]).float(), weights)
        if self.others:
            hidden = (~known & (beside(categories.order, known, torch.int64) < 0)).float()
            weights = weights + self.others * hidden / hidden.sum(1, keepdim=True).clamp_min(1)
        # the same as the weighted `token_nats`, for a fraction of the time: no token is summed by itself
        told = model.log_probs(x0 * categories.spread(known), condition)
        return -total * (x0 * categories.spread(weights) * told).sum(1)


def token_nats(model: MaskedDenoiser, x0: Tensor, condition: Condition, known: Tensor) -> Tensor:
    """-log p(token given the known ones) for each token of x0 (B, width): (B, T); 0 where x0 has no token."""
    categories = model.categories
    told = model.log_probs(x0 * categories.spread(known), condition)
    return -categories.sums(torch.where(x0 > 0, told, 0.0))
