"""Denoisers: the one contract that every model here keeps.

A denoiser answers, for noisy data x at time t of its process, with the posterior mean E[x_0 given x_t = x]. Everything
is built on that answer: samplers walk along it, guidance is a denoiser made from a denoiser, an exact distribution
gives one in closed form, a network learns one.

One network serves every clock. Dividing x_t by alpha shows that E[x_0 given x_t] depends on x/alpha and sigma/alpha
alone: two processes with the same signal-to-noise ratio pose the same question at two scales. So
`denoiser.on(process)` is exact and free: find the denoiser's own time with that ratio, rescale x, ask. (Karras et al.
2022, 2206.00364, appendix C; Kingma et al. 2021, 2107.00630, section 5.1.)
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.prediction import OF_THE_NOISE, READINGS, Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError, lookup

#: |log(sigma/alpha)| is told to networks up to here: beyond, x_t is pure noise, or pure data, to float32
NOISE_LEVEL_LIMIT = 12.0
#: the part of a condition that says which cells of x were seen: 1 or 0 for each, of x's shape
SEEN = "seen"


class Scaled:
    """Base of whatever concerns data of some scale, beside which noise is large or small.

    Attributes:
        sigma_data: the standard deviation of the data in model space, about zero.
        noise_unit: what noise is measured in, if not in sigma_data: 1 in older runs.
    """

    sigma_data: float = 1.0
    noise_unit: float | None = None

    @property
    def unit(self) -> float:
        """What noise is measured in: grids, densities of training times and steppers read sigma/(alpha unit).

        Data that are all zero have no scale; for them it is 1.
        """
        return self.noise_unit or self.sigma_data or 1.0


class Denoiser(Scaled, ABC):
    """`(x, t, condition) -> Prediction`. To add one, write `predict`.

    Attributes:
        process: the clock that t is read on.
        sigma_data, noise_unit: the scale of the data, see `Scaled`.
        gaps: whether x may be NaN in some cells, which were not seen: the answer for the others is then given those
            seen (`ornstein.core.gaps`).
    """

    process: Process
    gaps: bool = False

    @abstractmethod
    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        """The prediction for x (B, ...) at `level`, given `condition`, which has B rows or no parts."""

    def __call__(self, x: Tensor, t: "float | Tensor | Level", condition: Given = None) -> Prediction:
        """Ask for E[x_0 given x_t = x].

        Args:
            x: (B, ...) noisy data in model space.
            t: one time for all, or (B,), in [0, t_max] of `process`; or a Level of it.
            condition: what to condition on, with B rows: a tensor, or named ones; see `Condition.of`.

        Raises:
            InputError: a time out of range; a condition that is none, or of another number of rows.
        """
        return self.predict(x, self.process.at(t, like=x), Condition.of(condition).matches(len(x), "x"))

    def features(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        """What its answer about x is read from, (B, places, features); x itself where nothing else is known.

        Of a network it is the input of its last layer.
        """
        return x.flatten(1)[:, None]

    def on(self, process: Process) -> "Denoiser":
        """The same denoiser on another process's clock; exact.

        The clock of the result stops where this denoiser's own does: at the noise ratio of `self.process.t_max`.
        """
        return Reclocked(self, process)

    def score_at(self, t: float | Tensor, condition: Given = None) -> Callable[[Tensor], Tensor]:
        """The score of q_t as a bare function x -> grad log q_t(x)."""
        return lambda x: self(x, t, condition).score

    @property
    def device(self) -> torch.device:
        """Where the denoiser expects its data."""
        return torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Around(Denoiser):
    """A denoiser made from a denoiser of the same data, where that has its own.

    Args:
        base: the denoiser that it is made from.
    """

    base: Denoiser

    @property
    def sigma_data(self) -> float:  # type: ignore[override]
        return self.base.sigma_data

    @property
    def noise_unit(self) -> float | None:  # type: ignore[override]
        return self.base.noise_unit

    @property
    def gaps(self) -> bool:  # type: ignore[override]
        return self.base.gaps

    @property
    def device(self) -> torch.device:
        return self.base.device

    def features(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        return self.base.features(x, level, condition)


@dataclass(frozen=True, eq=False)
class Reclocked(Around):
    """A denoiser read on another process's clock: see `Denoiser.on`."""

    process: Process

    def __post_init__(self) -> None:
        home, other = self.base.process, self.process
        end = home.at(home.t_max).log_snr
        if other.at(other.t_max).log_snr < end:
            cut = other.time(end)
            object.__setattr__(self, "process", dataclasses.replace(other, t_max=cut))  # type: ignore[type-var]

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        t = self.base.process.time(level.log_snr)
        home = self.base.process.at(t.flatten() if isinstance(t, Tensor) else t, like=x)
        # alpha_home/alpha, written so that it stays finite where no signal is left
        scale = ((home.alpha**2 + home.sigma**2) / (level.alpha**2 + level.sigma**2)) ** 0.5
        prediction = self.base.predict(x * scale, home, condition)
        return Prediction(prediction.x0, x, level)  # a learned variance belongs to the steps of its own clock


