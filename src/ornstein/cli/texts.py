"""Commands for text: print samples, fill in blanks, count bits."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ornstein.cli.shared import bar, named, out
from ornstein.errors import InputError, shown

if TYPE_CHECKING:
    from ornstein.experiment.run import Run

#: samples that are printed; the file has all of them
_PRINTED = 8


def say_texts(texts: list[str], path: Path) -> None:
    """Write texts to a file, with a line of dashes between them, and print the first few."""
    from ornstein.experiment.texts import BETWEEN, save_texts

    save_texts(texts, path)
    out.print(BETWEEN.join(texts[:_PRINTED]), markup=False, highlight=False, soft_wrap=True)


def fill_blanks(
    run: "Run", given: str, n: int, condition: Any, seed: int, stepper: Any, steps: int | None, path: Path
) -> None:
    """Fill the blanks of a text and print and write it; or those of a picture of few levels, and write it."""
    from ornstein.experiment.texts import blanks, fill

    text = bool(run.transform.letters)
    if (path.suffix == ".txt") != text:
        raise InputError(
            f"out='{shown(path)}' must end in {'.txt' if text else '.png or .npz'}: see what is filled in."
        )
    found = fill(run, blanks(run, given), n, condition=condition, seed=seed, stepper=stepper, steps=steps)
    if text:
        say_texts([drawn[: len(given)] for drawn in run.transform.texts(found)], path)
        return
    if path.suffix == ".npz":
        run.save_arrays(found, condition, seed, path)
    else:
        run.picture(found, path)
    out.print(f"{n} answers: [bold]{named(path)}[/]")


def say_bits(run: "Run", data: str, count: int | None, seed: int, draws: int, path: Path) -> None:
    """Print the bound on the bits that data take, and write that of each example."""
    from ornstein.experiment.texts import bits, examples, save_bits

    codes = examples(run, data, count)
    with bar("scoring") as progress:
        found = bits(run, codes, seed=seed, draws=max(draws, 4), progress=progress)
    unit = "character" if run.transform.letters else "dimension"
    save_bits(found, path)
    out.print(f"{len(codes):,} {run.kind}s of {data}, at most", markup=False)
    out.print(f"  {found.bits} bits per {unit}\n  {found.nats} nats each", markup=False, highlight=False)
    out.print(f"[bold]{named(path)}[/]")
