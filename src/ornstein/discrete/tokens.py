"""Models of tokens that dissolve by any kernel: for each token, the probabilities of its classes.

For a row of T tokens with K classes each, noised independently of each other, Bayes' rule gives for token i

    p(x_0^i given x_t)  ~  q(x_t^i given x_0^i)  p(x_0^i given the other tokens of x_t).

The first factor is known in closed form, so a network learns only the second. At low noise the first one decides, and
for a masked token, whose first factor is constant, the answer is the softmax of the network's logits. The formula
serves every kernel.

*Known tokens.* For a token that is known for certain, the first factor allows one class only. So a model that is told
which tokens are known answers for the others given them, which is all that filling in needs.
"""

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.copies import beside
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT, Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.discrete.kernels import Kernel, share
from ornstein.discrete.readings import TOKEN_READINGS
from ornstein.errors import InputError, lookup


class TokenDenoiser(Denoiser):
    """The posterior mean of tokens of one size: probabilities of their classes. To add one, write `log_probs`.

    Attributes:
        process: how they dissolve.
        categories: the tokens of a row, K classes each, none of which refines another.
    """

    process: Kernel
    categories: Categories

    @property
    def classes(self) -> int:
        """K."""
        return self.categories.sizes[0]

    @property
    def reads(self) -> bool:
        """Whether `in_order` takes one call, so that -log p(x_0) itself is at hand, and not a bound on it."""
        return False

    @abstractmethod
    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        """log p(x_0 given x_t = codes), for codes (B, T) in [0, S): (B, T, K).

        Args:
            known: which tokens are those of x_0 for certain, (B, T) bool; None: only those that the kernel shows to be.
        """

    def apart_from(self, codes: Tensor) -> "TokenDenoiser":
        """The model without what it has counted of these very rows (B, T), for them to teach it; most count nothing."""
        return self

    def in_order(self, codes: Tensor, condition: Condition) -> Tensor:
        """log p(x_0 of each token given those before it), of rows codes (B, T) of classes: (B, T, K).

        Their sum over a row is log p(x_0) of a model that draws tokens in order. A call for each token.

        Raises:
            InputError: a kernel without a mask, of which a token that is not known yet has no state.
        """
        if not self.process.masks:
            raise InputError(f"tokens are read in order with process=absorbing; {self.process} masks none.")
        found, place = [], torch.arange(codes.shape[1], device=codes.device)
        for token in range(codes.shape[1]):
            left = token / codes.shape[1]
            so_far = torch.where(place < token, codes, self.classes)
            level = Level(self.process, 0.0, left, 1 - left)
            found.append(self.log_probs(so_far, level, condition)[:, token])
        return torch.stack(found, 1)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        """x (B, T K): one-hot vectors, zeros for the mask."""
        return Prediction(self.log_probs(self.codes(x), level, condition).exp().flatten(1), x, level)

    def codes(self, x: Tensor) -> Tensor:
        """Vectors (B, T K) as numbers of states, (B, T)."""
        codes = self.categories.codes(x)
        return torch.where(codes < 0, self.classes, codes)

    def vectors(self, codes: Tensor) -> Tensor:
        """Numbers of states (B, T) as vectors, (B, T K)."""
        return self.categories.one_hot(torch.where(codes < self.classes, codes, -1))


def told(kernel: Kernel, codes: Tensor, classes: int, level: Level, known: Tensor | None) -> Tensor:
    """The first factor: log q(x_t = codes given x_0), (B, T, K)."""
    factor = kernel.log_columns(codes, classes, share(level))[..., :classes]
    if known is None:
        return factor
    here = torch.nn.functional.one_hot(codes.clamp_max(classes - 1), classes).bool()
    return torch.where(known[..., None], torch.where(here, 0.0, -torch.inf), factor)


