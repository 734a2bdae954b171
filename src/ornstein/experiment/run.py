"""A run: training as a stream of moments, and the folder that it leaves behind.

    runs/digits/
        experiment.yaml        the experiment, every default written out
        run.yaml               the data's fingerprint and transform, versions, size of the network, when it began
        model.safetensors      the weights; ema-0.050.safetensors, ... their averages
        metrics.jsonl          one line per report: step, loss, gradient, rate, held-out error
        tensorboard/           the same, for TensorBoard
        samples/step-*.png     the same noise drawn by the averages of each moment; latest.png is the newest
        loss.png               the loss curve
        loss-by-noise.png      the held-out error at each noise level
        checkpoints/           what `--resume` continues from, bit for bit

What a person needs to sample is the two YAML files and one safetensors file: none of them can execute anything.

*Held-out error.* Objectives weigh noise levels differently, so their losses cannot be compared. Here the error of x0
on held-out data, at fixed levels with fixed noise, is divided by the error of the best linear denoiser of white data
of the same variance, sigma^2 s^2/(alpha^2 s^2 + sigma^2), and averaged over levels even in log-SNR: 1 is knowing the
variance alone.
"""

import copy
import dataclasses
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from ornstein import ranks
from ornstein._version import __version__
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.drive import State, Stepper, sample_seeds
from ornstein.core.grids import logsnr, times
from ornstein.core.numerics import normal
from ornstein.data import Dataset, Transform
from ornstein.energies import EnergyDenoiser
from ornstein.errors import InputError, lookup
from ornstein.experiment import pictures
from ornstein.experiment.build import build, build_stepper, load_data, measured_precision, settle
from ornstein.experiment.config import CLASSIFIER, Experiment
from ornstein.guidance import NoisyClassifier
from ornstein.samplers import stepper_named as stepper_named
from ornstein.samplers import trajectory
from ornstein.samplers.tuned import Tuned
from ornstein.training import AUTO, PRECISIONS, Progress, fit, half, quickest, reconstruct
from ornstein.training import Diverged as Diverged
from ornstein.training.log import Log

#: the grids that `ornstein tune` fitted to a run, by their number of steps
TUNED = "tuned.yaml"
#: samples drawn at a time, so that memory does not grow with their number; of a trial of how fast that is
BATCH, _TRIED = 256, 16


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
        weights = folder / (f"ema-{ema:.3f}.safetensors" if ema else "model.safetensors")
        if weights.is_file() or not ema:
            state = _read_weights(weights, folder)
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
        if not self.classes:
            raise InputError(f"label={label!r} cannot be drawn: {self.folder} was trained without labels.")
        if isinstance(label, str):
            if label in self.classes:
                label = self.classes.index(label)
            elif label.isdigit():
                label = int(label)
        if isinstance(label, int):
            label = [label] * n
        if isinstance(label, str):
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
        if not (isinstance(n, int) and n > 0):
            raise InputError(f"n={n!r} must be a positive whole number of samples.")
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
        """Labels (n,) in the training data's shares, evenly mixed; None for a model without."""
        # folders written before the counts were kept say nothing of the shares: there each class gets the same
        counts = self.about["data"].get("class_counts") or [1] * len(self.classes)
        return in_shares(counts, n) if self.classes else None

    def class_columns(self, labels: Tensor | None) -> int | None:
        """How wide a grid of images is whose columns are the classes: None unless labels (n,) go round 4 to 16."""
        wide = len(self.classes)
        if labels is None or self.kind != "image" or not 4 <= wide <= 16:
            return None
        return wide if bool((labels == torch.arange(len(labels)) % wide).all()) else None

    def picture(self, drawn: Tensor, path: Path, columns: int | None = None) -> None:
        """Draw samples in model space to a PNG."""
        shown = drawn if self.kind == "image" else self.transform.inverse(drawn)
        pictures.draw(shown, self.kind, path, columns=columns, names=self.about["data"].get("columns"))

    def save_arrays(self, drawn: Tensor, labels: Tensor | None, seed: int, path: Path) -> None:
        """Write samples in model space as .npz: `samples` in the data's own units and values, `labels`, `seeds`."""
        arrays = {
            "samples": self.transform.inverse(drawn, quantise=True),
            "seeds": sample_seeds(len(drawn), seed, None, None),
        }
        if labels is not None:
            arrays["labels"] = labels
        with pictures.replacing(path) as beside, beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: array.numpy() for name, array in arrays.items()})

    def film(self, frames: Sequence[Tensor], path: Path) -> None:
        """An animation of batches in model space."""
        shown = frames if self.kind == "image" else [self.transform.inverse(frame) for frame in frames]
        pictures.film(shown, self.kind, path)


