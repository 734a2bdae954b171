"""Additions from outside: registered, listed, configured, drawn with, and held to the laws; refused in a sentence."""

import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import PROCESSES, refused
from sure import Cli, there

import ornstein
from ornstein import Process, plugins
from ornstein.bridge import BRIDGE_STEPPERS
from ornstein.bridge.learner import NAMED_PATHS
from ornstein.core import PROCESSES as TABLE
from ornstein.core.process import check_positive
from ornstein.discrete import KERNELS, TOKEN_OBJECTIVES, TOKEN_STEPPERS
from ornstein.energies import ENERGY_OBJECTIVES
from ornstein.experiment import config
from ornstein.laws import LAWS, LawBroken, check
from ornstein.objectives import OBJECTIVES
from ornstein.samplers import STEPPERS

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def block(heading: Any) -> Any:
    """The code under a heading of docs/extending.md."""
    part = PAGE.read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return there(re.search(r"^```python\n(.*?)^```", part, re.S | re.M))[1]


@dataclass(frozen=True)
class Rational(Process):
    """A clock of this file: alpha = 1/(1 + t), sigma = t."""

    t_max: float = 4.0

    def __post_init__(self) -> None:
        check_positive(t_max=self.t_max)

    def alpha(self, t: Any) -> Any:
        return 1 / (1 + t)

    def sigma(self, t: Any) -> Any:
        return t


# ---------------------------------------------------------------------------------------------------- register


@pytest.mark.usefixtures("own_tables")
def test_what_is_registered_can_be_named_listed_and_configured(cli: Cli) -> None:
    assert ornstein.register("process", "rational", Rational) is Rational
    assert ornstein.register("process", "rational", Rational) is Rational  # once more changes nothing
    assert TABLE["rational"] is Rational
    told = config.Experiment.read("moons", ["process=rational", "process.t_max=3"])
    assert told.process == {"name": "rational", "t_max": 3.0}
    assert "process:\n  name: rational" in told.to_yaml()
    assert "A clock of this file" in cli("list", "processes").out
    assert [(noun, name) for noun, name, _ in plugins.entries(__name__)] == [("process", "rational")]

    @ornstein.register("objective", "plain")
    def plain(drop_label: float = 0.2) -> Any:
        """The loss of DDPM, by another name."""
        return OBJECTIVES["ddpm"](drop_label=drop_label)

    assert config.Experiment.read("moons", ["objective=plain"]).objective == {"name": "plain", "drop_label": 0.2}


@pytest.mark.usefixtures("own_tables")
def test_a_new_definition_takes_the_place_of_the_old_as_in_a_notebook() -> None:
    cell = (
        "import ornstein\n@ornstein.register('grid', 'mine')\n"
        "def mine(process, steps, sigma_data):\n    '''A grid of my own.'''\n"
    )
    scope = {"__name__": "notebook"}
    for _ in range(2):
        exec(cell, scope)
    assert plugins.TABLES["grid"].read()["mine"] is scope["mine"]


def test_what_is_no_entry_is_refused() -> None:
    def undocumented() -> Process:
        return Rational()

    def untyped(t_max=1.0) -> Process:  # type: ignore[no-untyped-def]
        """A clock whose argument has no type."""
        return Rational(t_max)

    def many(*rates: float) -> Process:
        """A clock of many arguments."""
        return Rational()

    def impossible(t_max: float = -1.0) -> Process:
        """A clock that cannot be."""
        return Rational(t_max)

    def number() -> float:
        """No clock but a number."""
        return 1.0

    class Alien:
        """A class that is no process."""

    before = dict(TABLE)
    for call, words in [
        (lambda: ornstein.register("proces", "x", Rational), ["noun='proces'", "'process'"]),
        (lambda: ornstein.register("process", "My Clock", Rational), ["'My Clock'", "lower case"]),
        (lambda: ornstein.register("process", "vp", Rational), ["'vp'", "ornstein.core.clocks.VP"]),
        (lambda: ornstein.register("process", "advised-ladder", Rational), ["'advised-ladder'", "taken"]),
        (lambda: ornstein.register("objective", "classifier", OBJECTIVES["v"]), ["'classifier'", "taken"]),
        (lambda: ornstein.register("objective", "recovery", OBJECTIVES["v"]), ["'recovery'", "ornstein.energies"]),
        (lambda: ornstein.register("energy-objective", "ddpm", OBJECTIVES["v"]), ["'ddpm'", "ornstein.objectives"]),
        (lambda: ornstein.register("process", "x", 3), ["'x'", "3", "class"]),  # type: ignore[call-overload]
        (lambda: ornstein.register("process", "x", undocumented), ["first line of its docstring"]),
        (lambda: ornstein.register("process", "x", untyped), ["'t_max'", "type"]),
        (lambda: ornstein.register("process", "x", many), ["*rates"]),
        (lambda: ornstein.register("process", "x", impossible), ["t_max=-1.0"]),
        (lambda: ornstein.register("process", "x", number), ["1.0", "Process"]),
        (lambda: ornstein.register("process", "x", Alien), ["Alien", "Process"]),
        (lambda: plugins.entries("no_such_package"), ["'no_such_package'", "cannot be imported"]),
        (lambda: plugins.entries("json"), ["'json'", "registers nothing"]),
    ]:
        refused(call, *words)
    assert before == TABLE


