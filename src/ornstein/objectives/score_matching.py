"""Score matching: learning grad log p from samples of p alone.

A density known up to its constant has a score, s = grad log p, free of that constant. To fit a vector field s to the
score r of data we would like to minimise the **explicit** loss, half the Fisher divergence (Hyvärinen 2005, JMLR
6:695),

    J(s) = 1/2 E_p |s(x) - r(x)|^2,

but r is unknown. Three losses without r have the same minimiser, because each differs from J by a constant:

    implicit     E_p[ 1/2 |s|^2 + div s ]                               = J - 1/2 E_p|r|^2      Hyvärinen 2005
    sliced       E_p E_v[ 1/2 (v.s)^2 + v^T (grad s) v ]                = the same              Song et al. 2019
    denoising    E 1/2 |s(x_0 + sigma z) + z/sigma|^2                   = J_sigma + a constant  Vincent 2011

*Implicit*: expand the square; integration by parts turns -E[s.r], which is -integral of s.grad p, into E[div s]
wherever p s vanishes at infinity. *Sliced* (1905.07088): compare the projections of s and r on random directions v;
with E[v v^T] = I the two terms have the means of the implicit ones. Only the second needs probes: keeping |s|^2 in
the first is their variance-reduced form, which is Hutchinson's estimate of the trace in the implicit loss. One
formula, two names; the exact trace is its limit. *Denoising* (Neural Computation 23:1661): the score of the noisy data
q_sigma is the mean of -z/sigma given x, so regressing on -z/sigma finds it, without any derivative of s; the constant
is 1/2 E|z/sigma + r_sigma|^2. It learns the score of the *noisy* data, J_sigma being J with q_sigma for p.

**Over noise levels.** At one level the score of a small p is unknown in the empty regions between data; Song & Ermon
(2019, 1907.05600) noise the data at all levels of a ladder and weigh the level sigma by lambda(sigma) = sigma^2, since
|s| is of size 1/sigma; in continuous time the same loss is E lambda |s(x_t, t) - grad log q(x_t given x_0)|^2, the
conditional form, denoising at every t. All the losses here exist in that setting, on x_t of a `Denoiser` whose score
is `Prediction.score`. They are stated as the regressions are, so that their values compare: per element of a sample
and without the half,

    lambda |s + eps/sigma|^2 / d        and        lambda (|s|^2 + 2 div s) / d,

which differ by lambda/sigma^2 in mean, and not in the mean of their gradients. With lambda = sigma^2 the first is the
loss named "score", and the second is smaller by 1: at best -1 at high noise, where s = -x/sigma^2, and 0 at none.

*Cost.* Denoising takes one network call; sliced with K probes takes one call and K backward passes, which are
differentiated in turn; implicit takes d of them. *Variance.* That of the implicit losses does not vanish as the fit
becomes perfect.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser
from ornstein.core.divergence import PROBES, divergence, draw_probes
from ornstein.core.gaps import mean_square
from ornstein.core.numerics import Estimate, noise_like
from ornstein.core.process import Level, Number, Process
from ornstein.errors import InputError, lookup
from ornstein.objectives.regression import Regression

#: a bare score: (B, *shape) -> (B, *shape)
Score = Callable[[Tensor], Tensor]


def _half_square(x: Tensor) -> Tensor:
    return 0.5 * x.flatten(1).square().sum(1)


def explicit_loss(score: Score, x: Tensor, reference: Score) -> Tensor:
    """1/2 |s - r|^2 at each sample, (B,), for a known score r: for teaching and tests."""
    return _half_square(score(x) - reference(x))


def implicit_loss(
    score: Score,
    x: Tensor,
    probes: int = 0,
    law: str = "rademacher",
    generator: Generator | None = None,
    keep: int = 16,
) -> Tensor:
    """1/2 |s|^2 + div s at each sample, (B,). Hyvärinen 2005.

    Args:
        score: the field s.
        x: (B, *shape) samples of the data.
        probes: how many estimate the divergence; 0 takes the exact trace, one backward pass per element.
        law: of the probes, "rademacher" or "gaussian".
        generator: of the probes.
        keep: backward passes whose graph is kept in training, see `core.divergence.divergence`.

    Raises:
        InputError: probes without a generator, an unknown law.
    """
    s, trace = divergence(score, x, draw_probes(x, probes, law, generator) if probes else None, keep=keep)
    return _half_square(s) + trace


def sliced_loss(
    score: Score,
    x: Tensor,
    generator: Generator,
    probes: int = 1,
    law: str = "rademacher",
    reduced: bool = True,
    keep: int = 16,
) -> Tensor:
    """1/2 (v.s)^2 + v^T (grad s) v, averaged over probes v, at each sample, (B,). Song et al. 2019 (1905.07088).

    Args:
        reduced: use 1/2 |s|^2 for the first term, which is its mean over v: less variance.
        score, x, probes, law, generator, keep: as for `implicit_loss`, with at least one probe.
    """
    v = draw_probes(x, probes, law, generator)
    s, trace = divergence(score, x, v, keep=keep)
    return (_half_square(s) if reduced else 0.5 * _along(s, v)) + trace


def denoising_loss(score: Score, x0: Tensor, sigma: float, generator: Generator) -> Tensor:
    """1/2 |s(x_0 + sigma z) + z/sigma|^2 at each sample, (B,), for the score of data with noise sigma. Vincent 2011."""
    if not sigma > 0:
        raise InputError(f"sigma={sigma!r} must be positive: the noise that makes the target.")
    z = noise_like(x0, generator)
    return _half_square(score(x0 + sigma * z) + z / sigma)


def estimate(loss: Callable[[Tensor], Tensor], samples: Tensor, batch: int = 1024) -> Estimate:
    """The mean of a loss over samples, with its standard error: `estimate(lambda x: implicit_loss(s, x), samples)`.

    Args:
        loss: (B, *shape) -> (B,), any of the above with its score bound.
        samples: (N, *shape), independent.
        batch: samples at a time.

    Raises:
        InputError: a loss that is not finite.
    """
    with torch.no_grad():
        values = torch.cat([loss(part) for part in samples.split(batch)])
    bad = int((~values.isfinite()).sum())
    if bad:
        raise InputError(
            f"the loss is not finite at {bad} of {len(values)} samples: the score has diverged, or has a pole there; "
            "train with a smaller learning rate, or measure at a noise level that is not zero."
        )
    return Estimate.of(values)


def fisher_divergence(score: Score, samples: Tensor, reference: Score, batch: int = 1024) -> Estimate:
    """1/2 E|s - r|^2 over samples (N, *shape) of the distribution whose score is `reference`, with its standard error.

    `denoiser.score_at(t)` is a bare score, so that a network is compared with the truth at one noise level by
    `fisher_divergence(net.score_at(t), xt, exact.score_at(t))`.

    Raises:
        InputError: a score that is not finite.
    """
    return estimate(lambda x: explicit_loss(score, x, reference), samples, batch)


def _along(s: Tensor, v: Tensor) -> Tensor:
    """(v.s)^2 averaged over probes v (K, B, *shape): (B,)."""
    return (v * s).flatten(2).sum(2).square().mean(0)


#: lambda, the weight of a noise level
WEIGHTS: dict[str, Callable[[Level], Number]] = {
    "sigma2": lambda level: level.sigma * level.sigma,
    "one": lambda level: 1.0,
    "g2": lambda level: level.g2,
}


@dataclass(frozen=True)
class ScoreMatching:
    """Score matching of a denoiser's score at noise levels drawn at random, or at one: see the module.

    Args:
        method: "implicit", "sliced" or "denoising".
        probes: how many random vectors estimate the divergence; 0 takes the exact trace ("implicit" only).
        law: distribution of the probes, "rademacher" or "gaussian".
        reduced: use the variance-reduced form of "sliced".
        weight: lambda of a level: "sigma2" (equal error of the noise at all levels), "one" (the plain Fisher
            divergence, dominated by small noise), "g2" (likelihood weighting, with uniform times).
        sigma: train at the one level with this sigma/alpha; None: at all levels.
        times: the density of training times as for `Regression`; "auto" is uniform over the ladder's levels, or
            over continuous time.
        stratified: draw the times of a batch evenly spread.
        drop_label: the probability of training a sample without its label.
        keep: backward passes whose graph is kept; more of them take bounded memory and about twice the time.

    All methods but "denoising" take two derivatives of the network; they cannot be combined with `training.compile`,
    which allows only one.

    Raises:
        InputError: an unknown method, law, weight or density; numbers out of range; at the first call, a sigma
            beyond the clock.
    """

    method: str = "denoising"
    probes: int = 0
    law: str = "rademacher"
    reduced: bool = True
    weight: str = "sigma2"
    sigma: float | None = None
    times: str = "auto"
    stratified: bool = True
    drop_label: float = 0.1
    keep: int = 16

    def __post_init__(self) -> None:
        lookup({"implicit": 0, "sliced": 0, "denoising": 0}, self.method, "method")
        lookup(PROBES, self.law, "law")
        lookup(WEIGHTS, self.weight, "weight")
        self._regression()  # checks what it is given
        least = 1 if self.method == "sliced" else 0
        if isinstance(self.probes, bool) or not isinstance(self.probes, int) or self.probes < least:
            raise InputError(f"probes={self.probes!r} must be a whole number, at least {least} for {self.method!r}.")
        if self.sigma is not None and not self.sigma > 0:
            raise InputError(f"sigma={self.sigma!r} must be positive, or None for all levels.")

    @property
    def twice_differentiated(self) -> bool:
        """Whether a step takes two derivatives of the network."""
        return self.method != "denoising"

    @property
    def gaps(self) -> bool:
        """Whether it counts the cells that were seen, and no others."""
        return self.method == "denoising"

    def _regression(self) -> Regression:
        return Regression("eps", self.times, self.stratified, drop_label=self.drop_label)

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Given, generator: Generator) -> Tensor:
        """The loss of each sample, (B,): x0 (B, ...) in model space, and a condition of B rows."""
        t = self.draw_times(denoiser.process, len(x0), generator, denoiser.unit).to(x0.device)
        eps = noise_like(x0, generator)
        condition = Condition.of(condition).dropped(self.drop_label, generator)
        probes = draw_probes(x0, self.probes, self.law, generator) if self.probes else None
        return self.loss_at(denoiser, x0, t, eps, condition, probes)

    def draw_times(self, process: Process, n: int, generator: Generator, sigma_data: float = 1.0) -> Tensor:
        """n times, (n,) float64: the first thing that a call draws from its generator."""
        if self.sigma is None:
            return self._regression().draw_times(process, n, generator, sigma_data)
        most = process.at(process.t_max).noise_ratio
        if self.sigma > most * (1 + 1e-9):
            raise InputError(
                f"sigma={self.sigma!r} is beyond the clock of {process}, whose sigma/alpha ends at {most:g}."
            )
        level = torch.tensor(float(self.sigma), dtype=torch.float64)
        return process.time(-2 * level.log()).expand(n)

    def loss_at(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        t: float | Tensor,
        eps: Tensor,
        condition: Given,
        probes: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample at given times with given noise and probes (K, B, ...), (B,)."""
        level = denoiser.process.at(t, like=x0)
        xt = level.noised(x0, eps)
        # lambda |s|^2 = scale |e|^2 and lambda div s = -scale sigma div e with e = -sigma s, the noise: numbers of
        # order one at every level
        scale = WEIGHTS[self.weight](level) / (level.sigma * level.sigma)

        def noise(x: Tensor) -> Tensor:
            return denoiser(x, level, condition).eps

        if self.method == "denoising":
            return mean_square(noise(xt) - eps, x0, scale, denoiser.gaps)
        e, trace = divergence(noise, xt, probes, keep=self.keep)
        plain = self.method == "sliced" and not self.reduced and probes is not None
        square = _along(e, probes) if plain else e.flatten(1).square().sum(1)  # type: ignore[arg-type]
        scale, sigma = (v.flatten() if isinstance(v, Tensor) else v for v in (scale, level.sigma))
        return scale * (square - 2 * sigma * trace) / x0[0].numel()


