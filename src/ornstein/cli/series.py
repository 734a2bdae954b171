"""The command for series in time: `forecast`, what comes next and what came before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ornstein.cli.shared import Average, Force, RunFolder, bar, claim, named, out
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    from ornstein.experiment.run import Run


def forecast(
    run: RunFolder,
    given: Annotated[
        Path, typer.Argument(metavar="DATA", help="The series up to now: a table or array like the run's own.")
    ],
    after: Annotated[int, typer.Option("--steps", help="How many steps to draw after the last one.")] = 0,
    before: Annotated[int, typer.Option("--before", help="How many to draw before the first one, instead.")] = 0,
    n: Annotated[int, typer.Option("-n", "--count", help="How many futures to draw; the range of 19 holds 90 %.")] = 19,
    seed: Annotated[int, typer.Option(help="Random seed; draw i of a seed is the same whatever else is drawn.")] = 0,
    ema: Average = None,
    path: Annotated[Path, typer.Option("--out", "-o", help="A .csv; all draws go beside it, .npz.")] = Path(
        "forecast.csv"
    ),
    force: Force = False,
) -> None:
    """Draw what comes after a series, or what came before it, several times over.

    The table has the median of the draws and their range, NAME_low to NAME_high, for each feature at each step.

    Examples:

        ornstein forecast runs/weather weather.csv --steps 24 -n 19 --out tomorrow.csv

        ornstein forecast runs/weather weather.csv --before 48 --out earlier.csv
    """
    if n < 1:
        raise InputError(f"n={n} must be at least 1.")
    if path.suffix != ".csv":
        raise InputError(f"out='{shown(path)}' must end in .csv.")

    from ornstein.experiment.run import Run
    from ornstein.experiment.series import complete
    from ornstein.experiment.series_files import save

    opened = Run.load(run, ema=ema)
    if not after and not before:
        raise InputError("say how far: --steps N after the last step, or --before N before the first one.")
    claim(run, [path, path.with_suffix(".npz")], force, inputs=[given])
    with bar("drawing") as progress:
        found = complete(opened, given, after, before, draws=n, seed=seed, progress=progress)
    save(opened, found, path)
    steps = int(found[0].track.listed.sum())
    out.print(
        f"{n} draws of {steps} steps of {len(found)} series: [bold]{named(path)}[/], "
        f"[bold]{named(path.with_suffix('.npz'))}[/]"
    )


def fill_series(run: "Run", data: Path, n: int, seed: int, path: Path, force: bool) -> None:
    """Fill the holes of series: the median of the draws with their range beside, and every draw in an .npz."""
    if path.suffix != ".csv":
        raise InputError(f"out='{shown(path)}' must end in .csv: {shown(run.folder)} was trained on series.")

    from ornstein.experiment.series import complete
    from ornstein.experiment.series_files import save

    claim(run.folder, [path, path.with_suffix(".npz")], force, inputs=[data])
    with bar("drawing") as progress:
        found = complete(run, data, draws=n, seed=seed, progress=progress)
    save(run, found, path)
    if shared := sum(one.track.shared for one in found):
        many = f"{shared:,} moment{'s' * (shared != 1)}"
        out.print(f"[yellow]note[/]     {many} of several rows: each is one row, with their mean")
    holes = sum(int(one.track.values[one.track.listed].isnan().sum()) for one in found)
    out.print(
        f"{holes:,} hole{'s' * (holes != 1)} in {len(found)} series: [bold]{named(path)}[/], every draw in "
        f"[bold]{named(path.with_suffix('.npz'))}[/]"
    )
