"""The training loop, as a generator: it trains, and whoever reads it draws pictures in between.

    for progress in fit(net, loss, batches, Training(steps=3000), "runs/digits"):
        print(progress.step, progress.loss)

*Every random stream is a pure function of the seed and the step.* Step k draws from generators seeded with a hash of
(seed, k, piece), where the pieces of a batch are numbered across processes, and trains on `batches(k)`; dropout, which
only knows torch's global generator, finds it seeded in the same way for as long as the piece lasts, and as it was
before afterwards. Nothing random is ever stored: weights, averages, moments and the step number are the whole state,
which is why a run that was killed continues bit for bit on the CPU. (On the CPU torch seeds its Mersenne twister with
32 bits, so among a million steps a hundred pairs are expected to share their noise, on different data.)

*Processes are pieces.* A batch is cut into pieces; one process takes them one after another, two take half of them
each, and nothing else differs: a piece has its rows, its number, and the noise that belongs to the number. So one run
on one process and on several is the same run up to the order in which sums are rounded, and a checkpoint, which says
nothing of processes, is continued by any number of them. Several average their gradients while the backward pass still
runs (DistributedDataParallel; Li et al. 2020, arXiv 2006.15704) or keep only a part each of weights, gradients, moments
and averages (fully_shard; Rajbhandari et al. 2019, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277). A loss that
draws evenly spread numbers, one in each n-th of (0, 1), wants them spread over the whole batch: a `Piece` tells it
which of the n parts are its own.

*A GPU is never waited for within a step.* The host queues forward and backward of step k + 1 and only then looks at the
four numbers that came out of step k (loss, gradient norm, whether all was finite, whether to stop), which were on their
way to it all along. The work on step k that needs them, its running averages and its report, is done there, before the
optimiser moves the weights again. So the host is never more than one step ahead, and the device never without work.

*A loss may remember*, such as Markov chains that go on from step to step: tensors in a mapping of names, `memory`, that
it reads and changes in place. They are part of the state: saved, restored and, after a step that was not finite, put
back like a network's buffers. They belong to one process, so several processes refuse them.

*A loss or gradient that is not finite changes nothing.* Whether a step is good is decided on the device from the loss
and the norm of the gradient (one number is enough: any NaN or infinity makes it NaN or infinite) and handed to the
fused AdamW as `found_inf`, the flag that loss scaling uses: the kernel then leaves weights, moments and its own step
count alone. Buffers such as a batch norm's statistics are put back. The averages do not count the step. Mixed precision
follows Micikevicius et al. 2017 (arXiv 1710.03740).
"""

import hashlib
import json
import math
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks
from ornstein._version import __version__
from ornstein.errors import InputError
from ornstein.memory import keep_freed_memory
from ornstein.training import checkpoint
from ornstein.training.config import Training, learning_rate
from ornstein.training.ema import PowerEMA, snapshot, snapshots
from ornstein.training.precision import AUTO, half, quickest_training

Batch = Any
Loss = Callable[[Any, Batch, torch.Generator], Tensor]


class Piece(torch.Generator):
    """The generator of one piece of a batch, which knows which piece it is.

    Attributes:
        piece: (number of this piece, number of pieces, samples in all of them). Pieces are as even as can be, the
            larger ones first, so that piece i of k has as many samples as there are numbers i, i + k, i + 2k, ...
    """

    piece: tuple[int, int, int]


class Diverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


@dataclass(frozen=True)
class Progress:
    """Where training stands between two steps.

    Arguments:
        step: optimiser steps taken, counted from the run's first start.
        steps: optimiser steps planned.
        loss: mean loss per sample over the good steps since the previous `Progress`; NaN if there was none.
        grad_norm: mean Euclidean norm of the gradient before clipping, over the same steps.
        lr: learning rate of the last step.
        rate: steps per second since the previous `Progress`, without the reader's own time; 0 where no step was taken.
        skipped: steps whose update was skipped since the run's first start, because something was not finite.
        warnings: one sentence on each thing that went wrong since the previous `Progress`.
        ema: the running averages, for `ema.copy_to(a_deep_copy_of_net, length)`. Live: read them before going on.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    lr: float
    rate: float
    skipped: int
    warnings: tuple[str, ...]
    ema: PowerEMA = field(repr=False, compare=False)

    @property
    def remaining(self) -> float:
        """Seconds until the last step at the present rate, without the reader's own time; infinite if unknown."""
        return (self.steps - self.step) / self.rate if self.rate > 0 else math.inf


