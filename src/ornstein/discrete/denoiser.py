"""A model of masked tokens: of each that is masked, the probabilities of its classes.

Of a token that is known the posterior mean is the token itself; of a masked one it is p(class given the known tokens),
which does not depend on the time but through which tokens are known. So a network that is shown the known tokens has
seen all there is, and its output, a softmax over each token's classes, is E[x_0 given x_t].
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT, Denoiser
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process


@dataclass(frozen=True, eq=False)
class MaskedDenoiser(Denoiser):
    """A network that gives logits, as the posterior mean of masked tokens.

    Args:
        net: `net(x, noise_level, condition) -> logits`, both (B, width).
        process: the absorbing kernel.
        categories: the tokens of a row.
    """

    net: nn.Module
    process: Process
    categories: Categories
    sigma_data: float = 1.0

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def log_probs(self, x: Tensor, condition: Condition) -> Tensor:
        """Log-probabilities of each token's classes given those that are known, (B, width) -> (B, width) float32."""
        categories = self.categories
        known = categories.known(x).float().mean(1)
        level = (torch.log1p(-known) - known.log()).clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)
        scale = (categories.width / categories.tokens) ** 0.5  # to a mean square of 1, with all tokens known
        logits = self.net(scale * x, level, condition.parts)
        return categories.log_softmax(logits.float())

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        known = self.categories.spread(self.categories.known(x))
        return Prediction(torch.where(known, x, self.log_probs(x, condition).exp()), x, level)
