"""A run that starts from another, on new data: `ornstein train --from RUN new.csv`; or on the same, with changes.

The new run has RUN's experiment and starts from its average, the weights that it draws with. The new data are read like
RUN's: the same types and levels of columns, the same classes, the same map to model space, the same unit of noise
(`ornstein.data.before`). All of this is written into the new run's own run.yaml, so RUN may be deleted once it has
started.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ornstein.core.learner import Learner
from ornstein.data import DATA, Latents, Series, Text
from ornstein.data.pictures import MODES
from ornstein.errors import InputError, shown
from ornstein.experiment import own, plain
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import CODEC, read_folder, weights_of
from ornstein.experiment.packaged import place


def going_on(run: "str | Path", source: "str | own.Own | None", changes: Iterable[str] = ()) -> Experiment:
    """The experiment of a run that begins with another, on other data or on the same.

    Args:
        run: the folder of the other, or the name of a packaged model.
        source: a file or folder of data; for data in memory, the choices of `ornstein.experiment.own`; None for
            those of the other.
        changes: to the other's experiment, each `path=value`.

    Raises:
        InputError: no run there; no such data; changes that are not known.
    """
    run, changes = Path(os.path.abspath(place(Path(run).expanduser()))), list(changes)
    before, about = read_folder(run)
    if source is None:
        return Experiment.read(beginning(run, before), changes)
    if DATA[before.data["name"]] is Text and isinstance(source, str):  # of which a path does not say what it is
        return Experiment.read({**beginning(run, before), "data": {**before.data, "path": source}}, changes)
    said = dict(change.partition("=")[::2] for change in changes)
    found = own.chosen(source, said) if isinstance(source, str) else source
    tree, reasons = beginning(run, before), dict[str, str]()
    if not about["data"].get("series"):  # whose rows are no examples
        limit = own.ENDLESS if own.by_time(said) else before.training.steps
        sized = own.sized(found, before.training.batch_size, limit)
        for key in ("batch_size", "steps"):
            tree["training"][key] = sized.changes.get(f"training.{key}", tree["training"][key])
        reasons = {key: why for key, why in sized.reasons.items() if key.startswith("training.") and key not in said}
    coded = DATA[before.data["name"]] is Latents
    data = _data(found.data, before.data["of"] if coded else before.data, about["data"])
    if coded:  # the latents of the new data, by the same codec
        data = {**tree["data"], "of": data}
    tree |= {"data": data, "reasons": {**tree["reasons"], **reasons}}
    return Experiment.read(tree, changes)


def beginning(run: Path, experiment: Experiment) -> dict[str, Any]:
    """The experiment of a run as that of another which begins with it, as plain data."""
    tree: dict[str, Any] = plain.parsed(experiment.to_yaml(), shown(run))
    if DATA[experiment.data["name"]] is Latents:  # its own copy, which is there for as long as the run is
        tree["data"]["codec"] = str(run / CODEC)
    why = {"start": f"{shown(run)}, whose weights, types and scales these are"}
    return {**tree, "reasons": why, "start": str(run)}


def _data(new: Mapping[str, Any], old: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The source of the new data: read as the old ones were where that is of the same kind, else in their shape."""
    if facts.get("series") and not DATA[new["name"]].beside:
        return {**(old if DATA[old["name"]] is Series else {"name": "series"}), "path": new["path"]}
    found = {**(old if old["name"] == new["name"] else {}), **new}
    takes = {entry.name for entry in dataclasses.fields(DATA[new["name"]])}  # type: ignore[arg-type]
    if "size" in takes:  # pictures
        channels, *sides = facts["shape"]
        found = {"mode": MODES[channels], **found, "size": list(sides)}
        if facts["classes"]:
            found["label"] = "folder"  # a single one, too, is a class of those
    elif facts.get("layout") and found.get("layout", "auto") == "auto" and "layout" in takes:
        found["layout"] = facts["layout"]
    return found


def start_from(learner: Learner, net: nn.Module, run: "str | Path") -> None:
    """Give the network of a learner the weights that a run draws with.

    Raises:
        InputError: no run there, or one of another network.
    """
    run = Path(run)
    experiment, _ = read_folder(run)
    try:
        learner.begin(net, weights_of(run, experiment, experiment.sampling.ema))
    except RuntimeError:
        raise InputError(
            f"start='{shown(run)}' has weights of another network; leave net, learner, data and what is predicted "
            "as they are."
        ) from None
