"""A model of masked tokens: for each masked token, the probabilities of its classes.

The posterior mean of a known token is the token itself; that of a masked one is p(class given the known tokens), which
depends on the time only through which tokens are known. So the known tokens are all that a network needs to see, and
its output, a softmax over each token's classes, is E[x_0 given x_t].
"""

from abc import abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ornstein.core.categories import IMPOSSIBLE, Categories
from ornstein.core.condition import Condition
from ornstein.core.copies import beside
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT, Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.discrete.critic import Critic
from ornstein.errors import InputError


class MaskedDenoiser(Denoiser):
    """The posterior mean of masked tokens. To add one, write `log_probs`.

    Attributes:
        process: the absorbing kernel.
        categories: the tokens of a row.
        critic: whom whole draws must please (`ornstein.discrete.critic`); None for nobody.
    """

    categories: Categories
    critic: Critic | None = None

    @abstractmethod
    def log_probs(self, x: Tensor, condition: Condition) -> Tensor:
        """Log-probabilities of each token's classes given the known tokens, (B, width) -> (B, width).

        All are finite: what is impossible gets `ornstein.core.categories.IMPOSSIBLE`, or about that.
        """

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        known = self.categories.spread(self.categories.known(x))
        return Prediction(torch.where(known, x, self.log_probs(x, condition).exp()), x, level)


@dataclass(frozen=True, eq=False)
class MaskedNet(MaskedDenoiser):
    """A network that outputs logits, as the posterior mean of masked tokens.

    Args:
        net: `net(x, noise_level, condition) -> logits`, (B, width) -> (B, width), such as
            `ornstein.discrete.waves.Placed`.
        process: the absorbing kernel.
        categories: the tokens of a row.
        precision: type of the net's matrix products; None for that of its parameters.
        timeless: whether the net is told the same noise level always, instead of the share of known tokens.
        kept: (B,) bool, which rows teach the net only how far it can be trusted (`ornstein.discrete.details`); None
            outside of training, and for a net that does not ask.
        critic: whom whole draws must please (`ornstein.discrete.critic`); None for nobody. Probabilities are the net's.
    """

    net: nn.Module
    process: Process
    categories: Categories
    precision: torch.dtype | None = None
    sigma_data: float = 1.0
    timeless: bool = False
    kept: Tensor | None = None
    critic: Critic | None = None

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def log_probs(self, x: Tensor, condition: Condition) -> Tensor:
        """(B, width) -> (B, width) float32."""
        categories = self.categories
        if self.timeless:
            level = x.new_zeros(1).expand(len(x))
        else:
            share = categories.known(x).float().mean(1)
            level = (torch.log1p(-share) - share.log()).clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)
        with torch.autocast(x.device.type, self.precision) if self.precision else nullcontext():
            logits = self.net(x, level, condition.parts, *(() if self.kept is None else (self.kept,)))
        logits = logits.float()
        return categories.log_softmax(logits + categories.barred(x))


@dataclass(frozen=True, eq=False)
class JointTable(MaskedDenoiser):
    """A distribution of few tokens in closed form, by the probability of every row; for tests of denoisers' users.

    Args:
        table: (K_1, ..., K_T) probabilities, which sum to 1.
        process: the absorbing kernel.
        after: which token each refines, as in `Categories`.

    Raises:
        InputError: numbers that are not a distribution.
    """

    table: Tensor
    process: Process
    after: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if bool((self.table < 0).any()) or abs(float(self.table.sum()) - 1) > 1e-6:
            raise InputError("table must be probabilities that sum to 1.")

    @property
    def categories(self) -> Categories:  # type: ignore[override]
        """The tokens of a row."""
        return Categories(tuple(self.table.shape), self.after)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability of rows (B, T) of classes, with unknown tokens (-1) summed out: (B,) float64."""
        return self._joint(self.categories.one_hot(codes).double()).flatten(1).sum(1).log()

    def _joint(self, x: Tensor) -> Tensor:
        """The table with zeros where it contradicts the known tokens, (B, K_1, ..., K_T)."""
        blocks, ndim = x.split(list(self.table.shape), 1), self.table.ndim
        joint = beside(self.table, x)[None]
        for token, block in enumerate(blocks):
            fits = torch.where(block.sum(1, keepdim=True) > 0, block, 1.0)
            joint = joint * fits.reshape(len(x), *(-1 if i == token else 1 for i in range(ndim)))
        return joint

    def log_probs(self, x: Tensor, condition: Condition) -> Tensor:
        joint = self._joint(x.double())
        margins = [joint.sum([i + 1 for i in range(self.table.ndim) if i != token]) for token in range(self.table.ndim)]
        found = torch.cat([(margin / margin.sum(1, keepdim=True)).log() for margin in margins], 1)
        return found.clamp_min(IMPOSSIBLE).to(x.dtype)
