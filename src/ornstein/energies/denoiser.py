"""An energy for every noise level, as a denoiser.

A score learned without constraint need not be the gradient of anything. If it is one, s = -grad_x E(x, t), it comes
with the density q_t up to its constant, exp(-E): densities of points can be compared, moves accepted or rejected by
Metropolis' rule, energies added (a product of experts; Du et al. 2023, 2302.11552) and normalised. The price is a
backward pass within each call, and in training a derivative of that.

Like the posterior mean, q_t depends only on y = x/alpha and u = sigma/alpha, up to a factor without x. So does

    E(x, t) = 1/2 |z|^2 + (s/u) N(z, log u),        z = x/sqrt(alpha^2 s^2 + sigma^2) = y/sqrt(s^2 + u^2),

with s the data's standard deviation. If N is zero, as for an untrained network, E is that of Gaussian data of this
standard deviation; and Tweedie's formula gives

    x0 = skip x - out grad_z N,    skip = alpha s^2/(alpha^2 s^2 + sigma^2),  out = sigma s/sqrt(alpha^2 s^2 + sigma^2),

so that -grad_z N is what the network of Karras et al. 2022 (2206.00364) predicts: the factor s/u keeps it of order one
at every level. The factor also makes E finite and Gaussian where no signal is left, and x0 finite at the clean point,
where E itself has no value.

N = <z, F(z, log u)> if the network's output F has x's shape (one of the energies of Salimans & Ho 2021, "Should EBMs
model the energy or the score?"); if the network returns one number for each sample, that is N itself. If its output is
bounded, such as a linear map of normalised features, |N| grows at most linearly: exp(-E) is then a density whatever the
weights, at every level above the clean point.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import NOISE_LEVEL_LIMIT, Denoiser, Reclocked
from ornstein.core.prediction import READINGS, Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError


@dataclass(frozen=True, eq=False)
class EnergyDenoiser(Denoiser):
    """A network as an energy E(x, t), whose score is -grad_x E; see the module.

    Args:
        net: `net(z, noise_level, parts)`: z (B, ...) of unit variance, noise_level (B,) = log(sigma/alpha) within
            [-12, 12], and the condition's parts, name -> tensor. Returns F of z's shape, or N, one number per sample.
            Twice differentiable (SiLU, not ReLU, which has no curvature to train with).
        process: the clock.
        sigma_data: the data's standard deviation in model space.
        noise_unit: what noise is measured in, if not in sigma_data.

    With gradients enabled they flow to the network's parameters, and to x if it requires them; under `torch.no_grad`,
    as in sampling, the backward pass inside is the only one and leaves no graph.

    Raises:
        InputError: sigma_data out of range; a network whose output is neither F nor N.
    """

    net: Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
    process: Process
    sigma_data: float = 1.0
    noise_unit: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma_data) and self.sigma_data > 0):
            raise InputError(f"sigma_data={self.sigma_data!r} must be positive: the data's standard deviation.")

    @property
    def device(self) -> torch.device:
        own = self.net.parameters() if isinstance(self.net, nn.Module) else iter(())
        return next((p.device for p in own), torch.device("cpu"))

    def on(self, process: Process) -> "EnergyDenoiser":
        """The same energy read on another process's clock: exact, and still an energy."""
        return replace(self, process=Reclocked(self, process).process)

    def energy(self, x: Tensor, t: "float | Tensor | Level", condition: Given = None) -> Tensor:
        """E(x, t) in nats, (B,): -log q_t(x) up to a number that depends on t and condition alone.

        Args:
            x: (B, ...) noisy data in model space.
            t: as for a call of the denoiser.
            condition: with B rows; see `Condition.of`.

        Raises:
            InputError: the clean point, t = 0, where the energy has no value; use the smallest level trained.
        """
        level = self.process.at(t, like=x)
        if isinstance(level.sigma, float) and level.sigma == 0.0:
            raise InputError("t=0 has no energy: use the smallest noise level that was trained.")
        z = self._scaled(x, level)
        # s/u, finite where alpha is zero
        weight = self.sigma_data * level.alpha / level.sigma
        if isinstance(weight, Tensor):
            weight = weight.flatten()
        return 0.5 * z.flatten(1).square().sum(1) + weight * self._potential(
            z, level, Condition.of(condition).matches(len(x), "x")
        )

    def energy_at(self, t: "float | Tensor | Level", condition: Given = None) -> Callable[[Tensor], Tensor]:
        """The energy at one time as a bare function x -> E(x, t), for `Moves`, `log_partition` and MALA."""
        return lambda x: self.energy(x, t, condition)

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        learning = torch.is_grad_enabled()
        # fused attention can be differentiated once, but not twice
        kernels = sdpa_kernel(SDPBackend.MATH) if learning else nullcontext()
        with torch.inference_mode(False), torch.enable_grad(), kernels:
            z = self._scaled(x if learning else x.detach(), level)
            if not z.requires_grad:
                z = (z.clone() if z.is_inference() else z).requires_grad_()
            n = self._potential(z, level, condition)
            slope = torch.zeros_like(z)
            if n.requires_grad:
                (slope,) = torch.autograd.grad(n.sum(), z, create_graph=learning, materialize_grads=True)
        skip, out = READINGS["edm"](level, self.sigma_data)
        return Prediction(skip * x - out * slope, x, level)

    def _scaled(self, x: Tensor, level: Level) -> Tensor:
        """z, in float32 at least."""
        c_in = ((level.alpha * self.sigma_data) ** 2 + level.sigma * level.sigma) ** -0.5
        return c_in * x.to(torch.promote_types(x.dtype, torch.float32))

    def _potential(self, z: Tensor, level: Level, condition: Condition) -> Tensor:
        """N of each sample, (B,)."""
        told = -0.5 * level.log_snr
        if isinstance(told, Tensor):
            told = told.flatten().clamp(-NOISE_LEVEL_LIMIT, NOISE_LEVEL_LIMIT)
        else:
            told = z.new_full((len(z),), min(max(told, -NOISE_LEVEL_LIMIT), NOISE_LEVEL_LIMIT))
        weights = self.net.parameters() if isinstance(self.net, nn.Module) else iter(())
        own = next((p.dtype for p in weights if p.is_floating_point()), z.dtype)
        f = self.net(z.to(own), told.to(torch.promote_types(own, torch.float32)), condition.parts).to(z.dtype)
        if f.shape == z.shape:
            return (z * f).flatten(1).sum(1)
        if f.numel() == len(z):
            return f.reshape(len(z))
        raise InputError(
            f"net returns {tuple(f.shape)} for {tuple(z.shape)}; an energy needs an output of the same shape, or one "
            "number for each sample."
        )


