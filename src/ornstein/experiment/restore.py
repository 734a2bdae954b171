"""Inverse problems with a run: what is missing, blurred or coarse in a picture, a row or a series, several times over.

A single answer hides that there are many. So the result is several draws of the posterior, with their mean and standard
deviation: where the draws agree the measurement decides, where they differ the model fills in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.drive import sample_seeds
from ornstein.core.numerics import normal
from ornstein.data.array import read_rows
from ornstein.data.before import read_for_model
from ornstein.data.pictures import SUFFIXES, read_pictures, sides
from ornstein.errors import InputError, shown
from ornstein.experiment import charts, pictures
from ornstein.experiment.arguments import choice_with, construct
from ornstein.experiment.folder import as_read
from ornstein.experiment.measured import check, decoded, must_restore, told
from ornstein.experiment.run import BATCH, Run
from ornstein.files import regular, replacing_all
from ornstein.guidance import Blur, Downsample, Mask, Operator
from ornstein.samplers import stepper_named

#: what a picture may have suffered, by name
DAMAGES: dict[str, Callable[..., Operator]] = {"blur": Blur, "downsample": Downsample}


@dataclass(frozen=True, eq=False)
class Restored:
    """Draws of what was measured.

    Attributes:
        samples: (rows, draws, *shape), model space, on the CPU.
        measured: (rows, *measured), model space; zero where a mask hides it.
        known: (rows, *shape), bool, for a mask; None otherwise.
        truth: (rows, *shape), model space, where it is known.
    """

    samples: Tensor
    measured: Tensor
    known: Tensor | None = None
    truth: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """(rows, *shape): the best single answer in mean square."""
        return self.samples.mean(1)

    @property
    def std(self) -> Tensor:
        """(rows, *shape): how far the draws differ."""
        return self.samples.std(1, correction=0)


def solve(
    run: Run,
    operator: Operator,
    y: Tensor,
    *,
    draws: int = 8,
    noise: float = 0.0,
    method: str = "pigdm",
    label: "int | str | None" = None,
    condition: Mapping[str, Any] | None = None,
    seed: int = 0,
    steps: int = 50,
    stepper: str | None = None,
    progress: Any = None,
) -> Restored:
    """Draw from the posterior of each row of measurements y = A x + noise.

    Args:
        run: the model of x, or of its latents, which are then measured as they are decoded.
        operator: A; a mask may have a row for each row of y.
        y: (rows, *measured), model space.
        draws: how many for each row.
        noise: standard deviation of the noise, model space (pictures span -1..1, tables have deviation 1).
        method: one of `measured.METHODS`.
        label: the class that x is known to be of.
        condition: what else is known of it, by name, in the data's own units; see `Run.condition`.
        seed, steps: as for drawing.
        stepper: by default "ddpm", whose fresh noise corrects errors of guidance at higher noise (docs/guidance.md).
        progress: called with (done, in all).

    Raises:
        InputError: anything that does not fit.
    """
    check(run, method, operator)
    if draws < 1:
        raise InputError(f"n={draws} must be at least 1, the draws for each row.")
    run.must_hold(draws, "draws", len(y))
    row = torch.arange(len(y)).repeat_interleave(draws)
    seeds = sample_seeds(len(row), seed, None, None)
    inner = stepper_named(stepper or "ddpm")
    found = []
    for start in range(0, len(row), BATCH):
        part = row[start : start + BATCH]
        here = Mask(operator.known[part]) if isinstance(operator, Mask) else operator
        knowing, chosen = told(run, method, here, y[part], noise, inner)
        drawn = knowing.draw(
            len(part),
            label=label,
            condition=condition,
            seeds=seeds[start : start + BATCH],
            steps=steps,
            stepper=chosen,
        )
        found.append(drawn)
        if progress is not None:
            progress(start + len(part), len(row))
    samples = decoded(run, torch.cat(found)).unflatten(0, (len(y), draws))
    if not bool(torch.isfinite(samples).all()):
        raise InputError(
            "the draws are not finite: the input lies far outside the run's data, or it takes more steps, another "
            "method, or a larger noise."
        )
    return Restored(samples, y, operator.known if isinstance(operator, Mask) else None)


def inpaint(run: Run, given: Tensor, known: Tensor, **options: Any) -> Restored:
    """Fill in what is not known; complete rows come back unchanged, in every draw.

    Args:
        run: the model.
        given: (rows, *shape), model space; any value where not known.
        known: (rows, *shape) or (1, *shape), bool.
        **options: see `solve`.

    Raises:
        InputError: nothing is missing at all; what `solve` refuses.
    """
    mask, whole = Mask(known), given.nan_to_num()
    missing = ~known.flatten(1).all(1)
    if not bool(missing.any()):
        raise InputError("nothing is missing in the input: mark what to fill in with a mask, or NaN.")
    if bool(missing.all()):
        return solve(run, mask, mask.apply(whole), **options)
    found = solve(run, Mask(known[missing]), whole[missing] * known[missing], **options)
    samples = whole[:, None].repeat(1, found.samples.shape[1], *[1] * len(run.shape)).to(found.samples)
    samples[missing] = found.samples
    return Restored(samples, mask.apply(whole), known)


def restore(
    run: Run,
    operator: Operator,
    given: Tensor,
    *,
    clean: bool = False,
    noise: float = 0.01,
    name: str = "the input",
    **options: Any,
) -> Restored:
    """Undo a blur or a downsampling.

    Args:
        run: the model.
        operator: what happened to the input.
        given: (rows, *measured), model space: the damaged input; or (rows, *shape) with `clean`.
        clean: the input is undamaged: damage it first, noise included, as an experiment.
        noise: standard deviation of the noise, model space; rounding to 256 grey levels alone is 0.0023.
        name: what to call what is given in an error.
        **options: see `solve`.
    """
    measured = measured_shape(run, operator)
    wanted = run.shape if clean else measured
    if tuple(given.shape[1:]) != wanted:
        raise InputError(
            f"{name} has shape {_by(given.shape[1:])}; this run's data are {_by(run.shape)}, which {operator!r} "
            f"makes {_by(measured)}, so it must be {_by(wanted)}."
        )
    y = given
    if clean:
        y = operator.apply(given)
        seeds = sample_seeds(len(y), options.get("seed", 0) + 1, None, None)
        y = y + noise * normal(seeds, measured, 0, y.dtype)
    found = solve(run, operator, y, noise=noise, **options)
    return Restored(found.samples, y, None, given if clean else None)


def measured_shape(run: Run, operator: Operator) -> tuple[int, ...]:
    """The shape that an operator makes of one of the run's data.

    Raises:
        InputError: a run that is not drawn from by a walk of Gaussian noise; an operator that does not fit its data.
    """
    must_restore(run)
    return tuple(operator.apply(torch.zeros(1, *run.shape)).shape[1:])


def damage(name: str, options: Mapping[str, Any]) -> Operator:
    """The operator of `DAMAGES` of that name with its options.

    Raises:
        InputError: an unknown name, or options that it does not take.
    """
    made: Operator = construct(DAMAGES, choice_with(DAMAGES, name, options, "operator"))
    return made


def read_input(run: Run, path: Path, shape: tuple[int, ...] | None = None) -> Tensor:
    """A picture file, or an .npy array, as rows in the data's own units and the model's order of axes; NaN stays NaN.

    Args:
        shape: of a row, where it is not that of the run's data: to which pictures are resized if those were.

    Raises:
        InputError: a file that is absent, of another kind, or of the wrong number of axes or channels.
    """
    must_restore(run)
    shape = run.shape if shape is None else shape
    path = regular(path, "input", "a picture or an .npy array" if run.kind == "image" else "an .npy array")
    if path.suffix.lower() in (".npy", ".npz"):
        values, _ = read_rows(path, shape, run.layout, missing=True)
        try:
            run.transform.plain.forward(values)
        except InputError:  # features or channels that have each their own units
            raise InputError(
                f"input='{shown(path)}' has shape {tuple(values.shape)}; one sample of this run has shape {run.shape}."
            ) from None
        return values
    if run.kind != "image" or path.suffix.lower() not in SUFFIXES:
        kinds = "a picture or .npy" if run.kind == "image" else ".npy"
        raise InputError(f"input='{shown(path)}' must be {kinds}: this run draws {run.kind}s.")
    values, _ = read_for_model([path], shape, run.transform.plain, **as_read(run.experiment))
    return values


def longest_side(path: Path) -> int:
    """The longer side of a picture file, from its header alone; 0 for a file that is not a picture."""
    return max((max(height, width) for height, width, _ in sides([path])), default=0)


def read_mask(run: Run, path: Path) -> Tensor:
    """A black and white picture of what to fill in (white) as what is known, (1, *shape) bool.

    It is cropped and resized where the run's pictures were, as the input is that it goes with.

    Raises:
        InputError: not a picture, or of another size than the run's.
    """
    if run.kind != "image":
        raise InputError(f"mask='{shown(path)}' is for pictures; in {run.kind}s mark what is missing with NaN.")
    path = regular(path, "mask", "a picture that is white where to fill in")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"mask='{shown(path)}' is not a picture file; give one that is white where to fill in.")
    size = (run.shape[1], run.shape[2]) if as_read(run.experiment)["resized"] else None
    white = read_pictures([path], size, "L", lambda i: shown(path)) > 127
    if tuple(white.shape[2:]) != run.shape[1:]:
        raise InputError(
            f"mask='{shown(path)}' is {_by(white.shape[2:])}; this run's pictures are {_by(run.shape[1:])}."
        )
    return ~white.expand(1, *run.shape)


def check_shape(run: Run, given: Tensor, path: Path) -> None:
    """Raise `InputError` unless rows have the shape of the run's data."""
    if tuple(given.shape[1:]) != run.shape:
        raise InputError(f"input='{shown(path)}' is {_by(given.shape[1:])}; this run's data are {_by(run.shape)}.")


