"""How far each stepper lands from the exact endpoint, by network calls: the table of docs/choosing-a-sampler.md.

The denoiser is exact (a Gaussian mixture), so only the stepper and the grid are measured. For a deterministic stepper
the error is the mean distance to the end of the probability-flow trajectory from the same noise, computed with 2,000
Heun steps in float64. For a stochastic one, which has no such endpoint, it is the sliced Wasserstein distance to exact
draws, beside the distance between two sets of exact draws.

    python benchmarks/steppers.py [--quick]
"""

from typing import Any

import common
import torch

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.metrics import METRICS
from ornstein.samplers import STEPPERS, Adaptive

COUNT, CALLS, DIMENSION = 2000, (5, 10, 20, 50, 100), 8
#: every stepper with its defaults, and one whose variables matter
WAYS: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in STEPPERS), ("heun", {"variables": "edm"})]
#: walks that follow no equation
LANGEVIN = ("annealed-langevin", "recovery-langevin")


def mixture() -> GaussianMixture:
    """Five unequal, correlated components in eight dimensions, of unit overall scale."""
    g = torch.Generator().manual_seed(0)
    means = 1.2 * torch.randn(5, DIMENSION, generator=g)
    factors = 0.25 * torch.randn(5, DIMENSION, DIMENSION, generator=g)
    return GaussianMixture(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), means, factors @ factors.mT)


def main() -> None:  # long: two tables for each process
    quick = common.arguments(__doc__).parse_args().quick
    count, budgets, fine = (50, (5,), 40) if quick else (COUNT, CALLS, 2000)
    mix = mixture()
    g = torch.Generator().manual_seed(1)
    truth, again = mix.sample(count, generator=g), mix.sample(count, generator=g)
    sliced = METRICS["sliced-wasserstein"]()
    for process in (ornstein.VP(), ornstein.EDM(), ornstein.Flow())[: 1 if quick else None]:
        den = mix.denoiser(process)
        shape = (count, DIMENSION)
        exact = ornstein.sample(den, shape, stepper="heun", steps=fine, grid="logsnr", seed=0, dtype=torch.float64)
        print(f"\n{process}: mean distance to the exact endpoint, by network calls")
        print(f"{'stepper':<20}{'grid':<11}" + "".join(f"{calls:>9}" for calls in budgets))
        for name, options in WAYS:
            stepper = STEPPERS[name](**options)
            if stepper.stochastic or stepper.calls is None:
                continue
            for grid in ("balanced", "flow", "power", "tapered", "karras", "logsnr", "uniform", "quadratic"):
                row = []
                for calls in budgets:
                    steps = 1 + (calls - 1) // stepper.calls  # the last step is one call
                    x = ornstein.sample(
                        den, shape, stepper=stepper, steps=steps, grid=grid, seed=0, dtype=torch.float64
                    )
                    row.append((x - exact).norm(dim=1).mean().item())
                label = " ".join([name, *map(str, options.values())])
                print(f"{label:<20}{grid:<11}" + "".join(f"{error:9.5f}" for error in row))
        for tolerance in (0.01, 0.001, 0.0001):
            adaptive = Adaptive(tolerance)
            *_, last = ornstein.trajectory(den, shape, stepper=adaptive, steps=1, seed=0, dtype=torch.float64)
            error = (last.x - exact).norm(dim=1).mean().item()
            print(f"adaptive, tolerance {tolerance:g}: {last.calls} calls, error {error:.5f}")
        print(
            f"{process}: sliced Wasserstein distance to exact draws (exact draws score {sliced(again, truth, g):.3f})"
        )
        for name, make in STEPPERS.items():
            if not make().stochastic or name in LANGEVIN:
                continue
            for grid in ("flow", "power", "karras", "uniform"):
                row = []
                for calls in budgets:
                    steps = 1 + (calls - 1) // (make().calls or 1)
                    x = ornstein.sample(den, shape, stepper=name, steps=steps, grid=grid, seed=0)
                    row.append(sliced(x, truth, torch.Generator().manual_seed(2)))
                print(f"{name:<20}{grid:<11}" + "".join(f"{error:9.3f}" for error in row))


if __name__ == "__main__":
    main()
