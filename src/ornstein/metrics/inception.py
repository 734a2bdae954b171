"""Inception-v3 as FID uses it: the features in which the literature measures photographs.

The "FID" and "KID" of papers (Heusel et al. 2017, 1706.08500; Bińkowski et al. 2018, 1801.01401) are the Fréchet and
the kernel distance in 2,048 features of one particular network with one particular set of weights: TensorFlow's
Inception of December 2015. The weights are no part of ornstein. Whoever has them as PyTorch's plain tensors, in the
file that pytorch-fid calls `pt_inception-2015-12-05-6726825d.pth`, gives that file (`ornstein evaluate --inception`).

    x in [-1, 1] -> 299x299 -> five convolutions -> eleven blocks of parallel branches -> mean over places

Each convolution is followed by a normalisation, which is folded into it, and by max(., 0). Three things differ from the
Inception of textbooks, and all of them move the features: means over 3x3 places count only those inside the picture;
the last block takes a maximum where the others take that mean; and pictures are resized by plain bilinear
interpolation, without a filter against aliasing, as pytorch-fid does.

FID depends on how many samples there are, since it is biased upwards: papers take 50,000. Compare it only with an FID
of equally many samples and real examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError
from ornstein.metrics.lite import Layer, folded, in_colour

#: what the features are called in reports, and the file of the weights
NAME, FILE = "inception", "pt_inception-2015-12-05-6726825d.pth"
_SIDE, _AT_ONCE, _CLASSES = 299, 32, 1008
#: convolutions before the blocks: name, stride, whether they keep the side; and after which a maximum halves it
_STEM = (
    ("Conv2d_1a_3x3", 2, False), ("Conv2d_2a_3x3", 1, False), ("Conv2d_2b_3x3", 1, True),
    ("Conv2d_3b_1x1", 1, True), ("Conv2d_4a_3x3", 1, False),
)  # fmt: skip
_HALVED = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
#: one branch of a block: convolutions one after another; a tuple stands side by side on what came before
Branch = Sequence[str | tuple[str, ...]]


def _chain(name: str, last: int) -> Branch:
    return [f"{name}_{i}" for i in range(1, last + 1)]


_A: list[Branch] = [["branch1x1"], _chain("branch5x5", 2), _chain("branch3x3dbl", 3)]
_C: list[Branch] = [["branch1x1"], _chain("branch7x7", 3), _chain("branch7x7dbl", 5)]
_E: list[Branch] = [
    ["branch1x1"],
    ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")],
    ["branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")],
]
_BLOCKS: dict[str, Sequence[Branch]] = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), _A),
    "Mixed_6a": [["branch3x3"], _chain("branch3x3dbl", 3)],
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), _C),
    "Mixed_7a": [_chain("branch3x3", 2), _chain("branch7x7x3", 4)],
    **dict.fromkeys(("Mixed_7b", "Mixed_7c"), _E),
}
#: those that halve the side: their last convolutions have a stride of 2, and beside them stands a bare maximum
_HALVING = ("Mixed_6a", "Mixed_7a")
#: the block that takes a maximum where the others take a mean
_OF_MAXIMA = "Mixed_7c"


@dataclass(frozen=True, eq=False)
class Network:
    """The network's convolutions by name, as "Mixed_5b.branch1x1", each with its normalisation."""

    layers: Mapping[str, Layer]

    @classmethod
    def of(cls, kept: Any, said: str = "inception") -> "Network":
        """Made of weights, given by their names in the file.

        Raises:
            InputError: they are not those of FID's network; `said` is what they are called.
        """
        classes = kept.get("fc.weight") if isinstance(kept, dict) else None
        if not isinstance(classes, Tensor) or classes.shape != (_CLASSES, 2048):
            raise InputError(
                f"{said} has other weights than those of FID, which tell {_CLASSES:,} classes by 2,048 features; give "
                f"{FILE}."
            )
        names = [name.removesuffix(".conv.weight") for name in kept if name.endswith(".conv.weight")]
        wanted = {*(name for name, _, _ in _STEM), *(f"{block}.{name}" for block in _BLOCKS for name in _names(block))}
        if lacking := sorted(wanted - set(names)):
            raise InputError(f"{said} lacks weights of FID's network, among them {lacking[0]}.")
        return cls({name: folded(kept, f"{name}.conv", f"{name}.bn") for name in wanted})

    def to(self, device: torch.device) -> "Network":
        """The same on a device."""
        return Network({name: (kernel.to(device), bias.to(device)) for name, (kernel, bias) in self.layers.items()})

    def features(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1], grey, RGB or RGBA -> (B, 2048)."""
        x = F.interpolate(in_colour(x), size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
        return self.seen(x).mean((2, 3))

    def seen(self, x: Tensor) -> Tensor:
        """The last grid (B, 2048, h, w) of RGB pictures (B, 3, H, W) in [-1, 1] at their own size, at least 75."""
        for name, stride, keeps in _STEM:
            x = self._layer(x, name, stride, keeps)
            if name in _HALVED:
                x = F.max_pool2d(x, 3, 2)
        for block, branches in _BLOCKS.items():
            x = torch.cat([*(self._branch(x, block, branch) for branch in branches), self._pooled(x, block)], 1)
        return x

    def _layer(self, x: Tensor, name: str, stride: int = 1, keeps: bool = True) -> Tensor:
        kernel, bias = self.layers[name]
        sides = [side // 2 if keeps else 0 for side in kernel.shape[2:]]
        return F.relu(F.conv2d(x, kernel, bias, stride, sides))

    def _branch(self, x: Tensor, block: str, branch: Branch) -> Tensor:
        *before, last = branch
        for name in before:
            x = self._layer(x, f"{block}.{name}")
        if isinstance(last, tuple):
            return torch.cat([self._layer(x, f"{block}.{name}") for name in last], 1)
        halves = block in _HALVING
        return self._layer(x, f"{block}.{last}", stride=1 + halves, keeps=not halves)

    def _pooled(self, x: Tensor, block: str) -> Tensor:
        if block in _HALVING:
            return F.max_pool2d(x, 3, 2)
        largest = block == _OF_MAXIMA
        x = F.max_pool2d(x, 3, 1, 1) if largest else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return self._layer(x, f"{block}.branch_pool")


def _names(block: str) -> list[str]:
    """The convolutions of a block."""
    parts = [part for branch in _BLOCKS[block] for part in branch]
    each = [name for part in parts for name in ([part] if isinstance(part, str) else part)]
    return each if block in _HALVING else [*each, "branch_pool"]


def features(network: Network, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What the network sees in pictures (N, C, H, W) in [-1, 1]: (N, 2048), on their device."""
    there = network.to(device)

    @torch.inference_mode()
    def features(x: Tensor) -> Tensor:
        return torch.cat([there.features(part.float().to(device)) for part in x.split(_AT_ONCE)]).to(x.device).clone()

    return features