def save(run: Run, found: Restored, path: Path, given: Tensor | None = None) -> Path:
    """Write the picture to `path` and the arrays, in the data's own units, beside it; returns the arrays' path.

    The arrays, in the axes of the user's data: samples (rows, draws, *own), in the data's own values, their
    mean and std, and known for a mask.

    Args:
        given: (rows, *shape) in own units, what was filled in: what is known comes back from it, to the last bit. None
            where it was measured with noise, and so is not known for sure.
    """
    rows, draws = found.samples.shape[:2]
    own = run.transform.plain.inverse(found.samples.flatten(0, 1), quantise=True).unflatten(0, (rows, draws))
    arrays: dict[str, Tensor] = {}
    if found.known is not None:
        arrays["known"] = found.known.expand(rows, *run.shape)
    numbers = own if own.is_floating_point() else own.float()
    arrays |= {"samples": own, "mean": numbers.mean(1), "std": numbers.std(1, correction=0)}
    if found.known is not None and given is not None:
        known, told = arrays["known"], given if own.is_floating_point() else given.nan_to_num().to(own.dtype)
        arrays["samples"] = torch.where(known[:, None], told[:, None], own)
        arrays["mean"] = torch.where(known, told.to(numbers.dtype), arrays["mean"])
        arrays["std"] = arrays["std"].masked_fill(known, 0.0)
    arrays = {name: run.layout.give_back(value) for name, value in arrays.items()}
    beside = path.with_suffix(".npz")
    with replacing_all(path, beside) as (picture, place):
        with place.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: value.numpy() for name, value in arrays.items()})
        charts.save(_album(found) if run.kind == "image" else _curves(run, found), picture)
    return beside


