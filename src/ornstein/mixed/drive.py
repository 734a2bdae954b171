"""Drawing from a product: the walk of `ornstein.core.walk`, with all parts as its state.

At each moment of the walk every part is at a level from its own list. A step calls the model once for all parts in
their present state, and gives each part's stepper its own answer; if a stepper calls again at another point, the other
parts stay as they were. So parts step side by side, and a step ignores how they depend on each other within it.

Each part has its own random numbers, functions of the row's seed and of the part's place in the product. Those of the
first part are the row's own, so that a product of one part equals that part, bit for bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Ask, Noise, Stepper, sample_seeds, start
from ornstein.core.grids import times
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import Asked, State, walk
from ornstein.discrete import TokenDenoiser, TokenStepper
from ornstein.discrete.drawing import AskTokens, Dice, begun
from ornstein.errors import InputError, must_be_whole
from ornstein.mixed.parts import Joint, Part, Said

#: the difference between the seeds of two parts of a row: odd, and far from the differences between rows or turns
_APART = 0x9E3779B97F4A7C15 - (1 << 64)

State_ = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Moment:
    """Where the parts are on their clocks.

    Attributes:
        t: the share of the walk that is left, from 1 to 0.
        levels: name -> level.
    """

    t: float
    levels: Mapping[str, Level[float]]


@dataclass(frozen=True, eq=False)
class Heard:
    """What a model says of all parts, with x0 for the walk's `State`."""

    said: dict[str, Said]

    @property
    def x0(self) -> State_:
        """Each part's posterior mean."""
        return {
            name: said.x0 if isinstance(said, Prediction) else said.exp().flatten(1) for name, said in self.said.items()
        }


class AskParts(Asked[State_, Moment, Heard]):
    """What a step calls for the model's answers: on all parts, or on one with the others as they are."""

    def __init__(self, joint: Joint, condition: Condition, steps: int) -> None:
        self.joint, self.condition = joint, condition
        super().__init__(lambda x, moment: Heard(joint.predict(x, moment.levels, condition)), steps)

    def __call__(self, x: State_, level: Moment) -> Heard:
        self._x, self._moment, self._answered = x, level, super().__call__(x, level)
        self._open = set(x)
        return self._answered

    def of(self, name: str, x: Tensor, level: Level) -> Said:
        """What the model says of a part at x: the first call at its own level takes the answer given for all parts."""
        if name in self._open and level is self._moment.levels[name]:
            self._open.discard(name)
            return self._answered.said[name]
        self.calls += 1
        there = self.joint.predict({**self._x, name: x}, {**self._moment.levels, name: level}, self.condition)
        return there[name]


@dataclass(frozen=True, eq=False)
class _Numbers(Denoiser):
    """A part of numbers as a denoiser, with the other parts as they are."""

    name: str
    part: Part
    ask: AskParts

    def __post_init__(self) -> None:
        object.__setattr__(self, "process", self.part.process)
        object.__setattr__(self, "sigma_data", self.part.sigma_data)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        said = self.ask.of(self.name, x, level)
        assert isinstance(said, Prediction)
        return said


@dataclass(frozen=True, eq=False)
class _Tokens(TokenDenoiser):
    """A part of tokens as a denoiser, with the other parts as they are."""

    name: str
    part: Part
    ask: AskParts

    def __post_init__(self) -> None:
        object.__setattr__(self, "process", self.part.process)
        object.__setattr__(self, "categories", self.part.categories)

    def log_probs(self, codes: Tensor, level: Level, condition: Condition, known: Tensor | None = None) -> Tensor:
        said = self.ask.of(self.name, self.vectors(codes), level)
        assert isinstance(said, Tensor)
        return said


@dataclass(frozen=True, eq=False)
class _Way:
    """How one part is walked: its first state, its levels, its stepper, what that calls, and its random numbers."""

    x: Tensor
    levels: list[Level[float]]
    stepper: Any = None
    ask: Any = None
    dice: Any = None


