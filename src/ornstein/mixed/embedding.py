"""An embedding of pictures and their captions, learned by telling which go together.

From a batch of pairs (x, c) two networks make unit vectors e(x) and w(c); each picture has to find its own caption
among all of the batch, and each caption its picture (Radford et al. 2021, 2103.00020):

    loss_i = -1/2 log softmax_j(s e(x_i).w(c_j))_i - 1/2 log softmax_j(s e(x_j).w(c_i))_i.

Where several rows have the same condition, such as two drawings of one thing, any of them is right. A row without a
condition takes no part.
"""

import torch
from torch import Tensor

from ornstein.core.condition import Condition


def contrast(seen: Tensor, said: Tensor, sharpness: Tensor, condition: Condition) -> Tensor:
    """The loss of each row, (B,), in nats; 0 for rows without a condition.

    Args:
        seen, said: (B, size), unit vectors of pictures and of conditions.
        sharpness: s.
        condition: tells which rows are the same, and which have none.
    """
    there = told(condition)
    same = alike(condition) & there[:, None] & there[None]
    # a row that takes no part is its own only match, and costs nothing
    same = same | torch.diag(~there)
    apart = torch.where(there[:, None] & there[None] | same, 0.0, -torch.inf)
    # not a matrix product, which low precision would round
    logits = sharpness * (seen[:, None] * said[None]).sum(2) + apart
    share = same.to(logits) / same.sum(1, keepdim=True)
    found = torch.zeros_like(logits[:, 0])
    for scores in (logits, logits.T):
        found = found - 0.5 * torch.where(same, share * scores.log_softmax(1), 0.0).sum(1)
    return found


def told(condition: Condition) -> Tensor:
    """The rows with any condition, (B,) bool."""
    return ~torch.stack([condition.absent(name) for name in condition.parts]).all(0)


def alike(condition: Condition) -> Tensor:
    """Which rows have the same condition, (B, B) bool."""
    found = []
    for part in condition.parts.values():
        flat = part.reshape(len(part), -1)
        missing = flat != flat  # NaN; it counts as equal to what is missing elsewhere
        equal = (flat[:, None] == flat[None]) | (missing[:, None] & missing[None])
        found.append(equal.all(2))
    return torch.stack(found).all(0)
