"""The doctor's checks of a model and of its training: one figure each, beside that of a healthy run.

The table is in `doctor.py`, those of samples in `checks_of_samples.py`.

**The start.** Sampling begins at p = N(0, v), with v = alpha^2 sigma_data^2 + sigma^2 of its first level, where it
should begin at the distribution q of the noised data. For any known density r, and x drawn from q (noised held-out
examples),

    E log r(x) - E log p(x)  <=  E log q(x) - E log p(x)  =  KL(q, p),

by Gibbs' inequality. With the better of two closed forms as r, a Gaussian of the data and the training examples
themselves, this is a lower bound, close at high noise. By Pinsker's inequality a start that is KL nats off spoils at
most a share sqrt(KL/2) of the samples.

**Curl.** A score is a gradient, so its Jacobian is symmetric: S = (alpha J - 1)/sigma^2, with J that of x0. For
independent normal u and v, E (u'Sv)^2 = |S|^2 and E (u'Sv - v'Su)^2 = |S - S'|^2. The figure is |S - S'|/2 in units
of |S| or of |S + 1/sigma^2|, whichever is larger: 0 for a gradient, 1 for pure rotation. (Either alone may nearly
vanish, if all is noise or all data. Salimans & Ho, "Should EBMs model the energy or the score?", 2021, explain why a
network that is not quite a gradient may do as well.)
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import draw_probes, linearised
from ornstein.core.exact import Gaussian
from ornstein.core.process import Level
from ornstein.experiment.evidence import Evidence, deviation

# Bounds of what is healthy: set on runs of moons, the Swiss roll, eight Gaussians, a table and digits, with room to
# spare; judged on runs of other data, clocks and objectives (docs/doctor.md).
#: nats; half of it, rooted, is the most that a start from noise can go wrong by
SIGNAL_LEFT = 0.05
#: smallest noise, in standard deviations of the data at most and in distances of digital values at least
COARSEST, FINEST_DIGITAL = 0.05, 0.005
#: error over that of a closed form
BEHIND = 1.5
#: shares of the held-out error: won in the last quarter of training, its rise above its best, what another average wins
STILL_WINNING, RISEN, EMA_WON = 0.05, 0.05, 0.02
#: rotation in a Jacobian
CURL = 0.25

#: a difference must be this many times its standard error to be told
SURE = 3.0
#: a change of the held-out error by less says nothing; measurements of it that tell how it went
_CHANCE, TOLD_BY = 0.01, 3


@dataclass(frozen=True)
class Examined:
    """One figure of a run and what it should be.

    Attributes:
        measured: what the figure is, in a few words, with its unit.
        figure: the number.
        least, most: the bounds it should lie between; None for no such bound.
        said: what it means, in a sentence.
        do: what to change if it does not.
        share: whether it is written in per cent.
    """

    measured: str
    figure: float
    said: str
    do: str
    least: float | None = None
    most: float | None = None
    share: bool = False

    @property
    def healthy(self) -> bool:
        """Whether the figure lies within its bounds; NaN does not."""
        low = -math.inf if self.least is None else self.least
        return low <= self.figure <= (math.inf if self.most is None else self.most)

    @property
    def written(self) -> str:
        """The figure as people read it."""
        return self._as_read(self.figure)

    @property
    def of_bounds(self) -> str:
        """The figure and what it should be, as in "0.81, at most 0.05"."""
        ends = [("at least", self.least), ("at most", self.most)]
        wanted = " and ".join(f"{word} {self._as_read(end)}" for word, end in ends if end is not None)
        return f"{self.written}, should be {wanted}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON, which has no NaN and no infinity."""
        figure = self.figure if math.isfinite(self.figure) else None
        return {"healthy": self.healthy, "measured": self.measured, "figure": figure, "at_least": self.least,
                "at_most": self.most, "said": self.said, "do": self.do}  # fmt: skip

    def _as_read(self, value: float) -> str:
        return f"{value:.3g}" if not self.share else f"{value:.1%}"


def broken_steps(evidence: Evidence) -> Examined | None:
    """Steps of training whose loss or gradient was not finite."""
    if not evidence.records:
        return None
    last = evidence.records[-1]
    return Examined(
        "share of training steps skipped because their loss or gradient was not finite",
        last.get("skipped", 0) / max(last["step"], 1),
        "the loss was not finite in some steps of training.",
        "lower training.lr, or clip gradients harder (training.clip); train in float32 if it was a narrower type.",
        most=0.001,
        share=True,
    )


