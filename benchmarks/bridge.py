"""How well bridges are learned: beside their closed forms, and beside torchcfm.

    OMP_NUM_THREADS=1 python benchmarks/bridge.py gaussian
    OMP_NUM_THREADS=1 python benchmarks/bridge.py planes --seeds 5      # pip install torchcfm pot, for its rows

*gaussian*: two Gaussians in d = 1, 2 and 16 dimensions, that do not commute and differ in size, and three levels of
noise. 100,000 rows of each, unpaired, are all that `ornstein train schrodinger` is told; a run has a minute of
processor time of one core. Beside the closed form (`ornstein.bridge.gaussian`), relative errors of the means and
covariances of what is walked, at five times (the mean's in standard deviations); of the drift, root mean square over
the exact marginals at nine times; and of the covariance of the pairs that a walk joins, cov(x_0, x_1).

*planes*: eight Gaussians to two moons, as torchcfm's examples and the figures of Tong et al. 2023 (2302.00482) have
them. The 2-Wasserstein distance between 2,000 carried rows and as many new ones of the target; and the normalised path
energy |E - W^2|/W^2, with E the mean of the squared velocity over a walk and W the distance of source and target: 0
where mass moves as little as it can. Everybody gets the same new rows at each step, the same network (torchcfm's three
hidden layers of 64, or ours), as many steps, and its own way of walking: torchcfm's rows by 100 steps of the classical
Runge-Kutta rule, finer than anything that it is used with.
"""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor

from ornstein.bridge import Brownian, GaussianBridge, crossing
from ornstein.data.transform import per_feature
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
NOISES = (0.5, 1.0, 2.0)
F64 = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Two Gaussians --------------------------------------------------------------------------------------------------------


