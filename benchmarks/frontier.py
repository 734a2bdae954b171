"""How near to the exact endpoint K network calls arrive: ornstein beside diffusers, k-diffusion and azula, in one run.

    python benchmarks/frontier.py                     # more than an hour on one core

The denoisers are exact (Gaussian mixtures), so only the solver and its grid are measured. Error: the mean L2 distance
to the end of the probability-flow trajectory from the same noise, all in float64. The reference is the classical
fourth-order Runge-Kutta rule in log(sigma/alpha), 2,000 steps from sigma/alpha = 152 to 1e-5; the distance to the same
with half the steps is printed beside it.

*Calls* are calls of the network, including those of second-order stages and of a last denoising step.

*Fairness.* Every library gets the same exact answers at exactly the levels that its solver assumes, with no rounding of
timesteps, even if it rounds them for networks. Each starts from the exact state of the same trajectories at its own
first level, on every grid that its options allow; if its interface takes levels, also on powers of time and of flow
time. For each problem, budget and family the best configuration is picked *afterwards*, by the error that is reported.
From 15 calls on, the peers' 600 best at 10 are tried; from 30 on, the 200 best at 20. ornstein's default is one setting
for everything; "tuned" is `fit_endpoint` for that problem and number of calls, fitted on other noise than is measured.

Where trajectories part between modes, a few of them carry much of the mean. So the tuned solvers, the default, and the
peers' three best settings of each family at that budget are measured again on --fresh other trajectories: a setting
that was best by chance is not so there. The best is again picked afterwards.

A library that is not installed is reported and left out: pip install diffusers k-diffusion azula.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor

import ornstein
from ornstein.core.clocks import EDM
from ornstein.core.exact import GaussianMixture
from ornstein.core.grids import GRIDS
from ornstein.core.process import Level
from ornstein.distill.solver import endpoint_error, fit_endpoint, starting_noise
from ornstein.samplers import DEFAULT_STEPPER, STEPPERS
from ornstein.samplers.unipc import UniPC

BUDGETS = (5, 8, 10, 15, 20, 30, 50, 100)
TUNED = (5, 8, 10)
#: calls -> how many of the peers' configurations are tried from there on: those best at the budget before
KEPT = {15: 600, 30: 200}
F64 = torch.float64
VP = ornstein.VP()
TOP = float(VP.at(1.0).noise_ratio)
#: the clock on which sigma/alpha is the time itself
RATIO = EDM(t_max=1e6)


# --- problems ---------------------------------------------------------------------------------------------------------


def correlated(d: int, seed: int) -> GaussianMixture:
    """Five unequal components with full covariances; their scales run from far below 1 to about 1.4."""
    g = torch.Generator().manual_seed(seed)
    means = 1.2 * torch.randn(5, d, generator=g, dtype=F64)
    factors = 0.7 / math.sqrt(d) * torch.randn(5, d, d, generator=g, dtype=F64)
    return GaussianMixture(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), means, factors @ factors.mT)


def hard() -> GaussianMixture:
    """Nine isotropic components in eight dimensions, of standard deviations 0.01 to 1."""
    means = 1.2 * torch.randn(9, 8, generator=torch.Generator().manual_seed(3), dtype=F64)
    return GaussianMixture(torch.ones(9), means, torch.logspace(-4, 0, 9, dtype=F64))


PROBLEMS: dict[str, Callable[[], GaussianMixture]] = {
    "d = 2": lambda: correlated(2, 0),
    "d = 16": lambda: correlated(16, 1),
    "d = 64": lambda: correlated(64, 2),
    "hard": hard,
}


class Problem:
    """A mixture, N trajectories of its probability-flow ODE in y = x/alpha against r = sigma/alpha, and their ends."""

    def __init__(self, mix: GaussianMixture, count: int, steps: int = 2000, seed: int = 0) -> None:
        self.mix = mix
        self.denoiser = mix.denoiser(VP)
        # as `ornstein.sample` draws it; at this level the data's own spread is below rounding
        self.x = starting_noise(self.denoiser, (count, mix.d), seed, F64)
        self.start = self.x / float(VP.at(1.0).alpha)
        self.ends = self._end(steps)
        self.uncertainty = self.error(self._end(steps // 2))
        self._states: dict[float, Tensor] = {TOP: self.start}

    def answer(self, y: Tensor, ratio: float) -> Tensor:
        """E[x_0 given x_t]."""
        return self.mix.posterior_mean(y, Level(RATIO, ratio, 1.0, ratio))

    def at(self, ratio: float) -> Tensor:
        """The exact state of every trajectory at a level near the top, y = x/alpha."""
        if ratio not in self._states:
            span = abs(math.log(ratio / TOP))
            self._states[ratio] = self._follow(self.start, TOP, ratio, max(8, int(60 * span))) if span > 1e-9 else (
                self.start
            )  # fmt: skip
        return self._states[ratio]

    def error(self, found: Tensor) -> float:
        """Mean L2 distance to the exact ends."""
        return float((found - self.ends).flatten(1).norm(dim=1).mean().item())

    def _end(self, steps: int, bottom: float = 1e-5) -> Tensor:
        return self.answer(self._follow(self.start, TOP, bottom, steps), bottom)

    def _follow(self, y: Tensor, top: float, bottom: float, steps: int) -> Tensor:
        # dy/dl = E[x_0] - y in l = -log r
        ends = torch.linspace(-math.log(top), -math.log(bottom), steps + 1, dtype=F64).tolist()
        for a, b in pairwise(ends):
            h, first, middle, last = b - a, math.exp(-a), math.exp(-(a + b) / 2), math.exp(-b)
            k1 = self.answer(y, first) - y
            k2 = self.answer(z := y + h / 2 * k1, middle) - z
            k3 = self.answer(z := y + h / 2 * k2, middle) - z
            k4 = self.answer(z := y + h * k3, last) - z
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y


@dataclass(frozen=True)
class Way:
    """One configuration: `run(problem, calls)` returns its ends and the calls it made, or None if it cannot run."""

    library: str
    family: str
    setting: str
    run: Callable[[Problem, int], "tuple[Tensor, int] | None"]


# --- ornstein ---------------------------------------------------------------------------------------------------------


def _drawn(stepper: str | ornstein.Stepper, grid: str | None, steps: int, problem: Problem) -> tuple[Tensor, int]:
    shape = tuple(problem.x.shape)
    *_, last = ornstein.trajectory(
        problem.denoiser, shape, stepper=stepper, grid=grid, steps=steps, x=problem.x, seed=0, dtype=F64
    )
    return last.x, last.calls


#: what `ornstein.sample` does by default
DEFAULT = Way("ornstein", "default", "", lambda problem, calls: _drawn(DEFAULT_STEPPER, None, calls, problem))


def ours() -> Iterator[Way]:
    """The default, and every deterministic stepper of the table on every grid of the table."""
    yield DEFAULT
    settings = [(name, entry(), "") for name, entry in STEPPERS.items()]
    settings += [("unipc", UniPC(order=order), f"order={order}") for order in (3, 5, 6)]
    for name, stepper, option in settings:
        if stepper.stochastic or stepper.calls is None:
            continue
        for grid in GRIDS:
            if GRIDS[grid] in (GRIDS["trailing"], GRIDS["leading"], GRIDS["chain"]):
                continue

            def run(
                problem: Problem, calls: int, stepper: ornstein.Stepper = stepper, grid: str = grid
            ) -> tuple[Tensor, int]:
                return _drawn(stepper, grid, 1 + (calls - 1) // (stepper.calls or 1), problem)

            yield Way("ornstein", name, f"{option} {grid}".strip(), run)


# --- diffusers --------------------------------------------------------------------------------------------------------


def diffusers() -> Iterator[Way]:
    """DDIM, DPM-Solver and DPM-Solver++ (multi- and single-step), UniPC, DEIS and Heun, with the grids they offer."""
    import diffusers
    import numpy as np

    integral = VP._integral(torch.linspace(0, 1, 1001, dtype=F64))
    betas = (-torch.expm1(integral[:-1] - integral[1:])).tolist()
    common = {"trained_betas": betas, "prediction_type": "sample", "num_train_timesteps": 1000}
    top = TOP / (1 + TOP)

    def way(
        family: str, setting: str, scheduler: Any, options: dict[str, Any], variables: str = "vp",
        levels: Callable[[int], dict[str, Any]] = lambda steps: {"num_inference_steps": steps},
        steps_of: Callable[[int], int] = lambda calls: calls,
    ) -> Way:  # fmt: skip
        def run(problem: Problem, calls: int) -> tuple[Tensor, int]:
            s = scheduler(**common, **options)
            s.set_timesteps(**levels(steps_of(calls)))
            if hasattr(s, "set_begin_index"):
                s.set_begin_index(0)  # levels may coincide as whole timesteps: count instead of looking them up
            x, made = None, 0
            for i, t in enumerate(s.timesteps):
                if variables == "chain":
                    alpha = math.sqrt(float(s.alphas_cumprod[int(t)]))
                    ratio = math.sqrt(1 - alpha**2) / alpha
                else:
                    sigma = float(s.sigmas[i])
                    ratio = sigma / (1 - sigma) if variables == "flow" else sigma
                    alpha = {"flow": 1 - sigma, "ve": 1.0, "vp": 1 / math.hypot(1, sigma)}[variables]
                if x is None:
                    x = alpha * problem.at(ratio)
                x0 = problem.answer(x / alpha, ratio)
                made += 1
                x = s.step(x0, t, x).prev_sample.double()
            assert x is not None
            return x, made

        return Way("diffusers", family, setting, run)

    spacings = ("linspace", "trailing", "leading")
    for spacing in spacings:
        for one in (True, False):
            options = {"clip_sample": False, "timestep_spacing": spacing, "set_alpha_to_one": one}
            yield way("DDIM", f"{spacing} set_alpha_to_one={one}", diffusers.DDIMScheduler, options, "chain")

    def powers(power: float) -> Callable[[int], dict[str, Any]]:
        return lambda n: {"timesteps": [round(999 * (1 - i / n) ** power) for i in range(n)]}

    own: list[tuple[str, dict[str, Any], Any]] = [(s, {"timestep_spacing": s}, None) for s in spacings]
    own += [(s, {f"use_{s}_sigmas": True}, None) for s in ("karras", "exponential", "beta")]
    shifts: list[tuple[str, dict[str, Any], Any]] = [
        (f"flow shift={s:g}", {"use_flow_sigmas": True, "flow_shift": s}, None) for s in (0.5, 0.75, 1, 1.5, 2, 3)
    ]
    given: list[tuple[str, dict[str, Any], Any]] = [(f"times^{p:g}", {}, powers(p)) for p in (1.25, 1.5, 2, 2.5, 3)]
    for name, grid, levels in [*own, ("lu", {"use_lu_lambdas": True}, None), *shifts, *given]:
        more: dict[str, Any] = {"levels": levels} if levels else {}
        more["variables"] = "flow" if "flow" in name else "vp"
        for order in (2, 3):
            multistep = diffusers.DPMSolverMultistepScheduler
            for rule in ("midpoint", "heun") if order == 2 else ("midpoint",):
                for lower in (True, False):
                    options = {"solver_order": order, "solver_type": rule, "lower_order_final": lower, **grid}
                    setting = f"{order}M {rule} {name} lower_order_final={lower}"
                    yield way("DPM-Solver++", setting, multistep, options, **more)
            options = {"solver_order": order, "lower_order_final": False, **grid}
            yield way(
                "DPM-Solver++", f"{order}M {name} sigma_min", multistep, {**options, "final_sigmas_type": "sigma_min"},
                **more,
            )  # fmt: skip
            yield way(
                "DPM-Solver++",
                f"{order}M {name} euler_at_final",
                multistep,
                {**options, "euler_at_final": True},
                **more,
            )
            if more["variables"] == "vp":
                eps = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": order, **grid}
                yield way("DPM-Solver", f"{order}M eps {name}", multistep, eps, **more)
            if levels is None and name != "lu":
                deis = {"solver_order": order, **grid}
                yield way("DEIS", f"{order} {name}", diffusers.DEISMultistepScheduler, deis, **more)
                if more["variables"] == "vp" and name not in ("trailing", "leading"):
                    single = {k: v for k, v in grid.items() if k != "timestep_spacing"}
                    single |= {"solver_order": order, "lower_order_final": True, "final_sigmas_type": "zero"}
                    yield way("DPM-Solver++", f"{order}S {name}", diffusers.DPMSolverSinglestepScheduler, single)

    def sigmas(level: Callable[[float], float]) -> Callable[[int], dict[str, Any]]:
        return lambda n: {"num_inference_steps": n, "sigmas": np.array([level(1 - i / n) for i in range(n)])}

    def of_time(power: float) -> Callable[[float], float]:
        return lambda u: 1 / (1 + 1 / float(VP.at(u**power).noise_ratio))

    flows: list[tuple[str, dict[str, Any], Any]] = [
        (f"flow shift={s:g}", {"flow_shift": s}, sigmas(lambda u, s=s: u * top / (s - (s - 1) * top)))  # type: ignore[misc]
        for s in (0.5, 0.75, 1, 1.5, 2, 3)
    ]
    flows += [(f"flow^{p:g}", {}, sigmas(lambda u, p=p: top * u**p)) for p in (1.25, 1.5, 2)]  # type: ignore[misc]
    flows += [(f"times^{p:g}", {}, sigmas(of_time(p))) for p in (1, 1.25, 1.5, 2, 2.5, 3)]
    for name, grid, levels in [*own, *((n, {"use_flow_sigmas": True, **g}, f) for n, g, f in flows)]:
        more = {"levels": levels} if levels else {}
        more["variables"] = "flow" if levels else "vp"
        for order in (2, 3, 4):
            for rule in ("bh1", "bh2"):
                for lower in (True, False):
                    options = {"solver_order": order, "solver_type": rule, "lower_order_final": lower, **grid}
                    setting = f"{order} {rule} {name} lower_order_final={lower}"
                    yield way("UniPC", setting, diffusers.UniPCMultistepScheduler, options, **more)
        for order in (2, 3):
            options = {"solver_order": order, "predict_x0": False, "final_sigmas_type": "sigma_min", **grid}
            yield way("UniPC", f"{order} eps {name}", diffusers.UniPCMultistepScheduler, options, **more)

    def heun(power: float) -> Callable[[int], dict[str, Any]]:
        return lambda n: {"timesteps": [999 * (1 - i / n) ** power for i in range(n)]}

    for name, grid, levels in [*own, *((f"times^{p:g}", {}, heun(p)) for p in (1.5, 2, 2.5, 3))]:
        more = {"levels": levels} if levels else {}
        yield way(
            "Heun", name, diffusers.HeunDiscreteScheduler, grid, "ve", steps_of=lambda calls: (calls + 1) // 2, **more
        )


# --- k-diffusion ------------------------------------------------------------------------------------------------------


@functools.cache
def k_diffusion_sampling() -> types.ModuleType:
    """Its module of samplers, a single file; the rest of the package needs a dozen others that this file does not."""
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    helpers = types.ModuleType("k_diffusion.utils")
    helpers.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]  # type: ignore[attr-defined]
    package.utils = helpers  # type: ignore[attr-defined]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": helpers}
    for name in ("torchsde", "torchdiffeq"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].odeint = None  # type: ignore[attr-defined]
    return importlib.import_module("k_diffusion.sampling")


def k_diffusion() -> Iterator[Way]:
    """Its deterministic samplers on its own grids, and on powers of time and of flow time."""
    sampling = k_diffusion_sampling()
    grids: dict[str, Callable[[int], Tensor]] = {}
    for low in (0.002, 0.01, 0.05):
        for rho in (1, 2, 3, 5, 7):
            grids[f"karras rho={rho} min={low}"] = lambda n, a=low, r=rho: sampling.get_sigmas_karras(n, a, TOP, r)  # type: ignore[misc]
        grids[f"exponential min={low}"] = lambda n, a=low: sampling.get_sigmas_exponential(n, a, TOP)  # type: ignore[misc]
        for power in (0.5, 0.7, 1.5, 2):
            grids[f"polyexponential rho={power} min={low}"] = lambda n, a=low, r=power: (
                sampling.get_sigmas_polyexponential(  # type: ignore[misc]
                    n, a, TOP, r
                )
            )
    for end in (1e-3, 1e-2, 3e-2):
        grids[f"vp eps={end}"] = lambda n, e=end: sampling.get_sigmas_vp(n, eps_s=e)  # type: ignore[misc]

    def clean(ratios: list[float]) -> Tensor:
        return torch.tensor([*ratios, 0.0], dtype=F64)

    for power in (1, 1.25, 1.5):
        grids[f"flow^{power:g}"] = lambda n, p=power: clean(  # type: ignore[misc]
            [u / (1 - u) for u in (TOP / (1 + TOP) * (1 - i / n) ** p for i in range(n))]
        )
    for power in (1, 1.5, 2, 2.5, 3):
        grids[f"times^{power:g}"] = lambda n, p=power: clean(  # type: ignore[misc]
            [float(VP.at((1 - i / n) ** p).noise_ratio) for i in range(n)]
        )

    def still(a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(())

    samplers: list[tuple[str, Callable[..., Tensor], int, dict[str, Any]]] = [
        ("euler", sampling.sample_euler, 1, {}),
        ("heun", sampling.sample_heun, 2, {}),
        ("dpm_2", sampling.sample_dpm_2, 2, {}),
        ("dpmpp_2s", sampling.sample_dpmpp_2s_ancestral, 2, {"eta": 0.0}),
        ("dpmpp_2m", sampling.sample_dpmpp_2m, 1, {}),
        ("dpmpp_2m_sde eta=0", sampling.sample_dpmpp_2m_sde, 1, {"eta": 0.0, "noise_sampler": still}),
        ("dpmpp_3m_sde eta=0", sampling.sample_dpmpp_3m_sde, 1, {"eta": 0.0, "noise_sampler": still}),
        *((f"lms order={k}", sampling.sample_lms, 1, {"order": k}) for k in (2, 3, 4)),
    ]
    for name, sampler, stages, options in samplers:
        for grid, levels in grids.items():

            def run(
                problem: Problem, calls: int, sampler: Any = sampler, levels: Any = levels, stages: int = stages,
                options: dict[str, Any] = options,
            ) -> tuple[Tensor, int]:  # fmt: skip
                made = 0

                def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
                    nonlocal made
                    made += 1
                    return problem.answer(x, float(sigma.flatten()[0]))

                sigmas = levels((calls + stages - 1) // stages).double()
                x = sampler(model, problem.at(float(sigmas[0])), sigmas, disable=True, **options)
                return x, made

            yield Way("k-diffusion", name.split()[0], f"{name} {grid}", run)


# --- azula ------------------------------------------------------------------------------------------------------------


def azula() -> Iterator[Way]:
    """DDIM, Heun and its Adams-Bashforth family, on its schedules, with and without a last denoising call."""
    from azula import noise, sample
    from azula.denoise import Denoiser, DiracPosterior

    class Exact(Denoiser):  # type: ignore[misc]
        def __init__(self, problem: Problem, schedule: Any) -> None:
            super().__init__()
            self.problem, self.schedule, self.made = problem, schedule, 0

        def forward(self, x: Tensor, t: Tensor, **_: Any) -> Any:
            self.made += 1
            alpha, sigma = (float(v) for v in self.schedule(t))
            return DiracPosterior(self.problem.answer(x / alpha, sigma / alpha))

    schedules: dict[str, Any] = {}
    least = 1 / math.hypot(1, TOP)
    for low in (1e-3, 1e-2):
        schedules[f"vp sigma_min={low}"] = noise.VPSchedule(least, low)
        schedules[f"cosine sigma_min={low}"] = noise.CosineSchedule(least, low)
        schedules[f"rectified sigma_min={low}"] = noise.RectifiedSchedule(1 / TOP, low)
        schedules[f"ve sigma_min={low}"] = noise.VESchedule(low, TOP)
        for gamma in (0.01, 0.1, 0.3, 0.6):
            schedules[f"decay gamma={gamma} sigma_min={low}"] = noise.DecaySchedule(1 / TOP, low, gamma)
    samplers: list[tuple[str, Any, int, dict[str, Any]]] = [
        ("DDIM", sample.DDIMSampler, 1, {}),
        ("Heun", sample.HeunSampler, 2, {}),
    ]
    for order in (2, 3, 4):
        for name in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
            samplers.append((f"{name} order={order}", getattr(sample, f"{name}Sampler"), 1, {"order": order}))
    for name, sampler, stages, options in samplers:
        for schedule_name, schedule in schedules.items():
            for denoise in (True, False):

                def run(
                    problem: Problem, calls: int, sampler: Any = sampler, schedule: Any = schedule,
                    stages: int = stages, options: dict[str, Any] = options, denoise: bool = denoise,
                ) -> tuple[Tensor, int] | None:  # fmt: skip
                    steps = (calls - denoise) // stages
                    if steps < 1:
                        return None
                    exact = Exact(problem, schedule)
                    # even steps of its time to where the last call denoises, or to its end
                    stop = torch.tensor(1 / (steps + 1) if denoise else 0.0, dtype=F64)
                    solver = sampler(exact, steps=steps, silent=True, dtype=F64, stop=float(stop), **options)
                    alpha, sigma = (float(v) for v in schedule(torch.ones((), dtype=F64)))
                    x = solver(alpha * problem.at(sigma / alpha))
                    x = exact(x, stop).mean if denoise else x / float(schedule(stop)[0])
                    return x, exact.made

                last = " + denoise" if denoise else ""
                yield Way("azula", name.split()[0], f"{name} {schedule_name}{last}", run)


# --- the run ----------------------------------------------------------------------------------------------------------

PEERS: dict[str, tuple[str, Callable[[], Iterator[Way]]]] = {
    "diffusers": ("diffusers", diffusers),
    "k-diffusion": ("k_diffusion", k_diffusion),
    "azula": ("azula", azula),
}


@dataclass
class Results:
    """Errors by problem, budget and way; every number that was measured."""

    problems: dict[str, dict[str, Any]] = field(default_factory=dict)

    def best(self, problem: str, calls: int, **match: str) -> "tuple[float, str] | None":
        """The least error of the ways that match, and which it was."""
        rows = [
            row
            for row in self.problems[problem]["rows"]
            if row["calls"] == calls and all(row[k] == v for k, v in match.items())
        ]
        if not rows:
            return None
        row = min(rows, key=lambda row: row["error"])
        return row["error"], f"{row['library']} {row['family']}: {row['setting']}"

    def best_peer(self, problem: str, calls: int) -> "tuple[float, str] | None":
        """As `best`, of the other libraries."""
        found = [self.best(problem, calls, library=name) for name in PEERS]
        return min((f for f in found if f is not None), default=None)


def measure(problem: Problem, ways: list[Way], budgets: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every configuration at every budget; at larger ones only the peers' that were best before: see `KEPT`."""
    rows: list[dict[str, Any]] = []
    alive = list(ways)
    errors: dict[int, float] = {}
    for calls in budgets:
        if calls in KEPT:
            ranked = sorted(alive, key=lambda way: errors.get(id(way), math.inf))
            theirs = [way for way in ranked if way.library != "ornstein"]
            alive = [way for way in ranked if way.library == "ornstein"] + theirs[: KEPT[calls]]
        errors = {}
        for way in alive:
            try:
                found = way.run(problem, calls)
            except (
                ValueError,
                IndexError,
                RuntimeError,
                ZeroDivisionError,
                AssertionError,
                ornstein.errors.InputError,
            ):
                if way is DEFAULT:
                    raise
                continue  # a combination that the library does not take, or that fails at so few steps
            if found is None or found[1] > calls:
                continue
            error = problem.error(found[0])
            if math.isfinite(error):
                errors[id(way)] = error
                rows.append(
                    {
                        "calls": calls,
                        "error": error,
                        "library": way.library,
                        "family": way.family,
                        "setting": way.setting,
                    }
                )
    return rows


