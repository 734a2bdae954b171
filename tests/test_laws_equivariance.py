"""Data in other units are the same problem: c times the data and c times the noise give c times the samples.

If x_0 has a denoiser D on the process (alpha, sigma), then c x_0 has c D(x/c, t) on (alpha, c sigma), and c times the
sigma_data. Nothing else tells the two apart, so no stepper, grid, corrector, option or seed may.
"""

import math
from functools import lru_cache
from typing import Any

import pytest
import torch
from laws import WAYS, cover, grid_of, grids_of, mixture
from torch import Tensor

import ornstein
from ornstein.core.chains import Tabulated
from ornstein.core.clocks import EDM, VE, VP, Cosine, Flow, SubVP
from ornstein.core.drive import Stepper
from ornstein.core.exact import ExactDenoiser, GaussianMixture
from ornstein.core.grids import GRIDS, ends, times
from ornstein.core.learner import Problem
from ornstein.core.process import Process
from ornstein.experiment.learner import LEARNERS
from ornstein.laws.broken import LawBroken
from ornstein.laws.oracles import Louder
from ornstein.laws.others import is_the_same_in_other_units
from ornstein.likelihood.flow import reach
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import DPMpp2M, Heun, PredictorCorrector, UniPC
from ornstein.samplers.tuned import as_tuned

#: none is a power of two, by which rounding itself would scale
SCALES = (0.37, 5.3)
STEPS, COUNT = 6, 5


#: noise that is bounded and not, signal that vanishes and not, whole levels
CLOCKS: dict[str, Process] = {
    "vp": VP(),
    "sub-vp": SubVP(),
    "cosine": Cosine(),
    "flow": Flow(),
    "edm": EDM(),
    "ve": VE(),
    "betas": Tabulated.from_betas("linear", 50),
    "ladder": Tabulated.from_sigmas(steps=40, sigma_max=50.0),
}


@lru_cache
def posed(clock: str, scale: float) -> ExactDenoiser:
    """The mixture, `scale` times as large, under the clock with as much more noise."""
    mix = mixture()
    factors = mix.basis * mix.spread[:, None].sqrt()
    large = GaussianMixture(mix.weights, scale * mix.means, scale**2 * factors @ factors.mT)
    return large.denoiser(Louder(CLOCKS[clock], scale))


def drawn(denoiser: ExactDenoiser, stepper: Stepper, grid: str | None, **options: Any) -> Tensor:
    with torch.no_grad():
        return ornstein.sample(
            denoiser, (COUNT, 2), stepper=stepper, grid=grid, steps=STEPS, seed=3, dtype=torch.float64, **options
        )


def same(clock: str, stepper: Stepper, grid: str | None = None) -> None:
    one = drawn(posed(clock, 1.0), stepper, grid)
    assert bool(one.isfinite().all())
    for scale in SCALES:
        other = drawn(posed(clock, scale), stepper, grid) / scale
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-8, msg=lambda m, s=scale: f"{clock}, scale {s}: {m}")  # type: ignore[misc]


@pytest.mark.parametrize(("way", "clock"), cover(WAYS, CLOCKS, each=2), ids=str)
def test_a_stepper_draws_the_same_in_other_units(way: Any, clock: Any) -> None:
    same(clock, way)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_grid_is_the_same_in_other_units(clock: Any) -> None:
    base = CLOCKS[clock]
    for name in grids_of(base):
        for steps in (1, 2, 5, 20, base.chain or 50):
            plain = grid_of(base, steps, name)
            if plain is None:
                continue
            for scale in SCALES:
                # the same levels, whether the clock's own time tells them or their noise does
                found = times(Louder(base, scale), steps, name, sigma_data=scale)
                torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")  # type: ignore[misc]


@pytest.mark.parametrize("grid", GRIDS)
def test_every_grid_keeps_the_law_that_additions_are_held_to(grid: str) -> None:
    is_the_same_in_other_units(GRIDS[grid])


def test_a_grid_that_reads_bare_noise_breaks_the_law() -> None:
    with pytest.raises(LawBroken, match="times the noise"):
        is_the_same_in_other_units(lambda process, steps, sigma_data: GRIDS["karras"](process, steps, 1.0))


@pytest.mark.parametrize(
    ("way", "clock"),
    cover([DPMpp2M(), Heun(), UniPC(), PredictorCorrector(corrections=2)], ["vp", "edm", "flow", "betas"]),
    ids=str,
)
def test_every_grid_draws_the_same_in_other_units(way: Any, clock: Any) -> None:
    for name in grids_of(CLOCKS[clock]):
        if name == "chain":
            continue  # 50 steps
        same(clock, way, name)


