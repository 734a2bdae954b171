"""Bad input, said in one sentence.

Whatever a user can get wrong (a name, a type, a file) raises `InputError` with a sentence that names the
field, the value and what would be accepted. The command line prints that sentence and exits with code 2;
every other exception is a bug in ornstein and keeps its traceback.
"""

import math
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
    if isinstance(name, str) and name in table:
        return table[name]
    near = get_close_matches(str(name).lower(), table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"{noun}={name!r} is not known{hint} Known: {', '.join(table)}.")


def shown(name: object) -> str:
    """A name fit for one line of UTF-8: line breaks, and bytes that are not UTF-8, are written as \\n and \\xNN."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def must_be_whole(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Refuse a value that is not a whole number (or is a bool), or lies outside [least, most].

    Raises:
        InputError: the value is refused.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        accepted = f", at least {least}" if most is None else f" from {least} to {most:,}"
        raise InputError(f"{name}={value!r} must be a whole number{accepted}.")


def must_fit(what: str, needed: float, free: float, instead: str) -> None:
    """Refuse what takes more bytes than are free: "`what` 8,640 GB of memory, of which 21.3 GB are free; `instead`."

    Raises:
        InputError: it takes more.
    """
    if needed > free:
        raise InputError(f"{what} {_gigabytes(needed)} of memory, of which {_gigabytes(free)} are free; {instead}.")


def _gigabytes(count: float) -> str:
    if not math.isfinite(count):
        return "more GB than one can count"
    return f"{count / 1e9:,.0f} GB" if count >= 1e11 else f"{count / 1e9:.3g} GB"
