"""A run: a trained model, opened from its folder, to draw from."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein import ranks
from ornstein.core.condition import SOURCE, Condition
from ornstein.core.drive import Stepper, sample_seeds
from ornstein.core.learner import Learner
from ornstein.core.walk import State
from ornstein.data import ColumnType, Dataset, Known, Layout, Transform
from ornstein.data.captions import TEXT
from ornstein.data.condition import LABEL
from ornstein.data.labels import in_shares
from ornstein.data.timeline import Timeline
from ornstein.errors import InputError, must_fit
from ornstein.experiment import packaged, pictures
from ornstein.experiment.build import build, load_data, transform_of
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import read_critic, read_folder, read_metrics, tuned_for, weights_of
from ornstein.experiment.settle import Way, drawing_precision, way
from ornstein.files import opened_folder, replacing
from ornstein.memory import free_bytes
from ornstein.samplers import stepper_named as stepper_named
from ornstein.training import PRECISIONS, average_file

#: samples drawn at a time, so that memory does not grow with their number
BATCH = Learner.at_once


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model, opened from its folder by `Run.load`.

    Attributes:
        folder: where it lies.
        experiment: what was asked for.
        about: run.yaml: the data's fingerprint, versions, sizes.
        model: what was learned, in model space: a denoiser, of a run that draws.
        transform: from the data's own units to model space.
        learner: what it learned to be.
        ema: length of the average of the weights that it was opened with, 0 for the weights; None while it trains.
    """

    folder: Path
    experiment: Experiment
    about: dict[str, Any]
    model: Any
    transform: Transform
    learner: Learner
    ema: float | None = None

    @staticmethod
    def load(folder: "str | Path", ema: float | None = None) -> "Run":
        """Open a run folder.

        Args:
            folder: what training wrote; or the name of a packaged model (`experiment.packaged`).
            ema: length of the average of the weights: a tracked one, or any other that the snapshots allow; 0 for the
                raw weights; None for the run's own choice.

        Raises:
            InputError: no run there, a damaged file, one from a newer version, an average that is not available.
        """
        folder = opened_folder(packaged.place(folder))
        experiment, about = read_folder(folder)
        ema = experiment.sampling.ema if ema is None else ema
        transform = transform_of(about, folder)
        if not (ema == 0 or 0 < ema < 1):
            raise InputError(f"ema={ema!r} must be the length of an average of the weights, or 0 for the weights.")
        built = build(experiment, about["data"], transform)
        try:
            built.net.load_state_dict(weights_of(folder, experiment, ema))
        except RuntimeError:
            weights = folder / (average_file(ema) if ema else "model.safetensors")
            raise InputError(
                f"{weights} does not fit the network in {folder / 'experiment.yaml'}; one of them was changed."
            ) from None
        built.net.eval().requires_grad_(False).to(ranks.device(experiment.training.cpu))
        critic = read_critic(folder, ema)
        model = built.model if critic is None else built.learner.with_critic(built.model, critic)
        return Run(folder, experiment, about, model, transform, built.learner, ema)

    def __repr__(self) -> str:
        facts, asked, records = self.about["data"], self.experiment, read_metrics(self.folder)
        shape, given = "x".join(map(str, self.shape)), f", given {', '.join(self.conditions)}" * bool(self.conditions)
        done = records[-1]["step"] if records else 0
        return (
            f"data     {facts['name']}: {facts['count']:,} {self.kind}s {shape}{given}\n"
            f"model    {asked.net['name']} of {self.about['parameters']:,} weights, predicts {asked.predicts}, taught "
            f"by {asked.objective['name']} on {asked.process['name']}\n"
            f"trained  {done:,} of {asked.training.steps:,} steps, in {self.folder}"
        )

    @property
    def denoiser(self) -> Any:
        """The model, to draw from.

        Raises:
            InputError: it has learned something else than the data.
        """
        self.must_draw()
        return self.model

    def load_data(self) -> Dataset:
        """The data that it was trained on.

        Raises:
            InputError: they are no longer there, or have changed.
        """
        data = load_data(self.experiment, self.about, self.folder)
        if data.fingerprint()["sha256"] != self.about["data"]["sha256"]:
            raise InputError(f"the data are not those that {self.folder} was trained on: their content differs.")
        return data

    def drawing(self, precision: str | None = None) -> "Run":
        """The same run with its network in the precision for drawing; a run is opened in float32.

        Args:
            precision: a name in `PRECISIONS`; "auto" for the one that is measured to be fastest here; None for the
                run's own, `sampling.precision`.

        Raises:
            InputError: a name that is not known.
        """
        asked = self.experiment.sampling.precision if precision is None else precision
        chosen = PRECISIONS[drawing_precision(self.learner, self.model, asked)]
        if not self.learner.narrow:
            return self
        return dataclasses.replace(self, model=self.learner.in_precision(self.model, chosen))

    @property
    def steps(self) -> int:
        """How many steps it draws in by default."""
        return way(self.experiment.sampling, self.learner).steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.about["data"]["shape"])

    @property
    def layout(self) -> Layout:
        """The axes of the user's data; those of `shape` are the model's."""
        return Layout(self.about["data"].get("layout", ""))

    @property
    def kind(self) -> str:
        """ "image", "vector", "array", "table" or "writing"."""
        return str(self.about["data"]["kind"])

    @property
    def types(self) -> tuple[ColumnType, ...]:
        """What the columns of its table are; () of other data."""
        return tuple(ColumnType.from_dict(about) for about in self.about["data"].get("table", ()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels; () for a model without."""
        known = self.conditions
        return known[LABEL].classes if LABEL in known else ()

    @property
    def conditions(self) -> dict[str, Known]:
        """What the model can be conditioned on, by name; {} for a model without."""
        return Known.of_facts(self.about["data"])

    def condition(
        self, n: int, label: Any = None, condition: "Mapping[str, Any] | Condition | None" = None, text: Any = None
    ) -> Condition:
        """The condition to draw n samples given, in model space.

        Args:
            label, text: short for the part "label", and for the part that is a text; None leaves it out.
            condition: name -> value, in the data's own units: one for all samples, or one for each; see `Known.model`.
                Parts that are not named are absent. A Condition is in model space already.

        Raises:
            InputError: a part that the model does not know, or a value that it cannot have.
        """
        self.must_hold(n)
        known = self.conditions
        texts = [name for name, about in known.items() if about.is_text]
        short = {LABEL: label, texts[0] if len(texts) == 1 else TEXT: text}
        short = {name: value for name, value in short.items() if value is not None}
        if isinstance(condition, Condition):
            if not short:
                return condition.matches(n, f"n={n}")
            condition = condition.parts
        given = {**(condition or {}), **short}
        for name, value in given.items():
            if name not in known:
                by = f"given {', '.join(known)}" if known else "without labels or other conditions"
                raise InputError(f"{name}={value!r:.80} cannot be drawn: {self.folder} was trained {by}.")
        return Condition({name: known[name].model(value, n, name) for name, value in given.items()})

    def sample(self, n: int, *, raw: bool = False, **options: Any) -> Tensor:
        """Draw n samples, (n, *own), in the data's own values and order of axes: `run.layout.own(run.shape)`.

        Args:
            raw: in float32, neither rounded nor clipped to the data's values (for images 0..255, as uint8; for series
                those of `Timeline.kept`).
            **options: label, text, condition, seed, seeds, stepper, steps, grid: see `draw`.
        """
        drawn = self.draw(n, **options)
        return self.layout.give_back(self.transform.inverse(drawn)) if raw else self._own(drawn)

    def _own(self, drawn: Tensor) -> Tensor:
        """Samples in model space as values that the data can have, in their order of axes."""
        values = self.layout.give_back(self.transform.inverse(drawn, quantise=True))
        series = self.about["data"].get("series")
        return values if series is None else Timeline.from_dict(series).kept(values).to(values.dtype)

    def draw(
        self,
        n: int,
        *,
        label: "int | str | Sequence[int | str] | Tensor | None" = None,
        text: "str | Sequence[str] | None" = None,
        condition: "Mapping[str, Any] | Condition | None" = None,
        seed: int | None = None,
        seeds: "Sequence[int] | Tensor | None" = None,
        stepper: "str | Stepper | None" = None,
        steps: int | None = None,
        grid: "str | Sequence[float] | Tensor | None" = None,
        progress: Any = None,
        together: bool = False,
    ) -> Tensor:
        """Draw n samples in model space, (n, *shape), float32 on the CPU.

        Args:
            label: a class's name or number, or one per sample; None draws from all classes.
            text: what to draw, or one per sample, for a model that was trained with captions.
            condition: other parts of the condition, by name; see `condition`.
            seed, seeds: one number for all, or one per sample: a sample does not depend on its batch.
            stepper, steps, grid: instead of the run's own.
            progress: called with (calls made, calls in all) during drawing.
            together: with several processes (`torchrun`), which must all call this, each draws a share, and all get
                every sample.

        Raises:
            InputError: anything that does not fit.
        """
        self.must_hold(n)
        given, how = self.condition(n, label, condition, text), self.way(stepper, steps, grid)
        keys = sample_seeds(n, seed, seeds, None)
        if together:
            ranks.join(self.experiment.training.cpu)
        mine = ranks.share(n) if together else slice(0, n)
        drawn, done = [torch.empty(0, *self.learner.problem.shape)], 0
        size = self.learner.at_once
        total = math.ceil((mine.stop - mine.start) / size)
        for start in range(mine.start, mine.stop, size):
            part = slice(start, min(start + size, mine.stop))
            for state in self._walk(len(keys[part]), how, condition=given[part], seeds=keys[part]):
                if progress is not None:
                    progress(done + state.step, total * how.steps)
            done += state.step
            drawn.append(state.x.cpu())
        return ranks.gathered(torch.cat(drawn), n) if together else torch.cat(drawn)

    def trajectory(
        self,
        n: int,
        *,
        label: "int | str | Sequence[int | str] | Tensor | None" = None,
        text: "str | Sequence[str] | None" = None,
        condition: "Mapping[str, Any] | Condition | None" = None,
        stepper: "str | Stepper | None" = None,
        steps: int | None = None,
        grid: "str | Sequence[float] | Tensor | None" = None,
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        """Every state on the way, in model space; arguments as for `draw`, and seed, seeds or generator."""
        given = self.condition(n, label, condition, text)
        return self._walk(n, self.way(stepper, steps, grid), condition=given, **options)

    def _walk(self, n: int, how: Way, **options: Any) -> Iterator[State[Tensor]]:
        return self.learner.trajectory(self.denoiser, n, how.stepper, how.steps, how.grid, **options)

    def way(
        self,
        stepper: "str | Stepper | None" = None,
        steps: int | None = None,
        grid: "str | Sequence[float] | Tensor | None" = None,
    ) -> Way:
        """How it draws: as given, otherwise by its defaults."""
        if isinstance(grid, str) and grid == "tuned":
            steps, grid, stepper = tuned_for(self.folder, self.steps if steps is None else steps, stepper)
        return way(self.experiment.sampling, self.learner, stepper, steps, grid)

    def must_draw(self) -> None:
        """Refuse a run that is not a model of its data.

        Raises:
            InputError: it has learned something else.
        """
        if not self.learner.draws:
            raise InputError(
                f"run={str(self.folder)!r} draws nothing and has no likelihood, being a "
                f"{self.experiment.learner['name']}; use it as in: {self.learner.then.format(run=self.folder)}."  # type: ignore[index]
            )

    def must_walk(self, what: str) -> None:
        """Refuse a run that is not drawn from by a walk of Gaussian noise.

        Args:
            what: is done to such a walk, as "tuning".

        Raises:
            InputError: it draws otherwise, or nothing.
        """
        self.must_draw()
        if not self.learner.walks:
            raise InputError(
                f"{what} is of Gaussian noise; run={str(self.folder)!r} draws {self.kind}s {self.learner.instead}."
            )

    def must_hold(self, n: int, name: str = "n", each: float = 1.0) -> None:
        """Refuse to draw more samples than fit into memory.

        Args:
            n: the number asked for. name: its name in errors. each: how many samples each of them takes.

        Raises:
            InputError: they do not fit, or n is not a number of samples.
        """
        if isinstance(n, bool) or not (isinstance(n, int) and 0 < n < 2**63):
            raise InputError(f"{name}={n!r} must be a positive whole number of samples.")
        took, free = each * (2 * 4 * math.prod(self.shape) + 16), free_bytes()  # and of each its seed and its label
        must_fit(f"{name}={n} takes", float(n) * took, free, f"up to {free / took:,.0f} would fit")

    def every_class(self, n: int) -> Tensor | None:
        """Labels (n,) in the training data's shares, evenly mixed; None for a model without."""
        self.must_hold(n)
        # folders written before the counts were kept say nothing of the shares: there each class gets the same
        counts = self.about["data"].get("class_counts") or [1] * len(self.classes)
        return in_shares(counts, n) if self.classes else None

    def examples(self, n: int, held_out: Condition | None = None) -> Condition:
        """Conditions like those of the data, n rows: labels in their shares; with more parts, held-out ones in turn.

        What is drawn with the rest is left open.

        Args:
            held_out: of the run's data, if they are at hand; else they are loaded where they are wanted.
        """
        self.must_hold(n)
        given = set(self.conditions) - self.learner.drawn_too
        if given <= {LABEL}:
            return Condition.of(self.every_class(n) if given else None)
        held_out = held_out or load_data(self.experiment, self.about, self.folder).test_condition
        held_out = held_out[torch.arange(n) % (held_out.rows or 1)]
        return Condition({name: part for name, part in held_out.parts.items() if name in given})

    def class_columns(self, labels: Tensor | None) -> int | None:
        """How wide a grid of images is whose columns are the classes: None unless labels (n,) go round 4 to 16."""
        wide = len(self.classes)
        if labels is None or self.kind != "image" or not 4 <= wide <= 16:
            return None
        return wide if bool((labels == torch.arange(len(labels)) % wide).all()) else None

    def picture(self, drawn: Tensor, path: Path, columns: int | None = None, **how: Any) -> None:
        """Draw samples in model space to a PNG; `how` as for `pictures.draw`: `real` in own units, `start` as drawn."""
        how |= {"columns": columns, "names": pictures.channel_names(self.about["data"]), "types": self.types}
        if how.get("start") is not None and self.kind != "image":
            how["start"] = self.transform.inverse(how["start"])
        pictures.draw(pictures.shown(drawn, self.transform, self.kind), self.kind, path, **how)

    def save_arrays(self, drawn: Tensor, condition: Condition, seed: int, path: Path) -> None:
        """Write samples in model space as .npz: `samples` in the data's own units, values and order of axes, `seeds`,
        `labels` with the `classes` that they count, and by its name what else they were given, in its own units."""
        arrays: dict[str, Any] = {
            "samples": self._own(drawn),
            "seeds": sample_seeds(len(drawn), seed, None, None),
        }
        for name, part in condition.parts.items():
            if (about := self.conditions[name]).is_tokens:
                arrays[name] = np.array(about.texts(part))
                continue
            own = about.units(part)
            arrays["labels" if name == LABEL else name] = self.layout.give_back(own) if name == SOURCE else own
        kept = {name: np.asarray(array) for name, array in arrays.items()}
        if LABEL in condition.parts:
            kept["classes"] = np.array(self.classes)
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **kept)

    def film(self, frames: Sequence[Tensor], path: Path) -> None:
        """An animation of batches in model space."""
        shown = [pictures.shown(frame, self.transform, self.kind) for frame in frames]
        pictures.film(shown, self.kind, path, types=self.types)
