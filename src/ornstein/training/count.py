"""What a piece of work in torch computes, moves and keeps alive, counted operation by operation.

Floating-point operations follow from shapes: 2 for a multiplication with its addition, in matrix products and
convolutions, by torch's own formulas. The other operations (norms, activations, sums) are counted by the bytes that
they read and write, which is what limits them.

*Memory from two small batches.* What is alive after operation i is linear in the batch, a_i + b_i n, since the
sequence of operations does not depend on the batch. So the peak memory is

    max over i of (a_i + b_i n),

which two small batches determine although the peak moves: at a small n it lies where gradients of weights accumulate,
at a large n where the forward pass has kept all that the backward pass will need. It includes gradients on their way,
which a count of the tensors saved for the backward pass would miss, but not the scratch memory inside an operation.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop


class Line(NamedTuple):
    """What was found at two batches, and the straight line through it."""

    few: int
    many: int
    low: Any
    high: Any

    def at(self, n: int) -> Any:
        """The value at a batch of n."""
        return self.low + (self.high - self.low) * ((n - self.few) / max(self.many - self.few, 1))


@dataclass(frozen=True)
class Counted:
    """What the operations of one pass do, as functions of the batch.

    Attributes:
        sums: floating-point operations, and bytes that the other operations read and write.
        alive: bytes alive after each operation.
        kernels: how many operations there are.
    """

    sums: Line
    alive: Line
    kernels: int

    def flops(self, n: int) -> float:
        """Floating-point operations of a batch of n."""
        return float(self.sums.at(n)[0])

    def moved(self, n: int) -> float:
        """Bytes that operations without such arithmetic read and write."""
        return float(self.sums.at(n)[1])

    def peak(self, n: int) -> float:
        """Bytes alive, at the peak."""
        return float(np.max(self.alive.at(n)))


class Meter(TorchDispatchMode):
    """Counts what every operation computes, moves and leaves alive, apart from what was there before.

    Attributes:
        flops: floating-point operations. moved: bytes that operations without a formula for those read and write.
        live: bytes alive now. trace: after each operation.
    """

    def __init__(self, there: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.moved = self.live = 0
        self.trace: list[int] = []
        self._there = {tensor.untyped_storage()._cdata for tensor in there}
        self._alive: dict[int, Any] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to keep torch's compiler out of the counting, torch would load it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._watch(tensor.untyped_storage())
        if func.is_view or not made:
            return out
        if func._overloadpacket in _FLOPS:
            self.flops += _FLOPS[func._overloadpacket](*args, **kwargs, out_val=out)
        else:
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.moved += sum(tensor.numel() * tensor.element_size() for tensor in (*read, *made))
        self.trace.append(self.live)
        return out

    def _watch(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._there or key in self._alive:
            return

        def gone(_: Any) -> None:
            del self._alive[key]
            self.live -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.live += size


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop(query.shape, key.shape, value.shape)


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop(gradient.shape, query.shape, key.shape, value.shape)


#: torch's formulas, and those of the CPU's own attention, which its table lacks
_FLOPS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    **flop_registry,
}


def metered(work: Callable[[int], None], batch: int, net: nn.Module) -> Meter:
    """`work(batch)` counted operation by operation; what belongs to `net` was there before."""
    work(batch)  # what is kept between calls is made
    meter = Meter([*net.parameters(), *net.buffers()])
    with meter:
        work(batch)
    return meter


def counted(work: Callable[[int], None], net: nn.Module) -> Counted:
    """What `work` does at any batch, from its operations at batches of 2 and 4."""
    meters = [metered(work, batch, net) for batch in (2, 4)]
    sums = [np.array([meter.flops, meter.moved], float) for meter in meters]
    alive = [np.array(meter.trace, float) for meter in meters]
    kernels = len(alive[1])
    if len(alive[0]) != kernels:  # operations that depend on the data
        alive = [trace.max(keepdims=True) for trace in alive]
    return Counted(Line(2, 4, *sums), Line(2, 4, *alive), kernels)
