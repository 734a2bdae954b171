"""Words that were never met together: a model of captioned shapes draws pairs that no picture has shown."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from style import GREY, RED, save
from torch import Tensor

from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

torch.set_num_threads(1)
SIDE, EACH = 12, 24
COLOURS = {"red": (214, 39, 40), "blue": (31, 95, 208), "green": (44, 160, 44), "yellow": (236, 196, 25),
           "purple": (142, 68, 173), "black": (34, 34, 34)}  # fmt: skip
SHAPES = ("disc", "ring", "square", "cross", "bar", "triangle")
UNSEEN = [f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]
PAIRS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def mask(shape: str, x: float, y: float, size: float) -> Tensor:
    """How much of each pixel a shape covers, (SIDE, SIDE) in [0, 1], from four by four points in the pixel."""
    at = (torch.arange(4 * SIDE) + 0.5) / (4 * SIDE)
    u, v = (at[None] - x) / size, (at[:, None] - y) / size
    away, most = (u**2 + v**2).sqrt(), torch.maximum(u.abs(), v.abs())
    inside = {
        "disc": away < 1,
        "ring": (away < 1) & (away > 0.55),
        "square": most < 0.85,
        "cross": ((u.abs() < 0.3) | (v.abs() < 0.3)) & (most < 1),
        "bar": (v.abs() < 0.35) & (u.abs() < 1.1),
        "triangle": (v < 0.8) & (v > 2 * u.abs() - 1),
    }[shape]
    return inside.float().reshape(SIDE, 4, SIDE, 4).mean((1, 3))


def picture(pair: str, dice: torch.Generator) -> Tensor:
    """A shape in a colour on white, (3, SIDE, SIDE) bytes."""
    colour, shape = pair.split()
    x, y, size = (0.42 + 0.16 * float(torch.rand((), generator=dice)) for _ in range(3))
    cover = mask(shape, x, y, 0.75 * size)
    return (255 - cover * (255 - torch.tensor(COLOURS[colour])[:, None, None])).round().byte()


def read(pictures: Tensor) -> list[str]:
    """The colour and the shape nearest to each picture, over all positions and sizes of the shape."""
    found = []
    at = torch.linspace(0.42, 0.58, 5).tolist()
    places = [(n, mask(n, x, y, r)) for n in SHAPES for r in (0.31, 0.37, 0.43) for x in at for y in at]
    masks = torch.stack([cover for _, cover in places])
    for x in pictures.float():
        painted = (255 - x).amax(0) / (255 - x).amax()
        shape = places[int((masks - painted).square().sum((1, 2)).argmin())][0]
        own = (x * (painted > 0.8)).sum((1, 2)) / (painted > 0.8).sum()
        colour = min(COLOURS, key=lambda name: float((own - torch.tensor(COLOURS[name])).square().sum()))
        found.append(f"{colour} {shape}")
    return found


with tempfile.TemporaryDirectory() as folder:
    dice, lines = torch.Generator().manual_seed(0), ["file,caption"]
    real = {pair: torch.stack([picture(pair, dice) for _ in range(EACH)]) for pair in PAIRS}
    for pair in set(PAIRS) - set(UNSEEN):
        for i, x in enumerate(real[pair]):
            lines.append(f"{pair.replace(' ', '-')}-{i}.png,a {pair}")
            Image.fromarray(x.permute(1, 2, 0).numpy()).save(Path(folder, lines[-1].split(",")[0]))
    Path(folder, "captions.csv").write_text("\n".join(lines))
    changes = [f"data.path={folder}", "data.captions=captions.csv", "net.channels=32", "net.multipliers=[1,2]",
               "net.attention=[6]", "training.steps=4500", "training.lr=2e-3", "training.threads=1",
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
