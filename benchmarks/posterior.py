"""How far each method for inverse problems is from the exact posterior: the tables of docs/guidance.md.

The prior is a Gaussian mixture, whose denoiser is exact and whose posterior under a linear measurement is again a
Gaussian mixture, in closed form. So only the method is measured. The figures, for 4,000 samples each:

    mean        distance of the means, in units of the posterior's standard deviation
    covariance  Frobenius distance of the covariances, as a share of the posterior's
    weights     half the sum of the differences of the modes' shares (a sample belongs to its likeliest mode)
    sliced      sliced Wasserstein distance to exact draws

The last line has exact draws, judged in the same way: no method can beat them.

    python benchmarks/posterior.py [--quick]
"""

import common
import torch
from torch import Tensor

import ornstein
from ornstein.core.exact import Gaussian, GaussianMixture
from ornstein.guidance import GUIDANCE, Mask, Matrix, Measurement, RePaint, Replacement, exact_posterior
from ornstein.metrics import METRICS
from ornstein.samplers.ancestral import DDPM

COUNT, STEPS = 4000, 100
INVERSE = ["replacement", "dps", "pigdm", "moment-matching"]


def mixture(d: int, count: int) -> GaussianMixture:
    """Unequal, correlated components of unit overall scale."""
    g = torch.Generator().manual_seed(d)
    means = 1.2 * torch.randn(count, d, generator=g)
    factors = 0.6 * torch.randn(count, d, d, generator=g) / d**0.5
    weights = torch.rand(count, generator=g) + 0.3
    return GaussianMixture(weights, means, factors @ factors.mT + 0.01 * torch.eye(d))


def problems() -> dict[str, tuple[GaussianMixture, Measurement]]:
    """Name -> prior and measurement."""
    g = torch.Generator().manual_seed(0)
    single = Gaussian(torch.zeros(8), mixture(8, 1).covariance())
    priors = {"Gaussian, d = 8": single, "mixture, d = 2": mixture(2, 4), "mixture, d = 8": mixture(8, 5)}
    found = {}
    for name, prior in priors.items():
        x = prior.sample(1, generator=g)
        half = Mask(torch.arange(prior.d) % 2 == 0)
        found[f"{name}, half of the entries, no noise"] = prior, Measurement(half, half.apply(x))
        noise = 0.3
        line = Matrix(torch.randn(max(1, prior.d // 4), prior.d, generator=g) / prior.d**0.5)
        y = line.apply(x)
        y = y + noise * torch.randn(y.shape, generator=g)
        found[f"{name}, {len(line.matrix)} random projection(s), noise {noise}"] = prior, Measurement(line, y, noise)
    return found


def shares(x: Tensor, posterior: GaussianMixture) -> Tensor:
    """The share of x that belongs to each mode."""
    ones = torch.eye(len(posterior.weights), dtype=torch.float64)
    densities = []
    for k in range(len(ones)):
        # a little wider than the mode, since a measurement without noise makes that flat
        excess = posterior.spread[k] - posterior.rest[k]
        wide = torch.einsum("ir,r,jr->ij", posterior.basis[k], excess, posterior.basis[k])
        wide = wide + (posterior.rest[k] + 1e-3) * torch.eye(posterior.d)
        densities.append(Gaussian(posterior.means[k], wide).log_prob(x) + posterior.log_weights[k])
    return ones[torch.stack(densities, 1).argmax(1)].mean(0)


def errors(x: Tensor, posterior: GaussianMixture, draws: Tensor) -> list[float]:
    """The four figures."""
    covariance = posterior.covariance()
    x = x.double()
    mean = (x.mean(0) - posterior.mean()).norm() / covariance.trace().sqrt()
    spread = (x.T.cov() - covariance).norm() / covariance.norm()
    weights = (shares(x, posterior) - shares(draws, posterior)).abs().sum() / 2
    sliced = METRICS["sliced-wasserstein"]()(x.float(), draws, torch.Generator().manual_seed(2))
    return [mean.item(), spread.item(), weights.item(), float(sliced)]


def main() -> None:  # long: a table, line by line
    quick = common.arguments(__doc__).parse_args().quick
    count, steps, process = (100, 5, ornstein.VP()) if quick else (COUNT, STEPS, ornstein.VP())
    for name, (prior, measurement) in list(problems().items())[: 1 if quick else None]:
        posterior = exact_posterior(prior, measurement)
        shares_said = ", ".join(f"{w:.2f}" for w in posterior.weights.tolist())
        print(f"\n{name}; weights of the posterior's modes {shares_said}")
        print(f"{'method':<17}{'stepper':<9}{'calls':>6}{'mean':>9}{'covariance':>12}{'weights':>9}{'sliced':>9}")
        g = torch.Generator().manual_seed(1)
        draws, again = posterior.sample(count, generator=g), posterior.sample(count, generator=g)
        den, shape = prior.denoiser(process), (count, prior.d)
        rows: list[tuple[str, str, int, Tensor]] = []
        for method in INVERSE:
            guided = GUIDANCE[method](den, measurement)
            for stepper in ("dpm++2m", "ddpm"):
                x = ornstein.sample(guided, shape, stepper=stepper, steps=steps, seed=0)
                rows.append((method, stepper, steps, x))
        if measurement.noise == 0:
            for repeats in (1, 10):
                around, guided = RePaint(DDPM(), measurement, repeats), Replacement(den, measurement)
                x = ornstein.sample(guided, shape, stepper=around, steps=steps, seed=0)
                rows.append((f"repaint, {repeats}x", "ddpm", steps * repeats, x))
        rows.append(("exact draws", "", 0, again))
        for method, stepper, calls, x in rows:
            figures = errors(x, posterior, draws)
            print(f"{method:<17}{stepper:<9}{calls or '':>6}" + "".join(
                f"{figure:{width}.3f}" for figure, width in zip(figures, (9, 12, 9, 9), strict=True)
            ))  # fmt: skip


if __name__ == "__main__":
    main()