def test_names_that_the_experiment_keeps_are_those_that_it_gives_a_meaning() -> None:
    assert set(config.PROCESSES) - set(TABLE) - set(KERNELS) - set(NAMED_PATHS) == set(plugins.KEPT["process"])
    ours = {*OBJECTIVES, *ENERGY_OBJECTIVES, *TOKEN_OBJECTIVES}
    assert set(config.objectives()) - ours == set(plugins.KEPT["objective"])
    walkers = {*STEPPERS, *TOKEN_STEPPERS, *BRIDGE_STEPPERS}
    assert set(config.steppers()) - walkers == set(plugins.KEPT["stepper"])


@pytest.mark.parametrize("noun", plugins.TABLES)
def test_every_entry_that_comes_along_would_be_accepted(noun: Any) -> None:
    for name, entry in plugins.TABLES[noun].read().items():
        plugins.check(noun, name, entry)


# --------------------------------------------------------------------------------- a package that is installed


CLOCK = '''
from dataclasses import dataclass

import torch
from ornstein import Process


@dataclass(frozen=True)
class {name}(Process):
    """{line}"""

    t_max: float = 1.5

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        return torch.cos(t)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        return {sigma}
'''


def installed(folder: Any, package: Any, entry_points: Any, code: Any) -> None:
    """A package as pip leaves it: its code, and beside it what it is called and names as entry points."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code)
    about = folder / f"{package}-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
    lines = [f"[ornstein.{group}]\n{name} = {package}:{what}\n" for group, name, what in entry_points]
    (about / "entry_points.txt").write_text("\n".join(lines))


def python(folder: Any, *words: Any) -> Any:
    """Another Python, in which the packages of a folder are installed."""
    source = Path(ornstein.__file__).parents[1]
    path = os.pathsep.join(map(str, (folder, source)))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=env)


NUMBER = """
def number() -> float:
    "No clock but a number."
    return 1.0
"""

COMMANDS = """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("error")
    import ornstein
