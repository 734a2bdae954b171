"""Codecs: data encoded in fewer numbers, and decoded.

A codec is a trained autoencoder. It encodes a sample x as a latent z, and reads x back from z:

    q(z given x) = N(mean(x), std(x)^2),        x ~ decode(z).

A diffusion model that learns the distribution of z is a model of x (Rombach et al. 2022, 2112.10752), on a grid that is
smaller by the square of the codec's factor. Both sides of a codec are model spaces: x as networks see it, and z with a
variance of about one, since noise levels are measured against that.

The likelihood of x then has a lower bound, by Jensen's inequality,

    log p(x) >= E_q[ log p(x given z) + log p(z) - log q(z given x) ],

with p(x given z) the distribution of x about what is decoded. A lossless codec needs no such distribution:
log p(x) = log p(z) + log |det dz/dx|.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ornstein.errors import InputError

#: samples that are told, or read back, at a time
AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Code:
    """What a codec says of samples: a Gaussian distribution of the latent of each.

    Attributes:
        mean, std: (B, *latent); a std of zero where the latent is certain.
    """

    mean: Tensor
    std: Tensor

    def drawn(self, eps: Tensor) -> Tensor:
        """Latents, from standard normal numbers of their shape."""
        return self.mean + self.std * eps

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of what is drawn, (C,) float64."""
        mean, others = self.mean.double(), [axis for axis in range(self.mean.ndim) if axis != 1]
        found = mean.mean(others)
        centred = mean - found.reshape(-1, *[1] * (mean.ndim - 2))
        # the variance of the means, and that which the codec leaves open
        return found, (centred.square().mean(others) + self.std.double().square().mean(others)).sqrt()

    @cached_property
    def entropy(self) -> Tensor:
        """E[-log q(z given x)] of each sample, in nats, (B,)."""
        return (0.5 * (1 + math.log(2 * math.pi)) + self.std.log()).flatten(1).sum(1)


class Codec(ABC):
    """A map to latents and back. To add one, write `tell` and `read`; and `log_abs_det` if it is lossless.

    Attributes:
        shape: of a sample.
        latent: of its latent.
        spread: mean absolute error of a decoded number, in x's model space: the scale of a Laplace distribution; 0 for
            a lossless codec, None if it was not measured.
    """

    shape: tuple[int, ...]
    latent: tuple[int, ...]
    spread: float | None = None

    @abstractmethod
    def tell(self, x: Tensor) -> Code:
        """The distribution of the latents of x (B, *shape)."""

    @abstractmethod
    def read(self, z: Tensor) -> Tensor:
        """z (B, *latent) -> (B, *shape), differentiable."""

    def log_abs_det(self, x: Tensor) -> Tensor:
        """log |det dz/dx|, (B,).

        Raises:
            InputError: the codec has none, because it is not lossless.
        """
        raise InputError("this codec is not invertible: likelihoods in its latents are bounds.")

    @property
    def device(self) -> torch.device:
        """The device it works on."""
        return torch.device("cpu")

    def encode(self, x: Tensor) -> Code:
        """`tell` for any number of rows, in bounded memory and without gradients; on x's device."""
        with torch.no_grad():
            codes = [self.tell(part.to(self.device)) for part in x.split(AT_ONCE)]
        return Code(*(torch.cat([getattr(c, name) for c in codes]).to(x.device) for name in ("mean", "std")))

    def decode(self, z: Tensor) -> Tensor:
        """`read` for any number of rows, likewise."""
        with torch.no_grad():
            return torch.cat([self.read(part.to(self.device)) for part in z.split(AT_ONCE)]).to(z.device)
