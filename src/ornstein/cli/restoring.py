"""Commands that draw what goes with a given sample: `inpaint`, `restore` and `interpolate`."""

from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.arrays import claim_picture, say_restored
from ornstein.cli.shared import (
    Average,
    Draws,
    Force,
    Given,
    GuidedStepper,
    InputFile,
    Known,
    Method,
    Noise,
    OwnStepper,
    Picture,
    RunFolder,
    Seed,
    Steps,
    bar,
    err,
    known_parts,
    named,
    options,
    out,
)
from ornstein.errors import shown


def inpaint(
    run: RunFolder,
    given: InputFile,
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where to fill in.", show_default="NaN in the input")
    ] = None,
    n: Draws = 8,
    method: Method = "pigdm",
    noise: Noise = 0.0,
    label: Known = None,
    parts: Given = None,
    seed: Seed = 0,
    steps: Steps = 50,
    stepper: GuidedStepper = "ddpm",
    ema: Average = None,
    path: Picture = Path("filled.png"),
    force: Force = False,
) -> None:
    """Fill in what is missing: the part of a picture under a mask, or the NaN in the rows of an array.

    Several answers are drawn, with their mean and standard deviation. What is known comes back exactly.

    Examples:

        ornstein inpaint runs/digits --input seven.png --mask hole.png --out filled.png

        ornstein inpaint runs/table --input rows-with-nan.npy -n 100
    """
    claim_picture(run, path, force, [given] if mask is None else [given, mask])
    from ornstein.experiment import restore as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    values = home.read_input(opened, given)
    home.check_shape(opened, values, given)
    known = values.isfinite()
    if mask is not None:
        known = known & home.read_mask(opened, mask)
    with bar("drawing") as progress:
        found = home.inpaint(
            opened, opened.transform.plain.forward(values).float(), known, draws=n, method=method, noise=noise,
            label=label, condition=known_parts(parts),
            seed=seed, steps=steps, stepper=stepper, progress=progress,
        )  # fmt: skip
    exact = values if noise == 0 else None
    say_restored(home.save(opened, found, path, exact), path, len(values), n)


def restore(
    run: RunFolder,
    operator: Annotated[str, typer.Option(help="What to undo: blur or downsample.")],
    given: InputFile,
    option: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="width=1.5, in pixels, for blur; by=2 for downsample."),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="The input is undamaged: damage it first, and show it beside the answers.")
    ] = False,
    n: Draws = 8,
    method: Method = "pigdm",
    noise: Noise = 0.01,
    label: Known = None,
    parts: Given = None,
    seed: Seed = 0,
    steps: Steps = 50,
    stepper: GuidedStepper = "ddpm",
    ema: Average = None,
    path: Picture = Path("restored.png"),
    force: Force = False,
) -> None:
    """Undo a blur or a loss of resolution: several answers, with their mean and standard deviation.

    Examples:

        ornstein restore runs/mnist --operator downsample --with by=4 --input small.png

        ornstein restore runs/mnist --operator blur --with width=2 --input sharp.png --clean
    """
    claim_picture(run, path, force, [given])
    from ornstein.experiment import restore as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    damage = home.damage(operator, options(option))
    values = home.read_input(opened, given, None if clean else home.measured_shape(opened, damage))
    with bar("drawing") as progress:
        found = home.restore(
            opened, damage, opened.transform.plain.forward(values).float(), clean=clean, draws=n,
            name=f"input='{shown(given)}'", method=method, noise=noise, label=label, condition=known_parts(parts),
            seed=seed, steps=steps,
            stepper=stepper, progress=progress,
        )  # fmt: skip
    say_restored(home.save(opened, found, path), path, len(found.samples), n)


def interpolate(
    run: RunFolder,
    first: Annotated[
        str, typer.Option("--from", help="The number of a held-out example, a picture, or an .npy file of one sample.")
    ],
    last: Annotated[str, typer.Option("--to", help="The same, for the other end.")],
    n: Annotated[int, typer.Option("-n", "--count", help="How many, with both ends.")] = 9,
    label: Known = None,
    parts: Given = None,
    steps: Steps = 50,
    stepper: OwnStepper = None,
    ema: Average = None,
    path: Picture = Path("between.png"),
    force: Force = False,
) -> None:
    """Turn one example into another through the noise that each comes from.

    Both are encoded by the probability-flow ODE, and points between them on the sphere are decoded. The picture has the
    inputs at its ends.

    Examples:

        ornstein interpolate runs/digits --from 3 --to 17

        ornstein interpolate runs/mnist --from a.png --to b.png -n 16
    """
    claim_picture(run, path, force, [Path(first), Path(last)])
    from ornstein.experiment import interpolate as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    opened.must_walk("interpolating")
    start, end = home.read_samples(opened, first, last)
    first_one, last_one = (opened.transform.forward(one).float() for one in (start, end))
    with err.status("encoding and decoding"):
        between = home.interpolate(
            opened, first_one, last_one, n, label=label, condition=known_parts(parts), steps=steps, stepper=stepper
        )
    beside = home.save(opened, start, end, between, path)
    out.print(f"{n} on the way: [bold]{named(path)}[/], [bold]{named(beside)}[/]")
