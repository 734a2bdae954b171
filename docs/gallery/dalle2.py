"""An embedding first, then the picture: shapes drawn from words, variations of one given, and a way between two."""

import tempfile

import matplotlib.pyplot as plt
import torch
from shapes import COLOURS, PAIRS, SHAPES, folder_of, picture, read
from style import BLUE, GREY, save
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.mixed import EMBEDDING

torch.set_num_threads(1)
EACH, VARIATIONS, WAY = 60, 4, 6
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


def embedded(pictures: Tensor) -> Tensor:
    """The embeddings of pictures in bytes."""
    z: Tensor = run.model.embed(run.transform.forward(pictures).float())
    return z


def told(texts: list[str], seed: int) -> Tensor:
    """Pictures given words: an embedding each, then the picture, both guided."""
    return run.transform.inverse(guided(run, scale=2.0).draw(len(texts), text=texts, seed=seed), quantise=True)


def like(z: Tensor, seed: int) -> Tensor:
    """Pictures given an embedding each, and no words."""
    return run.transform.inverse(run.draw(len(z), condition=Condition({EMBEDDING: z}), seed=seed), quantise=True)


texts, given = [pair for pair in PAIRS for _ in range(VARIATIONS)], torch.cat(list(fresh.values()))
varied = like(embedded(given), 2)
for name, shown in (("real", given), ("from words, scale 2", told(texts, 1)), ("variations", varied)):
    seen = [(was.split(), text.split()) for was, text in zip(read(shown), texts, strict=True)]
    shares = [sum(was[i] == text[i] for was, text in seen) / len(seen) for i in (0, 1)]
    both = sum(was == text for was, text in seen) / len(seen)
    print(f"{name}: {both:.0%} read as asked, {shares[0]:.0%} the colour, {shares[1]:.0%} the shape")
others = given.unflatten(0, (-1, VARIATIONS)).roll(1, 1).flatten(0, 1)
for name, x in (("variations", varied), ("others of the pair", others)):
    off = (places(x) - places(given)).square().mean().sqrt()
    print(f"place of {name}: {off:.2f} pixels from that of the given picture")

first = torch.cat([fresh[pair][:1] for pair in SHOWN])
ends = embedded(torch.cat([fresh["red disc"][:1], fresh["blue cross"][:1]]))
way = ends[:1] + torch.linspace(0, 1, WAY)[:, None] * (ends[1:] - ends[:1])
rows = {"drawn from\nthe words": told(SHOWN, 0), "given": first}
rows |= {f"like the given,\nnoise {seed + 1}": like(embedded(first), seed) for seed in range(VARIATIONS)}
rows["from red disc\nto blue cross"] = like(way / way.norm(dim=1, keepdim=True) * ends[0].norm(), 3)
figure, axes = plt.subplots(len(rows), len(SHOWN), figsize=(8.2, 9.6))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for axis, x in zip(line, pictures, strict=True):
        axis.imshow(x.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=BLUE if name == "given" else GREY, lw=2.5 if name == "given" else 0.5)
    line[0].set_ylabel(name, size=9, rotation=0, ha="right", va="center")
for axis, pair in zip(axes[0], SHOWN, strict=True):
    axis.set_title(pair, size=9, color=GREY, weight="normal")
save(figure)
