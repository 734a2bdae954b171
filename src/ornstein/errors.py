"""Bad input, said in one sentence.

Whatever a person can get wrong (a name, a type, a file) raises `InputError` with a sentence that names the
field, the value and what would be accepted. The command line prints that sentence and exits with code 2;
every other exception is a bug of ours and keeps its traceback.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """What was asked for cannot be done; the message says why and what would be accepted."""


class PluginWarning(UserWarning):
    """An installed package adds something that cannot be used; the message says what, and it is left out."""


def lookup(table: Mapping[str, T], name: str, noun: str) -> T:
    """`table[name]`, or an `InputError` that suggests the nearest name.

    >>> lookup({"ddim": 1, "heun": 2}, "dim", "stepper")
    Traceback (most recent call last):
    ornstein.errors.InputError: stepper='dim' is not known; did you mean 'ddim'? Known: ddim, heun.
    """
    if name in table:
        return table[name]
    near = get_close_matches(str(name).lower(), table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"{noun}={name!r} is not known{hint} Known: {', '.join(table)}.")
