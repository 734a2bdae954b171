"""Running averages of the weights, in several lengths at once, and in any other length afterwards.

Samples drawn with an average of the weights over the last part of training are far better than those of the last
weights. How long to average matters, and the best length is only known at the end. Karras et al. 2023 (arXiv
2312.02696, section 3 and appendix C) solve both problems with averages of power-function profile,

    average(t) = integral over tau in [0, t] of p(tau) theta(tau),      p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),

which forget the initial weights by themselves and keep the same shape *relative* to the run's length t: no half-life to
set, no warm-up, no bias at the start. The update that realises it is

    average(t) = beta_t average(t - 1) + (1 - beta_t) theta_t,          beta_t = (1 - 1/t)^(gamma + 1),

so beta_1 = 0 and the first average is the first weights. Unrolled, theta_i has the weight (i^(gamma + 1) - (i -
1)^(gamma + 1)) / t^(gamma + 1), which is exactly the integral of p over [i - 1, i].

An update reads and writes every weight, which is about one per cent of a training step on a CPU, for each length. Once
the profile is hundreds of steps wide, weights a few steps apart are nearly the same: from there only every fourth step
is taken in, for all four, with beta_t = (1 - 4/t)^(gamma + 1).

A length is given as the profile's standard deviation relative to t. As p is a Beta(gamma + 1, 1) density on [0, 1],

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)),

a cubic in gamma that `power` solves. sigma_rel = 0.05 is gamma = 16.97, 0.10 is gamma = 6.94, and 0.2887 = 1/sqrt(12)
is gamma = 0, the plain mean.

**At a constant rate.** Most papers average by theta' <- (1 - m) theta' + m theta_n with one m for all of training, and
name it by what is kept: "EMA 0.9999" is m = 0.0001. Started from the initial weights, the average contains (1 - m)^t of
them, still 37 % after 1/m updates. Normalised over the later weights alone it forgets them (a warm start),

    average(t) = sum over i of m (1 - m)^(t - i) theta_i / (1 - (1 - m)^t),

which is the update with m/(1 - (1 - m)^t) in place of m: 1 at first, m in the end. A number in [1/2, 1) among the
lengths means such an average, by its 1 - m; lengths end at 0.29, so that no number means both.

Since averaging is linear, a combination of stored averages is the average whose profile is the same combination of
their profiles. `reconstruct` finds the combination nearest, in least squares, to the profile of any wanted length; the
inner products that it needs are, with t_a <= t_b,

    <p_a, p_b> = (gamma_a + 1)(gamma_b + 1) / (gamma_a + gamma_b + 1) * (t_a / t_b)^gamma_b / t_b.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ornstein import ranks
from ornstein.errors import InputError, shown
from ornstein.training import manifest
from ornstein.training.checkpoint import on_disk, read_about, write_tensors

LONGEST = 1 / math.sqrt(12)
#: from here on a number says what a constant-rate average keeps, 1 - m
KEEPS = 0.5
#: how many steps one update stands for, once so many of them go into the profile's standard deviation
_STRIDE, _STRIDES = 4, 10


def average_file(length: float) -> str:
    """The name of the file that holds the average of this length, or of this 1 - m."""
    return f"ema-{_written(length)}.safetensors"


def _written(length: float) -> str:
    return f"{length:.3f}" if length < KEEPS else f"{length:.7g}"


def accepted(lengths: Sequence[float]) -> bool:
    """Whether these name distinct averages: relative lengths, or the 1 - m of constant rates."""
    fit = all(0 < length <= 0.288 or KEEPS <= length < 1 for length in lengths)
    return fit and len({_written(length) for length in lengths}) == len(lengths)


def power(length: float) -> float:
    """gamma of the profile whose relative standard deviation is `length`, in (0, 1/sqrt(12)].

    With u = gamma + 1 and c = length^-2 the definition reads u^3 + 4 u^2 + (5 - c) u + 2 = 0, whose three roots are
    real in this range; gamma >= 0 belongs to the largest, given by the trigonometric formula.
    """
    if not 0 < length <= LONGEST:
        raise InputError(f"ema length={length!r} is not accepted; it must lie in (0, {LONGEST:.4f}].")
    c = length**-2
    p, q = -c - 1 / 3, 2 / 27 + 4 * c / 3
    angle = math.acos(max(-1.0, 1.5 * q / p * math.sqrt(-3 / p)))
    return 2 * math.sqrt(-p / 3) * math.cos(angle / 3) - 7 / 3


class PowerEMA:
    """Averages of a network's trainable parameters, one per length, in float32 or better.

    Arguments:
        net: the network; its live parameters are read by `update` and never written.
        lengths: relative standard deviations, each in (0, 1/sqrt(12)]; or 1 - m of a constant rate, in [1/2, 1).
    """

    def __init__(self, net: nn.Module, lengths: Sequence[float]):
        self.net = net
        self.lengths = tuple(lengths)
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._exponents = {length: power(length) + 1 for length in lengths if length < KEEPS}
        for kept in lengths:
            if kept >= 1:
                raise InputError(f"ema={kept!r} is not accepted; 1 - m of a constant rate must lie in [{KEEPS}, 1).")
        self._averages = {
            length: [p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True) for p in self._parameters]
            for length in lengths
        }

    @torch.no_grad()
    def update(self, t: int) -> None:
        """Take in the network's present parameters as the t-th weights, counted from 1; to be called for each t.

        A length s takes in all of them up to about t = 40/s, then every fourth: its average may lack the last three. A
        constant rate takes in all.
        """
        for length, averages in self._averages.items():
            if length >= KEEPS:
                share = (1 - length) / -math.expm1(t * math.log(length))
            else:
                wide = t > _STRIDE * math.ceil(_STRIDES / length)
                if wide and t % _STRIDE:
                    continue
                back = (_STRIDE if wide else 1) / t
                share = 1.0 if t == 1 else -math.expm1(self._exponents[length] * math.log1p(-back))
            weights = [p.to(a.dtype) for p, a in zip(self._parameters, averages, strict=True)]
            torch._foreach_lerp_(averages, weights, share)

    def state(self, length: float) -> dict[str, Tensor]:
        """The network's `state_dict` with the averages of `length` in place of the parameters.

        What is not trained (buffers, frozen parameters) is the live network's. The tensors are not copies. For a
        sharded network they are gathered, so every process must call this.
        """
        if length not in self._averages:
            raise InputError(f"ema length={length!r} is not tracked; the run tracks {list(self.lengths)}.")
        average = {id(p): a for p, a in zip(self._parameters, self._averages[length], strict=True)}
        return {
            name: ranks.whole(average.get(id(tensor), tensor).detach())
            for name, tensor in self.net.state_dict(keep_vars=True).items()
        }

    def load(self, length: float, state: dict[str, Tensor]) -> None:
        """Continue the averages of `length` from what `state(length)` once gave."""
        names = {id(p): name for name, p in self.net.state_dict(keep_vars=True).items()}
        for p, average in zip(self._parameters, self._averages[length], strict=True):
            average.copy_(ranks.spread(state[names[id(p)]], average))

    def copy_to(self, net: nn.Module, length: float) -> None:
        """Put the averages of `length` into another network of the same shape, to sample or evaluate with it."""
        if net is self.net:
            raise InputError("the averages must not overwrite the network in training; give copy_to a deep copy of it.")
        net.load_state_dict(self.state(length))


def inner_product(t_a: float, gamma_a: float, t_b: float, gamma_b: float) -> float:
    """Integral of the product of two profiles, p_a that ends at t_a and p_b that ends at t_b, in closed form."""
    if t_a > t_b:
        t_a, gamma_a, t_b, gamma_b = t_b, gamma_b, t_a, gamma_a
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return scale * math.pow(t_a / t_b, gamma_b) / t_b


def combination(stored: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> tuple[list[float], float]:
    """Coefficients with which stored averages make up a wanted one.

    Arguments:
        stored: (t, length) of each stored average, with t the number of weights it has taken in.
        wanted: (t, length) of the average to be made.

    Returns:
        One coefficient per stored average, and the relative error of the profile that they make,
        |p - sum x_i p_i| / |p| in the L2 norm: 0 where the wanted average is a stored one.
    """
    profiles = [(t, power(length)) for t, length in stored]
    target = (wanted[0], power(wanted[1]))
    # Every profile integrates to one, so the coefficients are held to the sum one (by a Lagrange multiplier): weights
    # that stood still come out as they were. Profiles scaled to unit norm make the system better conditioned.
    norms = np.array([math.sqrt(inner_product(*a, *a)) for a in profiles])
    gram = np.array([[inner_product(*a, *b) for b in profiles] for a in profiles]) / np.outer(norms, norms)
    right = np.array([inner_product(*a, *target) for a in profiles]) / norms
    size = math.sqrt(inner_product(*target, *target))
    bordered = np.block([[gram, size / norms[:, None]], [size / norms[None, :], np.zeros((1, 1))]])
    x = np.linalg.lstsq(bordered, np.append(right, size), rcond=1e-12)[0][:-1]
    error = math.sqrt(max(size**2 - 2 * x @ right + x @ gram @ x, 0)) / size
    return [float(v) for v in x / norms], error


@dataclass(frozen=True)
class Snapshot:
    """One average of one length, kept on disk at half precision: `step` of the run, `t` weights taken in."""

    path: Path
    step: int
    t: int
    length: float


def snapshot(folder: Path, ema: PowerEMA, step: int, t: int, write: bool = True) -> None:
    """Keep every current average in `folder`/snapshots, at half precision. Files appear whole or not at all.

    If there are several processes, all must call this, and one of them writes.
    """
    trained = [name for name, p in ema.net.named_parameters(remove_duplicate=False) if p.requires_grad]
    for length in ema.lengths:
        tensors = ema.state(length)
        tensors |= {name: tensors[name].half() for name in trained}
        about = {"step": step, "t": t, "length": length, "trained": trained}
        name = f"snapshots/step-{step:08d}-{average_file(length)}"
        if write:
            with on_disk(folder / name), manifest.publishing(folder, name) as (part,):
                write_tensors(part, tensors, about)


def snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots of a run folder, oldest first.

    Raises:
        InputError: one of them is damaged; the sentence names it.
    """
    found = []
    for path in _snapshot_files(Path(folder)):
        about = read_about(path)
        try:
            found.append(Snapshot(path, int(about["step"]), int(about["t"]), float(about["length"])))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{shown(path)} is damaged: it does not say what it averages; delete it.") from None
    return found


