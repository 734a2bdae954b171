"""Words that were never met together: a model of captioned shapes is asked for pairs that no picture has shown."""

import tempfile

import matplotlib.pyplot as plt
import torch
from shapes import COLOURS, PAIRS, SHAPES, folder_of, picture, read
from style import GREY, RED, save

from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

torch.set_num_threads(1)
EACH = 150
UNSEEN = [f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]

with tempfile.TemporaryDirectory() as folder:
    dice = torch.Generator().manual_seed(0)
    real = {pair: torch.stack([picture(pair, dice) for _ in range(EACH)]) for pair in PAIRS}
    where = folder_of(folder, {pair: some for pair, some in real.items() if pair not in UNSEEN})
    changes = [*where, "net.channels=32", "net.multipliers=[1,2]",
               "net.attention=[6]", "training.steps=4000", "training.lr=2e-3", "training.threads=1",
               "training.precision=float32", "training.validate_every=100000"]  # fmt: skip
    for _ in train(Experiment.read("images", changes), f"{folder}/run", draws=False):
        pass
    run = Run.load(f"{folder}/run")

for name, some in (("real", real), ("drawn, scale 1", 1.0), ("drawn, scale 2", 2.0)):
    for kind, pairs in (("met in training", [p for p in PAIRS if p not in UNSEEN]), ("never met", UNSEEN)):
        texts = [pair for pair in pairs for _ in range(4)]
        if isinstance(some, dict):
            shown = torch.cat([some[pair][:4] for pair in pairs])
        else:
            shown = run.transform.inverse(guided(run, scale=some).draw(len(texts), text=texts, seed=1), quantise=True)
        right = sum(told == pair for told, pair in zip(read(shown), texts, strict=True)) / len(texts)
        print(f"{name}, pairs {kind}: {right:.0%} read as asked")

drawn = run.transform.inverse(guided(run, scale=2.0).draw(len(PAIRS), text=PAIRS, seed=0), quantise=True)
figure, axes = plt.subplots(len(COLOURS), len(SHAPES), figsize=(8.2, 8.2))
for axis, pair, x in zip(axes.flat, PAIRS, drawn, strict=True):
    axis.imshow(x.permute(1, 2, 0))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=RED if pair in UNSEEN else GREY, lw=2.5 if pair in UNSEEN else 0.5)
    axis.set_title(pair, size=9, color=RED if pair in UNSEEN else GREY, weight="normal")
save(figure)
