"""Laws of every stepper: what it must return exactly, what samples may depend on, and that its facts are true."""

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ornstein.core.clocks import VP
from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.drive import Stepper, trajectory
from ornstein.core.process import Level, Process
from ornstein.laws import convergence
from ornstein.laws.broken import hold
from ornstein.laws.oracles import different, grid_of, grids_of, mixture
from ornstein.samplers import sample

F64 = torch.float64
C = torch.tensor([0.7, -1.3], dtype=F64)


def counts(process: Process, grid: str) -> list[int]:
    """The step counts to try: a few, ten, and for a chain that is not too long all its levels."""
    some = (1, 2, 3, 4, 10) if grid in ("flow", "trailing") else (1, 3, 10)
    whole = [process.chain] if process.chain and process.chain <= 50 and grid_of(process, 10, grid) is None else []
    return [n for n in some if grid_of(process, n, grid) is not None] + whole


def both_oracles(process: Process) -> FunctionDenoiser:
    """Rows 0 and 1: data that are always C. Rows 2 to 4: data from N(0, 0.49)."""

    def answer(x: Tensor, level: Level, condition: Any) -> Tensor:
        gain = 0.49 * level.alpha / (0.49 * level.alpha**2 + level.sigma**2)
        return torch.cat([C.to(x).expand(2, 2), (gain * x)[2:]])

    return FunctionDenoiser(answer, process)


def walk_of_constant_data(process: Process, stepper: Stepper, grid: str | None, steps: int) -> None:
    """One walk: finite states at the given times; constant data come out exactly; calls as declared."""
    given = grid_of(process, steps, grid)
    assert given is not None
    blind = process.at(given[0].item()).alpha == 0.0
    # by its name, where it has one: the levels of a named grid are kept from walk to walk
    walk = trajectory(both_oracles(process), (5, 2), stepper=stepper, steps=steps, grid=grid or given, seed=3)
    what = f"{stepper} on {process}, grid={grid!r}, steps={steps}"
    states = list(walk)
    hold(len(given) == len(states) == steps + 1, f"{what}: {len(states)} states; there must be {steps + 1}.")
    hold([state.step for state in states] == list(range(steps + 1)), f"{what}: the steps are not counted in order.")
    hold([state.t for state in states] == given.tolist(), f"{what}: the states are not at the times of the grid.")
    for state in states:
        fine = state.x.isfinite().all() and state.x0.isfinite().all()
        hold(fine, f"{what}: not finite after {state.step} steps, at t = {state.t:.3g}.")
    c = C.float().expand(2, 2)
    got = states[-1].x[:2]
    hold(
        torch.equal(got, c),
        f"{what}: data that are always {C.tolist()} come out as {got[0].tolist()}; they must be exact.",
    )
    hold(all(torch.equal(s.x0[:2], c) for s in states), f"{what}: State.x0 is not what the denoiser answers.")
    if stepper.calls is None or stepper.last_calls is None:
        return
    spent = [b.calls - a.calls for a, b in itertools.pairwise(states)]
    expected = [stepper.calls] * (steps - 1) + [stepper.last_calls]
    if given[-2] and process.at(given[-2].item()).alpha == 0.0:
        expected[-1] = 1  # from no signal only the denoising step is made
    if blind and steps > 1:
        # from no signal at all, a method may fall back on a simpler one
        hold(spent[0] <= stepper.calls, f"{what}: {spent[0]} calls in the first step; {stepper.calls} are declared.")
        spent, expected = spent[1:], expected[1:]
    hold(spent == expected, f"{what}: {spent} calls a step; {expected} are declared.")


def walks_on_every_grid(process: Process, stepper: Stepper) -> None:
    """Constant data come out exactly on every grid of a process, in few steps and in ten."""
    walked = set[tuple[float, ...]]()
    for grid in grids_of(process):
        # steppers with many calls in a step, or any number of them, are walked on one grid only
        if (stepper.calls or 30) <= 5 or grid in ("flow", "trailing"):
            for steps in counts(process, grid):
                given = grid_of(process, steps, grid)
                assert given is not None
                times = tuple(given.tolist())
                if times not in walked:  # one step, for instance, is the same on most grids
                    walk_of_constant_data(process, stepper, grid, steps)
                walked.add(times)


def returns_constant_data(stepper: Stepper) -> None:
    """Data that are always c come out as exactly c: on every process and grid, in 1, 2, 3, 4 and 10 steps."""
    for process in different().values():
        walks_on_every_grid(process, stepper)


def linear(process: Process) -> FunctionDenoiser:
    """An element-wise denoiser without a matrix product, so that its bits do not depend on the batch."""
    return FunctionDenoiser(lambda x, level, condition: 0.3 * x - 0.1, process)


