"""The objective of an autoencoder: to reconstruct its input from a latent that a model can learn.

    loss = |x - x'|_1 + kl * KL(q(z given x) || N(0, 1))          a Gaussian latent
    loss = |x - x'|_1 + |sg(z) - e|^2 + commitment |z - sg(e)|^2   a codebook, e being its vector nearest to z

each a mean over the numbers of a sample; sg stops gradients. The absolute error is minus the log-density of a Laplace
distribution, up to a constant, and blurs less than the square. With kl = b, its scale, the first loss is the
variational bound of Kingma & Welling (2014, 1312.6114). Latents that a second model will learn need a far smaller
weight, since that model describes their distribution better than N(0, 1) does (Rombach et al. 2022, 2112.10752: "to
avoid arbitrarily high-variance latent spaces"). The second loss is that of van den Oord et al. (2017, 1711.00937).

*What a mean error leaves out.* Of all pictures that a latent may stand for, the mean absolute error wants their median,
which is smoother than any of them. A judge of patches (`ornstein.nets.patches`) learns to tell the decoded picture from
the true one, and the decoder learns to pass for true, so it picks one of them (Larsen et al. 2016, 1512.09300; in a
codec Esser et al. 2021, 2012.09841). With scores J it is the hinge loss,

    + max(0, 1 - J(x)) + max(0, 1 + J(sg(x')))        of the judge,        - adversarial J(x')        of the codec,

each a mean over the patches, in one step of one optimiser.

Where a network trained on photographs is installed, its eyes can judge as well, with nothing to learn: by + features
d(x', x), how far apart the two look to it (`ornstein.metrics.lite`; in codecs Esser et al. 2021).

*Unused vectors.* A vector of the book learns only from the latents nearest to it, so one that starts far from all
latents would never move. So each vector is also drawn, weakly, to the latent of the batch that is nearest to *it*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ornstein.core.condition import Given
from ornstein.errors import InputError
from ornstein.latent.codec import NetCodec
from ornstein.metrics import lite

#: how weakly a vector of the book is drawn to the nearest latent
_DRAWN = 0.1


@dataclass(frozen=True)
class Reconstruction:
    """The mean absolute error of the reconstruction, and a term that keeps the latent in bounds: see the module.

    Args:
        kl: weight of the divergence from N(0, 1), in nats per number of a sample.
        commitment: weight of the term that keeps the encoder close to the vectors of a codebook.
        adversarial: weight of the judge of patches; 0 for none, else 0.01 to 0.1.
        features: weight of the distance in the features of EfficientNet-lite0, for pictures, with the extra
            ornstein[images]; 0 for none, else 0.1 to 1.

    Raises:
        InputError: a negative weight.
    """

    kl: float = 1e-3
    commitment: float = 0.25
    adversarial: float = 0.0
    features: float = 0.0

    def __post_init__(self) -> None:
        for name in ("kl", "commitment", "adversarial", "features"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"objective.{name}={getattr(self, name)!r} must be a weight of at least 0.")

    def __call__(self, model: NetCodec, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """x0 (B, *shape) -> (B,) float32."""
        eps = torch.randn(len(x0), *model.latent, generator=generator, device=generator.device).to(x0)
        back, mean, other = model.net(x0, eps)
        lost = (back.float() - x0).abs().flatten(1).mean(1)
        mean, other = mean.float(), other.float()
        if model.bare.book is not None:
            apart = (mean.detach() - other).square().flatten(1).mean(1)
            committed = (mean - other.detach()).square().flatten(1).mean(1)
            lost = lost + apart + self.commitment * committed + _DRAWN * _reach(model.bare.book, mean.detach())
        else:
            nats = 0.5 * (mean.square() + other.exp() - 1 - other)
            lost = lost + self.kl * nats.flatten(1).sum(1) / x0[0].numel()
        if self.adversarial:
            assert model.bare.judge is not None  # of `Autoencoding.network`
            lost = lost + judged(model.bare.judge, x0, back.float(), self.adversarial)
        if self.features:
            lost = lost + self.features * self._eyes(x0.device).apart(back.float(), x0)
        each: Tensor = lost
        return each

    def _eyes(self, device: torch.device) -> lite.Network:
        try:
            return lite.installed(device)
        except InputError as error:
            raise InputError(f"with objective.features={self.features!r}, {error}") from error


def judged(judge: nn.Module, real: Tensor, made: Tensor, weight: float) -> Tensor:
    """The hinge loss of a judge of patches, and `weight` times what it takes against what is made; (B,).

    Args:
        judge: (B, *shape) -> (B, places); learns by the first, and stands still in the second.
        real, made: (B, *shape); gradients reach `made` by the second alone.
    """
    told = F.relu(1 - judge(real)) + F.relu(1 + judge(made.detach()))
    still = {name: value.detach() for name, value in judge.state_dict(keep_vars=True).items()}
    found: Tensor = (told - weight * functional_call(judge, still, (made,))).float().mean(1)
    return found


def _reach(book: Tensor, z: Tensor) -> Tensor:
    """The mean squared distance between each vector of a book and the latent nearest to it, ()."""
    flat = z.movedim(1, -1).flatten(0, -2)
    with torch.no_grad():
        apart = flat.square().sum(1) - 2 * book.float() @ flat.T
    return (book.float() - flat[apart.argmin(1)]).square().mean()


#: the objectives of autoencoders, by name
CODEC_OBJECTIVES: dict[str, Callable[..., Any]] = {"reconstruction": Reconstruction}
