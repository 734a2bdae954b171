"""A network and its loss as one module, and that module spread over processes.

Several processes average their gradients while the backward pass still runs (DistributedDataParallel; Li et al. 2020,
arXiv 2006.15704) or keep only a part each of weights, gradients, moments and averages (fully_shard; Rajbhandari et al.
2019, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277). `ranks` knows which of how many processes this is.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ornstein import ranks
from ornstein.training.config import Training
from ornstein.training.pieces import Batch, Loss
from ornstein.training.precision import half


class PerSample(nn.Module):
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


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """A module whose gradients all processes average; unchanged in a single process."""
    if ranks.count() == 1:
        return model
    return DistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])


def shard(net: nn.Module) -> None:
    """Spread the parameters of a network over the processes: a group of them for each block of a list, and the rest."""
    from torch.distributed.fsdp import fully_shard

    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    for blocks in reversed(lists):  # from the inside out
        for block in blocks:
            # vectors alone, as of a norm, stay with what is around them, which may use them without a call
            if not isinstance(block, nn.ModuleList | nn.ModuleDict) and any(p.ndim > 1 for p in block.parameters()):
                fully_shard(block)
    fully_shard(net)


def averaging(net: nn.Module, model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Let processes average their gradients in the backward pass of their last piece only.

    Arguments:
        net: the network, sharded or not.
        model: what `replicated` made of it and its loss.
        last: whether the piece is the last.
    """
    if hasattr(net, "set_requires_gradient_sync"):  # sharded
        net.set_requires_gradient_sync(last)  # type: ignore[operator]
    elif not last and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