def draw_parts(
    joint: Joint,
    rows: int,
    steppers: Mapping[str, "Stepper | TokenStepper"],
    *,
    steps: int = 50,
    seed: int | None = None,
    seeds: Any = None,
    generator: torch.Generator | None = None,
    condition: Given = None,
    known: Mapping[str, Tensor] | None = None,
) -> Iterator[State[State_]]:
    """Draw rows of a product, yielding each state, name -> (rows, *shape): `steps + 1` of them.

    Args:
        joint: the model to draw from.
        rows: how many.
        steppers: name -> the stepper of that part.
        steps: how many steps every part makes.
        seed, seeds, generator: one source of randomness, as for `ornstein.core.drive.trajectory`.
        condition: what to draw given, with `rows` rows.
        known: name -> (rows, *shape), parts that are given: they stay, and the others are drawn given them.

    Raises:
        InputError: a part without a stepper, or with one of the wrong kind; an argument that does not fit.
    """
    must_be_whole("steps", steps)
    known = dict(known or {})
    for name in (*known, *steppers):
        if name not in joint.parts:
            raise InputError(f"part {name!r} is not one of {', '.join(joint.parts)}.")
    condition = Condition.of(condition).matches(rows, f"rows={rows}").to(joint.device)
    ask, keys = AskParts(joint, condition, steps), sample_seeds(rows, seed, seeds, generator)
    ways = {
        name: _way(name, part, steppers.get(name), known.get(name), ask, keys + number * _APART)
        for number, (name, part) in enumerate(joint.parts.items())
    }

    def onward(x: State_, t: Moment, s: Moment, memory: Any) -> tuple[State_, Any]:
        ask(x, t)
        after, kept = dict(x), dict(memory or {})
        for name, way in ways.items():
            if way.stepper is not None:
                there = (t.levels[name], s.levels[name])
                after[name], kept[name] = way.stepper.step(way.ask, x[name], *there, kept.get(name), way.dice)
        return after, kept

    def finish(x: State_, t: Moment, memory: Any) -> State_:
        ask(x, t)
        walked = {name: way for name, way in ways.items() if way.stepper is not None}
        kept = memory or {}
        return x | {
            name: way.stepper.finish(way.ask, x[name], t.levels[name], kept.get(name), way.dice)
            for name, way in walked.items()
        }

    moments = [Moment(1 - i / steps, {name: way.levels[i] for name, way in ways.items()}) for i in range(steps + 1)]
    return walk(
        ask,
        {name: way.x for name, way in ways.items()},
        moments,
        lambda _, x, t, s, memory: onward(x, t, s, memory),
        lambda _, x, t, memory: finish(x, t, memory),
    )


def _way(name: str, part: Part, stepper: Any, known: Tensor | None, ask: AskParts, keys: Tensor) -> _Way:
    """How a part is walked."""
    rows, device, process = len(keys), ask.joint.device, part.process
    if known is not None:
        if tuple(known.shape) != (rows, *part.shape):
            raise InputError(f"known {name!r} has shape {tuple(known.shape)}; it must be {(rows, *part.shape)}.")
        return _Way(known.to(device), [process.at(0.0)] * (ask.steps + 1))
    if not isinstance(stepper, Stepper if part.categories is None else TokenStepper):
        kind = "numbers" if part.categories is None else "tokens"
        raise InputError(f"part {name!r} is of {kind}, and {stepper!r} is not a stepper for these.")
    if isinstance(stepper, TokenStepper):
        assert part.categories is not None
        tokens = _Tokens(name, part, ask)
        dice = Dice(keys.to(device), part.categories.tokens)
        levels = process.levels(torch.linspace(process.t_max, 0.0, ask.steps + 1, dtype=torch.float64))
        codes = begun(tokens, stepper, rows, dice).to(device)
        return _Way(tokens.vectors(codes), levels, stepper, AskTokens(tokens, ask.condition, None, ask.steps), dice)
    numbers = _Numbers(name, part, ask)
    grid = stepper.usual_grid if process.chain is None else None
    levels = process.levels(times(process, ask.steps, grid, part.unit))
    noise = Noise(keys.to(device), part.shape, torch.float32, unit=part.unit)
    x = start(levels[0], part.sigma_data, noise)
    return _Way(x, levels, stepper, Ask(numbers, ask.condition, ask.steps), noise)
