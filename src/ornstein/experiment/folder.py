"""The folder that training writes, and its readers.

    runs/digits/
        experiment.yaml        the experiment, every default written out
        run.yaml               the data's fingerprint and transform, versions, size of the network, when it started
        tuned.yaml             grids and solvers that `ornstein tune` fitted to it
        model.safetensors      the weights; ema-0.050.safetensors, ... their averages
        metrics.jsonl          one line per report: step, loss, gradient, rate; held-out error, and that by noise level
        tensorboard/           the same, for TensorBoard
        samples/step-*.png     the same noise, drawn with the averages of each step; latest.png is the newest
        loss.png               the loss curve
        loss-by-noise.png      the held-out error at each noise level
        manifest.json          the hashes of the YAML and safetensors files, checked whenever the run is opened
        critic.safetensors     for a table: trees that know the data's rows, by which some draws are made again
        latents.yaml           for a codec: the scale of its latents and how well it reconstructs
        codec/                 for a model of latents: the parts of its codec's run that drawing needs
        data/                  examples that `ornstein.fit` was given in memory
        training.log           the output of training that the studio started
        uploaded/              a file that was uploaded for it
        checkpoints/           what `--resume` continues from, bit for bit

Sampling needs only the two YAML files and one safetensors file: none of them can execute anything.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein.core.drive import Stepper
from ornstein.data import DATA
from ornstein.data.kept import PLACE as KEPT
from ornstein.data.pictures import WHITE
from ornstein.errors import InputError, shown
from ornstein.experiment import plain
from ornstein.experiment.config import Experiment
from ornstein.experiment.learner import LEARNERS
from ornstein.files import digest, utf8
from ornstein.samplers.tuned import Tuned
from ornstein.training import Lock as Lock
from ornstein.training import average_file, manifest, read_lines, reconstruct
from ornstein.training import held_by as held_by
from ornstein.training import holding as holding
from ornstein.training import newest_step as newest_step

#: the grids that `ornstein tune` fitted to a run, by their number of steps
TUNED = "tuned.yaml"
#: what was measured of a codec, in its folder; and the codec of a model of latents, in that one's
MEASURED, CODEC = "latents.yaml", "codec"
#: trees by whose odds some draws are made again, and the weights that they know, as a hash among their tensors
CRITIC, _KNOWS = "critic.safetensors", "weights"
#: what was asked for, and the facts of the run
EXPERIMENT, ABOUT = "experiment.yaml", "run.yaml"
#: whatever training and its reports write, beside weights
WRITTEN = (
    *(EXPERIMENT, ABOUT, TUNED, "manifest.json", "metrics.jsonl", "tensorboard", "samples", "checkpoints", "snapshots"),
    *(MEASURED, CODEC, "loss.png", "evaluation.json", "evaluation.png", "report.html"),
    *{f"{entry.judges.name}.png" for entry in LEARNERS.values()},
)


def read_folder(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment and the facts of a run folder.

    Raises:
        InputError: not a run folder, or one that cannot be read.
    """
    place = shown(folder)
    try:
        is_folder = folder.is_dir()
        missing = [name for name in (EXPERIMENT, ABOUT) if not (folder / name).is_file()]
    except OSError as error:  # a folder that may not be entered
        raise InputError(f"run='{place}' cannot be read: {error.strerror}.") from None
    if not is_folder:
        raise InputError(f"run='{place}' is not a folder; give one that `ornstein train` wrote.")
    if missing:
        raise InputError(f"run='{place}' has no {missing[0]}: it is not a run folder, or it was damaged.")
    utf8(folder, "run")
    for name in (EXPERIMENT, ABOUT):
        manifest.check(folder, name)
    about = plain.read(folder / ABOUT, plain.MOST_WRITTEN)
    try:
        facts, versions = about["data"], about["versions"]
        whole = isinstance(facts["sha256"], str) and isinstance(versions, Mapping) and len(facts["range"]) == 2
        facts["shape"], facts["kind"], facts["sigma_data"], facts["count"], facts["name"]
        about["transform"].items(), about["parameters"], about["began"]
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InputError(f"{shown(folder / ABOUT)} is damaged: it does not describe a run.")
    return read_experiment(folder), about


def as_read(experiment: Experiment) -> dict[str, Any]:
    """How to read pictures like those of an experiment, for `read_for_model`; for a bridge, like its target.

    They are cropped and resized if those were, and only then.
    """
    ends = [value for value in experiment.data.values() if isinstance(value, Mapping) and "name" in value]
    settings = ends[-1] if ends else experiment.data
    return {"resized": settings.get("size") is not None, "background": settings.get("background", WHITE)}


