"""What a run learns: the contract of every kind of model.

A denoiser, one that knows its own uncertainty, an energy, a classifier of noisy data: each needs a network of a certain
output, makes a model of it, has a loss, may remember something from step to step, is judged in its own way, and can be
drawn from or not. A `Learner` says all of this in one place. Whatever trains, plans, opens, draws from or reports on a
run asks its learner and never looks at a name.

*Judging.* Objectives weigh noise levels differently, so their losses cannot be compared. A denoiser is judged by the
error of x0 on held-out data, at fixed levels with fixed noise, divided by the error of the best linear denoiser of
white data of the same variance,

    sigma^2 s^2/(alpha^2 s^2 + sigma^2),        s = sigma_data,

and averaged over levels even in log-SNR: 1 is knowing the variance alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Scaled
from ornstein.core.drive import Noise, trajectory
from ornstein.core.grids import times
from ornstein.core.process import Level, Process
from ornstein.core.walk import State
from ornstein.errors import InputError

#: levels that a model is judged at, and held-out examples that it is judged by
LEVELS, JUDGED_BY = 16, 256
#: steps in continuous time, where nothing says how many
STEPS = 30


@dataclass(frozen=True, eq=False)
class Problem(Scaled):
    """What a learner starts from: facts of the data, and what the experiment names.

    Attributes:
        process: the clock; of a bridge its path, which has times too.
        predicts: what the network's output means, one of the learner's `readings`.
        objective: what teaches it, `(model, x0, condition, generator) -> loss (B,)`.
        shape: of one sample in model space.
        sigma_data: standard deviation of the data in model space.
        classes: the number of labels, 0 for none.
        conditions: the parts of a condition by name, as described to networks.
        levels: the number of values that digital data have, None for continuous ones.
        categories: the tokens of a row, for data made of tokens; None for numbers.
        taught_by: the objective's name, for messages.
        noise_unit: what noise is measured in, if not in sigma_data.
        gaps: whether the data have cells that were not seen, NaN.
        far: standard deviation, in model space, of the data that a bridge starts from; None without a bridge.
        paired: whether those data belong to these row by row.
        correlation: (C, K), for series in time: of each feature with itself at each distance in steps; None for others.
    """

    process: Process
    predicts: str
    objective: Callable[..., Tensor]
    shape: tuple[int, ...]
    sigma_data: float = 1.0
    classes: int = 0
    conditions: Mapping[str, Any] = field(default_factory=dict)
    levels: int | None = None
    categories: Categories | None = None
    taught_by: str = ""
    noise_unit: float | None = None
    gaps: bool = False
    far: float | None = None
    paired: bool = False
    correlation: Tensor | None = None


@dataclass(frozen=True)
class Judgement:
    """How good a model is on data that it was not trained on.

    Attributes:
        value: one number, relative to a baseline that knows next to nothing: lower is better, 1 is no better than that.
        ratios: the noise ratios sigma/alpha that it was judged at.
        found: what was measured at each.
        known: the baseline's figure at each.
    """

    value: float
    ratios: list[float]
    found: list[float]
    known: list[float]


@dataclass(frozen=True)
class Measure:
    """What a `Judgement` measures, in the words that a picture of it uses.

    Attributes:
        name: of the picture's file.
        found: the axis of `found`, as "mean squared error of x0".
        known: what `known` is.
        unit: what 1 stands for, in a word or two.
        share: whether `found` are shares in [0, 1], drawn on an even scale.
        across: the axis of `ratios`.
    """

    name: str
    found: str
    known: str
    unit: str
    share: bool = False
    across: str = "noise ratio sigma/alpha"


@dataclass(frozen=True, eq=False)
class Learner(ABC):
    """A kind of model; a frozen dataclass of its settings, of which the problem is the first.

    To add one, write `model`, name what it takes in `readings` and `objectives`, override what differs from a denoiser,
    and give it a line in `LEARNERS`.

    Attributes:
        readings: the values of `predicts`, each with a sentence on what it means.
        objectives: what may teach it, by name.
        processes: how data may dissolve, or what leads to them, by name; {} for Gaussian noise, by any clock.
        steppers: what may draw from the model, by name; {} for those that walk Gaussian noise.
        guidance: how the model may be guided, by name; {} for the ways of Gaussian noise, if it walks that.
        nets: the networks that it can be made of, by name; {} for those that take a noise level.
        draws: whether it can be drawn from.
        walks: whether drawing is a walk of Gaussian noise, which can be guided, tuned and reversed.
        instead: if it does not walk: how it draws and what can be done with it, in words.
        unlike: for a learner that walks, why the walk's likelihood is not that of its samples, in words; "" if it is.
        at_once: how many samples are drawn at a time, so that memory does not grow with their number.
        then: what to do with a trained run, as commands, the run's folder being {run}.
        judges: what `judge` measures.
        drawn_too: parts of the condition that are drawn with the rest if they are not given, and kept if they are.
        teaches: whether students of few calls can be made of it (`ornstein.distill.students`).

    Raises:
        InputError: a problem that it cannot solve.
    """

    problem: Problem

    readings: ClassVar[Mapping[str, str]] = {}
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    guidance: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    nets: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    draws: ClassVar[bool] = True
    walks: ClassVar[bool] = True
    instead: ClassVar[str] = ""
    unlike: ClassVar[str] = ""
    at_once: ClassVar[int] = 256
    then: ClassVar[str] = "ornstein sample {run} -n 64     ornstein evaluate {run}"
    judges: ClassVar[Measure] = Measure(
        "loss-by-noise", "mean squared error of x0", "best linear denoiser of white data", "linear"
    )
    drawn_too: ClassVar[frozenset[str]] = frozenset()
    teaches: ClassVar[bool] = False

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        """Whether an experiment that names no learner means this one."""
        return predicts in cls.readings

    @classmethod
    def completed(cls, objective: Mapping[str, Any], shares: tuple[float, ...], data: str) -> Mapping[str, Any]:
        """The objective's settings with those left to the data, as the shares of its classes; `data` is its name."""
        return objective

    @classmethod
    def explained(cls, settings: Mapping[str, Any], shape: tuple[int, ...]) -> str:
        """How it draws data of this shape in model space, in words, if that needs explaining; "" if not."""
        return ""

    @property
    def asks(self) -> int:
        """How many networks one full answer of the model takes; a walk may call one at a time."""
        return 1

    @property
    def halvings(self) -> tuple[int, ...]:
        """For each of its walks of Gaussian noise, how often the sides of a sample are halved in it; () for none."""
        return (0,) if self.walks else ()

    def around(self, model: Any, wrapped: Callable[[Any, int], Any]) -> Any:
        """The model with the denoiser of each walk wrapped, which is given it and the walk's entry of `halvings`."""
        return wrapped(model, 0)

    @property
    def out_multiple(self) -> int:
        """Channels of the network's output for each of its input."""
        return 1

    @property
    def shown(self) -> tuple[int, ...]:
        """The shape of the part of a sample that the network sees."""
        return self.problem.shape

    @property
    def told(self) -> Mapping[str, Any]:
        """The parts of the condition that the network is given."""
        return self.problem.conditions

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        """The network, freshly initialised.

        Args:
            build: `build(shape, told, out_multiple)` makes one of the experiment's kind.
            seed: of the weights of such as are of another kind.
        """
        return build(self.shown, self.told, self.out_multiple)

    def count(self, net: nn.Module, examples: Tensor) -> None:  # noqa: B027 - most know nothing beforehand
        """Give a network what is known by counting, before it is trained.

        Args:
            examples: (N, *own) of the training part in its own units, of which no two share a number.
        """

    def begin(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Give a network the weights of the run that it starts from.

        Raises:
            RuntimeError: the weights belong to another network.
        """
        net.load_state_dict(weights)

    @abstractmethod
    def model(self, net: nn.Module) -> Any:
        """The model made from a network: a `Denoiser`, if the learner draws."""

    def loss(
        self, model: Any, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        """The loss of each sample, (B,); updates what it remembers in place."""
        remembering = {"memory": memory} if memory else {}
        return self.problem.objective(model, x0, condition, generator, **remembering)

    def memory(self, model: Any, x0: Tensor, condition: Given = None) -> dict[str, Tensor]:
        """What the loss keeps between steps, in its first state, such as chains of samples; {} for most losses.

        Args:
            model: that is trained.
            x0, condition: a batch like those of training.
        """
        keeps = getattr(self.problem.objective, "memory", None)
        return {} if keeps is None else keeps(model, x0)

    def times(self, n: int, generator: torch.Generator) -> Tensor | None:
        """The times that the loss draws for n samples from a generator in this state; None where that is not known."""
        draw = getattr(self.problem.objective, "draw_times", None)
        return None if draw is None else draw(self.problem.process, n, generator, self.problem.unit)

    @property
    def gaps(self) -> bool:
        """Whether it can learn from data with cells that were not seen."""
        return False

    @property
    def twice(self) -> bool:
        """Whether the loss differentiates the network twice, which forbids compiling and sharding it."""
        return bool(getattr(self.problem.objective, "twice_differentiated", False))

    @property
    def narrow(self) -> bool:
        """Whether the model may run in a type narrower than float32: not if its answer is a derivative."""
        return False

    @property
    def criticised(self) -> bool:
        """Whether a critic is taught once training has ended, by whose word some draws are made again."""
        return False

    def seen_by_critic(self, x: Tensor) -> Tensor:
        """What the critic sees of examples in model space, (B, ...) -> (B, F)."""
        raise NotImplementedError

    def critic(self, real: Tensor, drawn: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        """A critic of the model's draws, as tensors by name, from what it sees of data (N, F) and of draws (M, F)."""
        raise NotImplementedError

    def with_critic(self, model: Any, critic: Mapping[str, Tensor]) -> Any:
        """The model, drawing under the eyes of that critic."""
        raise NotImplementedError

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        """The model with its network's products and convolutions in that type; everything else keeps its type."""
        return replace(model, precision=precision) if hasattr(model, "precision") else model

    @property
    def steps(self) -> int:
        """The default number of steps to draw in: those of a chain, and 30 in continuous time."""
        return self.problem.process.chain or STEPS

    def trajectory(
        self,
        model: Any,
        rows: int,
        stepper: Any,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        """The walk from noise to `rows` samples in model space: see `ornstein.core.drive.trajectory` for the options.

        Arguments that do not fit are refused at the call, before the first state.
        """
        steps = self.steps if steps is None else steps
        return trajectory(model, (rows, *self.problem.shape), stepper, steps=steps, grid=grid, **options)

    @torch.no_grad()
    def judge(self, model: Any, x0: Tensor, condition: Given) -> Judgement:
        """How good the model is on held-out data, (N, ...) in model space: see the module.

        Only the first `JUDGED_BY` examples are used.
        """
        x0 = x0[:JUDGED_BY].to(model.device)
        condition = Condition.of(condition)[:JUDGED_BY].to(model.device)
        ratios, errors, linear = [], [], []
        seen = ~x0.isnan()  # of cells that were not, nothing is known to judge by
        for level, noisy in noised_alike(model, x0):
            errors.append((model(noisy, level, condition).x0 - x0).square()[seen].mean().item())
            spread = (level.alpha * model.sigma_data) ** 2 + level.sigma**2
            linear.append(float((level.sigma * model.sigma_data) ** 2 / spread))
            ratios.append(float(level.noise_ratio))
        value = sum(e / w for e, w in zip(errors, linear, strict=True)) / len(errors)
        return Judgement(value, ratios, errors, linear)


@dataclass(frozen=True, eq=False)
class OnItsOwnClock(Learner):
    """A learner drawn from along a clock of its own, which no grid of noise levels fits. To add one, also write `walk`.

    Attributes:
        gridless: why it takes no grid, in words.
    """

    walks: ClassVar[bool] = False
    gridless: ClassVar[str]

    @abstractmethod
    def walk(self, model: Any, rows: int, stepper: Any, steps: int | None, **options: Any) -> Iterator[State[Tensor]]:
        """From nothing known to `rows` examples."""

    def trajectory(
        self,
        model: Any,
        rows: int,
        stepper: Any,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        if grid is not None:
            raise InputError(f"grid={grid!r} is a grid for Gaussian noise; {self.gridless}.")
        return self.walk(model, rows, stepper, steps, **options)


def with_shares(objective: Mapping[str, Any], shares: tuple[float, ...], data: str) -> Mapping[str, Any]:
    """An objective of classes with their shares in the data, if it has none of its own.

    Raises:
        InputError: data without labels, or with some examples that have none.
    """
    if objective["shares"]:
        return objective
    name = objective["name"]
    if len(shares) < 2:
        raise InputError(f"objective={name!r} needs labels of two classes or more; {data} has none.")
    if sum(shares) < 1 - 1e-6:
        raise InputError(f"objective={name!r} needs a label for every example; {data} has some without (-1).")
    return {**objective, "shares": list(shares)}


def mean_of(found: Sequence[Judgement]) -> Judgement:
    """The mean of several judgements, of networks that make one model together."""
    value = sum(one.value for one in found) / len(found)
    rows = (zip(*(getattr(one, name) for one in found), strict=True) for name in ("ratios", "found", "known"))
    return Judgement(value, *([sum(row) / len(row) for row in each] for each in rows))


def noised_alike(model: Any, x0: Tensor) -> Iterator[tuple[Level, Tensor]]:
    """(level, x_t) at `LEVELS` levels even in log-SNR of the model's clock, with the same noise at every call."""
    noise = Noise(torch.arange(len(x0), device=x0.device), tuple(x0.shape[1:]), torch.float32)
    for t in times(model.process, LEVELS, "logsnr", model.unit)[:-1].tolist():
        level = model.process.at(t)
        yield level, level.noised(x0, noise())
