"""Laws of the house: who may import whom, what an import costs, and what every entry of a table says of itself."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ornstein
from ornstein.experiment.catalogue import tables
from ornstein.samplers import STEPPERS

SOURCE = Path(ornstein.__file__).parent
FLOORS = {
    1: ["errors", "memory", "_version"],
    2: ["core", "nets", "metrics", "files", "ranks"],
    3: ["objectives", "samplers", "energies", "guidance", "bridge", "discrete", "latent", "training", "data"],
    4: ["likelihood", "distill", "mixed", "zoo"],
    5: ["experiment"],
    6: ["cli", "studio"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
#: the doors: what a person imports, and `python -m ornstein`
DOORS = ["__init__.py", "__main__.py"]
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def imported(file, nodes):
    """(name, line) of what import statements name, relative ones written out: ("torch.nn", 3), ..."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["ornstein", *file.split("/")[:-1]]
            above = package[: len(package) + 1 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{home}.{alias.name}", node.lineno) for alias in node.names)


def parsed(file):
    return ast.parse((SOURCE / file).read_text("utf-8"))


def rooms_imported(file):
    """(room, line) of every import of this package in a file, at the top or inside a function."""
    for name, line in imported(file, ast.walk(parsed(file))):
        if name.split(".")[0] == "ornstein":
            yield name.split(".")[1] if "." in name else "", line


@pytest.mark.parametrize("file", [file for file in FILES if file not in DOORS])
def test_imports_go_down(file):
    """To a lower floor or within the room, also inside functions; floor 6 reaches the house through floor 5 only.

    And the command line asks `ranks` itself: it is one of several processes before anything is loaded.
    """
    room = file.split("/")[0].removesuffix(".py")
    assert room in FLOOR, f"{room} has no floor: give it one in the design and here"
    for other, line in rooms_imported(file):
        assert other in FLOOR, f"{file}:{line} imports {other or 'ornstein'!r}, the front door, or a room with no floor"
        below = FLOOR[other] in (1, 5) if FLOOR[room] == 6 else FLOOR[other] < FLOOR[room]
        allowed = other == room or below or (room, other) == ("cli", "ranks")
        assert allowed, f"{file}:{line}: {room} (floor {FLOOR[room]}) may not import {other} (floor {FLOOR[other]})"


def test_no_import_hides_from_these_laws():
    """Only the front door makes up the name of a module as it runs: what it says there is a room of the house."""
    for file in FILES:
        called = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
        names = {ast.unparse(node.func).split(".")[-1] for node in called}
        assert file == "__init__.py" or not names & {"import_module", "__import__"}, file
    for home in ornstein._HOMES:
        assert home.split(".")[0] in FLOOR


def test_the_order_within_core():
    """numerics <- process <- clocks <- chains; process <- prediction <- denoiser <- the rest; three files know none."""
    below = {
        "numerics": set(),
        "copies": set(),
        "walk": set(),
        "process": {"numerics"},
        "clocks": {"numerics", "process"},
        "chains": {"numerics", "copies", "process", "clocks"},
        "prediction": {"numerics", "process"},
        "condition": set(),
        "denoiser": {"numerics", "process", "prediction", "condition"},
    }
    for name, allowed in below.items():
        for other, line in imported(f"core/{name}.py", ast.walk(parsed(f"core/{name}.py"))):
            if other.startswith("ornstein.core."):
                assert other.split(".")[2] in allowed, f"core/{name}.py:{line} imports {other}"


def test_the_mathematical_rooms_import_nothing_but_torch():
    """Of what has to be installed."""
    standard = sys.stdlib_module_names | {"torch", "ornstein"}
    for file in FILES:
        if file.split("/")[0] not in ("core", "nets", "samplers", "objectives", "distill"):
            continue
        for name, line in imported(file, parsed(file).body):  # a function may import what only it needs
            assert name.split(".")[0] in standard, f"{file}:{line} imports {name}"


HEAVY = [
    "accelerate", "safetensors", "pydantic", "yaml", "typer", "rich", "matplotlib", "sklearn", "scipy", "PIL",
    "tensorboard", "sympy", "torchvision",
]  # fmt: skip


def test_the_library_loads_torch_and_nothing_heavier():
    """Importing it, using every name of its face, and drawing with every stepper."""
    code = f"""
import sys
import ornstein
for name in ornstein.__all__:
    getattr(ornstein, name)
import torch
from ornstein.core import PROCESSES
from ornstein.core.exact import Gaussian
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import STEPPERS
denoiser = Gaussian(torch.zeros(2), 1.0).denoiser(ornstein.VP())
for stepper in STEPPERS:
    ornstein.sample(denoiser, (2, 2), stepper=stepper, steps=3, seed=0)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


ENTRIES = [(noun, name) for noun, table in tables().items() for name in table]


@pytest.mark.parametrize(("noun", "name"), ENTRIES)
def test_every_entry_says_what_it_is(noun, name):
    """The first line of its docstring, which `ornstein list` prints: one sentence, not another's."""
    table = tables()[noun]
    line = table[name]
    assert line.endswith("."), f"{noun} {name}: {line!r}"
    assert 10 < len(line) <= 120, f"{noun} {name}: {line!r}"
    assert list(table.values()).count(line) == 1, f"{noun} {name} says what another says: {line!r}"
    assert name == name.lower()
    assert " " not in name


NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


@pytest.mark.parametrize("name", STEPPERS)
def test_the_facts_at_the_end_of_a_steppers_docstring_are_its_facts(name):
    """'Order 2. Two calls a step. Deterministic.': as declared, which the other laws measure."""
    stepper = STEPPERS[name]()
    facts = " ".join((inspect.getdoc(STEPPERS[name]) or "").split("\n\n")[-1].split())
    found = re.search(r"\b(?:Order (\d)|(No order))\b", facts)
    assert found, facts
    assert stepper.order == (int(found[1]) if found[1] else None), facts
    found = re.search(r"\b(\w+) calls? a step", facts, re.I)
    if stepper.calls is None:
        assert "As many calls as needed" in facts, facts
    elif found and found[1].lower() in NUMBERS:
        assert stepper.calls == NUMBERS[found[1].lower()], facts
    else:
        assert re.search(r"As many calls a step as (\w+)", facts), facts
        assert stepper.calls == getattr(stepper, re.search(r"As many calls a step as (\w+)", facts)[1])
    assert ("Stochastic" in facts) == stepper.stochastic, facts
    assert ("Deterministic" in facts) == (not stepper.stochastic), facts