def read_experiment(folder: Path, changes: Iterable[str] = ()) -> Experiment:
    """The experiment of a run folder, with changes to it, each `path=value`. Data that lie in it move with it."""
    found = Experiment.read(folder / EXPERIMENT)
    kept = DATA[found.data["name"]].beside and (folder / KEPT).exists()  # else they lie with the run that it began with
    beside = [f"data.path={json.dumps(str(folder / KEPT))}"] if kept else []
    return Experiment.read(folder / EXPERIMENT, [*beside, *changes]) if beside or changes else found


def write_facts(folder: Path, experiment: Experiment, about: Mapping[str, Any]) -> None:
    """Write the experiment and the facts of a run, which are on the disk before anything is trained.

    Raises:
        InputError: the disk is full or refuses.
    """
    with manifest.publishing(folder, EXPERIMENT, ABOUT) as (first, second):
        first.write_text(experiment.to_yaml(), "utf-8")
        second.write_text(plain.written(dict(about)), "utf-8")


def write_experiment(folder: Path, experiment: Experiment) -> None:
    """Write the experiment of a run that goes on, whose facts stay what they are."""
    with manifest.publishing(folder, EXPERIMENT) as (part,):
        part.write_text(experiment.to_yaml(), "utf-8")


def may_begin(folder: Path) -> None:
    """Refuse to start training in a folder that holds a run, or anything else that training would overwrite.

    The remains of a start that failed before it saved anything are replaced.

    Raises:
        InputError: see above; the sentence names what is in the way.
    """
    place, known = shown(folder), manifest.read(folder)
    trained = newest_step(folder) is not None or any(folder.glob("*.safetensors"))
    if (folder / ABOUT).exists() and (trained or known is None or ABOUT not in known):
        raise InputError(f"out='{place}' holds a run already; go on with --resume {place}, or name another --out.")
    if known is not None and not trained:
        for name in (EXPERIMENT, ABOUT):
            if (folder / name).exists():
                manifest.check(folder, name)
        return
    found = [path.name for path in sorted(folder.iterdir()) if path.name in WRITTEN or path.suffix == ".safetensors"]
    if found:
        raise InputError(
            f"out='{place}' holds {', '.join(map(shown, found[:3]))}, which training would write over and did not "
            "write; move it, or name another --out."
        )


