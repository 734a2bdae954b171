"""What a network of a table's tokens sees of numbers, and how it answers: places along columns, waves across them.

*Places.* A network that sees a number's bin as one of many classes, each with its own weights, must learn in every bin
again what holds in its neighbours. So it also sees where along its column each known number lies, as a number p and by
sines and cosines of it.

*Waves.* What a place on a map says is no sum of what its latitude and its longitude say. A few layers learn such a
function of two numbers slowly from functions of one of them, but quickly from plane waves that run across both,

    sin(w_i p_i + w_j p_j + b),

p_i the place along column i, with w normal and b uniform: the random features of a Gaussian kernel (Rahimi & Recht
2007; Tancik et al. 2020, 2006.10739). Training goes on from there and adapts w and b (as Gorishniy et al. 2022,
2203.05556, do for single numbers), so that waves find the columns that matter, also more than two of them.

*Smooth in, smooth out.* Some ten bins together say which training row they belong to. A network that sees bins as
classes recognises the row by them, and answers with what followed in that row. So a *smooth* network sees where numbers
lie, and as classes only what is not just a place: a value so common that it has a bin to itself, or a missing cell. Its
answer for bin k mixes the logit l_k with those of the bins around it,

    l_k / 2 + sum_j l_j exp(-(p_j - p_k)^2 / 2 h^2) / n_j,

n_j the root of the sum of squares of bin j's kernel, so what is learnt of one bin holds for its neighbours until rows
show that they differ.

*Dropout by what is known.* Dropout keeps a network from learning rows by heart, and blurs what it says. But one or two
known tokens belong to many rows: what follows them cannot be learnt by heart, and need not be blurred. So dropout grows
with the share of known tokens, and is whole from the share `ramp` on.
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
from ornstein.nets.dropout import Dropout

#: half-waves over the length of a column, by which a place in it is encoded, in radians for half of the length
_HALF_WAVES = math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
#: how many of the half-waves a smooth network sees, and those over the length of a bin
_LONG, _INSIDE = 4, math.pi * torch.tensor([1.0, 2.0, 4.0])
#: of a smooth network's answers: the kernel's standard deviation h, in halves of a column's length, and the weight of a
#: bin's own logit, beside a kernel of unit norm
_REACH, _OWN = 1 / 12, 0.5
#: standard deviation of the first frequencies across columns, in radians for half of a column's length
_FREQUENCY = 6.0
#: the part of the condition in which a network gets places and waves; another if a column has that name
PLACES = "places"


class Placed(nn.Module):
    """A network of tokens that also sees places along columns, and waves across them.

    Args:
        build: `build(shape, conditions, out_multiple)` makes the network, whose output is `out_multiple` times as long
            as its input.
        categories: the tokens of a row.
        conditions: other parts of the condition, by name.
        waves: how many waves across columns; there are none where fewer than two columns have an order.
        smooth: whether numbers are seen by their places, and neighbouring bins get similar answers.
        ramp: the share of known tokens from which dropout is whole; 0 for dropout that is whole everywhere.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        categories: Categories,
        conditions: Mapping[str, Part],
        waves: int = 0,
        smooth: bool = False,
        ramp: float = 0.0,
    ) -> None:
        super().__init__()
        columns = len(categories.ordered)
        waves = waves if columns > 1 else 0
        self.categories = categories
        # to a mean square of 1, with all tokens known and all classes shown
        self.scale = (categories.width / categories.tokens) ** 0.5
        self.smooth, self.half_waves = smooth, _HALF_WAVES[:_LONG] if smooth else _HALF_WAVES
        if smooth:
            self._shown = classes_shown(categories)
            self._kernels = {token: _kernel(categories, token) for token in categories.ordered}
        if waves:
            frequencies, phases = across(columns, waves)
            self.frequencies, self.phases = nn.Parameter(frequencies), nn.Parameter(phases)
        else:
            self.register_parameter("frequencies", None)
            self.register_parameter("phases", None)
        seen = columns * (2 + 2 * len(self.half_waves)) + waves
        if smooth:
            seen += len(categories.finer) * (1 + 2 * len(_INSIDE))
        self.part = PLACES
        while self.part in conditions:  # such as a column of that name
            self.part += "_"
        beside_it: dict[str, Part] = {self.part: Picture(seen, ())} if columns else {}
        # a network has as many outputs as inputs, or a multiple of them; those beyond the classes mean nothing
        size = len(self._shown) if smooth else categories.width
        self.net = build((size,), {**conditions, **beside_it}, math.ceil(categories.width / size))
        self.ramp, self._dropouts = ramp, [layer for layer in self.net.modules() if isinstance(layer, Dropout)]
        self.register_load_state_dict_pre_hook(_as_now)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, noise_level: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, width) of rows x (B, width) of one-hot vectors, zeros for unknown tokens."""
        seen = {self.part: self.seen(x)} if self.categories.ordered else {}
        shown = x.index_select(1, beside(self._shown, x, torch.int64)) if self.smooth else x
        if self.training and self.ramp:
            share = (self.categories.known(x).float().mean(1) / self.ramp).clamp(max=1)
            for layer in self._dropouts:
                layer.share = share
        found: Tensor = self.net(self.scale * shown, noise_level, {**condition, **seen})
        return self._smoothed(found[:, : self.categories.width]) if self.smooth else found

    def _smoothed(self, logits: Tensor) -> Tensor:
        """Logits (B, width), those of bins mixed with their neighbours'."""
        blocks = list(logits.split(self.categories.sizes, 1))
        for token, kernel in self._kernels.items():
            blocks[token] = blocks[token] @ beside(kernel, logits)
        return torch.cat(blocks, 1)

    def seen(self, x: Tensor) -> Tensor:
        """Places, which numbers are known, half-waves of the places, and waves across them; places in bins if smooth.

        (B, width) -> (B, numbers).
        """
        with torch.autocast(x.device.type, enabled=False):  # a narrow type would blur the short waves
            inside, fine = self.categories.inside(x)
            place, there = self.categories.places(x, inside)
            half_waves = _waves(self.half_waves, place) * there[:, None, None]
            parts = [place, there, half_waves.flatten(1)]
            if self.frequencies is not None:
                parts.append(torch.addmm(self.phases, place, self.frequencies).sin())
            if self.smooth:
                parts += [inside, (_waves(_INSIDE, inside) * fine[:, None, None]).flatten(1)]
            return torch.cat(parts, 1)


