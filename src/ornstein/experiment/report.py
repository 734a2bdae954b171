"""What a run is, in a line for each thing: `ornstein info RUN`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ornstein.data import Transform
from ornstein.experiment.folder import CODEC, read_folder, read_measured, read_metrics
from ornstein.experiment.latents import in_words
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.packaged import place


def describe(folder: "str | Path") -> dict[str, str]:
    """What a run is, as lines of a name and a value, read without loading the network.

    Raises:
        InputError: not a run folder.
    """
    folder = place(folder)
    experiment, about = read_folder(folder)
    facts, versions, training = about["data"], about["versions"], experiment.training
    records = read_metrics(folder)
    checked = [r for r in records if r.get("held_out") is not None]
    kind, shape = examples(facts)
    low, high = facts["range"]
    labels = f", {len(facts['classes'])} classes" if facts["classes"] else ""

    def said(chosen: Mapping[str, Any]) -> str:
        rest = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "name" and value is not None)
        return f"{chosen['name']} ({rest})" if rest else chosen["name"]

    lines = {
        "data": f"{facts['name']}: {facts['count']:,} {kind} of {shape}"
        + ("" if facts.get("table") else f", values {low:g}..{high:g}, sigma_data {facts['sigma_data']:.3f}")
        + labels,
        "process": said(experiment.process),
        "net": f"{said(experiment.net)}; {about['parameters']:,} parameters, predicts {experiment.predicts}",
        "objective": said(experiment.objective),
        "sampling": f"{said(experiment.sampling.stepper)}, {experiment.sampling.steps or 'all'} steps, grid "
        f"{experiment.sampling.grid or 'by default'}, average {experiment.sampling.ema:g}",
        "trained": f"{records[-1]['step']:,} of {training.steps:,} steps, batch {training.batch_size}, "
        f"seed {training.seed}"
        if records
        else f"not yet, of {training.steps:,} steps",
    }
    entry, own = LEARNERS[experiment.learner["name"]], tuple(facts["shape"])  # type: ignore[index]
    if how := entry.explained(experiment.learner, Transform.from_dict(about["transform"]).shape(own)):  # type: ignore[arg-type]
        lines["stages"] = how
    if len(experiment.learner) > 1:  # type: ignore[arg-type]
        lines["learner"] = said(experiment.learner)  # type: ignore[arg-type]
    lines |= {f"why {name}": why for name, why in about.get("reasons", {}).items()}
    if checked:
        known = entry.judges.unit
        best = min(checked, key=lambda r: r["held_out"])
        lines["held-out"] = (
            f"{checked[-1]['held_out']:.4f} (1 = {known}); best {best['held_out']:.4f} at step {best['step']:,}"
        )
    if (measured := read_measured(folder)) is not None:
        lines["codec"] = in_words(measured)
    if (folder / CODEC).is_dir():
        lines["codec"] = _codec(folder / CODEC)
    if records and records[-1].get("skipped"):
        lines["skipped"] = f"{records[-1]['skipped']:,} steps were not finite"
    if (result := folder / "evaluation.json").is_file():
        lines["evaluation"] = str(result)
    lines["versions"] = (
        ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; began {about['began']}"
    )
    if not (folder / "manifest.json").exists():
        lines["unchecked"] = "no manifest.json: files of this older run are opened as they are until training goes on"
    lines["files"] = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    return lines


def examples(facts: Mapping[str, Any]) -> tuple[str, str]:
    """What a run's examples are called, and how large each is, in words; `facts` are those of its data in run.yaml."""
    kind, shape = facts["kind"], facts["shape"]
    if facts.get("table"):
        return "rows", f"{shape[0]} columns"
    if facts.get("series"):
        features, steps = shape
        return "windows", f"{steps} steps, {features} feature{'s' * (features != 1)} each"
    return "series" if len(shape) == 2 else f"{kind}s", _by(shape, kind == "image")


def _by(shape: Sequence[int], image: bool) -> str:
    if len(shape) == 1:
        return f"{shape[0]} numbers"
    colours = "" if shape[0] == 1 else f" in {shape[0]} channels"
    return "×".join(map(str, shape[1:])) + (" pixels" if image else " values") + colours


def _codec(folder: Path) -> str:
    """The codec of a model of latents, which lies in its folder."""
    experiment, about = read_folder(folder)
    measured = read_measured(folder)
    said = "not measured" if measured is None else in_words(measured)
    return f"{experiment.net['name']} of {about['parameters']:,} parameters, in {CODEC}/: {said}"
