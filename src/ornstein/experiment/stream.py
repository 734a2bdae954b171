"""Drawing that can be watched: noisy samples at every step, beside the model's current estimate of the result.

A sample does not depend on the batch that it is drawn in, so a large batch is drawn as several small ones in parallel:
the watcher is told of each step when all have taken it, and can stop within one step of a small one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.drive import sample_seeds
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import State
from ornstein.discrete import constrained
from ornstein.errors import InputError
from ornstein.experiment.build import stepper_with
from ornstein.experiment.cells import draws_rows, must_be_table
from ornstein.experiment.guide import guided, with_denoiser
from ornstein.experiment.run import Run
from ornstein.experiment.where import Where
from ornstein.guidance import Guidance

#: numbers of the samples that go down together, but samples at least: their step is the longest that a watcher waits
ABREAST, FEWEST = 2**14, 16


def in_turn(texts: Sequence[str], n: int) -> list[str]:
    """A text for each of n samples: those that are given in turn, "" where there are none."""
    return [texts[i % len(texts)] if texts else "" for i in range(n)]


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn, with the options of `ornstein sample`.

    Attributes:
        count: how many samples.
        label: the class's name; None for all in turn.
        text: what to draw in words, for a run with captions; several in turn.
        given: other parts of the condition, by name, in their own units.
        where: conditions on a table's rows.
        scale: of classifier-free guidance; None for none.
        stepper: its name; None for the run's own.
        options: of the stepper, by name.
        steps: None for the run's own.
        grid: None for the run's own.
        seed: sample i of a seed is the same whatever else is drawn.
    """

    count: int = 16
    label: str | None = None
    text: tuple[str, ...] = ()
    given: Mapping[str, Any] | None = None
    where: str | None = None
    scale: float | None = None
    stepper: str | None = None
    options: Mapping[str, Any] | None = None
    steps: int | None = None
    grid: str | None = None
    seed: int = 0

    def condition(self, run: Run) -> Condition:
        """What the samples are given, in model space: what is named, else as in the data."""
        if self.given or self.text or self.label is not None:
            words = in_turn(self.text, self.count) if self.text else None
            return run.condition(self.count, self.label, self.given, words)
        return run.examples(self.count)


@dataclass(frozen=True, eq=False)
class Seen:
    """A state of the walk.

    Attributes:
        step: 0 to `steps`.
        steps: in all.
        calls: of the network so far, for each sample.
        ratio: sigma/alpha at this step, None if there is no Gaussian noise.
        spread: root mean square of noisy data at this step, relative to that of data: to show both at one brightness.
        noisy: (N, *shape) the samples now, in model space, on the CPU.
        clean: (N, *shape) the model's estimate of the result.
    """

    step: int
    steps: int
    calls: int
    ratio: float | None
    spread: float
    noisy: Tensor
    clean: Tensor


@dataclass(frozen=True, eq=False)
class _Heard(Guidance):
    """A denoiser that calls `tick` before each answer."""

    tick: Callable[[], None]

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        self.tick()
        return self.base.predict(x, level, condition)


def heard(run: Run, tick: Callable[[], None]) -> Run:
    """The run, calling `tick` before each answer of its denoiser: what that raises ends whatever is done with it."""
    return with_denoiser(run, run.learner.around(run.denoiser, lambda one, _: _Heard(one, tick)))


