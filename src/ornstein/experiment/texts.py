"""Uses of a model of text besides drawing: filling in blanks, and computing how many bits a text takes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.drive import sample_seeds
from ornstein.core.walk import end
from ornstein.data import Classes
from ornstein.data.array import read_rows
from ornstein.data.classes import MOST_CHARACTERS
from ornstein.discrete import Measured, measured
from ornstein.errors import InputError, shown
from ornstein.experiment.run import Run
from ornstein.files import read_text, regular, write_text

#: what stands between two texts in a file
BETWEEN = "\n" + "-" * 8 + "\n"


def draws_tokens(run: Run) -> bool:
    """Whether a run was trained on tokens of one size: a text, or pictures of few levels."""
    return isinstance(run.transform, Classes)


def must_be_tokens(run: Run) -> Classes:
    """The transform of a run on tokens of one size.

    Raises:
        InputError: it was trained on something else.
    """
    if not isinstance(run.transform, Classes):
        raise InputError(f"run={shown(run.folder)!r} was trained on {run.kind}s, and this is of tokens.")
    return run.transform


def blanks(run: Run, given: str) -> Tensor:
    """What is to be filled in, as numbers of classes with -1 for each blank: (1, tokens), or (1, characters) of a text.

    Args:
        given: a text with a blank, `ornstein.data.classes.BLANK`, for each character to draw; for pictures an .npy
            array of one picture's levels, with NaN or -1 for each pixel to draw.

    Raises:
        InputError: a run on no tokens; a text that is too long, or has a character that was not seen in training; a
            file that is absent, holds no picture of the run's shape, or levels that it has not.
    """
    classes = must_be_tokens(run)
    if run.transform.letters:
        return classes.read(given)
    file = regular(given, "--fill", "an .npy array of a picture's levels, NaN where to draw")
    values, _ = read_rows(file, run.shape, run.layout, missing=True)
    if len(values) != 1 or tuple(values.shape[1:]) != run.shape:
        raise InputError(f"--fill {shown(given)!r} holds {tuple(values.shape)}; one picture of {run.shape} it must be.")
    codes = values.float().nan_to_num(nan=-1.0)
    if bool(((codes != codes.round()) | (codes < -1) | (codes >= classes.count)).any()):
        raise InputError(
            f"--fill {shown(given)!r} has values from {float(codes.min()):g} to {float(codes.max()):g}; levels are "
            f"whole numbers from 0 to {classes.count - 1}, and NaN or -1 is a blank."
        )
    return codes.flatten(1).long()


def fill(
    run: Run,
    codes: Tensor,
    n: int,
    *,
    condition: Given = None,
    seed: int = 0,
    steps: int | None = None,
    stepper: object = None,
) -> Tensor:
    """Draw what is blank, n times, all else as it is: (n, width) in model space.

    What lies beyond the end of a shorter text is not asked for: zeros, unless the kernel has no mask.

    Args:
        codes: see `blanks`.
        n: how many answers.
        condition: what else is known, n rows.
        seed: answer i of a seed is the same whatever else is drawn.
        steps, stepper: instead of the run's own.
    """
    classes = must_be_tokens(run)
    run.must_hold(n)
    way, given = run.way(stepper, steps), Condition.of(condition)  # type: ignore[arg-type]
    until, tokens = codes.shape[1], classes.categories.tokens
    x = classes.categories.one_hot(torch.nn.functional.pad(codes, (0, tokens - until), value=-1))
    if steps is None and way.stepper.calls is None:  # exact in any number of steps, so in one: a call for each blank
        way = replace(way, steps=1)
    keys, found = sample_seeds(n, seed, None, None), []
    for rows in torch.arange(n).split(run.learner.at_once):
        start = {"seeds": keys[rows], "x": x.expand(len(rows), -1), "condition": given[rows], "until": until}
        found.append(end(run.learner.trajectory(run.denoiser, len(rows), way.stepper, way.steps, way.grid, **start)).x)
    return torch.cat(found).cpu()


def examples(run: Run, data: str, count: int | None = None) -> Tensor:
    """Examples (N, ...) in classes: of the run's own data, "train" or "test", or of a text file, cut in pieces.

    Raises:
        InputError: something else, a file that is too short or has characters that were not seen in training.
    """
    classes = must_be_tokens(run)
    if data in ("train", "test"):
        own = run.load_data()
        return (own.train if data == "train" else own.test)[:count]
    if not run.transform.letters:
        raise InputError(f"data={shown(data)!r} must be train or test, the run's own: it was trained on {run.kind}s.")
    text, long = read_text(regular(data, "data", "a text file, or train or test"), MOST_CHARACTERS), classes.space[0]
    pieces = [text[i : i + long] for i in range(0, len(text) - long + 1, long)][:count]
    if not pieces:
        raise InputError(f"data={shown(data)!r} has {len(text)} characters; a piece takes {long}.")
    return torch.cat([classes.read(piece, blanks=False) for piece in pieces])


def save_texts(texts: Sequence[str], path: Path) -> None:
    """Write texts to a file, with a line of dashes between two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, BETWEEN.join(texts) + "\n")


def save_bits(found: Measured, path: Path) -> None:
    """Write a CSV with the nats, and the bits of a token, of each example."""
    lines = [f"{i},{nats:.4f},{nats / (found.tokens * math.log(2)):.5f}" for i, nats in enumerate(found.each.tolist())]
    write_text(path, "\n".join(["example,nats,bits", *lines]) + "\n")


def bits(
    run: Run, codes: Tensor, *, seed: int = 0, draws: int = 4, progress: object = None, in_order: bool = True
) -> Measured:
    """The bound on how many bits examples (N, ...) take, in classes: of a character, or per dimension.

    Args:
        draws: shares at which each example is looked at; more make the error smaller.
        in_order: of a model that reads in order the bits that it takes so, of which there is no error by draws; False
            for the mean over all orders.

    Raises:
        InputError: a run on no tokens.
    """
    classes = must_be_tokens(run)
    x0, how = classes.forward(codes), {"draws": draws, "progress": progress, "in_order": in_order}
    return measured(run.denoiser, x0, seed, **how)  # type: ignore[arg-type]
