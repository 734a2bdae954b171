"""Tokens that dissolve by any kernel, held to laws of few tokens that are known in closed form."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import ornstein
from ornstein.core import PROCESSES
from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.numerics import Estimate
from ornstein.core.walk import end
from ornstein.discrete import KERNELS, TOKEN_OBJECTIVES, TOKEN_READINGS, TOKEN_STEPPERS
from ornstein.discrete.bounds import MaskedBound, ScoreEntropy, VariationalBound, measured
from ornstein.discrete.drawing import draw_tokens
from ornstein.discrete.guided import Tilted, TiltedByClassifier, TokenClassifier
from ornstein.discrete.kernels import Absorbing, Kernel, Uniform, at_share
from ornstein.discrete.readings import Probabilities
from ornstein.discrete.spectral import Neighbours
from ornstein.discrete.tokens import TokenDenoiser, TokenTable
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.laws import check
from ornstein.laws.tokens import (
    DRAWS,
    KERNEL_LAWS,
    OBJECTIVE_LAWS,
    READING_LAWS,
    STEPPER_LAWS,
    K,
    alike,
    chi_square,
    filled,
    fills_in_what_is_not_known,
    law,
    rows,
)

#: laws that are counted over many draws
_COUNTED = ("draws-the-law", "fills-in-what-is-not-known")
#: (stepper, kernel) for each that goes with it
WAYS = [
    pytest.param(stepper(), kernel(), id=f"{name}-{of}")
    for name, stepper in TOKEN_STEPPERS.items()
    for of, kernel in KERNELS.items()
    if of == "absorbing" or (not stepper().masks and of not in ("neighbours", "discretised-gaussian"))
]


@pytest.mark.parametrize("held", KERNEL_LAWS)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_keep_every_law(name: str, held: str) -> None:
    KERNEL_LAWS[held](KERNELS[name]())


@pytest.mark.parametrize("held", READING_LAWS)
@pytest.mark.parametrize("name", TOKEN_READINGS)
def test_readings_keep_every_law(name: str, held: str) -> None:
    READING_LAWS[held](TOKEN_READINGS[name]())


@pytest.mark.parametrize("held", OBJECTIVE_LAWS)
@pytest.mark.parametrize("name", TOKEN_OBJECTIVES)
def test_objectives_keep_every_law(name: str, held: str) -> None:
    OBJECTIVE_LAWS[held](TOKEN_OBJECTIVES[name]())


@pytest.mark.parametrize("held", [name for name in STEPPER_LAWS if name not in _COUNTED])
@pytest.mark.parametrize("name", TOKEN_STEPPERS)
def test_steppers_keep_every_law(name: str, held: str) -> None:
    STEPPER_LAWS[held](TOKEN_STEPPERS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("held", _COUNTED)
@pytest.mark.parametrize("name", TOKEN_STEPPERS)
def test_steppers_draw_the_law_by_chi_square_over_many_draws(name: str, held: str) -> None:
    STEPPER_LAWS[held](TOKEN_STEPPERS[name]())


@pytest.mark.parametrize("clock", PROCESSES)
def test_gaussian_schedules_are_clocks(clock: str) -> None:
    kernel, gaussian = Absorbing(clock), PROCESSES[clock]()
    first, last = kernel.at(0.0), kernel.at(kernel.t_max)
    assert (first.alpha, last.alpha) == (1.0, 0.0)
    at = kernel.at(0.3 * kernel.t_max)
    if float(gaussian.at(gaussian.t_max).alpha) == 0:
        assert at.log_snr == pytest.approx(gaussian.at(0.3 * kernel.t_max).log_snr)
    assert 0 < at.alpha < 1


@pytest.mark.parametrize(("name", "kernel"), [(n, k) for n in TOKEN_OBJECTIVES for k in KERNELS])
def test_objectives_of_the_true_law(name: str, kernel: str) -> None:
    """Bounds equal the entropy, that in steps comes down to it; another law's are above; the hybrid is above both."""
    try:
        TOKEN_OBJECTIVES[name]().must_suit(KERNELS[kernel]())
    except InputError:
        pytest.skip("of the mask")
    model = law(KERNELS[kernel]())
    weight = model.table.flatten()
    x0 = model.categories.one_hot(rows()).repeat_interleave(2000, 0)
    entropy = -float((weight * weight.log()).sum())
    other = TokenTable(torch.full((K, K), 1 / 9, dtype=torch.float64), KERNELS[kernel]())

    def value(of: TokenDenoiser, objective: Any) -> tuple[float, float]:
        each = objective(of, x0, None, torch.Generator().manual_seed(0)).double().reshape(9, -1)
        return float((each.mean(1) * weight).sum()), float(((each.var(1) / each.shape[1]) * weight**2).sum().sqrt())

    objective = TOKEN_OBJECTIVES[name](shown=0.0)
    found, error = value(model, objective)
    apart, _ = value(other, objective)
    assert apart > found + 0.1
    if name in ("masked-bound", "left-to-right", "score-entropy"):
        assert found == pytest.approx(entropy, abs=5 * error + 1e-4)
        assert apart == pytest.approx(math.log(9), abs=0.05)
    if name.startswith("d3pm"):
        assert entropy - 5 * error < found < entropy + 0.02 + 5 * error
        few, _ = value(model, TOKEN_OBJECTIVES[name](shown=0.0, steps=2))
        assert few > found + 0.01


