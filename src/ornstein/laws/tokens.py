"""Laws of kernels, readings, objectives and steppers of tokens, against distributions of few tokens in closed form.

The oracle is a table of the probability of every row (`ornstein.discrete.TokenTable`): its posterior is a sum over
rows, and draws can be counted and compared with it.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.walk import end
from ornstein.discrete import KERNELS, Kernel, TokenDenoiser, TokenObjective, TokenStepper, TokenTable, draw_tokens
from ornstein.discrete.readings import TokenReading, from_rates, from_ratios, rates, ratios
from ornstein.discrete.tokens import told
from ornstein.errors import InputError
from ornstein.laws.broken import hold, near

F64 = torch.float64
#: tokens of a row and classes of each, where all rows are enumerated
T, K = 2, 3
#: how many rows are drawn where draws are counted
DRAWS = 100_000
_DEPENDENT = torch.tensor([[0.30, 0.02, 0.03], [0.05, 0.20, 0.02], [0.02, 0.08, 0.28]], dtype=F64)


def law(kernel: Kernel, dependent: float = 1.0) -> TokenTable:
    """Two tokens that depend on each other, in all rows or only in the share `dependent` of them."""
    apart = _DEPENDENT.sum(1, keepdim=True) * _DEPENDENT.sum(0)
    return TokenTable(dependent * _DEPENDENT + (1 - dependent) * apart, kernel)


def alike(kernel: Kernel, classes: int = 4, tokens: int = 6, held: float = 0.2) -> TokenTable:
    """Longer rows, in which each token is that before it, or else drawn anew, low classes being commoner.

    Args:
        held: the probability that a token is that before it; 0 for tokens that do not depend on each other.
    """
    anew = torch.arange(2 * classes, classes, -1, dtype=F64)
    anew = anew / anew.sum()
    onward, table = held * torch.eye(classes, dtype=F64) + (1 - held) * anew, anew
    for _ in range(tokens - 1):
        table = table[..., None] * onward
    return TokenTable(table, kernel)


def rows(size: int = K, tokens: int = T) -> Tensor:
    """Every possible row, (size^tokens, tokens)."""
    return torch.cartesian_prod(*[torch.arange(size)] * tokens).reshape(-1, tokens)


def matrix(kernel: Kernel, classes: int, a: float) -> Tensor:
    """Q(a), (S, S)."""
    return kernel.log_rows(torch.arange(kernel.states(classes))[None], classes, a)[0].double().exp()


def chi_square(codes: Tensor, table: Tensor) -> float:
    """Chi-square of draws (N, T) against a table, minus its degrees of freedom, in its standard deviations."""
    flat = (codes * torch.tensor([table.shape[0] ** i for i in reversed(range(table.ndim))])).sum(1)
    found, expected = torch.bincount(flat, minlength=table.numel()).double(), table.flatten() * len(codes)
    free = table.numel() - 1
    return float((((found - expected).square() / expected).sum() - free) / (2 * free) ** 0.5)


# ----------------------------------------------------------------------------------------------------- kernels


def its_rows_are_laws_in_float32(kernel: Kernel) -> None:
    """Rows of Q(a) sum to one and stay in [0, 1], for 2 to 1,000 classes; its stationary law is stationary."""
    for classes in (2, 27, 1000):
        states = kernel.states(classes)
        codes = torch.tensor([sorted({0, 1, classes // 2, classes - 1, states - 1})])
        rest = kernel.log_stationary(classes).exp()
        near(f"the stationary law's sum, {classes} classes,", rest.sum(), 1.0, atol=1e-9)
        for a in (0.0, 1e-3, 0.5, 0.999, 1.0):
            what = f"of {classes} classes at a = {a},"
            found, columns = kernel.log_rows(codes, classes, a), kernel.log_columns(codes, classes, a)
            hold(found.dtype == torch.float32, f"a row {what} is {found.dtype}; it must be float32.")
            hold(found.max() <= 1e-6, f"a row {what} has a probability of exp({float(found.max()):.3g}).")
            near(f"log of the sum of a row {what}", found.logsumexp(-1), 0.0, atol=1e-5)
            near(f"a column {what}", columns[0, :, codes[0]].exp(), found[0, :, codes[0]].T.exp(), atol=1e-6)
            near(f"the stationary law after a step {what}", columns[0].double().exp() @ rest, rest[codes[0]], atol=1e-6)
            if a == 0:
                near(f"a row {what}", found[0].double().exp(), rest.expand(len(found[0]), -1), atol=1e-6)
            if a == 1:
                near(f"a row {what}", found[0].exp(), torch.eye(states)[codes[0]], atol=1e-6)


def its_steps_multiply(kernel: Kernel) -> None:
    """Q(a) Q(b) = Q(ab); `rates_to` is its derivative, `log_spread` multiplies by it and `inverse` undoes that."""
    near("Q(0.6) Q(0.5)", matrix(kernel, 5, 0.6) @ matrix(kernel, 5, 0.5), matrix(kernel, 5, 0.3), atol=1e-6)
    h, states = 1e-3, torch.arange(kernel.states(5))
    found = kernel.rates_to(states[None], 5)[0].double().T
    moved = matrix(kernel, 5, math.exp(-h)) / h
    near("a rate", found, moved - moved.diag().diag(), atol=2e-2 * float(found.max()))
    p = torch.rand(2, 3, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    spread = kernel.log_spread(p.log(), 0.4).exp()
    near("p Q(0.4)", spread, p @ matrix(kernel, 5, 0.4)[:5], atol=1e-6)
    near("what p Q(0.4) comes from", kernel.inverse(spread[..., :5], 0.4), p, atol=1e-5)


def its_chain_has_its_marginals(kernel: Kernel) -> None:
    """Sixty-four small steps drawn one by one have the distribution of one large step, at three times."""
    n, classes, dice = 20_000, 6, torch.Generator().manual_seed(0)
    levels = kernel.levels(torch.linspace(0, kernel.t_max, 65, dtype=F64))
    codes = torch.ones(n, dtype=torch.int64)
    for number, (s, t) in enumerate(pairwise(levels), 1):
        step = matrix(kernel, classes, t.alpha / s.alpha)
        codes = (step.cumsum(1)[codes] < torch.rand(n, 1, generator=dice)).sum(1).clamp_max(len(step) - 1)
        if number in (8, 32, 64):
            expected = matrix(kernel, classes, t.alpha)[1]
            found, error = torch.bincount(codes, minlength=len(expected)) / n, (expected * (1 - expected) / n).sqrt()
            off = float(((found - expected).abs() - 5 * error).max())
            hold(off <= 1e-9, f"after {number} of 64 steps a share is off by {off:.3g} more than chance allows.")


def its_posterior_is_bayes_rule(kernel: Kernel) -> None:
    """q(x_s given x_t) is the sum over x_0 by enumeration, for every state."""
    classes, t, s = 5, kernel.at(0.7 * kernel.t_max), kernel.at(0.4 * kernel.t_max)
    to_s, from_s = matrix(kernel, classes, s.alpha), matrix(kernel, classes, t.alpha / s.alpha)
    p = torch.rand(classes, dtype=F64, generator=torch.Generator().manual_seed(3)) ** 2
    for xt in range(kernel.states(classes)):
        joint = to_s[:classes] * from_s[:, xt]  # q(x_s, x_t given x_0)
        able = joint.sum(1) > 0
        known = torch.where(able, p, 0.0)
        known = known / known.sum()
        bayes = (joint[able] / joint[able].sum(1, keepdim=True) * known[able, None]).sum(0)
        found = kernel.log_posterior(torch.tensor([[xt]]), known.log()[None, None], t, s)[0, 0].exp()
        near(f"q(x_s given x_t = {xt})", found, bayes, atol=1e-5)


def its_ratios_are_those_of_the_marginals(kernel: Kernel) -> None:
    """Ratios of two tokens agree with the closed form; ratios and rates give back the probabilities."""
    model, level = law(kernel), kernel.at(0.45 * kernel.t_max)
    step = matrix(kernel, K, level.alpha)
    marginal = torch.einsum("ab,ax,by->xy", model.table, step[:K], step[:K])
    codes = rows(kernel.states(K))
    log_p = model.log_probs(codes, level, Condition.of(None))
    found = ratios(kernel, codes, log_p, level).exp()
    exact = marginal[:, codes[:, 1]].T / marginal[codes[:, 0], codes[:, 1]][:, None]
    reached = kernel.rates_to(codes, K)[:, 0] > 0  # ratios without a rate are not used
    near("a ratio of marginals", found[:, 0][reached], exact[reached], rtol=1e-4)
    factor = told(kernel, codes, K, level, None).double()
    near("p by its ratios", from_ratios(kernel, codes, found, level, factor).exp(), log_p.exp(), atol=1e-4)
    turned, there = rates(kernel, codes, log_p, level), kernel.rates_to(codes, K)[..., :K]
    if not kernel.masks and bool(((there > 0).sum(-1) < K - 1).any()):
        return  # rates say nothing of a class without a jump to the present state
    near("p by its rates", from_rates(kernel, codes, turned, level, factor).exp(), log_p.exp(), atol=1e-4)


# ---------------------------------------------------------------------------------------------------- readings


def gives_back_the_posterior_that_it_says(reading: TokenReading) -> None:
    """The output that stands for a posterior is read as that posterior, for every kernel, row and level."""
    for name, make in KERNELS.items():
        kernel = make()
        codes = rows(kernel.states(K))
        for share in (0.2, 0.6, 0.9):
            level = kernel.at(share * kernel.t_max)
            log_p = law(kernel).log_probs(codes, level, Condition.of(None))
            factor = told(kernel, codes, K, level, None).double()
            said = reading.said(kernel, codes, log_p, level, factor)
            again = reading.log_probs(kernel, codes, said, level, factor)
            near(f"p on {name}", again.exp(), log_p.exp(), atol=1e-4)


def says_a_law_whatever_the_network_says(reading: TokenReading) -> None:
    """Any output is read as probabilities, which are zero for classes that the noisy token rules out."""
    dice = torch.Generator().manual_seed(0)
    for name, make in KERNELS.items():
        kernel = make()
        codes, level = rows(kernel.states(K)), kernel.at(0.5 * kernel.t_max)
        factor = told(kernel, codes, K, level, None)
        found = reading.log_probs(kernel, codes, 3 * torch.randn(*factor.shape, generator=dice), level, factor)
        near(f"log of the sum of p on {name}", found.logsumexp(-1), 0.0, atol=1e-5)
        hold((found[factor == -torch.inf] == -torch.inf).all(), f"on {name} p allows classes that are impossible.")


# -------------------------------------------------------------------------------------------------- objectives


def _kernels_of(objective: TokenObjective) -> dict[str, Kernel]:
    """The kernels that it suits."""
    found = {}
    for name, make in KERNELS.items():
        try:
            objective.must_suit(make())
        except InputError:
            continue
        found[name] = make()
    hold(bool(found), "it suits no kernel.")
    return found


def is_least_of_the_true_law(objective: TokenObjective) -> None:
    """The true distribution of the data has a smaller loss than a uniform one, and than one that is too sure."""
    for name, kernel in _kernels_of(objective).items():
        true = law(kernel).table
        sharp = true**2 / (true**2).sum()
        own = _loss(objective, true, kernel)
        hold(math.isfinite(own), f"on {name} the loss of the true law is {own}.")
        for what, other in (("uniform", torch.full_like(true, 1 / true.numel())), ("squared", sharp)):
            apart = _loss(objective, other, kernel)
            hold(apart > own, f"on {name} the true law has a loss of {own:.5g}, the {what} one {apart:.5g}.")


def _loss(objective: TokenObjective, table: Tensor, kernel: Kernel) -> float:
    """The loss of a model that is this table, on data of the law."""
    model, weight = TokenTable(table, kernel), law(kernel).table.flatten()
    x0 = model.categories.one_hot(rows()).repeat_interleave(500, 0)
    found = objective(model, x0, None, torch.Generator().manual_seed(0)).double()
    hold(found.shape == (len(x0),), f"the loss of {len(x0)} rows has shape {tuple(found.shape)}.")
    return float((found.reshape(len(weight), -1).mean(1) * weight).sum())


def draws_from_its_generator_alone(objective: TokenObjective) -> None:
    """The same generator gives the same bits; torch's global random state does not change."""
    kernel = next(iter(_kernels_of(objective).values()))
    model = law(kernel)
    x0, state = model.categories.one_hot(rows()), torch.get_rng_state()
    first, again = (objective(model, x0, None, torch.Generator().manual_seed(1)) for _ in range(2))
    hold(torch.equal(first, again), "the same generator gives another loss.")
    hold(torch.equal(state, torch.get_rng_state()), "it draws from torch's global random state.")


