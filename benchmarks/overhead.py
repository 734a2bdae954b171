"""What the sampling loop costs in addition to the network: time of `sample` over the time of the bare network calls.

The bare calls give the same network inputs of the same shape, including the noise level, the same number of times. The
two are timed in turn, many times over, and the median ratio of neighbouring runs is printed, so that the machine's
other work affects both. Everything in a run counts: the grid, the starting noise, the steps.

Other libraries' loops are timed in the same run, around the same network: diffusers' schedulers as its pipelines call
them, and k-diffusion's samplers; the conversion of the network's output to the form that they need is left out for
them. A library that is not installed is left out.

    python benchmarks/overhead.py [--small] [--quick] [STEPPER ...]

--small leaves out the U-Net; so does --quick, which times everything twice.
"""

import importlib.util
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import common
import frontier
import torch

import ornstein
from ornstein.core.denoiser import NetDenoiser
from ornstein.nets import NETS
from ornstein.samplers import stepper_named

#: network, shape of a batch, steps, runs, largest ratio allowed
CASES = {
    "U-Net, 5 million, batch 16": (("unet", {"channels": 76}), (16, 1, 28, 28), 10, 5, 1.02),
    "MLP, 2-D, batch 4096": (("mlp", {}), (4096, 2), 50, 15, 1.04),
    "MLP, 2-D, batch 64": (("mlp", {}), (64, 2), 50, 60, 1.30),
}
STEPPERS = ("euler", "ddim", "dpm++2m", "multistep", "unipc", "heun", "dpm++2m-sde")


def call(net: torch.nn.Module, x: torch.Tensor, level: torch.Tensor, times: int) -> None:
    with torch.no_grad():
        for _ in range(times):
            net(x, level)


def diffusers(net: torch.nn.Module, x: torch.Tensor, level: torch.Tensor, steps: int) -> Iterator[tuple[str, Any]]:
    """Its schedulers, stepped as its pipelines do."""
    import diffusers

    makers = {
        "DDIM": diffusers.DDIMScheduler,
        "Euler": diffusers.EulerDiscreteScheduler,
        "DPM-Solver++ 2M": diffusers.DPMSolverMultistepScheduler,
        "UniPC": diffusers.UniPCMultistepScheduler,
        "DEIS": diffusers.DEISMultistepScheduler,
    }

    def run(scheduler: Any) -> None:
        scheduler.set_timesteps(steps)
        state = torch.randn_like(x) * scheduler.init_noise_sigma
        with torch.no_grad():
            for t in scheduler.timesteps:
                state = scheduler.step(net(scheduler.scale_model_input(state, t), level), t, state).prev_sample

    for name, maker in makers.items():
        yield f"diffusers {name}", partial(run, maker())


def k_diffusion(net: torch.nn.Module, x: torch.Tensor, level: torch.Tensor, steps: int) -> Iterator[tuple[str, Any]]:
    """Its samplers on Karras' grid."""
    sampling = frontier.k_diffusion_sampling()

    def model(state: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = net(state, level)
        return out

    def run(sampler: Any) -> None:
        with torch.no_grad():
            sigmas = sampling.get_sigmas_karras(steps, 0.002, 80.0)
            sampler(model, 80 * torch.randn_like(x), sigmas, disable=True)

    for name in ("sample_euler", "sample_dpmpp_2m", "sample_lms"):
        yield f"k-diffusion {name.removeprefix('sample_')}", partial(run, getattr(sampling, name))


PEERS = {"diffusers": diffusers, "k_diffusion": k_diffusion}


def main() -> None:
    torch.set_num_threads(1)
    parser = common.arguments(__doc__)
    parser.add_argument("--small", action="store_true", help="without the U-Net")
    parser.add_argument("steppers", nargs="*", default=STEPPERS, metavar="STEPPER")
    given = parser.parse_args()
    names = given.steppers
    peers = [peer for module, peer in PEERS.items() if importlib.util.find_spec(module) is not None]
    for case, ((kind, options), shape, asked, runs, target) in CASES.items():
        if kind == "unet" and (given.small or given.quick):
            continue
        net = NETS[kind](**options).build(shape[1:], seed=0).eval()
        denoiser = NetDenoiser(net, ornstein.VP(), "v")
        x, level = torch.randn(shape), torch.full((shape[0],), 0.37)
        size = sum(p.numel() for p in net.parameters())
        print(f"{case}: {size / 1e6:.1f} million weights, {asked} calls; at most {target}")
        entries = []
        for name in names:
            stepper = stepper_named(name)
            steps = 1 + (asked - 1) // (stepper.calls or 1)
            calls = 1 + (steps - 1) * (stepper.calls or 1)
            entries.append((name, partial(ornstein.sample, denoiser, shape, stepper=name, steps=steps, seed=0), calls))
        for peer in peers:
            entries += [(name, run, asked) for name, run in peer(net, x, level, asked)]
        for name, run, calls in entries:
            bare = partial(call, net, x, level, calls)
            bare(), run()
            ratios, last = [], common.seconds(bare)
            for _ in range(2 if given.quick else runs):
                between, after = common.seconds(run), common.seconds(bare)
                ratios.append(2 * between / (last + after))
                last = after
            print(
                f"  {name:<26}{statistics.median(ratios):7.3f}   {1e6 * last / calls:9.0f} us a bare call", flush=True
            )


if __name__ == "__main__":
    main()
