"""How categories dissolve: the absorbing kernel.

Each token is kept with probability alpha(t) and is otherwise *masked*: it goes to a state in which nothing of it is
left, and from which there is no way back. With a token as a one-hot vector and the mask as zeros (`ornstein.core.
categories`) that reads

    x_t = m x_0,        m = 1 with probability alpha(t), else 0,

so that E[x_t given x_0] = alpha x_0, as for Gaussian noise. sigma = 1 - alpha is the share that is masked, and
2 log(alpha/sigma) the log-SNR of the mask: any falling alpha from 1 to 0 is a clock, and since a masked model's loss
and law depend on the clock only through the share that is masked, one is as good as the other (Austin et al. 2021,
2107.03006; Shi et al. 2024, 2406.04329; Sahoo et al. 2024, 2406.07524). It is written down once, as the straight line.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ornstein.core.process import Process


@dataclass(frozen=True)
class Absorbing(Process):
    """Tokens that are masked, each at a time of its own that is uniform in [0, 1]: alpha = 1 - t, sigma = t."""

    t_max = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t


#: how categories dissolve, by name
KERNELS: dict[str, Callable[..., Process]] = {"absorbing": Absorbing}
