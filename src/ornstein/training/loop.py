"""The training loop, as a generator: it trains, and its reader draws pictures in between.

    for progress in fit(net, loss, batches, Training(steps=3000), "runs/digits"):
        print(progress.step, progress.loss)

*Every random stream is a pure function of the seed and the step*, and a batch is cut into numbered pieces that one
process or several take: see `pieces`. Weights, averages, moments and the step number are the whole state (`saving`),
which is why a killed run continues bit for bit on the CPU, with the same number of threads, and why any number of
processes can continue it.

*A step never waits for a GPU.* The host queues forward and backward of step k + 1 and only then looks at the
four numbers that came out of step k (loss, gradient norm, whether all was finite, whether to stop), which were on their
way to it meanwhile. The work on step k that needs them, its running averages and its report, is done then, before the
optimiser moves the weights again. So the host is never more than one step ahead, and the device never without work.

*A loss may remember* something, such as Markov chains that continue from step to step: tensors in a mapping of names,
`memory`, that it reads and changes in place. They are part of the state: saved, restored and, after a step that was not
finite, put back like a network's buffers. They belong to one process, so several processes refuse them.

*A loss or gradient that is not finite changes nothing.* Whether a step is good is decided on the device from the loss
and the norm of the gradient (one number is enough: any NaN or infinity makes it NaN or infinite) and handed to the
fused AdamW as `found_inf`, the flag that loss scaling uses: the kernel then leaves weights, moments and its own step
count alone. Buffers such as a batch norm's statistics are put back. The averages do not count the step. Mixed precision
follows Micikevicius et al. 2017 (arXiv 1710.03740).
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks
from ornstein.errors import InputError, shown
from ornstein.optimisers import eager
from ornstein.training import checkpoint
from ornstein.training.config import Training, learning_rate
from ornstein.training.ema import PowerEMA, drop_snapshots, snapshot
from ornstein.training.interrupt import Interrupt
from ornstein.training.lock import Lock, holding
from ornstein.training.parallel import PerSample, averaging, replicated, shard
from ornstein.training.pieces import Batch, Loss, Pieces, innermost, size, unfinite
from ornstein.training.precision import AUTO, queued
from ornstein.training.saving import Saving
from ornstein.training.tally import Progress, Tally, Window
from ornstein.training.threads import Pace, pace_of, paced


class Diverged(RuntimeError):
    """Too many steps in a row had a loss or gradient that was not finite."""


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
    lock: Lock | None = None,
    pace: Pace | None = None,
) -> Iterator[Progress]:
    """Train `net` in place, keeping checkpoints in `folder`.

    A `Progress` comes after the first step, after every `log_every`-th and `validate_every`-th and after the last. A
    resumed run starts by repeating that of the step it resumes from, if that step has one, since the reader may have
    died while handling it; resuming a finished run gives only that one.

    Between two of them the state is the reader's: torch's global generator, its number of threads and Ctrl-C are as
    they were before, and a network left in evaluation mode is put back into training. Closing the generator there
    (`close()`, or leaving a loop that alone holds it) saves a checkpoint. Ctrl-C while training finishes the step,
    saves and raises KeyboardInterrupt; a second one does not wait.

    With several processes (`torchrun`) each must call this with the same arguments, and each gets every `Progress`;
    they agree on the step after which to stop, so that Ctrl-C between two `Progress` waits for the next step too. Only
    the first writes. Closing the generator saves unless the network is sharded, since no process can then save alone.

    Arguments:
        net: moved to the device of the run and trained there.
        loss: `(net, batch, generator) -> (B,)`, the loss of each sample. It calls the `net` that it is given, which is
            the one above, compiled if so configured, and draws from `generator` alone.
        batches: step index, from 0 -> batch: a tensor or a nest of tuples, lists and dicts of them, whose first
            dimension is the sample. A pure function: the same index gives the same batch.
        config: how to train.
        folder: the run folder; made if it is not there.
        describe: `(batch, generator) -> str`, a description of a step that was not finite, such as the range of its
            noise levels. It is given the piece of the batch, and a generator in the state that the loss found.
        resume: continue the run in `folder`. If it has no checkpoint, because the run died early, training starts from
            the beginning and says so in the first `warnings`.
        memory: tensors that the loss reads here and changes in place, see the module; moved to the device of the run.
        meta: facts that must be the same to continue, such as the data's fingerprint; JSON. Kept in state.json.
        lock: the folder's, if the caller holds it (`holding`); otherwise the first process takes it here.
        pace: which number of threads takes each step; None for what `config.threads` means here.

    Raises:
        InputError: another process writes in `folder`, or it is deleted meanwhile; there is a run in it and `resume` is
            not set; the checkpoint is damaged, newer or of another network; the loss has the wrong shape; the disk is
            full.
        Diverged: `config.patience` steps in a row were not finite. Nothing is saved over the last checkpoint.
    """
    first = ranks.rank() == 0
    with holding(folder, "training") if lock is None and first else nullcontext(lock) as held:
        run = _Run(net, loss, batches, config, Path(folder), describe, meta, memory or {}, held, pace)
        with run.interrupt.heard() if ranks.count() > 1 else nullcontext():
            yield from _trained(run, config, resume)


def _trained(run: "_Run", config: Training, resume: bool) -> Iterator[Progress]:
    if run.begin(resume):
        yield from run.report()
    while run.tally.step < config.steps:
        with nullcontext() if ranks.count() > 1 else run.interrupt.heard():
            while True:
                with paced(run.pace, run.tally.window.warnings):
                    run.advance()
                due = run.due()
                if run.stopping():
                    run.save()
                    raise KeyboardInterrupt
                if config.snapshot_every and run.tally.step % config.snapshot_every == 0:
                    run.snapshot()
                if run.tally.step % config.checkpoint_every == 0 or run.tally.step == config.steps:
                    run.save()
                if due:
                    break
        yield from run.report()


@dataclass(frozen=True)
class _Outcome:
    """A step whose numbers are on their way from the device."""

    step: int
    numbers: Tensor  # loss, gradient norm, not finite, stop
    arrived: Any  # the device's event, or None where the numbers are here
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
        lock: Lock | None,
        pace: Pace | None,
    ):
        if config.precision == AUTO:
            raise InputError(
                "training.precision='auto' is settled before training: give a precision, such as the one that "
                "ornstein.training.quickest_training finds."
            )
        self.lock = lock
        ranks.join(config.cpu)
        device = ranks.device(config.cpu)
        self.sharded = ranks.count() > 1 and config.shard == "fsdp"
        self.net = net.to(device)
        if config.channels_last and not self.sharded:  # which FSDP does not take
            innermost(self.net)
        self.pieces = Pieces(batches, config, device)
        self.config = config
        if self.sharded:
            shard(net)
        self.describe = describe
        memory.update({name: tensor.to(device) for name, tensor in memory.items()})
        if memory and ranks.count() > 1:
            raise InputError(
                f"a loss that remembers ({', '.join(memory)}) trains in one process, not in {ranks.count()}."
            )
        self.buffers = [*net.buffers(), *memory.values()]
        self.named = {name: p for name, p in net.named_parameters() if p.requires_grad}
        if not self.named:
            raise InputError("net has no parameters to train; at least one must require a gradient.")
        self.model: nn.Module = PerSample(net, loss, config, device)
        if not self.sharded:
            self.model = replicated(self.model, device)
        self.optimizer = _optimizer(self.named, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.ema = PowerEMA(net, config.ema)
        meta = json.loads(json.dumps(dict(meta or {})))
        self.saving = Saving(
            folder, config, net, self.named, self.optimizer, self.scaler, self.ema, memory, meta, device, self.sharded
        )
        self.tally, self.saved, self.pace = Tally(), -1, pace or pace_of(config, device)
        self.outcome: _Outcome | None = None
        self.interrupt = Interrupt()
        self.agreed = False  # by all, to stop
        self.clock = (time.perf_counter(), 0)

    # One step ---------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take one optimiser step; the numbers of the step before are looked at on the way."""
        config, optimizer, scaler = self.config, self.optimizer, self.scaler
        kept = [buffer.clone() for buffer in self.buffers]
        losses, total = self.backward()
        self.account()

        scaler.unscale_(optimizer)
        parameters = self.reached()
        gradient = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = ranks.whole(gradient)
        mean = torch.stack([values.sum() for values in losses]).sum() / total
        bad = (~torch.isfinite(mean + norm)).float()
        shared = torch.stack([mean.float(), bad, torch.full_like(bad, self.interrupt.asked)])
        if ranks.count() > 1:
            shared = ranks.summed(shared)
            bad = (shared[1] > 0).float()
        if config.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, config.clip, gradient)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, self.tally.step)
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
        scaler.update()
        for buffer, before in zip(self.buffers, kept, strict=True):
            buffer.copy_(torch.where(bad > 0, before, buffer))

        numbers = torch.stack([shared[0], norm.float(), bad, shared[2]])
        arrived = None
        if queued(device := self.pieces.device):
            numbers, arrived = numbers.to("cpu", non_blocking=True), torch.get_device_module(device).Event()
            arrived.record()
        self.outcome = _Outcome(self.tally.step, numbers, arrived, losses)
        self.tally.step += 1

    def backward(self) -> tuple[list[Tensor], int]:
        """The gradient of the step's batch, left in the parameters; the losses of our pieces, and all its samples."""
        step = self.tally.step
        pieces, total = self.pieces.of(step)
        self.optimizer.zero_grad()
        losses = []
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            with self.pieces.dice(step, index), averaging(self.net, self.model, last):
                values = self.model(piece, self.pieces.generator(step, index, total))
                rows = size(piece)
                if values.shape != (rows,):
                    raise InputError(
                        f"loss has shape {tuple(values.shape)}; it must be ({rows},), one value per sample of the "
                        "batch, not reduced."
                    )
                # Processes average their gradients, so each contributes its share of the mean times their number.
                self.scaler.scale(values.sum() * (ranks.count() / total)).backward()
            losses.append(values.detach())
        return losses, total

    def reached(self) -> list[nn.Parameter]:
        """The parameters that have a gradient; of several processes that hold them whole, all must."""
        parameters = [p for p in self.named.values() if p.grad is not None]
        if ranks.count() > 1 and not self.sharded and len(parameters) < len(self.named):
            idle = [name for name, p in self.named.items() if p.grad is None]
            raise InputError(
                f"the loss does not depend on {', '.join(idle)}; several processes cannot train what some may not use: "
                "freeze it by requires_grad_(False), or set training.shard='fsdp'."
            )
        return parameters

    def account(self) -> None:
        """Do what the last step's numbers call for: averages if it was good, a report if it was not."""
        outcome, self.outcome = self.outcome, None
        if outcome is None:
            return
        if outcome.arrived is not None:
            outcome.arrived.synchronize()
        loss, norm, bad, stop = outcome.numbers.tolist()
        self.agreed = stop > 0
        if not bad:
            self.tally.strikes = 0
            self.tally.updates += 1
            self.ema.update(self.tally.updates)
            self.tally.window.steps += 1
            self.tally.window.loss += loss
            self.tally.window.grad_norm += norm
            return
        self.tally.skipped += 1
        if self.scaler.is_enabled() and math.isfinite(loss) and self.scaler.get_scale() > 1:
            return  # float16 on its way to a loss scale that fits
        self.tally.strikes += 1
        self.tally.window.warnings.append(unfinite(self.pieces, outcome.step, outcome.losses, loss, self.describe))
        if self.tally.strikes >= self.config.patience:
            kept = f"the checkpoint of step {self.saved} is kept" if self.saved >= 0 else "there is no checkpoint yet"
            raise Diverged(
                f"{self.tally.window.warnings[-1]} That was {self.tally.strikes} in a row, so training stops; {kept}. "
                "A lower training.lr or training.clip, precision 'float32' or a look at the data may help."
            )

    # Between steps ----------------------------------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether a `Progress` belongs here."""
        every = (self.config.log_every, self.config.validate_every)
        return self.tally.step in (1, self.config.steps) or any(self.tally.step % n == 0 for n in every)

    def report(self) -> Iterator[Progress]:
        """Give the `Progress` of this moment, and start the next window once the reader comes back for more."""
        self.account()
        self.check_folder()  # whoever reads this writes there too
        window, (since, at) = self.tally.window, self.clock
        progress = Progress(
            step=self.tally.step,
            steps=self.config.steps,
            loss=window.loss / window.steps if window.steps else math.nan,
            grad_norm=window.grad_norm / window.steps if window.steps else math.nan,
            lr=learning_rate(self.config, self.tally.step - 1),
            rate=(self.tally.step - at) / (time.perf_counter() - since),
            skipped=self.tally.skipped,
            threads=self.pace.number,
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
        self.tally.window = Window()
        self.clock = (time.perf_counter(), self.tally.step)

    def stopping(self) -> bool:
        """Whether Ctrl-C asked for a stop; several processes agree on the step at which they do."""
        return self.agreed if ranks.count() > 1 else self.interrupt.asked

    def snapshot(self) -> None:
        """Write one of the averages, for other lengths of them afterwards."""
        self.account()
        if self.tally.updates:
            first = ranks.rank() == 0
            snapshot(self.saving.folder, self.ema, self.tally.step, self.tally.updates, write=first)

    # Death and resurrection -------------------------------------------------------------------------------------------

    def save(self, together: bool = True) -> None:
        """Write a checkpoint of this moment, unless it is there; where not together, without the other processes."""
        self.account()
        if self.saved == self.tally.step:
            return
        self.check_folder()
        self.saving.write(self.tally, self.pace.facts())
        if together:
            ranks.meet()
        self.saved = self.tally.step

    def check_folder(self) -> None:
        """See that what is written goes where it went before."""
        if self.lock is not None:
            self.lock.check()

    def begin(self, resume: bool) -> bool:
        """Start afresh or from the newest checkpoint. True where the `Progress` of that step is to be given again."""
        self.net.train()
        folder = self.saving.folder
        found = checkpoint.latest(folder)
        if found and not resume:
            raise InputError(f"folder={str(folder)!r} holds a run of {found.step} steps; resume it or name another.")
        if found and found.step > self.config.steps:
            raise InputError(f"training.steps={self.config.steps} is less than {shown(folder)} has, {found.step}.")
        if ranks.rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.sweep(folder, self.config.keep)
        if found:
            self.tally, self.saved = self.saving.restore(found), found.step
            self.pace.go_on(found.state.get("threads"))
        elif resume:
            self.tally.window.warnings.append(
                f"There is no checkpoint in {folder}: training starts from the beginning."
            )
        if ranks.rank() == 0:
            drop_snapshots(folder, self.tally.step)
        self.clock = (time.perf_counter(), self.tally.step)
        return bool(found) and self.due()


def _optimizer(named: Mapping[str, nn.Parameter], config: Training) -> torch.optim.Optimizer:
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    kept = [group for group in groups if group["params"]]
    return eager(torch.optim.AdamW)(kept, lr=config.lr, betas=config.betas, fused=True)
