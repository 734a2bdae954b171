"""A run: a trained model, opened from its folder, to draw from."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein import ranks
from ornstein.core.denoiser import NetDenoiser
from ornstein.core.drive import State, Stepper, sample_seeds
from ornstein.data import Transform
from ornstein.energies import EnergyDenoiser
from ornstein.errors import InputError, lookup
from ornstein.experiment import pictures
from ornstein.experiment.build import build, build_stepper
from ornstein.experiment.config import CLASSIFIER, Experiment
from ornstein.experiment.folder import read_folder, read_tuned, read_weights
from ornstein.files import replacing
from ornstein.samplers import stepper_named as stepper_named
from ornstein.samplers import trajectory
from ornstein.samplers.tuned import Tuned
from ornstein.training import AUTO, PRECISIONS, half, quickest, reconstruct

#: samples drawn at a time, so that memory does not grow with their number; of a trial of how fast that is
BATCH, _TRIED = 256, 16
#: samples that one call draws: all are kept in memory
MOST = 2**24


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model, opened from its folder by `Run.load`.

    Attributes:
        folder: where it lies.
        experiment: what was asked for.
        about: run.yaml: the data's fingerprint, versions, sizes.
        denoiser: in model space, for everything that takes a denoiser.
        transform: from the data's own units to model space.
    """

    folder: Path
    experiment: Experiment
    about: dict[str, Any]
    denoiser: NetDenoiser | EnergyDenoiser
    transform: Transform

    @staticmethod
    def load(folder: "str | Path", ema: float | None = None) -> "Run":
        """Open a run folder.

        Args:
            folder: what training wrote. ema: length of the average of the weights: a tracked one, or any other that
            the snapshots allow; 0 for the raw
                weights; None for the run's own choice.

        Raises:
            InputError: no run there, a damaged file, one from a newer version, an average that is not to be had.
        """
        folder = Path(folder)
        experiment, about = read_folder(folder)
        ema = experiment.sampling.ema if ema is None else ema
        facts = about["data"]
        transform = Transform.from_dict(about["transform"])
        parts = build(experiment, tuple(facts["shape"]), len(facts["classes"]), facts["sigma_data"], transform.levels)
        if not (ema == 0 or 0 < ema < 1):
            raise InputError(f"ema={ema!r} must be the length of an average of the weights, or 0 for the weights.")
        weights = folder / (f"ema-{ema:.3f}.safetensors" if ema else "model.safetensors")
        # an average that was tracked is read or missed, never made again in silence
        if weights.is_file() or not ema or f"{ema:.3f}" in {f"{kept:.3f}" for kept in experiment.training.ema}:
            state = read_weights(weights, folder)
        else:
            state = reconstruct(folder, ema)
        try:
            parts.net.load_state_dict(state)
        except RuntimeError:
            raise InputError(
                f"{weights} does not fit the network in {folder / 'experiment.yaml'}; one of them was changed."
            ) from None
        parts.net.eval().requires_grad_(False)
        ranks.take_device(experiment.training.cpu)
        if torch.cuda.is_available() and not experiment.training.cpu:
            parts.net.to("cuda")
        return Run(folder, experiment, about, parts.denoiser, transform)

    def drawing(self, precision: str | None = None) -> "Run":
        """The same run with its network in the precision for drawing; opened, it is in float32.

        Args:
            precision: a name in `PRECISIONS`; "auto" for the one that is measured to be fastest here; None for the
                run's own, `sampling.precision`.

        Raises:
            InputError: a name that is not known.
        """
        precision = self.experiment.sampling.precision if precision is None else precision
        lookup({AUTO: None, **PRECISIONS}, precision, "precision")
        if not isinstance(self.denoiser, NetDenoiser) or self.experiment.objective["name"] == CLASSIFIER:
            return self  # an energy's score and a classifier's guidance are derivatives, which want float32
        device = self.denoiser.device
        if precision == AUTO:
            x = torch.randn(_TRIED, *self.shape, generator=torch.Generator().manual_seed(0)).to(device)

            @torch.inference_mode()
            def work(precision: str) -> None:
                with half(device, precision):
                    self.denoiser(x, 0.5 * self.denoiser.process.t_max)

            precision, _ = quickest(work, device)
        return dataclasses.replace(self, denoiser=dataclasses.replace(self.denoiser, precision=PRECISIONS[precision]))

    @property
    def steps(self) -> int:
        """How many steps it draws in when it is not told."""
        return self.experiment.sampling.steps or self.denoiser.process.chain or 30

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.about["data"]["shape"])

    @property
    def kind(self) -> str:
        """ "image", "vector" or "array"."""
        return self.about["data"]["kind"]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels; () for a model without."""
        return tuple(self.about["data"]["classes"])

    def labels(self, label: "int | str | Sequence[int] | Tensor | None", n: int) -> Tensor | None:
        """Labels (n,) from a class's number or name, or one per sample; None draws from all classes.

        Raises:
            InputError: a label that the model does not know.
        """
        if label is None:
            return None
        _check_count(n)
        if not self.classes:
            raise InputError(f"label={label!r} cannot be drawn: {self.folder} was trained without labels.")
        if isinstance(label, str):
            if label in self.classes:
                label = self.classes.index(label)
            elif label.isascii() and label.isdigit() and len(label) < 10:
                label = int(label)
        if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 2**31:
            label = [label] * n
        if isinstance(label, (str, int)):
            raise InputError(f"label={label!r} is not a class of this run; it has {', '.join(self.classes)}.")
        labels = torch.as_tensor(label)
        if labels.shape != (n,) or labels.is_floating_point():
            raise InputError(f"label has shape {tuple(labels.shape)}; it must be one whole number, or {n} of them.")
        if not bool(((labels >= -1) & (labels < len(self.classes))).all()):
            raise InputError(
                f"label={int(labels[(labels < -1) | (labels >= len(self.classes))][0])} must be 0 to "
                f"{len(self.classes) - 1}: {', '.join(self.classes)}."
            )
        return labels.long()

    def sample(self, n: int, *, quantise: bool = False, **options: Any) -> Tensor:
        """Draw n samples in the data's own units, (n, *shape).

        Args:
            quantise: round to the data's own values (0..255 of an image, as uint8) where they have such.
            **options: label, seed, seeds, stepper, steps, grid: see `draw`.
        """
        return self.transform.inverse(self.draw(n, **options), quantise=quantise)

    def draw(
        self,
        n: int,
        *,
        label: "int | str | Sequence[int] | Tensor | None" = None,
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
            label: a class's number or name, or one number per sample; None draws from all classes.
            seed, seeds: one number for all, or one per sample: a sample is the same in whatever batch it is drawn.
            stepper, steps, grid: instead of the run's own.
            progress: called with (calls made, calls in all) as the drawing goes on.
            together: of several processes (`torchrun`), which all call this alike, each draws its share, and all get
                the whole.

        Raises:
            InputError: anything that does not fit.
        """
        _check_count(n)
        labels = self.labels(label, n)
        keys = sample_seeds(n, seed, seeds, None)
        if together:
            ranks.join(self.experiment.training.cpu)
        mine = ranks.share(n) if together else slice(0, n)
        drawn, done = [torch.empty(0, *self.shape)], 0
        total = math.ceil((mine.stop - mine.start) / BATCH)
        for start in range(mine.start, mine.stop, BATCH):
            part = slice(start, min(start + BATCH, mine.stop))
            for state in self.trajectory(
                len(keys[part]),
                label=None if labels is None else labels[part],
                seeds=keys[part],
                stepper=stepper,
                steps=steps,
                grid=grid,
            ):
                if progress is not None:
                    progress(done + state.step, total * (steps or self.steps))
            done += state.step
            drawn.append(state.x.cpu())
        return ranks.gathered(torch.cat(drawn), n) if together else torch.cat(drawn)

    def trajectory(
        self,
        n: int,
        *,
        label: "int | str | Sequence[int] | Tensor | None" = None,
        stepper: "str | Stepper | None" = None,
        steps: int | None = None,
        grid: "str | Sequence[float] | Tensor | None" = None,
        **options: Any,
    ) -> Iterator[State]:
        """Every state on the way, in model space; arguments as for `draw`, and seed, seeds or generator."""
        mine = self.experiment.sampling
        self.must_draw()
        if isinstance(grid, str) and grid == "tuned":
            steps, grid, stepper = self._tuned(steps, stepper)
        chosen = stepper_named(stepper) if stepper is not None else build_stepper(mine.stepper)
        return trajectory(
            self.denoiser,
            (n, *self.shape),
            stepper=chosen,
            steps=self.steps if steps is None else steps,
            grid=mine.grid if grid is None else grid,
            cond=self.labels(label, n),
            **options,
        )

    def must_draw(self) -> None:
        """Refuse a run that is no model of its data.

        Raises:
            InputError: it was trained to tell classes apart.
        """
        if self.experiment.objective["name"] == CLASSIFIER:
            raise InputError(
                f"run={str(self.folder)!r} is a classifier, which draws nothing and has no likelihood; guide another "
                f"run by it: ornstein sample RUN --guidance classifier --guide {self.folder}."
            )

    def _tuned(
        self, steps: int | None, stepper: "str | Stepper | None"
    ) -> "tuple[int, Sequence[float], str | Stepper | None]":
        """What was tuned for so many steps, of the run's own number where that is not said: the grid and who walks it.

        A stepper tuned to the endpoint brings its grid; a stepper that is named takes the grid tuned to the bound, if
        there is one.
        """
        kept = read_tuned(self.folder)
        steps = self.steps if steps is None else steps
        if steps not in kept:
            known = ", ".join(map(str, sorted(kept))) or "none"
            raise InputError(
                f"grid='tuned' has no {steps} steps (tuned: {known}); "
                f"run `ornstein tune {self.folder} --steps {steps}`."
            )
        entry = kept[steps]
        if "endpoint" in entry and (stepper is None or "grid" not in entry):
            tuned: Tuned = entry["endpoint"]
            return steps, tuned.grid, tuned if stepper is None else stepper
        return steps, entry["grid"], stepper

    def every_class(self, n: int) -> Tensor | None:
        """Labels (n,) that go round the classes; None for a model without."""
        _check_count(n)
        return torch.arange(n) % len(self.classes) if self.classes else None

    def picture(self, drawn: Tensor, path: Path, columns: int | None = None) -> None:
        """Draw samples in model space to a PNG."""
        shown = drawn if self.kind == "image" else self.transform.inverse(drawn)
        pictures.draw(shown, self.kind, path, columns=columns)

    def save_arrays(self, drawn: Tensor, labels: Tensor | None, seed: int, path: Path) -> None:
        """Write samples in model space as .npz: `samples` in the data's own units and values, `labels`, `seeds`."""
        arrays = {
            "samples": self.transform.inverse(drawn, quantise=True),
            "seeds": sample_seeds(len(drawn), seed, None, None),
        }
        if labels is not None:
            arrays["labels"] = labels
        with replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: array.numpy() for name, array in arrays.items()})

    def film(self, frames: Sequence[Tensor], path: Path) -> None:
        """An animation of batches in model space."""
        shown = frames if self.kind == "image" else [self.transform.inverse(frame) for frame in frames]
        pictures.film(shown, self.kind, path)


def _check_count(n: int) -> None:
    if not (isinstance(n, int) and 0 < n <= MOST):
        raise InputError(f"n={n!r} must be a whole number of samples from 1 to {MOST:,}.")
