"""Five run folders that an old version trained, what it drew from them, and how it went on with them.

    PYTHONPATH=OLD/src OMP_NUM_THREADS=1 python tests/old_runs.py

trained and recorded what lies here, where OLD was the code of the first version of experiments (db7d8df). Not to be run
again: what it would write is what today's code does. `tests/test_old_runs.py` asks today's for the same.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "old"
STEPS, MORE = 20, 5

_SHORT = [
    f"training.steps={STEPS}", "training.warmup=5", "training.batch_size=64", "training.ema=[0.1]", "sampling.ema=0.1",
    "training.snapshot_every=0", "training.keep=1", "sampling.preview=1",
]  # fmt: skip
_POINTS = ["net.width=16", "net.depth=2", "net.embedding=16"]
_IMAGES = ["net.channels=8", "net.multipliers=[1]", "net.embedding=16"]
#: run -> how it was trained
TRAINED = {
    "moons": ["moons", "preset=ddpm", *_POINTS],
    "hybrid": ["moons", "preset=hybrid", *_POINTS],
    "energy": ["moons", "preset=energy-recovery", *_POINTS],
    "digits": ["digits", *_IMAGES],
    "classifier": ["digits", "objective=classifier", "predicts=x0", *_IMAGES],
}
#: run -> name of a drawing -> the options it was asked for with
DRAWN: dict[str, dict[str, list[str]]] = {
    "moons": {"own": [], "fewer": ["--steps", "7", "--stepper", "unipc"]},
    "hybrid": {"own": [], "fewer": ["--steps", "7", "--stepper", "ddpm", "--with", "variance=learned"]},
    "energy": {"own": []},
    "digits": {
        "own": [],
        "guided": ["--label", "3", "--scale", "2", "--steps", "6"],
        "by-classifier": ["--guidance", "classifier", "--guide", "classifier", "--label", "3", "--steps", "6"],
        **{
            stepper: ["--steps", "5", "--stepper", stepper]
            for stepper in ("adaptive", "heun", "rk4", "dpm-solver", "dpm++2m", "dpm++2m-sde", "plms", "euler-maruyama")
        },
        **{grid: ["--steps", "4", "--grid", grid] for grid in ("logsnr", "karras", "uniform")},
    },
    "classifier": {},
}


def drawing(run: str, name: str, out: Path) -> list[str]:
    """The words of the command that draws it, from the folder in which the runs lie."""
    return ["sample", run, "-n", "3", "--seed", "3", *DRAWN[run][name], "--out", str(out)]


def resuming(run: str) -> list[str]:
    """The words of the command that goes on with a run."""
    return ["train", "--resume", run, f"training.steps={STEPS + MORE}"]


def drawn(out: Path) -> np.ndarray:
    """What a drawing's file holds."""
    with np.load(out) as file:
        return np.asarray(file["samples"])


def weights(run: Path) -> dict[str, np.ndarray]:
    """The weights of a run and their average, by file and name."""
    from safetensors.numpy import load_file

    return {
        f"{file}/{name}": values
        for file in ("model", "ema-0.100")
        for name, values in load_file(run / f"{file}.safetensors").items()
    }


def held_out(run: Path) -> float:
    """The held-out error that was reported last."""
    return float(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["held_out"])


def _record() -> None:
    def ornstein(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "ornstein", *words], cwd=work, check=True)

    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for run, words in TRAINED.items():
            ornstein("train", *words, *_SHORT, "--out", run)
            for nothing_to_draw_from in ("samples", "tensorboard"):
                shutil.rmtree(work / run / nothing_to_draw_from, ignore_errors=True)
            for picture in (work / run).glob("*.png"):
                picture.unlink()
            shutil.copytree(work / run, HERE / run)
        for run in TRAINED:
            found: dict[str, Any] = {}
            for name in DRAWN[run]:
                ornstein(*drawing(run, name, work / f"{name}.npz"))
                found[f"drawn/{name}"] = drawn(work / f"{name}.npz")
            ornstein(*resuming(run))
            found |= {f"resumed/{name}": values for name, values in weights(work / run).items()}
            np.savez_compressed(HERE / f"{run}.npz", held_out=held_out(work / run), **found)


if __name__ == "__main__":
    _record()