def fit(
    net: nn.Module,
    loss: Loss,
    batches: Callable[[int], Batch],
    config: Training,
    folder: str | Path,
    *,
    describe: Callable[[Batch, torch.Generator], str] | None = None,
    resume: bool = False,
    meta: Mapping[str, Any] | None = None,
    memory: dict[str, Tensor] | None = None,
) -> Iterator[Progress]:
    """Train `net` in place, keeping checkpoints in `folder`.

    A `Progress` comes after the first step, after every `log_every`-th and `validate_every`-th and after the last. A
    resumed run starts by giving once more the one of the step that it resumes from, if that step has one, since the
    reader may have died over it; resuming a finished run gives that one only.

    Between two of them the state is the reader's: torch's global generator and Ctrl-C are as they were before, and a
    network left in evaluation mode is put back into training. Closing the generator there (`close()`, or leaving a loop
    that alone holds it) saves a checkpoint. Ctrl-C while training finishes the step, saves and raises
    KeyboardInterrupt; a second one does not wait.

    Of several processes (`torchrun`) each calls this with the same arguments, and each gets every `Progress`; they
    agree on the step after which to stop, so that Ctrl-C between two `Progress` waits for the next step too. Only the
    first writes. Closing the generator saves unless the network is sharded, since then no process could on its own.

    Arguments:
        net: moved to the device of the run and trained there.
        loss: `(net, batch, generator) -> (B,)`, the loss of each sample. It calls the `net` that it is given, which is
            the one above, compiled if so configured, and draws from `generator` alone.
        batches: step index, from 0 -> batch: a tensor or a nest of tuples, lists and dicts of them, whose first
            dimension is the sample. A pure function: the same index gives the same batch.
        config: how to train.
        folder: the run folder; made if it is not there.
        describe: `(batch, generator) -> str`, in words what a non-finite step was about, such as the range of its noise
            levels. It is given the piece of the batch, and a generator in the state that the loss found.
        resume: continue the run in `folder`. Without a checkpoint in it, which is how a run looks that died early,
            training starts from the beginning and says so in the first `warnings`.
        memory: tensors that the loss reads here and changes in place, see the module; moved to the device of the run.
        meta: facts that must be the same to continue, such as the data's fingerprint; JSON. Kept in state.json.

    Raises:
        InputError: there is a run in `folder` and `resume` is not set; the checkpoint is damaged, newer or of another
            network; the loss has the wrong shape; the disk is full.
        Diverged: `config.patience` steps in a row were not finite. Nothing is saved over the last checkpoint.
    """
    run = _Run(net, loss, batches, config, Path(folder), describe, meta, memory or {})
    with run.interruptible() if run.several else nullcontext():
        yield from _trained(run, config, resume)


def _trained(run: "_Run", config: Training, resume: bool) -> Iterator[Progress]:
    if run.begin(resume):
        yield from run.report()
    while run.step < config.steps:
        with nullcontext() if run.several else run.interruptible():
            while True:
                run.advance()
                due = run.due()
                if run.stopping():
                    run.save()
                    raise KeyboardInterrupt
                if config.snapshot_every and run.step % config.snapshot_every == 0:
                    run.snapshot()
                if run.step % config.checkpoint_every == 0 or run.step == config.steps:
                    run.save()
                if due:
                    break
        yield from run.report()


class _PerSample(nn.Module):
    """The network and its loss as one module: what is spread over processes and what autocast covers."""

    def __init__(self, net: nn.Module, loss: Loss, config: Training, device: torch.device):
        super().__init__()
        self.net = net
        self._called = [torch.compile(net) if config.compile else net]  # in a list, so as not to be registered twice
        self._loss = loss
        self._device = device
        self._precision = config.precision

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        with half(self._device, self._precision):
            values = self._loss(self._called[0], batch, generator)
        return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass
