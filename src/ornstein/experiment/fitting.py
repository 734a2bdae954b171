"""`ornstein.fit(X)`: a model of data in memory, or of a path, whose samples come back in the type of the data.

    model = ornstein.fit(frame)                     # a data frame, an array, a tensor, pictures, a file or a folder
    model = ornstein.fit(frame, data="series")      # the same as a series in time
    more = model.sample(1000, seed=0)               # the same type again, in the same units

Choices and training are those of `ornstein train PATH`. A run folder is made: a lasting one if it is named, otherwise
one that is deleted with the model. Data in memory are kept in it (`ornstein.data.kept`), so that the run can be
resumed, evaluated and scored like any other.
"""

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ornstein.data import Dataset
from ornstein.data.kept import PLACE, keep
from ornstein.errors import InputError, shown
from ornstein.experiment import own
from ornstein.experiment.config import Experiment, key_of
from ornstein.experiment.folder import holding, may_begin, read_folder
from ornstein.experiment.given import taken
from ornstein.experiment.model import Model
from ornstein.experiment.run import Run
from ornstein.experiment.start import going_on
from ornstein.experiment.train import train
from ornstein.experiment.watch import Moment
from ornstein.training import manifest

#: how the keys begin that say what a column is
_TYPES = "data.types."


def fit(
    X: Any,
    y: Any = None,
    *,
    folder: "str | Path | None" = None,
    start: "Model | Run | str | Path | None" = None,
    progress: Callable[[Moment], None] | None = None,
    **changes: Any,
) -> Model:
    """Train a model of data.

        model = ornstein.fit(X, steps=2000, **{"net.width": 128})

    Args:
        X: a data frame of pandas, polars or pyarrow; an array or a tensor (N, ...), whose axes are read as
            `ornstein.data.array` says; a list of pictures (PIL, or arrays of bytes (H, W), (H, W, 3) or (H, W, 4)),
            read as those of a folder are, by `data.mode`, `data.size` and `data.background`; or the path of whatever
            `ornstein train` takes. With data="series" a frame has a row for each moment, and an array is (time,),
            (time, features) or (series, time, features).
        y: the class of each example, whole numbers or words (N,), to draw from by `label=`. Not for a frame, where it
            is a column, nor for a path.
        folder: where the run is kept; None: in a temporary folder that is deleted with the model.
        start: a run to start from, whose types and scales are kept: see `ornstein.experiment.start`.
        progress: called with each `Moment` of training.
        **changes: changes to the choices, by the keys of an experiment: `steps=500`, `minutes=10` for as many steps as
            that allows here, `**{"training.lr": 1e-3}`.

    Raises:
        InputError: data that are none of these, or that hold nothing to learn; a key or a value that is not known; a
            folder that holds a run already.
        ornstein.experiment.train.Diverged: the loss stopped being finite.
    """
    said = {_key(name): value for name, value in changes.items()}
    begun = Path(start.run.folder if isinstance(start, Model) else start.folder if isinstance(start, Run) else start) \
        if start is not None else None  # fmt: skip
    place = Path(tempfile.mkdtemp(prefix="ornstein-")) if folder is None else Path(folder).expanduser()
    try:
        if isinstance(X, (str, Path)):
            if y is not None:
                raise InputError("y goes with data in memory; a file or a folder has its labels in it.")
            words = [_change(key, value) for key, value in said.items()]
            asked = Experiment.read(str(X), words) if begun is None else going_on(begun, str(X), words)
            _through(asked, place, None, progress, seen=folder is not None)
            like = None
        else:
            like = _in_memory(X, y, said, begun, place, progress, seen=folder is not None)
    except BaseException:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
        raise
    model = Model(Run.load(place), like)
    if folder is None:
        weakref.finalize(model, shutil.rmtree, place, True)
    return model


def _key(name: str) -> str:
    """The key of an experiment that a keyword means."""
    key = name if "." in name else key_of(name)
    if key is None:
        raise InputError(f"{shown(name)} is no key of an experiment, such as steps, batch_size, lr or net.width.")
    return key


def _change(key: str, value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return f"{key}={json.dumps(value)}"
    except TypeError:
        raise InputError(f"{key}={value!r} must be a number, a word, or a list or mapping of these.") from None


def _in_memory(
    X: Any,
    y: Any,
    said: Mapping[str, Any],
    begun: Path | None,
    place: Path,
    progress: Callable[[Moment], None] | None,
    seen: bool,
) -> Any:
    """Train on data in memory, which are kept in the folder; what is needed to give the like of them back."""
    before = None if begun is None else read_folder(begun)[1]
    arguments = {k[5:]: v for k, v in said.items() if k.startswith("data.") and not k.startswith(_TYPES)}
    if types := {k.removeprefix(_TYPES): v for k, v in said.items() if k.startswith(_TYPES)}:
        arguments["types"] = {**arguments.get("types", {}), **types}
    data, like, reasons = taken(X, y, arguments, before, said.get("data"))
    words = [_change(key, value) for key, value in said.items() if key.partition(".")[0] != "data"]
    with holding(place, "training") as lock:
        may_begin(place)
        if (place / PLACE).exists() and manifest.read(place) is None:
            raise InputError(f"folder='{shown(place)}' holds {PLACE}, which fit would write over; name another folder.")
        source = {"name": "kept", "path": str(place / PLACE)}
        count = len(data.train) + len(data.test)
        if data.columns:
            chosen = own.of_table(source, count, len(data.columns))
        elif data.timeline is not None:
            chosen = own.as_said("series", source)
        else:
            chosen = own.of_shape(source, count, data.shape, data.kind, "the data")
        chosen.reasons.update(reasons)
        asked = Experiment.read(chosen, words) if begun is None else going_on(begun, chosen, words)
        keep(data, place / PLACE)
        _through(asked, place, data, progress, lock, seen)
    return like


def _through(
    asked: Experiment,
    place: Path,
    data: Dataset | None,
    progress: Callable[[Moment], None] | None,
    lock: Any = None,
    seen: bool = True,
) -> None:
    for moment in train(asked, place, data, lock=lock, draws=seen):
        if progress is not None:
            progress(moment)