def drop_snapshots(folder: Path, after: int) -> None:
    """Delete the snapshots of steps after `after`, by their names alone, damaged ones too."""
    later = [path for path in _snapshot_files(folder) if int(path.name.split("-")[1]) > after]
    manifest.forget(folder, [f"snapshots/{path.name}" for path in later])
    for path in later:
        path.unlink()


def _snapshot_files(folder: Path) -> list[Path]:
    found = (folder / "snapshots").glob("step-*.safetensors")
    return sorted(path for path in found if re.fullmatch(r"step-\d{8,12}-ema-\d(\.\d+)?\.safetensors", path.name))


def reconstruct(folder: Path, length: float, step: int | None = None, tolerance: float = 0.1) -> dict[str, Tensor]:
    """An average of any length from a run's snapshots, as a `state_dict` in float32.

    Arguments:
        folder: the run folder.
        length: relative standard deviation wanted, in (0, 1/sqrt(12)].
        step: the step at which the average ends; one that has a snapshot. The last one if not given.
        tolerance: largest relative error of the profile (see `combination`) that is still accepted.

    Raises:
        InputError: no snapshots, none at `step`, or too few to make this length to within `tolerance`.
    """
    every = snapshots(folder)
    if not every:
        raise InputError(f"folder={str(folder)!r} holds no snapshots; train with training.snapshot_every above 0.")
    end = every[-1].step if step is None else step
    at_end = [s for s in every if s.step == end]
    if not at_end:
        raise InputError(f"step={step} has no snapshot; {sorted({s.step for s in every})} have.")
    if length >= KEEPS:
        raise InputError(
            f"ema={length!r}, the average of a constant rate, cannot be made afterwards: train with it in training.ema."
        )
    used = [s for s in every if s.step <= end and s.length < KEEPS]
    if not used:
        raise InputError(
            f"folder={str(folder)!r} holds snapshots of constant rates alone, which make no other average."
        )
    coefficients, error = combination([(s.t, s.length) for s in used], (at_end[0].t, length))
    if error > tolerance:
        raise InputError(
            f"ema length={length!r} cannot be made from the {len(used)} snapshots up to step {end}: the profile would "
            f"be off by {error:.0%}; the run tracked {sorted({s.length for s in every})}."
        )
    for kept in used:
        manifest.check(Path(folder), f"snapshots/{kept.path.name}")
    at_end = [s for s in at_end if s.length < KEEPS]
    trained = read_about(at_end[0].path)["trained"]
    result = load_file(at_end[0].path)
    result |= {name: torch.zeros(result[name].shape) for name in trained}
    for kept, coefficient in zip(used, coefficients, strict=True):
        tensors = load_file(kept.path)
        for name in trained:
            result[name] += coefficient * tensors[name].float()
    return result
