"""How much each choice adds to the speed of a training step: one change at a time, on one machine in one run.

A step is forward, backward, clipping, fused AdamW and one average of the weights, for a preset's network on noise.
Variants take turns; the table has medians, and the rate of useful arithmetic (counted forward and backward, float32).

    python benchmarks/ablation.py [cifar10|mnist] [batch] [--quick]
    python benchmarks/ablation.py operations                   single operations, in both layouts of memory
"""

import statistics
from collections.abc import Callable
from functools import partial

import common
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ornstein.data import Affine
from ornstein.experiment.build import build
from ornstein.experiment.config import Experiment
from ornstein.memory import keep_freed_memory
from ornstein.nets import attention, norm, unet

SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}
OURS = norm.group_norm
ROUNDS = 8


def torchs(x: Tensor, scale: Tensor, shift: Tensor, silu: bool = False) -> Tensor:
    """Group norm by torch's own operations, in whatever layout x has."""
    space = (..., *[None] * (x.dim() - 2))
    y = F.group_norm(x, norm.groups_of(x.shape[1])) * scale[space] + shift[space]
    return (F.silu(y) if silu else y).to(x.dtype)


def contiguous(x: Tensor, scale: Tensor, shift: Tensor, silu: bool = False) -> Tensor:
    return torchs(x.contiguous(), scale, shift, silu)


class Step:
    def __init__(
        self, asked: Experiment, shape: tuple[int, ...], batch: int, *, half: bool, innermost: bool, own: bool,
        compiled: bool = False, fused: bool = True,
    ) -> None:  # fmt: skip
        self.net = build(asked, {"shape": shape, "classes": (), "sigma_data": 0.5}, Affine()).net
        self.half, self.norm = half, OURS if own else torchs if innermost else contiguous
        self.into = unet._into_channels if innermost else (lambda x, patch: F.pixel_unshuffle(x, patch))
        if innermost:
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.x, self.y = torch.randn(batch, *shape), torch.randn(batch, *shape)
        self.level = torch.linspace(-2, 2, batch)
        self.call = torch.compile(self.net) if compiled else self.net
        self.parameters: list[Tensor] = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=fused, foreach=False if not fused else None)
        self.average = [p.detach().clone() for p in self.parameters]
        self.fused = fused

    def arithmetic(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.net(self.x, self.level).sum().backward()
        return int(counter.get_total_flops())

    def __call__(self) -> None:
        for module in (unet, attention):
            module.group_norm = self.norm  # type: ignore[attr-defined]
        unet._into_channels = self.into
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            out = self.call(self.x, self.level)
        (out.float() - self.y).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            if self.fused:
                torch._foreach_lerp_(self.average, self.parameters, 0.01)
            else:
                for average, parameter in zip(self.average, self.parameters, strict=True):
                    average.lerp_(parameter, 0.01)


def operations(times: int) -> None:
    """Milliseconds of operations on 32 x 128 x 16 x 16 in bfloat16, forward and backward, the best of many runs."""
    channels = 128
    scale, shift = torch.ones(channels), torch.zeros(channels)
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "3x3 convolution": torch.nn.Conv2d(channels, channels, 3, padding=1).bfloat16(),
        "1x1 convolution": torch.nn.Conv2d(channels, channels, 1).bfloat16(),
        "halving": lambda x: F.avg_pool2d(x, 2),
        "doubling": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        "torch's group norm": lambda x: F.group_norm(x, 32, scale.bfloat16(), shift.bfloat16()),
        "torch's group norm and SiLU": lambda x: F.silu(F.group_norm(x, 32, scale.bfloat16(), shift.bfloat16())),
        "ours, with SiLU": lambda x: OURS(x, scale, shift, silu=True),
    }
    print(common.heading("operation", "channels outermost", "innermost"))
    for name, function in known.items():
        cells = []
        for layout in (torch.contiguous_format, torch.channels_last):
            if isinstance(function, torch.nn.Module):
                function.to(memory_format=layout)  # type: ignore[call-overload]
            x = torch.randn(32, channels, 16, 16).bfloat16().to(memory_format=layout).requires_grad_()
            gradient = torch.randn_like(function(x))
            best = min(common.seconds(lambda: function(x).backward(gradient)) for _ in range(times))  # noqa: B023
            cells.append(f"{1e3 * best:.2f}")
        print(common.row(name, *cells))


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("preset", nargs="?", default="cifar10", choices=[*SHAPES, "operations"])
    parser.add_argument("batch", nargs="?", type=int)
    given = parser.parse_args()
    keep_freed_memory()
    if given.preset == "operations":
        operations(1 if given.quick else 20)
        return
    preset, asked = given.preset, Experiment.read(given.preset, ["net.channels=16"] if given.quick else [])
    batch = given.batch or (2 if given.quick else asked.training.batch_size)
    make = partial(Step, asked, SHAPES[preset], batch)
    best = {"half": True, "innermost": True, "own": True}
    variants: dict[str, Callable[[], Step]] = {
        "all of it": lambda: make(**best),
        "float32": lambda: make(**{**best, "half": False}),
        "torch's group norm, channels innermost": lambda: make(**{**best, "own": False}),
        "torch's group norm, channels outermost": lambda: make(half=True, innermost=False, own=False),
        "optimiser and average weight by weight": lambda: make(**best, fused=False),
        "with torch.compile": lambda: make(**best, compiled=True),
        "none of it": lambda: make(half=False, innermost=False, own=False, fused=False),
    }
    if given.quick:
        del variants["with torch.compile"]  # a minute of compiling
    steps = {name: variant() for name, variant in variants.items()}
    work = steps["all of it"].arithmetic()
    seconds = common.in_turn(steps, 1 if given.quick else ROUNDS, warm=2)
    print(f"{preset}, batch {batch}, {work / 1e9:.1f} GFLOP a step, {torch.get_num_threads()} threads\n")
    print(common.heading("variant", "ms a step", "GFLOP/s", "time over that of all"))
    whole = statistics.median(seconds["all of it"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(common.row(name, f"{1e3 * median:.0f}", f"{work / median / 1e9:.0f}", f"{median / whole:.2f}"))


if __name__ == "__main__":
    main()
