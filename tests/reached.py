"""Which tests come by which places of a program? Each place says so itself, in a copy where a probe stands before it.

A probe writes its number once for each test, so that a suite with probes takes no longer than without; a tool that
follows every line takes twice as long. What a test starts in processes of its own is told as well.
"""

import ast
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mutations import Mutation

#: what python runs first where this is on its path: each process knows the probes, before it reads the program
PROBE = """
import builtins, os

seen = set()

def reached(*numbers):
    by, told = os.environ.get("REACHED_BY", ""), os.environ.get("REACHED_TOLD")
    for number in numbers:
        if told and (by, number) not in seen:
            seen.add((by, number))
            with open(told, "a") as file:
                file.write(f"{number} {by}\\n")

builtins._reached = reached
"""


class _Probed(ast.NodeTransformer):
    """Puts a probe before each of these places; before all that a function of the file does, of what has no place."""

    def __init__(self, source: str, numbers: Mapping[Mutation, int]) -> None:
        self.starts = [0]
        for line in source.encode().splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        tree = ast.parse(source)
        self.places: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
        self.anywhere: list[int] = []
        self.inside = [(f.body[0].lineno, f.end_lineno or 0) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        for mutation, number in numbers.items():
            if any(first <= mutation.line <= last for first, last in self.inside):
                place = (mutation.start, mutation.end, mutation.kind in ("statement", "return"))
                self.places[place].append(number)
            else:  # runs once, as the file is imported
                self.anywhere.append(number)
        self.result = ast.unparse(ast.fix_missing_locations(self.visit(tree)))

    def numbers(self, node: ast.expr | ast.stmt) -> list[int]:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        return self.places.get((start, end, isinstance(node, ast.stmt)), [])

    def visit(self, node: ast.AST) -> Any:
        numbers = self.numbers(node) if isinstance(node, ast.expr | ast.Expr | ast.Return) else []
        made: Any = node if isinstance(node, ast.JoinedStr | ast.pattern) else self.generic_visit(node)
        if isinstance(made, ast.FunctionDef) and self.anywhere:
            text = int(ast.get_docstring(made) is not None)
            made.body.insert(text, ast.Expr(_call(self.anywhere)))
        if isinstance(made, ast.Module) and self.anywhere and not self.inside:
            made.body.append(ast.Expr(_call(self.anywhere)))
        if not numbers:
            return made
        if isinstance(made, ast.stmt):
            return [ast.Expr(_call(numbers)), made]
        return ast.BoolOp(ast.Or(), [_call(numbers), made])


def _call(numbers: Sequence[int]) -> ast.Call:
    return ast.Call(ast.Name("_reached", ast.Load()), [ast.Constant(number) for number in numbers], [])


def probed(source: str, numbers: Mapping[Mutation, int]) -> str:
    """A program that tells the numbers of the places it comes by."""
    return _Probed(source, numbers).result if numbers else source


class Watched:
    """A plugin: tells the probes which test runs, and keeps how long each took and whether it passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.use: dict[str, set[str]] = defaultdict(set)
        self.items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.environ["REACHED_BY"] = nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        """What is set up once is reached by all that use it."""
        if fixturedef.scope == "function":
            return (yield)
        users = {item.nodeid for item in self.items if fixturedef in _used(item, fixturedef.argname)}
        name, before = f"{fixturedef.argname} for {request._pyfuncitem.nodeid}", os.environ.get("REACHED_BY", "")
        self.use[name] |= users | {request._pyfuncitem.nodeid}
        with _told(name, before):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    def passed(self) -> dict[str, float]:
        """How long each took, of those that passed."""
        return {name: round(taken, 3) for name, taken in self.seconds.items() if name not in self.failed}

    def reached(self, told: Path) -> dict[int, list[str]]:
        """Number -> the tests that passed and come by it."""
        found: dict[int, set[str]] = defaultdict(set)
        passed = set(self.passed())
        for line in told.read_text("utf-8").splitlines() if told.exists() else ():
            number, _, by = line.partition(" ")
            # what ran as the file of tests was read is anyone's
            found[int(number)] |= (self.use.get(by, {by}) if by else passed) & passed
        return {number: sorted(names) for number, names in sorted(found.items())}

    def keep(self, told: Path, place: Path) -> None:
        place.write_text(json.dumps({"seconds": self.passed(), "reached": self.reached(told)}), "utf-8")


def _used(item: pytest.Item, name: str) -> Sequence[Any]:
    found: Sequence[Any] = getattr(item, "_fixtureinfo").name2fixturedefs.get(name, ())  # noqa: B009
    return found


@contextmanager
def _told(name: str, before: str) -> Iterator[None]:
    os.environ["REACHED_BY"] = name
    try:
        yield
    finally:
        os.environ["REACHED_BY"] = before
