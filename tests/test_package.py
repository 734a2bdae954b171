"""What is published: the source's archive makes the wheel, and the wheel, alone without the source, runs the demo."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_sdist(sys.argv[1]) if sys.argv[2] == "sdist" else build_meta.build_wheel(sys.argv[1]))
"""


def run(*words: object, cwd: Path) -> str:
    """What a command says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env={**clean, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_alone_runs_the_demo(tmp_path: Path) -> None:
    builder, alone, place = tmp_path / "builder", tmp_path / "alone", tmp_path / "elsewhere"
    place.mkdir()
    for folder in (builder, alone):
        run(sys.executable, "-m", "venv", folder, cwd=place)
    run(builder / "bin" / "pip", "install", "-q", "setuptools>=77", cwd=place)
    source = tmp_path / "source"
    run("git", "clone", "-q", ROOT, source, cwd=place)  # what is committed, and nothing that lies about
    sdist = run(builder / "bin" / "python", "-c", BUILD, tmp_path, "sdist", cwd=source).split()[-1]
    with tarfile.open(tmp_path / sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = tmp_path / run(builder / "bin" / "python", "-c", BUILD, tmp_path, "wheel", cwd=unpacked).split()[-1]
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.partition("/")[2] for name in archive.namelist() if name.startswith("ornstein/")}
    room = source / "src" / "ornstein"
    ours = {path.relative_to(room).as_posix() for path in room.rglob("*") if path.is_file()}
    assert ours - inside == set()

    run(alone / "bin" / "pip", "install", "-q", "--no-deps", wheel, cwd=place)
    libraries = Path(torch.__file__).parents[1]  # those that it depends on, and nothing of ours
    (home,) = (alone / "lib").glob("python*/site-packages")
    (home / "libraries.pth").write_text(f"{libraries}\n", "utf-8")
    python, ornstein = alone / "bin" / "python", alone / "bin" / "ornstein"
    assert Path(run(python, "-c", "import ornstein; print(ornstein.__file__)", cwd=place).strip()).is_relative_to(home)
    assert "threes" in run(ornstein, "sample", "digits", "-n", 9, "--label", 3, "--out", "threes.png", cwd=place)
    short = ["training.steps=20", "training.validate_every=20", "net.channels=8", "sampling.preview=4"]
    run(ornstein, "train", "digits", *short, "--out", "runs/demo", cwd=place)
    drawn = ["-n", 10, "--seed", 0, "--steps", 2, "--film", "--out", "runs/demo/samples/digits.png"]
    run(ornstein, "sample", "runs/demo", *drawn, cwd=place)
    run(ornstein, "evaluate", "runs/demo", "-n", 40, "--steps", 2, cwd=place)
    assert {"evaluation.json", "evaluation.png", "report.html"} <= {
        path.name for path in (place / "runs/demo").iterdir()
    }
    assert (place / "runs/demo/samples/digits.gif").is_file()
