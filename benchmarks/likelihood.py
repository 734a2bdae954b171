"""Log-densities of Gaussian mixtures against closed form: ornstein, and the usual method with torchdiffeq.

The usual method, as in common libraries (Song et al. 2021, 2011.13456, appendix D.2), solves the probability-flow ODE
of the variance-preserving process in its own time, data and log-density together, by an adaptive Dormand-Prince solver
(torchdiffeq's dopri5) with one tolerance for the whole batch. The trace is either exact, with all backward passes in
one batched call, or Hutchinson's estimate with one probe for the whole flow. The distribution at the end is
N(0, alpha^2 s^2 + sigma^2); in the rows "true end" it is the mixture's own, which is unknown for a network, so that
only the error of the solver is left. The method is implemented here from the formulas; without torchdiffeq its rows are
left out. Seconds are processor time, so that other work on the machine does not count; use one thread.

    OMP_NUM_THREADS=1 python benchmarks/likelihood.py     # pip install torchdiffeq beforehand, for the comparison
"""

import math
import time

import common
import frontier
import torch

import ornstein
from ornstein.core.exact import ExactDenoiser, GaussianMixture


def mixture(d: int) -> GaussianMixture:
    """Five unequal, correlated components in d dimensions."""
    g = torch.Generator().manual_seed(0)
    means = 1.2 * torch.randn(5, d, generator=g)
    factors = 0.25 * torch.randn(5, d, d, generator=g) / max(1.0, (d / 8) ** 0.5)
    return GaussianMixture(torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]), means, factors @ factors.mT + 0.01 * torch.eye(d))


def usual(
    denoiser: ExactDenoiser, x: torch.Tensor, exact: bool, tolerance: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """log p in nats (B,), the same with the true end, and the number of evaluations of the right-hand side."""
    from torchdiffeq import odeint

    d, calls = x.shape[1], 0
    probe = 2.0 * torch.randint(2, x.shape, generator=generator).to(x) - 1
    identity = torch.eye(d, dtype=x.dtype)[:, None].expand(d, *x.shape)

    def slope(t: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            at = state[0].detach().requires_grad_()
            v = denoiser(at, float(t)).velocity
            if exact:
                (jacobian,) = torch.autograd.grad(v, at, identity, is_grads_batched=True)
                trace = jacobian.diagonal(dim1=0, dim2=2).sum(1)
            else:
                (product,) = torch.autograd.grad(v, at, probe)
                trace = (product * probe).sum(1)
        return v.detach(), trace

    start, end = 1e-5, 1.0
    when = torch.tensor([start, end], dtype=torch.float64)
    with torch.no_grad():
        states, traces = odeint(slope, (x, x.new_zeros(len(x))), when, rtol=tolerance, atol=tolerance, method="dopri5")
    level = denoiser.process.at(end)
    variance = float((level.alpha * denoiser.sigma_data) ** 2 + level.sigma**2)
    prior = -0.5 * (states[-1].square().sum(1) / variance + d * math.log(2 * math.pi * variance))
    return prior + traces[-1], denoiser.distribution.log_prob(states[-1], level) + traces[-1], calls


def main() -> None:  # long: two tables, each with its own columns
    quick = common.arguments(__doc__).parse_args().quick
    try:
        import torchdiffeq

        print(f"torchdiffeq {torchdiffeq.__version__}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    except ImportError:
        torchdiffeq = None
        print("torchdiffeq is not installed: the usual way is left out (pip install torchdiffeq)")
    for d, count in ((2, 10),) if quick else ((2, 1000), (16, 400), (64, 100)):
        mix = mixture(d)
        den = mix.denoiser(ornstein.VP())
        x = mix.sample(count, torch.Generator().manual_seed(1)).double()
        truth = mix.log_prob(x)
        print(f"\nd = {d}, {count} samples; log p is {truth.mean():.2f} nats on average")
        print(f"{'':<34}{'mean error':>12}{'largest':>10}{'seconds':>9}{'calls':>7}{'products':>10}{'covered':>9}")

        def row(name: str, found: torch.Tensor, seconds: float, calls: float, products: float, covered: str) -> None:
            error = (found - truth).abs()  # noqa: B023
            print(
                f"{name:<34}{error.mean():12.5f}{error.max():10.4f}{seconds:9.2f}{calls:7.0f}{products:10.0f}{covered:>9}",
                flush=True,
            )

        ornstein.log_likelihood(den, x[:2], tolerance=1.0)  # the first call of every operation of torch is slower
        for trace, probes, tolerance in (
            ("exact", 8, 0.01),
            ("exact", 8, 0.2),
            ("hutchinson", 2, 0.01),
            ("hutchinson", 8, 0.01),
            ("hutch++", 8, 0.01),
        ):
            began = time.process_time()
            found = ornstein.log_likelihood(den, x, trace=trace, probes=probes, tolerance=tolerance)
            seconds = time.process_time() - began
            error = (found.log_prob - truth).abs()
            covered = "" if trace == "exact" else f"{(error < 1.96 * found.standard_error + 0.005).double().mean():.0%}"
            name = f"ornstein exact, {tolerance:g} nats" if trace == "exact" else f"ornstein {trace}, {probes} probes"
            calls, products = found.calls.double().mean(), found.products.double().mean()
            row(name, found.log_prob, seconds, float(calls), float(products), covered)
        if torchdiffeq is None:
            continue
        longer = mix.denoiser(ornstein.VP(t_max=3.0))  # longer: the solver looks beyond the end of its interval
        for exact, tolerance in ((True, 1e-3), (True, 1e-4), (True, 1e-5), (True, 1e-6), (False, 1e-5)):
            began = time.process_time()
            log_prob, true_end, asked = usual(longer, x, exact, tolerance, torch.Generator().manual_seed(2))
            seconds = time.process_time() - began
            name = f"dopri5 {tolerance:.0e}, " + ("exact trace" if exact else "one probe")
            row(name, log_prob, seconds, asked, asked * (d if exact else 1), "")
            if exact:
                row(f"{name}, true end", true_end, seconds, asked, asked * d, "")
    few = 5 if quick else 200
    print(f"\nThe mixtures of frontier.py, exact, {few} samples each")
    print(f"{'':<34}{'mean error':>12}{'largest':>10}{'seconds':>9}{'calls':>7}")
    for name, make in list(frontier.PROBLEMS.items())[: 1 if quick else None]:
        mix = make()
        x = mix.sample(few, torch.Generator().manual_seed(1)).double()
        began = time.process_time()
        found = ornstein.log_likelihood(mix.denoiser(ornstein.VP()), x, trace="exact")
        seconds, error = time.process_time() - began, (found.log_prob - mix.log_prob(x)).abs()
        calls = found.calls.double().mean()
        print(f"{name:<34}{error.mean():12.5f}{error.max():10.4f}{seconds:9.2f}{calls:7.0f}", flush=True)


if __name__ == "__main__":
    main()
