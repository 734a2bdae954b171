"""How masked tokens are drawn."""

from dataclasses import dataclass

from torch import Tensor

from ornstein.core.process import Level
from ornstein.discrete.drive import AskClasses, Order, Unmasker


@dataclass(frozen=True)
class AnyOrder(Unmasker):
    """Unmask in an order drawn at random for each row, as many tokens a step as there are steps to go.

    With as many steps as tokens, which is what is done where nothing is said, each token is drawn given all before it:
    that is the model's own law, with no error of the sampler's (Hoogeboom et al. 2022, 2110.02037; Zheng et al. 2024,
    2409.02908). With fewer, the tokens of one step are drawn independently of each other, but for those that refine
    one of them.

    Exact with as many steps as tokens. One call a step; with fewer steps one more where tokens refine others.
    Stochastic.
    """

    def step(
        self, ask: AskClasses, x: Tensor, t: Level[float], s: Level[float], memory: None, order: Order
    ) -> tuple[Tensor, None]:
        due = order.due(s)
        x = order.reveal(x, ask(x, t).x0, due)
        for _ in range(order.depth(t, s) - 1):
            x = order.reveal(x, ask(x, t).x0, due)
        return x, None
