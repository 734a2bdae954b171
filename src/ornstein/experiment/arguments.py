"""The arguments of a table's entry, read from its signature, and the check of what was given.

Types are strict, so that a slip does not pass for a choice: true is not a number, 1 is not true, "12" is a word.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from difflib import get_close_matches
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ornstein.core.learner import Problem
from ornstein.errors import InputError, lookup


def choice(table: Mapping[str, Callable[..., Any]], given: "str | Mapping[str, Any]", noun: str) -> dict[str, Any]:
    """`given` (a name, or a dict with one) as a complete dict: the name and every argument of the entry."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping) or "name" not in given:
        raise InputError(f"{noun}={given!r} must be one of {', '.join(table)}, or a mapping with such a name.")
    arguments = dict(given)
    name = arguments.pop("name")
    return {"name": name, **validated(lookup(table, name, noun), arguments, f"{noun}.")}


def choice_with(
    table: Mapping[str, Callable[..., Any]], name: str, options: Mapping[str, Any], noun: str
) -> dict[str, Any]:
    """An entry by its name, with options as the user typed them, as a complete dict: see `choice`."""
    if "name" in options:
        raise InputError(f"{noun}.name is not an option: {noun}={name!r} is chosen already.")
    return choice(table, {**options, "name": name}, noun)


def construct(table: Mapping[str, Callable[..., Any]], chosen: Mapping[str, Any], *given: Any) -> Any:
    """The object that a complete choice describes; `given` are arguments that no choice names, such as a `Problem`."""
    rest = {key: value for key, value in chosen.items() if key != "name"}
    entry = table[chosen["name"]]
    return entry(*given, **validated(entry, rest, f"{chosen['name']}."))


@cache
def _arguments(entry: Callable[..., Any]) -> type[BaseModel]:
    """What an entry of a table, or a section of the experiment, takes: read off its signature."""
    hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(entry).parameters.items():
        if hints[name] is Problem:
            continue  # which no choice names
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        factory = getattr(entry, "__dataclass_fields__", {}).get(name)
        if factory is not None and factory.default_factory is not MISSING:
            default = Field(default_factory=factory.default_factory)
        fields[name] = (hints[name], default)
    return create_model(f"{entry.__name__} arguments", __config__=ConfigDict(extra="forbid"), **fields)


def validated(entry: Callable[..., Any], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Every argument of `entry`, those given and the defaults; or the first thing wrong in one sentence."""
    model = _arguments(entry)
    known = list(model.model_fields)
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"{prefix}{_key(name)} is not a field{hint} Known: {', '.join(known) or 'none'}.")
    try:
        found = dict(model.model_validate(dict(given)))
        for name, value in given.items():
            if not _same_kind(value, found[name]) or found[name] != found[name]:  # no field means anything by NaN
                kind = "a number" if isinstance(found[name], (int, float)) else "numbers"
                raise InputError(
                    f"{prefix}{name}={brief(value)} is not accepted: it must be "
                    f"{'true or false' if isinstance(found[name], bool) else kind}."
                )
            if not _countable(value):
                raise InputError(f"{prefix}{name}={brief(value)} is not accepted: it must be below 2^63 in size.")
        return found
    except ValidationError as error:
        problem = error.errors()[0]
    if problem["type"] == "missing":
        raise InputError(f"{prefix}{problem['loc'][0]} is missing; give it as {prefix}{problem['loc'][0]}=...")
    # of a union pydantic says which of its types it tried: no part of the path
    where = [str(part) for part in problem["loc"] if not re.search(r"[^\w-]|^(str|int|float|bool)$", str(part))]
    path = prefix + ".".join(where)
    message = problem["msg"].replace("Input should be", "it must be").replace("a valid dictionary", "a mapping")
    raise InputError(f"{path}={brief(problem['input'])} is not accepted: {message[0].lower()}{message[1:]}.")


def brief(value: Any) -> str:
    """A value as written in a sentence, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _same_kind(given: Any, taken: Any) -> bool:
    """Whether a value was taken as what it is: true is no number, 1 not true, and '12' a word."""
    if isinstance(given, (list, tuple)) and isinstance(taken, (list, tuple)):
        return all(map(_same_kind, given, taken))
    return all(isinstance(given, kind) == isinstance(taken, kind) for kind in (bool, str))


def _countable(value: Any) -> bool:
    """Whether whole numbers fit into 64 bits, beyond which neither tensors nor floats follow."""
    if isinstance(value, (list, tuple)):
        return all(map(_countable, value))
    return not isinstance(value, int) or abs(value) < 2**63


def _key(name: Any) -> str:
    """A key as it stands in a sentence: as it is if it could be one, quoted otherwise."""
    return name if isinstance(name, str) and re.fullmatch(r"[\w-]+", name) else brief(name)
