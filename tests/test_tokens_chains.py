"""Tokens that dissolve by any kernel, held to laws of few tokens that are known in closed form."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ornstein.core import PROCESSES
from ornstein.core.condition import Condition
from ornstein.core.walk import end
from ornstein.discrete import KERNELS, TOKEN_OBJECTIVES, TOKEN_STEPPERS
from ornstein.discrete.bounds import MaskedBound, ScoreEntropy, VariationalBound, measured
from ornstein.discrete.drawing import draw_tokens
from ornstein.discrete.kernels import Absorbing, Kernel, Neighbours, at_share
from ornstein.discrete.readings import TOKEN_READINGS, from_rates, from_ratios, rates, ratios
from ornstein.discrete.tokens import Tilted, TokenDenoiser, TokenTable, told
from ornstein.errors import InputError

EVERY = [pytest.param(kernel(), id=name) for name, kernel in KERNELS.items()]
#: (stepper, kernel) for each that goes with it
WAYS = [
    pytest.param(stepper(), kernel(), id=f"{name}-{of}")
    for name, stepper in TOKEN_STEPPERS.items()
    for of, kernel in KERNELS.items()
    if of == "absorbing" or (not stepper().masks and of != "neighbours")
]
K, T = 3, 2


def law(kernel: Kernel) -> TokenTable:
    """Two tokens that depend on each other."""
    table = torch.tensor([[0.30, 0.02, 0.03], [0.05, 0.20, 0.02], [0.02, 0.08, 0.28]], dtype=torch.float64)
    return TokenTable(table, kernel)


def rows(size: int = K, tokens: int = T) -> Tensor:
    """Every row there is."""
    return torch.cartesian_prod(*[torch.arange(size)] * tokens).reshape(-1, tokens)


def matrix(kernel: Kernel, classes: int, a: float) -> Tensor:
    """Q(a), (S, S)."""
    return kernel.log_rows(torch.arange(kernel.states(classes))[None], classes, a)[0].double().exp()


def chi_square(codes: Tensor, table: Tensor) -> float:
    """The statistic of draws (N, T) against a law, less its degrees of freedom, in its own standard deviations."""
    flat = (codes * torch.tensor([K ** (T - 1 - i) for i in range(T)])).sum(1)
    found, expected = torch.bincount(flat, minlength=K**T).double(), table.flatten() * len(codes)
    free = K**T - 1
    return float((((found - expected).square() / expected).sum() - free) / (2 * free) ** 0.5)


@pytest.mark.parametrize("classes", [2, 27, 1000])
@pytest.mark.parametrize("kernel", EVERY)
def test_rows_are_laws_in_float32(kernel: Kernel, classes: int) -> None:
    states = kernel.states(classes)
    codes = torch.tensor([sorted({0, 1, classes // 2, classes - 1, states - 1})])
    law = kernel.log_stationary(classes).exp()
    for a in (0.0, 1e-3, 0.5, 0.999, 1.0):
        found, columns = kernel.log_rows(codes, classes, a), kernel.log_columns(codes, classes, a)
        assert found.dtype == torch.float32
        assert float(found.max()) <= 1e-6
        assert float(found.logsumexp(-1).abs().max()) < 1e-5
        assert torch.allclose(columns[0, :, codes[0]].exp(), found[0, :, codes[0]].T.exp(), atol=1e-6)
        assert torch.allclose(columns[0].double().exp() @ law, law[codes[0]], atol=1e-6)
        if a == 0:
            assert torch.allclose(found[0].double().exp(), law.expand(len(found[0]), -1), atol=1e-6)


@pytest.mark.parametrize("kernel", EVERY)
def test_steps_multiply_and_the_generator_is_their_derivative(kernel: Kernel) -> None:
    assert torch.allclose(matrix(kernel, 5, 0.6) @ matrix(kernel, 5, 0.5), matrix(kernel, 5, 0.3), atol=1e-6)
    h, states = 1e-3, torch.arange(kernel.states(5))
    found = kernel.rates_to(states[None], 5)[0].double().T
    moved = matrix(kernel, 5, math.exp(-h)) / h
    assert torch.allclose(moved - moved.diag().diag(), found, atol=2e-2 * float(found.max()))
    p = torch.rand(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spread = kernel.log_spread(p.log(), 0.4).exp()
    assert torch.allclose(spread, p @ matrix(kernel, 5, 0.4)[:5], atol=1e-6)
    assert torch.allclose(kernel.inverse(spread[..., :5], 0.4), p, atol=1e-5)


@pytest.mark.parametrize("kernel", EVERY)
def test_marginals_of_a_simulated_chain_are_the_closed_form(kernel: Kernel) -> None:
    """Sixty-four small steps drawn one by one, against one big one."""
    n, classes, dice = 20_000, 6, torch.Generator().manual_seed(0)
    levels = kernel.levels(torch.linspace(0, kernel.t_max, 65, dtype=torch.float64))
    codes = torch.ones(n, dtype=torch.int64)
    for number, (s, t) in enumerate(pairwise(levels), 1):
        step = matrix(kernel, classes, t.alpha / s.alpha)
        codes = (step.cumsum(1)[codes] < torch.rand(n, 1, generator=dice)).sum(1).clamp_max(len(step) - 1)
        if number in (8, 32, 64):
            expected = matrix(kernel, classes, t.alpha)[1]
            found = torch.bincount(codes, minlength=len(expected)) / n
            assert bool(((found - expected).abs() <= 5 * (expected * (1 - expected) / n).sqrt() + 1e-9).all())


@pytest.mark.parametrize("kernel", EVERY)
def test_the_posterior_is_bayes_rule_by_enumeration(kernel: Kernel) -> None:
    classes, t, s = 5, kernel.at(0.7 * kernel.t_max), kernel.at(0.4 * kernel.t_max)
    to_s, from_s = matrix(kernel, classes, s.alpha), matrix(kernel, classes, t.alpha / s.alpha)
    p = torch.rand(classes, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) ** 2
    for xt in range(kernel.states(classes)):
        joint = to_s[:classes] * from_s[:, xt]  # q(x_s, x_t given x_0)
        able = joint.sum(1) > 0
        told = torch.where(able, p, 0.0)
        told = told / told.sum()
        bayes = (joint[able] / joint[able].sum(1, keepdim=True) * told[able, None]).sum(0)
        found = kernel.log_posterior(torch.tensor([[xt]]), told.log()[None, None], t, s)[0, 0].exp()
        assert torch.allclose(found.double(), bayes, atol=1e-5)


@pytest.mark.parametrize("clock", PROCESSES)
def test_gaussian_schedules_are_clocks(clock: str) -> None:
    kernel, gaussian = Absorbing(clock), PROCESSES[clock]()
    first, last = kernel.at(0.0), kernel.at(kernel.t_max)
    assert (first.alpha, last.alpha) == (1.0, 0.0)
    at = kernel.at(0.3 * kernel.t_max)
    if float(gaussian.at(gaussian.t_max).alpha) == 0:
        assert at.log_snr == pytest.approx(gaussian.at(0.3 * kernel.t_max).log_snr)
    assert 0 < at.alpha < 1


@pytest.mark.parametrize("kernel", EVERY)
def test_readings_are_one_posterior(kernel: Kernel) -> None:
    """Ratios are those of the marginals, and each reading gives back the probabilities that it came from."""
    model, level = law(kernel), kernel.at(0.45 * kernel.t_max)
    step = matrix(kernel, K, level.alpha)
    marginal = torch.einsum("ab,ax,by->xy", model.table, step[:K], step[:K])
    codes = rows(kernel.states(K))
    log_p = model.log_probs(codes, level, Condition.of(None))
    found = ratios(kernel, codes, log_p, level).exp()
    exact = marginal[:, codes[:, 1]].T / marginal[codes[:, 0], codes[:, 1]][:, None]
    reached = kernel.rates_to(codes, K)[:, 0] > 0  # a known token's are not looked at
    assert torch.allclose(found[:, 0][reached].double(), exact[reached], rtol=1e-4)
    factor = told(kernel, codes, K, level, None).double()
    assert torch.allclose(from_ratios(kernel, codes, found, level, factor).exp(), log_p.exp(), atol=1e-4)
    turned = rates(kernel, codes, log_p, level)
    assert torch.allclose(from_rates(kernel, codes, turned, level, factor).exp(), log_p.exp(), atol=1e-4)
    # a network that says it in either way
    for reading, out in (("probabilities", log_p - factor.clamp_min(-50)), ("ratios", found[..., :K].log())):
        again = TOKEN_READINGS[reading].log_probs(kernel, codes, out, level, factor)
        assert torch.allclose(again.exp(), log_p.exp(), atol=1e-4)


@pytest.mark.parametrize(("name", "kernel"), [(n, k) for n in TOKEN_OBJECTIVES for k in KERNELS])
def test_objectives_of_the_true_law(name: str, kernel: str) -> None:
    """Bounds equal the entropy, that in steps comes down to it; another law's are above; the hybrid is above both."""
    if name == "masked-bound" and kernel != "absorbing":
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
    if name in ("masked-bound", "score-entropy"):
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


