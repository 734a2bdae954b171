"""What a run on mixed data learns: numbers and a category, drawn together by one network.

The network sees all parts at once, concatenated, and takes each part's noise level: that of the first as every network
does, those of the others as parts of the condition. It outputs v for the numbers and logits for the tokens.

*Training.* When samples are drawn, all parts are at the same moment of their clocks. In training this holds for most
rows; in some rows each part is at a moment of its own, and in some one part is clean. So one network serves p(x, y),
p(x given y) and p(y given x).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core import PROCESSES
from ornstein.core.categories import Categories
from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT
from ornstein.core.drive import Stepper
from ornstein.core.learner import JUDGED_BY, LEVELS, Judgement, Measure, OnItsOwnClock
from ornstein.core.numerics import normal, strata, uniform
from ornstein.core.prediction import READINGS, Prediction
from ornstein.core.process import Level, Process
from ornstein.core.walk import State
from ornstein.discrete import KERNELS, TOKEN_STEPPERS, Kernel
from ornstein.discrete.drive import drawn
from ornstein.discrete.kernels import share
from ornstein.discrete.tokens import told
from ornstein.errors import InputError, lookup
from ornstein.mixed.drive import draw_parts
from ornstein.mixed.parts import Joint, Part, Parts, Said
from ornstein.nets import Number
from ornstein.samplers import STEPPERS

#: the names of the parts, and the least place along a clock that training draws
NUMBERS, LABEL = "numbers", "label"
_LEAST = 0.01


@dataclass(frozen=True)
class Product(Process):
    """Numbers and categories side by side, each by a process of its own.

    Its clock is that of the numbers.

    Args:
        numbers: the numbers' process, by name.
        label: the categories' kernel, by name.

    Raises:
        InputError: unknown names.
    """

    numbers: str = "cosine"
    label: str = "absorbing"

    def __post_init__(self) -> None:
        lookup(PROCESSES, self.numbers, "process.numbers")
        lookup(KERNELS, self.label, "process.label")

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.of_numbers.t_max

    @property
    def of_numbers(self) -> Process:
        """The numbers' process."""
        return PROCESSES[self.numbers]()

    @property
    def of_label(self) -> Kernel:
        """The categories' kernel."""
        return KERNELS[self.label]()

    def alpha(self, t: Tensor) -> Tensor:
        return self.of_numbers.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.of_numbers.sigma(t)


@dataclass(frozen=True)
class Together:
    """A stepper for the numbers and one for the categories, side by side.

    Args:
        numbers: the numbers' stepper, by name.
        label: the categories' stepper, by name.

    Raises:
        InputError: unknown names.
    """

    numbers: str = "ddpm"
    label: str = "token-ancestral"

    def __post_init__(self) -> None:
        lookup(STEPPERS, self.numbers, "stepper.numbers")
        lookup(TOKEN_STEPPERS, self.label, "stepper.label")

    @property
    def each(self) -> dict[str, Any]:
        """Part -> its stepper."""
        numbers: Stepper = STEPPERS[self.numbers]()
        return {NUMBERS: numbers, LABEL: TOKEN_STEPPERS[self.label]()}


@dataclass(frozen=True, eq=False)
class JointNet(Joint):
    """A network as a model of a product.

    Args:
        net: `net(x, noise_level, condition)`, (B, width) -> (B, width), with the parts concatenated.
        layout: the parts; the network takes the first one's noise as noise_level, the others' as parts `noise_of`.
        precision: type of the net's matrix products; None for that of its parameters.
    """

    net: nn.Module
    layout: Parts
    precision: torch.dtype | None = None

    @property
    def parts(self) -> Mapping[str, Part]:  # type: ignore[override]
        """Name -> part."""
        return self.layout.of

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @staticmethod
    def noise_of(name: str) -> str:
        """The part of the condition that says how noisy a part is."""
        return f"noise.{name}"

    def __call__(self, x: Tensor, t: float, condition: Given = None) -> dict[str, Said]:
        """What it says of rows (B, width), with each part as far along its clock as t is along the first one's."""
        first, *_ = self.parts.values()
        along = t / first.process.t_max
        levels = {name: part.process.at(along * part.process.t_max) for name, part in self.parts.items()}
        return self.predict(self.layout.unpacked(x), levels, Condition.of(condition))

    def predict(self, x: Mapping[str, Tensor], levels: Mapping[str, Level], condition: Condition) -> dict[str, Said]:
        first, *others = self.parts
        shown, noise = {}, {}
        for name, part in self.parts.items():
            level = levels[name]
            spread = ((level.alpha * part.sigma_data) ** 2 + level.sigma**2) ** 0.5
            shown[name] = x[name] / spread if part.categories is None else x[name]
            noise[name] = _noise(level, len(x[name]), self.device)
        given = dict(condition.parts) | {self.noise_of(name): noise[name] for name in others}
        with torch.autocast(self.device.type, self.precision) if self.precision else nullcontext():
            out = self.net(self.layout.packed(shown), noise[first], given)
        said: dict[str, Said] = {}
        for name, f in self.layout.unpacked(out.float()).items():
            part, level = self.parts[name], levels[name]
            if part.categories is None:
                skip, scale = READINGS["v"](level, part.sigma_data)
                said[name] = Prediction(skip * x[name] + scale * f, x[name], level)
            else:
                classes = part.categories.sizes[0]
                codes = _codes(part.categories, x[name])
                factor = told(part.process, codes, classes, level, None)  # type: ignore[arg-type]
                said[name] = (f.unflatten(1, (-1, classes)) + factor).log_softmax(-1)
        return said