def test_a_bound_on_rows_has_its_error() -> None:
    model = law(Absorbing("cosine"))
    dice = torch.Generator().manual_seed(0)
    codes = rows()[torch.multinomial(model.table.flatten(), 4000, True, generator=dice)]
    found = measured(model, model.vectors(codes), seed=1, draws=4)
    exact = -float(model.log_prob(codes).mean())
    assert abs(found.nats.value - exact) < 5 * found.nats.standard_error
    assert 0 < found.nats.standard_error < 0.05
    assert found.bits.value == pytest.approx(found.nats.value / (2 * math.log(2)))


@pytest.mark.usefixtures("own_tables")
def test_an_addition_is_held_to_the_laws_by_being_registered() -> None:
    """A kernel that forgets nothing of class 0, and a reading that reads nothing: each is found out by name."""

    @ornstein.register("kernel", "sticky")
    @dataclass(frozen=True)
    class Sticky(Uniform):
        """A chain that leaves one class where it is."""

        def log_rows(self, codes: Tensor, classes: int, a: Any) -> Tensor:
            found = super().log_rows(codes, classes, a)
            return torch.where((codes == 0)[..., None], super().log_rows(codes, classes, 0.9), found)

    @ornstein.register("token-reading", "deaf")
    class Deaf(Probabilities):
        """A reading that does not listen to the network."""

        def log_probs(self, kernel: Kernel, codes: Tensor, out: Tensor, level: Any, factor: Tensor) -> Tensor:
            return factor.log_softmax(-1)

    found = {(f.noun, f.law): f.verdict for f in check(__name__)}
    assert found["kernel", "its-rows-are-laws-in-float32"] == "broken"
    assert found["kernel", "its-steps-multiply"] == "broken"
    assert found["token-reading", "gives-back-the-posterior-that-it-says"] == "broken"
    assert found["token-reading", "says-a-law-whatever-the-network-says"] == "ok"
    assert "deaf" in Experiment.read("quantised-digits", ["predicts=deaf"]).predicts


@pytest.mark.parametrize(("stepper", "kernel"), WAYS)
def test_samples_have_the_law_as_steps_grow(stepper: Any, kernel: Kernel) -> None:
    """Of 4^3 rows; see below for more."""
    model, n = alike(kernel, tokens=3, held=0.4), 1500
    last = end(draw_tokens(model, n, stepper, steps=48, seed=2))
    assert chi_square(model.codes(last.x), model.table) < 5
    few = end(draw_tokens(model, n, stepper, steps=1, seed=2))
    if stepper.calls is None:  # exact in any number
        assert chi_square(model.codes(few.x), model.table) < 5
    else:
        assert chi_square(model.codes(few.x), model.table) > 20
        assert last.calls == 47 * stepper.calls + 1


