"""The command that makes a student of a run: `distill`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ornstein import ranks
from ornstein.cli.shared import RunFolder
from ornstein.cli.training import train_into


def distill(
    run: RunFolder,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the student's experiment, as training.steps=4000."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="How to teach it (`ornstein list distillations`; docs/fewer-calls.md).")
    ] = "consistency",
    steps: Annotated[
        str, typer.Option(metavar="K,...", help="Numbers of network calls to draw in, one or several.")
    ] = "1,2,4",
    scale: Annotated[
        float, typer.Option(help="Guidance scale of the teacher, which the student then has built in.")
    ] = 1.0,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder to make.", show_default="runs/NAME-METHOD")
    ] = None,
) -> None:
    """Teach a student to draw in one, two or four network calls what a trained run draws in thirty.

    The student is a run like any other: sample and evaluate it, and continue it with `ornstein train --resume`.

    Examples:

        ornstein distill runs/digits --steps 1,2,4 --out runs/fast

        ornstein distill runs/mnist --method progressive --steps 2 --scale 2

        ornstein sample runs/fast --steps 2 -n 64
    """
    from ornstein.experiment.folder import holding
    from ornstein.experiment.students import numbers_of_calls, student_of

    calls = numbers_of_calls(steps)
    asked = student_of(run, method, calls, scale, changes or [])
    place = folder or Path("runs") / f"{run.name}-{method}"
    with holding(place, "training") if not ranks.rank() else nullcontext() as lock:
        train_into(asked, place, False, lock)