def signal_left(evidence: Evidence) -> Examined | None:
    """The signal left at the level where sampling starts from pure noise; see the module."""
    if not evidence.closed_forms:
        return None
    level, x0 = evidence.levels[0], evidence.held_out.x0
    noisy = level.noised(x0, torch.randn(x0.shape, generator=evidence.dice()))
    spread = (level.alpha * evidence.run.model.sigma_data) ** 2 + level.sigma**2
    start = Gaussian(torch.zeros(x0.shape[1:]), torch.full((x0[0].numel(),), spread, dtype=torch.float64))
    known = max(float(law.log_prob(noisy, level).mean()) for law in evidence.laws.values())
    return Examined(
        f"lower bound in nats on how far the noised data are from the start of sampling, sigma/alpha = "
        f"{level.noise_ratio:.3g}",
        known - float(start.log_prob(noisy).mean()),
        "sampling starts from pure noise, but in training some signal was left at that level.",
        "let the clock run further: a larger process.beta_max, sigma_max or t_max; or a process that ends without "
        "signal (process=flow or cosine).",
        most=SIGNAL_LEFT,
    )


def smallest_noise(evidence: Evidence) -> Examined | None:
    """The noise at the last level that a sampler visits, beside the finest detail that can be seen."""
    if not evidence.denoises:
        return None
    ratio, sigma_data = evidence.levels[-1].noise_ratio, evidence.run.model.sigma_data or 1.0
    grid = evidence.run.transform.levels
    # what is finer than this is rounded away, or cannot be seen
    unit = sigma_data if grid is None else grid.bin_width
    what = "standard deviations of the data" if grid is None else "gaps between neighbouring values of the data"
    least, most = (None, COARSEST) if grid is None else (FINEST_DIGITAL, max(1.0, COARSEST * sigma_data / unit))
    large = ratio / unit > most
    return Examined(
        f"lowest noise level that the sampler visits, in {what}",
        ratio / unit,
        "the last step removes so much noise at once that fine detail is averaged away."
        if large
        else "the noise ends far below the gap between two values, where there is nothing to learn or to remove.",
        "let the noise end lower: a smaller process.sigma_min, or more sampling.steps."
        if large
        else "let the noise end higher: a larger process.sigma_min.",
        least=least,
        most=most,
    )


def error_by_noise(evidence: Evidence) -> Examined | None:
    """The error at each level of noise beside the better of two closed forms; see `evidence`."""
    if not evidence.closed_forms:
        return None
    found = evidence.on_held_out
    error = found.by_level.mean(1)
    names, errors = list(evidence.rivals), torch.stack(list(evidence.rivals.values()))
    best, which = errors.min(0)
    grid = evidence.run.transform.levels
    invisible = 0.0 if grid is None else (0.1 * grid.bin_width) ** 2  # rounding takes it away
    ratio = (error / best).where(error > invisible, torch.zeros_like(error)).nan_to_num(math.inf)
    worst = int(ratio.argmax())
    return Examined(
        f"error of x0 over that of {names[int(which[worst])]}, at the worst level, sigma/alpha = "
        f"{found.ratios[worst]:.3g}",
        float(ratio[worst]),
        "at some noise level the network does worse than a formula that needs no training.",
        "if at most levels, train longer or with a larger training.lr; if at a few, check that the objective visits "
        "them (objective.times) and that the network is given the noise level.",
        most=BEHIND,
    )


def falling(evidence: Evidence) -> float | None:
    """The fall of the held-out error in the last quarter of training, as a share of its end; None if not recorded."""
    if len(evidence.checked) < TOLD_BY:
        return None
    end, last = evidence.checked[-1]
    before = [(step, value) for step, value in evidence.checked if step <= 0.76 * end]
    if not before or not last > 0:
        return None
    step, value = before[-1]
    return (value - last) / last * 0.25 * end / (end - step)


def under_fitting(evidence: Evidence) -> Examined | None:
    """Whether training stopped while the model was still improving: see `won_late`."""
    late = won_late(evidence)
    if late is None:
        return None
    return Examined(
        "share of training's whole gain, over knowing the variance alone, that came in its last quarter",
        late,
        "training stopped while the model was still getting better.",
        "train longer (--resume with more training.steps), or with a larger training.lr or batch.",
        most=STILL_WINNING,
        share=True,
    )


