"""Other libraries of diffusion models, and this one, behind one interface: a training step, a network call, a sample.

Every entry of `PEERS` has a library's own network, its own training step with its own optimiser, loss, noise schedule
and average of weights, and its own samplers, put together as in its documentation; `Peer.source` says where. Only
widths and depths are changed, so that networks of different libraries have the same size: "colour", 32x32x3 with about
6 million parameters, and "grey", 28x28x1 with about 1.6 million. No network needs its input padded at these sizes. Two
choices are the same for all: none is given labels, and digits are never mirrored (several recipes mirror every image,
which turns digits into other signs). Images are passed as ready tensors in [-1, 1], which is less work than in the
libraries' own loaders; only this library reads its batches through its own data set.

    pip install torch==2.13.0 diffusers==0.42.1 denoising-diffusion-pytorch==2.3.4 azula==0.11.1 smalldiffusion==0.5.0
    pip install accelerate ema-pytorch torch-ema scikit-learn matplotlib tensorboard        # what they, and we, lean on
    pip install -e .

The scripts that use this file leave out libraries that are not installed. `NAME + bfloat16` is an entry whose network
runs under `torch.autocast`, the one-line change that a user would try first, and `NAME @ 64` one that trains with 64
images a step whatever its recipe says: several recipes were written for a GPU, with batches so large that minutes on a
CPU are only a few steps.

    python benchmarks/peers.py          every entry and its recipe
"""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import shutil
import sys
import tempfile
import types
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"  # before anything imports tqdm
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import common
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]

SHAPES: dict[str, Shape] = {"colour": (3, 32, 32), "grey": (1, 28, 28)}
BFLOAT16 = " + bfloat16"
#: after a sampler's name: draw with the weights as they are, not with their average
RAW = ", raw weights"
#: training steps come in multiples of this, the interval at which our own loop reports
BURST = 4


def without_torchvision() -> None:
    """Allow the import of libraries that import torchvision, if it is absent or built for another torch.

    They use it to read and write picture files, never on the tensors that are trained on or drawn.
    """
    try:
        import torchvision  # noqa: F401

        return
    except Exception:  # a torchvision of another torch raises RuntimeError
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]

    class StandIn(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args, **options: None

    root = StandIn("torchvision")
    for name in ("", ".transforms", ".transforms.functional", ".utils", ".datasets"):
        module = root if not name else StandIn("torchvision" + name)
        module.__spec__ = ModuleSpec(module.__name__, None, is_package=True)
        module.__path__ = []
        sys.modules[module.__name__] = module
        if name.count(".") == 1:
            setattr(root, name[1:], module)


class Peer(ABC):
    """One library's model for one shape, trained and drawn from as in its documentation.

    Attributes:
        package: its name on PyPI.
        source: where its documentation gives the recipe.
        recipe: the recipe, in words.
        net: the network alone.
        batch: images in an optimiser step of its recipe.
        flip: whether its recipe mirrors images left to right, if that makes sense for the data.
        samplers: which of its own samplers are tried, the documented one first.
        averages: whether its recipe draws with an average of the weights.
        parameters: how many the network has.
    """

    package: str
    source: str
    recipe: str
    net: nn.Module
    batch: int
    flip: bool = False
    samplers: Sequence[str] = ("",)
    averages: bool = True
    autocast: bool = False

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.package)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.net.parameters() if p.requires_grad)

    def precision(self) -> Any:
        """The context for every call of the network."""
        return torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()

    def plan(self, steps: int) -> None:  # noqa: B027  few have one
        """Set before the first step how many optimiser steps there will be, for a learning rate with an end."""

    def train(self, images: Tensor, steps: int) -> float:
        """Several optimiser steps on the same images (B, *shape) in [-1, 1]; returns the last loss."""
        loss = math.nan
        for _ in range(steps):
            loss = self.train_step(images)
        return loss

    @abstractmethod
    def network(self, x: Tensor) -> Tensor:
        """One call of the bare network on x (B, *shape) at some noise level, to be differentiated or counted."""

    @abstractmethod
    def train_step(self, images: Tensor) -> float:
        """One whole optimiser step, with the average of weights, on images (B, *shape) in [-1, 1]; its loss."""

    @abstractmethod
    def call(self, x: Tensor) -> None:
        """One call of the network, as in sampling."""

    @abstractmethod
    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        """Draw n images (n, *shape) in [-1, 1] in at most so many calls, by one of its samplers, with `RAW` or without;
        by the documented one if none is named."""


