"""Writes docs/settings.md: every setting, from the signatures and docstrings that the command line itself reads.

python docs/make/settings.py
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ornstein.core.grids import GRIDS
from ornstein.core.learner import Problem
from ornstein.data import DATA
from ornstein.experiment.catalogue import summary
from ornstein.experiment.config import PROCESSES, Sampling, nets, objectives, readings, steppers
from ornstein.experiment.learner import LEARNERS
from ornstein.training import Training

PAGE = Path(__file__).parents[1] / "settings.md"
SECTION = re.compile(r"^Arg(?:ument)?s:\n((?: +.*\n?|\n)*)", re.M)
ENTRY = re.compile(r"^    (?! )([\w, *]+): +(.*(?:\n     +.*)*)", re.M)

HEAD = """# Every setting

<!-- made by `python docs/make/settings.py`; a test fails if it must be made again -->

Give a setting after the preset, on the command line or from Python, or write it into an experiment's YAML file:

    ornstein train digits net=unet net.channels=48 training.lr=1e-3 sampling.stepper=heun
    ornstein train digits --show                     # the whole experiment as YAML, every default written out

A name chooses an entry (`net=unet`); its own settings follow a dot (`net.channels=48`). The defaults below are the
entries' own; a preset or your data may change them, and `--show` prints what a run would use. When you draw, give a
stepper's settings after `--with`: `ornstein sample RUN --stepper heun --with variables=edm`. `null` means: not set.
"""


def described(entry: Any) -> dict[str, str]:
    """What an entry's docstring says of each parameter."""
    found = dict[str, str]()
    for section in SECTION.findall(inspect.getdoc(entry) or ""):
        for names, text in ENTRY.findall(section):
            for name in names.split(", "):
                found[name.lstrip("*")] = " ".join(text.split())
    return found


def meanings(entry: Callable[..., Any]) -> dict[str, str]:
    """The same, with what is said where the entry's parameters come from: its bases, or the class that it makes."""
    places: list[Any] = [entry]
    if inspect.isclass(entry):
        places = list(entry.__mro__[:-1])
    elif inspect.isclass(made := get_type_hints(entry).get("return")):
        places += made.__mro__[:-1]
    found = dict[str, str]()
    for place in reversed(places):
        found |= described(place)
    return found


def settings(entry: Callable[..., Any]) -> Iterator[tuple[str, str, str, str]]:
    """Of each parameter its name, type, default and meaning."""
    known = meanings(entry)
    factories = {item.name: item.default_factory for item in fields(entry)} if is_dataclass(entry) else {}
    for name, parameter in inspect.signature(entry).parameters.items():
        if parameter.annotation in (Problem, "Problem"):
            continue  # which no experiment names
        kind = spoken(inspect.formatannotation(parameter.annotation))
        if parameter.default is inspect.Parameter.empty:
            default = "must be given"
        elif repr(parameter.default) == "<factory>":
            default = f"`{shown(factories[name]())}`"  # type: ignore[operator]
        else:
            default = f"`{shown(parameter.default)}`"
        yield name, kind, default, re.sub(r"\bNone\b", "null", known.get(name, ""))


def spoken(kind: str) -> str:
    """A type as one says it: `str | tuple[int, ...] | None` is a str, or a list of int, or null."""
    kind = re.sub(r"(collections\.abc|typing)\.", "", kind.strip("'"))
    kind = re.sub(r"(?:tuple|Sequence)\[(\w+)(?:, \.\.\.)?\]", r"list of \1", kind)
    kind = re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "").replace(", ", " or "), kind)
    kind = re.sub(r"dict\[str, \w+\]", "mapping", kind)
    kind = re.sub(r"tuple\[(.*?)\]", r"list [\1]", kind)
    return kind.replace(" | ", " or ").replace("None", "null").replace("Any", "any")


def shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def table(prefix: str, entry: Callable[..., Any]) -> str:
    """The settings of an entry as a table; nothing where it has none."""
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, kind, default, meaning in settings(entry):
        cells = [f"`{prefix}.{name}`", kind, default, meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else ""


def choices(noun: str, prefix: str, entries: Mapping[str, Callable[..., Any]]) -> str:
    """The entries of a noun, each with its settings; those without any in one list at the end."""
    parts, plain = list[str](), list[str]()
    for name, entry in sorted(entries.items()):
        line = summary(entry).replace("|", "\\|")
        if rows := table(prefix, entry):
            parts.append(f"### `{noun}={name}`\n\n{line}\n\n{rows}")
        else:
            plain.append(f"| `{noun}={name}` | {line} |")
    if plain:
        parts.append("### Without settings\n\n| entry | |\n|---|---|\n" + "\n".join(plain) + "\n")
    return "\n".join(parts)


def named(entries: Mapping[str, str]) -> str:
    """Values and what they mean."""
    return "| value | meaning |\n|---|---|\n" + "".join(
        f"| `{name}` | {line} |\n" for name, line in sorted(entries.items())
    )


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "## training\n\n" + table("training", Training),
        "## sampling\n\n" + table("sampling", Sampling),
        "## sampling.grid\n\n" + named({name: summary(entry) for name, entry in GRIDS.items()}),
        "## predicts: what the network outputs\n\n" + named(readings()),
        "## data\n\n" + choices("data", "data", DATA),
        "## net\n\n" + choices("net", "net", nets()),
        "## learner: what the network becomes, where predicts and objective do not imply it\n\n"
        + choices("learner", "learner", LEARNERS),
        "## process\n\n" + choices("process", "process", PROCESSES),
        "## objective\n\n" + choices("objective", "objective", objectives()),
        "## sampling.stepper\n\n" + choices("sampling.stepper", "sampling.stepper", steppers()),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