@pytest.mark.slow
@pytest.mark.parametrize(("stepper", "kernel"), [way for way in WAYS if isinstance(way.values[1], Absorbing | Uniform)])
def test_each_of_4096_rows_is_drawn_as_often_as_the_law_says(stepper: Any, kernel: Kernel) -> None:
    """4^6 rows whose tokens depend on each other, by chi-square of 10^5 draws; and some tokens given the others."""
    model = alike(kernel)
    for steps, near in ((2, stepper.calls is None), (48, True)):
        last = end(draw_tokens(model, DRAWS, stepper, steps=steps, seed=2))
        off = chi_square(model.codes(last.x), model.table)
        assert abs(off) < 5 if near else off > 20
    assert abs(filled(model, stepper, DRAWS // 5, 24)) < 5


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bound_of_the_true_law_of_4096_rows_is_its_entropy(kernel: str) -> None:
    """The bound on every row, weighted by its probability, in several estimates that are independent of each other."""
    model, copies = alike(KERNELS[kernel]()), 12
    codes, weight = rows(model.classes, model.table.ndim).repeat(copies, 1), model.table.flatten()
    found = measured(model, model.vectors(codes), seed=1, draws=1, batch=4096)
    bound = Estimate.of(found.each.reshape(copies, -1) @ weight)
    entropy = -float(torch.special.xlogy(weight, weight).sum())
    assert bound.standard_error < 0.02 * entropy
    assert abs(bound.value - entropy) < 5 * bound.standard_error + 1e-4


@pytest.mark.parametrize("name", TOKEN_STEPPERS)
def test_tokens_that_are_not_asked_for_stay_masked(name: str) -> None:
    """The others have the distribution that they have without them: of 3^4 rows, given the first token."""
    model, n = alike(Absorbing(), 3, 4, held=0.4), 3000
    known = model.categories.one_hot(torch.tensor([[2, -1, -1, -1]]).expand(n, -1))
    stepper = TOKEN_STEPPERS[name]()
    last = end(draw_tokens(model, n, stepper, steps=48, seed=3, x=known, until=3))
    codes, given = model.codes(last.x), model.table[2].sum(-1)
    assert bool((codes[:, 3] == 3).all())
    assert chi_square(codes[:, 1:3], given / given.sum()) < 5
    if stepper.calls is None:
        assert end(draw_tokens(model, n, stepper, steps=1, seed=3, x=known, until=3)).calls == 2


@pytest.mark.parametrize("name", TOKEN_STEPPERS)
def test_what_is_filled_in_has_its_law(name: str) -> None:
    fills_in_what_is_not_known(TOKEN_STEPPERS[name](), draws=800, steps=32)


@dataclass(frozen=True, eq=False)
class Either(TokenDenoiser):
    """Two laws that the condition tells apart."""

    free: TokenTable
    given: TokenTable
    device = torch.device("cpu")

    @property
    def process(self) -> Kernel:  # type: ignore[override]
        return self.free.process

    @property
    def categories(self) -> Categories:  # type: ignore[override]
        return self.free.categories

    def log_probs(self, codes: Tensor, level: Any, condition: Condition, known: Any = None) -> Tensor:
        of = self.free if bool(condition.absent("label").all()) else self.given
        return of.log_probs(codes, level, Condition.of(None), known)


def draws_the_tilted_law(free: Tensor, given: Tensor, n: int) -> None:
    """p(x given y)^scale p(x)^(1 - scale), of tokens that do not depend on each other."""
    model = Either(TokenTable(free, Absorbing()), TokenTable(given, Absorbing()))
    condition = {"label": torch.zeros(n, dtype=torch.int64)}
    for scale in (0.0, 1.0, 2.5):
        wanted = given**scale * free ** (1 - scale)
        stepper = TOKEN_STEPPERS["first-hitting"]()
        last = end(draw_tokens(Tilted(model, scale), n, stepper, steps=1, seed=0, condition=condition))
        assert abs(chi_square(model.codes(last.x), wanted / wanted.sum())) < 5


def test_guidance_is_the_tilted_law() -> None:
    free, given = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.1, 0.3, 0.6]))
    draws_the_tilted_law(free, given, 20_000)
    free = alike(Absorbing(), tokens=3, held=0.0).table
    draws_the_tilted_law(free, free.flip(0, 1, 2), 20_000)


@pytest.mark.slow
def test_guidance_is_the_tilted_law_of_4096_rows() -> None:
    free = alike(Absorbing(), held=0.0).table
    draws_the_tilted_law(free, free.flip(*range(6)), DRAWS)


@dataclass(frozen=True, eq=False)
class Told(TokenClassifier):
    """Which of two laws a row is of, exactly."""

    laws: tuple[TokenTable, TokenTable]
    shares: tuple[float, float]

    @property
    def process(self) -> Kernel:  # type: ignore[override]
        return self.laws[0].process

    def log_classes(self, codes: Tensor, level: Any) -> Tensor:
        both = [of.log_marginal(codes, level) + math.log(p) for of, p in zip(self.laws, self.shares, strict=True)]
        return torch.stack(both, 1).log_softmax(1)


