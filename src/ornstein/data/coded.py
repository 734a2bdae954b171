"""Data encoded in fewer numbers: the latents of a trained codec as the space that a model lives in.

A codec (`ornstein.core.codec`) is a map to model space like any other, only learned; so whatever knows data by their
transform works with latents unchanged: samples come back through its decoder, and pictures are drawn by it.

*Encoded once.* Encoding costs a network call per example, so a data set stores the codec's answer for each, and a batch
draws from that: a latent is drawn afresh at each use, z = mean + std eps, with eps a function of seed and step. The
distribution of these draws is what a model of latents learns, and what bounds the likelihood of the data.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.codec import Code, Codec
from ornstein.data.between import Named, named_end, opened
from ornstein.data.dataset import Dataset, Source
from ornstein.data.reading import absolute
from ornstein.data.splitting import stream
from ornstein.data.transform import TRANSFORMS, Transform
from ornstein.errors import InputError


@final
@dataclass(frozen=True, eq=False)
class Coded(Transform):
    """z = the mean latent of what `base` makes of x; back by the decoder.

    Args:
        base: the data's own transform, into the space that the codec knows.
        codec: the codec; None if its weights are absent and only the shape is needed.
        latent: shape of a latent.
        sha256: of the codec's weights.
    """

    base: Transform
    codec: Codec | None
    latent: tuple[int, ...]
    sha256: str = ""

    @property
    def own(self) -> Codec:
        """The codec.

        Raises:
            InputError: its weights are absent.
        """
        if self.codec is None:
            raise InputError("the codec of these latents is not open: its weights lie in the run's folder codec/.")
        return self.codec

    def forward(self, x: Tensor) -> Tensor:
        return self.own.encode(self.base.forward(x)).mean

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        return self.base.inverse(self.own.decode(z), quantise)

    def log_abs_det(self, x: Tensor) -> Tensor:
        """log |det| of a lossless codec. Raises `InputError` for others."""
        return self.base.log_abs_det(x) + self.own.log_abs_det(self.base.forward(x))

    @property
    def plain(self) -> Transform:
        return self.base

    def pictures(self, z: Tensor) -> Tensor:
        return self.base.pictures(self.own.decode(z))

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        return self.latent

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "coded", "base": self.base.to_dict(), "latent": list(self.latent), "sha256": self.sha256}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Coded":
        base, latent = Transform.from_dict(description["base"]), tuple(map(int, description["latent"]))
        return Coded(base, None, latent, str(description["sha256"]))

    def __str__(self) -> str:
        return f"latents {'x'.join(map(str, self.latent))}"


TRANSFORMS["coded"] = Coded


@final
@dataclass(frozen=True)
class Latents(Source):
    """The latents of a data set, by a codec that was trained on it or on similar data.

    Args:
        of: a name of data, a file or a folder; or a mapping of a name and arguments.
        codec: the folder of a run of preset=autoencoder.

    Raises:
        InputError: data that are absent or unfit; cells that are missing; rows of a table.
    """

    of: Named
    codec: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", named_end(self.of, "data.of"))
        object.__setattr__(self, "codec", absolute(self.codec, "data.codec"))

    def load(self) -> Dataset:
        """The data as they are, without the codec: see `told`."""
        return self.checked(opened(self.of).load())

    def checked(self, data: Dataset) -> Dataset:
        """Data that a codec can tell.

        Raises:
            InputError: cells that are missing, rows of a table, points; pictures as a condition.
        """
        if len(data.shape) < 2 or data.missing or data.timeline is not None or data.transform.categories is not None:
            raise InputError(
                f"data.of={data.name!r} are no complete signals, pictures or volumes, and a codec takes nothing else."
            )
        for name, column in data.conditions.items():
            if column.about.kind == "picture":
                raise InputError(
                    f"data.of={data.name!r} has pictures as its condition {name!r}, which do not lie over latents."
                )
        return data


def told(data: Dataset, codec: Codec, sha256: str, known: "tuple[float, float] | None" = None) -> "Encoded":
    """A data set in the latents of a codec.

    Args:
        codec: of data of this shape.
        sha256: of its weights.
        known: mean and sigma_data of the latents, if they were measured before.

    Raises:
        InputError: the codec is of data of another shape.
    """
    shape = data.transform.shape(data.shape)
    if shape != codec.shape:
        raise InputError(
            f"data={data.name!r} has {data.kind}s {_by(shape)}, and the codec was trained on {_by(codec.shape)}."
        )
    fields = {field.name: getattr(data, field.name) for field in dataclasses.fields(Dataset)}
    fields["transform"] = Coded(data.transform, codec, codec.latent, sha256)
    return Encoded(**fields, known=known)


@dataclass(frozen=True, eq=False)
class Encoded(Dataset):
    """A data set with its latents by a codec; made by `told`.

    Args:
        known: mean and sigma_data of the latents of the training part, if they were measured before.
    """

    known: tuple[float, float] | None = None

    @cached_property
    def codes(self) -> list[Code]:
        """The codes of the training examples; and of their mirror images, if these are drawn too."""
        assert isinstance(self.transform, Coded)
        codec, base = self.transform.own, self.transform.base
        found = []
        for turn in (False, True)[: 1 + self.flip]:
            parts = [
                codec.encode(base.forward(part.flip(-1) if turn else part))
                for part in self.train.split(1024)  # in float32 the whole may not fit
            ]
            found.append(Code(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])))
        return found

    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.known is not None:
            return tuple(torch.tensor([value], dtype=torch.float64) for value in self.known)  # type: ignore[return-value]
        return self.codes[0].moments()

    @property
    def _beside(self) -> dict[str, Any]:
        assert isinstance(self.transform, Coded)
        return {"codec": {"sha256": self.transform.sha256, "latent": list(self.transform.latent)}}

    def _told(self, index: Tensor, mirrored: Tensor | None, place: tuple[int, ...]) -> Tensor:
        seed, step, size, rank, world = place
        shape = self.codes[0].mean.shape[1:]
        eps = torch.randn(size * world, *shape, generator=stream(seed, "code", step))[rank * size : (rank + 1) * size]
        plain, *turned = (Code(code.mean[index], code.std[index]).drawn(eps) for code in self.codes)
        if mirrored is None or not turned:
            return plain
        return torch.where(mirrored.reshape(-1, *[1] * len(shape)), turned[0], plain)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