def depends_on_its_seed_alone(stepper: Stepper) -> None:
    """A batch equals its samples one by one; same seed, same bits; nothing is kept from one call to the next."""
    p = VP()

    def draw(shape: tuple[int, ...] = (3, 2, 5), steps: int = 6, **how: Any) -> Tensor:
        return sample(linear(p), shape, stepper=stepper, steps=steps, **how)

    state = torch.get_rng_state()
    whole = draw(seed=11)
    hold(torch.equal(whole, draw(seed=11)), "the same seed gives other bits.")
    draw((2, 7), 3, seed=5)  # another shape in between
    hold(torch.equal(whole, draw(seed=11)), "a walk of another shape in between changes the samples of a seed.")
    seeds = (11 << 32) + torch.arange(3)
    hold(torch.equal(whole, draw(seeds=seeds)), "seeds given one by one do not agree with the seed for all.")
    for i in range(3):
        one = draw((1, 2, 5), seeds=[int(seeds[i])])
        hold(torch.equal(whole[i : i + 1], one), f"sample {i} of a batch is different when it is drawn alone.")
    hold(not torch.equal(whole, draw(seed=12)), "another seed gives the same samples.")
    hold(len(whole.flatten(1).unique(dim=0)) == 3, "two samples of a batch are the same.")
    # two walks interleaved do not disturb each other
    walks = [trajectory(linear(p), (3, 2, 5), stepper=stepper, steps=6, seed=seed) for seed in (11, 12)]
    for a, _ in zip(*walks, strict=True):
        last = a
    hold(torch.equal(last.x, whole), "two interleaved walks disturb each other: the stepper keeps a state.")
    # starting from the noise that a seed would have drawn changes nothing
    first = next(trajectory(linear(p), (3, 2, 5), stepper=stepper, steps=6, seed=11)).x
    hold(torch.equal(whole, draw(seed=11, x=first)), "starting from a seed's own noise changes its samples.")
    hold(torch.equal(state, torch.get_rng_state()), "it draws from torch's global random state, not from its noise.")


def single_precision_follows_double(process: Process, stepper: Stepper) -> None:
    """The same seed in float32 and float64 gives the same up to rounding, which does not grow."""
    given, mix = grid_of(process, 6), mixture()
    single, double = (
        list(trajectory(mix.denoiser(process), (16, 2), stepper=stepper, grid=given, seed=6, dtype=dtype))
        for dtype in (torch.float32, F64)
    )
    for states, dtype in ((single, torch.float32), (double, F64)):
        got = states[-1].x.dtype
        hold(got == dtype, f"{stepper} on {process}: samples requested in {dtype} come in {got}.")
    for a, b in zip(single, double, strict=True):
        off, size = float((a.x - b.x).abs().max()), max(1.0, float(b.x.abs().max()))
        hold(off < 3e-5 * size, f"{stepper} on {process}: float32 is off by {off:.2g} after {a.step} steps.")


def needs_no_double_precision(stepper: Stepper) -> None:
    """On every process, six steps in float32 agree with those in float64 up to rounding."""
    for process in different().values():
        single_precision_follows_double(process, stepper)


def orders_are_as_declared(stepper: Stepper) -> None:
    """The declared order of convergence is the order measured on every process."""
    if stepper.order is not None:
        for name, process in convergence.processes().items():
            convergence.order_is_as_declared(process, stepper, bounded_above=name == "vp" or not stepper.stochastic)


_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


def states_its_facts(stepper: Stepper) -> None:
    """The last paragraph of its docstring, 'Order 2. Two calls a step. Deterministic.', says what it declares."""
    facts = " ".join((inspect.getdoc(type(stepper)) or "").split("\n\n")[-1].split())
    found = re.search(r"\b(?:Order (\d)|(No order))\b", facts)
    hold(found is not None, f"the docstring's last paragraph must state 'Order N.' or 'No order'; it is {facts!r}.")
    assert found is not None
    stated = int(found[1]) if found[1] else None
    hold(stepper.order == stated, f"it declares order {stepper.order} and its docstring says {stated}: {facts!r}.")
    calls = re.search(r"\b(\w+) calls? a step", facts, re.I)
    if stepper.calls is None:
        hold("As many calls as needed" in facts, f"calls are not declared; say 'As many calls as needed': {facts!r}.")
    elif calls and calls[1].lower() in _NUMBERS:
        said = _NUMBERS[calls[1].lower()]
        hold(stepper.calls == said, f"it declares {stepper.calls} calls and its docstring says {said}: {facts!r}.")
    else:
        by = re.search(r"As many calls a step as (\w+)", facts)
        hold(by is not None, f"the docstring's last paragraph must state how many calls a step: {facts!r}.")
        assert by is not None
        option = getattr(stepper, by[1], None)
        hold(stepper.calls == option, f"it declares {stepper.calls} calls and its {by[1]} is {option}: {facts!r}.")
    hold(isinstance(stepper.stochastic, bool), f"stochastic={stepper.stochastic!r} must be true or false.")
    hold(("Stochastic" in facts) == stepper.stochastic, f"stochastic={stepper.stochastic}, but it says {facts!r}.")
    hold(("Deterministic" in facts) == (not stepper.stochastic), f"stochastic={stepper.stochastic}, it says {facts!r}.")


LAWS: dict[str, Callable[[Stepper], None]] = {
    law.__name__.replace("_", "-"): law
    for law in (
        states_its_facts,
        returns_constant_data,
        depends_on_its_seed_alone,
        needs_no_double_precision,
        orders_are_as_declared,
    )
}