assert "my_package" not in sys.modules
from ornstein.cli import main
for words in (
    "list processes",
    "train moons process=trigonometric objective=sigmoid process.t_max=1.4 training.steps=20 net.width=16 --out run",
    "sample run -n 10 --out drawn.npz",
):
    sys.argv = ["ornstein", *words.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""


#: `python -m ornstein.laws PACKAGE` for one after another
HELD = """
import runpy, sys
for package in sys.argv[1:]:
    sys.argv = ["laws", package]
    try:
        runpy.run_module("ornstein.laws", run_name="__main__")
    except SystemExit as end:
        print("ended with", end.code, flush=True)
"""


@pytest.mark.timeout(900)
def test_packages_are_listed_trained_with_drawn_from_and_held_to_the_laws_where_a_wrong_one_fails(
    tmp_path: Path,
) -> None:
    names = [("processes", "trigonometric", "Trigonometric"), ("objectives", "sigmoid", "Sigmoid")]
    code = CLOCK.format(name="Trigonometric", line="A quarter of a circle.", sigma="torch.sin(t)")
    installed(tmp_path, "my_package", names, code + block("An objective").replace("@ornstein.register", "# "))
    # beside it one that cannot be loaded, and one that is no process
    installed(tmp_path, "rotten", [("processes", "rotten", "Gone")], "import a_module_that_is_not_there\n")
    installed(tmp_path, "stray", [("processes", "stray", "number")], NUMBER)
    done = python(tmp_path, "-c", COMMANDS)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^trigonometric +A quarter of a circle\.$", done.stdout, re.M), done.stdout
    assert (tmp_path / "drawn.npz").is_file()
    assert "Traceback" not in done.stderr
    warned = [line for line in done.stderr.splitlines() if line.startswith("ornstein: ")]
    assert len(warned) == 2, done.stderr
    assert "'rotten' of the package rotten is left out: ModuleNotFoundError" in warned[0]
    assert "'stray' of the package stray is left out: process 'stray' makes 1.0" in warned[1]

    wrong = CLOCK.format(name="Wrong", line="A clock with some noise at the start.", sigma="torch.sin(t) + 0.01")
    installed(tmp_path, "wrong_package", [("processes", "wrong", "Wrong")], wrong)
    done = python(tmp_path, "-c", HELD, "my_package", "rotten", "wrong_package")
    assert done.returncode == 0, done.stdout + done.stderr
    good, nothing, bad = done.stdout.split("ended with ")[:3]
    assert "ok       process trigonometric: starts-at-the-data" in good
    assert "ok       objective sigmoid: is-minimised-by-the-exact-denoiser" in good
    assert "broken" not in good
    assert nothing == "0\n"
    assert bad.startswith("2\n")
    assert "broken   process wrong: starts-at-the-data: sigma(0) = 0.01; it must be 0." in bad
    assert done.stdout.endswith("ended with 1\n")
    assert "'rotten'" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ laws that bite


#: a clock of each kind
KINDS = ("vp", "edm", "flow", "betas[short zero]")


@pytest.mark.timeout(900)  # of a stepper, every clock, grid and number of steps
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("own_tables")
@pytest.mark.parametrize(
    ("noun", "name"), [("process", "trigonometric"), ("stepper", "midpoint"), ("objective", "sigmoid")]
)
def test_the_examples_of_the_page_keep_every_law(
    noun: Any, name: Any, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        for place in ("steppers.different", "convergence.processes"):
            every = pkgutil.resolve_name(f"ornstein.laws.{place}")()
            few = {kind: every[kind] for kind in KINDS if kind in every}
            monkeypatch.setattr(f"ornstein.laws.{place}", lambda few=few: few)
    article = "An" if noun == "objective" else "A"
    (tmp_path / f"page_of_{noun}.py").write_text(block(f"{article} {noun}"))
    monkeypatch.syspath_prepend(tmp_path)
    found = list(check(f"page_of_{noun}"))
    assert {(f.noun, f.name) for f in found} == {(noun, name)}
    assert [str(f) for f in found if f.verdict != "ok"] == []
    assert len(found) == 1 + len(LAWS[noun])


@dataclass(frozen=True)
class Clock(Process):
    """A clock from two functions."""

    of_alpha: Any = torch.cos
    of_sigma: Any = torch.sin
    t_max: float = 1.5

    def alpha(self, t: Any) -> Any:
        return self.of_alpha(t)

    def sigma(self, t: Any) -> Any:
        return self.of_sigma(t)


@pytest.mark.parametrize(
    ("law", "process"),
    [
        ("starts-at-the-data", Clock(of_alpha=lambda t: 0.99 * torch.cos(t))),
        ("loses-them-steadily", Clock(of_sigma=lambda t: torch.sin(t) * (1.51 - t))),
        ("keeps-its-digits", Clock(of_sigma=lambda t: (1 - torch.cos(t) ** 2).sqrt())),
        ("rates-are-derivatives", Clock(of_sigma=lambda t: torch.sin(t.detach()) + 0 * t)),
        ("moments-follow-the-equation", Clock(of_alpha=lambda t: torch.cos(t.detach()) + 0 * t)),
        ("marginals-are-those-of-a-simulation", Clock(of_sigma=lambda t: 1.2 * torch.sin(t.detach()) + 0 * t)),
        ("finite-where-networks-are-asked", Clock(of_alpha=lambda t: (1 + (1 - t / 1.5).sqrt()) / 2)),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_law_of_processes_bites(law: Any, process: Any) -> None:
    LAWS["process"][law](Clock())
    with pytest.raises((LawBroken, ornstein.InputError)):
        LAWS["process"][law](process)


def test_near_is_what_it_says() -> None:
    from ornstein.laws.broken import near

    near("a", 1.0 + 1e-7, 1.0, rtol=1e-6)
    near("a", 1e-9, 0.0, atol=1e-8)
    near("a", torch.tensor([torch.inf, 1.0]), torch.tensor([torch.inf, 1.0]))
    for got, expected, allowed in [
        (1.1, 1.0, {"rtol": 0.05}),
        (float("nan"), 1.0, {"rtol": 1.0}),
        (1.0, float("inf"), {}),
    ]:
        with pytest.raises(LawBroken, match="a is"):
            near("a", got, expected, **allowed)


@dataclass(frozen=True)
class Loss:
    """An objective from a function, which is wrong somewhere."""

    how: str

    def __call__(self, denoiser: Any, x0: Any, condition: Any, generator: Any) -> Any:
        device = generator.device
        process = denoiser.process
        if self.how == "clock":
            t = process.t_max * torch.rand(len(x0), generator=generator, device=device, dtype=torch.float64)
        else:
            known: Any = OBJECTIVES["ddpm"]()
            t = known.draw_times(process, len(x0), generator, denoiser.sigma_data)
        eps = torch.randn(x0.shape, dtype=x0.dtype, **{"global": {}, "device": {"generator": generator}}.get(
            self.how, {"generator": generator, "device": device}))  # fmt: skip
        level = process.at(t, like=x0)
        error = denoiser(level.noised(x0, eps), level, None if self.how == "labels" else condition).x0 - x0
        if self.how == "robust":
            return error.flatten(1).norm(dim=1)
        if self.how == "batch":
            error = error - error.mean(0)
        if self.how == "biased":
            error = error + 0.3
        loss = error.square().flatten(1).mean(1)
        return loss.mean() if self.how == "reduced" else loss


@pytest.mark.parametrize(
    ("how", "law"),
    [
        ("reduced", "has-a-loss-for-each-sample"),
        ("batch", "has-a-loss-for-each-sample"),
        ("global", "has-a-loss-for-each-sample"),
        ("global", "draws-from-its-generator-alone"),
        ("device", "draws-from-its-generator-alone"),
        ("clock", "asks-within-the-clock"),
        ("labels", "drops-labels-at-its-rate"),
        ("biased", "is-minimised-by-the-exact-denoiser"),
        ("robust", "teaches-the-mean"),
    ],
)
def test_a_law_of_objectives_bites(how: Any, law: Any) -> None:
    LAWS["objective"][law](Loss("well"))
    with pytest.raises(LawBroken):
        LAWS["objective"][law](Loss(how))


def test_the_laws_of_steppers_bite() -> None:
    from ornstein.laws import convergence
    from ornstein.samplers import DDIM, Euler
    from ornstein.samplers.flow import Heun

    class Modest(Heun):
        """Heun's rule that calls itself first order.

        Order 1. Two calls a step. Deterministic.
        """

        order = 1

    class Boasting(Euler):
        """Euler's rule that calls itself second order.

        Order 2. One call a step. Stochastic.
        """

        order = 2

    class Leaky(DDIM):
        """DDIM that leaves a bit of noise in what it returns.

        Order 1. One call a step. Deterministic.
        """

        def finish(self, denoiser: Any, x: Any, t: Any, memory: Any, noise: Any) -> Any:
            return denoiser(x, t).x0 + 1e-3 * x

    class Shared(DDIM):
        """DDIM whose noise is the batch's.

        Order 1. One call a step. Deterministic.
        """

        def step(self, denoiser: Any, x: Any, t: Any, s: Any, memory: Any, noise: Any) -> Any:
            x, memory = super().step(denoiser, x, t, s, memory, noise)
            return x + 0.01 * x.mean(0), memory

    vp = PROCESSES["vp"]
    for stepper, words in ((Modest(), "1 is declared"), (Boasting(), "2 is declared")):
        with pytest.raises(LawBroken, match=words):
            convergence.order_is_as_declared(vp, stepper)
    for broken, law in ((Boasting(), "states-its-facts"), (Shared(), "depends-on-its-seed-alone")):
        with pytest.raises(LawBroken):
            LAWS["stepper"][law](broken)
    with pytest.raises(LawBroken, match="come out as"):
        LAWS["stepper"]["returns-constant-data"](Leaky())
