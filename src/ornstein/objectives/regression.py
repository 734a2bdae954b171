"""One regression, many names.

Every denoising objective in use draws a time t, noises the data, asks the denoiser for x0, and takes a weighted
squared error,

    loss = w(t) |x0_hat(x_t, t) - x0|^2 / d,       x_t = alpha x0 + sigma eps,

averaged over the d elements of a sample, of those that were seen (`ornstein.core.gaps`). Its minimiser is
E[x_0 given x_t] whatever the weight and the density of times; they decide only where a network of finite size spends
its effort. Since the error of the output F is the error of x0 divided by |out| (see `ornstein.core.prediction`), the
papers differ in two columns of a table:

    name      regression of   weight w on x0                times            from
    ddpm      eps             SNR                           uniform          Ho et al. 2020 (2006.11239)
    score     sigma * score   SNR                           even in log-SNR  Song & Ermon 2019 (1907.05600)
    v         v               (alpha^2+sigma^2)^2/sigma^2   uniform          Salimans & Ho 2022 (2202.00512)
    edm       EDM's F         1/out_edm^2                   log-normal       Karras et al. 2022 (2206.00364)
    flow      velocity        1/out_velocity^2              uniform          Lipman et al. 2023 (2210.02747)
    min-snr   eps, capped     min(SNR, gamma)               uniform          Hang et al. 2023 (2303.09556)

with SNR = alpha^2/sigma^2. (For v, on a variance-preserving clock, the weight is SNR + 1.) What the network outputs,
`predicts` of `NetDenoiser`, is a separate choice: the gradient of a loss with respect to x0_hat does not depend on it.

Training with a share of conditions dropped teaches the conditional and the unconditional model at once, which is what
classifier-free guidance mixes (`ornstein.core.condition`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.gaps import mean_square
from ornstein.core.grids import ends
from ornstein.core.numerics import noise_like, strata
from ornstein.core.prediction import READINGS
from ornstein.core.process import Level, Number, Process
from ornstein.errors import InputError, lookup


def _uniform(objective: "Regression", process: Process, u: Tensor, sigma_data: float) -> Tensor:
    low, high = ends(process, sigma_data)
    return low + (high - low) * u


def _chain(objective: "Regression", process: Process, u: Tensor, sigma_data: float) -> Tensor:
    if process.chain is None:
        raise InputError(f"times='chain-uniform' draws levels of a chain, and {process} runs in continuous time.")
    return (u * process.chain).floor().clamp(max=process.chain - 1) + 1


def _log_snr(objective: "Regression", process: Process, u: Tensor, sigma_data: float) -> Tensor:
    low, high = (process.at(t).log_snr for t in ends(process, sigma_data))
    return process.time(low + (high - low) * u)


def _log_normal(objective: "Regression", process: Process, u: Tensor, sigma_data: float) -> Tensor:
    z = math.sqrt(2) * torch.erfinv(2 * u.clamp(1e-6, 1 - 1e-6) - 1)
    low, high = ends(process, sigma_data)
    return process.time(-2 * (objective.p_mean + objective.p_std * z)).clamp(low, high)


#: densities of training times, between the levels that samplers ask at: a map of uniform numbers in (0, 1) to times
TIMES: dict[str, Callable[["Regression", Process, Tensor, float], Tensor]] = {
    "uniform": _uniform,
    "chain-uniform": _chain,
    "log-snr": _log_snr,
    "log-normal": _log_normal,
}


@dataclass(frozen=True)
class Regression:
    """The one denoising regression. The presets of `OBJECTIVES` are this with their own defaults.

    Args:
        weight: the reading whose squared error is averaged (x0, eps, score, v, velocity, edm), or "min-snr".
        times: the density of training times: "uniform", "chain-uniform", "log-snr", "log-normal"; "auto" is uniform
            over the levels of a chain, or over continuous time.
        stratified: draw the times of a batch evenly spread, one per n-th of the density, which lowers the variance of
            the loss (Kingma et al. 2021, 2107.00630, appendix I.1).
        gamma: the cap of "min-snr".
        p_mean, p_std: mean and standard deviation of log(sigma/alpha) under "log-normal".
        drop_label: the probability of training a sample without its label.

    Raises:
        InputError: an unknown weight or density, numbers out of range.
    """

    weight: str = "eps"
    times: str = "auto"
    stratified: bool = True
    gamma: float = 5.0
    p_mean: float = -1.2
    p_std: float = 1.2
    drop_label: float = 0.1

    #: counts the cells that were seen, and no others
    gaps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        lookup({**READINGS, "min-snr": None}, self.weight, "weight")
        lookup({**TIMES, "auto": None}, self.times, "times")
        if not 0 <= self.drop_label <= 1:
            raise InputError(f"drop_label={self.drop_label!r} must be a probability in [0, 1].")
        for name in ("gamma", "p_std"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r} must be positive.")

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, and a condition of B rows."""
        t = self.draw_times(denoiser.process, len(x0), generator, denoiser.unit).to(x0.device)
        eps = noise_like(x0, generator)
        return self.loss_at(denoiser, x0, t, eps, Condition.of(condition).dropped(self.drop_label, generator))

    def draw_times(self, process: Process, n: int, generator: torch.Generator, sigma_data: float = 1.0) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator."""
        u = strata(n, generator, self.stratified)
        times = self.times
        if times == "auto":
            times = "uniform" if process.chain is None else "chain-uniform"
        return TIMES[times](self, process, u, sigma_data)

    def loss_at(self, denoiser: Denoiser, x0: Tensor, t: float | Tensor, eps: Tensor, condition: Given) -> Tensor:
        """The loss of each sample at given times with given noise, (B,)."""
        level = denoiser.process.at(t, like=x0)
        error = denoiser(level.noised(x0, eps), level, condition).x0 - x0
        return mean_square(error, x0, self.weight_at(level, denoiser.sigma_data), denoiser.gaps)

    def weight_at(self, level: Level, sigma_data: float) -> Number:
        """w, the weight on the squared error of x0, at a level."""
        if self.weight == "min-snr":
            snr = (level.alpha / level.sigma) ** 2
            return snr.clamp(max=self.gamma) if isinstance(snr, Tensor) else min(snr, self.gamma)
        return READINGS[self.weight](level, sigma_data)[1] ** -2


def ddpm(times: str = "auto", stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """Predict the noise with equal weight at every time: L_simple of Ho et al. 2020 (2006.11239)."""
    return Regression("eps", times, stratified, drop_label=drop_label)


def score(times: str = "log-snr", stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """Denoising score matching weighted by sigma^2, over noise even in log-SNR (Song & Ermon 2019, 1907.05600)."""
    return Regression("eps", times, stratified, drop_label=drop_label)


def v(times: str = "auto", stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """Predict v = alpha eps - sigma x0 with equal weight at every time (Salimans & Ho 2022, 2202.00512)."""
    return Regression("v", times, stratified, drop_label=drop_label)


def edm(p_mean: float = -1.2, p_std: float = 1.2, stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """EDM's loss: unit weight on its own output, log-normal noise levels (Karras et al. 2022, 2206.00364)."""
    return Regression("edm", "log-normal", stratified, p_mean=p_mean, p_std=p_std, drop_label=drop_label)


def flow(times: str = "auto", stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """Flow matching: regress the velocity with equal weight at every time (Lipman et al. 2023, 2210.02747)."""
    return Regression("velocity", times, stratified, drop_label=drop_label)


def min_snr(gamma: float = 5.0, times: str = "auto", stratified: bool = True, drop_label: float = 0.1) -> Regression:
    """Predict the noise, the weight of nearly clean levels capped at SNR = gamma (Hang et al. 2023, 2303.09556)."""
    return Regression("min-snr", times, stratified, gamma=gamma, drop_label=drop_label)
