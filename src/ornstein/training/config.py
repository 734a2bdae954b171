"""How long, how fast and how precisely to train: one frozen description, and the learning rate that follows from it.

The learning rate is a pure function of the step. It rises linearly over `warmup` steps, from lr / warmup at
the first step (never from zero, which would waste that step) to lr, and then follows one of the `DECAYS`. Adam's
second moment is an average over about 1 / (1 - beta2) steps, so its first steps are taken on a poor estimate of the
gradient's scale; the warm-up keeps them small (Ma & Yarats 2019, arXiv 1910.04209). Because nothing but the step
enters, a resumed run continues the schedule exactly, and a run may be made longer by resuming it with more steps
(cosine then follows the longer curve from there on).

Weight decay is AdamW's, decoupled from the gradient (Loshchilov & Hutter 2017, arXiv 1711.05101), and applies only to
matrices and convolution kernels: biases and the gains of normalisation layers, all one-dimensional, are left out, since
pulling a gain to zero switches its layer off rather than making it simpler.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ornstein.errors import InputError, lookup
from ornstein.training.ema import accepted
from ornstein.training.precision import AUTO, PRECISIONS
from ornstein.training.trackers import TRACKERS


def constant(step: int, warmup: int, steps: int) -> float:
    """The full rate until the end."""
    return 1.0


def cosine(step: int, warmup: int, steps: int) -> float:
    """Half a cosine from the full rate to almost zero at the end (Loshchilov & Hutter 2016, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def inverse_sqrt(step: int, warmup: int, steps: int) -> float:
    """One over the square root of the step, which needs no planned end (Vaswani et al. 2017, arXiv 1706.03762)."""
    return math.sqrt(max(warmup, 1) / (step + 1))


DECAYS: dict[str, Callable[[int, int, int], float]] = {
    "constant": constant,
    "cosine": cosine,
    "inverse-sqrt": inverse_sqrt,
}

SHARDS = {"none": "Distributed data parallel.", "fsdp": "Fully sharded data parallel, of the second kind."}

#: more than any machine has, fewer than any system refuses
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Training:
    """Everything about a training run that is neither the network, the loss nor the data.

    Arguments:
        steps: optimiser steps in all, counted from the run's first start.
        minutes: train as many steps as fit into this many minutes here, pictures included; None for no such limit. Time
            is measured before the first step and the result put into `steps`, so that the run can be continued: `fit`
            itself keeps no clock.
        batch_size: samples per optimiser step, over all pieces and all processes. `fit` takes batches as they come;
            this field is for the code that builds them.
        accumulate: pieces into which a batch is cut, over all processes together, to fit it into memory; rounded up to
            a multiple of the number of processes. The gradient is that of the whole batch. Noise and dropout belong to
            a piece, so runs with as many pieces are the same run, on however many processes.
        lr: learning rate after the warm-up.
        betas: decay rates of Adam's two moments, each in [0, 1).
        weight_decay: AdamW's, on matrices and convolution kernels only.
        warmup: steps over which the rate rises to `lr`. 0 starts at `lr`.
        decay: what the rate does afterwards: "constant", "cosine" (down to almost zero at the end) or "inverse-sqrt".
        clip: largest Euclidean norm of the whole gradient; a longer one is scaled down to it. None leaves it as it is.
        precision: type of matrix products and convolutions inside the loss: "float32", "bfloat16", "float16" (with loss
            scaling), or "auto" for the one that is measured to be fastest when training starts. Weights, moments and
            averages are always float32.
        compile: pass the network through `torch.compile`: about a minute of preparation, then faster steps on most
            GPUs.
        channels_last: lay images and kernels out with the channels innermost in memory, which convolutions prefer.
            Kernels that are sharded stay as they are.
        cpu: train on the CPU even if there is a GPU.
        threads: how many threads take a step on the CPU, from 1 to 1,024; "auto" for the number that is measured to be
            fastest during training, up to torch's own (see `ornstein.training.threads`). With a fixed number a run
            repeats bit for bit.
        shard: what several processes share besides the batch: "none" (each holds the whole network, DDP) or "fsdp"
            (each holds a part of weights, gradients, moments and averages). Without effect in one process.
        ema: lengths of the running averages of the weights, as the relative width sigma_rel of Karras et al. 2023,
            each in (0, 0.288]; 0.10 averages over about the last tenth of the run. Or the share that an average of
            constant rate keeps at each update, 1 - m in [0.5, 1): 0.9999 is the papers' "EMA 0.9999". May be empty.
        log_every: steps between two reports.
        validate_every: steps between two measurements of the held-out error, with pictures. (`fit` itself only yields a
            `Progress` at these steps; its reader measures.)
        checkpoint_every: steps between two checkpoints.
        keep: number of checkpoints kept; older ones are deleted.
        snapshot_every: steps between two half-precision snapshots of the averages, from which `reconstruct` makes an
            average of another length afterwards; ten or more make it accurate. 0 for none.
        trackers: experiment trackers that the log is sent to as well: any of "wandb", "mlflow" and "trackio", one name
            or a list. TensorBoard's files are always written. See `ornstein.training.trackers`.
        seed: seed of every random number in training.
        patience: training stops after so many steps in a row whose loss or gradient is not finite.

    Raises:
        InputError: a field out of its range.
    """

    steps: int = 10_000
    minutes: float | None = None
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 200
    decay: str = "constant"
    clip: float | None = 1.0
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = True
    cpu: bool = False
    threads: int | str = AUTO
    shard: str = "none"
    ema: tuple[float, ...] = (0.05, 0.10)
    log_every: int = 50
    validate_every: int = 500
    checkpoint_every: int = 1000
    keep: int = 2
    snapshot_every: int = 1000
    trackers: str | tuple[str, ...] = ()
    seed: int = 0
    patience: int = 10

    def __post_init__(self) -> None:
        if isinstance(self.trackers, str):
            object.__setattr__(self, "trackers", (self.trackers,))
        for name in ("betas", "ema", "trackers"):  # YAML knows lists alone
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        lookup(DECAYS, self.decay, "training.decay")
        lookup({AUTO: None, **PRECISIONS}, self.precision, "training.precision")
        lookup(SHARDS, self.shard, "training.shard")
        for tracker in self.trackers:
            lookup(TRACKERS, tracker, "training.trackers")
        for name in ("steps", "batch_size", "accumulate", "log_every", "validate_every", "checkpoint_every", "keep"):
            self._require(name, _whole(getattr(self, name), 1), "a whole number, at least 1")
        self._require("patience", _whole(self.patience, 1), "a whole number, at least 1")
        for name in ("warmup", "snapshot_every", "seed"):
            self._require(name, _whole(getattr(self, name), 0), "a whole number, at least 0")
        several = _whole(self.threads, 1) and self.threads <= _MOST_THREADS  # type: ignore[operator]
        self._require("threads", self.threads == AUTO or several, f"a whole number from 1 to {_MOST_THREADS:,} or auto")
        for name in ("compile", "channels_last", "cpu"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        if self.shard == "fsdp":
            self._require("compile", not self.compile, "false with training.shard='fsdp'")
            self._require("precision", self.precision != "float16", "float32 or bfloat16 with training.shard='fsdp'")
        self._require("lr", _real(self.lr) and self.lr > 0, "a number above 0")
        self._require("weight_decay", _real(self.weight_decay) and self.weight_decay >= 0, "a number, at least 0")
        minutes = self.minutes is None or (_real(self.minutes) and self.minutes > 0)
        self._require("minutes", minutes, "a number above 0, or null")
        self._require("clip", self.clip is None or (_real(self.clip) and self.clip > 0), "a number above 0, or null")
        two = isinstance(self.betas, tuple) and len(self.betas) == 2
        self._require("betas", two and all(_real(b) and 0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        given = isinstance(self.ema, tuple) and all(_real(s) for s in self.ema) and accepted(self.ema)
        self._require(
            "ema",
            given,
            "lengths in (0, 0.288] that differ in the first three decimals, or in [0.5, 1) what constant rates keep",
        )

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise InputError(f"training.{name}={getattr(self, name)!r} is not accepted; it must be {wanted}.")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def learning_rate(config: Training, step: int) -> float:
    """The rate of the step with index `step`, counted from 0. Above zero for every step of the run."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * DECAYS[config.decay](step, config.warmup, config.steps)
