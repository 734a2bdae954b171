"""Using a bridge: rows of one data set carried to the other, in either direction, and how well that is done.

Each row is carried with its own noise, so that the result does not depend on other rows. *Back* is the
same bridge read from its other end (`Bridge.reversed`): nothing else is trained.

*How well.* Carried rows should have the target's distribution, which the 2-Wasserstein distance measures, here solved
exactly between equal numbers of points; and they should move little. The energy of a walk,

    E = the mean over rows of the integral of |velocity|^2 dt over the way down,

is never below the squared distance W^2 between source and target (Benamou & Brenier 2000), so |E - W^2|/W^2 says what
was wasted: the *normalised path energy* of Tong et al. 2023 (2302.00482). The velocity is that of the ODE with the
bridge's marginals, with noise on the way or without.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.bridge import Bridge, BridgeStepper, Bridging, crossing, path_energy
from ornstein.core.condition import SOURCE
from ornstein.core.drive import sample_seeds
from ornstein.data import Dataset
from ornstein.errors import InputError, shown
from ornstein.experiment import pictures
from ornstein.experiment.loglik import Given, read
from ornstein.experiment.run import Run
from ornstein.files import replacing
from ornstein.metrics import Wasserstein, compare

#: what a translation may be written as; without a suffix it is a folder of pictures
SUFFIXES = (".png", ".npz", ".npy")
#: rows whose way is kept for a film, and rows that the path energy is measured by
_FILMED, _MEASURED = 200, 1000


@dataclass(frozen=True, eq=False)
class Carried:
    """Rows that a bridge has carried.

    Attributes:
        start, samples: (N, *shape) model space, on the CPU.
        seeds: (N,), of each row's noise.
        frames: the path of the first rows, step by step; [] if it was not kept.
        names: of the files that the rows came from; None for an array.
    """

    start: Tensor
    samples: Tensor
    seeds: Tensor
    frames: list[Tensor] = field(default_factory=list)
    names: Sequence[str] | None = None


def bridge_of(run: Run, back: bool = False) -> Bridge:
    """The bridge that a run has learned, as it goes from its source to its target, or back.

    Raises:
        InputError: a run that has learned something else.
    """
    if not isinstance(run.learner, Bridging):
        raise InputError(
            f"run={str(run.folder)!r} is no bridge between two data sets; train one by ornstein train bridge "
            "data.source=... data.target=..."
        )
    bridge: Bridge = run.model
    return bridge.reversed() if back else bridge


def rows_of(run: Run, given: "str | Path") -> tuple[Tensor, Given]:
    """Rows to be carried, in model space, and what they were read as.

    Raises:
        InputError: what cannot be read, does not have the shape of the run's data, or is not complete.
    """
    bridge_of(run)
    found = read(run, given, "input")
    if tuple(found.x.shape[1:]) != run.shape:
        sizes = ["x".join(map(str, shape)) for shape in (tuple(found.x.shape[1:]), run.shape)]
        raise InputError(f"input={str(given)!r} has examples of shape {sizes[0]}; this bridge's have {sizes[1]}.")
    if not bool(found.x.double().isfinite().all()):
        raise InputError(f"input={str(given)!r} has values that are missing or infinite; give complete rows.")
    return run.transform.forward(found.x), found


def carry(
    run: Run,
    start: Tensor,
    *,
    back: bool = False,
    seed: int = 0,
    steps: int | None = None,
    stepper: "str | BridgeStepper | None" = None,
    film: bool = False,
    names: Sequence[str] | None = None,
    progress: Any = None,
) -> Carried:
    """Carry rows of the source to the target, or back.

    Args:
        start: (N, *shape) in model space.
        back: from the target to the source.
        seed: row i of a seed has the same noise whatever else is carried.
        steps, stepper: instead of the run's own.
        film: keep the path of the first `_FILMED` rows.
        names: of the rows' files.
        progress: called with (steps made, in all).

    Raises:
        InputError: a run that is no bridge; rows of another shape; settings that do not fit.
    """
    bridge, how = bridge_of(run, back), run.way(stepper, steps)  # type: ignore[arg-type]
    run.must_hold(len(start))
    seeds, size = sample_seeds(len(start), seed, None, None), run.learner.at_once
    found: list[Tensor] = []
    frames: list[list[Tensor]] = []
    total = math.ceil(len(start) / size) * how.steps
    for number, first in enumerate(range(0, len(start), size)):
        rows = slice(first, first + size)
        kept: list[Tensor] = []
        x = start[rows].to(bridge.device)
        for state in crossing(bridge, x, how.stepper, steps=how.steps, seeds=seeds[rows]):  # type: ignore[arg-type]
            if film and first < _FILMED:
                kept.append(state.x[: _FILMED - first].cpu())
            if progress is not None:
                progress(number * how.steps + state.step, total)
        found.append(state.x.cpu())
        frames += [kept] if kept else []
    way = [torch.cat(moment) for moment in zip(*frames, strict=True)]
    carried = Carried(start.cpu().float(), torch.cat(found), seeds, way, names)
    if not bool(carried.samples.isfinite().all()):
        raise InputError("what was carried is not finite: the model has diverged, or it needs more steps.")
    return carried


def save(run: Run, found: Carried, path: Path) -> None:
    """Write what was carried: a picture, arrays in the data's own units and order of axes, or a folder of pictures.

    .npz has samples, source and seeds; .npy the samples alone. A picture of one image is that image; a picture of
    several, or of other data, shows where each came from.

    Raises:
        InputError: a folder of pictures for data that are not pictures.
    """
    own = {"samples": found.samples, SOURCE: found.start}
    arrays = {name: run.layout.give_back(run.transform.inverse(x, quantise=True)).numpy() for name, x in own.items()}
    if path.suffix == ".npz":
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, seeds=found.seeds.numpy())
    elif path.suffix == ".npy":
        with replacing(path) as beside, beside.open("wb") as file:
            np.save(file, arrays["samples"], allow_pickle=False)
    elif path.suffix:
        if pictures.are_files(run.kind, run.shape) and len(found.samples) == 1:
            pictures.save_each(found.samples, run.transform, path.parent, [path.stem])
        else:
            run.picture(found.samples, path, start=found.start)
    else:
        must_be_pictures(run, path)
        names = found.names or [f"{i:05d}" for i in range(len(found.samples))]
        pictures.save_each(found.samples, run.transform, path, [str(Path(name).with_suffix("")) for name in names])


def must_be_pictures(run: Run, path: Path) -> None:
    """Refuse a folder of pictures for data that are not pictures.

    Raises:
        InputError: see above.
    """
    if not pictures.are_files(run.kind, run.shape):
        raise InputError(
            f"out='{shown(path)}' must end in {', '.join(SUFFIXES)}: this run carries {run.kind}s, of which there is "
            "no folder of pictures."
        )


@torch.no_grad()
def scored(run: Run, data: Dataset, drawn: Tensor, dice: torch.Generator) -> dict[str, Any]:
    """How well a bridge carries: the distance to the target beside its floor, and the energy that it spends.

    Args:
        data: the run's own.
        drawn: (N, *shape) model space, carried from held-out rows of the source.

    Returns:
        wasserstein: a Score, in units of model space. path_energy, transport: E and W^2 of the module, per row;
        wasted: (E - W^2)/W^2.
    """
    assert data.far is not None
    near, far = data.transform.forward(data.train), data.transform.forward(data.far.test)
    held_out = data.transform.forward(data.test)
    distance = compare(Wasserstein(), drawn.float(), near, held_out, dice, repeats=5, most=_MEASURED)
    rows = min(_MEASURED, len(far), len(held_out))
    bridge = bridge_of(run)
    energy = float(path_energy(bridge, far[:rows].to(bridge.device), seed=0).mean())
    transport = Wasserstein()(far[:rows], held_out[:rows], dice) ** 2
    return {"wasserstein": distance, "path_energy": energy, "transport": transport,
            "wasted": (energy - transport) / transport}  # fmt: skip
