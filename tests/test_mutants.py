"""The tool of `make mutants` tells a test that bites from one that does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mutations import drawn, lines_of_code, mutations
from reached import PROBE, probed

CODE = '''"""A message: 1 + 1."""


def least(a: int, b: int = 3) -> int:
    """At least 2 * 2."""
    if a < 0 and not b:
        raise ValueError(f"{a + 1}")
    return max(a + b, 4)
'''


def test_every_place_is_changed_once_and_nothing_that_says_nothing() -> None:
    found = {f"{one.before} -> {one.after}" for one in mutations(CODE, "small.py")}
    assert found == {
        "3 -> 4", "3 -> -3", "a < 0 and (not b) -> a < 0 or not b", "a < 0 -> a <= 0", "0 -> 1", "not b -> b",
        "return max(a + b, 4) -> return None", "max(a + b, 4) -> min(a + b, 4)", "a + b -> a - b", "4 -> 5", "4 -> -4",
    }  # fmt: skip


def test_a_change_is_made_where_it_says() -> None:
    """Among several alike, after letters of more than one byte, and without a change of what binds how strongly."""
    source = "σ = f(1, 1)\ny = 2 / x**2 - (a + b) * c\nf(σ)\n"
    made = {one.key: one.applied(source).splitlines() for one in mutations(source, "m.py")}
    assert made["m.py:: 1 -> 2 #1"][0] == "σ = f(1, (2))"
    assert made["m.py:: x ** 2 -> x * 2"][1] == "y = 2 / (x * 2) - (a + b) * c"
    assert made["m.py:: a + b -> a - b"][1] == "y = 2 / x**2 - ((a - b)) * c"
    assert made["m.py:: f(σ) -> pass"][2] == "pass"


def test_the_sample_is_the_seeds_and_is_spread_by_lines() -> None:
    every = {name: mutations(CODE * times, name) for name, times in (("one.py", 1), ("three.py", 3))}
    lines = {"one.py": lines_of_code(CODE), "three.py": lines_of_code(CODE * 3)}
    assert lines == {"one.py": 4, "three.py": 12}
    sample = drawn(every, lines, 8, seed=0)
    assert [one.file for one in sample] == ["one.py"] * 2 + ["three.py"] * 6
    assert sample == drawn(every, lines, 8, seed=0) != drawn(every, lines, 8, seed=1)
    assert len({one.kind for one in sample if one.file == "three.py"}) == 6


def test_each_place_tells_when_it_is_come_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a branch that is not taken do not; what has no place in a function is told by all functions."""
    source = "N = 2\n\n" + CODE + "\n\ndef other():\n    return 0\n"
    every = mutations(source, "small.py")
    numbers = {one: k for k, one in enumerate(every)}
    monkeypatch.setenv("REACHED_TOLD", str(tmp_path / "told"))
    exec(PROBE, {})
    program: dict[str, Any] = {}
    exec(probed(source, numbers), program)

    def told(by: str) -> set[str]:
        monkeypatch.setenv("REACHED_BY", by)
        assert program[by](*{"least": (-1, 4), "other": ()}[by]) == {"least": 4, "other": 0}[by]
        lines = (tmp_path / "told").read_text().splitlines()
        return {every[int(number)].before for number, name in map(str.split, lines) if name == by}

    assert told("other") == {"2", "3", "return 0", "0"}
    assert told("least") == {one.before for one in every if one.where != "other"}
    once = (tmp_path / "told").read_text()
    assert told("least")
    assert (tmp_path / "told").read_text() == once


def test_what_no_test_notices_survives(tmp_path: Path) -> None:
    """Of a function whose sum is tested and whose bound is not; and all of it is known when it is called again."""
    source, tests = tmp_path / "code" / "small", tmp_path / "tests"
    source.mkdir(parents=True)
    tests.mkdir()
    (source / "__init__.py").write_text("def least(a, b):\n    return max(a + b, 4)\n")
    (tests / "test_small.py").write_text("from small import least\n\ndef test_sum():\n    assert least(4, 5) == 9\n")
    tool = [sys.executable, str(Path(__file__).with_name("mutants.py")), "--source", str(source), "--tests", str(tests)]
    tool += ["--kept", str(tmp_path / "kept"), "--rooms", "__init__.py", "--count", "5", "--preload"]
    bare = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    first = subprocess.run(tool, capture_output=True, text=True, cwd=tmp_path, env=bare)
    verdicts = [json.loads(line) for line in (tmp_path / "kept" / "verdicts.jsonl").read_text().splitlines()]
    fates = {verdict["key"].split(": ")[1]: verdict["fate"] for verdict in verdicts}
    assert fates == {
        "4 -> 5": "survived",
        "4 -> -4": "survived",
        "max(a + b, 4) -> min(a + b, 4)": "killed",
        "a + b -> a - b": "killed",
        "return max(a + b, 4) -> return None": "killed",
    }, first.stderr
    assert "5 mutants, 2 survived without a reason, 40.0%" in first.stdout
    assert first.returncode == 1
    assert (source / "__init__.py").read_text().endswith("return max(a + b, 4)\n")
    again = subprocess.run(tool, capture_output=True, text=True, cwd=tmp_path, env=bare)
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
