"""Digits drawn coarse first: 4x4 pixels, then 8x8 given these, several times."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from style import save

from ornstein import sample
from ornstein.core.condition import Condition
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.latent.cascade import halved
from ornstein.metrics import SlicedWasserstein

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as place:
    words = ["preset=cascade", "training.steps=900", "net.channels=32", "training.validate_every=9999"]
    for _ in train(Experiment.read("digits", words), Path(place) / "run", draws=False):
        pass
    run = Run.load(Path(place) / "run")
    data = run.load_data()
    samples = run.sample(len(data.test), label=run.every_class(len(data.test)), seed=0)
labels = Condition.of(torch.arange(10))
coarse = sample(run.model.stages[0], (10, 1, 4, 4), steps=20, seed=5, condition=labels)
finer = {}
for level in (0.0, 0.5):
    eps = torch.randn(coarse.shape, generator=torch.Generator().manual_seed(0))
    given = run.model.given(1, coarse + level * run.model.unit * eps, torch.full((10,), level))
    for seed in (1, 2):
        name = f"fine, noise {level:g}" if seed == 1 else f"the same again, {level:g}"
        finer[name] = sample(given, (10, 1, 8, 8), steps=20, seed=seed, condition=labels)
rows = {"coarse": coarse, **finer}
figure, axes = plt.subplots(len(rows), 10, figsize=(8.6, 4.6))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for panel, picture in zip(line, pictures, strict=True):
        panel.imshow(picture[0], cmap="gray", vmin=-1, vmax=1)
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
    line[0].set_ylabel(name, size=8, rotation=0, ha="right", va="center")
save(figure)
for name in ("fine, noise 0", "fine, noise 0.5"):
    off = (halved(finer[name]) - coarse).abs().mean()
    print(f"{name}: its means of squares lie {off:.3f} from the coarse picture, which spans 2")
distance, real = SlicedWasserstein(), data.test.float()
for name, x in (("training data", data.train[: len(real)]), ("the cascade", samples)):
    found = distance(x.float(), real, torch.Generator().manual_seed(0))
    print(f"sliced Wasserstein distance of {name} from held-out data: {found:.3f}")
