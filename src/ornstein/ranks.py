"""Several processes that do the work of one: which of them this is, and what they do together.

    torchrun --standalone --nproc-per-node 2 -m ornstein train digits

starts the same program twice and tells each copy by its environment (RANK, WORLD_SIZE, LOCAL_RANK) which one it is. To
the person they are one program. Rank 0, the *first*, speaks for all: only it prints, and only it writes files. All of
them train on their share of a batch, and draw their share of samples.

*Ending together.* Mostly a mistake is made by all (a name that is not known) and the first reports it. Mostly, so the
others do not end at once: the launcher would take that for the failure and end the first before it has spoken. They
wait to be ended themselves, which `torchrun` does within a tenth of a second. Who waits in vain has met something that
the first knows nothing of, such as a disk that is not there on its machine, and reports it under its own number. So
does a first process that only hears of another's end, by a connection that broke.

Nothing here is done where one process is alone. torch is imported by what needs it: `ornstein --help` needs nothing.
"""

import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from ornstein.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: seconds to wait for being ended, where another process may be the one to report what went wrong
PATIENCE = 10.0
#: the exit code of a program that Ctrl-C ended: nothing to report, every process knows
_INTERRUPTED = 130


def count() -> int:
    """How many processes do the work of one."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is; 0 is the first, and whoever is alone."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def take_device(cpu: bool = False) -> bool:
    """Take a GPU to oneself, the n-th process of a machine its n-th. False where there is none, or one is not wanted.

    Raises:
        InputError: more processes on a machine than it has GPUs.
    """
    import torch

    if cpu or not torch.accelerator.is_available():
        return False
    if count() == 1:
        return True
    local, there = int(os.environ.get("LOCAL_RANK", rank())), torch.accelerator.device_count()
    if local >= there:
        raise InputError(
            f"LOCAL_RANK={local} has no GPU to itself: this machine has {there}; start one process for each, or train "
            "with training.cpu=true."
        )
    torch.accelerator.set_device_index(local)
    return True


def device(cpu: bool = False) -> "torch.device":
    """Where this process works: the accelerator that it takes to itself, or the CPU where there is none.

    Args:
        cpu: the CPU even where an accelerator is at hand.

    Raises:
        InputError: more processes on a machine than it has GPUs.
    """
    import torch

    found = torch.accelerator.current_accelerator() if take_device(cpu) else None
    if found is None:
        return torch.device("cpu")
    return torch.device(found.type, torch.accelerator.current_device_index()) if count() > 1 else found


def join(cpu: bool = False) -> None:
    """Meet the other processes, if there are any, which all must do: over gloo on the CPU, over NCCL between GPUs.

    Args:
        cpu: stay on the CPU even where GPUs are at hand.

    Raises:
        InputError: more processes on a machine than it has GPUs.
    """
    import torch.distributed as dist

    if count() > 1 and not dist.is_initialized():
        dist.init_process_group(None if take_device(cpu) else "gloo")  # None: the backend of each kind of device


def meet() -> None:
    """Wait until every process is here."""
    if count() > 1:
        import torch.distributed as dist

        join()
        dist.barrier()


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process does what stands below before the others do: a download, which they then find done."""
    if rank():
        meet()
    yield
    if not rank():
        meet()


def share(n: int) -> slice:
    """Which of n things are this process's: even runs of them, those of the first process first."""
    each, over = divmod(n, count())
    start = rank() * each + min(rank(), over)
    return slice(start, start + each + (rank() < over))


def gathered(mine: "Tensor", n: int) -> "Tensor":
    """All n rows, (n, ...), on the CPU of every process, from this process's `share` of them."""
    if count() == 1:
        return mine
    import torch
    import torch.distributed as dist

    join()
    rows = torch.empty(n, *mine.shape[1:], dtype=mine.dtype)
    rows[share(n)] = mine.cpu()
    for source, part in enumerate(rows.tensor_split(count())):
        if len(part):
            dist.broadcast(part, source)
    return rows


def agreed(numbers: "Tensor") -> "Tensor":
    """What the first process has, in all of them; one shape everywhere, on the device that processes talk by."""
    if count() > 1:
        import torch.distributed as dist

        dist.broadcast(numbers, 0)
    return numbers


def summed(numbers: "Tensor") -> "Tensor":
    """The sum over all processes, in each of them; one shape everywhere, on the device that processes talk by."""
    if count() > 1:
        import torch.distributed as dist

        numbers = numbers.clone()
        dist.all_reduce(numbers)
    return numbers


def whole(tensor: "Tensor") -> "Tensor":
    """A tensor that is spread over processes, put together on each of them; another as it is. To be called by all."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread(tensor: "Tensor", like: "Tensor") -> "Tensor":
    """A tensor spread over processes as `like` is; as it is where `like` is not."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    placed = tensor.to(like.device, like.dtype)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


@contextmanager
def one_voice() -> Iterator[None]:
    """For the program as a whole: only the first process is heard, and all end together; see the module."""
    if count() == 1:
        yield
        return
    said, code = io.StringIO(), 0
    try:
        if rank():
            with redirect_stdout(io.StringIO()), redirect_stderr(said):
                yield
        else:
            yield
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code not in (0, _INTERRUPTED) and rank():
            _wait_for_the_end(code, PATIENCE)
    except BaseException:
        _wait_for_the_end(1, PATIENCE if rank() else PATIENCE / 5)
        traceback.print_exc(file=said)
        code = 1
    if code:
        if (words := said.getvalue()) and code != _INTERRUPTED:
            sys.stderr.write(f"process {rank()} of {count()}: {words}")
        sys.stderr.flush()
        sys.exit(code)
    _leave()


def _wait_for_the_end(code: int, seconds: float) -> None:
    """Give another process time to speak; being ended meanwhile is ending with `code`."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    time.sleep(seconds)


def _leave() -> None:
    if (dist := sys.modules.get("torch.distributed")) is not None and dist.is_initialized():
        dist.destroy_process_group()
