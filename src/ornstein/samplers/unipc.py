"""Exponential multistep methods that correct each step: predictor and corrector for one call.

A *corrector* (UniPC; Zhao et al. 2023, 2302.04867) uses each answer of the network twice: the step to its level is
repeated with that answer among the points of the polynomial (`ornstein.samplers.exponential`), then the next step
starts from there. The order rises by one, at no further call.

Which order is best depends on how far apart the levels are, since a polynomial through distant answers oscillates. With
few steps a low order has the smaller error, with many a high one; so the methods here choose the order by the number of
steps, unless told which.
"""

from dataclasses import dataclass
from typing import ClassVar

from ornstein.errors import InputError
from ornstein.samplers.exponential import MOST, DataMultistep


@dataclass(frozen=True)
class UniPC(DataMultistep):
    """UniPC: exponential multistep, each step corrected by the answer at its end. Zhao et al. 2023 (2302.04867).

    The predictor uses `order - 1` answers, the corrector one more. The paper's UniPC-p is
    `UniPC(order=p + 1, clock="log-snr", last=1, rule="b2")`. With its own defaults it is what older run folders draw
    with.

    Args:
        order: order of the method, in [2, 8]; None: 3 with fewer than 8 steps, 4 with fewer than 25, else 6.
        clock: the variable of the polynomial: "log-snr", "ratio", "flow" or "signal"; see
            `ornstein.samplers.exponential`.
        last: through how many answers to extrapolate to the clean point; 1 ends at the last of them.
        rule: how a straight line is integrated in log-SNR: "exact", or by the paper's B(h) = h, "b1", or
            1 - exp(-h), "b2". Higher orders do not depend on it.

    Raises:
        InputError: numbers out of range; `last` with log-SNR.

    No order by default, which rises with the number of steps; else as given from pure noise, and at most 3 from a start
    in the middle. One call a step. Deterministic.
    """

    order: int | None = None  # type: ignore[assignment]
    clock: str = "signal"
    last: int = 3
    rule: str = "exact"
    by_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order is not None and self.order < 2:
            raise InputError(f"order={self.order!r} must be a whole number in [2, {MOST}]: the corrector adds one.")
        if self.rule not in ("exact", "b1", "b2"):
            raise InputError(f"rule={self.rule!r} must be 'exact', 'b1' or 'b2'.")

    @property
    def usual_grid(self) -> str:
        return "tapered"

    def points(self, steps: int) -> int:
        order = self.order or (3 if steps < 8 else 4 if steps < 25 else 6)
        return order - 1

    def corrects(self, points: int) -> bool:
        return True


@dataclass(frozen=True)
class UniPCAuto(DataMultistep):
    """The default: UniPC in the clock "signal", of order 3 below 7 steps and of order 6 from 7 on.

    It has no settings. Order, clock and its usual grid, "balanced", were chosen by their error on ten problems and
    judged on six others (docs/frontier.md).

    No order, since that rises with the number of steps. One call a step. Deterministic.
    """

    order: ClassVar[int | None] = None  # type: ignore[misc]
    clock: ClassVar[str] = "signal"  # type: ignore[misc]
    last: ClassVar[int] = 3  # type: ignore[misc]
    by_steps: ClassVar[bool] = True

    @property
    def usual_grid(self) -> str:
        return "balanced"

    def points(self, steps: int) -> int:
        return 2 if steps < 7 else 5

    def corrects(self, points: int) -> bool:
        return True
