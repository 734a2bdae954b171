"""Steppers by name: the table, and the two functions that draw with an entry of it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ornstein.core.denoiser import Denoiser
from ornstein.core.drive import Stepper
from ornstein.core.drive import trajectory as _trajectory
from ornstein.core.walk import State
from ornstein.samplers.ancestral import DDIM, DDPM
from ornstein.samplers.corrector import PredictorCorrector
from ornstein.samplers.exponential import DEIS, DPMpp2M, Multistep
from ornstein.samplers.flow import Euler, Heun
from ornstein.samplers.langevin import AnnealedLangevin, RecoveryLangevin
from ornstein.samplers.plms import PLMS
from ornstein.samplers.runge_kutta import RK4, Adaptive
from ornstein.samplers.sde import DPMpp2MSDE, EulerMaruyama, ReverseDiffusion
from ornstein.samplers.single_step import DPMSolver
from ornstein.samplers.table import STEPPERS, stepper_named
from ornstein.samplers.unipc import UniPC, UniPCAuto

_OURS: dict[str, type[Stepper]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "rk4": RK4,
    "adaptive": Adaptive,
    "euler-maruyama": EulerMaruyama,
    "reverse-diffusion": ReverseDiffusion,
    "dpm++2m": DPMpp2M,
    "dpm++2m-sde": DPMpp2MSDE,
    "dpm-solver": DPMSolver,
    "multistep": Multistep,
    "deis": DEIS,
    "unipc": UniPC,
    "unipc-auto": UniPCAuto,
    "plms": PLMS,
    "predictor-corrector": PredictorCorrector,
    "annealed-langevin": AnnealedLangevin,
    "recovery-langevin": RecoveryLangevin,
}

STEPPERS.update(_OURS)

#: what is used where nothing is said
DEFAULT_STEPPER = "unipc-auto"


def trajectory(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    stepper: str | Stepper = DEFAULT_STEPPER,
    steps: int = 50,
    **options: Any,
) -> Iterator[State[Tensor]]:
    """Walk from noise to data, yielding each `State`: the noise first, the samples last.

    Args:
        denoiser: whose distribution to draw from.
        shape: (B, ...) of what to draw.
        stepper: a key of `STEPPERS`, or a stepper such as `DDIM(eta=0.5)`.
        steps: how many steps.
        **options: grid, seed, seeds, generator, condition, x, dtype: see `ornstein.core.drive.trajectory`.

    Raises:
        InputError: anything that does not fit, in one sentence.
    """
    return _trajectory(denoiser, shape, stepper_named(stepper), steps=steps, **options)


def sample(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    stepper: str | Stepper = DEFAULT_STEPPER,
    steps: int = 50,
    progress: bool | Callable[[State[Tensor]], None] = False,
    **options: Any,
) -> Tensor:
    """Draw samples, (B, ...) in model space: the last state of `trajectory`, which takes the same arguments.

    Args:
        progress: True shows a bar; a function is called with each state.
    """
    states = trajectory(denoiser, shape, stepper=stepper, steps=steps, **options)
    if progress is True:
        from rich.progress import track

        states = track(states, description="sampling", total=steps + 1)  # type: ignore[assignment]
    for state in states:
        if callable(progress):
            progress(state)
    return state.x
