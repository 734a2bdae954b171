"""The command for bridges: `translate`, which carries rows of one data set to the other."""

from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.shared import (
    Average,
    Force,
    OwnStepper,
    OwnSteps,
    RunFolder,
    Seed,
    bar,
    claim,
    claim_folder,
    err,
    named,
    out,
)
from ornstein.errors import InputError, shown


def translate(
    run: RunFolder,
    given: Annotated[
        Path,
        typer.Option("--input", "-i", help="A picture, a folder of pictures, or .npy or .npz in the data's own units."),
    ],
    path: Annotated[
        Path,
        typer.Option("--out", "-o", help="A .png picture, .npy or .npz arrays, or, without a suffix, a new folder."),
    ] = Path("translated.png"),
    back: Annotated[bool, typer.Option("--back", help="From the target's side to the source's.")] = False,
    film: Annotated[bool, typer.Option("--film", help="Also write the steps as an animation, .gif.")] = False,
    seed: Seed = 0,
    steps: OwnSteps = None,
    stepper: OwnStepper = None,
    ema: Average = None,
    force: Force = False,
) -> None:
    """Carry data from a bridge's source to its target, or back.

    Examples:

        ornstein translate runs/bridge --input moons.npy --out gaussians.npz --film

        ornstein translate runs/zebras --input horses --out as-zebras

        ornstein translate runs/zebras --input zebra.png --back --out horse.png
    """
    from ornstein.experiment.run import Run
    from ornstein.experiment.translate import SUFFIXES, bridge_of, carry, must_be_pictures, rows_of, save

    if path.suffix not in ("", *SUFFIXES):
        raise InputError(f"out='{shown(path)}' must end in {', '.join(SUFFIXES)}, or be a folder of pictures to make.")
    opened = Run.load(run, ema=ema).drawing()
    bridge_of(opened)
    claimed = [path.with_suffix(".gif")] if film else []
    if path.suffix:
        claimed.append(path)
    else:
        must_be_pictures(opened, path)
        claim_folder(path, force)
    claim(run, claimed, force, [given])
    start, read = rows_of(opened, given)
    if read.note:
        err.print(f"{read.name}: {read.note}", markup=False, soft_wrap=True)
    with bar("carrying") as progress:
        found = carry(
            opened, start, back=back, seed=seed, steps=steps, stepper=stepper, film=film, names=read.files,
            progress=progress,
        )  # fmt: skip
    save(opened, found, path)
    out.print(f"{len(start):,} carried {'back' if back else 'over'}: [bold]{named(path)}[/]")
    if film:
        opened.film(found.frames, path.with_suffix(".gif"))
        out.print(f"{len(found.frames)} frames: [bold]{named(path.with_suffix('.gif'))}[/]")
