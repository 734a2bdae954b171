"""The examples run, short enough to be copied from, and the notebooks are those of the scripts, with their pictures."""

import base64
import io
import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import ornstein

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: script -> what it must say of itself; `minimal` has a test of its own in test_docs.py
SAYS = {
    "bridge": r"4 steps\n.*ends \d",
    "guided_digits": r"scale 1: read as asked (100|9\d)%",
    "text_to_emoji": r"4 steps, 13 words\nasked for: red circle",
    "own_photos": r"4 steps, classes: cats, dogs\n.*held out \d",
    "own_process": r"shares of the three Gaussians: \[0\.[45]\d*, 0\.[23]\d*, 0\.[12]\d*\]",
    "own_table": r"178 rows, 4 steps\n[\S\s]*0 +A +1[34]\.",
}
#: script -> what it trains smaller than a reader does: of four steps nothing is learned anyway
SMALLER: dict[str, dict[str, Any]] = {"text_to_emoji": {"net.channels": 8, "sampling.steps": 4, "sampling.preview": 4}}


def test_every_example_is_tried_and_short() -> None:
    scripts = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == {*SAYS, "minimal"}
    assert all(len(path.read_text("utf-8").splitlines()) <= 100 for path in scripts.values())


@pytest.mark.parametrize("name", SAYS)
@pytest.mark.usefixtures("own_tables")
def test_an_example_runs(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    if name == "own_photos":
        for i in range(24):
            file = tmp_path / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (10 * i, 255 - 10 * i, 99)).save(file)
    for key, value in {"STEPS": "4", "EACH": "4", "PHOTOS": "photos"}.items():
        monkeypatch.setenv(key, value)
    fit: Any = ornstein.fit
    smaller = SMALLER.get(name, {})
    monkeypatch.setattr(ornstein, "fit", lambda *what, **how: fit(*what, **how, **smaller))
    with plt.rc_context():  # which the script may change
        plt.switch_backend("agg")
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        plt.close("all")
    assert re.search(SAYS[name], capsys.readouterr().out)
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 600


def test_notebooks_are_those_of_the_scripts_with_their_pictures() -> None:
    maker = runpy.run_path(str(ROOT / "docs" / "make" / "notebooks.py"))
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(maker["NAMES"])
    for name in maker["NAMES"]:
        notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text("utf-8"))
        kept = [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]
        assert kept == maker["cells"]((EXAMPLES / f"{name}.py").read_text("utf-8")), (
            f"python docs/make/notebooks.py {name}"
        )
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
        pictures = [output["data"]["image/png"] for output in outputs if output["output_type"] == "display_data"]
        assert pictures
        assert all(Image.open(io.BytesIO(base64.b64decode(picture))).width > 600 for picture in pictures)
        assert any("".join(output["text"]).strip() for output in outputs if output["output_type"] == "stream")
