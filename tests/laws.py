"""What the law tests share: every process, every stepper with its options, and two oracles.

The law tests iterate over the tables of the house, so that a new entry is held to every law without a test being
edited. What depends on an entry's own formula (golden values, options) is looked up by name and may be missing.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn

from ornstein.core import PROCESSES as MAKERS
from ornstein.core.chains import Tabulated
from ornstein.core.clocks import EDM
from ornstein.core.denoiser import FunctionDenoiser
from ornstein.core.drive import Stepper
from ornstein.core.exact import GaussianMixture
from ornstein.core.grids import GRIDS, ends, times
from ornstein.core.prediction import Prediction
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.samplers import STEPPERS

#: every entry of the table with its defaults, and the named chains
PROCESSES: dict[str, Process] = {name: make() for name, make in MAKERS.items()} | {
    f"betas[{kind}]": Tabulated.from_betas(kind) for kind in ("scaled-linear", "cosine", "sigmoid")
}

#: where no signal at all is left at the end
ZERO_SNR: dict[str, Process] = {
    "betas[zero]": Tabulated.from_betas("scaled-linear", zero_snr=True),
    "betas[short zero]": Tabulated.from_betas("linear", 50, zero_snr=True),
}

#: options to try besides the defaults
OPTIONS: dict[str, list[dict[str, object]]] = {
    "ddpm": [{"variance": "large"}, {"path": True}],
    "ddim": [{"eta": 0.5}, {"eta": 1.0}, {"eta": 0.5, "path": True}],
    "euler": [{"churn": 0.3}],
    "euler-maruyama": [{"eta": 0.0}, {"eta": 2.0, "path": True}],
    "reverse-diffusion": [{"eta": 0.0}, {"path": True}],
    "dpm++2m-sde": [{"eta": 0.5}, {"eta": 2.0}, {"path": True}],
    "dpm-solver": [{"order": 2}, {"predicts": "eps"}, {"order": 2, "predicts": "eps"}],
    "multistep": [{"order": 1}, {"order": 2}, {"clock": "signal", "last": 3}, {"order": 3, "clock": "flow", "last": 2}],
    "deis": [{"order": 1}, {"order": 2}, {"order": 2, "clock": "ratio"}, {"order": 2, "clock": "signal"}],
    "unipc": [
        {"order": 4},
        {"order": 6},
        {"order": 3, "clock": "log-snr", "last": 1, "rule": "b1"},
        {"order": 3, "clock": "log-snr", "last": 1, "rule": "b2"},
        {"order": 3, "clock": "flow", "last": 2},
    ],
    "plms": [{"start": "runge-kutta"}],
    "adaptive": [{"tolerance": 1e-5}],
    "predictor-corrector": [
        {"predictor": "unipc", "corrections": 2, "snr": 0.1},
        {"predictor": {"name": "reverse-diffusion", "eta": 1.0}, "delta": 0.05},
    ],
    "heun": [
        {"variables": "edm"},
        {"churn": 0.3},
        {"variables": "edm", "churn": 0.1, "churn_min": 0.05, "churn_max": 50.0, "noise_scale": 1.003},
    ],
}

#: every stepper with its defaults and with the options above
WAYS: list[Stepper] = [STEPPERS[name](**options) for name in STEPPERS for options in [{}, *OPTIONS.get(name, [])]]


@lru_cache(maxsize=4096)
def grid_of(process: Process, steps: int, grid: str | None = None) -> Tensor | None:
    """The times of a grid, or None where this process has no such grid of that many steps."""
    try:
        return times(process, steps, grid)
    except InputError:
        return None


def grids_of(process: Process) -> list[str]:
    """The grids that this process can be walked on."""
    return [name for name in GRIDS if any(grid_of(process, n, name) is not None for n in (1, process.chain or 1))]


@lru_cache(maxsize=512)
def interior(process: Process, n: int = 7) -> Tensor:
    """n times well inside the clock, off the knots of a chain, from small noise to large."""
    low, high = ends(process)
    level = torch.linspace(0.04, 0.96, n, dtype=torch.float64)
    a, b = (process.at(t).log_snr for t in (low, high))
    times = process.time(a + (b - a) * level)
    assert isinstance(times, Tensor)
    return torch.where((times - times.round()).abs() < 1e-3, times + 0.0137, times) if process.chain else times


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


class Oracle(nn.Module):
    """A network that has learned the mixture perfectly, in the language `predicts` of `process`."""

    def __init__(self, process, predicts, sigma_data):
        super().__init__()
        self.exact, self.process, self.predicts = mixture().denoiser(EDM(t_max=1e6)), process, predicts
        self.sigma_data = sigma_data
        self.told = []

    def forward(self, scaled, noise_level, condition):
        ratio = noise_level.exp()[:, None]
        self.told.append(noise_level)
        y = scaled * (self.sigma_data**2 + ratio**2).sqrt()  # x/alpha
        x0 = self.exact(y, ratio[:, 0]).x0
        level = self.process.at(self.process.time(-2 * noise_level.double()), like=y)
        return Prediction(x0, level.alpha * y, level).read(self.predicts, self.sigma_data)


def refused(action, *words: str) -> None:  # type: ignore[no-untyped-def]
    """`action()` raises InputError with one sentence that has all of `words`."""
    try:
        action()
    except InputError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")
        for word in words:
            assert word in message, f"{word!r} is not in {message!r}"
    else:
        raise AssertionError("was accepted")