def parted(sampler: str) -> tuple[str, bool]:
    """A sampler's name, and whether it is to draw with the raw weights."""
    return sampler.removesuffix(RAW), sampler.endswith(RAW)


class Diffusers(Peer):
    """UNet2DModel with attention at the last but one resolution, as in its example of unconditional training."""

    package = "diffusers"
    source = "huggingface/diffusers: examples/unconditional_image_generation/train_unconditional.py and its README"
    recipe = (
        "DDPM of 1,000 linear betas predicting noise; AdamW lr 1e-4, betas (0.95, 0.999), decay 1e-6, clipped at 1; "
        "500 steps of warm-up, then cosine; EMA with power 3/4 up to 0.9999; batch 16; mirrored"
    )
    batch = 16
    flip = True
    samplers = ("ddim", "dpmsolver++", "unipc", "ddpm")

    def __init__(self, shape: Shape, size: str) -> None:
        super().__init__(shape)
        without_torchvision()
        from diffusers import DDPMScheduler, UNet2DModel
        from diffusers.training_utils import EMAModel

        self.net = UNet2DModel(
            sample_size=shape[1],
            in_channels=shape[0],
            out_channels=shape[0],
            layers_per_block=2,
            block_out_channels=(64, 128, 128) if size == "colour" else (32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )
        self.noise = DDPMScheduler(num_train_timesteps=1000)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
        self.ema = EMAModel(self.net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
        self.plan(1_000_000)

    def plan(self, steps: int) -> None:
        from diffusers.optimization import get_scheduler

        self.planned = steps
        self.schedule = get_scheduler("cosine", self.optimiser, num_warmup_steps=500, num_training_steps=steps)

    def network(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, torch.randint(0, 1000, (len(x),))).sample
        return found

    def train_step(self, images: Tensor) -> float:
        self.net.train()
        noise = torch.randn_like(images)
        t = torch.randint(0, 1000, (len(images),))
        noisy = self.noise.add_noise(images, noise, t)
        with self.precision():
            loss = F.mse_loss(self.net(noisy, t).sample.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        self.ema.step(self.net.parameters())
        return loss.item()

    @torch.no_grad()
    def call(self, x: Tensor) -> None:
        with self.precision():
            self.net(x, torch.tensor(500))

    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        from diffusers import (
            DDIMScheduler,
            DDPMPipeline,
            DDPMScheduler,
            DPMSolverMultistepScheduler,
            UniPCMultistepScheduler,
        )

        class UniPC(UniPCMultistepScheduler):  # type: ignore[misc]
            def step(self, *args: Any, generator: Any = None, **options: Any) -> Any:
                return super().step(*args, **options)  # the pipeline hands a generator to every scheduler

        kinds = {
            "ddim": DDIMScheduler,
            "dpmsolver++": DPMSolverMultistepScheduler,
            "unipc": UniPC,
            "ddpm": DDPMScheduler,
        }
        kind, raw = parted(sampler or "ddim")
        self.net.eval()
        self.ema.store(self.net.parameters())
        if not raw:
            self.ema.copy_to(self.net.parameters())
        pipeline = DDPMPipeline(self.net, kinds[kind].from_config(self.noise.config))
        pipeline.set_progress_bar_config(disable=True)
        with self.precision():
            drawn = pipeline(
                batch_size=n,
                generator=torch.Generator().manual_seed(seed),
                num_inference_steps=calls,
                output_type="np",
            ).images
        self.ema.restore(self.net.parameters())
        return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() * 2 - 1


class DenoisingDiffusion(Peer):
    """Unet and GaussianDiffusion, with the step of its Trainer."""

    package = "denoising-diffusion-pytorch"
    source = "lucidrains/denoising-diffusion-pytorch: README, Usage; defaults of Trainer and GaussianDiffusion"
    recipe = (
        "v of 1,000 sigmoid betas; flash attention; Adam lr 8e-5, betas (0.9, 0.99), clipped at 1; EMA 0.995 every 10 "
        "steps; batch 64 as twice 32; mirrored"
    )
    batch = 64
    flip = True
    samplers = ("ddim", "ddim eta=1")

    def __init__(self, shape: Shape, size: str) -> None:
        super().__init__(shape)
        without_torchvision()
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        width = 52 if size == "colour" else 24
        self.net = Unet(dim=width, dim_mults=(1, 2, 4), channels=shape[0], flash_attn=True)
        self.diffusion = GaussianDiffusion(self.net, image_size=shape[1], timesteps=1000, sampling_timesteps=250)
        self.optimiser = torch.optim.Adam(self.diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)

    def network(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, torch.randint(0, 1000, (len(x),)))
        return found

    def train_step(self, images: Tensor) -> float:
        self.diffusion.train()
        total, pieces = 0.0, images.split(32) if len(images) == self.batch else (images,)
        for piece in pieces:
            with self.precision():
                loss = self.diffusion((piece + 1) / 2) / len(pieces)
            total += loss.item()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.ema.update()
        return total

    @torch.inference_mode()
    def call(self, x: Tensor) -> None:
        with self.precision():
            self.net(x, torch.full((len(x),), 500))

    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        torch.manual_seed(seed)
        kind, raw = parted(sampler or "ddim")
        model = (self.diffusion if raw else self.ema.ema_model).eval()
        model.sampling_timesteps, model.is_ddim_sampling = calls, True
        model.ddim_sampling_eta = 1.0 if kind == "ddim eta=1" else 0.0
        with self.precision():
            found: Tensor = (model.sample(batch_size=n) * 2 - 1).float()
            return found


class Azula(Peer):
    """UNet with a modulated block, under KarrasDenoiser, as in its two tutorials."""

    package = "azula"
    samplers = ("ddim", "xeab", "zeab", "heun", "ddpm")

    def __init__(self, shape: Shape, size: str) -> None:
        super().__init__(shape)
        without_torchvision()
        from azula.denoise import KarrasDenoiser
        from azula.nn.layers import SineEncoding
        from azula.nn.unet import UNet
        from azula.noise import VPSchedule

        colour = size == "colour"
        common = "VP schedule under EDM's preconditioning and weights, times uniform; Adam"
        self.source = f"probabilists/azula: docs/tutorials/{'cifar10' if colour else 'mnist'}.ipynb"
        self.recipe = f"{common} lr 1e-4; EMA 0.999; batch 256; mirrored" if colour else f"{common} lr 3e-4; batch 64"
        self.batch, self.flip = (256, True) if colour else (64, False)
        self.averages = colour
        features = 256 if colour else 64

        class Backbone(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.unet = UNet(
                    in_channels=shape[0],
                    out_channels=shape[0],
                    hid_channels=(64, 128, 192) if colour else (32, 64, 96),
                    hid_blocks=(2, 2, 2),
                    mod_features=features,
                )
                self.time: nn.Module = nn.Sequential(nn.Linear(1, features), nn.SiLU(), nn.Linear(features, features))
                if colour:
                    self.time = SineEncoding(features)

            def forward(self, x: Tensor, t: Tensor) -> Tensor:
                found: Tensor = self.unet(x, self.time(t if colour else t[..., None]))
                return found

        self.net = Backbone()
        self.denoiser = KarrasDenoiser(backbone=self.net, schedule=VPSchedule())
        self.optimiser = torch.optim.Adam(self.denoiser.parameters(), lr=1e-4 if colour else 3e-4)
        self.averaged = None
        if colour:
            self.averaged = torch.optim.swa_utils.AveragedModel(
                self.denoiser, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
            )

    def network(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, torch.randn(len(x)))
        return found

    def train_step(self, images: Tensor) -> float:
        self.denoiser.train()
        with self.precision():
            loss = self.denoiser.loss(images, torch.rand(len(images)))
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.averaged is not None:
            self.averaged.update_parameters(self.denoiser)
        return float(loss.item())

    @torch.no_grad()
    def call(self, x: Tensor) -> None:
        with self.precision():
            self.denoiser(x, torch.tensor(0.5))

    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        from azula.sample import DDIMSampler, DDPMSampler, HeunSampler, xEABSampler, zEABSampler

        kinds = {
            "ddim": DDIMSampler,
            "xeab": xEABSampler,
            "zeab": zEABSampler,
            "heun": HeunSampler,
            "ddpm": DDPMSampler,
        }
        torch.manual_seed(seed)
        kind, raw = parted(sampler or "ddim")
        model = self.denoiser if self.averaged is None or raw else self.averaged.module
        steps = calls // 2 if kind == "heun" else calls
        walk = kinds[kind](model.eval(), steps=steps, silent=True)
        with self.precision():
            found: Tensor = walk(walk.init((n, *self.shape))).float()
            return found


class SmallDiffusion(Peer):
    """Its U-Net or its DiT, with the step of `training_loop` and torch_ema, as in its examples."""

    package = "smalldiffusion"
    samplers = ("accelerated", "ddim", "ddpm")

    def __init__(self, shape: Shape, size: str, transformer: bool = False) -> None:
        super().__init__(shape)
        without_torchvision()
        import smalldiffusion as small
        from torch_ema import ExponentialMovingAverage

        colour = size == "colour"
        if transformer:
            example, rate, decay, self.batch, self.gamma = "fashion_mnist_dit", 1e-3, 0.99, 1024, 1.6
            noises = "the schedule of DDPM"
            self.net = small.DiT(
                in_dim=shape[1],
                channels=shape[0],
                patch_size=2,
                depth=9 if colour else 5,
                head_dim=32,
                num_heads=6 if colour else 4,
            )
            self.schedule = self.drawn_by = small.ScheduleDDPM(N=1000)
        elif colour:
            example, rate, decay, self.batch, self.gamma = "cifar_unet", 2e-4, 0.9999, 256, 2.1
            noises = "sigmas of the sigmoid schedule, drawn on log-even ones from 35 to 0.01"
            self.net = small.Scaled(small.Unet)(32, 3, 3, ch=64, ch_mult=(1, 2, 2), attn_resolutions=(16,))
            self.schedule = small.ScheduleSigmoid(N=1000)
            self.drawn_by = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=35, N=1000)
        else:
            example, rate, decay, self.batch, self.gamma = "fashion_mnist_unet", 7e-4, 0.999, 1024, 1.6
            noises = "log-even sigmas from 0.01 to 20"
            self.net = small.Scaled(small.Unet)(28, 1, 1, ch=32, ch_mult=(1, 2, 2), attn_resolutions=(14,))
            self.schedule = self.drawn_by = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        self.flip = True
        self.source = f"yuanchenyang/smalldiffusion: examples/{example}.py"
        self.recipe = f"noise at {noises}; AdamW lr {rate:g}; EMA {decay}; batch {self.batch}; mirrored"
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate)
        self.ema = ExponentialMovingAverage(self.net.parameters(), decay=decay)

    def network(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, self.schedule.sample_batch(x).view(-1, 1, 1, 1))
        return found

    def train_step(self, images: Tensor) -> float:
        from smalldiffusion import generate_train_sample

        self.net.train()
        self.optimiser.zero_grad()
        x0, sigma, eps, _ = generate_train_sample(images, self.schedule)
        with self.precision():
            loss = self.net.get_loss(x0, sigma, eps)  # type: ignore[operator]
        loss.backward()
        self.optimiser.step()
        self.ema.update()
        return float(loss.item())

    @torch.no_grad()
    def call(self, x: Tensor) -> None:
        self.net.eval()
        with self.precision():
            self.net.predict_eps(x, torch.tensor(0.5))  # type: ignore[operator]

    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        from smalldiffusion import samples

        torch.manual_seed(seed)
        kind, raw = parted(sampler or "accelerated")
        gamma, mu = {"accelerated": (self.gamma, 0.0), "ddim": (1.0, 0.0), "ddpm": (1.0, 0.5)}[kind]
        x = torch.empty(0)
        with contextlib.nullcontext() if raw else self.ema.average_parameters(), self.precision():
            for x in samples(self.net, self.drawn_by.sample_sigmas(calls), gam=gamma, mu=mu, batchsize=n):  # noqa: B007
                pass
        return x.float()


class Ornstein(Peer):
    """This library: `ornstein train` with a preset without labels, and `ornstein sample` from the run folder.

    Args:
        words: a preset's name (or a YAML file) if it is not the usual one, and overrides, as on the command line:
            "mnist net.channels=48 training.precision=bfloat16".
    """

    package = "ornstein"
    averages = False  # its preset says which weights draw
    usual = {"colour": "cifar10", "grey": "mnist"}  # noqa: RUF012

    def __init__(self, shape: Shape, size: str, words: str = "") -> None:
        from ornstein.data import Affine
        from ornstein.experiment.build import build, build_stepper
        from ornstein.experiment.config import Experiment

        super().__init__(shape)
        named = [word for word in words.split() if "=" not in word]
        self.words = [word for word in words.split() if "=" in word]
        self.preset = named[0] if named else self.usual[size]
        self.read: Callable[..., Any] = lambda *more: Experiment.read(self.preset, [*self.words, *more])
        self.experiment = self.read()
        self.source = f"ornstein train {' '.join([self.preset, *self.words])}"
        self.recipe = "its preset"
        self.batch = self.experiment.training.batch_size
        self.net = build(self.experiment, {"shape": shape, "classes": (), "sigma_data": 0.5}, Affine()).net
        stepper = build_stepper(self.experiment.sampling.stepper)
        self.calls_a_step = stepper.calls or 1
        self.samplers = (self.experiment.sampling.stepper["name"],)
        self.folder = Path(tempfile.mkdtemp(prefix="ornstein-"))
        self.moments: Iterator[Any] | None = None
        self.moment: Any = None
        self.run: Any = None

    def begin(self, data: Any, **training: Any) -> None:
        """Start training on a `Dataset`, in a folder of its own; nothing is trained yet."""
        from ornstein.experiment.train import train

        self.close()
        never = 1_000_000_000
        usual = {"steps": never, "checkpoint_every": never, "validate_every": never, "snapshot_every": 0}
        self.experiment = self.read(*(f"training.{key}={value}" for key, value in {**usual, **training}.items()))
        self.moments = iter(train(self.experiment, self.folder, data))

    def advance(self) -> int:
        """Train until the loop reports; returns the number of steps since the beginning."""
        assert self.moments is not None
        self.moment, self.run = next(self.moments), None
        return int(self.moment.progress.step)

    def opened(self) -> Any:
        """The run as it is now, opened from its folder as `ornstein sample` does, in the precision of its preset."""
        from safetensors.torch import save_file

        from ornstein.experiment.run import Run

        if self.run is None:
            average = self.moment.progress.ema
            length = self.experiment.sampling.ema
            weights = average.state(length) if length else average.net.state_dict()
            weights = {name: tensor.detach().contiguous().clone() for name, tensor in weights.items()}
            save_file(weights, self.folder / (f"ema-{length:.3f}.safetensors" if length else "model.safetensors"))
            self.run = Run.load(self.folder).drawing()
        return self.run

    def close(self) -> None:
        self.moments = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def network(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x, torch.linspace(-2.0, 2.0, len(x)))
        return found

    def train(self, images: Tensor, steps: int) -> float:
        from ornstein.data import Dataset, WholeNumbers

        if self.moments is None:
            bytes_ = ((images + 1) * 127.5).round().to(torch.uint8)
            data = Dataset("handed over", bytes_, bytes_, {}, "image", WholeNumbers(256))
            self.begin(data, batch_size=len(images), log_every=BURST)
            self.advance()  # the loop reports its first step too
            while self.advance() % BURST:
                pass
        wanted = self.moment.progress.step + steps
        while self.advance() < wanted:
            pass
        return float(self.moment.progress.loss)

    def train_step(self, images: Tensor) -> float:
        raise NotImplementedError("our loop is a generator that reports now and then: ask `train` for several steps")

    @torch.no_grad()
    def call(self, x: Tensor) -> None:
        run = self.opened()
        process = run.denoiser.process
        run.denoiser(x, process.at(0.5 * process.t_max))

    def sample(self, n: int, calls: int, seed: int, sampler: str | None = None) -> Tensor:
        steps = 1 + (calls - 1) // self.calls_a_step
        found: Tensor = self.opened().sample(n, seed=seed, steps=steps).float() / 127.5 - 1
        return found


PEERS: dict[str, Callable[[Shape, str], Peer]] = {
    "diffusers": Diffusers,
    "denoising-diffusion-pytorch": DenoisingDiffusion,
    "azula": Azula,
    "smalldiffusion": SmallDiffusion,
    "smalldiffusion DiT": lambda shape, size: SmallDiffusion(shape, size, transformer=True),
}
#: this library's entry; a preset or overrides may follow after a colon
OURS = "ornstein"


def missing(name: str) -> str | None:
    """Why the library of an entry is not available here, or None."""
    if name.startswith(OURS):
        return None
    library = name.removesuffix(BFLOAT16).partition(" @ ")[0]
    if library not in PEERS:
        return f"{library!r} is no entry; there are {', '.join([OURS, *PEERS])}, each but the first also with{BFLOAT16}"
    package = library.removesuffix(" DiT")
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"pip install {package}"
    return None


def make(name: str, size: str) -> Peer:
    """The entry of a name at a size: "azula", "azula @ 64 + bfloat16", "ornstein", "ornstein: net.channels=48"."""
    warnings.filterwarnings("ignore")
    if name.startswith(OURS):
        return Ornstein(SHAPES[size], size, name.removeprefix(OURS).removeprefix(":"))
    library, _, batch = name.removesuffix(BFLOAT16).partition(" @ ")
    peer = PEERS[library](SHAPES[size], size)
    peer.autocast = name.endswith(BFLOAT16)
    peer.batch = int(batch) if batch else peer.batch
    return peer


def chosen(only: str | None, ours: Sequence[str], halves: bool) -> list[str]:
    """The entries to run: those of `--only`, comma-separated, or all, without libraries that are not installed.

    `ours` are the variants of this library's entry, "" for the preset as it is; `halves` adds the bfloat16 entries.
    """
    mine = [f"{OURS}: {words}" if words else OURS for words in ours or [""]]
    if only is not None:
        names = []
        for word in (word.strip() for word in only.split(",")):
            names += mine if word == OURS else [word]
    else:
        names = mine + [name + half for name in PEERS for half in (("", BFLOAT16) if halves else ("",))]
    kept = []
    for name in names:
        if reason := missing(name):
            print(f"{name} is left out: {reason}", flush=True)
        else:
            kept.append(name)
    return kept


if __name__ == "__main__":
    quick = common.arguments(__doc__, "grey pictures alone").parse_args().quick
    for size in ("grey",) if quick else SHAPES:
        for name in chosen(None, [], halves=False):
            try:
                peer = make(name, size)
            except Exception as error:
                print(f"{size:<7} {name}: {error}")
                continue
            print(f"{size:<7} {name} {peer.version}: {peer.parameters / 1e6:.2f} million parameters. {peer.recipe}")
            print(f"{'':<8}{peer.source}; samplers: {', '.join(peer.samplers)}")
