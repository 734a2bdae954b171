"""Students as what runs learn: a denoiser's network, taught further by the denoiser that it was."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.drive import trajectory
from ornstein.core.learner import JUDGED_BY, Judgement, Measure, OnItsOwnClock
from ornstein.core.numerics import normal
from ornstein.core.walk import State, end
from ornstein.distill import (
    CALLS,
    DISTILLATIONS,
    RUNG,
    STUDENT_STEPPERS,
    Assisted,
    Distillation,
    Remembered,
    with_calls,
)
from ornstein.errors import InputError
from ornstein.experiment.denoising import Denoising
from ornstein.metrics import EnergyDistance
from ornstein.nets import Label

#: before the names of the teacher's weights in the loss's memory
TEACHER = "teacher."
#: the most calls that are few
MOST = 64


class Pair(nn.Module):
    """A student's network, and one that learns beside it what the student's samples are like."""

    def __init__(self, student: nn.Module, auxiliary: nn.Module) -> None:
        super().__init__()
        self.student, self.auxiliary = student, auxiliary


def _parts(net: nn.Module) -> tuple[Any, ...]:
    """The student's network, and the auxiliary's where there is one; `net` may be compiled."""
    whole = getattr(net, "_orig_mod", net)
    return (whole.student, whole.auxiliary) if isinstance(whole, Pair) else (net,)


def _alone(model: Any) -> Any:
    """The student in a model, without what assists it."""
    return model.base if isinstance(model, Assisted) else model


@dataclass(frozen=True, eq=False)
class Student(OnItsOwnClock, Denoising):
    """The end of a teacher's walk of many calls, reached in few: see `ornstein.distill.students`.

    It starts as a copy of its teacher, whose weights the loss stores: to resume, nothing but the run is needed.

    Args:
        calls: the numbers of network calls that it learns to draw in, each from 1 to 64.
    """

    calls: tuple[int, ...] = (1, 2, 4)

    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = DISTILLATIONS
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = STUDENT_STEPPERS
    teaches: ClassVar[bool] = False
    instead: ClassVar[str] = "in the few calls that it was taught"
    gridless: ClassVar[str] = "a student has levels of its own for each number of calls"
    judges: ClassVar[Measure] = Measure(
        "distance-by-calls",
        "energy distance to held-out data",
        "white noise of the data's variance",
        "white noise",
        across="network calls",
    )

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return isinstance(objective, Distillation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.calls or not all(1 <= count <= MOST for count in self.calls):
            raise InputError(f"learner.calls={list(self.calls)} must be whole numbers from 1 to {MOST}.")
        object.__setattr__(self, "calls", self.lessons.taught(self.calls))

    @property
    def lessons(self) -> Distillation:
        """What teaches it."""
        taught_by = self.problem.objective
        assert isinstance(taught_by, Distillation)  # no other is named in `objectives`
        return taught_by

    @property
    def told(self) -> Mapping[str, Any]:
        return {**super().told, CALLS: Label(len(self.calls))} if self.lessons.tells else super().told

    @property
    def steps(self) -> int:
        return max(self.calls)

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        net = super().network(build, seed)
        if not self.lessons.assisted:
            return net
        told = {**self.told, RUNG: Label(self.lessons.rungs(self.calls))}
        return Pair(net, build(self.shown, told, self.out_multiple))

    def begin(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        added = tuple(f"embedding.{part}." for part in (CALLS, RUNG))
        for part in _parts(net):
            own = part.state_dict()
            unknown = {name: torch.zeros_like(own[name]) for name in own if name.startswith(added)}
            super().begin(part, {**unknown, **weights})  # what the teacher was not told says nothing at first

    def model(self, net: nn.Module) -> Any:
        student, *auxiliary = (super(Student, self).model(part) for part in _parts(net))
        return Assisted(student, *auxiliary) if auxiliary else student

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        if not isinstance(model, Assisted):
            return super().in_precision(model, precision)
        return Assisted(*(super(Student, self).in_precision(one, precision) for one in (model.base, model.auxiliary)))

    def memory(self, model: Any, x0: Tensor, condition: Given = None) -> dict[str, Tensor]:
        own = _alone(model).net.state_dict()
        teacher = {TEACHER + name: value.detach().clone() for name, value in own.items()}
        return {**teacher, **self.lessons.memory(x0, Condition.of(condition))}

    def loss(
        self, model: Any, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        weights = {name.removeprefix(TEACHER): w for name, w in memory.items() if name.startswith(TEACHER)}
        own = _alone(model)
        teacher = dataclasses.replace(own, net=Remembered(own.net, weights))
        return self.lessons(model, x0, condition, generator, teacher, self.calls, memory)

    def walk(
        self, model: Any, rows: int, stepper: Any, steps: int | None, condition: Given = None, **options: Any
    ) -> Iterator[State[Tensor]]:
        calls, condition = steps or self.steps, Condition.of(condition)
        if self.lessons.tells:
            if calls not in self.calls:
                known = ", ".join(map(str, sorted(self.calls)))
                raise InputError(f"steps={calls}: this student was taught to draw in {known} calls, and in no others.")
            condition = with_calls(condition, torch.full((rows,), self.calls.index(calls)))
        levels = self.lessons.levels(self.problem.process, self.problem.unit, calls, self.calls)
        shape = (rows, *self.problem.shape)
        return trajectory(model, shape, stepper, steps=calls, grid=levels, condition=condition, **options)

    @torch.no_grad()
    def judge(self, model: Any, x0: Tensor, condition: Given) -> Judgement:
        """How far its samples are from held-out data, by energy distance, for each number of calls; noise beside it."""
        x0 = x0[:JUDGED_BY]
        given, seeds = Condition.of(condition)[:JUDGED_BY], torch.arange(len(x0))
        stepper, measure, dice = self.steppers[self.lessons.stepper](), EnergyDistance(), torch.Generator()
        noise = self.problem.sigma_data * normal(seeds, tuple(x0.shape[1:]), 0)
        known = max(measure(noise, x0, dice), 1e-12)
        found = []
        for calls in sorted(self.calls):
            drawn = end(self.walk(model, len(x0), stepper, calls, given, seeds=seeds)).x.cpu()
            found.append(max(measure(drawn, x0, dice), 1e-6 * known))  # unbiased, and so below zero now and then
        ratios = [float(calls) for calls in sorted(self.calls)]
        return Judgement(sum(found) / len(found) / known, ratios, found, [known] * len(found))