def in_shares(counts: Sequence[int], n: int) -> Tensor:
    """Labels (n,), int64, of classes in the proportion of `counts`, as near as whole numbers come (largest remainder).

    The classes are spread over the list, each over the whole of it, so that every piece has nearly these shares; equal
    ones go round: 0, 1, 2, 0, 1, 2, ...
    """
    total, classes = sum(counts), range(len(counts))
    shares = [n * count // total for count in counts]  # in whole numbers: no rounding decides a tie
    by_remainder = sorted(classes, key=lambda c: (-(n * counts[c] % total), c))
    for c in by_remainder[: n - sum(shares)]:
        shares[c] += 1
    places = [((i + 0.5) / shares[c], c) for c in classes for i in range(shares[c])]
    return torch.tensor([c for _, c in sorted(places)], dtype=torch.long)


@dataclass(frozen=True, eq=False)
class Moment:
    """What training yields: the loop's progress, and what was measured and drawn at this step, if anything was."""

    progress: Progress
    held_out: float | None = None
    picture: Path | None = None


def train(
    experiment: Experiment, folder: "str | Path", data: Dataset | None = None, resume: bool = False
) -> Iterator[Moment]:
    """Train an experiment into a folder, yielding a `Moment` at each report.

    Of several processes (`torchrun`) each calls this alike and reads to the end; the first measures and writes.

    Args:
        experiment: what to train.
        folder: the run folder; made if absent.
        data: the experiment's data, if already loaded.
        resume: go on with the run in the folder.

    Raises:
        InputError: the folder holds a run and `resume` is not set, data that differ from those the run began with, ...
        Diverged: the loss stopped being finite.
    """
    folder = Path(folder)
    data = data or load_data(experiment)
    experiment, reasons = settle(experiment, data)
    config = experiment.training
    ranks.join(config.cpu)
    if config.accumulate % ranks.count():  # as it will be, so that any number of processes can do the same again
        config = dataclasses.replace(config, accumulate=-(-config.accumulate // ranks.count()) * ranks.count())
        experiment = dataclasses.replace(experiment, training=config)
    parts = build(experiment, data.shape, len(data.classes), data.sigma_data, data.transform.levels)
    about = {**_about(data, parts.net), **({"reasons": reasons} if reasons else {})}
    if resume:
        _, before = read_folder(folder)
        if before["data"]["sha256"] != about["data"]["sha256"]:
            raise InputError(f"the data are not those that {folder} was trained on: their content differs.")
    elif (folder / "run.yaml").exists():
        raise InputError(f"out={str(folder)!r} holds a run already; go on with --resume {folder}, or name another.")
    averaged = copy.deepcopy(parts.net).eval().requires_grad_(False)
    watched = Run(folder, experiment, about, _with(parts.denoiser, averaged), data.transform)
    # a rehearsal: parts that do not fit say so before anything is written
    times(parts.process, watched.steps, experiment.sampling.grid)
    build_stepper(experiment.sampling.stepper)
    x0, labels = data.batch(0, config.batch_size, config.seed)
    memory = parts.objective.memory(parts.denoiser, x0) if hasattr(parts.objective, "memory") else {}
    remembering: dict[str, Any] = {"memory": memory} if memory else {}
    rehearsed = {name: {key: tensor.clone() for key, tensor in memory.items()} for name in remembering}
    with torch.no_grad():
        few = slice(2)
        of_few = None if labels is None else labels[few]
        parts.objective(parts.denoiser, x0[few], of_few, torch.Generator().manual_seed(config.seed), **rehearsed)

    if config.precision == AUTO:
        device = torch.device("cuda" if ranks.take_device(config.cpu) else "cpu")
        piece = -(-config.batch_size // config.accumulate)
        few_labels = None if labels is None else labels[:piece]
        precision, why = measured_precision(experiment, parts, x0[:piece], few_labels, device)
        config = dataclasses.replace(config, precision=precision)
        experiment = dataclasses.replace(experiment, training=config)
        about.setdefault("reasons", {})["training.precision"] = f"{precision}, {why}"
    # pictures and held-out errors cost as little as a step does: in its precision
    watched = dataclasses.replace(watched, experiment=experiment).drawing(config.precision)
    tells_classes = experiment.objective["name"] == CLASSIFIER
    first = not ranks.rank()  # of several processes, the one that writes
    ranks.meet()
    if not resume and first:
        write_text(folder / "experiment.yaml", experiment.to_yaml())
        write_text(folder / "run.yaml", yaml.safe_dump(about, sort_keys=False))

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor | None], generator: torch.Generator) -> Tensor:
        return parts.objective(_with(parts.denoiser, net), *batch, generator, **remembering)

    def describe(batch: tuple[Tensor, Tensor | None], generator: torch.Generator) -> str:
        draw_times = getattr(parts.objective, "draw_times", None)
        if draw_times is None or memory:  # what it remembers has moved on since
            return ""
        t = draw_times(parts.process, len(batch[0]), generator)
        ratio = torch.exp(-0.5 * parts.process.log_snr(t.double()))
        return f"noise ratios sigma/alpha from {ratio.min():.3g} to {ratio.max():.3g}"

    log: Log | None = None
    for progress in fit(
        parts.net,
        loss,
        lambda step: data.batch(step, config.batch_size, config.seed),
        config,
        folder,
        describe=describe,
        resume=resume,
        meta={"data": about["data"]["sha256"]},
        memory=memory,
    ):
        if log is None and first:
            log = Log(folder, progress.step if resume else 0)
            if resume:  # only now is it known that what was changed goes with what was trained
                write_text(folder / "experiment.yaml", experiment.to_yaml())
        moment = Moment(progress)
        if progress.step % config.validate_every == 0 or progress.step == config.steps:
            if experiment.sampling.ema:
                progress.ema.copy_to(averaged, experiment.sampling.ema)
            else:
                weights = {name: ranks.whole(value) for name, value in parts.net.state_dict().items()}
                averaged.load_state_dict(weights)
            averaged.to(next(parts.net.parameters()).device)
            moment = (_judged if tells_classes else _measured)(watched, data, progress)
        if log is not None:
            log.write(progress.step, _record(moment))
            if moment.held_out is not None:
                pictures.loss_curve(read_metrics(folder), folder / "loss.png")
        yield moment
    if log is not None:
        log.close()


def _measured(run: Run, data: Dataset, progress: Progress) -> Moment:
    preview = run.experiment.sampling.preview
    if run.kind == "image" and 4 <= len(run.classes) <= min(16, preview):
        preview -= preview % len(run.classes)  # whole rows
    labels = run.every_class(preview)
    columns = run.class_columns(labels)
    if labels is not None and columns is None:
        labels = labels.sort().values  # no column is one class's: one class after the other
    drawn = run.draw(preview, seed=0, label=labels, together=True)
    path = run.folder / "samples" / f"step-{progress.step:08d}.png"
    if ranks.rank():  # it drew its share; the first process does the rest
        return Moment(progress)
    ratios, errors, linear = held_out(run.denoiser, data)
    pictures.loss_by_noise(ratios, errors, linear, run.folder / "loss-by-noise.png")
    # at random: files are often sorted, and their first rows are of one kind
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    real = None if run.kind == "image" else data.test[order[: max(1000, preview)]]
    names = run.about["data"].get("columns")
    for place in (path, path.with_name("latest.png")):
        pictures.draw(
            drawn if run.kind == "image" else run.transform.inverse(drawn), run.kind, place,
            columns=columns, real=real, names=names,
        )  # fmt: skip
    return Moment(progress, sum(e / w for e, w in zip(errors, linear, strict=True)) / len(errors), path)


@torch.no_grad()
def _judged(run: Run, data: Dataset, progress: Progress) -> Moment:
    """As `_measured`, of a noisy classifier: its cross-entropy in units of that of knowing the shares alone."""
    if ranks.rank():
        return Moment(progress)
    assert isinstance(run.denoiser, NetDenoiser)
    assert data.test_labels is not None
    shares = run.experiment.objective["shares"]
    classifier = NoisyClassifier(run.denoiser.net, run.denoiser.process, shares, run.denoiser.sigma_data)
    x0, labels = (kept[:1000].to(run.denoiser.device) for kept in (data.transform.forward(data.test), data.test_labels))
    ratios, accuracies, losses = [], [], []
    for i, t in enumerate(logsnr(run.denoiser.process, 16)[:-1].tolist()):
        level = run.denoiser.process.at(t)
        noise = normal(torch.arange(len(x0), device=x0.device), tuple(x0.shape[1:]), i)
        found = classifier.log_probs(level.noised(x0, noise), level)
        losses.append(-float(found.gather(1, labels[:, None]).mean()))
        accuracies.append(float((found.argmax(1) == labels).float().mean()))
        ratios.append(float(level.noise_ratio))
    path = run.folder / "accuracy-by-noise.png"
    pictures.accuracy_by_noise(ratios, accuracies, max(shares), path)
    known = -sum(share * math.log(share) for share in shares)
    return Moment(progress, sum(losses) / len(losses) / known, path)


@torch.no_grad()
def held_out(
    denoiser: Denoiser, data: Dataset, levels: int = 16, count: int = 256
) -> tuple[list[float], list[float], list[float]]:
    """The error of x0 on held-out data at fixed levels with fixed noise.

    Returns:
        For each level: sigma/alpha, the mean squared error of x0 per element, and that of the best linear denoiser of
        white data.
    """
    x0 = data.transform.forward(data.test[:count]).to(denoiser.device)
    labels = None if data.test_labels is None else data.test_labels[:count].to(denoiser.device)
    seeds = torch.arange(len(x0), device=x0.device)
    ratios, errors, linear = [], [], []
    for i, t in enumerate(logsnr(denoiser.process, levels)[:-1].tolist()):
        level = denoiser.process.at(t)
        noisy = level.noised(x0, normal(seeds, tuple(x0.shape[1:]), i))
        errors.append((denoiser(noisy, level, labels).x0 - x0).square().mean().item())
        spread = (level.alpha * denoiser.sigma_data) ** 2 + level.sigma**2
        linear.append(float((level.sigma * denoiser.sigma_data) ** 2 / spread))
        ratios.append(float(level.noise_ratio))
    return ratios, errors, linear


def read_folder(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment and the facts of a run folder.

    Raises:
        InputError: not a run folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"run={str(folder)!r} is not a folder; give one that `ornstein train` wrote.")
    missing = [name for name in ("experiment.yaml", "run.yaml") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"run={str(folder)!r} has no {missing[0]}: it is not a run folder, or it was damaged.")
    try:
        about = yaml.safe_load((folder / "run.yaml").read_text("utf-8"))
        about["data"]["sha256"], about["transform"]  # the parts that everything needs
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise InputError(f"{folder / 'run.yaml'} is damaged: it does not describe a run.") from None
    return Experiment.read(folder / "experiment.yaml"), about


def describe(folder: "str | Path") -> dict[str, str]:
    """What a run is, as lines of a name and a value, read without loading the network.

    Raises:
        InputError: not a run folder.
    """
    folder = Path(folder)
    experiment, about = read_folder(folder)
    facts, versions, training = about["data"], about["versions"], experiment.training
    records = read_metrics(folder)
    checked = [r for r in records if r.get("held_out") is not None]
    low, high = facts["range"]
    labels = f", {len(facts['classes'])} classes" if facts["classes"] else ""

    def said(chosen: Mapping[str, Any]) -> str:
        rest = ", ".join(f"{key} {value}" for key, value in chosen.items() if key != "name" and value is not None)
        return f"{chosen['name']} ({rest})" if rest else chosen["name"]

    lines = {
        "data": f"{facts['name']}: {facts['count']:,} {facts['kind']}s of shape {'x'.join(map(str, facts['shape']))}, "
        f"values {low:g}..{high:g}, sigma_data {facts['sigma_data']:.3f}{labels}",
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
    lines |= {f"why {name}": why for name, why in about.get("reasons", {}).items()}
    if checked:
        known = "the classes' shares" if experiment.objective["name"] == CLASSIFIER else "linear"
        best = min(checked, key=lambda r: r["held_out"])
        lines["held-out"] = (
            f"{checked[-1]['held_out']:.4f} (1 = {known}); best {best['held_out']:.4f} at step {best['step']:,}"
        )
    if records and records[-1].get("skipped"):
        lines["skipped"] = f"{records[-1]['skipped']:,} steps were not finite"
    if (result := folder / "evaluation.json").is_file():
        lines["evaluation"] = str(result)
    lines["versions"] = (
        ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; began {about['began']}"
    )
    lines["files"] = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    return lines


def read_tuned(folder: Path) -> dict[int, Any]:
    """What tuning left in a run folder, by the number of steps: "grid", best by the bound, "endpoint", a `Tuned`."""
    path = folder / TUNED
    if not path.is_file():
        return {}
    try:
        kept = yaml.safe_load(path.read_text("utf-8"))
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
    except (yaml.YAMLError, AttributeError, InputError, KeyError, TypeError, ValueError):
        raise InputError(f"{path} is damaged: delete it and tune again.") from None


def write_tuned(folder: Path, steps: int, part: Mapping[str, Any]) -> None:
    """Add to what tuning left for so many steps."""
    kept = read_tuned(folder)
    kept[steps] = {**kept.get(steps, {}), **part}
    plain = {
        k: {key: _plain(value) if isinstance(value, Tuned) else value for key, value in entry.items()}
        for k, entry in kept.items()
    }
    write_text(folder / TUNED, yaml.safe_dump(plain, sort_keys=True))


def _plain(tuned: Tuned) -> dict[str, Any]:
    return {
        "grid": list(tuned.grid),
        "drift": list(tuned.drift),
        "weights": [list(row) for row in tuned.weights],
        "leanings": [[list(row) for row in rows] for rows in tuned.leanings],
    }


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with pictures.replacing(path) as beside:
        beside.write_text(text, "utf-8")


def _about(data: Dataset, net: nn.Module) -> dict[str, Any]:
    return {
        "data": data.fingerprint(),
        "transform": data.transform.to_dict(),
        "parameters": sum(p.numel() for p in net.parameters()),
        "versions": {"ornstein": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _with(denoiser: NetDenoiser | EnergyDenoiser, net: nn.Module) -> NetDenoiser | EnergyDenoiser:
    return dataclasses.replace(denoiser, net=net)  # type: ignore[arg-type]


def _record(moment: Moment) -> Mapping[str, float]:
    p = moment.progress
    record = {"loss": p.loss, "grad_norm": p.grad_norm, "lr": p.lr, "rate": p.rate, "skipped": p.skipped}
    return record if moment.held_out is None else {**record, "held_out": moment.held_out}


def _read_weights(path: Path, folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path} is not there: training has not saved yet; go on with --resume {folder}.")
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        raise InputError(
            f"{path} is damaged; the newest checkpoint in {folder / 'checkpoints'} may be whole."
        ) from None
