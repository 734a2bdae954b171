"""How well bridges are learned: beside their closed forms, and beside torchcfm.

    OMP_NUM_THREADS=1 python benchmarks/bridge.py gaussian
    OMP_NUM_THREADS=1 python benchmarks/bridge.py planes --seeds 5      # pip install torchcfm pot, for its rows

*gaussian*: two Gaussians in d = 1, 2 and 16 dimensions, whose covariances do not commute and differ in size, with three
levels of noise. `ornstein train schrodinger` gets only 100,000 unpaired rows of each, and a minute of processor time on
one core for each run. Relative errors compare it with the closed form (`ornstein.bridge.gaussian`): of the means and
covariances of the walk at five times (the mean in standard deviations); of the drift, root mean square over the exact
marginals at nine times; and of the covariance of the pairs that a walk joins, cov(x_0, x_1).

*planes*: eight Gaussians to two moons, as in torchcfm's examples and the figures of Tong et al. 2023 (2302.00482).
The figures are the 2-Wasserstein distance between carried rows and the target, and the normalised path energy
|E - W^2|/W^2, where E is the mean of the integral of |velocity|^2 over the path and W the distance of source and
target: 0 if mass moves as little as it can. Each library gets the same 100,000 rows of each, 256 at each of 1,500
steps, and 100 steps to walk: ornstein by Heun's rule, torchcfm by the classical Runge-Kutta rule. torchcfm has the
network of its examples, 64 wide, and one 128 wide; ornstein has the preset `bridge`.

What carries and what it is measured by are the same for all: 2,048 rows of each law from a Sobol sequence. With as many
random rows W^2 varies by 2 % from draw to draw, which is more than the waste; with these by 0.1 %.

Figures are kept in bridge.json, and only missing ones are measured.
"""

import functools
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ornstein.bridge import Brownian, GaussianBridge, crossing, path_energy, translate
from ornstein.data.transform import per_feature
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.metrics import Wasserstein

RESULTS = Path(__file__).with_name("bridge.json")
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
    rows: Tensor = mean + z @ torch.linalg.cholesky(cov).mT
    return rows


