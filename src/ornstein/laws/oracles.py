"""What the laws measure with: processes to try, times inside a clock, and the two oracles.

Two oracles find most of the bugs that samplers and losses ship with. *Constant data*: the denoiser that always answers
c, with which every stepper must return exactly c. *A Gaussian mixture*, whose denoiser, score and density are known in
closed form: asymmetric and with unequal weights, since symmetry hides errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ornstein.core import PROCESSES as MAKERS
from ornstein.core.chains import Tabulated
from ornstein.core.condition import Condition
from ornstein.core.denoiser import Denoiser, FunctionDenoiser
from ornstein.core.exact import GaussianMixture
from ornstein.core.grids import GRIDS, ends, times
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level, Process
from ornstein.errors import InputError

#: processes with no signal at all left at the end
ZERO_SNR: dict[str, Process] = {
    "betas[zero]": Tabulated.from_betas("scaled-linear", zero_snr=True),
    "betas[short zero]": Tabulated.from_betas("linear", 50, zero_snr=True),
}


def processes() -> dict[str, Process]:
    """Every entry of the table with its defaults, and the named chains."""
    chains = {f"betas[{kind}]": Tabulated.from_betas(kind) for kind in ("scaled-linear", "cosine", "sigmoid")}
    return {name: make() for name, make in MAKERS.items()} | chains


def different() -> dict[str, Process]:
    """Processes different enough that each is worth a walk, including those with no signal left."""
    every = processes() | ZERO_SNR
    return {name: p for name, p in every.items() if name not in ("betas[scaled-linear]", "betas[sigmoid]")}


@dataclass(frozen=True)
class Louder(Process):
    """A process with `factor` times the noise at every time: the same for data `factor` times as large."""

    base: Process
    factor: float

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return self.base.t_max

    @property
    def chain(self) -> int | None:  # type: ignore[override]
        return self.base.chain

    def alpha(self, t: Tensor) -> Tensor:
        return self.base.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.factor * self.base.sigma(t)


@lru_cache(maxsize=4096)
def grid_of(process: Process, steps: int, grid: str | None = None) -> Tensor | None:
    """The times of a grid, or None if the process has no such grid of that many steps."""
    try:
        return times(process, steps, grid)
    except InputError:
        return None


def grids_of(process: Process) -> list[str]:
    """The grids on which this process can be walked."""
    return [name for name in GRIDS if any(grid_of(process, n, name) is not None for n in (1, process.chain or 1))]


@lru_cache(maxsize=512)
def interior(process: Process, n: int = 7) -> Tensor:
    """n times well inside the clock, not on the knots of a chain, from low noise to high."""
    low, high = ends(process)
    level = torch.linspace(0.04, 0.96, n, dtype=torch.float64)
    a, b = (process.at(t).log_snr for t in (low, high))
    found = process.time(a + (b - a) * level)
    assert isinstance(found, Tensor)
    return torch.where((found - found.round()).abs() < 1e-3, found + 0.0137, found) if process.chain else found


def constant(process: Process, c: Tensor) -> FunctionDenoiser:
    """The denoiser of data that are always c: the first oracle."""
    return FunctionDenoiser(lambda x, level, condition: c.to(x).expand_as(x), process)


def mixture() -> GaussianMixture:
    """Two dimensions, three unequal components, nothing symmetric: the second oracle."""
    means = torch.tensor([[1.2, -0.4], [-0.9, 0.7], [0.3, 1.6]], dtype=torch.float64)
    roots = torch.tensor(
        [[[0.45, 0.0], [0.2, 0.3]], [[0.25, 0.0], [-0.15, 0.5]], [[0.3, 0.0], [0.1, 0.2]]], dtype=torch.float64
    )
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), means, roots @ roots.mT)


@dataclass(frozen=True, eq=False)
class Known(Denoiser):
    """A denoiser from a function of (x, level), with some learned variance for objectives that need one."""

    function: Callable[[Tensor, Level], Tensor]
    process: Process
    sigma_data: float = 0.7

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        return Prediction(self.function(x, level), x, level, torch.full_like(x, 0.4))