# ---------------------------------------------------------------------------------------------------- steppers


def kernels_for(stepper: TokenStepper) -> dict[str, Kernel]:
    """The kernels with which a stepper works."""
    return {name: make() for name, make in KERNELS.items() if make().masks or not stepper.masks}


def _last(model: TokenDenoiser, n: int, stepper: TokenStepper, steps: int, **how: Any) -> Tensor:
    return model.codes(end(draw_tokens(model, n, stepper, steps=steps, **how)).x)


def draws_what_is_certain(stepper: TokenStepper) -> None:
    """Data that are always the same row come out as that row, in any number of steps from 1."""
    table = torch.zeros(K, K, dtype=F64)
    table[2, 1] = 1.0
    for name, kernel in kernels_for(stepper).items():
        for steps in (1, 2, 3, 10):
            codes = _last(TokenTable(table, kernel), 5, stepper, steps, seed=0)
            hold((codes == torch.tensor([2, 1])).all(), f"on {name} in {steps} steps a row is {codes[0].tolist()}.")


def draws_each_row_by_its_seed_alone(stepper: TokenStepper) -> None:
    """A batch equals its rows one by one, and the same seed gives the same rows."""
    seeds = torch.arange(5) + 77
    for name, kernel in kernels_for(stepper).items():
        model = law(kernel)
        together = _last(model, 5, stepper, 4, seeds=seeds)
        alone = torch.cat([_last(model, 1, stepper, 4, seeds=seeds[i : i + 1]) for i in range(5)])
        hold(torch.equal(together, alone), f"on {name} a row is different when it is drawn alone.")
        hold(torch.equal(together, _last(model, 5, stepper, 4, seeds=seeds)), f"on {name} a seed gives other rows.")


