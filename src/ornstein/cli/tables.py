"""Verbs of tables: rows drawn into a file, holes filled, rows scored."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ornstein.cli.shared import Average, Force, RunFolder, bar, claim, named, out
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    from ornstein.experiment.run import Run


def sample_rows(run: "Run", n: int, where: str | None, seed: int, steps: int | None, path: Path) -> None:
    """Draw rows of a table into a file, piece by piece."""
    from ornstein.data.delimited import formulas
    from ornstein.experiment.cells import Where, draw_rows, must_be_table
    from ornstein.experiment.rows import write_rows

    tokens, types = must_be_table(run)
    asked = None if where is None else Where.of(where, tokens, types)
    began = time.perf_counter()
    with bar("drawing") as progress:
        write_rows(run, path, draw_rows(run, n, asked, seed=seed, steps=steps, progress=progress))
    out.print(f"{n:,} rows in {time.perf_counter() - began:.1f} s: [bold]{named(path)}[/]")
    if path.suffix != ".parquet" and (warning := formulas(types)):
        out.print(f"[yellow]note[/]     {named(warning)}")


def impute(
    run: RunFolder,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A table with holes: .csv, .csv.gz, .tsv or .parquet.")],
    path: Annotated[
        Path, typer.Option("--out", "-o", help="The table with its holes filled; NAME.holes.csv lists every draw.")
    ],
    n: Annotated[int, typer.Option("-n", "--count", help="How many draws of each hole.")] = 19,
    seed: Annotated[int, typer.Option(help="Draw i of a seed is the same whatever else is drawn.")] = 0,
    ema: Average = None,
    force: Force = False,
) -> None:
    """Fill the holes of a table from the model's law, given what each row has.

    Every cell that is there comes back to the letter. A hole gets the middle of its draws (the most frequent word), and
    NAME.holes.csv has all of them: the range of 19 draws holds the truth nine times of ten.

    Examples:

        ornstein impute runs/adult people.csv --out filled.csv
    """
    if n < 1:
        raise InputError(f"n={n} must be at least 1.")
    from ornstein.experiment.rows import fill, holes_of, is_table, read_rows
    from ornstein.experiment.run import Run

    if not is_table(path):
        raise InputError(f"out='{shown(path)}' must be a table, such as filled.csv.")
    claim(run, [path, holes_of(path)], force, [data])
    opened = Run.load(run, ema=ema)
    rows = read_rows(opened, data)
    with bar("drawing") as progress:
        filled = fill(opened, rows, n, seed, progress)
    beside = filled.save(path)
    holes = filled.holes
    out.print(
        f"{int(holes.sum()):,} holes in {int(holes.any(1).sum()):,} of {len(holes):,} rows: [bold]{named(path)}[/], "
        f"every draw in [bold]{named(beside)}[/]"
    )


def score_rows(run: "Run", data: str, count: int | None, seed: int, explain: bool, path: Path) -> None:
    """Score rows by the bound on their log-probability, rank them, and write that down."""
    import csv

    from ornstein.experiment import cells
    from ornstein.experiment.loglik import own
    from ornstein.experiment.rows import oddest, read_rows
    from ornstein.files import replacing

    values = own(run, data).x if data in ("train", "test") else read_rows(run, data).values
    values = values[:count]
    with bar("scoring") as progress:
        found, error = cells.score(run, values, seed=seed, progress=progress)
        why = oddest(cells.explain(run, values), run.types) if explain else None
    rank = found.argsort(stable=True).argsort() + 1
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "log_probability", "standard_error", "rank", *(["unusual"] if explain else [])])
        for i in range(len(values)):
            said = [i + 1, f"{found[i]:.4f}", f"{error[i]:.4f}", int(rank[i])]
            writer.writerow([*said, why[i]] if why is not None else said)
    out.print(
        f"{len(values):,} rows, on average {found.mean():.3f} nats: a bound on the log-probability of their known "
        f"cells, by {cells.ORDERS} orders of the columns"
    )
    for i in found.argsort()[:5].tolist():
        out.print(f"  row {i + 1:,}  {found[i]:.2f}" + (f"  {named(why[i])}" if why is not None else ""))
    out.print(f"[bold]{named(path)}[/]")
