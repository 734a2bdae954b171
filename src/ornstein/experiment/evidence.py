"""The evidence about a run, each thing measured once: its errors on held-out and on training data, and its samples.

A model is asked for x0 at fixed levels with fixed noise (`ornstein.core.learner`), so two models, or one model on two
sets, are compared on the same question and their *difference* has little noise. The error of each example is given in
units of the error of the best linear denoiser of white data, averaged over levels: 1 is knowing the variance alone.

Two rivals are known in closed form (`ornstein.core.exact`) and need no training:

- a Gaussian with the training data's mean and covariance, whose denoiser is linear (the Wiener filter);
- the training examples themselves, whose denoiser is a softmax of distances.

Neither knows more than the training data. At every level a trained network should do at least as well as the better of
the two: if it does worse, it has failed to learn something. They are not a lower bound, which is unknown for real data.

If data have holes, errors count only the cells that were seen; samples are compared with the data after
`ornstein.data.holes` has given both the same holes; and there are no closed forms.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ornstein import ranks
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.exact import Empirical, Gaussian, GaussianMixture
from ornstein.core.grids import times
from ornstein.core.learner import noised_alike
from ornstein.core.process import Level
from ornstein.data import Dataset
from ornstein.data.holes import alike, filled
from ornstein.data.pictures import is_picture
from ornstein.errors import InputError, shown
from ornstein.experiment.folder import read_metrics
from ornstein.experiment.run import Run
from ornstein.files import opened, regular
from ornstein.metrics import Ruler, inception, lite
from ornstein.training import average_file, threads

#: examples of each part that errors are measured on, and at a time
_JUDGED_BY, _AT_ONCE = 512, 256
#: training examples that stand for all in the closed forms, and dimensions up to which a covariance is full
_KNOWN, _FULL = 2000, 1024
#: numbers that either set has at most: large pictures are fewer
_MOST = 2**25
#: examples in a part of which a learner that is no denoiser tells one number
_PIECE = 32


@dataclass(frozen=True, eq=False)
class Part:
    """Examples of a run's data, in model space and in their own units."""

    x0: Tensor
    condition: Condition
    own: Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """How far a model is from some examples.

    Attributes:
        each: (n,) float64, the error of each example, or of each handful of them, in units of knowing the variance.
        ratios: noise ratios sigma/alpha of the levels; () of a model that is no denoiser.
        by_level: (levels, n) float64, mean squared error of x0; empty likewise.
        linear: (levels,) float64, that of the best linear denoiser of white data; empty likewise.
    """

    each: Tensor
    ratios: list[float]
    by_level: Tensor
    linear: Tensor

    @property
    def mean(self) -> float:
        """The error, averaged."""
        return float(self.each.mean())

    @property
    def standard_error(self) -> float:
        """Of `mean`."""
        return deviation(self.each)


def deviation(each: Tensor) -> float:
    """The standard error of a mean over independent numbers (n,); infinite for fewer than two."""
    return float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.inf


