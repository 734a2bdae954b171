"""How far the details of numbers can be trusted: a factor for each column, learnt from rows that teach no details.

A number is a bin and a cell within it, its *detail*. All else that is known of a row tells a network which training row
it is, so details can be learnt by heart, all the more since they are often mere noise. The network's probabilities of
the details of new rows then fall below those of the flat law, which gives each of the n cells of a bin 1/n. (Bins are
learnt by heart as well; nothing here changes that.)

Rows that a network learns from do not show what it knows by heart. So a share of the rows is kept back: they teach the
network no details. Instead they teach one factor w for each column, in

    p(cell k of a bin, given all that is known)  proportional to  exp(w l_k),

l the logits: by maximum likelihood, of which the logarithm is concave in w. With w = 1 the network is believed, with
w = 0 the law is flat. This is temperature scaling (Guo et al. 2017, 1706.04599), done while the network learns, column
by column. The other rows teach the network as if w were 1, for it would only make up for a smaller w with larger
logits.

Which rows are kept back is a function of what they hold, so copies of a row are on one side.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ornstein.core.categories import Categories
from ornstein.core.numerics import keyed, uniform


class Trusted(nn.Module):
    """A network whose logits of details are multiplied by a factor for each token that refines another.

    Args:
        net: `net(x, noise_level, condition)`, which outputs the logits of the classes, (B, width).
        categories: the tokens of a row.
    """

    def __init__(self, net: nn.Module, categories: Categories) -> None:
        super().__init__()
        refining = [token for token, other in enumerate(categories.after) if other >= 0]
        self.net, self.trust = net, nn.Parameter(torch.ones(len(refining)))
        # for each token the place of its factor, of which the first is 1; and so for each class
        place = [refining.index(token) + 1 if token in refining else 0 for token in range(categories.tokens)]
        each = torch.tensor(place).repeat_interleave(torch.tensor(categories.sizes), output_size=categories.width)
        self.register_buffer("_which", each, persistent=False)

    def forward(
        self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor], kept: Tensor | None = None
    ) -> Tensor:
        """Logits (B, width).

        Args:
            kept: (B,) bool: rows whose details teach the factors alone, while those of the others teach `net` alone;
                None outside of training.
        """
        which = self.get_buffer("_which")
        logits: Tensor = self.net(x, noise_level, condition)
        factors = torch.cat([self.trust.new_ones(1), self.trust])[which]
        if kept is None:
            return factors * logits
        return torch.where(kept[:, None] & (which > 0), factors * logits.detach(), logits)


def kept_back(categories: Categories, x0: Tensor, share: float) -> Tensor:
    """Which rows (B, width) are kept back, (B,) bool: about so large a share of different rows."""
    return uniform(keyed(categories.codes(x0)), 1, 1)[:, 0] < share
