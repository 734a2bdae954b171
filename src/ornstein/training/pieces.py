"""A batch in pieces, each with its rows, its number and its noise.

*Every random stream is a pure function of the seed and the step.* Step k draws from generators seeded with a hash of
(seed, k, piece), where the pieces of a batch are numbered across processes, and trains on `batches(k)`; dropout, which
only knows torch's global generator, finds it seeded in the same way while the piece lasts; afterwards it is put back.
No random state is ever stored. (On the CPU torch seeds its Mersenne twister with 32 bits, so among a million steps a
hundred pairs are expected to share their noise, on different data.)

*Processes are pieces.* A batch is cut into pieces; one process takes them one after another, two take half of them
each, and nothing else differs: a piece has its rows, its number, and the noise that belongs to the number. So a run
on one process and on several is the same run up to the order in which sums are rounded. A loss that draws evenly
spread numbers, one in each n-th of (0, 1), needs them spread over the whole batch: a `Piece` tells it which of the n
parts are its own.
"""

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks
from ornstein.core.condition import Condition
from ornstein.errors import InputError
from ornstein.training.config import Training
from ornstein.training.precision import forked, queued

Batch = Any
Loss = Callable[[Any, Batch, torch.Generator], Tensor]


class Piece(torch.Generator):
    """The generator of one piece of a batch, which knows which piece it is.

    Attributes:
        piece: (number of this piece, number of pieces, samples in all of them). Pieces are as even as possible, larger
            ones first, so that piece i of k has as many samples as there are numbers i, i + k, i + 2k, ...
    """

    piece: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pieces:
    """How the batches of a run are cut, placed and seeded; index counts the pieces of this process.

    Arguments:
        batches: step index, from 0 -> batch; see `fit`.
        config: of which accumulate, channels_last and seed matter here.
        device: where this process works.
    """

    batches: Callable[[int], Batch]
    config: Training
    device: torch.device

    def of(self, step: int) -> tuple[list[Batch], int]:
        """This process's pieces of the batch of `step`, on the device, and the size of the whole batch."""
        batch = self.batches(step)
        total = size(batch)
        count, first = self.share()
        if total < count:
            raise InputError(
                f"training.accumulate={self.config.accumulate} is too many for a batch of {total} samples on "
                f"{ranks.count()} process(es); each piece needs one sample at least."
            )

        def take(index: int) -> Callable[[Tensor], Tensor]:
            return lambda tensor: self.place(tensor.tensor_split(count)[index])

        return [mapped(batch, take(first + i)) for i in range(count // ranks.count())], total

    def largest(self, step: int) -> Batch:
        """Samples of the batch of `step`, as many as the largest piece has in one process, on the device."""
        return mapped(
            self.batches(step), lambda tensor: self.place(tensor[: -(-len(tensor) // self.config.accumulate)])
        )

    def share(self) -> tuple[int, int]:
        """The number of pieces into which all processes together cut a batch, and the first that is ours."""
        each = -(-self.config.accumulate // ranks.count())
        return each * ranks.count(), each * ranks.rank()

    def start(self, total: int) -> int:
        """The row of a batch of so many samples at which this process's pieces begin."""
        count, first = self.share()
        return first * (total // count) + min(first, total % count)

    def place(self, tensor: Tensor) -> Tensor:
        """A tensor on the device, laid out as the network's."""
        images = self.config.channels_last and tensor.ndim == 4
        layout = torch.channels_last if images else torch.preserve_format
        if queued(self.device) and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()  # from ordinary memory the copy would wait for the device's queue
        return tensor.to(self.device, non_blocking=True, memory_format=layout)

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
        with forked(self.device):
            # torch.manual_seed would seed every device, and note a traceback for each that is not in use.
            torch.default_generator.manual_seed(seed)
            if queued(self.device):
                torch.get_device_module(self.device).manual_seed(seed)
            yield

    def mix(self, step: int, index: int, stream: str) -> int:
        """The seed of a random stream: a hash of the run's seed, the step and the piece's number."""
        numbers = struct.pack("<3q", self.config.seed, step, self.share()[1] + index)
        return int.from_bytes(hashlib.blake2b(numbers, digest_size=8, person=stream.encode()).digest())


def unfinite(
    cut: Pieces,
    step: int,
    losses: Sequence[Tensor],
    loss: float,
    describe: Callable[[Batch, torch.Generator], str] | None,
) -> str:
    """One sentence on a step that was not finite. Its batch and noise are made again for it.

    Arguments:
        cut: of the run.
        step: which step it was.
        losses: of this process's pieces, per sample.
        loss: of all processes.
        describe: see `fit`.
    """
    bad = [torch.nonzero(~torch.isfinite(values)).flatten().tolist() for values in losses]
    pieces, total = cut.of(step)
    start = cut.start(total)
    about, end, samples = [], start, []
    for index, (piece, among) in enumerate(zip(pieces, bad, strict=True)):
        samples += [end + i for i in among]
        end += size(piece)
        if describe and (among or not any(bad)):
            about.append(describe(piece, cut.generator(step, index, total)))
    where = f"batch {step}"
    if samples:
        shown = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
        what = f"the loss is not finite for {len(samples)} of {end - start} samples (at {shown} in {where})"
    elif not math.isfinite(loss):
        what = f"the loss is not finite in another process ({where})"
    else:
        what = f"the gradient is not finite, though the loss is {loss:.4g} ({where})"
    return f"Step {step + 1} is skipped: {what}" + (f"; {'; '.join(about)}." if about else ".")


def mapped(batch: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
    """The same nest with `function` of every tensor: of tuples, lists, dicts and conditions."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Condition):
        return batch.map(function)
    if isinstance(batch, dict):
        return {key: mapped(value, function) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(mapped(value, function) for value in batch)
    return batch


def size(batch: Batch) -> int:
    """Samples in a batch: the first dimension that all of its tensors share."""
    sizes: set[int] = set()

    def note(tensor: Tensor) -> Tensor:
        sizes.add(len(tensor) if tensor.ndim else 0)
        return tensor

    mapped(batch, note)
    if len(sizes) != 1 or 0 in sizes:
        raise InputError(f"batch has tensors of first dimension {sorted(sizes)}; all must share one, at least 1.")
    return sizes.pop()


def innermost(net: nn.Module) -> None:
    """Lay out kernels of images with the channels innermost in memory; those of series and volumes stay as they are."""
    for kernel in net.parameters():
        if kernel.ndim == 4:
            kernel.data = kernel.data.to(memory_format=torch.channels_last)