@pytest.mark.parametrize(("stepper", "kernel"), WAYS)
def test_samples_have_the_law_as_steps_grow(stepper: Any, kernel: Kernel) -> None:
    model, n = law(kernel), 2000
    last = end(draw_tokens(model, n, stepper, steps=96, seed=2))
    assert chi_square(model.codes(last.x), model.table) < 5
    few = end(draw_tokens(model, n, stepper, steps=1, seed=2))
    if stepper.calls is None:  # exact in any number
        assert chi_square(model.codes(few.x), model.table) < 5
    else:
        assert chi_square(model.codes(few.x), model.table) > 20
        assert last.calls == 95 * stepper.calls + 1


@pytest.mark.parametrize(("stepper", "kernel"), WAYS)
def test_a_constant_denoiser_is_drawn_as_it_is_in_any_number_of_steps(stepper: Any, kernel: Kernel) -> None:
    table = torch.zeros(K, K, dtype=torch.float64)
    table[2, 1] = 1.0
    model = TokenTable(table, kernel)
    for steps in (1, 2, 3, 10):
        codes = model.codes(end(draw_tokens(model, 5, stepper, steps=steps, seed=0)).x)
        assert bool((codes == torch.tensor([2, 1])).all())


@pytest.mark.parametrize(("stepper", "kernel"), WAYS)
def test_a_row_does_not_depend_on_its_batch_and_what_is_known_stays(stepper: Any, kernel: Kernel) -> None:
    model, n = law(kernel), 4000
    seeds = torch.arange(5) + 77
    together = end(draw_tokens(model, 5, stepper, steps=4, seeds=seeds)).x
    alone = torch.cat([end(draw_tokens(model, 1, stepper, steps=4, seeds=seeds[i : i + 1])).x for i in range(5)])
    assert torch.equal(together, alone)
    known = model.categories.one_hot(torch.tensor([[-1, 1]]).expand(n, 2))
    codes = model.codes(end(draw_tokens(model, n, stepper, steps=24, seed=5, x=known)).x)
    assert bool((codes[:, 1] == 1).all())
    given = model.table[:, 1] / model.table[:, 1].sum()
    found = torch.bincount(codes[:, 0], minlength=K) / n
    assert bool(((found - given).abs() <= 5 * (given * (1 - given) / n).sqrt()).all())


def test_guidance_is_the_tilted_law() -> None:
    """Of one token: p(x given y)^scale p(x)^(1 - scale), by two laws that the condition tells apart."""
    free, given = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.1, 0.3, 0.6]))

    class Either(TokenDenoiser):
        process, categories = Absorbing(), TokenTable(free, Absorbing()).categories
        device = torch.device("cpu")

        def log_probs(self, codes: Tensor, level: Any, condition: Condition, known: Any = None) -> Tensor:
            of = TokenTable(given if condition.parts else free, Absorbing())
            return of.log_probs(codes, level, Condition.of(None), known)

    n = 20_000
    condition = {"label": torch.zeros(n, dtype=torch.int64)}
    for scale in (0.0, 1.0, 2.5):
        wanted = given**scale * free ** (1 - scale)
        wanted = wanted / wanted.sum()
        stepper = TOKEN_STEPPERS["first-hitting"]()
        last = end(draw_tokens(Tilted(Either(), scale), n, stepper, steps=1, seed=0, condition=condition))
        found = torch.bincount(Either().codes(last.x)[:, 0], minlength=3) / n
        assert bool(((found - wanted).abs() <= 5 * (wanted * (1 - wanted) / n).sqrt()).all())


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
