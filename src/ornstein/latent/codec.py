"""Codecs: a trained autoencoder, and an invertible linear map, which is a codec in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ornstein.core.codec import Code, Codec
from ornstein.core.copies import beside
from ornstein.errors import InputError
from ornstein.nets.autoencoder import AutoencoderModule


@dataclass(frozen=True, eq=False)
class NetCodec(Codec):
    """An autoencoder as a codec: its latent z0, which training leaves at any scale, becomes z = (z0 - shift)/scale.

    Args:
        net: the trained network. With a codebook, z0 is the encoder's output; taking the nearest vector of the book
            belongs to decoding (Rombach et al. 2022).
        shift, scale: for each channel of the latent, so that z has mean 0 and variance 1 over the data.
        spread: see `Codec`.
    """

    net: AutoencoderModule
    shift: Sequence[float] = (0.0,)
    scale: Sequence[float] = (1.0,)
    spread: float | None = None

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            found = torch.as_tensor(getattr(self, name), dtype=torch.float32)
            if found.ndim != 1 or len(found) not in (1, self.latent[0]) or not bool(found.isfinite().all()):
                raise InputError(f"{name} must be {self.latent[0]} finite numbers, one for each channel of the latent.")
        if not min(self.scale) > 0:
            raise InputError("each scale of the latent must be positive.")

    @property
    def bare(self) -> AutoencoderModule:
        """The network itself, if training has wrapped it to distribute it over processes."""
        found: AutoencoderModule = getattr(self.net, "module", self.net)
        return found

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.bare.shape

    @property
    def latent(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.bare.latent

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def tell(self, x: Tensor) -> Code:
        mean, log_var = self.bare.encode(x.float())
        scale = self._along("scale", mean)
        told = (mean - self._along("shift", mean)) / scale
        return Code(told, torch.zeros_like(told) if log_var is None else (0.5 * log_var).exp() / scale)

    def read(self, z: Tensor) -> Tensor:
        z0 = z.float() * self._along("scale", z) + self._along("shift", z)
        return self.bare.decode(self.bare.nearest(z0))

    def _along(self, name: str, like: Tensor) -> Tensor:
        # in float32 whatever the type of z, like the network's weights
        return beside(self._constants[name], like.float()).reshape(-1, *[1] * (like.ndim - 2))

    @cached_property
    def _constants(self) -> dict[str, Tensor]:
        return {name: torch.as_tensor(getattr(self, name), dtype=torch.float32) for name in ("shift", "scale")}


@dataclass(frozen=True, eq=False)
class LinearCodec(Codec):
    """z = matrix (x - centre): a codec that loses nothing, for tests of whatever uses codecs.

    Args:
        matrix: (d, d), invertible, for a flattened sample.
        shape: of a sample, d numbers.
        latent: shape of its latent, d numbers; () for the same as `shape`.
        centre: (d,), or None for 0.

    Raises:
        InputError: shapes that do not fit, or a matrix that is singular to float64.
    """

    matrix: Tensor
    shape: tuple[int, ...]
    latent: tuple[int, ...] = ()
    centre: Tensor | None = None
    spread: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not self.latent:
            object.__setattr__(self, "latent", self.shape)
        d = len(self.matrix)
        if tuple(self.matrix.shape) != (d, d) or any(torch.Size(s).numel() != d for s in (self.shape, self.latent)):
            raise InputError(
                f"matrix is {tuple(self.matrix.shape)} for samples of shape {self.shape} and latents of shape "
                f"{self.latent}; it must be (d, d), where d is the count of numbers in each."
            )
        if not torch.linalg.matrix_rank(self.matrix.double()) == d:
            raise InputError("matrix is singular: what it loses cannot be decoded.")

    @cached_property
    def _inverse(self) -> Tensor:
        found: Tensor = torch.linalg.inv(self.matrix.double())
        return found

    def tell(self, x: Tensor) -> Code:
        flat = x.flatten(1) if self.centre is None else x.flatten(1) - beside(self.centre, x)
        z: Tensor = (flat @ beside(self.matrix, x).T).unflatten(1, self.latent)
        return Code(z, torch.zeros_like(z))

    def read(self, z: Tensor) -> Tensor:
        flat = z.flatten(1) @ beside(self._inverse, z).T
        found: Tensor = (flat if self.centre is None else flat + beside(self.centre, z)).unflatten(1, self.shape)
        return found

    def log_abs_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), float(torch.linalg.slogdet(self.matrix.double()).logabsdet))
