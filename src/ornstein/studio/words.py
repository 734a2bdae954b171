"""What a page says: the same thing in the terminal and in Python, and errors in a sentence."""

import os
import shlex
import sys
import traceback
from typing import Any

from ornstein.errors import InputError, shown
from ornstein.experiment import packaged
from ornstein.experiment.cells import draws_rows
from ornstein.experiment.run import Run
from ornstein.experiment.stream import Drawing, in_turn
from ornstein.studio.desk import Replaced, Stopped


def command(name: str, asked: Drawing, out: str) -> str:
    """The command that draws the same samples."""
    words = ["ornstein", "sample", name, "-n", str(asked.count)]
    pairs = {"--label": asked.label, "--where": asked.where, "--scale": asked.scale, "--stepper": asked.stepper}
    words += [word for key, value in pairs.items() if value is not None for word in (key, f"{value}")]
    words += [word for text in asked.text for word in ("--text", text)]
    words += [word for key, value in (asked.options or {}).items() for word in ("--with", f"{key}={value}")]
    words += [word for key, value in (asked.given or {}).items() for word in ("--given", f"{key}={value}")]
    for key, value in {"--steps": asked.steps, "--grid": asked.grid}.items():
        words += [] if value is None else [key, str(value)]
    return shlex.join([*words, "--seed", str(asked.seed), "--out", out])


def snippet(name: str, asked: Drawing, run: Run) -> str:
    """The lines of Python that draw the same samples."""
    lines = ["import ornstein"]
    if draws_rows(run):
        lines += ["from ornstein.experiment.cells import draw_rows, must_be_table"]
        lines += ["from ornstein.experiment.where import Where"] * (asked.where is not None)
        lines += ["", f"run = ornstein.load({name!r})"]
        where = "None" if asked.where is None else f"Where.of({asked.where!r}, *must_be_table(run))"
        fewer = "" if asked.steps is None else f", steps={asked.steps}"
        lines += [f"rows = next(draw_rows(run, {asked.count}, {where}, seed={asked.seed}{fewer}))"]
        return "\n".join(lines)
    options: dict[str, Any] = {"stepper": asked.stepper, "steps": asked.steps, "grid": asked.grid}
    said = [f"{key}={value!r}" for key, value in options.items() if value is not None]
    if asked.options:
        lines.append("from ornstein.experiment.build import stepper_with")
        said[0] = f"stepper=stepper_with({asked.stepper!r}, {dict(asked.options)!r})"
    lines += ["from ornstein.experiment.guide import guided"] * (asked.scale is not None)
    lines += ["", f"run = ornstein.load({name!r})"]
    lines += [f"run = guided(run, scale={asked.scale!r})"] * (asked.scale is not None)
    if asked.given:
        said.insert(0, f"condition={dict(asked.given)!r}")
    if asked.label is not None:
        said.insert(0, f"label={asked.label!r}")
    if asked.text:
        texts = asked.text[0] if len(asked.text) == 1 else in_turn(asked.text, asked.count)
        said.insert(0, f"text={texts!r}")
    elif run.conditions and not asked.given and asked.label is None:
        said.insert(0, f"condition=run.examples({asked.count})")
    lines.append(f"samples = run.sample({', '.join([str(asked.count), *said, f'seed={asked.seed}'])})")
    return "\n".join(lines)


def sentence(error: BaseException) -> str:
    """What went wrong, for the page: what a person can mend as it is; of our own faults the terminal has more."""
    if isinstance(error, InputError):
        return shown(error).replace(f"{packaged.HOME}{os.sep}", "")  # a carried model by its name, not where it lies
    if isinstance(error, Replaced):
        return "Stopped, since there is something newer from the same page or program."
    if isinstance(error, Stopped):
        return "Stopped."
    if isinstance(error, OSError) and error.strerror is not None:
        return f"The disk or a folder refuses: {error.strerror}."
    traceback.print_exception(error, file=sys.stderr)
    return "Something went wrong that is a fault of ornstein's own; the terminal that the studio runs in says more."
