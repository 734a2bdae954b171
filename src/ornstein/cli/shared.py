"""What the verbs share: where they print, the options that several have, a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ornstein.errors import InputError

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `ornstein train` wrote, as runs/digits.")]
OwnSteps = Annotated[int | None, typer.Option(help="How many steps.", show_default="the run's own")]
OwnStepper = Annotated[
    str | None, typer.Option(help="How to step (`ornstein list steppers`).", show_default="the run's own")
]
Average = Annotated[
    float | None,
    typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
]


def options(pairs: list[str] | None, flag: str = "--with", example: str = "eta=0.5") -> dict[str, Any]:
    """The words NAME=VALUE of --with, or of another flag, as a mapping."""
    import yaml

    found = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{flag} {pair!r} must look like {example}.")
        found[name.strip()] = yaml.safe_load(text)
    return found


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silence elsewhere; called with (done, in all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as shown:
        task = shown.add_task(what)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Says what is being done, `stage(what)`, with a bar where its length is known, `progress(done, in all)`.

    On a terminal one line, which each stage takes over from the last; elsewhere a line a stage, so that a log tells
    what a long wait is for.
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
