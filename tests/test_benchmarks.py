"""A quick run of every benchmark: that it still runs, says what it should, and writes over nothing that is quoted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ornstein.metrics import lite

HERE = Path(__file__).parents[1] / "benchmarks"
#: script -> words beside --quick ("RUN" stands for a run folder), and what must be in what it prints
SCRIPTS = {
    "ablation": (["mnist"], "| none of it |"),
    "bridge": (["gaussian", "--only", "1,1"], "| 1 | 1 | 20 |"),
    "beginners": (["rows"], "s of processor time"),
    "busy": ([], "| one thread |"),
    "binarised": (["write", "RUN", "pictures.npz"], "pictures: pictures.npz"),
    "bits_per_dim": (["RUN"], "ODE minus bound"),
    "dreams": ([], "| vsd |"),
    "emoji": ([], "| real, held out |"),
    "frontier": ([], "ornstein, default"),
    "guidance": (["RUN"], "| 2 |"),
    "likelihood": ([], "ornstein exact, 0.01 nats"),
    "loop": (["moons"], "| all beside the step |"),
    "default": ([], "| correlated, d = 2 |"),
    "methods": (["moons", "edm"], "| edm | 8 steps"),
    "overhead": (["ddim", "heun"], "us a bare call"),
    "peers": ([], "grey    ornstein"),
    "pictures": (["RUN"], "| real, of training |"),
    "plan": ([], "| moons |"),
    "posterior": ([], "exact draws"),
    "precision": (["moons", "4"], "root mean square distance"),
    "quickstarts": (["photos"], "wrote runs/quick/photos.png"),
    "scaling": (["--only", "samples", "--threads", "1"], "threads, torch"),
    "series": ([], "iterative imputer, draws"),
    "startup": ([], "import ornstein, every name"),
    "students": (["RUN", "RUN"], "teacher"),
    "steppers": ([], "sliced Wasserstein distance to exact draws"),
    "throughput": (["--only", "ornstein", "--sizes", "grey", "--threads", "1"], "training step, ms"),
    "impute": ([], "| random forests, draws of leaves |"),
    "mixed": ([], "| the class given the picture, held-out digits |"),
    "odd": ([], "| weather |"),
    "tables": ([], "| sequential CART, leaves of 5 |"),
    "text": (["write", "docstrings.txt"], "documentation strings: docstrings.txt"),
    "time_to_quality": (["mnist", "--only", "ornstein", "--threads", "1"], "ornstein: 0.05 minutes"),
    "trained": (["RUN"], "ornstein default"),
    "vectors": ([], "| draw, 256 wide |"),
}
#: read by others
OTHERS = {"common", "problems", "tabular"}


def test_every_script_is_tried() -> None:
    assert {path.stem for path in HERE.glob("*.py")} - OTHERS == SCRIPTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_quick_run(script: Any, tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words, said = SCRIPTS[script]
    if script == "pictures" and lite.weights_file() is None:
        pytest.skip("the extra ornstein[images] is not installed")
    if script in ("beginners", "emoji", "time_to_quality", "tables", "impute", "odd"):
        monkeypatch.setenv("ORNSTEIN_DATA", str(request.getfixturevalue("real_data")))
    words = [str(request.getfixturevalue("run")) if word == "RUN" else word for word in words]
    kept = {path: path.read_bytes() for path in [*HERE.glob("*.json"), *HERE.parent.glob("docs/pictures/*")]}
    done = subprocess.run(
        [sys.executable, HERE / f"{script}.py", "--quick", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert said in done.stdout, done.stdout
    assert all(path.read_bytes() == content for path, content in kept.items())


def common() -> Any:
    spec = importlib.util.spec_from_file_location("common", HERE / "common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_works_take_turns_and_the_first_rounds_do_not_count() -> None:
    calls = []
    found = common().in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(taken) for name, taken in found.items()} == {"a": 3, "b": 3}
    assert all(0 <= second < 1 for taken in found.values() for second in taken)
    ticks = iter([2.0, 5.5])
    assert common().seconds(lambda: None, lambda: next(ticks)) == 3.5


def test_figures_are_kept_whole_and_those_of_a_quick_run_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "below" / "figures.json"
    assert common().kept(path, {"rows": []}) == {"rows": []}
    common().keep(path, {"rows": [1]})
    assert common().kept(path) == {"rows": [1]}
    assert [file.name for file in path.parent.iterdir()] == ["figures.json"]
    assert common().place(path, quick=False) == path
    assert common().place(path, quick=True) == Path("runs/quick/figures.json")


def test_coverage_by_ranks_counts_each_place_among_equal_draws_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nineteen draws of a truth that lies below all, within, and equal to the lowest one, to ten lowest, and to all."""
    monkeypatch.syspath_prepend(str(HERE))
    scores = importlib.import_module("impute").scores
    rows = SimpleNamespace(words=[False], train=np.array([[-1.0], [1.0]]), names=["x"])
    for lowest, truth, covered, ranked in [
        (1, -1.0, 0, 0), (1, 7.5, 1, 1), (1, 0.0, 1, 1 / 2), (10, 0.0, 1, 10 / 11), (19, 0.0, 1, 18 / 20)
    ]:  # fmt: skip
        drawn = np.r_[np.zeros(lowest), np.arange(1.0, 20 - lowest)].reshape(19, 1, 1)
        found = scores(drawn, np.array([[truth]]), np.array([[np.nan]]), rows)
        assert (found["covered"], found["ranked"]) == (covered, pytest.approx(ranked))


def test_a_table_is_markdown() -> None:
    table = common().heading("method", "calls", "seconds") + "\n" + common().row("ddim", 10, "0.5")
    assert table == "| method | calls | seconds |\n|---|---:|---:|\n| ddim | 10 | 0.5 |"
