"""What the commands that fill in or restore pictures and arrays share: a picture of the answers, arrays beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from ornstein.cli.shared import bar, claim, named, out
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    from ornstein.experiment.run import Run


def claim_picture(run: Path, path: Path, force: bool, inputs: list[Path]) -> None:
    """Check that the picture and the arrays beside it may be written."""
    if path.suffix != ".png":
        raise InputError(f"out='{shown(path)}' must end in .png; the arrays go beside it.")
    claim(run, [path, path.with_suffix(".npz")], force, inputs)


def say_restored(beside: Path, path: Path, rows: int, n: int) -> None:
    """Say what was written, and where."""
    out.print(f"{n} answers for {rows} input{'s' * (rows > 1)}: [bold]{named(path)}[/], [bold]{named(beside)}[/]")


def fill_arrays(run: "Run", data: Path, n: int, seed: int, path: Path, force: bool) -> None:
    """Fill the NaN of pictures and other arrays: every draw, their mean and deviation in an .npz, and a picture."""
    if path.suffix != ".npz":
        raise InputError(f"out='{shown(path)}' must end in .npz: {shown(run.folder)} was trained on {run.kind}s.")

    from ornstein.experiment import restore as home

    picture = path.with_suffix(".png")
    claim(run.folder, [path, picture], force, [data])
    values = home.read_input(run, data)
    home.check_shape(run, values, data)
    known = values.isfinite()
    with bar("drawing") as progress:
        found = home.inpaint(
            run, run.transform.plain.forward(values).float(), known, draws=n, seed=seed, progress=progress
        )
    home.save(run, found, picture, values)
    holes, rows = int((~known).sum()), int((~known.flatten(1).all(1)).sum())
    out.print(
        f"{holes:,} holes in {rows:,} of {len(values):,} {run.kind}s: every draw, mean and deviation in "
        f"[bold]{named(path)}[/], a picture in [bold]{named(picture)}[/]"
    )