def learned(source: Tensor, target: Tensor, preset: str, changes: list[str], folder: Path) -> tuple[Run, float]:
    """A run trained on two sets of rows, and the seconds of processor time that its training took."""
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
    """A bridge's relative errors against the closed form: the worst of its marginals, drifts, coupling.

    The closed form is walked too, from the same rows with the same noise: the chance error of both is removed.
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
    """The cross-covariance (d, d) of rows (N, d) with rows."""
    return (x - x.mean(0)).mT @ (y - y.mean(0)) / (len(x) - 1)


def gaussian(quick: bool, only: str | None, also: list[str], kept: dict[str, Any], path: Path) -> None:
    for d in (1, 2, 16):
        for noise in NOISES:
            key = f"gaussian {d},{noise:g}"
            if key in kept or (only and only != f"{d},{noise:g}"):
                continue
            rows, n = (600, 50) if quick else (100_000, 5_000)
            mean0, cov0, mean1, cov1 = laws(d)
            changes = [f"process.noise={noise}", *settings(d, quick), *also]
            with tempfile.TemporaryDirectory() as place:
                run, spent = learned(draw(mean1, cov1, rows, 1), draw(mean0, cov0, rows, 2), "schrodinger", changes,
                                     Path(place))  # fmt: skip
            errors = against(run.model, exact(run, d, noise), n)
            kept[key] = {"steps": run.experiment.training.steps, "seconds": spent, **errors}
            path.write_text(json.dumps(kept, indent=1) + "\n")
    print(common.heading("dimension", "noise", "steps", "processor s", "mean", "covariance", "drift", "pairs", words=2))
    for d in (1, 2, 16):
        for noise in NOISES:
            if (found := kept.get(f"gaussian {d},{noise:g}")) is not None:
                cells = [f"{100 * found[name]:.1f} %" for name in ("mean", "covariance", "drift", "pairs")]
                print(common.row(d, f"{noise:g}", f"{found['steps']:,}", f"{found['seconds']:.0f}", *cells))


def settings(d: int, quick: bool) -> list[str]:
    """Settings that suit distributions as smooth as these: a small network, large batches.

    In 16 dimensions with little noise a turn of iterative fitting leaves 0.86 of the error of the pairs, so turns are
    short: a small pool and a short average of the walker; and walks are long enough to keep the covariances (in 8 steps
    they lose 2 % in each turn). Chosen on another pair of Gaussians, the pause on this one.
    """
    steps = 20 if quick else 600 if d < 16 else 1500
    ema, many = (0.1, []) if d < 16 else (0.2, ["horizon=30", "pool=2048", "walk=16", "pause=10"])
    return [
        f"training.steps={steps}", "training.batch_size=1024", "training.lr=3e-3", f"training.ema=[{ema}]",
        "net.width=64", "net.depth=2", f"sampling.ema={ema}", f"objective.first={min(75, steps // 8)}",
        *(f"objective.{setting}" for setting in many),
    ]  # fmt: skip


# Eight Gaussians to moons ---------------------------------------------------------------------------------------------


def eight_gaussians(u: Tensor) -> Tensor:
    """Centres on a circle of radius 5, variance 0.1: from uniform numbers (n, 3)."""
    angle = (8 * u[:, :1]).floor() * (math.pi / 4)
    rows: Tensor = 5 * torch.cat([angle.cos(), angle.sin()], 1) + 0.1**0.5 * torch.special.ndtri(u[:, 1:])
    return rows


def two_moons(u: Tensor) -> Tensor:
    """Half circles of radius 3, with noise of 0.6: from uniform numbers (n, 4)."""
    angle = math.pi * u[:, :1]
    upper = torch.cat([angle.cos(), angle.sin()], 1)
    lower = torch.tensor([1.0, 0.5]) - upper
    rows: Tensor = 3 * (torch.where(u[:, 1:2] < 0.5, upper, lower) + 0.2 * torch.special.ndtri(u[:, 2:])) - 1
    return rows


def random_rows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """n independent rows of source and of target."""
    dice = seeded(seed)
    source, target = (law(torch.rand(n, k, generator=dice, dtype=F64)).float() for law, k in PLANES)
    return source, target


def even_rows(n: int) -> tuple[Tensor, Tensor]:
    """n rows of source and of target, spread evenly over each law."""
    source, target = (law(SobolEngine(k, scramble=True, seed=k).draw(n, dtype=F64)).float() for law, k in PLANES)
    return source, target


#: source and target, each with how many uniform numbers make a row
PLANES = ((eight_gaussians, 3), (two_moons, 4))


def ours(also: list[str], seed: int, source: Tensor, target: Tensor, x: Tensor, steps: int) -> tuple[Tensor, float]:
    """(carried rows, path energy) of x, in the units of the data."""
    with tempfile.TemporaryDirectory() as place:
        changes = [f"training.steps={steps}", "training.batch_size=256", f"training.seed={seed}", *also]
        run, _ = learned(source, target, "bridge", changes, Path(place))
    z, scale = run.transform.forward(x), per_feature(run.transform, 2)[1][0]
    carried = run.transform.inverse(translate(run.model, z, steps=100, seed=seed))
    return carried, float(path_energy(run.model, z, steps=100, seed=seed).mean()) * scale**2


def theirs(
    method: str, width: int, seed: int, source: Tensor, target: Tensor, x: Tensor, steps: int
) -> tuple[Tensor, float]:
    """The same for torchcfm, trained as in its example: its network, Adam with 1e-3, 256 rows a step."""
    from torchcfm import conditional_flow_matching as cfm
    from torchcfm.models.models import MLP

    made = {"independent": cfm.ConditionalFlowMatcher, "optimal": cfm.ExactOptimalTransportConditionalFlowMatcher,
            "schrodinger": cfm.SchrodingerBridgeConditionalFlowMatcher}  # fmt: skip
    torch.manual_seed(seed)
    matcher = made[method](sigma=0.1 if method != "schrodinger" else 0.5)
    net = MLP(dim=2, time_varying=True, w=width)
    optimizer, dice = torch.optim.Adam(net.parameters()), seeded(seed)
    for _ in range(steps):
        x0, x1 = (rows[torch.randint(len(rows), (256,), generator=dice)] for rows in (source, target))
        t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1)
        loss = (net(torch.cat([xt, t[:, None]], 1)) - ut).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def velocity(y: Tensor, t: float) -> Tensor:
        found: Tensor = net(torch.cat([y, torch.full((len(y), 1), t)], 1))
        return found

    n, energy = 100, 0.0
    with torch.no_grad():
        for i in range(n):
            t, h = i / n, 1 / n
            a = velocity(x, t)
            b = velocity(x + h / 2 * a, t + h / 2)
            c = velocity(x + h / 2 * b, t + h / 2)
            d = velocity(x + h * c, t + h)
            energy += float(b.square().sum(1).mean()) * h
            x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x, energy


def planes(quick: bool, seeds: int, only: str | None, kept: dict[str, Any], path: Path) -> None:
    steps, rows, n = (20, 2000, 128) if quick else (1500, 100_000, 2048)
    ways: dict[str, Callable[..., tuple[Tensor, float]]] = {
        "ornstein, optimal": lambda *about: ours([], *about),
        "ornstein, independent": lambda *about: ours(["objective.coupling=independent"], *about),
        "ornstein, reflow": lambda *about: ours(["objective=reflow", f"objective.first={steps // 2}"], *about),
        **{f"torchcfm, {method}, width {width}": lambda *about, m=method, w=width: theirs(m, w, *about)
           for method in ("optimal", "schrodinger", "independent") for width in (64, 128)},
    }  # fmt: skip
    x, y = even_rows(n)
    distance = functools.partial(Wasserstein(), y=y, generator=seeded(0))
    transport = distance(x) ** 2
    for seed in range(seeds):
        wanted = {key: way for name, way in ways.items()
                  if (key := f"planes {name}, {seed}") not in kept and (not only or name.startswith(only))}  # fmt: skip
        if not wanted:
            continue
        source, target = random_rows(rows, 100 + seed)
        floor = distance(random_rows(n, 200 + seed)[1])
        for key, way in wanted.items():
            carried, energy = way(seed, source, target, x, steps)
            kept[key] = {"wasserstein": distance(carried), "energy": energy, "transport": transport, "floor": floor,
                         "steps": steps}  # fmt: skip
            path.write_text(json.dumps(kept, indent=1) + "\n")
    print(common.heading("", "seeds", "2-Wasserstein to the target", "normalised path energy"))
    for name in ways:
        found = [kept[key] for seed in range(seeds) if (key := f"planes {name}, {seed}") in kept]
        if found:
            far = torch.tensor([one["wasserstein"] for one in found])
            wasted = torch.tensor([abs(one["energy"] - one["transport"]) / one["transport"] for one in found])
            cells = [f"{v.mean():.3f} ± {v.std(correction=int(len(v) > 1)):.3f}" for v in (far, wasted)]
            print(common.row(name, len(found), *cells))
    floors = [one["floor"] for key, one in kept.items() if key.startswith("planes ornstein, optimal")]
    if floors:
        print(common.row("new rows of the target", len(floors), f"{sum(floors) / len(floors):.3f}", "0"))


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("part", choices=["gaussian", "planes"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", metavar="D,NOISE or NAME", help="one of the laws, or of the rows")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes to the experiment")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    path = common.place(chosen.results, chosen.quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.is_file() and not chosen.quick else {}
    if chosen.part == "gaussian":
        gaussian(chosen.quick, chosen.only, chosen.set, kept, path)
    else:
        planes(chosen.quick, chosen.seeds, chosen.only, kept, path)


if __name__ == "__main__":
    main()