class Evidence:
    """A run, its data, and what is measured of them; nothing is measured before it is asked for, nor twice.

    Args:
        run: opened with the average of the weights that is to be judged.
        data: its own.
        count: how many samples are drawn.
        seed: of the samples, of which examples stand for all, and of probes.
        drawn: (count, *shape) model space: the samples, if they have been drawn already, by the run's defaults from
            this seed.
    """

    def __init__(self, run: Run, data: Dataset, count: int, seed: int, drawn: Tensor | None = None) -> None:
        self.run, self.data, self.count, self.seed = run, data, count, seed
        if drawn is not None:
            self.drawn = drawn

    def dice(self) -> torch.Generator:
        """A fresh generator from the seed, so that one check does not affect another."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def records(self) -> list[Mapping[str, float]]:
        """The lines of metrics.jsonl."""
        return list(read_metrics(self.run.folder))

    @cached_property
    def checked(self) -> list[tuple[int, float]]:
        """(step, held-out error) of every time that it was measured while training."""
        return [(int(r["step"]), r["held_out"]) for r in self.records if r.get("held_out") is not None]

    @property
    def closed_forms(self) -> bool:
        """Whether the run is such that closed forms are known beside it: a denoiser, of data without holes."""
        return self.denoises and not self.data.missing

    @property
    def denoises(self) -> bool:
        """Whether the run is a denoiser of Gaussian noise, of which closed forms are known."""
        return isinstance(self.run.model, Denoiser) and not self.run.learner.steppers

    # --- data

    @cached_property
    def held_out(self) -> Part:
        """Held-out examples, at random."""
        return self._part(self.data.test, self.data.test_condition, self.at_most(_JUDGED_BY, len(self.data.test)))

    @cached_property
    def trained_on(self) -> Part:
        """Training examples, at random; as many as `held_out`, but at least a piece."""
        size = min(len(self.data.train), max(len(self.held_out.x0), _PIECE))
        return self._part(self.data.train, self.data.train_condition, size)

    @cached_property
    def known(self) -> Tensor:
        """(n, *shape) model space: training examples that stand for all if a sum over all would take too long."""
        found = self._part(self.data.train, Condition(), self.at_most(_KNOWN, len(self.data.train))).x0
        return filled(found, found)

    def at_most(self, wanted: int, there: int) -> int:
        """How many examples to take of those that are there, where more than so many are not wanted."""
        return min(wanted, there, max(_PIECE, _MOST // math.prod(self.run.shape)))

    def _part(self, x: Tensor, condition: Condition, size: int) -> Part:
        # at random: files are often sorted, and their first rows are of one kind
        rows = torch.randperm(len(x), generator=self.dice())[:size]
        return Part(self.data.transform.forward(x[rows]), condition[rows], x[rows].float())

    # --- errors

    def judged(self, part: Part, run: Run | None = None) -> Judged:
        """The errors of the run, or of another average of its weights, on some examples, with fixed noise."""
        run = run or self.run
        if not self.denoises:
            pieces = range(0, len(part.x0) - len(part.x0) % _PIECE or 1, _PIECE)
            parts = [(part.x0[i : i + _PIECE], part.condition[i : i + _PIECE]) for i in pieces]
            # of rows of a table a piece is work for one thread: several wait for each other longer than they compute
            with threads(1) if run.types else nullcontext():
                values = [run.learner.judge(run.model, x0, given).value for x0, given in parts]
            return Judged(torch.tensor(values, dtype=torch.float64), [], torch.empty(0), torch.empty(0))
        found = [_errors(run.model, part, slice(i, i + _AT_ONCE)) for i in range(0, len(part.x0), _AT_ONCE)]
        by_level = torch.cat([errors for _, errors in found], 1)
        levels = found[0][0]
        linear = torch.tensor([_linear(level, run.model.sigma_data) for level in levels], dtype=torch.float64)
        each = (by_level / linear[:, None]).mean(0)
        return Judged(each, [float(level.noise_ratio) for level in levels], by_level, linear)

    @cached_property
    def on_held_out(self) -> Judged:
        """The run's errors on held-out examples."""
        return self.judged(self.held_out)

    @cached_property
    def on_trained(self) -> Judged:
        """The run's errors on training examples."""
        return self.judged(self.trained_on)

    @cached_property
    def laws(self) -> dict[str, GaussianMixture]:
        """What is known of the data in closed form, by name."""
        flat = self.known.flatten(1).double()
        if flat.shape[1] <= _FULL:
            covariance = torch.cov(flat.T, correction=0).reshape(flat.shape[1], -1)
        else:
            covariance = flat.var(0, correction=0)
        mean = self.known.double().mean(0)
        return {"a Gaussian of the data": Gaussian(mean, covariance), "the training examples": Empirical(self.known)}

    @cached_property
    def rivals(self) -> dict[str, Tensor]:
        """Error at each level, (levels,), of what is known in closed form, on the same held-out examples and noise."""
        bare, found = Part(self.held_out.x0, Condition(), self.held_out.own), {}
        for name, law in self.laws.items():
            model = law.denoiser(self.run.model.process)
            # asked at the run's own levels, which are spread by its sigma_data
            parts = [
                _errors(model, bare, slice(i, i + _AT_ONCE), self.run.model) for i in range(0, len(bare.x0), _AT_ONCE)
            ]
            found[name] = torch.cat([errors for _, errors in parts], 1).mean(1)
        return found

    # --- sampling

    @cached_property
    def levels(self) -> list[Level[float]]:
        """The levels that the run visits when it draws by default, noise falling, without the clean point."""
        process = self.run.model.process
        how = self.run.way()
        grid = how.stepper.usual_grid if how.grid is None and process.chain is None else how.grid
        return list(process.levels(times(process, how.steps, grid, self.run.model.unit)[:-1]))

    @cached_property
    def given(self) -> Condition:
        """The conditions of the samples, like those of the data."""
        return self.run.examples(self.count, self.data.test_condition)

    @cached_property
    def drawn(self) -> Tensor:
        """(count, *shape) model space: samples drawn by the run's defaults."""
        return self.run.draw(self.count, seed=self.seed, condition=self.given)

    @cached_property
    def finite(self) -> bool:
        """Whether every number of the samples and of the data is finite, so that distances can be measured."""
        return all(bool(torch.isfinite(part).all()) for part in self.compared)

    @cached_property
    def drawn_own(self) -> Tensor:
        """(count, *shape): the samples in the data's own units and on their grid."""
        return self.run.transform.inverse(self.drawn, quantise=True).float()

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor, Tensor]:
        """Samples, training and held-out examples in the data's own units, all with the same holes, filled."""
        if not self.data.missing:
            return self.drawn_own, self.data.train, self.data.test
        return alike(self.drawn_own, self.data.train.float(), self.data.test.float())

    @cached_property
    def ruler(self) -> Ruler:
        """The unit of distances."""
        return Ruler.of(self.compared[1].float())

    def others(self) -> dict[float, Run]:
        """The run with each other average of its weights that its folder has, by length; 0 for the raw weights."""
        files = {length: average_file(length) for length in self.run.experiment.training.ema} | {
            0.0: "model.safetensors"
        }
        there = [
            length for length, name in files.items() if (self.run.folder / name).is_file() and length != self.run.ema
        ]
        return {length: Run.load(self.run.folder, ema=length) for length in there}


