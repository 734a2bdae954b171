"""What a network of a table's tokens sees of numbers: their places along their columns, and waves across columns.

*Places.* A network that sees a number's bin as one of many classes, each with its own weights, must learn in every bin
again what holds in its neighbours. So it also sees where along its column each known number lies, as a number p and by
sines and cosines of it.

*Waves.* What a place on a map says is no sum of what its latitude and its longitude say. A few layers learn such a
function of two numbers slowly from functions of one of them, but quickly from plane waves that run across both,

    sin(w_i p_i + w_j p_j + b),

p_i the place along column i, with w normal and b uniform: the random features of a Gaussian kernel (Rahimi & Recht
2007; Tancik et al. 2020, 2006.10739). Training goes on from there and adapts w and b (as Gorishniy et al. 2022,
2203.05556, do for single numbers), so that waves find the columns that matter, also more than two of them.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ornstein.core.categories import Categories
from ornstein.core.copies import beside
from ornstein.core.numerics import normal, uniform
from ornstein.nets.contract import Part, Picture

#: half-waves over the length of a column, by which a place in it is encoded, in radians for half of the length
_HALF_WAVES = math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
#: standard deviation of the first frequencies across columns, in radians for half of a column's length
_FREQUENCY = 6.0
#: the part of the condition in which a network gets places and waves; another if a column has that name
PLACES = "places"


class Placed(nn.Module):
    """A network of tokens that also sees places along columns, and waves across them.

    Args:
        build: `build(shape, conditions, out_multiple)` makes the network, whose output has the length of its input.
        categories: the tokens of a row.
        conditions: other parts of the condition, by name.
        waves: how many waves across columns; there are none where fewer than two columns have an order.
    """

    def __init__(
        self, build: Callable[..., nn.Module], categories: Categories, conditions: Mapping[str, Part], waves: int = 0
    ) -> None:
        super().__init__()
        columns = len(categories.ordered)
        waves = waves if columns > 1 else 0
        self.categories = categories
        # to a mean square of 1, with all tokens known
        self.scale = (categories.width / categories.tokens) ** 0.5
        if waves:
            frequencies, phases = across(columns, waves)
            self.frequencies, self.phases = nn.Parameter(frequencies), nn.Parameter(phases)
        else:
            self.register_parameter("frequencies", None)
            self.register_parameter("phases", None)
        seen = columns * (2 + 2 * len(_HALF_WAVES)) + waves
        self.part = PLACES
        while self.part in conditions:  # such as a column of that name
            self.part += "_"
        beside_it: dict[str, Part] = {self.part: Picture(seen, ())} if columns else {}
        self.net = build((categories.width,), {**conditions, **beside_it}, 1)
        self.register_load_state_dict_pre_hook(_as_now)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, width) of rows x (B, width) of one-hot vectors, zeros for unknown tokens."""
        seen = {self.part: self.seen(x)} if self.categories.ordered else {}
        found: Tensor = self.net(self.scale * x, noise_level, {**condition, **seen})
        return found

    def seen(self, x: Tensor) -> Tensor:
        """Places, which numbers are known, half-waves of the places, and waves across them: (B, numbers)."""
        with torch.autocast(x.device.type, enabled=False):  # a narrow type would blur the short waves
            place, there = self.categories.places(x)
            angles = beside(_HALF_WAVES, place)[:, None] * place[:, None]
            half_waves = torch.stack([angles.sin(), angles.cos()], 2) * there[:, None, None]
            parts = [place, there, half_waves.flatten(1)]
            if self.frequencies is not None:
                parts.append(torch.addmm(self.phases, place, self.frequencies).sin())
            return torch.cat(parts, 1)


def across(columns: int, waves: int) -> tuple[Tensor, Tensor]:
    """Frequencies (columns, waves), of which each wave has two that are not zero, and phases (waves,), to begin with.

    All pairs of columns have equally many waves; if there are more pairs than waves, which have one is random.
    """
    seeds, pairs = torch.arange(waves), torch.combinations(torch.arange(columns))
    pairs = pairs[uniform(torch.zeros(1, dtype=torch.int64), len(pairs), 0)[0].argsort()][seeds % len(pairs)]
    frequencies = torch.zeros(waves, columns).scatter_(1, pairs, _FREQUENCY * normal(seeds, (2,), 1))
    return frequencies.T.contiguous(), 2 * math.pi * uniform(seeds, 1, 2)[:, 0].float()


def _as_now(placed: Placed, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Weights of an older network, which had places among its tokens and as many outputs, as they are here.

    Without waves it stood alone; its outputs for places meant nothing. Only of MLPs.
    """
    first, last = f"{prefix}net.inp.weight", [f"{prefix}net.out.{what}" for what in ("weight", "bias")]
    if not any(name.startswith(f"{prefix}net.") for name in weights):
        names = [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]
        weights.update({f"{prefix}net.{name}": weights.pop(f"{prefix}{name}") for name in names})
    own, width = placed.state_dict(), placed.categories.width
    if first in weights and "net.inp.weight" in own and len(weights[last[0]]) > width:
        weights.update({name: weights[name][:width] for name in last})
        # one number more says now that places are there, as they always are
        weights[first] = nn.functional.pad(
            weights[first], (0, own["net.inp.weight"].shape[1] - weights[first].shape[1])
        )
