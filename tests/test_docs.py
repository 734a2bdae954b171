"""The README's and the docs' snippets run, and so do their commands."""

import csv
import gzip
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sure import Cli, there

import ornstein
from ornstein.experiment.tune import tune

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


#: verb -> how many it measures, of four steps' learning
FEWER = {"evaluate": "20", "doctor": "20", "loglik": "1"}


@pytest.mark.usefixtures("brief_reports")
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
    inner = inspect.unwrap(tune)  # a grid is chosen by fewer examples and levels as it is by more
    monkeypatch.setattr(inner, "__kwdefaults__", there(inner.__kwdefaults__) | {"count": 32, "levels": 40})
    for words in commands:
        if words[0] == "train" and "--resume" not in words:
            words = [*words, *short]
        if words[0] in FEWER:
            words = [*words, "-n", FEWER[words[0]]]
        answer = cli(*words)
        assert answer.code == 0 or (words[0] == "doctor" and answer.code == 1), (words, answer)  # of four steps
    assert {"threes.png", "samples.npz", "film.gif", "scores.csv"} <= {path.name for path in tmp_path.iterdir()}


REAL = Path(os.environ.get("ORNSTEIN_DATA") or ROOT.parent / "shared" / "data")


def _of_ones_own(folder: Path) -> None:
    """Some rows of the census, some drawings of digits in unlike sizes, and some weeks of weather."""
    from PIL import Image
    from sklearn.datasets import load_digits

    with gzip.open(REAL / "adult.csv.gz", "rt") as file, (folder / "people.csv").open("w") as out:
        out.writelines(line.rpartition(",")[0] + "\n" for line, _ in zip(file, range(600), strict=False))
    (folder / "photos").mkdir()
    for i, digit in enumerate(load_digits().images[:24]):
        side = (16, 18 + i % 3)
        Image.fromarray((digit * 15).astype("uint8")).resize(side).save(folder / "photos" / f"{i}.png")
    with gzip.open(REAL / "nyc_weather_hourly.csv.gz", "rt") as file, (folder / "weather.csv").open("w") as out:
        rows = [row for row, _ in zip(csv.DictReader(file), range(1500), strict=False)]
        kept = ["time_hour", "temp", "humid", "pressure"]
        csv.writer(out).writerows([kept, *([row[name] for name in kept] for row in rows)])


def test_the_readmes_quick_starts_run_on_real_data(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (REAL / "adult.csv.gz").is_file():
        pytest.skip(f"{REAL} is not here")
    monkeypatch.chdir(tmp_path)
    _of_ones_own(tmp_path)
    block = re.findall(r"^```console\n(.*?)^```", PAGES[0].read_text("utf-8"), re.S | re.M)[1]
    lines = [line.removeprefix("$ ornstein ") for line in block.splitlines() if line.startswith("$ ornstein")]
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "train":
            words += ["training.steps=3", "training.validate_every=3", "training.cpu=true", "sampling.preview=0"]
            words += [] if "people" in line else ["net.channels=8", "sampling.steps=2"]
        answer = cli(*words)
        assert answer.code == 0, (words, answer)
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1000
    assert all(row["sex"] == "Female" and 30 <= int(row["age"]) <= 40 for row in rows)
    with (tmp_path / "next.csv").open(newline="") as file:
        assert len({row["time_hour"] for row in csv.DictReader(file)}) >= 24
    assert (tmp_path / "new.png").is_file()


MINIMAL = ROOT / "examples" / "minimal.py"


def test_a_fifth_of_the_minimal_example_puts_each_gaussian_in_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = MINIMAL.read_text("utf-8")
    assert len(code.splitlines()) <= 120
    assert "steps = 3000" in code
    monkeypatch.setattr(sys, "argv", ["minimal.py", "--no-picture"])
    exec(compile(code.replace("steps = 3000", "steps = 600"), "minimal", "exec"), {"__name__": "minimal"})
    density, shares = capsys.readouterr().out.splitlines()[-2:]
    assert float(there(re.search(r"samples (-?[\d.]+)", density))[1]) > -2  # 2 nats nearer than after 300 steps
    found = [float(share) for share in re.findall(r"[\d.]+", shares)]
    assert found == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.04)


@pytest.mark.slow
def test_the_minimal_example_learns_its_distribution() -> None:
    done = subprocess.run(
        [sys.executable, MINIMAL, "--no-picture"],
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # beside another test a second thread would only be waited for
    )
    figures = dict(re.findall(r"(data|samples|ideal) (-?[\d.]+)", done.stdout.splitlines()[-2]))
    assert abs(float(figures["samples"]) - float(figures["data"])) < 0.15


def anchors(page: Path) -> set[str]:
    """What `page.md#...` may name: its headings, as a page of the repository makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://|mailto:", target):
            place, _, anchor = target.partition("#")
            found = (page.parent / place).resolve() if place else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_the_page_of_settings_is_that_of_the_signatures_and_says_what_each_means() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make" / "settings.py"))["page"]()
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == page, "python docs/make/settings.py"
    rows = re.findall(r"^\| `((?:training|sampling|data|net|process|objective)\.[\w.]+)` \|.*\| (.*) \|$", page, re.M)
    assert len(rows) > 250
    assert [name for name, meaning in rows if not meaning.strip()] == []


def test_every_page_has_a_place_on_the_site() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2])
    written = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert sorted([*listed, "examples.md"]) == sorted(written)  # which docs/make/hooks.py puts there


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    words = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "<math" in (tmp_path / "theory.html").read_text("utf-8")
    assert "Raises" in (tmp_path / "api" / "core" / "process.html").read_text("utf-8")
    for page in tmp_path.rglob("*.html"):
        asked = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*", page.read_text("utf-8")
        )
        assert asked == [], page


def test_what_is_said_of_versions_is_true() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M))
    assert f"rev: v{pinned['ruff']}\n" in (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert f"version: {ornstein.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