@dataclass(frozen=True, eq=False)
class TokenNet(TokenDenoiser):
    """A network as the posterior mean of tokens.

    Args:
        net: `net(x, noise_level, condition)`, (B, K + 2, *space) -> (B, K + 2, *space); the first K output channels are
            used. Its input has the states as one-hot vectors, the mask among them, and which tokens are known.
        process: how tokens dissolve.
        categories: the tokens of a row.
        space: the places of the tokens: (length,), (height, width), ...
        predicts: what the network's output means, a key of `TOKEN_READINGS`.
        precision: type of the net's matrix products; None for that of its parameters.
    """

    net: nn.Module
    process: Kernel
    categories: Categories
    space: tuple[int, ...]
    predicts: str = "probabilities"
    precision: torch.dtype | None = None
    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        lookup(TOKEN_READINGS, self.predicts, "predicts")

    @staticmethod
    def shown(classes: int, space: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the network's input: a channel for each class, for the mask, and for being known."""
        return (classes + 2, *space)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        kernel, classes = self.process, self.classes
        certain = codes < classes if kernel.masks else known
        with torch.autocast(codes.device.type, self.precision) if self.precision else nullcontext():
            out = self.net(*as_shown(kernel, codes, classes, self.space, level, certain), condition.parts)
        logits = out[:, :classes].float().flatten(2).transpose(1, 2)
        factor = told(kernel, codes, classes, level, known)
        return TOKEN_READINGS[self.predicts]().log_probs(kernel, codes, logits, level, factor)


def as_shown(
    kernel: Kernel, codes: Tensor, classes: int, space: tuple[int, ...], level: Level, certain: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The input of a network for noisy tokens, see `TokenNet.shown`, and their noise level.

    Args:
        certain: which tokens are known to be those of x_0, (B, T) bool; None for none.
    """
    shown = torch.zeros(len(codes), codes.shape[1], classes + 2, device=codes.device)
    shown.scatter_(2, codes[..., None], 1.0)
    if certain is not None:
        shown[..., -1] = certain.float()
    x = (classes + 2) ** 0.5 * shown.transpose(1, 2).unflatten(2, space)
    if kernel.masks:  # the level says no more than the number of masks does
        kept = (codes < classes).float().mean(1)
        noise = torch.log1p(-kept) - kept.log()
    elif isinstance(level.alpha, Tensor):
        noise = (level.sigma / level.alpha).log().flatten().float()
    else:
        noise = (-0.5 * torch.tensor(level.log_snr, device=codes.device)).expand(len(codes)).float()
    return x, noise.clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)


@dataclass(frozen=True, eq=False)
class TokenTable(TokenDenoiser):
    """A distribution of few tokens in closed form, by the probability of every row; for tests of denoisers' users.

    Args:
        table: (K,) * T probabilities, which sum to 1.
        process: how tokens dissolve.

    Raises:
        InputError: numbers that are not a distribution, or axes of different lengths.
    """

    table: Tensor
    process: Kernel

    def __post_init__(self) -> None:
        if bool((self.table < 0).any()) or abs(float(self.table.sum()) - 1) > 1e-6 or len(set(self.table.shape)) != 1:
            raise InputError("table must be probabilities that sum to 1, with equally many classes for each token.")

    @property
    def categories(self) -> Categories:  # type: ignore[override]
        """The tokens of a row."""
        return Categories(tuple(self.table.shape))

    def log_prob(self, codes: Tensor) -> Tensor:
        """log p of rows (B, T) of classes: (B,)."""
        return self.table[tuple(codes.unbind(1))].log()

    def _halves(self, codes: Tensor, level: Level, known: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """p(x_t = codes given x_0) of every first and every second half of x_0, and p(x_0) as a matrix between them.

        So K^T rows cost two products of matrices of K^(T/2), and no tensor of (B, K^T).
        """
        wide = torch.float32 if codes.device.type == "mps" else torch.float64
        factor = told(self.process, codes, self.classes, level, known).to(wide).exp()
        half = self.table.ndim // 2
        first, second = (_products(some) for some in (factor[:, :half], factor[:, half:]))
        return first, second, beside(self.table, codes, wide).reshape(first.shape[1], second.shape[1])

    def log_marginal(self, codes: Tensor, level: Level) -> Tensor:
        """log p(x_t = codes), (B,)."""
        first, second, table = self._halves(codes, level, None)
        return ((first @ table) * second).sum(1).log()

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        first, second, table = self._halves(codes, level, known)
        half, found = self.table.ndim // 2, []
        for joint, tokens in ((first * (second @ table.T), half), (second * (first @ table), self.table.ndim - half)):
            # each token's classes last, all other axes summed
            each = joint.reshape(len(codes), *[self.classes] * tokens)
            found += [each.movedim(i + 1, -1).reshape(len(codes), -1, self.classes).sum(1) for i in range(tokens)]
        p = torch.stack(found, 1)
        return (p / p.sum(-1, keepdim=True)).log()


def _products(factors: Tensor) -> Tensor:
    """The product of one entry of each of n factors (B, n, K), for every choice of entries: (B, K^n)."""
    found = factors.new_ones(len(factors), 1)
    for factor in factors.unbind(1):
        found = (found[:, :, None] * factor[:, None]).flatten(1)
    return found
