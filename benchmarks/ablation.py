"""What each choice gives to the speed of a training step: one thing changed at a time, on one machine in one run.

A step is forward, backward, clipping, fused AdamW and one average of the weights, of the network of a preset on noise.
Variants take turns; given are medians, and the rate of useful arithmetic (counted forward and backward, float32).

    python benchmarks/ablation.py [cifar10|mnist] [batch]
    python benchmarks/ablation.py operations                   single operations, in both layouts of memory
"""

import statistics
import sys
import time
from collections.abc import Callable

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
        self, preset: str, batch: int, *, half: bool, innermost: bool, own: bool, compiled: bool = False,
        fused: bool = True,
    ) -> None:  # fmt: skip
        shape = SHAPES[preset]
        self.net = build(Experiment.read(preset), {"shape": shape, "classes": (), "sigma_data": 0.5}, Affine()).net
        self.half, self.norm = half, OURS if own else torchs if innermost else contiguous
        self.into = unet._into_channels if innermost else (lambda x, patch: F.pixel_unshuffle(x, patch))
        if innermost:
            self.net.to(memory_format=torch.channels_last)
        self.x, self.y = torch.randn(batch, *shape), torch.randn(batch, *shape)
        self.level = torch.linspace(-2, 2, batch)
        self.call = torch.compile(self.net) if compiled else self.net
        self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=fused, foreach=False if not fused else None)
        self.average = [p.detach().clone() for p in self.parameters]
        self.fused = fused

    def arithmetic(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.net(self.x, self.level, None).sum().backward()
        return counter.get_total_flops()

    def __call__(self) -> None:
        for module in (unet, attention):
            module.group_norm = self.norm
        unet._into_channels = self.into
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            out = self.call(self.x, self.level, None)
        (out.float() - self.y).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            if self.fused:
                torch._foreach_lerp_(self.average, self.parameters, 0.01)
            else:
                for average, parameter in zip(self.average, self.parameters, strict=True):
                    average.lerp_(parameter, 0.01)


def operations() -> None:
    """Milliseconds of single operations on 32 x 128 x 16 x 16 in bfloat16, forward and backward, at best."""
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
    print("| operation | channels outermost | innermost |\n|---|---:|---:|")
    for name, function in known.items():
        cells = []
        for layout in (torch.contiguous_format, torch.channels_last):
            if isinstance(function, torch.nn.Module):
                function.to(memory_format=layout)
            x = torch.randn(32, channels, 16, 16).bfloat16().to(memory_format=layout).requires_grad_()
            gradient = torch.randn_like(function(x))
            taken = []
            for _ in range(20):
                began = time.perf_counter()
                function(x).backward(gradient)
                taken.append(time.perf_counter() - began)
            cells.append(f"{1e3 * min(taken):.2f}")
        print(f"| {name} | {cells[0]} | {cells[1]} |")


def main() -> None:
    keep_freed_memory()
    if sys.argv[1:] == ["operations"]:
        operations()
        return
    preset = sys.argv[1] if len(sys.argv) > 1 else "cifar10"
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else Experiment.read(preset).training.batch_size
    best = {"half": True, "innermost": True, "own": True}
    variants: dict[str, Callable[[], Step]] = {
        "all of it": lambda: Step(preset, batch, **best),
        "float32": lambda: Step(preset, batch, **{**best, "half": False}),
        "torch's group norm, channels innermost": lambda: Step(preset, batch, **{**best, "own": False}),
        "torch's group norm, channels outermost": lambda: Step(preset, batch, half=True, innermost=False, own=False),
        "optimiser and average weight by weight": lambda: Step(preset, batch, **best, fused=False),
        "with torch.compile": lambda: Step(preset, batch, **best, compiled=True),
        "none of it": lambda: Step(preset, batch, half=False, innermost=False, own=False, fused=False),
    }
    steps = {name: make() for name, make in variants.items()}
    work = steps["all of it"].arithmetic()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for attempt in range(ROUNDS + 2):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if attempt > 1:
                seconds[name].append(time.perf_counter() - began)
    print(f"{preset}, batch {batch}, {work / 1e9:.1f} GFLOP a step, {torch.get_num_threads()} threads\n")
    print("| variant | ms a step | GFLOP/s | time over that of all |\n|---|---:|---:|---:|")
    whole = statistics.median(seconds["all of it"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"| {name} | {1e3 * median:.0f} | {work / median / 1e9:.0f} | {median / whole:.2f} |")


if __name__ == "__main__":
    main()
