"""Maps between the data's own units and the space in which the model lives.

A diffusion model needs inputs of about unit size and centred; users have pixels from 0 to 255, house prices
and voltages. An invertible map z = T(x), fixed before training and stored with the run, connects the two,
so that samples come back in the user's units and densities can be compared across models. By the change of
variables the densities are related by

    log p(x) = log p_model(T(x)) + log |det dT/dx|,

which is why every transform carries its log-determinant (in nats): without that term a likelihood is in units
of whatever scaling happened to be chosen.

Digital images are not continuous at all: a pixel is one of `count` whole numbers, and what is comparable between
models is the *probability* of that number, the integral of the density over a bin of width one. `WholeNumbers` records
the data's own grid (17 levels for scikit-learn's digits, 256 for a byte, 4,096 for a 12-bit scanner), so that the
discretised likelihood and the bits per dimension are computed with the right bin and not with an assumed 8 bits.
(Theis, van den Oord and Bethge, "A note on the evaluation of generative models", 2016, arXiv:1511.01844.)

Shapes: a batch is (B, *shape). Per-feature numbers run along axis 1: the features of a vector (B, d), the
channels of an image (B, C, H, W) or of an array (B, C, L).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.errors import InputError, lookup


class Transform(ABC):
    """An invertible, element-wise map from data units x to model space z."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """z = T(x): (B, *shape) in data units -> the same shape in model space, float32 (float64 stays float64)."""

    @abstractmethod
    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        """x = T^-1(z): model space -> data units, float32 (float64 stays float64).

        With `quantise`, data that have levels are rounded to the nearest one, clipped to the range and returned
        in their integer type (uint8, or int32 if a byte does not hold them); continuous data are not affected.
        """

    @abstractmethod
    def log_abs_det(self, x: Tensor) -> Tensor:
        """log |det dT/dx| of the forward map, in nats, one number per example: (B, *shape) -> (B,)."""

    @property
    def levels(self) -> "WholeNumbers | None":
        """The grid on which the data lie, or None if they are continuous."""
        return None

    @property
    def categories(self) -> Categories | None:
        """The tokens that model space is made of, or None where it is made of numbers."""
        return None

    @property
    def plain(self) -> "Transform":
        """The part that maps each number by itself: all of it, except for a codec."""
        return self

    @property
    def letters(self) -> str:
        """The characters that the classes of a text stand for; "" for other data."""
        return ""

    def pictures(self, z: Tensor) -> Tensor:
        """Images in model space as they are shown, in [-1, 1]: (B, C, H, W)."""
        return z

    def texts(self, z: Tensor) -> list[str]:
        """Texts in model space as strings."""
        raise InputError(f"{self} is of no text.")

    def shape(self, own: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in model space of an example of shape `own`."""
        return own

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A plain dict (strings, numbers, lists) from which `from_dict` makes the same transform."""

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Transform":
        """The transform of this kind that `to_dict` described, its kind left out."""
        return cls(**description)

    @staticmethod
    def from_dict(description: Mapping[str, Any]) -> "Transform":
        """The transform that `to_dict` described. Raises `InputError` if the description is not one."""
        try:
            arguments = dict(description)
            kind = lookup(TRANSFORMS, arguments.pop("kind", None), "transform.kind")
            return kind.described(arguments)
        except InputError:
            raise
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"transform={description!r} is damaged ({error}).") from error


@final
@dataclass(frozen=True)
class Affine(Transform):
    """z = (x - shift) / scale, with one number for all or one per feature.

    Both are in data units: `shift` is the value that becomes 0, `scale` the distance that becomes 1. (Subtracting
    first keeps the digits of data that lie far from zero, which scale * x + shift would round away.)

    Args:
        shift: a number, or one per feature (axis 1 of the batch).
        scale: the same; not zero.
    """

    shift: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            value = getattr(self, name)
            numbers = tuple(map(float, value)) if isinstance(value, (tuple, list)) else (float(value),)
            if not all(map(math.isfinite, numbers)) or (name == "scale" and 0.0 in numbers):
                raise InputError(
                    f"Affine.{name}={value!r} must be finite" + (" and not 0." if name == "scale" else ".")
                )
            object.__setattr__(self, name, numbers if isinstance(value, (tuple, list)) else numbers[0])
        lengths = {len(v) for v in (self.shift, self.scale) if isinstance(v, tuple)}
        if len(lengths) > 1:
            raise InputError(f"Affine has {sorted(lengths)} numbers in shift and scale; give one, or as many of each.")

    def forward(self, x: Tensor) -> Tensor:
        x = _floating(x)
        return (x - _along_features(self.shift, x)) / _along_features(self.scale, x)

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        z = _floating(z)
        return z * _along_features(self.scale, z) + _along_features(self.shift, z)

    def log_abs_det(self, x: Tensor) -> Tensor:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        per_feature = x[0].numel() / len(scales)
        return _constant(-per_feature * sum(math.log(abs(s)) for s in scales), x)

    def to_dict(self) -> dict[str, Any]:
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in (("shift", self.shift), ("scale", self.scale))}
        return {"kind": "affine", **plain}

    def __str__(self) -> str:
        if isinstance(self.shift, tuple) or isinstance(self.scale, tuple):
            return "standardised"
        return f"(x - {self.shift:g}) / {self.scale:g}"


@final
@dataclass(frozen=True)
class WholeNumbers(Transform):
    """Whole numbers low, ..., low + count - 1 spread over [-1, 1]: the grid of a digital image.

        z = 2 (x - low) / (count - 1) - 1

    The bin of one level is 1 wide in data units and `bin_width` wide in model space; the outermost bins reach
    past the ends of [-1, 1] by half of it (or to infinity, as the discretised likelihood chooses).

    Args:
        count: how many levels, at least 2 (256 for bytes).
        low: the smallest.
    """

    count: int
    low: int = 0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise InputError(
                f"WholeNumbers.count={self.count!r} must be at least 2: data of one value have nothing to learn."
            )

    @property
    def levels(self) -> "WholeNumbers":
        return self

    @property
    def bin_width(self) -> float:
        """Distance of two neighbouring levels in model space."""
        return 2 / (self.count - 1)

    @property
    def dtype(self) -> torch.dtype:
        """The compact integer type that holds every level."""
        return torch.uint8 if self.low >= 0 and self.low + self.count <= 256 else torch.int32

    def forward(self, x: Tensor) -> Tensor:
        half = (self.count - 1) / 2
        return (_floating(x) - (self.low + half)) / half

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        half = (self.count - 1) / 2
        x = _floating(z) * half + (self.low + half)
        return x.round().clamp(self.low, self.low + self.count - 1).to(self.dtype) if quantise else x

    def log_abs_det(self, x: Tensor) -> Tensor:
        return _constant(-x[0].numel() * math.log((self.count - 1) / 2), x)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "levels", "count": self.count, "low": self.low}

    def __str__(self) -> str:
        return "[-1, 1]"


@final
@dataclass(frozen=True)
class Chain(Transform):
    """Several transforms in a row, the first one acting on the data; log-determinants add."""

    parts: tuple[Transform, ...]

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part.forward(x)
        return x

    def inverse(self, z: Tensor, quantise: bool = False) -> Tensor:
        for place, part in reversed(tuple(enumerate(self.parts))):
            z = part.inverse(z, quantise=quantise and place == 0)  # only the first part knows the data's own grid
        return z

    def log_abs_det(self, x: Tensor) -> Tensor:
        total = _constant(0.0, x)
        for part in self.parts:
            total = total + part.log_abs_det(x)
            x = part.forward(x)
        return total

    @property
    def levels(self) -> WholeNumbers | None:
        return self.parts[0].levels if self.parts else None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "chain", "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> "Chain":
        return Chain(tuple(Transform.from_dict(part) for part in description["parts"]))

    def __str__(self) -> str:
        return " -> ".join(map(str, self.parts)) or "as they are"


TRANSFORMS: dict[str, type[Transform]] = {"affine": Affine, "levels": WholeNumbers, "chain": Chain}


def per_feature(transform: Transform, features: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(shift, scale) of each feature, for a transform z = (x - shift)/scale.

    Raises:
        InputError: another kind of transform.
    """
    if isinstance(transform, WholeNumbers):
        half = (transform.count - 1) / 2
        return (transform.low + half,) * features, (half,) * features
    if not isinstance(transform, Affine):
        raise InputError(f"transform={transform} is no shift and scale of each feature.")
    shift, scale = (v if isinstance(v, tuple) else (v,) * features for v in (transform.shift, transform.scale))
    return shift, scale


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _constant(value: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), value, dtype=_floating(x[:0]).dtype, device=x.device)


def _along_features(value: float | tuple[float, ...], x: Tensor) -> float | Tensor:
    if not isinstance(value, tuple):
        return value
    if x.ndim < 2 or x.shape[1] != len(value):
        raise InputError(f"the transform has {len(value)} features, but axis 1 of the batch {tuple(x.shape)} has not.")
    return torch.tensor(value, dtype=x.dtype, device=x.device).reshape(-1, *(1,) * (x.ndim - 2))
