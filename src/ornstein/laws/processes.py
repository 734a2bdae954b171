"""Laws of every process: that alpha and sigma are a clock, and that they agree with the noising that they describe."""

import itertools
import math
from collections.abc import Callable

import torch

from ornstein.core.grids import ends
from ornstein.core.process import Process
from ornstein.laws.broken import hold, near
from ornstein.laws.oracles import interior

F64 = torch.float64


def starts_at_the_data(p: Process) -> None:
    """alpha(0) = 1 and sigma(0) = 0, exactly."""
    zero = torch.zeros(1, dtype=F64)
    alpha, sigma = p.alpha(zero).item(), p.sigma(zero).item()
    hold(alpha == 1.0, f"alpha(0) = {alpha:.9g}; it must be 1.")
    hold(sigma == 0.0, f"sigma(0) = {sigma:.9g}; it must be 0.")
    hold(p.at(0.0).log_snr == math.inf, "log-SNR at t = 0 must be infinite.")


def loses_them_steadily(p: Process) -> None:
    """alpha/sigma falls strictly over the whole clock, and g^2 > 0 inside it."""
    even = torch.linspace(0, p.t_max, 20011, dtype=F64)
    early = p.t_max * torch.logspace(-9, 0, 4001, dtype=F64)
    for t in (even, early):
        log_snr = p.log_snr(t)
        hold(not log_snr.isnan().any(), f"log-SNR is not a number at t = {float(t[log_snr.isnan()][:1].sum()):.3g}.")
        falls = log_snr.diff() < 0
        where = float(t[1:][~falls][:1].sum())
        hold(falls.all(), f"alpha/sigma does not fall at t = {where:.3g}; it must, strictly, everywhere.")
        # strictly noisier at all times means g^2 > 0: the reverse equation is defined everywhere inside the clock
        levels = p.levels(t[1:-1][:: len(t) // 500])
        least = min(levels, key=lambda level: float(level.g2))
        hold(least.g2 > 0, f"g^2 = {least.g2:.3g} at t = {least.t:.3g}; it must be positive inside the clock.")


def keeps_its_digits(p: Process) -> None:
    """sigma is exact to its last digits near t = 0: computed by `torch.expm1` and the like, not from 1 - alpha^2."""
    # the fourth difference of a curve that is smooth in a log-log plot: without rounding errors it is of order h^4
    t = p.t_max * torch.logspace(-8, -4, 200, dtype=F64)
    h, weights = 1e-3, (1.0, -4.0, 6.0, -4.0, 1.0)
    parts = [w * p.sigma(t * math.exp(k * h)).log() for k, w in zip((-2, -1, 0, 1, 2), weights, strict=True)]
    rough = torch.stack(parts).sum(0).abs().nan_to_num(nan=torch.inf)
    worst = int(rough.argmax())
    hold(
        rough[worst] < 1e-10,
        f"sigma has lost digits near t = 0: a relative error of about {float(rough[worst]) / 8:.1g} at "
        f"t = {float(t[worst]):.2g}; write it so that small numbers stay exact (torch.expm1).",
    )


def rates_are_derivatives(p: Process) -> None:
    """The derivatives of alpha and sigma are those of finite differences."""
    t = interior(p, 25)
    h = (1e-4 * t).clamp(max=1e-3 if p.chain else math.inf)  # within one piece of the cubic
    alpha_rate, sigma_rate = (torch.as_tensor(rate) for rate in p._rates(t))
    for name, scale, rate in (("alpha", p.alpha, alpha_rate), ("sigma", p.sigma, sigma_rate)):
        near(f"the derivative of {name}", rate, (scale(t + h) - scale(t - h)) / (2 * h), rtol=1e-6, atol=1e-9)
    level = p.at(float(t[3]))
    for got, expected in zip(level.rates, (alpha_rate[3], sigma_rate[3]), strict=True):
        near("a derivative at a single time", got, expected, rtol=1e-12, atol=1e-12)


def kernels_compose(p: Process) -> None:
    """Going from s to t at once is the same as going by way of any u between."""
    times = [0.0, *interior(p, 7).tolist()]
    for s, u, t in itertools.combinations(p.levels(torch.tensor(times, dtype=F64)), 3):
        (a, b2), (a1, v1), (a2, v2) = t.kernel_from(s), u.kernel_from(s), t.kernel_from(u)
        near("the factor of a kernel", a, a1 * a2, rtol=1e-12, atol=1e-12)
        near("the variance of a kernel", b2, a2 * a2 * v1 + v2, rtol=1e-11, atol=1e-12)


def moments_follow_the_equation(p: Process) -> None:
    """dm/dt = f m and dV/dt = 2 f V + g^2, integrated by Simpson's rule, give back alpha and sigma^2."""
    start, stop = interior(p, 3)[:2].tolist()
    if p.chain:
        start, stop = math.floor(start) + 0.5, math.floor(start) + 0.9  # within one piece of the cubic
    n = 2000
    t = start * (stop / start) ** torch.linspace(0, 1, n + 1, dtype=F64)
    levels = p.levels(t.clamp(start, stop))
    f, g2 = (torch.tensor([getattr(level, name) for level in levels], dtype=F64) for name in ("f", "g2"))
    weights = torch.ones(n + 1, dtype=F64)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    by_log = t * weights * math.log(stop / start) / n / 3  # dt = t d log t
    drift = (f * by_log).sum().item()
    near("alpha by its drift", math.exp(drift), levels[-1].alpha / levels[0].alpha, rtol=1e-7, atol=1e-12)
    # V/m^2 grows by g^2/m^2
    m = torch.tensor([level.alpha for level in levels], dtype=F64)
    grown = (g2 / m**2 * by_log).sum().item()
    expected = levels[-1].noise_ratio ** 2 - levels[0].noise_ratio ** 2
    near("(sigma/alpha)^2 by its diffusion", grown, expected, rtol=1e-7, atol=1e-12)


def marginals_are_those_of_a_simulation(p: Process) -> None:
    """A forward process simulated from two points has mean alpha x_0 and variance sigma^2, at five times.

    Continuous time: Euler & Maruyama on dX = f X dt + g dB. A chain: its own kernels, level by level.
    """
    g = torch.Generator().manual_seed(7)
    n, steps = 3000, p.chain or 1000
    points = torch.tensor([[-0.6], [1.7]], dtype=F64)
    x = points.expand(2, n)
    times = torch.linspace(0, p.t_max if p.chain else 0.9 * ends(p)[1], steps + 1, dtype=F64)
    middles = p.levels((times[1:] + times[:-1]) / 2)
    levels = p.levels(times)
    for i, (s, t, middle) in enumerate(zip(levels, levels[1:], middles, strict=False), 1):
        z = torch.randn(2, n, generator=g, dtype=F64)
        if p.chain:
            a, b2 = t.kernel_from(s)
            x = a * x + math.sqrt(b2) * z
        else:
            dt = t.t - s.t
            x = x + middle.f * x * dt + math.sqrt(middle.g2 * dt) * z
        if i in (steps // 10, steps // 3, steps // 2, (4 * steps) // 5, steps):
            # five standard errors, plus the bias of the steps in continuous time
            off = (x.mean(1, keepdim=True) - t.alpha * points).abs().max()
            allowed = 5 * t.sigma / math.sqrt(n) + 0.01 * t.alpha
            hold(off < allowed, f"the mean at t = {t.t:.3g} is off by {float(off):.3g}; {allowed:.3g} would be chance.")
            ratio, allowed = x.var(1) / t.sigma**2, 5 * math.sqrt(2 / n) + 0.02
            worst = float(ratio[(ratio - 1).abs().argmax()])
            hold(
                abs(worst - 1) < allowed,
                f"the variance at t = {t.t:.3g} is {worst:.3g} times sigma^2; 1 within {allowed:.2g} would be chance.",
            )


def time_inverts_log_snr(p: Process) -> None:
    """The time of a log-SNR has that log-SNR, over the whole clock."""
    t = torch.cat([interior(p, 31), torch.tensor([1e-6, 1e-3, 1 - 1e-3], dtype=F64) * p.t_max])
    log_snr = p.log_snr(t)
    back = p.time(log_snr)
    assert isinstance(back, torch.Tensor)
    near("the time of a log-SNR", back, t, rtol=1e-9, atol=1e-12 * p.t_max)
    near("the log-SNR of its time", p.log_snr(back), log_snr, atol=1e-9)
    for one, value in zip(t[::6].tolist(), log_snr[::6].tolist(), strict=True):  # a float gives a float, as exact
        near("the time of a log-SNR, one at a time", p.time(value), one, rtol=1e-9, atol=1e-12 * p.t_max)
        near("the log-SNR of a time, one at a time", p.at(one).log_snr, value, rtol=1e-12, atol=1e-12)
    beyond = p.time(torch.tensor([[math.inf], [-math.inf]])).tolist()
    hold(beyond == [[0.0], [p.t_max]], f"infinite log-SNR lies at t = {beyond}; it must lie at the ends of the clock.")
    near("the time of a huge log-SNR", p.time(1e4), 0.0, atol=1e-15 * p.t_max)
    near("the time of a tiny SNR", p.time(-1e4), p.t_max, rtol=1e-15)


#: every coefficient of a level, except its rates
COEFFICIENTS = ("alpha", "sigma", "noise_ratio", "log_snr", "f", "g2", "inverse_alpha")


def finite_where_networks_are_asked(p: Process) -> None:
    """Every coefficient is finite at both ends of the range that grids use."""
    for t in ends(p):
        level = p.at(t)
        for what in COEFFICIENTS:
            hold(math.isfinite(getattr(level, what)), f"{what} is not finite at t = {t:.6g}, where a net is called.")
        hold(all(math.isfinite(rate) for rate in level.rates), f"a derivative is not finite at t = {t:.6g}.")
        hold(level.g2 > 0, f"g^2 = {level.g2:.3g} at t = {t:.6g}; it must be positive.")


LAWS: dict[str, Callable[[Process], None]] = {
    law.__name__.replace("_", "-"): law
    for law in (
        starts_at_the_data,
        loses_them_steadily,
        keeps_its_digits,
        rates_are_derivatives,
        kernels_compose,
        moments_follow_the_equation,
        marginals_are_those_of_a_simulation,
        time_inverts_log_snr,
        finite_where_networks_are_asked,
    )
}