def accept(folder: Path) -> list[str]:
    """Accept the files of a run folder as they are, after an edit by hand; returns the names of those that differed.

    Raises:
        InputError: no run folder, one that is in use, or one whose files do not describe a run.
    """
    if not folder.is_dir():
        raise InputError(f"run='{shown(folder)}' is not a folder; give one that `ornstein train` wrote.")
    names = [name for name in (EXPERIMENT, ABOUT, TUNED, MEASURED) if (folder / name).is_file()]
    weights = [*folder.glob("*.safetensors"), *(folder / "snapshots").glob("*.safetensors")]
    names += sorted(str(path.relative_to(folder)) for path in weights if not path.name.startswith("."))
    if EXPERIMENT in names:
        Experiment.read(folder / EXPERIMENT)
    with holding(folder, "accepting changes"):
        changed = manifest.accept(folder, names)
    read_folder(folder)
    return changed


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; one that was cut short is skipped."""
    path = folder / "metrics.jsonl"
    return [row for _, row in read_lines(path)] if path.is_file() else []


def read_weights(path: Path, folder: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in a run folder.

    Raises:
        InputError: it is not there, damaged, or not what training wrote.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        if newest_step(folder) is None:
            raise InputError(
                f"{shown(path)} is not there: training has not saved yet; go on with --resume {shown(folder)}."
            )
        raise InputError(
            f"{shown(path)} is missing; go on with --resume {shown(folder)}, which writes it again from the newest "
            "checkpoint."
        )
    manifest.check(folder, path.name)
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        raise InputError(
            f"{shown(path)} is damaged; the newest checkpoint in {shown(folder / 'checkpoints')} may be whole."
        ) from None


def weights_name(ema: float) -> str:
    """The file of the weights, or of their average of length `ema`."""
    return average_file(ema) if ema else "model.safetensors"


def weights_of(folder: Path, experiment: Experiment, ema: float) -> dict[str, Tensor]:
    """The weights in a run folder, or their average of length `ema`.

    Raises:
        InputError: they are not there, or damaged.
    """
    weights = folder / weights_name(ema)
    # an average that was tracked is read or missed, never made again in silence
    if weights.is_file() or not ema or weights.name in map(average_file, experiment.training.ema):
        return read_weights(weights, folder)
    return reconstruct(folder, ema)


def read_critic(folder: Path, ema: float) -> dict[str, Tensor] | None:
    """The critic of what the weights, or their average of length `ema`, draw; None if there is none, or of others.

    Raises:
        InputError: it is damaged.
    """
    if not (folder / CRITIC).is_file():
        return None
    found = read_weights(folder / CRITIC, folder)
    same = bytes(found.pop(_KNOWS, torch.empty(0, dtype=torch.uint8)).tolist())
    return found if same == bytes.fromhex(digest(folder / weights_name(ema), "sha256")) else None


def write_critic(folder: Path, ema: float, critic: Mapping[str, Tensor]) -> None:
    """Write the critic of what these weights draw. For the holder of the lock."""
    from safetensors.torch import save_file

    knows = torch.tensor(list(bytes.fromhex(digest(folder / weights_name(ema), "sha256"))), dtype=torch.uint8)
    with manifest.publishing(folder, CRITIC) as (part,):
        save_file({**critic, _KNOWS: knows}, part)


def read_measured(folder: Path) -> dict[str, Any] | None:
    """What was measured of a codec when its training ended: see `ornstein.experiment.latents`; None before that."""
    if not (folder / MEASURED).is_file():
        return None
    manifest.check(folder, MEASURED)
    found = plain.read(folder / MEASURED)
    try:
        str(found["weights"])
        numbers = {name: [float(value) for value in found[name]] for name in ("shift", "scale")}
        return {**found, **numbers, **{name: float(found[name]) for name in ("spread", "psnr", "ssim")}}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{shown(folder / MEASURED)} is damaged: measure again with ornstein evaluate.") from None


def write_measured(folder: Path, found: Mapping[str, Any]) -> None:
    """Write what was measured of a codec. For the holder of the lock."""
    with manifest.publishing(folder, MEASURED) as (part,):
        part.write_text(plain.written(dict(found)), "utf-8")


def carry(source: Path, folder: Path) -> None:
    """Copy the codec into the folder of a model of its latents, so that this needs nothing else."""
    experiment = read_experiment(source)
    names = (EXPERIMENT, ABOUT, MEASURED, weights_name(experiment.sampling.ema))
    there = folder / CODEC
    there.mkdir(parents=True, exist_ok=True)
    with manifest.publishing(there, *names) as parts:
        for name, part in zip(names, parts, strict=True):
            shutil.copyfile(source / name, part)


def read_tuned(folder: Path) -> dict[int, Any]:
    """What tuning left in a run folder, by the number of steps: "grid", best by the bound, "endpoint", a `Tuned`."""
    path = folder / TUNED
    if not path.is_file():
        return {}
    manifest.check(folder, TUNED)
    try:
        kept = plain.read(path, plain.MOST_WRITTEN)
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
    except (AttributeError, InputError, KeyError, TypeError, ValueError):
        raise InputError(f"{shown(path)} is damaged: delete it and tune again.") from None


def tuned_for(
    folder: Path, steps: int, stepper: "str | Stepper | None"
) -> "tuple[int, Sequence[float], str | Stepper | None]":
    """What was tuned for this number of steps: the number, the grid, and its stepper.

    A stepper tuned to the endpoint brings its grid; a named stepper uses the grid tuned to the bound, if there is one.

    Raises:
        InputError: nothing was.
    """
    kept = read_tuned(folder)
    if steps not in kept:
        known = ", ".join(map(str, sorted(kept))) or "none"
        raise InputError(
            f"grid='tuned' has no {steps} steps (tuned: {known}); run `ornstein tune {folder} --steps {steps}`."
        )
    entry = kept[steps]
    if "endpoint" in entry and (stepper is None or "grid" not in entry):
        tuned: Tuned = entry["endpoint"]
        return steps, tuned.grid, tuned if stepper is None else stepper
    return steps, entry["grid"], stepper


def write_tuned(folder: Path, steps: int, part: Mapping[str, Any]) -> None:
    """Add what tuning found for this number of steps. For the holder of the lock."""
    kept = read_tuned(folder)
    kept[steps] = {**kept.get(steps, {}), **part}
    written = {
        k: {key: _as_mapping(value) if isinstance(value, Tuned) else value for key, value in entry.items()}
        for k, entry in kept.items()
    }
    with manifest.publishing(folder, TUNED) as (part_of,):
        part_of.write_text(plain.written(written, sort_keys=True), "utf-8")


def _as_mapping(tuned: Tuned) -> dict[str, Any]:
    return {
        "grid": list(tuned.grid),
        "drift": list(tuned.drift),
        "weights": [list(row) for row in tuned.weights],
        "leanings": [[list(row) for row in rows] for rows in tuned.leanings],
    }
