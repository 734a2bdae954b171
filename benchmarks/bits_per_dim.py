"""Bits per dimension of held-out images, by the variational bound and by the probability-flow ODE, on the same images.

    python benchmarks/bits_per_dim.py runs/mnist -n 200

The bounds are those of ancestral chains through the best `--steps` of 200 levels (Watson et al. 2021; chosen on
training images). The first is for the images themselves, with the discretised Gaussian decoder of Ho et al. 2020. The
second is for images with uniform noise within their levels: a density, which bounds the probability of a level. The
ODE's figure is a density of the same kind, so that these two can be compared.
"""

import math
from pathlib import Path

import common
import torch
from torch import Tensor

from ornstein.core.numerics import Estimate
from ornstein.distill.grid import best_grid
from ornstein.experiment.build import load_data
from ornstein.experiment.loglik import loglik
from ornstein.experiment.run import Run
from ornstein.objectives.bound import Bins
from ornstein.objectives.measured import step_costs, variational_bound, x0_errors


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    seen_first, levels = (512, 200) if not asked.quick else (32, 20)
    if asked.quick:
        asked.n, asked.steps = 8, 4
    run = Run.load(asked.run)
    assert run.transform.levels is not None, "bits per dimension are of quantised data"
    data = load_data(run.experiment)
    x, condition = data.test[: asked.n], data.test_condition[: asked.n]
    seen = data.train_condition[:seen_first]
    bins = Bins(run.transform.levels.count)

    def noisy(z: Tensor, seed: int) -> Tensor:
        """Uniform noise of a level's width."""
        u = torch.rand(z.shape, generator=torch.Generator().manual_seed(seed))
        return z + (2 * u - 1) / (bins.count - 1)

    def bound(z: Tensor, fit: Tensor, decoder: Bins | None) -> Tensor:
        errors = x0_errors(run.denoiser, fit, condition=seen, steps=levels, bins=decoder, seed=0)
        chosen, _ = best_grid(step_costs(run.denoiser.process, errors, "small"), asked.steps)
        found = variational_bound(run.denoiser, z, condition=condition, grid=errors.times[chosen], bins=decoder, seed=0)
        return found.bits_per_dim()

    z, fit = run.transform.forward(x), run.transform.forward(data.train[:seen_first])
    decoded = bound(z, fit, bins)
    spread = bound(noisy(z, 0), noisy(fit, 1), None) + math.log2((bins.count - 1) / 2)
    density = loglik(
        run, "test", count=asked.n, reference=0, conditional=bool(condition), trace="hutchinson", probes=2
    ).found.bits_per_dim
    print(f"bound, {asked.steps} steps, levels decoded  {Estimate.of(decoded)} bits/dim")
    print(f"bound, {asked.steps} steps, uniform noise   {Estimate.of(spread)} bits/dim")
    print(f"ODE, uniform noise              {Estimate.of(density)} bits/dim")
    print(f"ODE minus bound, uniform noise  {Estimate.of(density - spread)}")


if __name__ == "__main__":
    main()
