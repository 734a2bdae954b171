"""What is measured and drawn of a network while it trains.

*Held-out error.* Objectives weigh noise levels differently, so their losses cannot be compared. Here the error of x0
on held-out data, at fixed levels with fixed noise, is divided by the error of the best linear denoiser of white data
of the same variance, sigma^2 s^2/(alpha^2 s^2 + sigma^2), and averaged over levels even in log-SNR: 1 is knowing the
variance alone.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ornstein import ranks
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.grids import logsnr
from ornstein.core.numerics import normal
from ornstein.data import Dataset
from ornstein.experiment import pictures
from ornstein.experiment.run import Run
from ornstein.guidance import NoisyClassifier
from ornstein.training import Progress


@dataclass(frozen=True, eq=False)
class Moment:
    """What training yields: the loop's progress, and what was measured and drawn at this step, if anything was."""

    progress: Progress
    held_out: float | None = None
    picture: Path | None = None


def measured(run: Run, data: Dataset, progress: Progress) -> Moment:
    """The error on held-out data; the same noise drawn again, and how the error goes with the level, as pictures."""
    preview = run.experiment.sampling.preview
    columns = len(run.classes) if 4 <= len(run.classes) <= 16 and run.kind == "image" else None
    if columns and preview > columns:
        preview -= preview % columns  # whole rows
    drawn = run.draw(preview, seed=0, label=run.every_class(preview), together=True)
    path = run.folder / "samples" / f"step-{progress.step:08d}.png"
    if ranks.rank():  # it drew its share; the first process does the rest
        return Moment(progress)
    ratios, errors, linear = held_out(run.denoiser, data)
    pictures.loss_by_noise(ratios, errors, linear, run.folder / "loss-by-noise.png")
    real = data.test[: max(1000, preview)] if run.kind == "vector" else None
    for place in (path, path.with_name("latest.png")):
        pictures.draw(
            drawn if run.kind == "image" else run.transform.inverse(drawn), run.kind, place, columns=columns, real=real
        )
    return Moment(progress, sum(e / w for e, w in zip(errors, linear, strict=True)) / len(errors), path)


@torch.no_grad()
def judged(run: Run, data: Dataset, progress: Progress) -> Moment:
    """As `measured`, of a noisy classifier: its cross-entropy in units of that of knowing the shares alone."""
    if ranks.rank():
        return Moment(progress)
    assert isinstance(run.denoiser, NetDenoiser)
    assert data.test_labels is not None
    shares = run.experiment.objective["shares"]
    classifier = NoisyClassifier(run.denoiser.net, run.denoiser.process, shares, run.denoiser.sigma_data)
    x0, labels = (kept[:1000].to(run.denoiser.device) for kept in (data.transform.forward(data.test), data.test_labels))
    ratios, accuracies, losses = [], [], []
    for i, t in enumerate(logsnr(run.denoiser.process, 16, run.denoiser.sigma_data)[:-1].tolist()):
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
