"""A model of data in memory, or of a path: samples, filled holes and scores in the type of the data.

    model = ornstein.fit(frame)
    more, filled, odd = model.sample(1000), model.impute(frame), model.score_samples(frame)

What a run gives, in model space or as an array, is turned here into the caller's own type, and what the caller has into
what a run takes. A path stands for what lies there, as on the command line.
"""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.data.array import read_rows as rows_at
from ornstein.data.frames import fill_frame, is_frame, to_frame
from ornstein.data.reading import as_tensor
from ornstein.data.series import CALENDAR
from ornstein.data.tracks import array_in
from ornstein.errors import InputError, must_be_whole, shown
from ornstein.experiment import cells
from ornstein.experiment.given import (
    Pictures,
    are_pictures,
    array_of,
    holes_given,
    picture_values,
    steps_given,
    typed,
)
from ornstein.experiment.loglik import loglik, read
from ornstein.experiment.pictures import as_pictures
from ornstein.experiment.restore import inpaint
from ornstein.experiment.rows import fill, is_table, read_rows, scored
from ornstein.experiment.run import Run
from ornstein.experiment.series import Completed, complete, dated, long, starts, timeline
from ornstein.experiment.series_files import as_words, named, windows
from ornstein.experiment.texts import bits, draws_tokens, examples
from ornstein.experiment.where import Where


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

    def __repr__(self) -> str:
        """The run, and what was chosen for the data."""
        chosen = (f"chosen   {key}: {why}" for key, why in self.run.about.get("reasons", {}).items())
        return "\n".join([repr(self.run), *chosen])

    def sample(self, n: int, *, seed: int | None = None, **options: Any) -> Any:
        """Draw n new examples.

        Args:
            seed: example i of a seed is the same however many are drawn; None for different ones each time.
            **options: of `Run.sample`: label, steps, ...; for a table steps and where, as in where="age>=30"; for
                series length, the steps of time.

        Returns:
            Of series n windows, an array (n, length, features), or (n, length) if the series was (time,); of a table,
            a frame or a dict of columns of words with one window below the other, which begin at moments spread evenly
            over a year. Of a text n texts.

        Raises:
            InputError: anything that does not fit.
        """
        if self._series:
            return self._windows(n, seed=seed, **options)
        if self.run.transform.letters:
            return self.run.transform.texts(self.run.draw(n, seed=seed, **options))
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
            X: data like those that the model was fitted to, or the path of such; known values come back unchanged. Of
                series a moment that has no row gets one, after that of the moment before; a frame of pandas is then
                numbered afresh.
            draws: how many.

        Returns:
            The same type as X; of the path of a table a dict of its columns of words, of that of an array an array.

        Raises:
            InputError: data unlike those that the model was trained on.
        """
        must_be_whole("draws", draws)
        if draws_tokens(self.run):
            raise InputError(
                f"impute fills holes, NaN, and this model is of {self.run.kind}s in classes, which "
                "`ornstein sample RUN --fill` and ornstein.experiment.texts.fill fill in."
            )
        if cells.draws_rows(self.run):
            filled = fill(self.run, read_rows(self.run, X, "X"), draws, seed)
            if not is_frame(X):
                return filled.words
            return fill_frame(X, filled.rows.types, filled.centre, filled.holes, self.like)
        X = self._held(X)
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
            The new steps alone: a frame with their dates and names, or of the path of a table a dict of such columns of
            words; of an array (T, ...) an array (steps, ...), of (series, T, features) one (series, steps, features).

        Raises:
            InputError: a model that was not fitted to series; series unlike those; a number that cannot be.
        """
        must_be_whole("steps", steps)
        line, X = timeline(self.run), self._held(X)
        found = self._completed(X, **{"before" if before else "after": steps}, draws=draws, seed=seed)
        if isinstance(X, Path):
            return as_words(line, found)
        like = X if is_frame(X) else array_of(X)[1]
        parts = [(one.track.name, one.track.first, one.centre) for one in found]
        values = steps_given(line, like, parts, [one.track.listed for one in found])
        return values if is_frame(X) or like.ndim == 3 else values[0]

    def score_samples(self, X: Any, *, seed: int = 0) -> np.ndarray:
        """The log-likelihood of each example, (N,) float64, in nats of the data's own units.

        Exact up to the solver's error for numbers (`ornstein.log_likelihood`), a bound for digital data, for tables
        (`ornstein.experiment.cells.score`) and for the pieces of a text (`ornstein.experiment.texts.bits`). Of an
        example with holes it is the likelihood of the cells that are there, for tables and for models that were trained
        on data with holes. Series are scored in windows: an array of windows (N, window, features), or a frame, in
        windows that lie side by side.

        Args:
            X: data like those that the model was fitted to; or what `ornstein loglik` takes: a path, or "test" or
                "train" for the run's own.

        Raises:
            InputError: data unlike those that the model was trained on; holes, if those had none.
        """
        if cells.draws_rows(self.run):
            return scored(self.run, X, seed=seed, noun="X").found.numpy()
        if draws_tokens(self.run):
            codes = examples(self.run, str(X)) if isinstance(X, (str, Path)) else self._numbers(X)
            return -bits(self.run, codes, seed=seed).each.numpy()
        named = isinstance(X, (str, Path)) or (self._series and is_frame(X))
        given = read(self.run, X, "X") if named else self._numbers(X, missing=True)
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
        table = self.like is None and is_table(str(run.experiment.data.get("path", "")))
        if CALENDAR in given.parts and (is_frame(self.like) or table):
            raise InputError(
                f"condition={CALENDAR!r} says no dates, which a table has beside its values; draw values alone by "
                f"model.run.sample(n, condition=...), or leave {CALENDAR!r} out."
            )
        if length is None:
            given = Condition({**dated(run, n, line.window).parts, **given.parts})
        else:
            run, given = long(run, n, length, given)
        values = line.kept(run.sample(n, condition=given, **options))
        if table:
            return as_words(line, windows(line, named(run, given, n), values))
        like = np.empty((0,) * 3, np.float32) if self.like is None else self.like
        parts = list(zip(named(run, given, n), starts(line, n), values, strict=True))
        return steps_given(line, like, parts, [line.occur(first, len(one)) for _, first, one in parts if line.idle])

    def _completed(self, X: Any, **options: Any) -> list[Completed]:
        """The caller's series with their holes filled, or what comes after or before."""
        known = is_frame(X) or isinstance(X, Path)
        return complete(self.run, X if known else array_of(X)[0], noun="X", **options)

    def _held(self, X: Any) -> Any:
        """What lies at a path, if X is one: an array in the user's order of axes. The table of series stays a path."""
        if not isinstance(X, (str, Path)):
            return X
        if self._series:
            return Path(X) if is_table(X) else array_in(X, "X")
        return self.run.layout.give_back(rows_at(X, self.run.shape, self.run.layout, noun="X", missing=True)[0]).numpy()

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
