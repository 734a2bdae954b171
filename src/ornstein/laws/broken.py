"""How a broken law is reported: in one sentence, with the numbers."""

import torch
from torch import Tensor


class LawBroken(AssertionError):
    """An entry of a table does not satisfy a law; the message says where, what was found and what it must be."""


def hold(true: "bool | Tensor", sentence: str) -> None:
    """Raise `LawBroken` with the sentence unless the first argument is true."""
    if not bool(true):
        raise LawBroken(sentence)


def near(what: str, got: "Tensor | float", expected: "Tensor | float", rtol: float = 0.0, atol: float = 0.0) -> None:
    """Raise `LawBroken` unless every number is within max(rtol |expected|, atol) of the expected one; NaN never is."""
    a = torch.as_tensor(got, dtype=torch.float64)
    b = torch.as_tensor(expected, dtype=torch.float64).expand_as(a)
    excess = torch.where(a == b, 0.0, (a - b).abs() - (rtol * b.abs()).clamp(min=atol))
    excess = torch.where(excess.isnan(), torch.inf, excess).flatten()
    if len(excess) and float(excess.max()) > 0:
        worst = int(excess.argmax())
        raise LawBroken(f"{what} is {float(a.flatten()[worst]):.9g}; it must be {float(b.flatten()[worst]):.9g}.")
