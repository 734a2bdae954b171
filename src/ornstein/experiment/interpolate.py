"""From one example to another through the noise: encode both, rotate one latent into the other, decode points between.

The probability-flow ODE makes a one-to-one map of data to noise (Song et al. 2021, 2011.13456, section 4.3); walked
upwards it encodes, downwards it decodes. Latents are Gaussian, and a straight line between two Gaussian vectors passes
through vectors that are too short: so they are turned along the sphere (Shoemake 1985; White 2016, 1609.04468),

    z(w) = (sin((1-w) phi) z_a + sin(w phi) z_b)/sin phi,        phi the angle between them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.drive import sample_seeds
from ornstein.core.grids import times
from ornstein.core.walk import end
from ornstein.errors import InputError, shown
from ornstein.experiment.build import load_data
from ornstein.experiment.restore import check_shape, read_input
from ornstein.experiment.run import BATCH, Run
from ornstein.files import replacing_all
from ornstein.samplers import encode

#: data on the way: all are in one picture
_MOST = 4096


def turn(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Spherical interpolation of two latents (1, ...) by weights (n,) in [0, 1]: (n, ...)."""
    flat_a, flat_b = a.flatten(), b.flatten()
    angle = torch.acos((flat_a @ flat_b / (flat_a.norm() * flat_b.norm())).clamp(-1, 1))
    w = weights.to(a).reshape(-1, *[1] * (a.ndim - 1))
    if angle < 1e-4:  # the same direction: the straight line
        return (1 - w) * a + w * b
    return (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)


def interpolate(
    run: Run,
    first: Tensor,
    last: Tensor,
    n: int = 9,
    *,
    label: "int | str | None" = None,
    condition: Mapping[str, Any] | None = None,
    steps: int = 50,
    stepper: str | None = None,
) -> Tensor:
    """n points on the path from `first` to `last`, both included as decoded, (n, *shape) in model space, on the CPU.

    Args:
        run: the model.
        first, last: (1, *shape), model space.
        n: at least 2.
        label: the class to encode and decode with; None for none.
        condition: the other parts of the condition, by name, in the data's own units; see `Run.condition`.
        steps: up and down.
        stepper: to decode with, a deterministic one; by default the run's own.

    Raises:
        InputError: fewer than two, or inputs of another shape.
    """
    run.must_walk("interpolating")
    if not 2 <= n <= _MOST:
        raise InputError(f"n={n} must be from 2, the two ends, to {_MOST:,}.")
    run.must_hold(n)
    for given in (first, last):
        if tuple(given.shape) != (1, *run.learner.problem.shape):
            raise InputError(
                f"an input has shape {tuple(given.shape[1:])}; this run's data have {run.learner.problem.shape}."
            )
    # even in log-SNR, the clock of the integrators: a way up and down again is twice as true as on the default grid
    process, unit = run.denoiser.process, run.denoiser.unit
    # as times: what is encoded lies at the first of them, whatever its size
    grid = times(process, steps, None if process.chain else "logsnr", unit)
    way: dict[str, Any] = {"steps": steps, "grid": grid}
    latents = encode(run.denoiser, torch.cat([first, last]), condition=run.condition(2, label, condition), **way)
    between = turn(latents[:1], latents[1:], torch.linspace(0, 1, n))
    seeds, decoded = sample_seeds(n, 0, None, None), []
    for start in range(0, n, BATCH):
        x, keys = between[start : start + BATCH], seeds[start : start + BATCH]
        states = run.trajectory(len(x), label=label, condition=condition, stepper=stepper, seeds=keys, x=x, **way)
        decoded.append(end(states).x.cpu())
    found = torch.cat(decoded)
    if not bool(found.isfinite().all()):
        raise InputError(
            "what lies between is not finite: an end lies far outside the run's data, or it takes more steps."
        )
    return found


def read_samples(run: Run, *names: str) -> list[Tensor]:
    """Samples, (1, *shape) each in the data's own units: by numbers of held-out examples, or from files.

    Raises:
        InputError: a number that there is no example of; a file that cannot be read, or holds anything but one sample
            of the run's shape.
    """
    numbers = [name.isascii() and name.isdigit() for name in names]
    data = load_data(run.experiment, run.about, run.folder) if any(numbers) else None
    found = []
    for name, number in zip(names, numbers, strict=True):
        if number:
            assert data is not None
            if len(name) > 12 or int(name) >= len(data.test):
                raise InputError(f"example {name[:20]} must be below {len(data.test)}, the count of held-out examples.")
            if data.test[int(name)].isnan().any():
                raise InputError(f"example {name} of the held-out data has cells missing; choose a complete one.")
            found.append(data.test[int(name)][None])
        else:
            given = read_input(run, Path(name))
            check_shape(run, given, Path(name))
            if len(given) != 1:
                raise InputError(f"input='{shown(name)}' holds {len(given):,} samples; give one.")
            found.append(given)
    return found


def save(run: Run, first: Tensor, last: Tensor, between: Tensor, path: Path) -> Path:
    """A picture with the two inputs around what lies between, and the arrays beside it, in the data's own values.

    Args:
        first, last: (1, *shape) in own units, which come back as they are.
        between: (n, *shape) in model space.
    """
    own = {"first": first, "last": last, "between": run.transform.inverse(between, quantise=True)}
    beside = path.with_suffix(".npz")
    with replacing_all(path, beside) as (picture, place):
        with place.open("wb") as file:
            arrays = {name: run.layout.give_back(value).numpy() for name, value in own.items()}
            np.savez_compressed(file, allow_pickle=False, **arrays)
        row = torch.cat([run.transform.forward(first).float(), between, run.transform.forward(last).float()])
        run.picture(row, picture, len(row), ordered=True)
    return beside