def told_apart(given: TokenTable, other: TokenTable) -> TiltedByClassifier:
    """Guidance to the first of two laws, of which rows are in shares of 0.3 and 0.7."""
    base = TokenTable(0.3 * given.table + 0.7 * other.table, given.process)
    return TiltedByClassifier(base, Told((given, other), (0.3, 0.7)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_guidance_by_a_classifier_is_bayes_rule(kernel: str) -> None:
    """Of tokens that depend on each other, in every state, masked ones too."""
    made = KERNELS[kernel]()
    two = tuple(TokenTable(law(made, dependent).table.roll(turn, 1), made) for dependent, turn in ((1, 0), (0.5, 1)))
    six = alike(made, classes=2, held=0.5), alike(made, classes=2, held=0.1)
    for given, other in (two, six):
        guided = told_apart(given, other)
        codes = rows(made.states(given.classes), given.table.ndim)
        each = torch.arange(len(codes)) % 2  # every other row is not guided
        for left in (0.9, 0.4, 0.05):
            level = at_share(made, torch.full((len(codes),), left))
            found = guided.log_probs(codes, level, Condition.of(-each))
            known, free = (model.log_probs(codes, level, Condition.of(None)) for model in (given, guided.base))
            exact = torch.where(each[:, None, None] == 0, known, free)
            assert torch.allclose(found.exp(), exact.exp(), atol=1e-4)
    guided, n = told_apart(*two), 2000
    last = end(draw_tokens(guided, n, TOKEN_STEPPERS["token-ancestral"](), steps=48, seed=1,
                           condition=torch.zeros(n, dtype=torch.int64)))  # fmt: skip
    assert chi_square(guided.codes(last.x), two[0].table) < 5


@pytest.mark.slow
def test_guidance_by_a_classifier_draws_the_law_of_4096_rows_given_the_class() -> None:
    given, n = alike(Absorbing()), DRAWS // 3
    other = TokenTable(given.table.flip(*range(6)), Absorbing())
    last = end(draw_tokens(told_apart(given, other), n, TOKEN_STEPPERS["first-hitting"](), steps=1, seed=1,
                           condition=torch.zeros(n, dtype=torch.int64)))  # fmt: skip
    assert abs(chi_square(given.codes(last.x), given.table)) < 5


def test_guidance_by_a_classifier_is_the_tilted_law() -> None:
    free, given = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.1, 0.3, 0.6]))
    one, other = (TokenTable(p, Absorbing()) for p in (given, (free - 0.3 * given) / 0.7))
    n = 20_000
    for scale in (0.0, 1.0, 2.5):
        model = TiltedByClassifier(TokenTable(free, Absorbing()), Told((one, other), (0.3, 0.7)), scale)
        wanted = free * (given / free) ** scale
        last = end(draw_tokens(model, n, TOKEN_STEPPERS["first-hitting"](), steps=1, seed=0,
                               condition=torch.zeros(n, dtype=torch.int64)))  # fmt: skip
        assert chi_square(model.codes(last.x), wanted / wanted.sum()) < 5
    with pytest.raises(InputError, match="label to guide"):
        model.log_probs(torch.zeros(1, 1, dtype=torch.int64), Absorbing().at(0.5), Condition.of(None))
    with pytest.raises(InputError, match="dissolved by"):
        TiltedByClassifier(law(KERNELS["uniform"]()), model.classifier)


def test_what_cannot_be_is_refused() -> None:
    model = law(KERNELS["uniform"]())
    with pytest.raises(InputError, match="masks none"):
        draw_tokens(model, 2, TOKEN_STEPPERS["confidence"](), steps=2)
    with pytest.raises(InputError, match="embedding has places for 2"):
        Neighbours(embedding=((0.0,), (1.0,))).log_rows(torch.zeros(1, 1, dtype=torch.int64), 3, 0.5)
    with pytest.raises(InputError, match="absorbing"):
        MaskedBound()(model, model.vectors(rows()), None, torch.Generator())
    with pytest.raises(InputError, match="clock"):
        Absorbing("sundial")
    assert at_share(model.process, torch.tensor([0.25])).sigma.item() == 0.75
    for wrong in (lambda: VariationalBound(0), lambda: ScoreEntropy(drop=2.0)):
        with pytest.raises(InputError, match="objective"):
            wrong()
