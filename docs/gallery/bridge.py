"""One population carried into another: along straight lines, and by Schrodinger bridges with more and more noise."""

import tempfile

import matplotlib.pyplot as plt
import torch
from style import GREY, INK, save

from ornstein.bridge import crossing, path_energy
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.metrics import Wasserstein

torch.set_num_threads(1)
SMALL = ["training.steps=1500", "training.validate_every=100000"]
WAYS = {
    "no noise: optimal pairs": ("bridge", []),
    "noise 0.4: Schrödinger": ("schrodinger", ["process.noise=0.4", "objective.first=300"]),
    "noise 1.0: Schrödinger": ("schrodinger", ["process.noise=1.0", "objective.first=300"]),
}
MOMENTS = (1.0, 0.75, 0.5, 0.25, 0.0)

figure, axes = plt.subplots(3, 6, figsize=(8.6, 4.6), width_ratios=[1, 1, 1, 1, 1, 1.25])
for row, (name, (preset, changes)) in zip(axes, WAYS.items(), strict=True):
    with tempfile.TemporaryDirectory() as folder:
        for _ in train(Experiment.read(preset, [*SMALL, *changes]), f"{folder}/run", draws=False):
            pass
        run = Run.load(f"{folder}/run")
        data = run.load_data()
    assert data.far is not None
    source, target = data.transform.forward(data.far.test), data.transform.forward(data.test)
    grid = sorted({*MOMENTS, *((i / 40) ** 2 for i in range(41))}, reverse=True)
    walk = list(crossing(run.model, source, grid=grid, seed=0))
    colour = torch.atan2(*(data.far.test - data.far.test.mean(0)).unbind(1)[::-1]).numpy()
    for panel, moment in zip(row, MOMENTS, strict=False):
        x = next(state.x for state in walk if state.t == moment)
        panel.scatter(x[:900, 0], x[:900, 1], c=colour[:900], cmap="hsv", s=1.5, lw=0)
    way = torch.stack([state.x for state in walk])[:, :25]
    row[5].plot(way[..., 0], way[..., 1], color=GREY, lw=0.5)
    row[5].scatter(*way[0].T, s=6, color=INK, zorder=3)
    row[5].scatter(*way[-1].T, s=10, facecolor="white", edgecolor=INK, lw=0.8, zorder=3)
    row[0].set_ylabel(name, size=8)
    for panel in row:
        panel.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), xticks=[], yticks=[], aspect="equal")
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    far, dice = Wasserstein(), torch.Generator().manual_seed(0)
    real = data.transform.forward(data.train[:2000])
    cost = float(path_energy(run.model, source, steps=60).mean()) / far(source, target, dice) ** 2
    lands = far(walk[-1].x, target, dice)
    print(
        f"{name}: lands {lands:.3f} from the target (real rows: {far(real, target, dice):.3f}), energy {cost:.2f} W2^2"
    )
for panel, moment in zip(axes[0], MOMENTS, strict=False):
    panel.set_title(f"t = {moment:g}", size=9)
axes[0, 5].set_title("some ways", size=9)
save(figure)
