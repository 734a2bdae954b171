"""How far each stepper lands from the exact endpoint, by network calls: the table of docs/choosing-a-sampler.md.

The denoiser is exact (a Gaussian mixture), so what is measured is the stepper and the grid alone. For a deterministic
stepper the error is the mean distance to the end of the probability-flow trajectory from the same noise, found with
2,000 Heun steps in float64; for a stochastic one, which has no such endpoint, the sliced Wasserstein distance to exact
draws, beside that of exact draws to exact draws.

    python benchmarks/steppers.py
"""

import torch

import ornstein
from ornstein.core.exact import GaussianMixture
from ornstein.metrics import METRICS
from ornstein.samplers import STEPPERS

COUNT, CALLS, DIMENSION = 2000, (5, 10, 20, 50, 100), 8


def mixture() -> GaussianMixture:
    """Five unequal, correlated components in eight dimensions, of unit overall scale."""
    g = torch.Generator().manual_seed(0)
    means = 1.2 * torch.randn(5, DIMENSION, generator=g)
    factors = 0.25 * torch.randn(5, DIMENSION, DIMENSION, generator=g)
    return GaussianMixture(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), means, factors @ factors.mT)


def main() -> None:
    mix = mixture()
    g = torch.Generator().manual_seed(1)
    truth, again = mix.sample(COUNT, generator=g), mix.sample(COUNT, generator=g)
    sliced = METRICS["sliced-wasserstein"]()
    for process in (ornstein.VP(), ornstein.EDM(), ornstein.Flow()):
        den = mix.denoiser(process)
        shape = (COUNT, DIMENSION)
        exact = ornstein.sample(den, shape, stepper="heun", steps=2000, grid="logsnr", seed=0, dtype=torch.float64)
        print(f"\n{process}: mean distance to the exact endpoint, by network calls")
        print(f"{'stepper':<16}{'grid':<11}" + "".join(f"{calls:>9}" for calls in CALLS))
        for name, make in STEPPERS.items():
            stepper = make()
            if stepper.stochastic or stepper.order is None or stepper.calls is None:
                continue
            for grid in ("flow", "power", "karras", "logsnr", "uniform", "quadratic"):
                row = []
                for calls in CALLS:
                    steps = 1 + (calls - 1) // stepper.calls  # the last step is one call
                    x = ornstein.sample(den, shape, stepper=name, steps=steps, grid=grid, seed=0, dtype=torch.float64)
                    row.append((x - exact).norm(dim=1).mean().item())
                print(f"{name:<16}{grid:<11}" + "".join(f"{error:9.4f}" for error in row))
        print(
            f"{process}: sliced Wasserstein distance to exact draws (exact draws score {sliced(again, truth, g):.3f})"
        )
        for name, make in STEPPERS.items():
            if not make().stochastic or make().order is None:
                continue
            for grid in ("flow", "power", "karras", "uniform"):
                row = []
                for calls in CALLS:
                    x = ornstein.sample(den, shape, stepper=name, steps=calls, grid=grid, seed=0)
                    row.append(sliced(x, truth, torch.Generator().manual_seed(2)))
                print(f"{name:<16}{grid:<11}" + "".join(f"{error:9.3f}" for error in row))


if __name__ == "__main__":
    main()
