"""What the law tests share: every process, every stepper with its options, and two oracles.

The law tests iterate over the tables of the house, so that a new entry is held to every law without a test being
edited. Those that hold of one entry by itself are in `ornstein.laws`, where `python -m ornstein.laws` finds them for
packages from outside. What depends on an entry's own formula (golden values, options) is looked up by name and may be
missing.
"""

from collections.abc import Iterable
from typing import Any

import pytest
from torch import Tensor, nn

from ornstein.core.clocks import EDM
from ornstein.core.drive import Stepper
from ornstein.core.prediction import Prediction
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.laws.oracles import ZERO_SNR, constant, grid_of, grids_of, interior, mixture, processes
from ornstein.samplers import STEPPERS

__all__ = [
    "OPTIONS", "PROCESSES", "WAYS", "ZERO_SNR", "Oracle", "constant", "cover", "grid_of", "grids_of", "interior",
    "mixture", "refused"
]  # fmt: skip

#: every entry of the table with its defaults, and the named chains
PROCESSES: dict[str, Process] = processes()

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


SLOW = [pytest.mark.slow]


def cover(rows: Iterable[Any], columns: Iterable[Any], each: int = 1) -> list[Any]:
    """All pairs of two tables for `parametrize`: a cover, in which each row and column is `each` times; the rest slow.

    For laws of what meets through an interface alone, as steppers meet processes through their levels: one of the two
    breaks such a law by itself, and shows it in any pair.
    """
    rows, columns = list(rows), list(columns)
    return [
        pytest.param(row, column, marks=[] if (j - i) % len(columns) < each or (i - j) % len(rows) < each else SLOW)
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]


class Oracle(nn.Module):
    """A network that has learned the mixture perfectly, in the language `predicts` of `process`."""

    def __init__(self, process: Any, predicts: Any, sigma_data: Any) -> None:
        super().__init__()
        self.exact, self.process, self.predicts = mixture().denoiser(EDM(t_max=1e6)), process, predicts
        self.sigma_data = sigma_data
        self.told: list[Tensor] = []

    def forward(self, scaled: Any, noise_level: Any, condition: Any) -> Any:
        ratio = noise_level.exp()[:, None]
        self.told.append(noise_level)
        y = scaled * (self.sigma_data**2 + ratio**2).sqrt()  # x/alpha
        x0 = self.exact(y, ratio[:, 0]).x0
        level = self.process.at(self.process.time(-2 * noise_level.double()), like=y)
        return Prediction(x0, level.alpha * y, level).read(self.predicts, self.sigma_data)


def refused(action: Any, *words: str) -> None:
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
