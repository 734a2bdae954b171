"""What a run counts, and what it reports between two steps."""

import math
from dataclasses import dataclass, field

from ornstein.training.ema import PowerEMA


@dataclass
class Window:
    """Sums over the good steps since the last `Progress`; kept in checkpoints, so that a kill does not change logs."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What a run has counted.

    Attributes:
        step: optimiser steps taken, counted from the run's first start.
        updates: those that moved the weights.
        strikes: steps in a row, up to now, that were not finite.
        skipped: steps in all that were not.
        window: what the next `Progress` will tell.
    """

    step: int = 0
    updates: int = 0
    strikes: int = 0
    skipped: int = 0
    window: Window = field(default_factory=Window)


@dataclass(frozen=True)
class Progress:
    """Where training stands between two steps.

    Arguments:
        step: optimiser steps taken, counted from the run's first start.
        steps: optimiser steps planned.
        loss: mean loss per sample over the good steps since the previous `Progress`; NaN if there was none.
        grad_norm: mean Euclidean norm of the gradient before clipping, over the same steps.
        lr: learning rate of the last step.
        rate: steps per second since the previous `Progress`, without the reader's own time; 0 if no step was taken.
        skipped: steps whose update was skipped since the run's first start, because something was not finite.
        threads: how many threads take the next step.
        warnings: one sentence on each thing that went wrong since the previous `Progress`.
        ema: the running averages, for `ema.copy_to(a_deep_copy_of_net, length)`. Live: read them before the next step.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    rate: float
    skipped: int
    threads: int
    warnings: tuple[str, ...]
    ema: PowerEMA = field(repr=False, compare=False)

    @property
    def remaining(self) -> float:
        """Seconds until the last step at the present rate, without the reader's own time; infinite if unknown."""
        return (self.steps - self.step) / self.rate if self.rate > 0 else math.inf
