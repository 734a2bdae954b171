"""Laws that every entry of a table must satisfy, as functions: `python -m ornstein.laws PACKAGE` checks an addition.

A law takes an instance of an entry (a process, a stepper, an objective, ...) and returns nothing, or raises `LawBroken`
with one sentence that has the numbers. `LAWS` names the laws of each noun. The tests of this package run the same
functions over its own tables, so built-in entries and additions are held to the same laws.

    for finding in check("my_package"):
        print(finding)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ornstein import plugins
from ornstein.errors import InputError
from ornstein.laws import bridges, nets, objectives, others, processes, steppers, tokens
from ornstein.laws.broken import LawBroken

__all__ = ["LAWS", "Finding", "LawBroken", "check"]

#: the laws of each noun by name; for a noun without any, only the checks of `ornstein.register` apply
LAWS: dict[str, dict[str, Callable[[Any], None]]] = {
    "process": processes.LAWS,
    "kernel": tokens.KERNEL_LAWS,
    "path": bridges.PATH_LAWS,
    "stepper": steppers.LAWS,
    "token-stepper": tokens.STEPPER_LAWS,
    "bridge-stepper": bridges.BRIDGE_STEPPER_LAWS,
    "objective": objectives.LAWS,
    "token-objective": tokens.OBJECTIVE_LAWS,
    "token-reading": tokens.READING_LAWS,
    "net": nets.LAWS,
    "grid": others.GRID_LAWS,
    "data": others.DATA_LAWS,
    "metric": others.METRIC_LAWS,
}


@dataclass(frozen=True)
class Finding:
    """The result of one law for one entry.

    Attributes:
        noun, name: of the entry.
        law: its name.
        verdict: "ok", "broken", or "skipped" if the entry cannot be made here, such as data that are missing.
        sentence: what is wrong, with numbers, or why the law is skipped; "" if it is ok.
    """

    noun: str
    name: str
    law: str
    verdict: str
    sentence: str = ""

    def __str__(self) -> str:
        said = f": {self.sentence}" if self.sentence else ""
        return f"{self.verdict:<8} {self.noun} {self.name}: {self.law}{said}"


def check(package: str | None = None) -> Iterator[Finding]:
    """Check every law for every entry that a package registers, yielding each result as it is found.

    Args:
        package: its name for import or installation; None for every entry of every table.

    Raises:
        InputError: a package that cannot be imported, or registers nothing.
    """
    for noun, name, entry in plugins.entries(package):
        try:
            plugins.check(noun, name, entry)
            yield Finding(noun, name, "is-registered-soundly", "ok")
        except InputError as error:
            yield Finding(noun, name, "is-registered-soundly", "broken", str(error))
            continue
        try:
            thing = entry() if plugins.TABLES[noun].configured else entry
        except TypeError as error:  # an argument without a default, such as a folder of pictures
            yield Finding(noun, name, "every law", "skipped", f"it cannot be made without arguments: {error}.")
            continue
        for law, holds in LAWS.get(noun, {}).items():
            yield _judged(noun, name, law, lambda holds=holds, thing=thing: holds(thing))  # type: ignore[misc]


def _judged(noun: str, name: str, law: str, holds: Callable[[], None]) -> Finding:
    try:
        holds()
    except LawBroken as broken:
        return Finding(noun, name, law, "broken", str(broken))
    except InputError as error:
        # data may be missing; every other entry must work under the conditions of its laws
        return Finding(noun, name, law, "skipped" if noun == "data" else "broken", f"it refuses: {error}")
    except Exception as error:  # any error of an addition is a finding, and must not stop the other laws
        return Finding(noun, name, law, "broken", f"it raises {type(error).__name__}: {' '.join(str(error).split())}.")
    return Finding(noun, name, law, "ok")
