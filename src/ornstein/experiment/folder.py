"""The folder that training leaves behind, and who reads it.

    runs/digits/
        experiment.yaml        the experiment, every default written out
        run.yaml               the data's fingerprint and transform, versions, size of the network, when it began
        tuned.yaml             grids and solvers that `ornstein tune` fitted to it
        model.safetensors      the weights; ema-0.050.safetensors, ... their averages
        metrics.jsonl          one line per report: step, loss, gradient, rate, held-out error
        tensorboard/           the same, for TensorBoard
        samples/step-*.png     the same noise drawn by the averages of each moment; latest.png is the newest
        loss.png               the loss curve
        loss-by-noise.png      the held-out error at each noise level
        checkpoints/           what `--resume` continues from, bit for bit

What a person needs to sample is the two YAML files and one safetensors file: none of them can execute anything.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.files import write_text
from ornstein.samplers.tuned import Tuned

#: the grids that `ornstein tune` fitted to a run, by their number of steps
TUNED = "tuned.yaml"


def read_folder(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment and the facts of a run folder.

    Raises:
        InputError: not a run folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"run={str(folder)!r} is not a folder; give one that `ornstein train` wrote.")
    missing = [name for name in ("experiment.yaml", "run.yaml") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"run={str(folder)!r} has no {missing[0]}: it is not a run folder, or it was damaged.")
    try:
        about = yaml.safe_load((folder / "run.yaml").read_text("utf-8"))
        about["data"]["sha256"], about["transform"]  # the parts that everything needs
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{folder / 'run.yaml'} is damaged: it does not describe a run.") from None
    return Experiment.read(folder / "experiment.yaml"), about


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def read_weights(path: Path, folder: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in a run folder.

    Raises:
        InputError: it is not there, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} is not there: training has not saved yet; go on with --resume {folder}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        raise InputError(
            f"{path} is damaged; the newest checkpoint in {folder / 'checkpoints'} may be whole."
        ) from None


def read_tuned(folder: Path) -> dict[int, Any]:
    """What tuning left in a run folder, by the number of steps: "grid", best by the bound, "endpoint", a `Tuned`."""
    path = folder / TUNED
    if not path.is_file():
        return {}
    try:
        kept = yaml.safe_load(path.read_text("utf-8"))
        found = {int(steps): dict(entry) for steps, entry in kept.items()}
        for entry in found.values():
            if "grid" in entry or "endpoint" not in entry:
                entry["grid"] = [float(t) for t in entry["grid"]]
            if "endpoint" in entry:
                part = {key: entry["endpoint"][key] for key in ("grid", "drift", "weights")}
                rows = tuple(tuple(map(float, row)) for row in part["weights"])
                grid, drift = (tuple(map(float, part[key])) for key in ("grid", "drift"))
                leanings = entry["endpoint"].get("leanings", ())  # solvers of older runs have none
                leant = tuple(tuple(tuple(map(float, row)) for row in rows) for rows in leanings)
                entry["endpoint"] = Tuned(grid, drift, rows, leant)
        return found
    except (yaml.YAMLError, AttributeError, InputError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is damaged: delete it and tune again.") from None


def write_tuned(folder: Path, steps: int, part: Mapping[str, Any]) -> None:
    """Add to what tuning left for so many steps."""
    kept = read_tuned(folder)
    kept[steps] = {**kept.get(steps, {}), **part}
    plain = {
        k: {key: _as_mapping(value) if isinstance(value, Tuned) else value for key, value in entry.items()}
        for k, entry in kept.items()
    }
    write_text(folder / TUNED, yaml.safe_dump(plain, sort_keys=True))


def _as_mapping(tuned: Tuned) -> dict[str, Any]:
    return {
        "grid": list(tuned.grid),
        "drift": list(tuned.drift),
        "weights": [list(row) for row in tuned.weights],
        "leanings": [[list(row) for row in rows] for rows in tuned.leanings],
    }
