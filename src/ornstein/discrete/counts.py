"""Counts: the distribution of a token given the few before it, from how often it followed them in the data.

With c(x) the number of times that token x followed a context of n tokens, N their sum, and D the number of different x,

    p_n(x) = ( c(x) + D p_{n-1}(x) ) / (N + D),        p_{-1}(x) = 1/K,

where p_{n-1} is for the context without its first token (Witten & Bell 1991): a context that was seen often is trusted,
a rare one leaves most of the weight to shorter ones, and an unseen one leaves all of it. A context with a masked token
counts as unseen, so the same formula serves rows of which only parts are known.

*Leaving one out.* Each token of the counted rows has itself been counted, so what follows a rare context seems far too
certain. `own=` removes that count again, which gives the counts of all other data (Jelinek & Mercer 1980).
"""

import torch
from torch import Tensor, nn

#: the most contexts, the most numbers in their table, and the most tokens to count
_MOST_CONTEXTS, _MOST_NUMBERS, _MOST_TOKENS = 2**16, 2**23, 2**22


class Counts(nn.Module):
    """Counts of what follows each context of up to `order` - 1 tokens, for as many of the commonest as there is room.

    Args:
        classes: K, at most 1,024.
        order: of the n-gram, the token itself included, at most 6.
    """

    def __init__(self, classes: int, order: int) -> None:
        super().__init__()
        self.classes, self.order = classes, order
        rows = min(_MOST_CONTEXTS, _MOST_NUMBERS // classes)
        # frozen parameters, not buffers, because a training step keeps a copy of those
        self.keys = nn.Parameter(torch.full((rows,), torch.iinfo(torch.int64).max), requires_grad=False)
        self.table = nn.Parameter(torch.zeros(rows, classes, dtype=torch.int16), requires_grad=False)

    def _contexts(self, codes: Tensor) -> list[Tensor]:
        """The contexts of 0, 1, 2, ... tokens before each place as numbers, (B, T) each; -1 if not all known.

        Digits run from 1 to K, the nearest token's first, so that contexts of different lengths differ.
        """
        found = [torch.zeros_like(codes)]
        known = torch.ones_like(codes, dtype=torch.bool)
        for n in range(1, self.order):
            digit = nn.functional.pad(codes, (n, 0), value=self.classes)[:, : codes.shape[1]]
            known = known & (digit < self.classes)
            found.append(found[-1].clamp_min(0) + (digit + 1) * (self.classes + 1) ** (n - 1))
            found[-1] = torch.where(known, found[-1], -1)
        return found

    @torch.no_grad()
    def count(self, codes: Tensor) -> None:
        """Count rows (N, T) of classes, no two of which share a token; earlier counts are discarded."""
        codes = codes[: max(1, _MOST_TOKENS // codes.shape[1])].long().cpu()
        keys = torch.stack(self._contexts(codes))
        known = keys >= 0
        contexts, which, often = keys[known].unique(return_inverse=True, return_counts=True)
        kept = often.argsort(descending=True, stable=True)[: len(self.keys)].sort().values
        row = torch.full_like(contexts, -1)
        row[kept] = torch.arange(len(kept))
        row, follows = row[which], codes.expand_as(keys)[known]
        both = (row * self.classes + follows)[row >= 0]
        table = both.bincount(minlength=self.table.numel()).clamp_max(torch.iinfo(torch.int16).max)
        self.keys.fill_(torch.iinfo(torch.int64).max)
        self.keys[: len(kept)] = contexts[kept].to(self.keys.device)
        self.table.copy_(table.reshape(self.table.shape))

    def forward(self, codes: Tensor, own: Tensor | None = None) -> Tensor:
        """log p at every place given what is known just before it: codes (B, T), K where not known -> (B, T, K).

        Args:
            own: (B, T) of classes, the rows themselves if counted, to be left out again; None for none.
        """
        p = torch.full((*codes.shape, self.classes), 1 / self.classes, device=codes.device)
        for key in self._contexts(codes):
            row = torch.searchsorted(self.keys, key).clamp_max(len(self.keys) - 1)
            seen = self.table[row].float()
            if own is not None:
                seen = seen.scatter_add(-1, own[..., None], -torch.ones_like(seen[..., :1])).clamp_min(0)
            total, different = seen.sum(-1, keepdim=True), (seen > 0).sum(-1, keepdim=True)
            there = (self.keys[row] == key)[..., None] & (total > 0)
            p = torch.where(there, (seen + different * p) / (total + different).clamp_min(1), p)
        return p.log()
