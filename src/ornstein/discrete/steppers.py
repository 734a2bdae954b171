"""How masked tokens are drawn."""

from dataclasses import dataclass

from torch import Tensor

from ornstein.core.process import Level
from ornstein.discrete.drive import AskClasses, Order, Unmasker
from ornstein.errors import lookup


@dataclass(frozen=True)
class AnyOrder(Unmasker):
    """Unmask one token after the other, or several a step: cell by cell in a random order, or the outline first.

    With as many steps as tokens, which is the default, each token is drawn given all before it: samples have the
    model's own distribution, with no error of the sampler (Hoogeboom et al. 2022, 2110.02037; Zheng et al. 2024,
    2409.02908). With fewer steps, the tokens of one step are drawn independently of each other, except that a token
    follows the one that it refines.

    Args:
        order: "random", cell by cell in a random order for each row; or "columns", in the order of the columns, with
            the outline of all before the details of any. Rows of which something is known are always drawn cell by
            cell.

    Raises:
        InputError: another order.

    Exact with as many steps as tokens. One call a step; with fewer steps, another one if tokens refine others.
    Stochastic.
    """

    order: str = "random"

    def __post_init__(self) -> None:
        lookup(dict.fromkeys(("random", "columns")), self.order, "stepper.order")

    @property
    def shuffled(self) -> bool:
        return self.order == "random"

    def step(
        self, ask: AskClasses, x: Tensor, t: Level[float], s: Level[float], memory: None, order: Order
    ) -> tuple[Tensor, None]:
        due = order.due(s)
        x = order.reveal(x, ask(x, t).x0, due)
        for _ in range(order.depth(t, s) - 1):
            x = order.reveal(x, ask(x, t).x0, due)
        return x, None
