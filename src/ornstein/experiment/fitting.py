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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.data import Dataset
from ornstein.data.condition import LABEL
from ornstein.data.frames import fill_frame, is_frame, to_frame
from ornstein.data.kept import PLACE, keep
from ornstein.data.reading import as_tensor
from ornstein.errors import InputError, must_be_whole, shown
from ornstein.experiment import cells, own
from ornstein.experiment.config import Experiment, key_of
from ornstein.experiment.folder import holding, may_begin, read_folder
from ornstein.experiment.given import (
    Pictures,
    are_pictures,
    array_of,
    holes_given,
    picture_values,
    steps_given,
    taken,
    typed,
)
from ornstein.experiment.loglik import loglik, read
from ornstein.experiment.pictures import as_pictures
from ornstein.experiment.restore import inpaint
from ornstein.experiment.rows import fill, read_rows
from ornstein.experiment.run import Run
from ornstein.experiment.series import Completed, complete, dated, long, starts, timeline
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
    arguments = {k[5:]: v for k, v in said.items() if k.startswith("data.")}
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
            **options: of `Run.sample`: label, steps, ...; for a table steps and where, as in where="age>=30"; for
                series length, the steps of time.

        Returns:
            Of series n windows, an array (n, length, features), or (n, length) if the series was (time,); or a frame
            with one window below the other, which begin at moments spread evenly over a year.

        Raises:
            InputError: anything that does not fit.
        """
        if self._series:
            return self._windows(n, seed=seed, **options)
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
            X: data like those that the model was fitted to; known values come back unchanged. Of series a frame keeps
                its rows: give a moment that is lacking as a row without values.
            draws: how many.

        Raises:
            InputError: data unlike those that the model was trained on.
        """
        if draws < 1:
            raise InputError(f"draws={draws} must be at least 1.")
        if cells.draws_rows(self.run):
            filled = fill(self.run, read_rows(self.run, X, "X"), draws, seed)
            return fill_frame(X, filled.rows.types, filled.centre, filled.holes)
        if self._series:
            return holes_given(timeline(self.run), X, self._completed(X, draws=draws, seed=seed))
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

    def forecast(self, X: Any, steps: int, *, before: bool = False, draws: int = 19, seed: int = 0) -> Any:
        """The steps that come after series, or before them: the median of draws given what is known.

        `ornstein.experiment.series.complete(model.run, X, after=steps)` has every draw, and their range.

        Args:
            X: series like those that the model was fitted to, with holes or without.
            steps: how many.
            before: whether those before the first step, not those after the last.
            draws: how many.

        Returns:
            The new steps alone: a frame with their dates and names; of an array (T, ...) an array (steps, ...), of
            (series, T, features) one (series, steps, features).

        Raises:
            InputError: a model that was not fitted to series; series unlike those; a number that cannot be.
        """
        must_be_whole("steps", steps)
        line = timeline(self.run)
        found = self._completed(X, **{"before" if before else "after": steps}, draws=draws, seed=seed)
        like = X if is_frame(X) else array_of(X)[1]
        values = steps_given(line, like, [(one.track.name, one.track.first, one.centre) for one in found])
        return values if is_frame(X) or like.ndim == 3 else values[0]

    def score_samples(self, X: Any, *, seed: int = 0) -> np.ndarray:
        """The log-likelihood of each example, (N,) float64, in nats of the data's own units.

        Exact up to the solver's error for numbers (`ornstein.log_likelihood`), a bound for digital data and for tables
        (`ornstein.experiment.cells.score`). Of an example with holes it is the likelihood of the cells that are there,
        for tables and for models that were trained on data with holes. Series are scored in windows: an array of
        windows (N, window, features), or a frame, in windows that lie side by side.

        Raises:
            InputError: data unlike those that the model was trained on; holes, if those had none.
        """
        if cells.draws_rows(self.run):
            return cells.score(self.run, read_rows(self.run, X, "X").values, seed=seed)[0].numpy()
        given = read(self.run, X) if self._series and is_frame(X) else self._numbers(X, missing=True)
        return loglik(self.run, given, seed=seed).found.log_prob.double().numpy()

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

    @property
    def _series(self) -> bool:
        return bool(self.run.about["data"].get("series"))

    def _windows(
        self, n: int, *, label: Any = None, condition: Any = None, length: int | None = None, **options: Any
    ) -> Any:
        """Draw n windows of series."""
        run, line = self.run, timeline(self.run)
        run.must_hold(n)
        asked = label is not None or condition is not None
        given = run.condition(n, label, condition) if asked else Condition.of(run.every_class(n))
        if length is None:
            given = Condition({**dated(run, n, line.window).parts, **given.parts})
        else:
            run, given = long(run, n, length, given)
        values = line.kept(run.sample(n, condition=given, **options))
        labels = given.parts.get(LABEL)
        names = [""] * n if labels is None else [run.classes[i] for i in labels.tolist()]
        like = np.empty((0,) * 3, np.float32) if self.like is None else self.like
        return steps_given(line, like, list(zip(names, starts(line, n), values, strict=True)))

    def _completed(self, X: Any, **options: Any) -> list[Completed]:
        """The caller's series with their holes filled, or what comes after or before."""
        return complete(self.run, X if is_frame(X) else array_of(X)[0], **options)

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
        return typed(values, like)


def _unpacked(files: Mapping[str, bytes], like: Any) -> Model:
    place = Path(tempfile.mkdtemp(prefix="ornstein-"))
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    model = Model(Run.load(place), like)
    weakref.finalize(model, shutil.rmtree, place, True)
    return model
