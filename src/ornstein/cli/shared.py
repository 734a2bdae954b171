"""What the commands share: where they print, the options that several have, a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ornstein.errors import InputError, shown

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A folder that `ornstein train` wrote, as runs/digits; or a packaged model: digits, moons, adult.",
    ),
]
OwnSteps = Annotated[int | None, typer.Option(help="How many steps.", show_default="the run's own")]
OwnStepper = Annotated[
    str | None, typer.Option(help="How to step (`ornstein list steppers`).", show_default="the run's own")
]
Average = Annotated[
    float | None,
    typer.Option(help="Average of the weights, by length; 0 for the raw weights.", show_default="the run's own"),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]
Given = Annotated[
    list[str] | None,
    typer.Option("--given", metavar="NAME=VALUE", help="A part of the condition, in its own units, as price=12000."),
]

# of the verbs that draw under conditions
InputFile = Annotated[
    Path, typer.Option("--input", "-i", help="A picture, or .npy in the data's own units; NaN marks what is missing.")
]
Draws = Annotated[int, typer.Option("-n", "--count", help="How many answers to draw for each input.")]
Method = Annotated[str, typer.Option(help="pigdm, moment-matching, dps, replacement or repaint: see docs/guidance.md.")]
Known = Annotated[str | None, typer.Option("--label", help="The class of the input, if known: its number or its name.")]
Noise = Annotated[
    float, typer.Option(help="Standard deviation of the input's noise: pictures span -1 to 1, tables have deviation 1.")
]
Seed = Annotated[int, typer.Option(help="Random seed; draw i of a seed is the same whatever else is drawn.")]
Steps = Annotated[int, typer.Option(help="How many steps.")]
GuidedStepper = Annotated[str, typer.Option(help="How to step (`ornstein list steppers`).")]
Picture = Annotated[Path, typer.Option("--out", "-o", help="A .png picture; arrays go beside it.")]


def named(name: object) -> str:
    """A file's name, or any other words of the user's, escaped for Rich's markup."""
    from rich.markup import escape

    return escape(shown(name))


def claim(run: Path, places: Sequence[Path], force: bool, inputs: Sequence[Path] = ()) -> None:
    """Check that files may be written, before any work is done: no file of the user's is overwritten unasked.

    If a file exists, the user is asked on a terminal, and --force is needed elsewhere. Files in RUN/samples were made
    from the run and can be made again: they are replaced. The input of the work is never overwritten.

    Raises:
        InputError: a file, or a folder, is in the way.
    """
    drawn = run / "samples"
    ours = None if drawn.is_symlink() else os.path.realpath(drawn)
    for place in places:
        if drawn.is_symlink() and os.path.abspath(place.parent) == os.path.abspath(drawn):
            raise InputError(
                f"{shown(drawn)} is a link: what is drawn would land elsewhere; remove it, or name another --out."
            )
        for given in inputs:
            if os.path.realpath(place) == os.path.realpath(given):
                raise InputError(f"out='{shown(place)}' is the input: name another --out.")
        if place.is_dir():
            raise InputError(f"out='{shown(place)}' is a folder: name a file in it.")
        if above := next((above for above in place.parents if above.exists() and not above.is_dir()), None):
            raise InputError(f"out='{shown(place)}' cannot be: {shown(above)} is a file, not a folder.")
    there = [place for place in places if os.path.lexists(place) and os.path.realpath(place.parent) != ours]
    if not there or force:
        return
    names = " and ".join(shown(place) for place in there)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(f"out: {names} would be written over; add --force for that, or name another --out.")
    if not typer.confirm(f"Write over {names}?"):
        raise InputError(f"out: {names} stays as it is; name another --out.")


def claim_folder(path: Path, force: bool) -> None:
    """Check that pictures may be written into a folder: none that is there already is written into unasked.

    Raises:
        InputError: it is there, or a file is in its place.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"out='{shown(path)}' is a file: name a folder to make.")
    if path.exists() and not force:
        raise InputError(f"out='{shown(path)}' is there already; add --force to write into it, or name another.")


def options(pairs: list[str] | None, flag: str = "--with", example: str = "eta=0.5") -> dict[str, Any]:
    """The words NAME=VALUE of --with, or of another flag, as a mapping."""
    from ornstein.experiment.plain import parsed

    found: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{flag} '{shown(pair)}' must look like {example}.")
        if name.strip() in found:
            raise InputError(f"{flag} {shown(name.strip())} is given twice.")
        found[name.strip()] = parsed(text, f"{flag} '{shown(pair)}'")
    return found


def noise_ratios(text: str | None, flag: str, example: str) -> tuple[float, float] | None:
    """The words LOW,HIGH of a flag as two noise ratios; None if it was not given."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag} {shown(text)!r} must be two noise ratios, as {example}.") from None
    return low, high


def known_parts(given: list[str] | None) -> dict[str, Any]:
    """The words of --given as a mapping."""
    return options(given, "--given", "price=12000")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silence elsewhere; called with (done, in all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True,
        disable=not err.is_terminal,  # elsewhere it would leave an empty line
    ) as shown:  # fmt: skip
        task = shown.add_task(what)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Says what is being done, `stage(what)`, with a bar if its length is known, `progress(done, in all)`.

    On a terminal all stages share one line; elsewhere each has its own, so that a log explains a long wait.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def stage(what: str) -> None:
            if err.is_terminal:
                bar.reset(task, total=None, description=what)
            else:
                err.print(f"[dim]{what}[/]")

        yield stage, lambda done, total: bar.update(task, completed=done, total=total)
