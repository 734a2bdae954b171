"""Laws of the one walk: any state, down and up, with gradients and without."""

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from laws import PROCESSES, mixture, refused
from sure import there

from ornstein import VP, Flow, sample
from ornstein.core.condition import Condition
from ornstein.core.walk import Asked, end, walk
from ornstein.distill.solver import _spread, _top, _Unknowns, starting_noise
from ornstein.samplers.tuned import Tuned

F64 = torch.float64


@dataclass(frozen=True)
class Moment:
    """A level of two parts that dissolve by clocks of their own: a category is kept with probability alpha.

    Otherwise it is drawn anew from all K: q(x_t given x_0) = alpha x_0 + (1 - alpha)/K.
    """

    t: float

    @property
    def alpha(self) -> Any:
        return {"colour": math.exp(-2 * self.t**2), "form": math.cos(1.4 * self.t) ** 2}

    @property
    def rate(self) -> Any:
        """The derivatives of alpha by t."""
        return {"colour": -4 * self.t * math.exp(-2 * self.t**2), "form": -1.4 * math.sin(2.8 * self.t)}


def levels(n: Any, falling: Any = True) -> Any:
    found = [Moment(k / n) for k in range(n + 1)]
    return found[::-1] if falling else found


def likelihood(alpha: Any, k: Any) -> Any:
    """q(x_t given x_0) as a matrix (K, K), a row for each x_0."""
    return alpha * torch.eye(k, dtype=F64) + (1 - alpha) / k


# what the two parts are at time 0, together: neither tells the other, and neither leaves it alone
JOINT = torch.tensor([[0.3, 0.05, 0.0, 0.05], [0.0, 0.2, 0.1, 0.0], [0.05, 0.0, 0.05, 0.2]], dtype=F64)


def exact(x: Any, level: Any) -> Any:
    """The class probabilities of each part given both, by Bayes' rule over all pairs of categories."""
    colour, form = (
        likelihood(level.alpha[part], k)[:, x[part]].T for part, k in zip(("colour", "form"), JOINT.shape, strict=True)
    )
    joint = JOINT * colour[:, :, None] * form[:, None, :]
    joint = joint / joint.sum((1, 2), keepdim=True)
    return SimpleNamespace(x0={"colour": joint.sum(2), "form": joint.sum(1)})


def ancestral(generator: Any) -> Any:
    """Each part from q(x_s given x_t, x_0), x_0 mixed by what the model says of it; memory counts the steps."""

    def step(ask: Any, x: Any, t: Any, s: Any, memory: Any) -> Any:
        x0, after = ask(x, t).x0, {}
        for part, now in x.items():
            k = x0[part].shape[1]
            onwards = likelihood(t.alpha[part] / s.alpha[part], k)
            # over x_0, x_s: q(x_s given x_0) q(x_t given x_s)/q(x_t given x_0)
            posterior = likelihood(s.alpha[part], k) * onwards[:, now].T[:, None, :]
            posterior = posterior / likelihood(t.alpha[part], k)[:, now].T[:, :, None]
            law = (x0[part][:, :, None] * posterior).sum(1)
            after[part] = torch.multinomial(law, 1, generator=generator)[:, 0]
        return after, (memory or 0) + 1

    def finish(ask: Any, x: Any, t: Any, memory: Any) -> Any:
        assert memory == 63
        return {part: torch.multinomial(law, 1, generator=generator)[:, 0] for part, law in ask(x, t).x0.items()}

    return step, finish