class _Window:
    """Sums over the good steps since the last `Progress`; kept in checkpoints, so that logs do not depend on deaths."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Outcome:
    """A step whose numbers are on their way from the device."""

    step: int
    numbers: Tensor  # loss, gradient norm, not finite, stop
    arrived: Any  # CUDA event, or None where the numbers are here
    losses: list[Tensor]  # per piece, per sample


class _Run:
    """The state between two steps, and the one step."""

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        batches: Callable[[int], Batch],
        config: Training,
        folder: Path,
        describe: Callable[[Batch, torch.Generator], str] | None,
        meta: Mapping[str, Any] | None,
        memory: dict[str, Tensor],
    ):
        from accelerate import Accelerator

        ranks.join(config.cpu)
        # Several processes that find no GPU would each be told that it is alone, unless the CPU is asked for.
        cpu = config.cpu or (ranks.count() > 1 and not torch.accelerator.is_available())
        try:
            # Precision is ours: accelerate fixes it once per process and would patch the network's forward.
            self.accelerator = Accelerator(mixed_precision="no", cpu=cpu)
        except ValueError as error:
            raise InputError(f"training.cpu={config.cpu} cannot be had in this process: {error}") from error
        self.device = self.accelerator.device
        keep_freed_memory(self.device)
        self.several = self.accelerator.num_processes > 1
        if self.accelerator.num_processes != ranks.count():
            raise InputError(
                f"training.cpu={config.cpu} does not go with {ranks.count()} processes here, which would not work "
                f"together on {self.device.type!r}; set training.cpu=true, or start one process."
            )
        self.sharded = self.several and config.shard == "fsdp"
        self.net = net.to(self.device)
        if config.channels_last and not self.sharded:  # which FSDP does not take
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        if config.precision == AUTO:
            batch = _map(batches(0), lambda tensor: self.place(tensor[: -(-len(tensor) // config.accumulate)]))
            # a trial would move on what the loss remembers
            chosen = "float32" if memory else quickest_training(net, loss, batch, self.device, config.seed)[0]
            config = replace(config, precision=chosen)
        if self.sharded:
            _shard(net)
        self.config, self.batches, self.folder, self.describe = config, batches, folder, describe
        self.meta = json.loads(json.dumps(dict(meta or {})))
        self.named = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.memory = memory
        memory.update({name: tensor.to(self.device) for name, tensor in memory.items()})
        if self.memory and self.several:
            raise InputError(
                f"a loss that remembers ({', '.join(self.memory)}) trains in one process, not in "
                f"{self.accelerator.num_processes}."
            )
        self.buffers = [*net.buffers(), *self.memory.values()]
        if not self.named:
            raise InputError("net has no parameters to train; at least one must require a gradient.")
        self.model: nn.Module = _PerSample(net, loss, config, self.device)
        if not self.sharded:
            self.model = self.accelerator.prepare_model(self.model)
        matrices = [p for p in self.named.values() if p.ndim >= 2]
        vectors = [p for p in self.named.values() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.lr, betas=config.betas, fused=True
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.ema = PowerEMA(net, config.ema)
        self.step = self.updates = self.strikes = self.skipped = 0
        self.saved = -1
        self.window = _Window()
        self.outcome: _Outcome | None = None
        self.asked = self.agreed = False  # to stop: by this process, by all
        self.clock = (time.perf_counter(), 0)

    # One step ---------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take one optimiser step; the numbers of the step before are looked at on the way."""
        config, optimizer, scaler = self.config, self.optimizer, self.scaler
        pieces, total = self.pieces(self.step)
        kept = [buffer.clone() for buffer in self.buffers]
        optimizer.zero_grad()
        losses = []
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            with self.dice(self.step, index), self.averaging(last):
                values = self.model(piece, self.generator(self.step, index, total))
                size = _size(piece)
                if values.shape != (size,):
                    raise InputError(
                        f"loss has shape {tuple(values.shape)}; it must be ({size},), one value per sample of the "
                        "batch, not reduced."
                    )
                # Processes average their gradients, so each contributes its share of the mean times their number.
                scaler.scale(values.sum() * (self.accelerator.num_processes / total)).backward()
            losses.append(values.detach())
        self.settle()

        scaler.unscale_(optimizer)
        parameters = [p for p in self.named.values() if p.grad is not None]
        if self.several and not self.sharded and len(parameters) < len(self.named):
            idle = [name for name, p in self.named.items() if p.grad is None]
            raise InputError(
                f"the loss does not depend on {', '.join(idle)}; several processes cannot train what some may not use: "
                "freeze it by requires_grad_(False), or set training.shard='fsdp'."
            )
        gradient = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = ranks.whole(gradient)
        mean = torch.stack([values.sum() for values in losses]).sum() / total
        bad = (~torch.isfinite(mean + norm)).float()
        shared = torch.stack([mean.float(), bad, torch.full_like(bad, self.asked)])
        if self.several:
            shared = self.accelerator.reduce(shared, "sum")
            bad = (shared[1] > 0).float()
        if config.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, config.clip, gradient)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
        scaler.update()
        for buffer, before in zip(self.buffers, kept, strict=True):
            buffer.copy_(torch.where(bad > 0, before, buffer))

        numbers = torch.stack([shared[0], norm.float(), bad, shared[2]])
        arrived = None
        if self.device.type == "cuda":
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            arrived.record()
        self.outcome = _Outcome(self.step, numbers, arrived, losses)
        self.step += 1

    def settle(self) -> None:
        """Do what the last step's numbers call for: averages if it was good, a report if it was not."""
        outcome, self.outcome = self.outcome, None
        if outcome is None:
            return
        if outcome.arrived is not None:
            outcome.arrived.synchronize()
        loss, norm, bad, stop = outcome.numbers.tolist()
        self.agreed = stop > 0
        if not bad:
            self.strikes = 0
            self.updates += 1
            self.ema.update(self.updates)
            self.window.steps += 1
            self.window.loss += loss
            self.window.grad_norm += norm
            return
        self.skipped += 1
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() > 1:
            return  # float16 on its way to a loss scale that fits
        self.strikes += 1
        self.window.warnings.append(self.complaint(outcome, loss))
        if self.strikes >= self.config.patience:
            kept = f"the checkpoint of step {self.saved} is kept" if self.saved >= 0 else "there is no checkpoint yet"
            raise Diverged(
                f"{self.window.warnings[-1]} That was {self.strikes} in a row, so training stops; {kept}. A lower "
                "training.lr or training.clip, precision 'float32' or a look at the data may help."
            )

    def complaint(self, outcome: _Outcome, loss: float) -> str:
        """One sentence on a step that was not finite. Its batch and noise are simply made again."""
        bad = [torch.nonzero(~torch.isfinite(values)).flatten().tolist() for values in outcome.losses]
        pieces, total = self.pieces(outcome.step)
        count, first = self.share()
        start = first * (total // count) + min(first, total % count)
        about, end, samples = [], start, []
        for index, (piece, among) in enumerate(zip(pieces, bad, strict=True)):
            samples += [end + i for i in among]
            end += _size(piece)
            if self.describe and (among or not any(bad)):
                about.append(self.describe(piece, self.generator(outcome.step, index, total)))
        where = f"batch {outcome.step}"
        if samples:
            shown = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
            what = f"the loss is not finite for {len(samples)} of {end - start} samples (at {shown} in {where})"
        elif not math.isfinite(loss):
            what = f"the loss is not finite in another process ({where})"
        else:
            what = f"the gradient is not finite, though the loss is {loss:.4g} ({where})"
        return f"Step {outcome.step + 1} is skipped: {what}" + (f"; {'; '.join(about)}." if about else ".")

    def pieces(self, step: int) -> tuple[list[Batch], int]:
        """This process's pieces of the batch of `step`, on the device, and the size of the whole batch."""
        batch = self.batches(step)
        total = _size(batch)
        count, first = self.share()
        if total < count:
            raise InputError(
                f"training.accumulate={self.config.accumulate} is too many for a batch of {total} samples on "
                f"{self.accelerator.num_processes} process(es); each piece needs one sample at least."
            )

        def take(index: int) -> Callable[[Tensor], Tensor]:
            return lambda tensor: self.place(tensor.tensor_split(count)[index])

        return [_map(batch, take(first + i)) for i in range(count // self.accelerator.num_processes)], total

    def share(self) -> tuple[int, int]:
        """Into how many pieces all processes together cut a batch, and the first of them that is ours."""
        each = -(-self.config.accumulate // self.accelerator.num_processes)
        return each * self.accelerator.num_processes, each * self.accelerator.process_index

    @contextmanager
    def averaging(self, last: bool) -> Iterator[None]:
        """Let processes average their gradients in the backward pass of their last piece only."""
        if self.sharded:
            self.net.set_requires_gradient_sync(last)  # type: ignore[operator]
        with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model):
            yield

    def place(self, tensor: Tensor) -> Tensor:
        images = self.config.channels_last and tensor.ndim == 4
        layout = torch.channels_last if images else torch.preserve_format
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()  # from ordinary memory the copy would wait for the device's queue
        return tensor.to(self.device, non_blocking=True, memory_format=layout)

    # Dice -------------------------------------------------------------------------------------------------------------

    def generator(self, step: int, index: int, total: int) -> Piece:
        """A fresh generator for a piece of a step, in the state that the loss is to find."""
        count, first = self.share()
        generator = Piece(self.device)
        generator.manual_seed(self.mix(step, index, "loss"))
        generator.piece = (first + index, count, total)
        return generator

    @contextmanager
    def dice(self, step: int, index: int) -> Iterator[None]:
        """Seed torch's global generator for a piece of a step, as dropout needs, and put it back after."""
        seed = self.mix(step, index, "net")
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            # torch.manual_seed would seed every device, and note a traceback for each that is not in use.
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed(seed)
            yield

    def mix(self, step: int, index: int, stream: str) -> int:
        numbers = struct.pack("<3q", self.config.seed, step, self.share()[1] + index)
        return int.from_bytes(hashlib.blake2b(numbers, digest_size=8, person=stream.encode()).digest())

    # Between steps ----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether a `Progress` belongs here."""
        every = (self.config.log_every, self.config.validate_every)
        return self.step in (1, self.config.steps) or any(self.step % n == 0 for n in every)

    def report(self) -> Iterator[Progress]:
        """Give the `Progress` of this moment, and start the next window once the reader comes back for more."""
        self.settle()
        window, (since, at) = self.window, self.clock
        progress = Progress(
            step=self.step,
            steps=self.config.steps,
            loss=window.loss / window.steps if window.steps else math.nan,
            grad_norm=window.grad_norm / window.steps if window.steps else math.nan,
            lr=learning_rate(self.config, self.step - 1),
            rate=(self.step - at) / (time.perf_counter() - since),
            skipped=self.skipped,
            warnings=tuple(window.warnings),
            ema=self.ema,
        )
        try:
            yield progress
        except BaseException:
            # With the interpreter half gone nothing can be written; and other processes may be elsewhere by now.
            if not (sys.is_finalizing() or self.sharded):
                self.save(together=False)
            raise
        self.net.train()
        self.window = _Window()
        self.clock = (time.perf_counter(), self.step)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C ask for a stop after the step, rather than tear the step apart."""
        ours = threading.current_thread() is threading.main_thread()
        if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        first = 0.0

        def ask(number: int, frame: FrameType | None) -> None:
            nonlocal first
            # Of several processes each may be told twice at once: by the terminal and by the launcher.
            if self.asked and not (self.several and time.monotonic() - first < 1):
                raise KeyboardInterrupt
            self.asked, first = True, first if self.asked else time.monotonic()

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def stopping(self) -> bool:
        """Whether Ctrl-C asked for a stop; several processes agree on the step at which they do."""
        return self.agreed if self.several else self.asked

    def snapshot(self) -> None:
        self.settle()
        if self.updates:
            snapshot(self.folder, self.ema, self.step, self.updates, write=self.accelerator.is_main_process)

    # Death and resurrection -------------------------------------------------------------------------------------------

    def save(self, together: bool = True) -> None:
        """Write a checkpoint of this moment, unless it is there; where not together, without the other processes."""
        self.settle()
        if self.saved == self.step:
            return
        if self.accelerator.is_main_process or self.sharded:
            moments = {
                f"{key}/{name}": self.collected(value)
                for name, p in self.named.items()
                for key, value in self.optimizer.state.get(p, {}).items()
            }
            weights = {name: self.collected(value) for name, value in self.net.state_dict().items()}
            averages = {
                f"ema-{length:.3f}.safetensors": {
                    name: self.collected(value) for name, value in self.ema.state(length).items()
                }
                for length in self.config.ema
            }
        if self.accelerator.is_main_process:
            remembered = {checkpoint.MEMORY: self.memory} if self.memory else {}
            checkpoint.save(
                self.folder,
                self.step,
                {
                    "model.safetensors": weights,
                    **averages,
                    "optimizer.safetensors": moments,
                    **remembered,
                },
                {
                    "updates": self.updates,
                    "strikes": self.strikes,
                    "skipped": self.skipped,
                    "window": asdict(self.window),
                    "scaler": self.scaler.state_dict(),
                    "training": asdict(self.config),
                    "meta": self.meta,
                    "versions": {"ornstein": __version__, "torch": torch.__version__},
                },
                self.config.keep,
            )
        if together:
            self.accelerator.wait_for_everyone()
        self.saved = self.step

    def collected(self, tensor: Tensor) -> Tensor:
        """A tensor as the checkpoint has it: what is spread over processes whole, where it will be written."""
        if not self.sharded:
            return tensor
        tensor = ranks.whole(tensor)
        return tensor.cpu() if self.accelerator.is_main_process else tensor.new_empty(0)

    def begin(self, resume: bool) -> bool:
        """Start afresh or from the newest checkpoint. True where the `Progress` of that step is to be given again."""
        self.net.train()
        found = checkpoint.latest(self.folder)
        if found and not resume:
            raise InputError(
                f"folder={str(self.folder)!r} holds a run of {found.step} steps; resume it or name another."
            )
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(self.folder)
        if found:
            self.restore(found)
        elif resume:
            self.window.warnings.append(f"There is no checkpoint in {self.folder}: training starts from the beginning.")
        if self.accelerator.is_main_process:
            for later in snapshots(self.folder):
                if later.step > self.step:
                    later.path.unlink()
        self.clock = (time.perf_counter(), self.step)
        return bool(found) and self.due()

    def restore(self, found: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint, bit for bit."""
        state = found.state
        if list(self.config.ema) != state["training"]["ema"]:
            raise InputError(
                f"training.ema={list(self.config.ema)} cannot be resumed; the run tracks {state['training']['ema']}."
            )
        for key in sorted(self.meta.keys() | state["meta"].keys()):
            now, then = self.meta.get(key), state["meta"].get(key)
            if now != then:
                raise InputError(f"{key}={now!r} cannot be resumed; the run was started with {then!r}.")
        weights = found.tensors("model.safetensors")
        ours = self.net.state_dict()
        for name in [*ours, *weights]:
            now, then = (_kind(tensors.get(name)) for tensors in (ours, weights))
            if now != then:
                raise InputError(f"net has {name} {now} where the checkpoint of step {found.step} has {name} {then}.")
        self.net.load_state_dict({name: ranks.spread(value, ours[name]) for name, value in weights.items()})
        for length in self.config.ema:
            self.ema.load(length, found.tensors(f"ema-{length:.3f}.safetensors"))
        for flat, value in found.tensors("optimizer.safetensors").items():
            key, name = flat.split("/", 1)
            p = self.named[name]
            place = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value, device=self.device)
            self.optimizer.state[p][key] = place.detach().copy_(ranks.spread(value, place))
        if self.memory:
            if checkpoint.MEMORY not in state["files"]:
                raise InputError(f"the checkpoint of step {found.step} is of a loss that remembered nothing.")
            kept = found.tensors(checkpoint.MEMORY)
            for name in {**self.memory, **kept}:
                now, then = _kind(self.memory.get(name)), _kind(kept.get(name))
                if now != then:
                    raise InputError(f"the loss remembers {name} {now} where the checkpoint has {name} {then}.")
                self.memory[name].copy_(kept[name])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step = self.saved = found.step
        self.updates, self.strikes, self.skipped = state["updates"], state["strikes"], state["skipped"]
        self.window = _Window(**state["window"])
        if self.accelerator.is_main_process:
            checkpoint.publish(self.folder, found)


def _shard(net: nn.Module) -> None:
    """Spread the parameters of a network over the processes: a group of them for each block of a list, and the rest."""
    from torch.distributed.fsdp import fully_shard

    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):  # from the inside out
        for block in blocks:
            if not isinstance(block, nn.ModuleList | nn.ModuleDict) and any(True for _ in block.parameters()):
                fully_shard(block)
    fully_shard(net)


def _map(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """The same nest with `function` of every tensor."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {key: _map(value, function) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_map(value, function) for value in batch)
    return batch


def _size(batch: Batch) -> int:
    """Samples in a batch: the first dimension that all of its tensors share."""
    sizes: set[int] = set()

    def note(tensor: Tensor) -> Tensor:
        sizes.add(len(tensor) if tensor.ndim else 0)
        return tensor

    _map(batch, note)
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(f"batch has tensors of first dimension {sorted(sizes)}; all must share one, at least 1.")
    return sizes.pop()


def _kind(tensor: Tensor | None) -> str:
    return "(missing)" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
