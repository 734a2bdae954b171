"""Tokens read in order, and filled in from both sides: one model for both, which starts from counts.

The model combines a network that reads from both ends (`ornstein.nets.two_way`) with counts of what follows and what
precedes the tokens next to a place (`counts`). With F the network's output,

    log p(x_i given the rest)  =  F_i + (1 + g_i) log p(x_i given those before)
                                      + (1 + h_i) log (p(x_i given those after)/p(x_i))   + constant

where g and h are two further outputs of the network at each place, which say how far to trust either count. F begins
at 0. So before any training the model is the n-gram model, also from the right where something is known there, and the
network learns the rest: words, names, who speaks, what lies farther off.

Where nothing is known on the right, that part is 0, and one call predicts every token of a row given those before it.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition
from ornstein.core.process import Level
from ornstein.discrete.counts import Counts
from ornstein.discrete.kernels import Kernel
from ornstein.discrete.tokens import TokenNet, as_shown, told


class CountedNet(nn.Module):
    """A network that reads from both ends, combined with counts from both; see the module.

    Args:
        net: of `TokenNet.shown` channels, `net(x, noise_level, condition, after)`.
        classes: K.
        order: of the n-grams that are counted.
    """

    def __init__(self, net: nn.Module, classes: int, order: int) -> None:
        super().__init__()
        self.net, self.classes = net, classes
        self.before, self.after = Counts(classes, order), Counts(classes, order)

    def count(self, codes: Tensor) -> None:
        """Count rows (N, T) of classes, no two of which share a token."""
        self.before.count(codes)
        self.after.count(codes.flip(1))

    def forward(
        self,
        codes: Tensor,
        process: Kernel,
        condition: Mapping[str, Tensor],
        after: Tensor | None = None,
        own: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, K) of codes (B, T), K for the mask.

        Args:
            after: codes to read from the right, where they differ from `codes`: (B, T), or (1, T) for all rows.
            own: the rows themselves, if they have been counted and are to be left out of the counts; (B, T).
        """
        classes, half = self.classes, Level(process, 0.0, 0.5, 0.5)
        x, ahead = (
            None if read is None else as_shown(process, read, classes, read.shape[1:], half, read < classes)[0]
            for read in (codes, after)
        )
        # where the masks are says it all, so the network gets no level (Ou et al. 2024, 2406.03736)
        out = self.net(x, torch.zeros(len(codes), device=codes.device), condition, ahead)
        out = out.float().transpose(1, 2)
        trust, behind = 1 + out[..., classes:], codes if after is None else after
        own_behind = None if own is None or after is not None else own.flip(1)
        later = self.after(behind.flip(1), own_behind).flip(1)
        alone = self.after(torch.full_like(behind, classes), own_behind)
        found: Tensor = out[..., :classes] + trust[..., :1] * self.before(codes, own) + trust[..., 1:] * (later - alone)
        return found


@dataclass(frozen=True, eq=False)
class TokenReader(TokenNet):
    """A `CountedNet` as the posterior mean of masked tokens.

    Args:
        own: rows that train it and have been counted, (B, T), to be left out of the counts; None for none.
    """

    own: Tensor | None = None

    @property
    def reads(self) -> bool:
        return True

    def apart_from(self, codes: Tensor) -> "TokenReader":
        return replace(self, own=codes)

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        factor = told(self.process, codes, self.classes, level, known)
        return (self._logits(codes, condition) + factor).log_softmax(-1)

    def in_order(self, codes: Tensor, condition: Condition) -> Tensor:
        """In one call: the network reads the whole row from the left, and nothing but masks from the right."""
        return self._logits(codes, condition, torch.full_like(codes[:1], self.classes)).log_softmax(-1)

    def _logits(self, codes: Tensor, condition: Condition, after: Tensor | None = None) -> Tensor:
        with torch.autocast(codes.device.type, self.precision) if self.precision else nullcontext():
            found: Tensor = self.net(codes, self.process, condition.parts, after, self.own)
        return found