def _linear(level: Level[Any], sigma_data: float) -> float:
    spread = (level.alpha * sigma_data) ** 2 + level.sigma**2
    return float((level.sigma * sigma_data) ** 2 / spread)


@torch.no_grad()
def _errors(
    model: Denoiser, part: Part, rows: slice, clocked: Denoiser | None = None
) -> tuple[list[Level[Any]], Tensor]:
    """The levels, and the squared error of x0 for each of some rows, (levels, n) float64, averaged over elements."""
    x0, condition = part.x0[rows].to(model.device), part.condition[rows].to(model.device)
    levels, errors = [], []
    for level, noisy in noised_alike(clocked or model, x0):
        off = model(noisy, level, condition).x0 - x0
        errors.append(off.double().square().flatten(1).nanmean(1).cpu())  # NaN where a cell was not seen
        levels.append(level)
    return levels, torch.stack(errors)


def looks(run: Run, weights: Path | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """What networks for photographs see in the run's pictures (N, C, H, W), in the data's own units: (N, d), by name.

    Args:
        weights: the file of the network that FID is measured with (`ornstein.metrics.inception`), if it is to be asked.

    Returns:
        That one, and EfficientNet-lite0 if it is installed; {} of a run that draws no pictures.

    Raises:
        InputError: weights for a run that draws no pictures, or that are not such.
    """
    if run.kind != "image" or not is_picture(run.shape, run.transform.plain):
        if weights is not None:
            raise InputError(f"inception='{shown(weights)}' sees pictures, and {shown(run.folder)} draws none.")
        return {}
    there, found = ranks.device(run.experiment.training.cpu), {}
    if lite.weights_file() is not None:
        found[lite.NAME] = lite.features()
    if weights is not None:
        found[inception.NAME] = inception.features(weights_of(weights), there)

    def seen(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return network(run.transform.plain.forward(x).to(there)).to(x.device)

    return {name: partial(seen, network) for name, network in found.items()}


def weights_of(path: Path) -> inception.Network:
    """The network that FID is measured with, from its weights' file; torch's reader of plain tensors runs nothing.

    Raises:
        InputError: no such file, not one of plain tensors, or weights of another network.
    """
    place = regular(path, inception.NAME, f"the file of FID's weights, {inception.FILE}")
    said = f"{inception.NAME}='{shown(place)}'"
    with opened(place) as stream:
        try:
            kept = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception:  # whatever torch makes of a file that is something else
            raise InputError(f"{said} is damaged or no file of plain tensors; give {inception.FILE}.") from None
    return inception.Network.of(kept, said)
