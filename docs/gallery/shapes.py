"""Coloured shapes with captions, and a reader of both: data of a gallery page, where the truth is known."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

SIDE = 12
COLOURS = {"red": (214, 39, 40), "blue": (31, 95, 208), "green": (44, 160, 44), "yellow": (236, 196, 25),
           "purple": (142, 68, 173), "black": (34, 34, 34)}  # fmt: skip
SHAPES = ("disc", "ring", "square", "cross", "bar", "triangle")
PAIRS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


def mask(shape: str, x: float, y: float, size: float, side: int = SIDE) -> Tensor:
    """How much of each pixel a shape covers, (side, side) in [0, 1], from four by four points of it."""
    at = (torch.arange(4 * side) + 0.5) / (4 * side)
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
    return inside.float().reshape(side, 4, side, 4).mean((1, 3))


def picture(pair: str, dice: torch.Generator, side: int = SIDE) -> Tensor:
    """A shape in a colour on white, (3, side, side) bytes."""
    colour, shape = pair.split()
    x, y, size = (0.42 + 0.16 * float(torch.rand((), generator=dice)) for _ in range(3))
    cover = mask(shape, x, y, 0.75 * size, side)
    return (255 - cover * (255 - torch.tensor(COLOURS[colour])[:, None, None])).round().byte()


def read(pictures: Tensor) -> list[str]:
    """The colour and the shape that each picture is nearest to, wherever the shape lies and however large it is."""
    found = []
    at, side = torch.linspace(0.42, 0.58, 5).tolist(), pictures.shape[-1]
    places = [(n, mask(n, x, y, r, side)) for n in SHAPES for r in (0.31, 0.37, 0.43) for x in at for y in at]
    masks = torch.stack([cover for _, cover in places])
    for x in pictures.float():
        painted = (255 - x).amax(0) / (255 - x).amax()
        shape = places[int((masks - painted).square().sum((1, 2)).argmin())][0]
        own = (x * (painted > 0.8)).sum((1, 2)) / (painted > 0.8).sum()
        colour = min(COLOURS, key=lambda name: float((own - torch.tensor(COLOURS[name])).square().sum()))
        found.append(f"{colour} {shape}")
    return found


def folder_of(place: str, pictures: dict[str, Tensor]) -> list[str]:
    """Write pictures (N, 3, side, side) of each pair, and their captions; returns what tells a run where they are."""
    lines = ["file,caption"]
    for pair, several in pictures.items():
        for i, x in enumerate(several):
            lines.append(f"{pair.replace(' ', '-')}-{i}.png,a {pair}")
            Image.fromarray(x.permute(1, 2, 0).numpy()).save(Path(place, lines[-1].split(",")[0]))
    Path(place, "captions.csv").write_text("\n".join(lines))
    return [f"data.path={place}", "data.captions=captions.csv"]