def draws_the_law(stepper: TokenStepper, draws: int = DRAWS, steps: int = 64) -> None:
    """With many steps it draws the law: chi-square over all rows, of 10^5 draws, within five standard deviations."""
    for name, kernel in kernels_for(stepper).items():
        model = law(kernel, dependent=0.15)
        off = chi_square(_last(model, draws, stepper, steps, seed=2), model.table)
        hold(abs(off) < 5, f"on {name} {draws:,} rows in {steps} steps are {off:.1f} standard deviations off.")


def fills_in_what_is_not_known(stepper: TokenStepper, draws: int = DRAWS // 5, steps: int = 64) -> None:
    """Known tokens are returned as they are, and the others have their distribution given these."""
    for name, kernel in kernels_for(stepper).items():
        off = filled(law(kernel), stepper, draws, steps)
        hold(abs(off) < 5, f"on {name} filled tokens are {off:.1f} standard deviations from their distribution.")


def filled(model: TokenTable, stepper: TokenStepper, draws: int, steps: int) -> float:
    """`chi_square` of every other token, the first among them, given that those between are of class 1."""
    between = [-1, 1] * (model.table.ndim // 2)
    known = model.categories.one_hot(torch.tensor([between]).expand(draws, -1))
    codes = _last(model, draws, stepper, steps, seed=5, x=known)
    hold((codes[:, 1::2] == 1).all(), "a known token has changed in the end.")
    given = model.table[tuple(slice(None) if code < 0 else code for code in between)]
    return chi_square(codes[:, ::2], given / given.sum())


def _named(*laws: Callable[..., None]) -> dict[str, Callable[..., None]]:
    return {law.__name__.replace("_", "-"): law for law in laws}


KERNEL_LAWS = _named(
    its_rows_are_laws_in_float32,
    its_steps_multiply,
    its_chain_has_its_marginals,
    its_posterior_is_bayes_rule,
    its_ratios_are_those_of_the_marginals,
)
READING_LAWS = _named(gives_back_the_posterior_that_it_says, says_a_law_whatever_the_network_says)
OBJECTIVE_LAWS = _named(is_least_of_the_true_law, draws_from_its_generator_alone)
STEPPER_LAWS = _named(
    draws_what_is_certain, draws_each_row_by_its_seed_alone, draws_the_law, fills_in_what_is_not_known
)