def _waves(frequencies: Tensor, place: Tensor) -> Tensor:
    """Sines and cosines of places (B, columns) at each frequency: (B, frequencies, 2, columns)."""
    angles = beside(frequencies, place)[:, None] * place[:, None]
    return torch.stack([angles.sin(), angles.cos()], 2)


def classes_shown(categories: Categories) -> Tensor:
    """Which classes of a row's vector a smooth network sees as such: their indices, at least one, (N,) int64."""
    finer = {other: categories.within[token] for token, other in enumerate(categories.after) if other >= 0}
    found = []
    for token, count in enumerate(categories.placed):
        shown = torch.ones(categories.sizes[token], dtype=torch.bool)
        if count:
            single = torch.tensor((finer.get(token) or (0,) * count)[:count]) == 1
            # where most bins hold but one cell each, they are what numbers of this column are, and nothing special
            shown[:count] = single if 2 * int(single.sum()) <= count else False
        elif categories.along[token]:  # where in a bin a number lies
            shown[:] = False
        found.append(shown)
    which = torch.cat(found).nonzero().flatten()
    return which if len(which) else torch.zeros(1, dtype=torch.int64)  # a network needs an input, whichever


def _kernel(categories: Categories, token: int) -> Tensor:
    """(K, K), by which the logits of a token's bins are multiplied; logits of what has no place stay the same."""
    count = categories.placed[token]
    place = torch.tensor(categories.along[token][:count])
    near = (-((place[:, None] - place) ** 2) / (2 * _REACH**2)).exp()
    found = torch.eye(categories.sizes[token])
    found[:count, :count] = near / near.norm(dim=1, keepdim=True) + _OWN * torch.eye(count)
    return found


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
    # no smooth network is that old, and one may have more outputs than classes
    if placed.smooth or first not in weights or "net.inp.weight" not in own:
        return
    if len(weights[last[0]]) > width:
        weights.update({name: weights[name][:width] for name in last})
        # one number more says now that places are there, as they always are
        weights[first] = nn.functional.pad(
            weights[first], (0, own["net.inp.weight"].shape[1] - weights[first].shape[1])
        )
