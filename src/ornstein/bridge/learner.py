"""What a run on two data sets learns: a bridge from one to the other, which can be walked in both directions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.bridge.drive import BRIDGE_STEPPERS, BridgeStepper, crossing
from ornstein.bridge.model import Bridge, Guess, NetBridge
from ornstein.bridge.path import Path
from ornstein.bridge.paths import Brownian, Linear, Trigonometric
from ornstein.bridge.teaching import BRIDGE_OBJECTIVES, Taught, parted
from ornstein.core.condition import SOURCE, Condition, Given
from ornstein.core.drive import Noise
from ornstein.core.learner import JUDGED_BY, LEVELS, STEPS, Judgement, Learner, Measure
from ornstein.core.walk import State
from ornstein.errors import InputError

#: the paths that numbers alone describe, which an experiment may name as its process
NAMED_PATHS: dict[str, Callable[..., Path]] = {"linear": Linear, "brownian": Brownian, "quarter-circle": Trigonometric}


@dataclass(frozen=True, eq=False)
class Bridging(Learner):
    """A bridge between two data sets: where x_t comes from and where it goes (De Bortoli et al. 2021; Albergo 2023)."""

    readings: ClassVar[Mapping[str, str]] = {
        "ends": "Both ends of a bridge, E[x_0 given x_t] and E[x_1 given x_t], as corrections to a linear guess."
    }
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = BRIDGE_OBJECTIVES
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = NAMED_PATHS
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = BRIDGE_STEPPERS
    walks: ClassVar[bool] = False
    instead: ClassVar[str] = "from rows of its source, for which there are sample, translate and evaluate"
    then: ClassVar[str] = "ornstein translate {run} --input FILE     ornstein evaluate {run}"
    judges: ClassVar[Measure] = Measure(
        "loss-by-time", "squared error of both ends / linear guess", "linear guess", "linear", across="beta/alpha"
    )

    def __post_init__(self) -> None:
        problem = self.problem
        if problem.far is None:
            raise InputError(
                "predicts='ends' needs two data sets, such as data=between with data.source and data.target; these "
                "data are only one."
            )
        assert isinstance(problem.objective, Taught)  # no other is named in `objectives`
        object.__setattr__(
            self, "problem", replace(problem, objective=problem.objective.settled(self.path, problem.paired))
        )

    @property
    def path(self) -> Path:
        """What lies between a pair of ends."""
        path: Any = self.problem.process
        assert isinstance(path, Path)  # no other is named in `processes`
        return path

    @property
    def out_multiple(self) -> int:
        return 1 if self.path.noiseless else 2

    @property
    def told(self) -> Mapping[str, Any]:
        return {name: part for name, part in self.problem.conditions.items() if name != SOURCE}

    def model(self, net: nn.Module) -> NetBridge:
        assert self.problem.far is not None  # see above
        return NetBridge(net, self.path, self.problem.sigma_data or 1.0, self.problem.far or 1.0)

    @property
    def narrow(self) -> bool:
        return True

    @property
    def steps(self) -> int:
        return STEPS

    def trajectory(
        self,
        model: Bridge,
        rows: int,
        stepper: BridgeStepper,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        """The walk from `rows` rows of the source, the part `SOURCE` of the condition, to as many of the target."""
        if isinstance(grid, str):
            raise InputError(f"grid={grid!r} is a grid for Gaussian noise; for a bridge give falling times.")
        start, rest = parted(options.pop("condition", None))
        if len(start) != rows:
            raise InputError(f"condition {SOURCE!r} has {len(start)} rows, and {rows} are to be drawn.")
        steps = self.steps if steps is None else steps
        return crossing(model, start.to(model.device), stepper, steps=steps, grid=grid, condition=rest, **options)

    @torch.no_grad()
    def judge(self, model: NetBridge, x0: Tensor, condition: Given) -> Judgement:
        """Squared errors of both ends on pairs of held-out rows, relative to those of a linear guess.

        The objective's coupling joins the pairs, with the same draw at every call; the errors are taken at `LEVELS`
        times.
        """
        taught: Any = self.problem.objective
        device = model.device
        x1, rest = parted(Condition.of(condition)[:JUDGED_BY].to(device))
        x0 = x0[:JUDGED_BY].to(device)
        dice = torch.Generator().manual_seed(0)
        x1 = x1[taught.joins(self.path)(x0, x1, dice)]
        noise = Noise(torch.arange(len(x0), device=device), tuple(x0.shape[1:]), torch.float32)
        ratios, found = [], []
        for share in torch.linspace(0.02, 0.98, LEVELS, dtype=torch.float64).tolist():
            stage = self.path.at(share * self.path.t_max)
            ends = model(stage.between(x0, x1, noise()), stage, rest)
            guess = Guess.at(stage, model.near, model.far)
            assert ends.x0 is not None
            assert ends.x1 is not None
            errors = ((ends.x0 - x0) / guess.out0) ** 2, ((ends.x1 - x1) / guess.out1) ** 2
            found.append(sum(float(error.mean()) for error in errors) / 2)
            ratios.append(float(stage.beta / stage.alpha))
        return Judgement(sum(found) / len(found), ratios, found, [1.0] * len(found))
