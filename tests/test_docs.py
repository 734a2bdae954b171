"""The README's and the docs' snippets run, and so do their commands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sure import Cli, there

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.S | re.M), 1)
]


@pytest.mark.parametrize("code", SNIPPETS)
@pytest.mark.usefixtures("own_tables")
def test_a_snippet_runs(code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    monkeypatch.chdir(tmp_path)
    if "runs/digits" in code:
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "digits").symlink_to(request.getfixturevalue("run"))
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_the_readmes_commands_run_in_their_order(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = [
        "training.steps=4",
        "training.validate_every=4",
        "net.channels=8",
        "sampling.steps=2",
        "sampling.preview=4",
    ]
    block = there(re.search(r"^```console\n(.*?)^```", PAGES[0].read_text("utf-8"), re.S | re.M))
    commands = [line.partition("#")[0].split()[2:] for line in block[1].splitlines() if line.startswith("$ ornstein")]
    assert len(commands) >= 9
    for words in commands:
        if words[0] == "train" and "--resume" not in words:
            words = [*words, *short]
        if words[0] == "evaluate":
            words = [*words, "-n", "40"]
        answer = cli(*words)
        assert answer.code == 0, (words, answer)
    assert {"threes.png", "samples.npz", "film.gif", "scores.csv"} <= {path.name for path in tmp_path.iterdir()}


def test_the_minimal_example_learns_its_distribution() -> None:
    example = ROOT / "examples" / "minimal.py"
    assert len(example.read_text("utf-8").splitlines()) <= 120
    done = subprocess.run(
        [sys.executable, example, "--no-picture"],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # beside another test a second thread would only be waited for
    )
    figures = dict(re.findall(r"(data|samples|ideal) (-?[\d.]+)", done.stdout.splitlines()[-2]))
    assert abs(float(figures["samples"]) - float(figures["data"])) < 0.15
