"""Which precision is fastest: measured, never assumed.

Weights, moments and averages are float32 always. Matrix products and convolutions may be done in half the bits
(Micikevicius et al. 2017, arXiv 1710.03740): bfloat16 keeps float32's range and rounds to eight bits, so nothing
overflows; float16 rounds to eleven, but needs its loss scaled. Whether that is faster depends on the processor and the
network: a processor without instructions for it emulates it and is many times slower, and a small perceptron loses more
in conversions than its products gain. So "auto" times the work itself, and uses the narrow type only if it pays.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks

PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

AUTO = "auto"
#: how many times faster a narrow type must be, or results would change for nothing
_PAYS = 1.2
_ROUNDS = 3


def half(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which matrix products and convolutions on `device` have a precision, a name in `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def queued(device: torch.device) -> bool:
    """Whether work on a device is queued while the host goes on, with the device's own random numbers.

    True on any accelerator but Apple's, for which torch has no state per device.
    """
    return device.type not in ("cpu", "mps")


@contextmanager
def forked(device: torch.device) -> Iterator[None]:
    """Put torch's global generators, of the CPU and of a device, back to what they were before."""
    if queued(device):
        with torch.random.fork_rng([device], device_type=device.type):
            yield
    else:
        with torch.random.fork_rng([]):
            yield


def quickest(work: Callable[[str], object], device: torch.device) -> tuple[str, str]:
    """The precision in which `work(precision)` runs fastest on a device, and why: one sentence.

    Float32 unless another is 1.2 times as fast. With several processes (`torchrun`) all get the answer of the first.
    """
    narrow = "bfloat16"
    tells = getattr(torch.get_device_module(device), "is_bf16_supported", None)  # CUDA's does, and XPU's
    if tells is not None and not tells(including_emulation=False):
        narrow = "float16"
    seconds = _race([partial(work, name) for name in ("float32", narrow)], device)
    wide, slim = ranks.agreed(torch.tensor(seconds, device=device)).tolist()
    chosen = narrow if wide >= _PAYS * slim else "float32"
    return chosen, f"measured here: {1e3 * wide:.3g} ms in float32, {1e3 * slim:.3g} ms in {narrow}."


def _race(entries: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds that each takes at best, taking turns after one run that warms up."""
    best = [math.inf] * len(entries)
    for attempt in range(1 + _ROUNDS):
        for index, run in enumerate(entries):
            start = time.perf_counter()
            run()
            if queued(device):
                torch.accelerator.synchronize(device)
            if attempt:
                best[index] = min(best[index], time.perf_counter() - start)
    return best


def quickest_training(
    net: nn.Module, loss: Callable[[Any, Any, torch.Generator], Tensor], batch: Any, device: torch.device, seed: int
) -> tuple[str, str]:
    """`quickest` of forward and backward of a loss as `fit` takes it, on one piece of a batch. Changes nothing."""
    trial = copy.deepcopy(net).to(device).train()

    def work(precision: str) -> None:
        dice = torch.Generator(device).manual_seed(seed)
        with half(device, precision):
            values = loss(trial, batch, dice)
        values.float().sum().backward()
        trial.zero_grad()

    with forked(device):
        return quickest(work, device)