def won_late(evidence: Evidence) -> float | None:
    """The share of the whole fall of the held-out error that came in the last quarter of training.

    0 if the last quarter moved the error by less than a hundredth, which is chance; None if it was not recorded.
    """
    drop = falling(evidence)
    if drop is None:
        return None
    last = evidence.checked[-1][1]
    won = max(1.0, evidence.checked[0][1]) - last
    return drop * last / won if drop > _CHANCE and won > 0 else 0.0


def over_fitting(evidence: Evidence) -> Examined | None:
    """Whether the held-out error rose while that on training data went on falling."""
    if len(evidence.checked) < TOLD_BY:
        return None
    last, least = evidence.checked[-1][1], min(value for _, value in evidence.checked)
    held_out, trained = evidence.on_held_out, evidence.on_trained
    sure = held_out.mean - trained.mean > SURE * math.hypot(held_out.standard_error, trained.standard_error)
    return Examined(
        f"rise of the held-out error above its best (error on training data {trained.mean:.3g}, held out "
        f"{held_out.mean:.3g})",
        last / least - 1 if sure and least > 0 else 0.0,
        "the model got worse on data that it had not seen while it got better on those that it had.",
        "more data; or fewer training.steps, a smaller network, net.dropout; mirrored images (data.flip).",
        most=RISEN,
        share=True,
    )


def ema_length(evidence: Evidence) -> Examined | None:
    """Whether another tracked average of the weights is better on held-out data, by more than chance."""
    others = evidence.others()
    own = evidence.on_held_out
    if not others or not own.mean > 0:
        return None
    best, won = None, 0.0
    for length, run in others.items():
        less = own.each - evidence.judged(evidence.held_out, run).each
        share = float(less.mean()) / own.mean
        if share > won and float(less.mean()) > SURE * deviation(less):
            best, won = length, share
    here = evidence.run.ema or 0.0
    instead = "the weights as they are (0)" if not best else f"the average of length {best:g}"
    return Examined(
        f"share by which {instead} does better on held-out data than the run's own, {here:g}"
        if best is not None
        else f"share by which another average of the weights does better than the run's own, {here:g}",
        won,
        "the average of the weights that the run draws with is not the best of those at hand: too long, it lags; too "
        "short, it is noisy.",
        f"set sampling.ema to {best or 0:g} in experiment.yaml (`ornstein info RUN --accept`), or draw with --ema "
        f"{best or 0:g}.",
        most=EMA_WON,
        share=True,
    )


def _answer(model: Denoiser, level: Level, condition: Condition, x: Tensor) -> Tensor:
    return model(x, level, condition).x0


def curl(evidence: Evidence) -> Examined | None:
    """How far the model's answer is from a gradient; see the module."""
    if not evidence.closed_forms or evidence.held_out.x0[0].numel() < 2:
        return None
    model = evidence.run.model
    x0 = evidence.held_out.x0[:32].to(model.device)
    condition = evidence.held_out.condition[: len(x0)].to(model.device)
    dice = evidence.dice()
    probes = draw_probes(x0, 6, "gaussian", dice)
    eps = torch.randn(x0.shape, generator=dice).to(x0)
    i, j = torch.triu_indices(len(probes), len(probes), 1)
    worst, at = 0.0, 0.0
    for ratio in (0.2, 0.5, 1.0, 2.0):
        level = model.process.at(model.process.time(-2 * math.log(ratio * (model.sigma_data or 1.0))))
        _, pull = linearised(partial(_answer, model, level, condition), level.noised(x0, eps))
        # alpha v_i' J v_j of each sample, (B, K, K), and the same of the score's, times sigma^2
        forms = level.alpha * torch.einsum("kbd,lbd->bkl", pull(probes).flatten(2), probes.flatten(2))
        scores = forms - torch.einsum("kbd,lbd->bkl", probes.flatten(2), probes.flatten(2))
        apart = (forms[:, i, j] - forms[:, j, i]).square().mean()
        size = max(form[:, i, j].square().mean() + form[:, j, i].square().mean() for form in (forms, scores)) / 2
        share = 0.5 * float((apart / size).sqrt())
        if not share <= worst:
            worst, at = share, ratio
    return Examined(
        f"part of the score's Jacobian that is rotation, at sigma/alpha = {at:g} standard deviations of the data",
        worst,
        "the model's answer is no gradient, which a score is: it has not learned one.",
        "train longer, or with a lower training.lr; predicts=energy is a gradient whatever it has learned.",
        most=CURL,
        share=True,
    )
