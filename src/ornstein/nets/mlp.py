"""A residual network for vectors.

    h <- h + W2 silu(W1 (scale * norm(h) + shift)),        scale, shift from the noise level and the condition

Residual blocks with adaptive layer normalisation (Perez et al. 2017, arXiv:1709.07871; Peebles & Xie 2022,
arXiv:2212.09748). On small batches much of the time is the overhead of each call, so the scales and shifts of all
blocks come from one matrix product, and adding a branch to the trunk is part of the branch's last product.

The norm before the output keeps the direction of h and drops its length, so a map as plain as y = A x has to be learned
piece by piece. A *linear* branch from the input to the output, its units scaled by level and condition, leaves to the
blocks what is not linear.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import must_be_whole

from .contract import MOST_LAYERS, NOTHING, NetConfig, Part, Shape, check_input, require_fraction
from .dropout import Dropout
from .embedding import Beside, Embedding


@dataclass(frozen=True)
class MLP(NetConfig):
    """Residual multi-layer perceptron with adaptive layer norm, for vectors and tables (any shape is flattened).

    Args:
        width: of the trunk.
        depth: residual blocks, each of two linear layers.
        embedding: width of the vector that carries noise level and condition.
        dropout: share of each branch's units that is dropped in training.
        linear: whether the output has a branch that is linear in the input, given level and condition.
    """

    width: int = 128
    depth: int = 3
    embedding: int = 64
    dropout: float = 0.0
    linear: bool = False

    def __post_init__(self) -> None:
        for field in ("width", "embedding"):
            must_be_whole(field, getattr(self, field), 1)
        must_be_whole("depth", self.depth, 1, MOST_LAYERS)
        require_fraction("dropout", self.dropout)

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        return _MLPModule(self, shape, Embedding(self.embedding, conditions), Beside(conditions), out_multiple)


class _MLPModule(nn.Module):
    def __init__(self, config: MLP, shape: Shape, embedding: Embedding, beside: Beside, out_multiple: int) -> None:
        super().__init__()
        width, depth, self.thinned = config.width, config.depth, Dropout(config.dropout)
        self.shape = shape
        self.expected = f"(B, {', '.join(map(str, shape))})"
        self.out_shape = (shape[0] * out_multiple, *shape[1:])
        self.embedding, self.beside = embedding, beside
        self.modulation = nn.Linear(config.embedding, (2 * depth + config.linear) * width)
        self.inp = nn.Linear(math.prod(shape) + beside.channels * math.prod(shape[1:]), width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.second = nn.ParameterList(nn.Parameter(torch.zeros(width, width)) for _ in range(depth))
        self.out = nn.Linear(width, math.prod(self.out_shape))
        self.straight = nn.Parameter(torch.zeros(width, math.prod(self.out_shape))) if config.linear else None
        with torch.no_grad():
            self.modulation.bias.fill_(1.0)
            self.modulation.bias.view(-1, width)[depth : 2 * depth].zero_()  # the shifts
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] = NOTHING) -> Tensor:
        check_input(x, noise_level, self.expected, x.shape[1:] == self.shape)
        depth, width = len(self.first), self.inp.out_features
        tuned = self.modulation(self.embedding(noise_level, condition)).unflatten(1, (-1, width)).unbind(1)
        scales, shifts = tuned[:depth], tuned[depth : 2 * depth]
        h = start = self._begun(x, condition)
        for scale, shift, first, second in zip(scales, shifts, self.first, self.second, strict=True):
            branch = torch.addcmul(shift, F.layer_norm(h, h.shape[1:]), scale)
            h = torch.addmm(h, self.thinned(F.silu(first(branch))), second)
        flat: Tensor = self.out(self.thinned(F.silu(F.layer_norm(h, h.shape[1:]))))
        if self.straight is not None:
            flat = torch.addmm(flat, tuned[-1] * start, self.straight)
        return flat.reshape(-1, *self.out_shape)

    def _begun(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The first layer, a product for each part of its input, since a gradient goes back to few of them."""
        parts = [part.flatten(1) for part in (x, *self.beside.laid(x, condition))]
        if len(parts) == 1:
            return self.inp(parts[0])  # type: ignore[no-any-return]
        weights = self.inp.weight.split([part.shape[1] for part in parts], 1)
        h: Tensor = self.inp.bias
        for part, weight in zip(parts, weights, strict=True):
            h = torch.addmm(h, part, weight.T)
        return h
