"""Commands for tables: draw rows into a file, score rows; and fill holes in any data."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ornstein.cli.arrays import fill_arrays
from ornstein.cli.series import fill_series
from ornstein.cli.shared import Average, Force, RunFolder, bar, claim, named, out
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    from ornstein.experiment.run import Run


def sample_rows(
    run: "Run", n: int, condition: Any, where: str | None, seed: int, steps: int | None, path: Path
) -> None:
    """Draw rows of a table into a file, piece by piece."""
    from ornstein.experiment.cells import draw_rows, must_be_table
    from ornstein.experiment.rows import write_rows
    from ornstein.experiment.where import Where

    tokens, types = must_be_table(run)
    asked = None if where is None else Where.of(where, tokens, types)
    began = time.perf_counter()
    with bar("drawing") as progress:
        write_rows(run, path, draw_rows(run, n, asked, seed=seed, steps=steps, condition=condition, progress=progress))
    out.print(f"{n:,} rows in {time.perf_counter() - began:.1f} s: [bold]{named(path)}[/]")
    _note_formulas(types, path)


def _note_formulas(types: Sequence[Any], *paths: Path) -> None:
    """Say which columns of a file of text spreadsheets would run as formulas."""
    from ornstein.experiment.rows import formulas

    if any(path.suffix.lower() != ".parquet" for path in paths) and (warning := formulas(types)):
        out.print(f"[yellow]note[/]     {named(warning)}")


def impute(
    run: RunFolder,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="The data: a .csv, .csv.gz, .tsv or .parquet with holes; or an .npy.")
    ],
    path: Annotated[
        Path, typer.Option("--out", "-o", help="The table with its holes filled, or .npz of the draws for an array.")
    ],
    n: Annotated[int, typer.Option("-n", "--count", help="How many draws of each hole.")] = 19,
    seed: Annotated[int, typer.Option(help="Random seed; draw i of a seed is the same whatever else is drawn.")] = 0,
    ema: Average = None,
    force: Force = False,
) -> None:
    """Fill holes by drawing from the model given what is known: in a table's rows, series, pictures and other arrays.

    Every known cell of a table comes back unchanged. A hole gets the median of its draws (of words the most frequent),
    and NAME.holes.csv has all of them: the range of 19 draws contains the true value nine times in ten. For series
    every draw is in NAME.npz. In an array NaN is filled, as by `inpaint`, which also takes pictures with a mask.

    Examples:

        ornstein impute runs/adult people.csv --out filled.csv

        ornstein impute runs/weather gaps.csv --out filled.csv

        ornstein impute runs/scans holes.npy --out filled.npz
    """
    if n < 1:
        raise InputError(f"n={n} must be at least 1.")
    from ornstein.experiment.rows import fill, holes_of, is_table, read_rows
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    if opened.about["data"].get("series"):
        fill_series(opened, data, n, seed, path, force)
        return
    if not opened.types:
        fill_arrays(opened, data, n, seed, path, force)
        return
    if not is_table(path):
        raise InputError(f"out='{shown(path)}' must be a table, such as filled.csv.")
    claim(run, [path, holes_of(path)], force, [data])
    rows = read_rows(opened, data)
    with bar("drawing") as progress:
        filled = fill(opened, rows, n, seed, progress)
    beside = filled.save(path)
    holes = filled.holes
    count, among = int(holes.sum()), len(holes)
    out.print(
        f"{count:,} hole{'s' * (count != 1)} in {int(holes.any(1).sum()):,} of {among:,} row{'s' * (among != 1)}: "
        f"[bold]{named(path)}[/], every draw in [bold]{named(beside)}[/]"
    )
    for note in filled.notes:
        out.print(f"[yellow]note[/]     {named(note)}")
    _note_formulas(rows.types, path, beside)


def score_rows(run: "Run", data: str, count: int | None, seed: int, explain: bool, path: Path) -> None:
    """Score rows by the bound on their log-probability, rank them, and write the scores."""
    from ornstein.experiment.rows import scored

    with bar("scoring") as progress:
        scores = scored(run, data, count, seed, explain, progress)
    scores.save(path)
    out.print(scores.text(), markup=False, soft_wrap=True)
    out.print(f"[bold]{named(path)}[/]")
    if explain:
        _note_formulas(run.types, path)
