"""Laws of the house: who may import whom, what an import costs, and what every entry of a table says of itself."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import ornstein
from ornstein.experiment.catalogue import tables
from ornstein.laws.steppers import states_its_facts
from ornstein.plugins import TABLES
from ornstein.samplers import STEPPERS

SOURCE = Path(ornstein.__file__).parent
FLOORS = {
    1: ["errors", "memory", "waiting", "optimisers", "_version"],
    2: ["core", "nets", "metrics", "files", "ranks", "plugins"],
    3: ["objectives", "samplers", "energies", "guidance", "bridge", "discrete", "latent", "training", "data"],
    4: ["likelihood", "distill", "mixed", "zoo"],
    5: ["experiment", "laws"],
    6: ["cli", "studio"],
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
#: the doors: what a person imports, and `python -m ornstein`
DOORS = ["__init__.py", "__main__.py"]
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def imported(file: Any, nodes: Any) -> Any:
    """(name, line) of what import statements name, relative ones written out: ("torch.nn", 3), ..."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["ornstein", *file.split("/")[:-1]]
            above = package[: len(package) + 1 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{home}.{alias.name}", node.lineno) for alias in node.names)


@cache
def parsed(file: Any) -> Any:
    return ast.parse((SOURCE / file).read_text("utf-8"))


def rooms_imported(file: Any) -> Any:
    """(room, line) of every import of this package in a file, at the top or inside a function."""
    for name, line in imported(file, ast.walk(parsed(file))):
        if name.split(".")[0] == "ornstein":
            yield name.split(".")[1] if "." in name else "", line


def each(holds: Callable[[str], None], files: Iterable[str]) -> None:
    """Of files all that break a law, not the first alone; a test for each would take longer than what it asks."""
    broken = []
    for file in files:
        try:
            holds(file)
        except AssertionError as error:
            broken.append(f"{file}: {error}")
    assert not broken, "\n".join(broken)


def test_imports_go_down() -> None:
    """To a lower floor or within the room, also inside functions; floor 6 reaches the house through floor 5 only.

    And the command line asks `ranks` itself: it is one of several processes before anything is loaded. One of its verbs
    opens the studio, and that file alone knows it.
    """

    def holds(file: str) -> None:
        room = file.split("/")[0].removesuffix(".py")
        assert room in FLOOR, f"{room} has no floor: give it one in the design and here"
        for other, line in rooms_imported(file):
            assert other in FLOOR, f"line {line} imports {other or 'ornstein'!r}, the front door, or what has no floor"
            below = FLOOR[other] in (1, 5) if FLOOR[room] == 6 else FLOOR[other] < FLOOR[room]
            door = (room, other) == ("cli", "ranks") or (file, other) == ("cli/studio.py", "studio")
            allowed = other == room or below or door
            assert allowed, f"line {line}: {room} (floor {FLOOR[room]}) may not import {other} (floor {FLOOR[other]})"

    each(holds, [file for file in FILES if file not in DOORS])


def test_no_import_hides_from_these_laws() -> None:
    """Only the front door and `plugins` make up the name of a module as they run, and what they say is a room.

    The door opens what is asked for; `plugins` finds the table of a noun, wherever it is, and packages from outside.
    """
    for file in FILES:
        called = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
        names = {ast.unparse(node.func).split(".")[-1] for node in called}
        assert file in ("__init__.py", "plugins.py") or not names & {"import_module", "__import__"}, file
    for home in (*ornstein._HOMES, *(table.home for table in TABLES.values())):
        assert home.split(".")[0] in FLOOR


def home_of(name: Any) -> Any:
    """The file that holds a module, or what is imported from one: "ornstein.core.grids.times" is core/grids.py's."""
    parts = name.split(".")[1:]
    while parts and not {"/".join(parts) + ".py", "/".join([*parts, "__init__.py"])} & set(FILES):
        parts.pop()
    file = "/".join(parts) + ".py"
    return file if file in FILES else "/".join([*parts, "__init__.py"])


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Within a room too, also inside functions: a circle is one file in several."""
    asks = {
        file: {home_of(name) for name, _ in imported(file, ast.walk(parsed(file))) if name.split(".")[0] == "ornstein"}
        for file in FILES
    }
    try:
        TopologicalSorter({file: homes - {file} for file, homes in asks.items()}).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_the_order_within_core() -> None:
    """copies <- numerics <- process <- clocks <- chains; process <- prediction <- denoiser <- the rest."""
    below = {
        "copies": set(),
        "walk": set(),
        "numerics": {"copies"},
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


def test_the_mathematical_rooms_import_nothing_but_torch() -> None:
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


def test_the_library_loads_torch_and_nothing_heavier_and_training_no_compiler(tmp_path: Path) -> None:
    """Importing it, using every name of its face, and drawing with every stepper.

    Nor does a training load torch's compiler, for which all would wait two seconds: torch loads it to keep it out of
    an optimiser, and out of what counts a step's arithmetic. Only the estimator brings scikit-learn, no digits.
    """
    code = f"""
import sys
import ornstein, ornstein.data, ornstein.metrics
for name in ornstein.__all__:
    getattr(ornstein, name)
import torch
from ornstein.core import PROCESSES
from ornstein.core.exact import Gaussian
from ornstein.objectives import OBJECTIVES
from ornstein.laws.steppers import states_its_facts
from ornstein.plugins import TABLES
from ornstein.samplers import STEPPERS
denoiser = Gaussian(torch.zeros(2), 1.0).denoiser(ornstein.VP())
for stepper in STEPPERS:
    ornstein.sample(denoiser, (2, 2), stepper=stepper, steps=3, seed=0)
print(*[name for name in {HEAVY!r} if name in sys.modules])
from pathlib import Path
from ornstein.experiment.config import Experiment
from ornstein.experiment.train import train
short = ["training.steps=2", "training.validate_every=2", "net.channels=8", "training.batch_size=8"]
asked = Experiment.read("digits", [*short, "training.precision=auto"])
for _ in train(asked, Path({str(tmp_path / "run")!r}), draws=False):
    pass
print("torch._dynamo" in sys.modules, "sklearn" in sys.modules)
print(ornstein.DiffusionModel.__name__, "sklearn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False", "DiffusionModel", "True"]


@pytest.mark.parametrize("noun", tables())
def test_every_entry_says_what_it_is(noun: str) -> None:
    """The first line of its docstring, which `ornstein list` prints: one sentence, not another's."""
    table = tables()[noun]
    assert table
    for name, line in table.items():
        assert line.endswith("."), f"{noun} {name}: {line!r}"
        assert 10 < len(line) <= 120, f"{noun} {name}: {line!r}"
        assert list(table.values()).count(line) == 1, f"{noun} {name} says what another says: {line!r}"
        assert name == name.lower()
        assert " " not in name


def test_the_facts_at_the_end_of_a_steppers_docstring_are_its_facts() -> None:
    """'Order 2. Two calls a step. Deterministic.': as declared, which the other laws measure."""
    for make in STEPPERS.values():
        states_its_facts(make())


LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def test_no_file_holds_two_subjects() -> None:
    sizes = {file: len((SOURCE / file).read_text("utf-8").splitlines()) for file in FILES}
    assert {file: size for file, size in sizes.items() if size > LONGEST_FILE} == {}


def test_no_function_is_long_without_a_reason_beside_it() -> None:
    """Lines of code, without the docstring; the reason stands on the line of the def, as `# long: why`."""

    def holds(file: str) -> None:
        lines = (SOURCE / file).read_text("utf-8").splitlines()
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef):
                told = ast.get_docstring(node, clean=False)
                body = node.body[1:] if told is not None else node.body
                size = node.body[0].lineno - node.lineno  # the signature
                size += (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                reason = any("# long: " in line for line in lines[node.lineno - 1 : node.body[0].lineno - 1])
                assert size <= LONGEST_FUNCTION or reason, f"line {node.lineno}: {node.name} has {size} lines"

    each(holds, FILES)


#: what a learner alone may ask of an objective
ASKED_BY_LEARNERS = {"memory", "draw_times", "learns_variance", "twice_differentiated", "levels"}
#: and the laws of bare objectives, which have no learner
LEARNER_FILES = ["core/learner.py", "experiment/denoising.py", "experiment/learner.py", "laws/objectives.py"]


def test_only_learners_ask_an_objective_what_it_is() -> None:
    asking = ("hasattr", "getattr")

    def holds(file: str) -> None:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in asking:
                asked = node.args[1]
                name = asked.value if isinstance(asked, ast.Constant) else None
                assert name not in ASKED_BY_LEARNERS, f"line {node.lineno}: {ast.unparse(node)}"

    each(holds, [file for file in FILES if file not in LEARNER_FILES])


def test_nothing_branches_on_a_name() -> None:
    """Where names become objects, no comparison is with an entry of a table: what an entry is, it says itself."""
    # words to users, which stand for entries of other tables; "endpoint" is also a criterion of `tune`
    words = ("presets", "methods", "distillations")
    names = {name for noun, table in tables().items() if noun not in words for name in table}

    def holds(file: str) -> None:
        constants = {
            target.id: node.value.value
            for node in parsed(file).body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                several = ast.Tuple | ast.Set | ast.List
                parts = [part for side in sides for part in (side.elts if isinstance(side, several) else [side])]
                for part in parts:
                    value = part.value if isinstance(part, ast.Constant) else constants.get(getattr(part, "id", ""))
                    assert not (isinstance(value, str) and value in names), f"line {node.lineno}: {ast.unparse(node)}"

    each(holds, [file for file in FILES if file.split("/")[0] in ("experiment", "cli", "studio")])