def _by(shape: "tuple[int, ...] | torch.Size") -> str:
    return "x".join(map(str, shape))


def _album(found: Restored, most: int = 6) -> Any:
    """A row for each input: what was measured, the draws, their mean and their standard deviation."""
    from matplotlib.colors import to_rgb

    rows, draws = min(len(found.samples), most), min(found.samples.shape[1], 8)
    heads = [*(["truth"] if found.truth is not None else []), "measured"]
    heads += [f"draw {k + 1}" for k in range(draws)] + ["mean", "deviation"]
    height, width = found.samples.shape[-2:]
    side = 1.05
    figure = charts.canvas(side * len(heads), (side * height / width + 0.1) * rows + 0.25)
    axes = figure.subplots(rows, len(heads), squeeze=False)
    top = max(found.std.max().item(), 1e-6)
    for i in range(rows):
        shown = [] if found.truth is None else [found.truth[i]]
        shown += [found.measured[i], *found.samples[i, :draws], found.mean[i], found.std[i]]
        for place, head, image in zip(axes[i], heads, shown, strict=True):
            pixels = ((image + 1) / 2).clamp(0, 1).movedim(0, -1)
            if head == "deviation":
                place.imshow(image.mean(0).numpy(), cmap="magma", vmin=0, vmax=top, interpolation="nearest")
            else:
                pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].expand(-1, -1, 3)
                if head == "measured" and found.known is not None:
                    hidden = ~found.known[min(i, len(found.known) - 1)].all(0)
                    pixels = torch.where(hidden[..., None], torch.tensor(to_rgb(charts.ACCENT)), pixels)
                place.imshow(pixels.numpy(), interpolation="nearest")
            if i == 0:
                place.set_title(head, fontsize=8)
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
    return figure