def test_a_table_of_categories_is_drawn_with_its_joint_law() -> None:
    """Two categorical parts in a dict, from noise down, by their exact denoiser: no state of numbers."""
    n, count, g = 64, 20_000, torch.Generator().manual_seed(0)
    # at the top something of the data is left: the walk starts from the law there, not from pure noise
    top = Moment(1.0)
    law = torch.einsum(
        "ij,ia,jb->ab", JOINT, likelihood(top.alpha["colour"], 3), likelihood(top.alpha["form"], 4)
    ).flatten()
    pairs = torch.multinomial(law, count, replacement=True, generator=g)
    start = {"colour": pairs // 4, "form": pairs % 4}
    ask, (step, finish) = Asked(exact), ancestral(g)
    states = list(walk(ask, start, levels(n), step, finish))
    assert [state.step for state in states] == list(range(n + 1))
    assert [state.t for state in states] == [level.t for level in levels(n)]
    assert [state.calls for state in states] == list(range(n + 1)) == list(range(ask.calls + 1))
    assert states[0].x is start
    assert states[-1].x0 is states[-1].x
    assert all(torch.equal(s.x0["form"], exact(s.x, Moment(s.t)).x0["form"]) for s in states[:3])
    drawn = states[-1].x
    found = torch.bincount(4 * drawn["colour"] + drawn["form"], minlength=12) / count
    # the parts step apart, which is off by a share of a step; 4 standard errors beside it
    error = (found.reshape(3, 4) - JOINT).abs()
    assert bool((error <= 0.2 / n + 4 * (JOINT / count).sqrt()).all()), error


def flow(order: Any) -> Any:
    """The law of each part carried along, dp/dt = alpha' (x_0 - 1/K), by Euler's or Heun's rule, in either direction.

    The exact denoiser of a law is the law it came from, x_0 = (p - (1 - alpha)/K)/alpha.
    """

    def slope(ask: Any, x: Any, level: Any) -> Any:
        x0 = ask(x, level).x0
        return {part: level.rate[part] * (x0[part] - 1 / x0[part].shape[1]) for part in x}

    def step(ask: Any, x: Any, t: Any, s: Any, memory: Any) -> Any:
        h, first = s.t - t.t, slope(ask, x, t)
        after = {part: x[part] + h * first[part] for part in x}
        if order == 2:
            second = slope(ask, after, s)
            after = {part: x[part] + h / 2 * (first[part] + second[part]) for part in x}
        return after, memory

    return step


def undissolved(x: Any, level: Any) -> Any:
    return SimpleNamespace(
        x0={part: (p - (1 - level.alpha[part]) / p.shape[1]) / level.alpha[part] for part, p in x.items()}
    )


@pytest.mark.parametrize("order", [1, 2])
def test_up_and_down_again_comes_back_to_the_order_of_the_method(order: Any) -> None:
    """Upward no step is unlike the others; downward the same levels, and the same walk, in reverse."""
    g = torch.Generator().manual_seed(0)
    start = {part: torch.rand(5, k, generator=g, dtype=F64).softmax(1) for part, k in (("colour", 3), ("form", 4))}
    forth, back = [], []
    for n in (80, 160, 320):
        up = Asked(undissolved)
        above = end(walk(up, start, levels(n, falling=False), flow(order)))
        assert (above.step, above.t, up.calls) == (n, 1.0, order * n)
        assert above.x0 is there(up.first).x0  # of the last step: the end itself was not asked about
        exactly = {part: Moment(1.0).alpha[part] * (p - 1 / p.shape[1]) + 1 / p.shape[1] for part, p in start.items()}
        forth.append(max(float((above.x[part] - exactly[part]).abs().max()) for part in start))
        down = end(walk(Asked(undissolved), above.x, levels(n), flow(order)))
        back.append(max(float((down.x[part] - start[part]).abs().max()) for part in start))
    # of a method of even order the first error of a step is undone by the step back
    for errors, expected in ((forth, order), (back, {1: 1, 2: 3}[order])):
        for coarse, fine in pairwise(errors):
            assert math.log2(coarse / fine) == pytest.approx(expected, abs=0.1), errors


def test_the_end_of_a_walk_can_be_differentiated_by_its_levels() -> None:
    """x -> x + (s - t) x0 with x0 = a x: the end is the product of 1 + h a, and its slope by a level is known."""
    t = torch.tensor([0.9, 0.5, 0.2], dtype=F64, requires_grad=True)
    a, x = torch.tensor(-0.7, dtype=F64, requires_grad=True), torch.tensor(2.0, dtype=F64)

    def step(ask: Any, x: Any, t: Any, s: Any, memory: Any) -> Any:
        return x + (s.t - t.t) * ask(x, t).x0, None

    moments = [SimpleNamespace(t=each) for each in t]
    first, second = 1 + (t[1] - t[0]) * a, 1 + (t[2] - t[1]) * a
    ask: Asked[Any, Any, SimpleNamespace] = Asked(lambda x, level: SimpleNamespace(x0=a * x))
    with torch.no_grad():  # it is the walk that says so, not whoever waits for it
        last = end(walk(ask, x, moments, step, gradients=True))
    assert torch.equal(last.x, 2 * first * second)
    found = torch.autograd.grad(last.x, [t, a])
    given = torch.autograd.grad(2 * first * second, [t, a])
    torch.testing.assert_close(found, given, rtol=1e-14, atol=0)
    assert not end(walk(ask, x, moments, step)).x.requires_grad
    assert torch.is_grad_enabled()


def test_what_is_no_walk_is_refused() -> None:
    ask: Asked[Any, Any, SimpleNamespace] = Asked(lambda x, level: SimpleNamespace(x0=x))
    refused(lambda: end(walk(ask, 1.0, levels(1)[:1], flow(1))), "levels", "1", "two")
    refused(lambda: end(walk(ask, 1.0, levels(3), lambda ask, x, t, s, memory: (x, None))), "step 0", "ask(x, t)")
    # an answer of the step before is none of this step's
    heard: list[Any] = []

    def once(ask: Any, x: Any, t: Any, s: Any, memory: Any) -> Any:
        if not heard:
            heard.append(ask(x, t))
        return None, None

    refused(lambda: end(walk(ask, 1.0, levels(3), once)), "step 1")


TUNED = {
    "plain": Tuned((1.0, 0.6, 0.3, 0.0), (0.02, -0.01), ((0.9,), (-0.3, 1.2), (0.1, -0.4, 1.3))),
    "leaning": Tuned(
        (1.0, 0.6, 0.3, 0.0),
        (0.02, -0.01),
        ((0.9,), (-0.3, 1.2), (0.1, -0.4, 1.3)),
        (((0.1, -0.2, 0.3), (-0.05, 0.1, 0.2)), ((0.3, -0.1), (0.2, 0.4))),
    ),
}


@pytest.mark.parametrize("process", [VP(), Flow(t_max=0.98), PROCESSES["cosine"]], ids=repr)
@pytest.mark.parametrize("tuned", TUNED.values(), ids=TUNED)
def test_a_solver_is_fitted_as_it_draws(process: Any, tuned: Any) -> None:
    """Where it arrives while its numbers are unknowns is where it draws, to rounding; its slopes are differences'."""
    grid = tuple(t * process.t_max * 0.97 for t in tuned.grid)
    tuned = Tuned(grid, tuned.drift, tuned.weights, tuned.leanings)
    den = mixture().denoiser(process)
    unknowns = _Unknowns(den, process, 3)
    vector = unknowns.of(tuned, bool(tuned.leanings)).requires_grad_()
    noise = starting_noise(den, (30, 2), 0, F64) / _spread(den, _top(den))
    found = unknowns.arrive(den, noise, vector, Condition())
    again = unknowns.tuned(vector.detach())
    given = sample(den, (30, 2), stepper=again, grid=again.grid, seed=0, dtype=F64)
    torch.testing.assert_close(found.detach(), given, rtol=1e-12, atol=1e-12)

    def value(at: Any) -> Any:
        return float(unknowns.arrive(den, noise, at, Condition()).square().sum())

    (slopes,) = torch.autograd.grad(found.square().sum(), vector)
    h = 1e-5
    for k, slope in enumerate(slopes.tolist()):
        unit = torch.zeros_like(slopes)
        unit[k] = h
        difference = (value(vector.detach() + unit) - value(vector.detach() - unit)) / (2 * h)
        assert slope == pytest.approx(difference, rel=1e-5, abs=1e-4), k