@dataclass(frozen=True, eq=False)
class FunctionDenoiser(Denoiser):
    """A denoiser from a function `(x, level, condition) -> x0`: guidance, teaching, tests."""

    function: Callable[[Tensor, Level, Condition], Tensor]
    process: Process
    sigma_data: float = 1.0
    gaps: bool = False

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        return Prediction(self.function(x, level, condition), x, level)


@dataclass(frozen=True, eq=False)
class NetDenoiser(Denoiser):
    """A network as a denoiser: x0 = skip x + out F, with F = net(c_in x, log(sigma/alpha), parts).

    c_in = 1/sqrt(alpha^2 sigma_data^2 + sigma^2) gives the network inputs of unit variance at every level, and
    depends, like the noise level that the network is told, on nothing but x/alpha and sigma/alpha.

    Args:
        net: `net(x, noise_level, parts) -> F` of x's shape; noise_level is (B,), log(sigma/alpha) within [-12, 12], and
            parts the condition's, name -> tensor. x comes in the type of the net's own parameters, noise_level too, but
            never below float32.
        process: the clock.
        predicts: what F means, a key of `READINGS`: x0, eps, score, v, velocity or edm.
        sigma_data: the data's standard deviation in model space.
        precision: type of the net's matrix products and convolutions; None for that of its parameters.
        learns_variance: the net gives twice as many channels (dimension 1): F, then the variance of the reverse
            transition, -1 for the posterior's own to 1 for the step's b^2 (see `Prediction.log_var`), not bounded.
        noise_unit: what noise is measured in, if not in sigma_data.
        gaps: x may be NaN in some cells; the net sees 0 there, and the part `SEEN` says which cells it sees.

    Raises:
        InputError: an unknown reading, or eps or score where the process ends without any signal, so that x0 does not
            follow from the noise.
    """

    net: nn.Module
    process: Process
    predicts: str = "v"
    sigma_data: float = 1.0
    learns_variance: bool = False
    precision: torch.dtype | None = None
    noise_unit: float | None = None
    gaps: bool = False

    def __post_init__(self) -> None:
        lookup(READINGS, self.predicts, "predicts")
        if not (math.isfinite(self.sigma_data) and self.sigma_data > 0):
            raise InputError(f"sigma_data={self.sigma_data!r} must be positive: the data's standard deviation.")
        if self.predicts in OF_THE_NOISE and self.process.at(self.process.t_max).noise_ratio > 1e6:
            raise InputError(
                f"predicts={self.predicts!r} cannot work with {self.process}, which ends without any signal: "
                "predict v, x0, velocity or edm, or stop the clock earlier with a smaller t_max."
            )

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    def features(self, x: Tensor, level: Level, condition: Condition) -> Tensor:
        last, found = getattr(self.net, "out", None), list[Tensor]()
        if not isinstance(last, nn.Module):
            return super().features(x, level, condition)
        listening = last.register_forward_pre_hook(lambda layer, given: found.append(given[0]))
        try:
            self.predict(x, level, condition)
        finally:
            listening.remove()
        # a linear layer reads the last axis, a convolution the second
        heard = found[0] if isinstance(last, nn.Linear) else found[0].movedim(1, -1)
        return heard.reshape(len(x), -1, heard.shape[-1]).to(torch.promote_types(x.dtype, torch.float32))

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        skip, out = READINGS[self.predicts](level, self.sigma_data)
        c_in = ((level.alpha * self.sigma_data) ** 2 + level.sigma * level.sigma) ** -0.5
        told = -0.5 * level.log_snr
        if isinstance(told, Tensor):
            told = told.flatten().clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)
        else:
            told = x.new_full((1,), min(max(told, -NOISE_LEVEL_LIMIT), NOISE_LEVEL_LIMIT))
        # networks may run in their own type, bfloat16 too; what is read off them never does
        own = next((p.dtype for p in self.net.parameters() if p.is_floating_point()), x.dtype)
        told = told.to(torch.promote_types(own, torch.float32)).expand(len(x))
        inputs, parts = c_in * x, condition.parts
        if self.gaps:
            seen = ~x.isnan()
            inputs, parts = torch.where(seen, inputs, 0.0), {**parts, SEEN: seen.to(own)}
        with torch.autocast(x.device.type, self.precision) if self.precision else nullcontext():
            f = self.net(inputs.to(own), told, parts)
        f = f.to(torch.promote_types(x.dtype, torch.float32))
        channels = x.shape[1] * (2 if self.learns_variance else 1)
        if f.shape[1] != channels:
            raise InputError(
                f"net gives {f.shape[1]} channels for {x.shape[1]}; learns_variance={self.learns_variance} wants "
                f"{channels}: build it with out_multiple={channels // x.shape[1]}."
            )
        log_var = None
        if self.learns_variance:
            f, variance = f.chunk(2, dim=1)
            log_var = (variance + 1) / 2
        # one pass less over the data where the coefficients are floats
        x0 = skip * x + out * f if isinstance(out, Tensor) else torch.add(skip * x, f, alpha=out)
        return Prediction(x0, x, level, log_var)
