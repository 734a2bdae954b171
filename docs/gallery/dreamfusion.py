"""Volumes dreamt by a model of pictures that knows from where toy solids are seen, but nothing of their depth."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from solids import COLOURS, SOLIDS, matter, pictures
from style import GREY, INK, RED, save
from torch import Tensor

from ornstein.distill.renderers import Volume
from ornstein.experiment.config import Experiment
from ornstein.experiment.dream import dreamed
from ornstein.experiment.pictures import film
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.metrics import fit_classifier

torch.set_num_threads(1)
UNSEEN = (("mug", "purple"), ("car", "red"))
ASKED = (("chair", "red"), ("table", "yellow"), ("house", "blue"), ("tree", "green"), *UNSEEN)
SIDES = 12

with tempfile.TemporaryDirectory() as folder:
    known = pictures(6, 12, but=UNSEEN)
    np.savez(Path(folder, "solids.npz"), allow_pickle=False, **known)
    changes = [f"data.path={folder}/solids.npz", "data.condition=[solid,colour,view]", "process=flow",
               "net={name: unet, channels: 48, multipliers: [1, 2], blocks: 1, attention: [8], patch: 2}",
               "predicts=velocity", "objective=flow", "training.steps=1000", "training.batch_size=32",
               "training.lr=2e-3", "training.threads=1", "training.precision=float32",
               "training.validate_every=100000"]  # fmt: skip
    for _ in train(Experiment.read("array", changes), f"{folder}/run", draws=False):
        pass
    run = Run.load(f"{folder}/run")

# who tells real solids apart, by pictures that the model has not seen either
fresh = pictures(2, 12, seed=1)
x, names = torch.from_numpy(fresh["x"]).permute(0, 3, 1, 2).float() / 127.5 - 1, {}
for part, classes in (("solid", SOLIDS), ("colour", tuple(COLOURS))):
    labels = torch.tensor([classes.index(name) for name in fresh[part]])
    names[part] = classes, fit_classifier(x, labels, generator=torch.Generator().manual_seed(0), steps=300)

eye, rows, turned = Volume(sides=SIDES), [], []
right: dict[tuple[str, str, str], list[Tensor]] = {}
for solid, colour in ASKED:
    told = {"solid": solid, "colour": colour}
    made = dreamed(run, "volume", 6, condition=told, scale=2.0, steps=120, lr=0.15, options={"sides": SIDES})
    views = eye.round(made.parameters, 2 * SIDES, 32)
    density, tint = matter(solid, colour)
    real = eye.seen(density, tint, torch.arange(2 * SIDES) * torch.pi / SIDES, 32)
    for kind, some in (("dreamt", views), ("real", real)):
        for where, these in (("views optimised", some[::2]), ("views between", some[1::2])):
            for part, (classes, judge) in names.items():
                hits = judge.predict(these) == classes.index(told[part])
                right.setdefault((kind, where, part), []).append(hits)
    rows.append(views[::3])
    turned.append(views)

for (kind, where, part), hits in right.items():
    print(f"{kind}, {where}: {part} as asked in {torch.cat(hits).float().mean():.0%} of {len(torch.cat(hits))}")
by_view = [torch.stack(right["dreamt", where, "solid"]).sum(0) for where in ("views optimised", "views between")]
print(f"solids of {len(ASKED)}, by view: {torch.stack(by_view, 1).flatten().tolist()}, every {180 // SIDES} degrees")
film([torch.stack(frame) for frame in zip(*turned, strict=True)], "image", Path(__file__).with_suffix(".gif"))

figure, axes = plt.subplots(len(ASKED), 8, figsize=(8.2, 6.3))
for row, asked, shown in zip(axes, ASKED, rows, strict=True):
    for axis, picture in zip(row, shown, strict=True):
        axis.imshow(((picture + 1) / 2).clamp(0, 1).permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=GREY, lw=0.5)
    name = " ".join(reversed(asked))
    row[0].set_ylabel(name, rotation=0, ha="right", va="center", color=RED if asked in UNSEEN else INK, size=10)
save(figure)