def _noise(level: Level, rows: int, device: torch.device) -> Tensor:
    """log(sigma/alpha), clipped as for every network, (B,)."""
    log_ratio = -0.5 * torch.as_tensor(level.log_snr, dtype=torch.float32, device=device).flatten()
    return log_ratio.expand(rows).clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)


def _codes(categories: Categories, x: Tensor) -> Tensor:
    """Vectors as numbers of states; the number of the mask is the number of classes."""
    codes = categories.codes(x)
    return torch.where(codes < 0, categories.sizes[0], codes)


@dataclass(frozen=True)
class JointRegression:
    """The sum of the numbers' mean squared error of v and the categories' mean cross-entropy.

    Args:
        apart: share of the rows in which each part is at a moment of its own.
        shown: share of the rows in which one part is clean, and does not count.

    Raises:
        InputError: shares outside [0, 1].
    """

    apart: float = 0.25
    shown: float = 0.25

    def __post_init__(self) -> None:
        for name in ("apart", "shown"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"objective.{name}={getattr(self, name)!r} must be in [0, 1].")

    def __call__(self, model: JointNet, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """x0 (B, width), the parts concatenated -> (B,) float32."""
        n, count, device = len(x0), len(model.parts), generator.device
        base = strata(n, generator)[torch.randperm(n, generator=generator, device=device)].float()
        own, throw = (torch.rand(n, count, generator=generator, device=device) for _ in range(2))
        which = torch.randint(count, (n, 1), generator=generator, device=device)
        place = torch.where(throw[:, :1] < self.apart, own, base[:, None])
        clean = (torch.arange(count, device=device) == which) & (throw[:, -1:] < self.shown)
        seeds = torch.randint(2**62, (n,), generator=generator, device=device).to(x0.device)
        each = _errors(model, x0, place.to(x0.device), clean.to(x0.device), Condition.of(condition), seeds)
        return torch.stack(list(each.values()), 1).sum(1).float()


def _errors(
    model: JointNet, x0: Tensor, place: Tensor, clean: Tensor, condition: Condition, seeds: Tensor
) -> dict[str, Tensor]:
    """For each part, at its place in (0, 1) along its clock: mean squared error of v or mean nats, (B,); 0 if clean."""
    parts, whole = {}, model.layout.unpacked(x0)
    levels: dict[str, Level] = {}
    for number, (name, part) in enumerate(model.parts.items()):
        t = torch.where(clean[:, number], 0.0, _LEAST + (1 - _LEAST) * place[:, number]).double() * part.process.t_max
        level = levels[name] = part.process.at(t, like=whole[name])
        if part.categories is None:
            parts[name] = level.noised(whole[name], normal(seeds, part.shape, number))
        else:
            codes = part.categories.codes(whole[name])
            log_q = part.process.log_rows(codes, part.categories.sizes[0], share(level))  # type: ignore[attr-defined]
            xt = drawn(log_q, uniform(seeds, part.categories.tokens, number))
            parts[name] = part.categories.one_hot(torch.where(xt < part.categories.sizes[0], xt, -1))
    said, found = model.predict(parts, levels, condition), {}
    for number, (name, part) in enumerate(model.parts.items()):
        heard = said[name]
        if isinstance(heard, Prediction):
            _, out = READINGS["v"](levels[name], part.sigma_data)
            scale = torch.where(clean[:, number].reshape(-1, *[1] * len(part.shape)), 1.0, torch.as_tensor(out))
            each = ((heard.x0 - whole[name]) / scale).square().flatten(1).mean(1)
        else:
            assert part.categories is not None
            each = -heard.gather(-1, part.categories.codes(whole[name])[..., None])[..., 0].mean(1)
        found[name] = torch.where(clean[:, number], 0.0, each)
    return found


MIXED_OBJECTIVES: dict[str, Callable[..., Any]] = {"joint": JointRegression}


@dataclass(frozen=True, eq=False)
class Mixed(OnItsOwnClock):
    """Numbers and a category, drawn together: a product of two processes and one network."""

    readings: ClassVar[Mapping[str, str]] = {
        "parts": "For numbers v, for categories the probabilities of their classes, each given all parts."
    }
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = MIXED_OBJECTIVES
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = {"product": Product}
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = {"together": Together}
    gridless: ClassVar[str] = "here each part has its own grid"
    instead: ClassVar[str] = "part by part, for which there is sample"
    then: ClassVar[str] = "ornstein sample {run} -n 64"
    drawn_too: ClassVar[frozenset[str]] = frozenset({LABEL})
    judges: ClassVar[Measure] = Measure(
        "loss-by-noise", "error of v and nats of the category", "knowing nothing", "nothing", across="noise ratio"
    )

    def __post_init__(self) -> None:
        categories = self.problem.categories
        if categories is None or categories.width >= self.problem.shape[0] or len(set(categories.sizes)) > 1:
            raise InputError(
                f"predicts={self.problem.predicts!r} needs numbers with a category beside them, such as data=labelled; "
                "these data are not such."
            )

    @property
    def layout(self) -> Parts:
        """Both parts, the numbers first."""
        problem, categories = self.problem, self.problem.categories
        assert categories is not None
        assert isinstance(problem.process, Product)  # no other is named in `processes`
        numbers = problem.shape[0] - categories.width
        # a token's vector has sum 1 and square 1; the numbers, whose mean is about 0, have the rest of the variance
        width, ones = problem.shape[0], categories.tokens
        square = (width * problem.sigma_data**2 + ones**2 / width - ones) / numbers
        return Parts(
            {
                NUMBERS: Part(problem.process.of_numbers, (numbers,), max(square, 1e-4) ** 0.5),
                LABEL: Part(problem.process.of_label, categories=categories),
            }
        )

    @property
    def told(self) -> Mapping[str, Any]:
        # of the class it is told as of a part
        given = {name: part for name, part in self.problem.conditions.items() if name != LABEL}
        return {**given, JointNet.noise_of(LABEL): Number()}

    def model(self, net: nn.Module) -> JointNet:
        return JointNet(net, self.layout)

    @property
    def narrow(self) -> bool:
        return True

    def loss(
        self, model: Any, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        return super().loss(model, x0, Condition.of(condition).without(LABEL), generator, memory)

    def walk(
        self, model: Any, rows: int, stepper: Any, steps: int | None, condition: Given = None, **options: Any
    ) -> Iterator[State[Tensor]]:
        """All parts side by side; where the condition has labels they are known, and the numbers are drawn given them.

        Raises:
            InputError: some rows with a label and some without.
        """
        given, steppers, known = Condition.of(condition), stepper.each, {}
        if LABEL in given.parts and bool((labels := given.parts[LABEL]).ge(0).any()):
            if bool((labels < 0).any()):
                raise InputError("labels of a product are given for all rows or for none: draw either by itself.")
            known = {LABEL: model.parts[LABEL].categories.one_hot(labels[:, None])}
            del steppers[LABEL]
        steps, given = self.steps if steps is None else steps, given.without(LABEL)
        walk = draw_parts(model, rows, steppers, steps=steps, condition=given, known=known, **options)
        packed = model.layout.packed
        return (State(s.step, s.t, packed(s.x), packed(s.x0), s.calls) for s in walk)

    @torch.no_grad()
    def judge(self, model: JointNet, x0: Tensor, condition: Given) -> Judgement:
        """Both parts' errors at moments of the walk, relative to those of a model that knows nothing."""
        x0 = x0[:JUDGED_BY].to(model.device)
        given = Condition.of(condition)[:JUDGED_BY].without(LABEL).to(model.device)
        seeds = torch.arange(len(x0), device=x0.device)
        shares = model.layout.unpacked(x0)[LABEL].mean(0)
        sigma, nothing = model.parts[NUMBERS].sigma_data, -float(torch.special.xlogy(shares, shares).sum())
        ratios, found, known = [], [], []
        for number in range(LEVELS):
            place = torch.full((len(x0), len(model.parts)), (number + 0.5) / LEVELS, device=x0.device)
            level = model.parts[NUMBERS].process.at((number + 0.5) / LEVELS * model.parts[NUMBERS].process.t_max)
            errors = _errors(model, x0, place, torch.zeros_like(place, dtype=torch.bool), given, seeds)
            # error of v = alpha eps - sigma x0 for the best answer that ignores the input
            blind = float(level.alpha) ** 2 + (float(level.sigma) * sigma) ** 2
            ratios.append(float(level.noise_ratio))
            found.append(float(errors[NUMBERS].mean() + errors[LABEL].mean()))
            known.append(blind + nothing)
        order = sorted(range(LEVELS), key=lambda i: -ratios[i])
        value = sum(f / k for f, k in zip(found, known, strict=True)) / LEVELS
        return Judgement(value, *([values[i] for i in order] for values in (ratios, found, known)))
