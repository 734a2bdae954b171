"""An embedding first, then the picture: shapes drawn from words, and variations of a picture that is given."""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from shapes import COLOURS, PAIRS, SHAPES, folder_of, picture, read
from style import BLUE, save
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.mixed import EMBEDDING

torch.set_num_threads(1)
EACH, VARIATIONS, WAY = 20, 4, 9
SHOWN = [f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]


def places(pictures: Tensor) -> Tensor:
    """How far right and down the painted part lies, (N, 2) in pixels."""
    painted = (255 - pictures.float()).amax(1)
    weight, at = painted.sum((1, 2)), torch.arange(painted.shape[-1]).float()
    return torch.stack([(painted.sum(1) * at).sum(1) / weight, (painted.sum(2) * at).sum(1) / weight], 1)


with tempfile.TemporaryDirectory() as folder:
    dice = torch.Generator().manual_seed(0)
    real = {pair: torch.stack([picture(pair, dice) for _ in range(EACH)]) for pair in PAIRS}
    changes = [*folder_of(folder, real), "preset=prior", "net.channels=32", "net.multipliers=[1,2]",
               "net.attention=[6]", "learner.embedding=16", "training.steps=2500", "training.lr=2e-3",
               "training.threads=1", "training.precision=float32", "training.validate_every=100000"]  # fmt: skip
    for _ in train(Experiment.read("images", changes), f"{folder}/run", draws=False):
        pass
    run = Run.load(f"{folder}/run")
fresh = {pair: torch.stack([picture(pair, dice) for _ in range(VARIATIONS)]) for pair in PAIRS}


def drawn(z: Tensor, seed: int) -> Tensor:
    """Pictures given an embedding each, and no words."""
    return run.transform.inverse(run.draw(len(z), condition=Condition({EMBEDDING: z}), seed=seed), quantise=True)


texts = [pair for pair in PAIRS for _ in range(VARIATIONS)]
embedded = run.model.embed(run.transform.forward(torch.cat(list(fresh.values()))).float())
spoken = run.transform.inverse(guided(run, scale=2.0).draw(len(texts), text=texts, seed=1), quantise=True)
found = {"real": torch.cat(list(fresh.values())), "from words, scale 2": spoken, "variations": drawn(embedded, 2)}
for name, shown in found.items():
    told = read(shown)
    right = sum(one == text for one, text in zip(told, texts, strict=True)) / len(texts)
    colour, shape = (sum(a.split()[i] == b.split()[i] for a, b in zip(told, texts, strict=True)) for i in (0, 1))
    print(
        f"{name}: {right:.0%} read as asked, {colour / len(texts):.0%} the colour, {shape / len(texts):.0%} the shape"
    )
given, varied = places(found["real"]), places(found["variations"])
others = given.unflatten(0, (-1, VARIATIONS)).roll(1, 1).flatten(0, 1)
for name, there in (("variations", varied), ("others of the pair", others)):
    print(f"place of {name}: {float((there - given).square().mean().sqrt()):.2f} pixels from that of the given picture")

first = torch.cat([fresh[pair][:1] for pair in SHOWN])
z = run.model.embed(run.transform.forward(first).float())
rows = [first, *(drawn(z, seed) for seed in range(VARIATIONS))]
ends = run.model.embed(run.transform.forward(torch.cat([fresh["red disc"][:1], fresh["blue cross"][:1]])).float())
turned = ends[:1] + torch.linspace(0, 1, WAY)[:, None] * (ends[1:] - ends[:1])
between = drawn(turned / turned.norm(dim=1, keepdim=True) * ends[0].norm(), 3)
figure = plt.figure(figsize=(8.4, 8.2))
above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[5, 1.15]))
for row, line in zip(above.subplots(len(rows), len(SHOWN)), rows, strict=True):
    for axis, x in zip(row, line, strict=True):
        axis.imshow(x.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=line is first, color=BLUE, lw=2.5)
above.suptitle("Given (framed), and below each what was drawn from its embedding", x=0.01, ha="left", size=11)
for axis, x in zip(below.subplots(1, WAY), between, strict=True):
    axis.imshow(x.permute(1, 2, 0))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
below.suptitle("On the way from the embedding of a red disc to that of a blue cross", x=0.01, ha="left", size=11)
save(figure)