def implicit(
    probes: int = 0,
    law: str = "rademacher",
    weight: str = "sigma2",
    sigma: float | None = None,
    times: str = "auto",
    stratified: bool = True,
    drop_label: float = 0.1,
    keep: int = 16,
) -> ScoreMatching:
    """Score matching by the divergence of the score, exact or by Hutchinson's probes (Hyvärinen 2005, JMLR 6:695)."""
    return ScoreMatching("implicit", probes, law, True, weight, sigma, times, stratified, drop_label, keep)


def sliced(
    probes: int = 1,
    law: str = "rademacher",
    reduced: bool = True,
    weight: str = "sigma2",
    sigma: float | None = None,
    times: str = "auto",
    stratified: bool = True,
    drop_label: float = 0.1,
    keep: int = 16,
) -> ScoreMatching:
    """Score matching along random directions, one backward pass each (Song et al. 2019, 1905.07088)."""
    return ScoreMatching("sliced", probes, law, reduced, weight, sigma, times, stratified, drop_label, keep)


def denoising(
    weight: str = "sigma2",
    sigma: float | None = None,
    times: str = "auto",
    stratified: bool = True,
    drop_label: float = 0.1,
) -> ScoreMatching:
    """Denoising score matching at one sigma (Vincent 2011) or a ladder of them (Song & Ermon 2019, 1907.05600)."""
    return ScoreMatching("denoising", 0, "rademacher", True, weight, sigma, times, stratified, drop_label)