def laws(d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two Gaussians in d dimensions: mean0, cov0, mean1, cov1."""
    a, b = (torch.randn(d, d, generator=seeded(d + i), dtype=F64) / d**0.5 for i in range(2))
    mean0, mean1 = (torch.randn(d, generator=seeded(20 + i), dtype=F64) for i in range(2))
    eye = torch.eye(d, dtype=F64)
    return mean0, a @ a.mT + 0.2 * eye, 1 + mean1, 2 * b @ b.mT + 0.1 * eye


def draw(mean: Tensor, cov: Tensor, n: int, seed: int) -> Tensor:
    z = torch.randn(n, len(mean), generator=seeded(seed), dtype=F64)
    return mean + z @ torch.linalg.cholesky(cov).mT


def learned(source: Tensor, target: Tensor, preset: str, changes: list[str], folder: Path) -> tuple[Run, float]:
    """A run on two sets of rows, and the seconds of processor time that its training took."""
    import numpy as np

    for name, rows in (("source", source), ("target", target)):
        np.save(folder / f"{name}.npy", rows.float().numpy())
    ends = [f"data.{name}={folder / name}.npy" for name in ("source", "target")]
    quiet = ["training.validate_every=1000000", "training.checkpoint_every=1000000"]
    experiment = Experiment.read(preset, [*ends, *quiet, *changes])
    began = time.process_time()
    for _ in train(experiment, folder / "run", draws=False):
        pass
    return Run.load(folder / "run"), time.process_time() - began


def exact(run: Run, d: int, noise: float) -> GaussianBridge:
    """The closed form in the run's own space."""
    mean0, cov0, mean1, cov1 = laws(d)
    shifts, scales = per_feature(run.transform, d)
    shift, scale = torch.tensor(shifts, dtype=F64), scales[0]
    return GaussianBridge.schrodinger(
        (mean0 - shift) / scale, cov0 / scale**2, (mean1 - shift) / scale, cov1 / scale**2, Brownian(noise)
    )


@torch.no_grad()
def against(bridge: Any, truth: GaussianBridge, n: int, steps: int = 60) -> dict[str, float]:
    """Relative errors of a bridge beside the closed form: the worst of its marginals, drifts, coupling.

    The closed form is walked too, from the same rows with the same noise: what both are off by chance is taken off.
    """
    c, worst = truth.coupling, dict.fromkeys(("mean", "covariance", "drift", "pairs"), 0.0)

    def at_least(name: str, value: Tensor) -> None:
        worst[name] = max(worst[name], float(value))

    for down in (True, False):
        start = draw(*((c.mean1, c.cov1) if down else (c.mean0, c.cov0)), n, 3 + down)
        grid = sorted({*TIMES, *((i / steps) ** 2 for i in range(steps + 1))}, reverse=True)
        ways = [way if down else way.reversed() for way in (bridge, truth)]
        walks = [
            crossing(way, start.to(kind), grid=grid, seed=5)
            for way, kind in zip(ways, (torch.float32, F64), strict=True)
        ]
        for mine, theirs in zip(*walks, strict=True):
            if mine.t in TIMES or mine.t == 0:
                t = mine.t if down else 1 - mine.t
                cov, (x, y) = truth.covariance(t), (state.x.double() for state in (mine, theirs))
                at_least("mean", (x.mean(0) - y.mean(0)).norm() / cov.trace().sqrt())
                at_least("covariance", (spread(x, x) - spread(y, y)).norm() / cov.norm())
        at_least("pairs", (spread(x, start) - spread(y, start)).norm() / c.cross.norm())
    for reading in ("down", "up"):
        off = size = 0.0
        for i in range(1, 10):
            x = draw(truth.mean(i / 10), truth.covariance(i / 10), 4000, 7 + i)
            wanted, found = (way(x.to(kind), i / 10).read(reading).double() for way, kind in
                             ((truth, F64), (bridge, torch.float32)))  # fmt: skip
            off, size = off + float((found - wanted).square().mean()), size + float(wanted.square().mean())
        at_least("drift", torch.tensor(math.sqrt(off / size)))
    return worst


def spread(x: Tensor, y: Tensor) -> Tensor:
    """The covariance (d, d) of rows (N, d) with rows."""
    return (x - x.mean(0)).mT @ (y - y.mean(0)) / (len(x) - 1)


def gaussian(quick: bool, only: str | None, also: list[str]) -> None:
    print(common.heading("dimension", "noise", "steps", "processor s", "mean", "covariance", "drift", "pairs", words=2))
    for d in (1, 2, 16):
        for noise in NOISES:
            if only and only != f"{d},{noise:g}":
                continue
            rows, n = (2000, 500) if quick else (100_000, 5_000)
            mean0, cov0, mean1, cov1 = laws(d)
            changes = [f"process.noise={noise}", *settings(d, quick), *also]
            with tempfile.TemporaryDirectory() as place:
                run, spent = learned(draw(mean1, cov1, rows, 1), draw(mean0, cov0, rows, 2), "schrodinger", changes,
                                     Path(place))  # fmt: skip
            errors = against(run.model, exact(run, d, noise), n)
            cells = [f"{100 * error:.1f} %" for error in errors.values()]
            print(common.row(d, f"{noise:g}", f"{run.experiment.training.steps:,}", f"{spent:.0f}", *cells), flush=True)


def settings(d: int, quick: bool) -> list[str]:
    """What suits so smooth laws: a small network, a large batch, many steps."""
    steps = 60 if quick else 6000
    return [
        f"training.steps={steps}", "training.batch_size=512", "training.lr=3e-3", "training.ema=[0.1]",
        f"net.width={64 if d < 16 else 128}", "net.depth=2", "sampling.ema=0.1",
        f"objective.first={steps // 5}", "objective.walk=6",
    ]  # fmt: skip


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("part", choices=["gaussian", "planes"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", metavar="D,NOISE", help="one of the laws")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes to the experiment")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    gaussian(chosen.quick, chosen.only, chosen.set)


if __name__ == "__main__":
    main()