def _curves(run: Run, found: Restored, most: int = 6) -> Any:
    """A panel for each row and channel: every draw as a line over the entries, mean and deviation, what was known.

    Fields and volumes, which are no lines, are cut as they are elsewhere: the first row alone.
    """
    own = run.transform.plain.inverse(found.samples.flatten(0, 1)).unflatten(0, found.samples.shape[:2])
    if len(run.shape) > 2:
        measured = own[:1, 0] if found.known is None else torch.where(found.known[:1], own[:1, 0], own[0].min())
        shown = torch.cat([measured] * (found.known is not None) + [own[0, :3], own[:1].mean(1)])
        called = ["known"] * (found.known is not None) + [f"draw {k + 1}" for k in range(len(own[0, :3]))] + ["mean"]
        return charts.chart(shown, names=pictures.channel_names(run.about["data"]), called=called)
    own = own.reshape(*own.shape[:2], -1, own.shape[-1])
    channels = own.shape[2]
    rows = min(len(own), max(1, most // channels))
    known = None if found.known is None else found.known.expand(len(own), *run.shape).reshape(own[:, 0].shape)
    figure = charts.canvas(7, 1.9 * rows * channels + 0.4)
    place = np.arange(own.shape[3])
    few = len(place) <= 32
    panels = figure.subplots(rows * channels, 1, squeeze=False)[:, 0]
    names = pictures.channel_names(run.about["data"]) if channels > 1 else None
    for i, (row, c) in enumerate((row, c) for row in range(rows) for c in range(channels)):
        axes, drawn = panels[i], own[row, :, c]
        mean, std = drawn.mean(0).numpy(), drawn.std(0, correction=0).numpy()
        told = np.zeros(len(place), bool) if known is None else known[row, c].numpy()
        axes.plot(place, drawn[:16].T.numpy(), color=charts.PALE, lw=0.7)
        if few:
            axes.errorbar(place[~told], mean[~told], std[~told], color=charts.ACCENT, fmt="o", ms=3, lw=1.2,
                          label="mean and deviation")  # fmt: skip
        else:
            axes.plot(place, mean, color=charts.ACCENT, lw=1.4, label="mean")
        if known is not None:
            axes.plot(place[told], mean[told], "o", color=charts.INK, ms=4 if few else 1.5, label="known")
        axes.spines[["top", "right"]].set_visible(False)
        if few:
            axes.set_xticks(place)
        channel = f", {names[c] if names else f'channel {c}'}" if channels > 1 else ""
        axes.set_ylabel(f"row {row}{channel}", fontsize=8)
    # the first panel need not have both kinds of points
    labels = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    panels[0].legend(labels.values(), labels.keys(), frameon=False, fontsize=8, ncols=2, loc="lower right",
                     bbox_to_anchor=(1, 1))  # fmt: skip
    panels[-1].set_xlabel("entry" if len(run.shape) == 1 else "place in the series")
    return figure
