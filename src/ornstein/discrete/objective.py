"""What teaches a model of masked tokens: the cross-entropy of the next one, in a random order.

Reveal the T tokens of a row one after the other, in an order drawn at random. Whatever the order o, the model's law of
the row is a product, and its logarithm's mean over orders is a bound on that of the mixture over them:

    log p(x) >= E_o sum_k log p(x_{o_k} given x_{o_1}, ..., x_{o_{k-1}}).

Draw k uniform instead of summing over it, and average over which token comes next instead of drawing it:

    loss = T E_{k, o} mean over the next token i of  -log p(x_i given the first k).

This is the continuous-time bound of masked diffusion, exactly: a share t of the tokens masked, t uniform, leaves k of
them with each k as likely, and weights their cross-entropies with 1/t (Hoogeboom et al. 2022, 2110.02037; Ou et al.
2024, 2406.03736; Shi et al. 2024, 2406.04329). A token that refines another comes after it in every order: orders are
uniform among those, and the next token is of a group with the chance of what is left of the group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.numerics import strata
from ornstein.discrete.denoiser import MaskedDenoiser
from ornstein.errors import InputError


def ranks(categories: Categories, keys: Tensor) -> Tensor:
    """The place of each token in an order, (B, T) int64, from independent uniform keys (B, T).

    Each order in which refining tokens come after what they refine is as likely as any other: the keys of a group are
    sorted among themselves.
    """
    keys = keys.clone()
    for chain in categories.chains:
        if len(chain) > 1:
            keys[:, list(chain)] = keys[:, list(chain)].sort(1).values
    return keys.argsort(1).argsort(1)


def next_weights(categories: Categories, known: Tensor) -> Tensor:
    """The chance of each token to be the next, (B, T) float, once these (B, T) are known."""
    weights = torch.zeros(known.shape, device=known.device)
    for chain in categories.chains:
        before = None
        for place, token in enumerate(chain):
            # what is left of its group, if it is the first that is not known
            turn = ~known[:, token] if before is None else ~known[:, token] & known[:, before]
            weights[:, token] = turn * float(len(chain) - place)
            before = token
    return weights / (~known).sum(1, keepdim=True).clamp_min(1)


@dataclass(frozen=True)
class MaskedCrossEntropy:
    """The bound on a row's negative log-probability, in nats: see the module.

    Args:
        drop: share of the rows in which a part of the condition is left out.
    """

    drop: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise InputError(f"objective.drop={self.drop!r} must be in [0, 1).")

    def __call__(self, model: MaskedDenoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each row: x0 (B, width) one-hot, tokens that are not known zeros -> (B,) float32."""
        categories = model.categories
        condition = Condition.of(condition).dropped(self.drop, generator)
        total = categories.tokens
        place = (strata(len(x0), generator) * total).long().to(x0.device)
        place = place[torch.randperm(len(x0), generator=generator, device=generator.device).to(x0.device)]
        keys = torch.rand(len(x0), total, generator=generator, device=generator.device).to(x0.device)
        return step_losses(model, x0, condition, ranks(categories, keys), place)


def step_losses(model: MaskedDenoiser, x0: Tensor, condition: Condition, order: Tensor, place: Tensor) -> Tensor:
    """T times the mean cross-entropy of the next token, (B,), the first `place` (B,) of `order` (B, T) being known."""
    categories = model.categories
    known = order < place[:, None]
    return categories.tokens * (next_weights(categories, known) * token_nats(model, x0, condition, known)).sum(1)


def token_nats(model: MaskedDenoiser, x0: Tensor, condition: Condition, known: Tensor) -> Tensor:
    """-log p(token given the known ones) of each token of x0 (B, width), (B, T); 0 where x0 has none."""
    categories = model.categories
    told = model.log_probs(x0 * categories.spread(known), condition)
    return -categories.sums(torch.where(x0 > 0, told, 0.0) * x0)
