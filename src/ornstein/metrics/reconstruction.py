"""How alike two batches are, row by row: an autoencoder's output beside its input.

With L the range of the values, the peak signal-to-noise ratio in decibels is 10 log10(L^2/MSE), which ignores where
errors lie. Structural similarity compares means, variances and covariances in windows around each place,

    SSIM = (2 m n + c1)(2 c + c2) / ((m^2 + n^2 + c1)(v + w + c2)),     c1 = (0.01 L)^2, c2 = (0.03 L)^2,

averaged over places and channels: 1 for equal pictures (Wang, Bovik, Sheikh & Simoncelli 2004). Windows are Gaussian,
with standard deviation 1.5 and 11 wide, or the largest odd number that the sides allow; all of them lie within the
picture, as in scikit-image and in the authors' own program.
"""

import torch
from torch import Tensor

from ornstein.errors import InputError

_WIDE, _DEVIATION = 11, 1.5


def psnr(x: Tensor, y: Tensor, span: float) -> Tensor:
    """Peak signal-to-noise ratio of each row of two batches (B, ...), in decibels, (B,); infinite for equal rows.

    Args:
        span: the range of the values, such as 255 or 2.

    Raises:
        InputError: batches of two shapes, or a span that is not positive.
    """
    _check(x, y, span)
    return 10 * torch.log10(span**2 / (x.double() - y.double()).square().flatten(1).mean(1))


def ssim(x: Tensor, y: Tensor, span: float) -> Tensor:
    """Structural similarity of each row of two batches (B, C, *space), (B,), 1 for equal rows.

    Args:
        span: the range of the values, such as 255 or 2.

    Raises:
        InputError: batches of two shapes or without places, or a span that is not positive.
    """
    _check(x, y, span)
    if x.ndim < 3:
        raise InputError(f"x has shape {tuple(x.shape)}; structural similarity is of grids (B, C, *space).")
    x, y = x.double(), y.double()
    m, n = _windowed(x), _windowed(y)
    v, w, c = _windowed(x * x) - m * m, _windowed(y * y) - n * n, _windowed(x * y) - m * n
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    alike = (2 * m * n + first) * (2 * c + second) / ((m * m + n * n + first) * (v + w + second))
    return alike.flatten(1).mean(1)


def _windowed(x: Tensor) -> Tensor:
    """Means in windows that lie within x, along each axis of space."""
    for axis in range(2, x.ndim):
        wide = min(_WIDE, x.shape[axis] - (x.shape[axis] + 1) % 2)
        away = torch.arange(wide, dtype=x.dtype, device=x.device) - wide // 2
        weights = (-0.5 * (away / _DEVIATION).square()).exp()
        x = x.unfold(axis, wide, 1) @ (weights / weights.sum())
    return x


def _check(x: Tensor, y: Tensor, span: float) -> None:
    if x.shape != y.shape or x.ndim < 2 or not len(x):
        raise InputError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; they must be alike, (B, ...).")
    if not span > 0:
        raise InputError(f"span={span!r} must be positive, the range of the values.")