def energy_denoiser(
    energy: Callable[[Tensor, Tensor, Condition], Tensor], process: Process, sigma_data: float = 1.0
) -> EnergyDenoiser:
    """The denoiser of an energy that is known as a function, for example a sum of others.

    Args:
        energy: `energy(y, u, condition) -> (B,)`, minus the log-density of y = x_0 + u eps up to a constant: y (B, ...)
            and u (B,), the noise level sigma/alpha, within exp(-12) to exp(12).
        process, sigma_data: as for `EnergyDenoiser`.
    """

    def net(z: Tensor, noise_level: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
        u = noise_level.exp()
        y = z * (sigma_data**2 + u**2).sqrt().reshape(-1, *[1] * (z.ndim - 1))
        return (energy(y, u, Condition(parts)) - 0.5 * z.flatten(1).square().sum(1)) * u / sigma_data

    return EnergyDenoiser(net, process, sigma_data)


def as_energy(denoiser: Denoiser) -> EnergyDenoiser:
    """The denoiser, if it is an energy.

    Raises:
        InputError: it is not.
    """
    if not isinstance(denoiser, EnergyDenoiser):
        raise InputError(
            "the objective learns an energy and needs an EnergyDenoiser (predicts=energy), not "
            f"{type(denoiser).__name__}."
        )
    return denoiser
