"""`ornstein.fit(X)`: a model of data in memory, or of a path, whose samples come back in the type of the data.

    model = ornstein.fit(frame)                     # a data frame, an array, a tensor, pictures, a file or a folder
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.data import Dataset
from ornstein.data.frames import fill_frame, to_frame
from ornstein.data.kept import PLACE, keep
from ornstein.data.reading import as_tensor
from ornstein.errors import InputError, shown
from ornstein.experiment import cells, own
from ornstein.experiment.config import Experiment, key_of
from ornstein.experiment.folder import holding, may_begin, read_folder
from ornstein.experiment.given import Pictures, are_pictures, array_of, picture_values, taken, typed
from ornstein.experiment.loglik import loglik
from ornstein.experiment.pictures import as_pictures
from ornstein.experiment.restore import inpaint
from ornstein.experiment.rows import fill, read_rows
from ornstein.experiment.run import Run
from ornstein.experiment.start import going_on
from ornstein.experiment.train import train
from ornstein.experiment.watch import Moment
from ornstein.experiment.where import Where
from ornstein.training import manifest


def fit(
    X: Any,
    y: Any = None,
    *,
    folder: "str | Path | None" = None,
    start: "Model | Run | str | Path | None" = None,
    progress: Callable[[Moment], None] | None = None,
    **changes: Any,
) -> "Model":
    """Train a model of data.

        model = ornstein.fit(X, steps=2000, **{"net.width": 128})

    Args:
        X: a data frame of pandas, polars or pyarrow; an array or a tensor (N, ...), whose axes are read as
            `ornstein.data.array` says; a list of pictures (PIL, or arrays of bytes (H, W), (H, W, 3) or (H, W, 4)),
            read as those of a folder are, by `data.mode`, `data.size` and `data.background`; or the path of whatever
            `ornstein train` takes.
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
    data, like, reasons = taken(X, y, {k[5:]: v for k, v in said.items() if k.startswith("data.")}, before)
    words = [_change(key, value) for key, value in said.items() if not key.startswith("data.")]
    with holding(place, "training") as lock:
        may_begin(place)
        if (place / PLACE).exists() and manifest.read(place) is None:
            raise InputError(f"folder='{shown(place)}' holds {PLACE}, which fit would write over; name another folder.")
        source = {"name": "kept", "path": str(place / PLACE)}
        count = len(data.train) + len(data.test)
        if data.columns:
            chosen = own.of_table(source, count, len(data.columns))
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


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model that takes and returns data in the type that it was fitted to.

    Attributes:
        run: the run, with everything that it can do.
        like: the type that data come back in: a frame, an array or a tensor, `Pictures`; None for data from a path,
            which come back as an array, and a table as a dict of columns of words.
    """

    run: Run
    like: Any = None

    def sample(self, n: int, *, seed: int | None = None, **options: Any) -> Any:
        """Draw n new examples.

        Args:
            seed: example i of a seed is the same however many are drawn; None for different ones each time.
            **options: of `Run.sample`: label, steps, ...; for a table steps and where, as in where="age>=30".

        Raises:
            InputError: anything that does not fit.
        """
        if not cells.draws_rows(self.run):
            return self._given(self.run.sample(n, seed=seed, **options))
        self.run.must_hold(n)
        tokens, types = cells.must_be_table(self.run)
        if isinstance(where := options.pop("where", None), str):
            options["where"] = Where.of(where, tokens, types)
        return self._given(torch.cat(list(cells.draw_rows(self.run, n, seed=seed, **options))))

    def impute(self, X: Any, draws: int = 19, *, seed: int = 0) -> Any:
        """Data with their holes (NaN, None) filled by the median of draws given what each example has.

        Args:
            X: data like those that the model was fitted to; known values come back unchanged.
            draws: how many.

        Raises:
            InputError: data unlike those that the model was trained on.
        """
        if draws < 1:
            raise InputError(f"draws={draws} must be at least 1.")
        if cells.draws_rows(self.run):
            filled = fill(self.run, read_rows(self.run, X, "X"), draws, seed)
            return fill_frame(X, filled.rows.types, filled.centre, filled.holes)
        x = self._numbers(X, missing=True)
        holes = x.isnan()
        rows = holes.flatten(1).any(1)
        if not bool(rows.any()):
            return X.clone() if isinstance(X, Tensor) else np.array(X)
        transform, given = self.run.transform, x[rows]
        found = inpaint(self.run, transform.forward(given), ~holes[rows], draws=draws, seed=seed).samples
        own_units = transform.inverse(found.flatten(0, 1), quantise=True).unflatten(0, found.shape[:2])
        x[rows] = torch.where(holes[rows], own_units.to(x.dtype).median(1).values, given)
        plain = X if isinstance(X, Tensor) else np.asarray(X)
        values, where = (self.run.layout.give_back(part).reshape(plain.shape) for part in (x, holes))
        if isinstance(plain, Tensor):
            return torch.where(where.to(plain.device), values.to(plain), plain)
        return np.where(where.numpy(), values.numpy(), plain).astype(plain.dtype)

    def score_samples(self, X: Any, *, seed: int = 0) -> np.ndarray:
        """The log-likelihood of each example, (N,) float64, in nats of the data's own units.

        Exact up to the solver's error for numbers (`ornstein.log_likelihood`), a bound for digital data and for tables
        (`ornstein.experiment.cells.score`). Of an example with holes it is the likelihood of the cells that are there,
        for tables and for models that were trained on data with holes.

        Raises:
            InputError: data unlike those that the model was trained on; holes, if those had none.
        """
        if cells.draws_rows(self.run):
            return cells.score(self.run, read_rows(self.run, X, "X").values, seed=seed)[0].numpy()
        return loglik(self.run, self._numbers(X, missing=True), seed=seed).found.log_prob.double().numpy()

    def save(self, folder: "str | Path") -> Path:
        """Copy the run into a folder of its own, which `ornstein.load` and `ornstein train --resume` open.

        Raises:
            InputError: the folder is there and not empty.
        """
        place = Path(folder).expanduser()
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"folder='{shown(place)}' is there already; name another.")
        try:
            shutil.copytree(self.run.folder, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        except (OSError, shutil.Error) as error:
            raise InputError(f"folder='{shown(place)}' cannot be written: {error}.") from None
        return place

    def __reduce__(self) -> tuple[Any, ...]:
        """As the files that make it: where it is opened, they lie in a temporary folder."""
        run = self.run.folder
        files = [f for f in run.rglob("*") if f.is_file() and f.suffix in (".yaml", ".json", ".safetensors")]
        kept = {str(f.relative_to(run)): f.read_bytes() for f in files if f.relative_to(run).parts[0] != "checkpoints"}
        return _unpacked, (kept, self.like)

    def _numbers(self, X: Any, missing: bool = False) -> Tensor:
        """Examples as the model has them, in the data's own units, (N, *shape)."""
        if isinstance(self.like, Pictures) and are_pictures(X):
            values = picture_values(X, {"background": self.like.background}, self.run.about)[0]
            x = torch.from_numpy(values)
        else:
            plain = array_of(X)[0]
            x = self.run.layout.rows(as_tensor(plain, "X", missing), self.run.shape, "X")
        if tuple(x.shape[1:]) != self.run.shape:
            wanted, got = ("x".join(map(str, shape)) for shape in (self.run.shape, x.shape[1:]))
            raise InputError(f"X has examples of shape {got}; this model's are {wanted}.")
        return x.clone() if missing else x

    def _given(self, values: Tensor) -> Any:
        """Values in the data's own units as the model was given them."""
        like = self.like
        if cells.draws_rows(self.run):
            types = self.run.types
            if like is not None:
                return to_frame(like, types, values)
            return {kind.name: kind.render(values[:, place].numpy()) for place, kind in enumerate(types)}
        if isinstance(like, Pictures):
            return as_pictures(values, like.pil)
        if like is None:
            return values.numpy()
        plain = typed(values, like)
        return plain.to(like.device) if isinstance(like, Tensor) else plain


def _unpacked(files: Mapping[str, bytes], like: Any) -> Model:
    place = Path(tempfile.mkdtemp(prefix="ornstein-"))
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    model = Model(Run.load(place), like)
    weakref.finalize(model, shutil.rmtree, place, True)
    return model
