"""A network that reads a sequence from both ends: its output at a place depends on all other places, not on this one.

Two transformers read the sequence, one from the left and one from the right. In the first a place attends to itself and
to those before it, so its state sums up the text so far; in the second to itself and to those after it. The output at
place i combines the state of i - 1 on the left with that of i + 1 on the right, in a few layers:

    out_i = head( left(x_1 ... x_{i-1}) + right(x_{i+1} ... x_L) )

(bidirectional language models: Peters et al. 2018, arXiv:1802.05365). So out_i does not depend on x_i, and the two may
read different sequences: `after=` is what the right one reads. With the whole text on the left and nothing on the
right, one call predicts every place from the text before it, as a model that reads in order does; with a text that has
blanks on both sides, the same weights predict from both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.errors import InputError, must_be_whole

from .contract import MOST_LAYERS, NOTHING, NetConfig, Part, Shape, check_input
from .embedding import Beside, Embedding
from .transformer import Block, Transformer, normed, turns_of


@dataclass(frozen=True)
class TwoWay(NetConfig):
    """Reads sequences (C, L) from both ends; predicts each place from the others.

    Args:
        width: of each trunk.
        depth: blocks in each trunk, each of an attention and two linear layers.
        head: layers that combine both trunks, each of two linear layers.
        heads_width: channels a head, even; it divides the width.
        widening: of the hidden layers, in widths.
        embedding: width of the vector that carries noise level and condition.
        dropout: share of each branch's units that is left out in training.
    """

    width: int = 128
    depth: int = 4
    head: int = 1
    heads_width: int = 32
    widening: int = 4
    embedding: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        must_be_whole("head", self.head, 1, MOST_LAYERS)
        _ = self.trunk  # checks the other settings

    @property
    def trunk(self) -> Transformer:
        """The network that reads from one end, as a transformer of these sizes."""
        return Transformer(
            self.width, self.depth, self.heads_width, self.widening, 1, False, self.embedding, self.dropout
        )

    def _module(self, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> nn.Module:
        if len(shape) != 2:
            raise InputError(f"net='two-way' reads sequences (channels, length); these data are of shape {shape}.")
        return _TwoWayModule(self, shape, conditions, out_multiple)


class _TwoWayModule(nn.Module):
    def __init__(self, config: TwoWay, shape: Shape, conditions: Mapping[str, Part], out_multiple: int) -> None:
        super().__init__()
        self.shape, self.expected = shape, f"(B, {shape[0]}, {shape[1]})"
        self.embedding, self.beside = Embedding(config.embedding, conditions), Beside(conditions)
        channels, width, hidden = shape[0] + self.beside.channels, config.width, config.widening * config.width
        self.left, self.right = (_Reader(config, channels, shape[1]) for _ in range(2))
        self.told = nn.Linear(config.embedding, width)
        self.head = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            for _ in range(config.head)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, shape[0] * out_multiple)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        x: Tensor,
        noise_level: Tensor,
        condition: Mapping[str, Tensor] = NOTHING,
        after: Tensor | None = None,
    ) -> Tensor:
        """(B, C, L) -> (B, C, L); `after`, if not None, is what to read from the right instead of x, (B or 1, C, L)."""
        check_input(x, noise_level, self.expected, x.dim() == 3 and x.shape[1] == self.shape[0])
        before = self.beside(x, condition)
        if after is not None and self.beside.channels:
            after = self.beside(after.expand(len(x), -1, -1), condition)
        ahead = self.right((before if after is None else after).flip(2)).flip(1)
        h = F.pad(self.left(before)[:, :-1], (0, 0, 1, 0)) + F.pad(ahead[:, 1:], (0, 0, 0, 1))
        h = h + self.told(self.embedding(noise_level, condition))[:, None]
        for layer in self.head:
            h = h + layer(h)
        out: Tensor = self.out(self.norm(h)).transpose(1, 2)
        return out


class _Reader(nn.Module):
    """(B, C, L) -> (B, L, width), for each place a state of what stands there and before it."""

    turns: Tensor

    def __init__(self, config: TwoWay, channels: int, length: int) -> None:
        super().__init__()
        trunk = config.trunk
        self.inp, self.heads_width = nn.Linear(channels, config.width), config.heads_width
        self.blocks = nn.ModuleList(Block(trunk, False) for _ in range(config.depth))
        # scale and shift of each norm, and the gates, block by block; then scale and shift of the last norm
        tuned = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0] * config.depth + [1.0, 0.0])
        self.tuned = nn.Parameter(tuned[:, None].repeat(1, config.width))
        self.register_buffer("turns", turns_of((length,), config.heads_width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]
        turns = self.turns if length == self.turns.shape[1] else turns_of((length,), self.heads_width).to(x)
        h = self.inp(x.transpose(1, 2))
        there = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        parts = self.tuned.unbind(0)
        for i, block in enumerate(self.blocks):
            h = block(h, parts[6 * i : 6 * i + 6], turns, None, there)
        return normed(h, *parts[-2:])