def stream(run: Run, asked: Drawing, tick: Callable[[], None] = lambda: None) -> Iterator[Seen]:
    """Draw, yielding each state: the noise first, the samples last.

    The samples are those of `ornstein sample` with the same options, up to how float32 sums are rounded in batches of
    another size.

    Args:
        run: what to draw from.
        asked: what, and how.
        tick: called after each step of a few samples; what it raises ends the drawing.

    Raises:
        InputError: anything that does not fit, before the first step.
    """
    run.must_draw()
    condition, keys = asked.condition(run), sample_seeds(asked.count, asked.seed, None, None)
    if asked.options and asked.stepper is None:
        raise InputError(f"stepper options {', '.join(asked.options)} need a stepper, whose options they are.")
    chosen = _rows(run, asked) if draws_rows(run) else _noise(run, asked)
    size = min(max(ABREAST // math.prod(run.learner.shown), FEWEST), run.learner.at_once)
    parts = [slice(start, start + size) for start in range(0, asked.count, size)]
    yield from _abreast([chosen(keys[part], condition[part]) for part in parts], run, tick)


def rows_of(run: Run, asked: Drawing, drawn: Tensor) -> Tensor:
    """Drawn rows (N, width) of tokens as the table's carrier, (N, d) float64: as `cells.draw_rows` gives them."""
    tokens, types = must_be_table(run)
    spans = None if asked.where is None else Where.of(asked.where, tokens, types).spans
    return tokens.rows(tokens.categories.codes(drawn), spans)


#: from seeds and conditions of a few samples to their walk, and its number of steps
_Way = Callable[[Tensor, Condition], tuple[Iterator[State[Tensor]], int]]


def _noise(run: Run, asked: Drawing) -> _Way:
    """The walk of a model of Gaussian noise."""
    if asked.where is not None:
        raise InputError(f"where={asked.where!r} is of a table's columns; {run.folder.name} draws {run.kind}s.")
    if asked.scale is not None:
        run = guided(run, scale=asked.scale)
    stepper = None if asked.stepper is None else stepper_with(asked.stepper, dict(asked.options or {}))
    steps = run.way(stepper, asked.steps, asked.grid).steps

    def way(seeds: Tensor, condition: Condition) -> tuple[Iterator[State[Tensor]], int]:
        how: dict[str, Any] = {"stepper": stepper, "steps": asked.steps, "grid": asked.grid}
        return run.trajectory(len(seeds), condition=condition, seeds=seeds, **how), steps

    return way


def _rows(run: Run, asked: Drawing) -> _Way:
    """The walk of a model of a table's rows: their cells become known one after the other."""
    tokens, types = must_be_table(run)
    for name in ("scale", "stepper", "grid"):
        if (value := getattr(asked, name)) is not None:
            raise InputError(f"{name}={value!r} is of Gaussian noise, and {run.folder.name} draws the rows of a table.")
    where = None if asked.where is None else Where.of(asked.where, tokens, types)

    def way(seeds: Tensor, condition: Condition) -> tuple[Iterator[State[Tensor]], int]:
        x = torch.zeros(len(seeds), tokens.categories.width)
        if where is not None:
            x = constrained(run.denoiser, x, where.sets, seeds, condition)
        left = int((~tokens.categories.known(x)).sum(1).max())
        steps = max(left, 1) if asked.steps is None else asked.steps
        how: dict[str, Any] = {"seeds": seeds, "x": x, "condition": condition}
        return run.learner.trajectory(run.denoiser, len(seeds), run.way().stepper, asked.steps, None, **how), steps

    return way


def _abreast(
    walks: Sequence[tuple[Iterator[State[Tensor]], int]], run: Run, tick: Callable[[], None]
) -> Iterator[Seen]:
    """Moments of all walks together; one that is at its end waits for the others."""
    steps = max(steps for _, steps in walks)
    moments: list[State[Tensor] | None] = [None] * len(walks)
    for step in range(steps + 1):
        for place, (states, _) in enumerate(walks):
            moments[place] = next(states, moments[place])
            tick()
        here: list[State[Tensor]] = [moment for moment in moments if moment is not None]
        noisy, clean = (torch.cat([getattr(m, name).cpu() for m in here]) for name in ("x", "x0"))
        if not bool(torch.isfinite(noisy).all()):
            raise InputError("the samples are not finite: the model has diverged, or the stepper needs more steps.")
        ratio, spread = None, 1.0
        if run.learner.walks:
            level, scale = run.denoiser.process.at(here[0].t), run.denoiser.sigma_data
            ratio = float(level.noise_ratio)
            spread = math.hypot(float(level.alpha), float(level.sigma) / scale)
        yield Seen(step, steps, max(m.calls for m in here), ratio, spread, noisy, clean)