def leaders(rows: list[dict[str, Any]], places: int = 3) -> list[dict[str, Any]]:
    """The best few settings of each family at each budget, out of some ten thousand rows."""
    kept: dict[tuple[Any, ...], int] = {}
    found = []
    for row in sorted(rows, key=lambda row: row["error"]):
        key = (row["library"], row["family"], row["calls"])
        kept[key] = kept.get(key, 0) + 1
        if kept[key] <= places:
            found.append({**row, "error": float(f"{row['error']:.5g}")})
    return found


def tune(problems: list[Problem], calls: int, rounds: int, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """`fit_endpoint` on separate noise, and its error on the noise of each problem."""
    began = time.process_time()
    denoiser, d = problems[0].denoiser, problems[0].mix.d
    tuned = fit_endpoint(
        denoiser, (d,), calls, count=min(16384, 2**17 // d), rounds=rounds, batch=1024, seed=1, dtype=F64
    )
    seconds[str(calls)] = time.process_time() - began
    levels = " ".join(f"{float(VP.at(t).noise_ratio):.3g}" for t in tuned.grid[:-1])
    print(f"  {calls} calls fitted in {seconds[str(calls)]:.0f} s of processor time", flush=True)
    return [
        {"calls": calls, "error": endpoint_error(denoiser, problem.x, problem.ends, tuned, calls=calls).value,
         "library": "ornstein", "family": "tuned", "setting": f"levels {levels}"}
        for problem in problems
    ]  # fmt: skip


def again(problem: Problem, ways: list[Way], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings of some rows, measured on this problem's trajectories."""
    known = {(way.library, way.family, way.setting): way for way in ways}
    found = []
    for row in rows:
        way = known.get((row["library"], row["family"], row["setting"]))
        if way is None or row["calls"] not in TUNED:
            continue
        result = way.run(problem, row["calls"])
        if result is not None:
            found.append({**row, "error": float(f"{problem.error(result[0]):.5g}")})
    return found


def refitted(row: dict[str, Any], calls: list[int]) -> bool:
    """Whether a row is of a tuned solver that is fitted again."""
    return row["family"] == "tuned" and row["calls"] in calls


def show(results: Results, budgets: tuple[int, ...]) -> None:
    """The table."""
    for name, found in results.problems.items():
        print(
            f"\n{name}: mean distance to the exact endpoint ({found['count']} samples; the reference itself is within"
        )
        print(f"{found['uncertainty']:.1g}), by network calls")
        print(f"{'':<34}" + "".join(f"{calls:>10}" for calls in budgets))
        lines: list[tuple[str, dict[str, str]]] = [
            ("ornstein, default", {"library": "ornstein", "family": "default"}),
            ("ornstein, tuned", {"library": "ornstein", "family": "tuned"}),
        ]
        families = {(row["library"], row["family"]) for row in found["rows"]}
        lines += [
            (f"{library} {family}", {"library": library, "family": family})
            for library, family in sorted(families, key=lambda f: (list(PEERS).index(f[0]) if f[0] in PEERS else -1, f))
            if family not in ("default", "tuned")
        ]
        for label, match in lines:
            cells = [results.best(name, calls, **match) for calls in budgets]
            print(f"{label:<34}" + "".join(f"{cell[0]:>10.3g}" if cell else f"{'-':>10}" for cell in cells))
        peers = [results.best_peer(name, calls) for calls in budgets]
        print(f"{'best peer':<34}" + "".join(f"{cell[0]:>10.3g}" if cell else f"{'-':>10}" for cell in peers))
        for which in ("default", "tuned"):
            line = []
            for calls, peer in zip(budgets, peers, strict=True):
                mine = results.best(name, calls, library="ornstein", family=which)
                line.append(f"{mine[0] / peer[0]:>10.2f}" if mine and peer else f"{'-':>10}")
            print(f"{which + ' / best peer':<34}" + "".join(line))
        for calls, peer in zip(budgets, peers, strict=True):
            if peer:
                print(f"  best peer at {calls}: {peer[1]}")
        fresh = Results({name: found["fresh"]}) if "fresh" in found else None
        if fresh is not None and fresh.best_peer(name, TUNED[0]):
            print(f"on {found['fresh']['count']} other trajectories" + "".join(f"{calls:>10}" for calls in TUNED))
            for label in ("default", "tuned", "best peer", "default / best peer", "tuned / best peer"):
                line = []
                for calls in TUNED:
                    peer = fresh.best_peer(name, calls)
                    mine = fresh.best(name, calls, library="ornstein", family=label.split(" / ")[0])
                    value = peer if label == "best peer" else mine
                    share = value[0] / (peer[0] if peer and "/" in label else 1) if value else math.nan
                    line.append(f"{share:>10.2f}" if "/" in label else f"{share:>10.3g}")
                print(f"{label:<34}" + "".join(line))


def plot(results: Results, path: Path) -> None:
    """Error against calls, one panel a problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results.problems), figsize=(3.6 * len(results.problems), 3.9), sharex=True)
    colours = {"diffusers": "#8c6bb1", "k-diffusion": "#41ab5d", "azula": "#3690c0"}
    for axis, (name, found) in zip(torch.arange(0) if axes is None else list(getattr(axes, "flat", [axes])),
                                   results.problems.items(), strict=True):  # fmt: skip
        budgets = sorted({row["calls"] for row in found["rows"]})

        def line(
            match: dict[str, str], name: str = name, budgets: list[int] = budgets
        ) -> tuple[list[int], list[float]]:
            cells = [(calls, results.best(name, calls, **match)) for calls in budgets]
            kept = [(calls, cell[0]) for calls, cell in cells if cell]
            return [c for c, _ in kept], [e for _, e in kept]

        for library, colour in colours.items():
            axis.plot(
                *line({"library": library}), color=colour, lw=1.3, marker=".", ms=4, label=f"{library}, best of all"
            )
        peers = [(calls, results.best_peer(name, calls)) for calls in budgets]
        known = [(calls, peer[0]) for calls, peer in peers if peer]
        axis.plot(*zip(*known, strict=True), color="0.6", lw=6, alpha=0.35, solid_capstyle="round",
                  label="best peer, picked afterwards") if known else None  # fmt: skip
        ours_style = {"library": "ornstein"}
        axis.plot(*line({**ours_style, "family": "default"}), color="#d7301f", lw=2, marker="o", ms=4,
                  label="ornstein, one default")  # fmt: skip
        axis.plot(*line({**ours_style, "family": "tuned"}), color="black", lw=0, marker="*", ms=10,
                  label="ornstein, tuned to the model")  # fmt: skip
        axis.set(xscale="log", yscale="log", title=name, xlabel="network calls")
        axis.set_xticks(budgets, [str(b) for b in budgets])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    first = figure.axes[0]
    first.set_ylabel("mean distance to the exact endpoint")
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = common.arguments(__doc__, "16 trajectories of one problem, 5 and 8 calls, 4 rounds")
    parser.add_argument("--count", type=int, default=256, help="trajectories to measure on")
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="which, separated by commas")
    parser.add_argument("--rounds", type=int, default=960, help="rounds of fitting the tuned solvers; 0 for none")
    parser.add_argument(
        "--fresh", type=int, default=4096, help="other trajectories for the tuned solvers' second table"
    )
    parser.add_argument(
        "--only-ours", action="store_true", help="the default and the tuned solvers anew, keep the rest"
    )
    parser.add_argument(
        "--tune", default=",".join(map(str, TUNED)), help="numbers of calls to fit solvers for; '': none"
    )
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("frontier.json"))
    parser.add_argument("--plot", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures" / "frontier.png")
    parser.add_argument("--from-json", action="store_true", help="measure nothing: table and plot of what is there")
    asked = parser.parse_args()
    if asked.quick:
        asked.count, asked.fresh, asked.rounds, asked.problems, asked.tune = 16, 16, 4, "d = 2", "5"
        asked.json, asked.plot = common.place(asked.json, True), common.place(asked.plot, True)
        asked.json.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    budgets = BUDGETS[:2] if asked.quick else BUDGETS
    fitted = [int(calls) for calls in asked.tune.split(",") if calls]
    results = Results()
    if asked.json.is_file():
        results.problems = json.loads(asked.json.read_text("utf-8"))["problems"]  # other problems' stay
    if not asked.from_json:
        ways = list(ours())
        versions = {"torch": str(torch.__version__)}
        for name, (module, peer) in PEERS.items():
            if importlib.util.find_spec(module) is None:
                print(f"{name} is absent: left out")
                continue
            versions[name] = importlib.metadata.version(name)
            ways += list(peer())
        print(", ".join(f"{n} {sum(w.library == n for w in ways)} ways" for n in ("ornstein", *PEERS)), flush=True)
        for name in asked.problems.split(","):
            began = time.perf_counter()
            problem = Problem(PROBLEMS[name](), asked.count)
            seconds: dict[str, float] = {}
            fresh: dict[str, Any] = {"rows": []}
            if asked.only_ours:
                rows, before = results.problems[name]["rows"], results.problems[name]["fresh"]["rows"]
                seconds |= results.problems[name]["tuning_seconds"]
                rows, fresh["rows"] = (
                    [row for row in some if row["family"] != "default" and not refitted(row, fitted)]
                    for some in (rows, before)
                )
                rows += measure(problem, [DEFAULT], budgets)
                ways = [DEFAULT]  # on the other trajectories too
            else:
                rows = leaders(measure(problem, ways, budgets))
            if asked.rounds:
                other = Problem(problem.mix, asked.fresh, steps=400, seed=2)
                fresh = {"count": len(other.x), "rows": fresh["rows"] + again(other, ways, rows)}
                for k in fitted:
                    on, off = tune([problem, other], k, asked.rounds, seconds)
                    rows.append(on)
                    fresh["rows"].append(off)
            if asked.only_ours:
                versions = results.problems[name]["versions"]
            results.problems[name] = {
                "count": len(problem.x), "uncertainty": problem.uncertainty, "rows": leaders(rows),
                "tuning_seconds": seconds, "fresh": fresh, "versions": versions,
            }  # fmt: skip
            asked.json.write_text(json.dumps({"problems": results.problems}), "utf-8")
            print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    results.problems = {name: results.problems[name] for name in PROBLEMS if name in results.problems}
    show(results, budgets)
    plot(results, asked.plot)


if __name__ == "__main__":
    main()
