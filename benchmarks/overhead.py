"""What the sampling loop costs beside the network: time of `sample` over the time of the bare network calls.

The bare calls hand the same network inputs of the same shape, noise level included, as often. The two are timed in
turn, many times over, and the median of the ratios of neighbouring runs is printed: what else a machine does then falls
on both. Everything of a run counts: the grid, the starting noise, the steps.

    python benchmarks/overhead.py [--small] [STEPPER ...]        --small leaves out the U-Net
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

import ornstein
from ornstein.core.denoiser import NetDenoiser
from ornstein.nets import NETS
from ornstein.samplers import stepper_named

#: network, shape of a batch, steps, runs, ratio at most
CASES = {
    "U-Net, 5 million, batch 8": (("unet", {"channels": 76}), (8, 1, 28, 28), 10, 5, 1.02),
    "MLP, 2-D, batch 4096": (("mlp", {}), (4096, 2), 50, 15, 1.04),
    "MLP, 2-D, batch 64": (("mlp", {}), (64, 2), 50, 60, 1.30),
}
STEPPERS = ("euler", "ddim", "dpm++2m", "multistep", "unipc", "heun", "dpm++2m-sde")


def call(net: torch.nn.Module, x: torch.Tensor, level: torch.Tensor, times: int) -> None:
    with torch.no_grad():
        for _ in range(times):
            net(x, level, None)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    names = [word for word in sys.argv[1:] if not word.startswith("--")] or STEPPERS
    for case, ((kind, options), shape, asked, runs, target) in CASES.items():
        if kind == "unet" and "--small" in sys.argv:
            continue
        net = NETS[kind](**options).build(shape[1:], classes=0, out_multiple=1, seed=0).eval()
        denoiser = NetDenoiser(net, ornstein.VP(), "v")
        x, level = torch.randn(shape), torch.full((shape[0],), 0.37)
        size = sum(p.numel() for p in net.parameters())
        print(f"{case}: {size / 1e6:.1f} million weights, {asked} calls; at most {target}")
        for name in names:
            stepper = stepper_named(name)
            steps = 1 + (asked - 1) // (stepper.calls or 1)
            calls = 1 + (steps - 1) * (stepper.calls or 1)

            bare = partial(call, net, x, level, calls)
            ours = partial(ornstein.sample, denoiser, shape, stepper=name, steps=steps, seed=0)
            bare(), ours()
            ratios, last = [], seconds(bare)
            for _ in range(runs):
                between, after = seconds(ours), seconds(bare)
                ratios.append(2 * between / (last + after))
                last = after
            print(
                f"  {name:<14}{statistics.median(ratios):7.3f}   {1e6 * last / calls:9.0f} us a bare call", flush=True
            )


if __name__ == "__main__":
    main()
