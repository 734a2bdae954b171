"""Toy solids, seen from all round: the training data of a model that is told the view."""

import math
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.distill.renderers import VIEW, Volume, view_of

COLOURS = {"red": (214, 39, 40), "blue": (31, 95, 208), "green": (44, 160, 44), "yellow": (236, 196, 25),
           "purple": (142, 68, 173), "orange": (240, 120, 20)}  # fmt: skip
SOLIDS = ("chair", "table", "mug", "house", "car", "tree")
DARK, WOOD, CREAM, GLASS, OWN = (45, 45, 45), (120, 80, 45), (225, 215, 195), (170, 205, 225), None
EYE, SIDE, CORNERS = Volume(), 32, [(a, b) for a in (-1, 1) for b in (-1, 1)]


def box(p: Tensor, centre: tuple[float, ...], half: tuple[float, ...]) -> Tensor:
    """The signed distance of places p (..., 3), x, y, z, to a box."""
    q = (p - torch.tensor(centre)).abs() - torch.tensor(half)
    distance: Tensor = q.clamp(min=0).norm(dim=-1) + q.amax(-1).clamp(max=0)
    return distance


def tube(p: Tensor, axis: int, centre: tuple[float, ...], radius: float, half: float) -> Tensor:
    """The signed distance to a cylinder along an axis."""
    q = p - torch.tensor(centre)
    away = torch.cat([q[..., :axis], q[..., axis + 1 :]], -1).norm(dim=-1) - radius
    return torch.maximum(away, q[..., axis].abs() - half)


def parts(solid: str, p: Tensor, s: float, t: float) -> list[tuple[Tensor, tuple[int, ...] | None]]:
    """Signed distances of a solid's parts, and the colours of those that have not its own; s and t vary its shape."""
    x, y, z = p.unbind(-1)
    if solid == "chair":
        legs = [(box(p, (0.3 * a, 0.3 * b, -0.4), (0.07, 0.07, 0.28)), WOOD) for a, b in CORNERS]
        back = box(p, (-0.3, 0, 0.32 * t), (0.08, 0.38, 0.4 * t))
        return [*legs, (box(p, (0, 0, -0.08), (0.38, 0.38, 0.08)), OWN), (back, OWN)]
    if solid == "table":
        legs = [(box(p, (0.5 * a, 0.5 * b, -0.25), (0.07, 0.07, 0.32)), WOOD) for a, b in CORNERS]
        return [*legs, (box(p, (0, 0, 0.12), (0.66 * s, 0.6, 0.08)), OWN)]
    if solid == "mug":
        cup = torch.maximum(tube(p, 2, (0, 0, 0), 0.42 * s, 0.42 * t), -tube(p, 2, (0, 0, 0.15), 0.32 * s, 0.42 * t))
        ear = torch.maximum(tube(p, 1, (0.45 * s, 0, 0), 0.28, 0.08), -tube(p, 1, (0.45 * s, 0, 0), 0.15, 0.2))
        return [(cup, OWN), (ear.maximum(0.36 * s - x), OWN)]
    if solid == "house":
        roof = torch.maximum(torch.maximum(z + x.abs() * 1.1 - 0.55 * t, -z), y.abs() - 0.56)
        door = box(p, (0.43 * s, 0, -0.32), (0.05, 0.12, 0.2))
        return [(box(p, (0, 0, -0.25), (0.42 * s, 0.5, 0.27)), CREAM), (roof, OWN), (door, DARK)]
    if solid == "car":
        wheels = [(tube(p, 1, (0.42 * a, 0.33 * b, -0.3), 0.17, 0.06), DARK) for a, b in CORNERS]
        cabin = box(p, (-0.1, 0, 0.1), (0.34, 0.3, 0.16 * t))
        return [*wheels, (box(p, (0, 0, -0.15), (0.72 * s, 0.34, 0.14)), OWN), (cabin, GLASS)]
    cone = torch.maximum(p[..., :2].norm(dim=-1) - 0.5 * s * (0.75 * t - z), -0.3 - z)
    return [(tube(p, 2, (0, 0, -0.5), 0.1, 0.25), WOOD), (cone, OWN)]


def matter(solid: str, colour: str, s: float = 1.0, t: float = 1.0) -> tuple[Tensor, Tensor]:
    """Density (32, 32, 32) and colour (3, 32, 32, 32) of a solid, lit from one side, for `Volume.seen`."""
    at = torch.linspace(-1, 1, EYE.side)
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    distances, tints = zip(*parts(solid, torch.stack([x, y, z], -1) / 1.05, s, t), strict=True)
    nearest, which = torch.stack(distances).min(0)
    tint = torch.tensor([tint or COLOURS[colour] for tint in tints]).float()[which].movedim(-1, 0) / 127.5
    slope = torch.stack(torch.gradient(nearest, dim=(2, 1, 0)))
    light = (slope / slope.norm(dim=0).clamp(min=1e-6) * torch.tensor([0.5, 0.3, 0.8]).reshape(3, 1, 1, 1)).sum(0)
    return 60 * (0.5 - 14 * nearest).clamp(0, 1), tint * (0.75 + 0.25 * light) - 1


def pictures(
    each: int, views: int, seed: int = 0, but: tuple[tuple[str, str], ...] = ()
) -> dict[str, np.ndarray[Any, Any]]:
    """Views of `each` solids of every kind in every colour `but` some, with what each shows, as an .npz has them."""
    dice, seen, views_of, solids, colours = torch.Generator().manual_seed(seed), [], [], [], []
    for solid in SOLIDS:
        for colour in COLOURS:
            for _ in range(each * ((solid, colour) not in but)):
                s, t = (0.85 + 0.3 * torch.rand(2, generator=dice)).tolist()
                azimuth = 2 * math.pi * torch.rand(views, generator=dice)
                x = EYE.seen(*matter(solid, colour, s, t), azimuth, SIDE)
                seen.append(((x + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
                views_of.append(view_of(azimuth).numpy())
                solids += [solid] * views
                colours += [colour] * views
    rows = {"x": np.concatenate(seen), VIEW: np.concatenate(views_of)}
    return {**rows, "solid": np.array(solids), "colour": np.array(colours)}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], allow_pickle=False, **pictures(8, 12))
