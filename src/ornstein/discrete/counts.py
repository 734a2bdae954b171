"""What counting says: the law of a token given the few before it, from how often it followed them in the data.

With c(x) the times that token x followed a context of n tokens, N their sum, and D how many different x there were,

    p_n(x) = ( c(x) + D p_{n-1}(x) ) / (N + D),        p_{-1}(x) = 1/K,

where p_{n-1} is of the context without its first token (Witten & Bell 1991): a context that was seen often is believed,
a rare one leaves most to shorter ones, and one that was not seen, all. A context with a masked token is one that was
not seen, so the same formula serves rows of which only parts are known.

*Leaving one out.* In the rows that were counted each token has been counted itself, so that what follows a rare context
seems all too sure. `own=` takes it away again, which is what the counts of all else would say (Jelinek & Mercer 1980).
"""

import torch
from torch import Tensor, nn

#: contexts at the most, numbers in their table, and tokens that are counted
_MOST_CONTEXTS, _MOST_NUMBERS, _MOST_TOKENS = 2**16, 2**23, 2**22


class Counts(nn.Module):
    """What follows each context of up to `order` - 1 tokens: the commonest contexts, as many as there is room for.

    Args:
        classes: K, at most 1,024.
        order: of the n-gram, a token with those before it, at most 6.
    """

    def __init__(self, classes: int, order: int) -> None:
        super().__init__()
        self.classes, self.order = classes, order
        rows = min(_MOST_CONTEXTS, _MOST_NUMBERS // classes)
        # frozen parameters, not buffers, of which a step of training keeps a copy
        self.keys = nn.Parameter(torch.full((rows,), torch.iinfo(torch.int64).max), requires_grad=False)
        self.table = nn.Parameter(torch.zeros(rows, classes, dtype=torch.int16), requires_grad=False)

    def _contexts(self, codes: Tensor) -> list[Tensor]:
        """The contexts of 0, 1, 2, ... tokens before each place as numbers, (B, T) each; -1 of what is not known.

        Digits from 1 to K, the nearest token's first, so that contexts of unlike lengths are unlike.
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
        """Count rows (N, T) of classes, of which no two share a token; anew, whatever was counted before."""
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
        """log p of every place given what is known right before it: codes (B, T), K where not known -> (B, T, K).

        Args:
            own: (B, T) of classes, of rows that were counted, to be taken away again; None for none.
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
