"""A transformer with rotary positions and adaptive norms, for sequences, grids and tables.

    h <- h + gate . attention(norm(h)),   h <- h + gate . W2 gelu(W1 norm(h)),   norm(h) = scale . layernorm(h) + shift

with gate, scale and shift from the noise level and the condition (Peebles & Xie 2022, arXiv:2212.09748). If the
condition has texts, h attends to their tokens between the two (Chen et al. 2023, arXiv:2310.00426). A token is a
place of the input, or a patch of places. Queries and keys are rotated by angles proportional to the token's position,
so that their product depends on the difference of two positions alone (Su et al. 2021, arXiv:2104.09864); with several
axes, each gets its share of the head's width. In addition each place may have a vector of its own. Without it an input
that is the same everywhere gives an output that is the same everywhere: text that is cut at arbitrary places can do
without it, pictures and tables cannot.

Queries, keys and values have the shape (batch, heads, tokens, width) throughout, which every exporter understands.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError, must_be_whole

from .attention import CrossAttention, Keys, attend
from .contract import MOST_LAYERS, NOTHING, NetConfig, Part, Shape, check_input, require_fraction
from .dropout import Dropout
from .embedding import Beside, Embedding
from .unet import _into_channels, _out_of_channels

#: the slowest rotation's period, in positions over 2 pi
_SLOWEST = 1000.0


@dataclass(frozen=True)
class Transformer(NetConfig):
    """Transformer with rotary positions and adaptive norm, for sequences (C, L), grids (C, *space) and vectors (d,).

    Each number of a vector is a token. Time and memory grow with the square of the number of tokens.

    Args:
        width: of the trunk.
        depth: the number of blocks, each an attention and two linear layers.
        heads_width: channels of a head, an even number that divides the width.
        widening: width of the hidden layer, as a multiple of the trunk's.
        patch: side of the patches that form a token.
        places: whether each place has a vector of its own; if so, inputs must have the size that the net was built for.
        embedding: width of the vector that carries noise level and condition.
        dropout: share of each branch's units that is dropped in training.
    """

    width: int = 128
    depth: int = 4
    heads_width: int = 32
    widening: int = 4
    patch: int = 1
    places: bool = True
    embedding: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in ("width", "widening", "patch", "embedding", "heads_width"):
            must_be_whole(field, getattr(self, field), 1)
        must_be_whole("depth", self.depth, 1, MOST_LAYERS)
        require_fraction("dropout", self.dropout)
        if self.heads_width % 2 or self.width % self.heads_width:
            raise InputError(f"net.heads_width={self.heads_width!r} must be even, and divide width={self.width}.")

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        return _TransformerModule(self, shape, conditions, out_multiple)


class _TransformerModule(nn.Module):
    def __init__(self, config: Transformer, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> None:
        super().__init__()
        width, self.patch, self.shape = config.width, config.patch, shape
        self.vector = len(shape) == 1
        channels, space = (1, shape) if self.vector else (shape[0], shape[1:])
        self.grid = tuple(-(-size // config.patch) for size in space)
        folded = config.patch ** len(space)
        self.expected = f"(B, {', '.join(map(str, shape))})"
        self.embedding, self.beside = Embedding(config.embedding, conditions), Beside(conditions)
        self.modulation = nn.Linear(config.embedding, (6 * config.depth + 2) * width)
        self.inp = nn.Linear((channels + self.beside.channels) * folded, width)
        alone = config.places or self.vector
        self.places = nn.Parameter(0.02 * torch.randn(math.prod(self.grid), width)) if alone else None
        reads = bool(self.embedding.texts)
        self.blocks = nn.ModuleList(Block(config, reads) for _ in range(config.depth))
        self.out = nn.Linear(width, channels * out_multiple * folded)
        self.heads_width = config.heads_width
        self.register_buffer("turns", turns_of(self.grid, config.heads_width), persistent=False)
        with torch.no_grad():
            tuned = self.modulation.bias.view(-1, width)
            # for each block: scale and shift of both norms, then the gates; at the end scale and shift of the last norm
            tuned.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0] * config.depth + [1.0, 0.0])[:, None])
            self.modulation.weight.mul_(0.1)
            self.out.weight.zero_()
            self.out.bias.zero_()

    turns: Tensor

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor] = NOTHING) -> Tensor:
        fits = x.shape[1:] == self.shape if self.places is not None else x.shape[1:2] == self.shape[:1]
        check_input(x, noise_level, self.expected, fits and x.dim() == 1 + len(self.shape))
        x = self._with_pictures(x, condition)
        space = x.shape[2:]
        folded = _into_channels(x, self.patch)
        grid = tuple(folded.shape[2:])
        turns = self.turns if grid == self.grid else turns_of(grid, self.heads_width).to(self.turns)
        tuned = self.modulation(self.embedding(noise_level, condition)).unflatten(1, (-1, 1, self.inp.out_features))
        h = self.inp(folded.flatten(2).transpose(1, 2))
        if self.places is not None:
            h = h + self.places
        parts, keys = tuned.unbind(1), self.embedding.keys(x.shape[0], condition)
        for i, block in enumerate(self.blocks):
            h = block(h, parts[6 * i : 6 * i + 6], turns, keys)
        out = self.out(normed(h, *parts[-2:])).transpose(1, 2).unflatten(2, grid)
        found: Tensor = _out_of_channels(out, self.patch, space)
        return found.flatten(1) if self.vector else found

    def _with_pictures(self, x: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """x as channels of a grid, with those of pictures; what lies beside a vector stands at each of its numbers."""
        if not self.vector:
            return self.beside(x, condition)  # type: ignore[no-any-return]
        laid = self.beside.laid(x, condition)
        return torch.cat([x.unsqueeze(1), *(part.unsqueeze(2).expand(-1, -1, x.shape[1]) for part in laid)], 1)


class Block(nn.Module):
    """Attention, then two linear layers, each behind a norm whose scale and shift, and a gate, are given."""

    def __init__(self, config: Transformer, reads: bool) -> None:
        super().__init__()
        width = config.width
        self.heads, self.thinned = width // config.heads_width, Dropout(config.dropout)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, config.widening * width), nn.Linear(config.widening * width, width)
        self.text = CrossAttention(width, self.heads, config.embedding) if reads else None

    def forward(
        self, h: Tensor, tuned: tuple[Tensor, ...], turns: Tensor, keys: Keys | None, there: Tensor | None = None
    ) -> Tensor:
        """`there` says which tokens attend to which, (tokens, tokens) bool; None: all to all."""
        scale, shift, scale_again, shift_again, gate, gate_again = tuned
        qkv = self.qkv(normed(h, scale, shift)).unflatten(-1, (3, self.heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # (B, heads, tokens, width)
        mixed = attend(_turned(query, turns), _turned(key, turns), value, there).transpose(1, 2).flatten(2)
        h = h + gate * self.thinned(self.proj(mixed))
        if self.text is not None and keys is not None:
            h = h + self.thinned(self.text(F.layer_norm(h, h.shape[-1:]), keys))
        hidden = F.gelu(self.first(normed(h, scale_again, shift_again)))
        found: Tensor = h + gate_again * self.second(self.thinned(hidden))
        return found


def normed(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm over the last axis, with scale and shift of any shape that broadcasts."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), scale)


def turns_of(grid: Shape, width: int) -> Tensor:
    """Cosines and sines (2, tokens, width/2) of each token's position; the axes share the width evenly."""
    pairs = width // 2
    share = max(1, pairs // len(grid))
    speed = _SLOWEST ** (-torch.arange(share, dtype=torch.float32) / share)
    along = torch.meshgrid(*(torch.arange(size, dtype=torch.float32) for size in grid), indexing="ij")
    angles = torch.cat([axis.reshape(-1, 1) * speed for axis in along], 1)[:, :pairs]
    angles = F.pad(angles, (0, pairs - angles.shape[1]))  # left-over channels are not rotated
    return torch.stack([angles.cos(), angles.sin()])


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    """x (B, heads, tokens, width) with each pair (x_i, x_{i + width/2}) rotated by its angle."""
    cos, sin = turns.to(x.dtype).unbind(0)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