@pytest.mark.parametrize("scale", SCALES)
def test_named_clocks_at_another_scale(scale: Any) -> None:
    """EDM from 80 c and VE between c times its ends are those processes at c times the noise, told by other times."""
    mix = mixture()
    for plain, large in (
        (EDM(), EDM(t_max=80 * scale)),
        (VE(), VE(sigma_min=0.01 * scale, sigma_max=50 * scale)),
        (
            Tabulated.from_sigmas(None, 40, 0.01, 50.0),
            Tabulated.from_sigmas(None, 40, 0.01 * scale, 50.0 * scale),
        ),
    ):
        factors = mix.basis * mix.spread[:, None].sqrt()
        scaled = GaussianMixture(mix.weights, scale * mix.means, scale**2 * factors @ factors.mT)
        for grid in grids_of(plain):
            if grid == "chain":
                continue
            one = drawn(mix.denoiser(plain), UniPC(), grid)
            other = drawn(scaled.denoiser(large), UniPC(), grid) / scale
            torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_learner_judges_and_teaches_at_the_same_levels_in_other_units(clock: Any) -> None:
    """The same judgement at c times the noise ratios, the same times of the same uniform numbers, the same reach."""

    def learner(scale: float, objective: Any) -> Any:
        return LEARNERS["denoiser"](Problem(Louder(CLOCKS[clock], scale), "v", objective, (2,), scale))

    x0 = mixture().sample(30, torch.Generator().manual_seed(0)).double()
    # the mean of ln(sigma/alpha) that "edm" is given is a noise of its own, and comes in the same units as the data
    told: dict[str, Any] = {"edm": lambda scale: {"p_mean": -1.2 + math.log(scale)}}
    taught: list[Any] = [
        lambda scale, n=name: OBJECTIVES[n](**(told[n](scale) if n in told else {})) for name in OBJECTIVES
    ]

    def found(scale: float) -> Any:
        known, model = learner(scale, taught[0](scale)), posed(clock, scale)
        judged = known.judge(model, scale * x0, None)
        drawn = []
        for make in taught:
            try:
                drawn.append(learner(scale, make(scale)).times(40, torch.Generator().manual_seed(1)))
            except ornstein.InputError:  # not on this clock, whatever the units
                drawn.append(None)
        flow = ornstein.FunctionDenoiser(lambda x, level, condition: x, Louder(CLOCKS[clock], scale), sigma_data=scale)
        return judged, drawn, torch.tensor(reach(flow, None), dtype=torch.float64)

    plain, times_drawn, plain_reach = found(1.0)
    for scale in SCALES:
        judged, drawn, reached = found(scale)
        assert judged.value == pytest.approx(plain.value, rel=1e-6)
        for mine, theirs, power in (
            (judged.ratios, plain.ratios, 1),
            (judged.found, plain.found, 2),
            (judged.known, plain.known, 2),
        ):
            assert mine == pytest.approx([scale**power * each for each in theirs], rel=1e-6)
        torch.testing.assert_close(reached, scale * plain_reach, rtol=1e-6, atol=0)
        for mine, theirs in zip(drawn, times_drawn, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def test_encodings_scale() -> None:
    g = torch.Generator().manual_seed(0)
    x = mixture().sample(COUNT, g).double()
    for clock in ("vp", "edm"):
        one = ornstein.encode(posed(clock, 1.0), x, steps=12, dtype=torch.float64)
        for scale in SCALES:
            other = ornstein.encode(posed(clock, scale), scale * x, steps=12, dtype=torch.float64) / scale
            torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


def test_one_denoiser_on_another_clock() -> None:
    """A variance-preserving clock for data of any scale: its noise in their units, the rest as it was.

    sigma/(alpha sigma_data) is what counts: data half as large on `VP` itself are another problem, on VP with half the
    noise the same one, and so on whatever clock they are read there by `on`.
    """
    for scale in SCALES:
        one = drawn(posed("edm", 1.0).on(VP()), UniPC(), None)
        other = drawn(posed("edm", scale).on(Louder(VP(), scale)), UniPC(), None) / scale
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-8)


def test_data_without_spread_are_read_in_units_of_one() -> None:
    """Their sigma_data is 0, which nothing can be measured in."""
    for name in ("flow", "karras", "uniform"):
        assert torch.equal(times(VP(), 5, name, 0.0), times(VP(), 5, name))
    point = ornstein.FunctionDenoiser(lambda x, level, condition: 0 * x + 0.3, EDM(), sigma_data=0.0)
    loss = OBJECTIVES["ddpm"]()(point, torch.full((8, 2), 0.3), None, torch.Generator().manual_seed(0))
    assert torch.equal(loss, torch.zeros(8))
    assert torch.equal(ornstein.sample(point, (2, 2), steps=5, seed=0), torch.full((2, 2), 0.3))


def test_the_ends_are_in_units_of_the_data() -> None:
    low, high = (float(EDM(t_max=1e6).at(t).noise_ratio) for t in ends(EDM(t_max=1e6), 0.5))
    assert low == pytest.approx(0.001, rel=1e-9)
    assert high == pytest.approx(80.0, rel=1e-9)


def test_a_triangle_is_read_off_in_the_data_s_units() -> None:
    """A solver read off in the data's units is the method itself there; read off in others it would be another."""
    denoiser = posed("vp", 5.3)
    for method in (UniPC(), UniPC(order=3, clock="flow", last=2)):
        grid = times(denoiser.process, STEPS, "flow", denoiser.sigma_data)
        read = as_tuned(method, denoiser.process, grid, denoiser.sigma_data)
        got = ornstein.sample(denoiser, (COUNT, 2), stepper=read, grid=grid, seed=3, dtype=torch.float64)
        torch.testing.assert_close(got, drawn(denoiser, method, "flow"), rtol=1e-9, atol=1e-9)
