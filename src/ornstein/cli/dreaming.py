"""The command that optimises pictures, drawings or volumes under a run: `dream`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.shared import (
    Average,
    Force,
    Given,
    Picture,
    RunFolder,
    Seed,
    bar,
    claim,
    known_parts,
    named,
    noise_ratios,
    out,
)
from ornstein.cli.shared import options as options_of
from ornstein.errors import InputError, shown


def dream(
    run: RunFolder,
    what: Annotated[str, typer.Option("--as", help="What to optimise: pixels, strokes, or a volume.")] = "pixels",
    n: Annotated[int, typer.Option("-n", "--count", help="How many; of a volume, views of it at each step.")] = 4,
    label: Annotated[str | None, typer.Option(help="What it is to be: a class, by number or name.")] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help='What it is to be, as "red heart"; several: in turn.'),
    ] = None,
    given: Given = None,
    method: Annotated[
        str,
        typer.Option(help="annealed, sds, controlled, flow, particles or vsd: see docs/score-distillation.md."),
    ] = "annealed",
    scale: Annotated[float, typer.Option(help="How strongly to guide; 1 is the plain conditional model.")] = 1.0,
    noise: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="The least and the most noise, as sigma/(alpha sigma_data), as 0.05,20."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="count=64 or paper=-1, of strokes; side=32, of a volume."),
    ] = None,
    steps: Annotated[int, typer.Option(help="How many steps of optimisation.")] = 200,
    lr: Annotated[
        float | None, typer.Option(help="How far a step goes at first.", show_default="suits what is optimised")
    ] = None,
    seed: Seed = 0,
    ema: Average = None,
    path: Picture = Path("dream.png"),
    force: Force = False,
    film: Annotated[
        bool, typer.Option("--film", help="Also write the work, or a volume turned round, as an animation, .gif.")
    ] = False,
) -> None:
    """Optimise pixels, a drawing of strokes, or a volume until it looks to the run like what is asked for.

    Strokes are also written as .svg, all parameters as .npz.

    Examples:

        ornstein dream runs/emoji --text "red heart" --scale 3

        ornstein dream runs/emoji --text "red heart" --text "full moon face" -n 8 --scale 3 --method flow

        ornstein dream runs/emoji --as strokes --text "cat face" --scale 3 --film --out cat.png

        ornstein dream runs/solids --as volume --given solid=chair --given colour=red -n 8 --film --out chair.png
    """
    from ornstein.experiment import dream as home
    from ornstein.experiment.run import Run

    if path.suffix != ".png":
        raise InputError(f"out='{shown(path)}' must end in .png; what else is written goes beside it.")
    between = noise_ratios(noise, "--noise", "0.05,20")
    written = home.places(path, what, film)
    claim(run, written, force)
    opened = Run.load(run, ema=ema).drawing()
    words = [text[i % len(text)] for i in range(n)] if text and len(text) > 1 else text[0] if text else None
    began = time.perf_counter()
    with bar("dreaming") as progress:
        found = home.dreamed(
            opened, what, n, method=method, scale=scale, label=label, text=words, condition=known_parts(given),
            noise=between, steps=steps, lr=lr, seed=seed, options=options_of(option, example="count=64"), film=film,
            progress=progress,
        )  # fmt: skip
    home.save(opened, found, path)
    places = ", ".join(f"[bold]{named(place)}[/]" for place in written)
    out.print(f"{steps} steps in {time.perf_counter() - began:.1f} s: {places}")
