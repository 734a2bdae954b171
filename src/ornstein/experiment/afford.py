"""Whether memory suffices, checked before any is allocated: what does not fit is refused in a sentence.

Linux hands out more memory than it has and kills the process that then uses it, without a word. So the network is first
built without its numbers (torch's "meta" device: shapes alone), a batch is the sum of its rows, and what the loss keeps
per sample until the backward pass is the slope between losses of two samples and of four. The total is a lower bound on
what training takes: what passes here may still be too large, since `ornstein plan` counts more.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ornstein import ranks
from ornstein.data import Dataset
from ornstein.errors import must_fit
from ornstein.memory import free_bytes
from ornstein.nets import NetConfig
from ornstein.training import PRECISIONS, Training


def room(device: torch.device) -> float:
    """Bytes that are free on a device; infinite if it does not say."""
    if device.type == "cpu":
        return free_bytes()
    told = getattr(torch.get_device_module(device), "mem_get_info", None)
    return math.inf if told is None else float(told(device)[0])


def network_parts(weights: float, config: Training, count: int) -> dict[str, float]:
    """What each of `count` devices keeps for a network in training, by part.

    Arguments:
        weights: bytes of the network's.
    """
    sharded, averages = config.shard == "fsdp" and count > 1, len(config.ema)
    own = weights / count if sharded else weights
    return {
        "weights": own,
        "gradients": own,
        "gradients on their way between processes": own if count > 1 and not sharded else 0,
        "Adam's two moments": 2 * own,
        f"averages of the weights, {averages}": averages * own,
        "the average that previews are drawn by": weights,
    }


def copies(config: Training) -> float:
    """How many times its weights a network in training takes on each device of this run."""
    return sum(network_parts(1.0, config, ranks.count()).values())


def afford_network(net: NetConfig, made: Callable[[NetConfig], nn.Module], times: float, device: torch.device) -> None:
    """Refuse a network whose weights, `times` over, are more than is free.

    Arguments:
        net: its description. made: the network of one.
        device: where it will be; it begins on the CPU.

    Raises:
        InputError: it does not fit; names the field that makes it large, and a value that does.
    """
    free = min(room(device), room(torch.device("cpu")) * times)
    weights = _weights(net, made)
    if not weights * times > free:
        return
    given = {field.name: getattr(net, field.name) for field in dataclasses.fields(net)}
    halves = {name: half for name, value in given.items() if (half := _halved(value)) is not None}
    shrunk = {name: _weights(_with(net, name, half), made) for name, half in halves.items()}
    # what makes it large: of the fields that shrink it about as much as any the largest
    name = max(
        (name for name in shrunk if not shrunk[name] > 2 * min(shrunk.values())), key=lambda n: _largest(given[n])
    )
    value = halves[name]
    while value is not None and _weights(_with(net, name, value), made) * times > free:
        value = _halved(value)
    instead = "take a smaller network" if value is None else f"net.{name}={_written(value)} would fit"
    said = f"net.{name}={_written(given[name])} makes a network that takes"
    must_fit(said + (" in training" if times > 1 else ""), weights * times, free, instead)


def _with(net: NetConfig, name: str, value: Any) -> NetConfig:
    return dataclasses.replace(net, **{name: value})


def _largest(value: Any) -> int:
    return int(max(value) if isinstance(value, tuple) else value)


def _halved(value: Any) -> Any:
    """Half of a number, or several with the largest halved; None of what is no number or no more than 1."""
    if isinstance(value, tuple) and value and all(type(entry) is int for entry in value) and max(value) > 1:
        return tuple(entry // 2 if entry == max(value) else entry for entry in value)
    return value // 2 if type(value) is int and value > 1 else None


def _written(value: Any) -> str:
    """As on the command line."""
    return str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)


#: what puts numbers into a tensor; the last of `torch.nn.init`, which would ask a dozen others
_FILLING = ("normal_", "uniform_", "fill_", "zero_", "kaiming_uniform_")


class _Numberless(TorchFunctionMode):
    """Passes over what changes numbers alone: for "meta" tensors torch would first load its compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = getattr(func, "__name__", ""), [*args, *(kwargs or {}).values()]
        filled, scaled = name in _FILLING, name == "mul" and isinstance(given[-1], float | int)
        return given[0] if filled or scaled else func(*args, **(kwargs or {}))


def _weights(net: NetConfig, made: Callable[[NetConfig], nn.Module]) -> float:
    """Bytes; NaN of a network that cannot be built without its numbers, as others' may be, infinite beyond counting."""
    try:
        with torch.device("meta"), _Numberless():
            module = made(net)
    except Exception as error:  # whatever is wrong comes again, and is told, when it is built in earnest
        return math.inf if "overflow" in str(error).lower() else math.nan
    return float(sum(tensor.nbytes for tensor in module.parameters()))


def afford_batch(data: Dataset, config: Training) -> None:
    """Refuse a batch that does not fit into main memory, where batches are put together.

    Raises:
        InputError: it does not fit.
    """
    values, floats, order = data.train[:1].nbytes, 4 * data.train[:1].numel(), 8
    each = values + floats + order + sum(part[:1].nbytes for part in data.train_condition.parts.values())
    free, size = free_bytes(), config.batch_size
    must_fit(
        f"training.batch_size={size} takes", float(size) * each, free, f"up to {max(int(free // each), 1):,} would fit"
    )


def afford_pieces(config: Training, kept: float, weights: float, device: torch.device) -> None:
    """Refuse a piece of a batch of which the loss keeps more than is free.

    Arguments:
        kept: bytes of a sample until the backward pass, in float32. weights: bytes of the network's, on the CPU so far.

    Raises:
        InputError: it does not fit; names the `training.accumulate` that does.
    """
    count = ranks.count()
    if PRECISIONS.get(config.precision) is not None:
        kept /= 2
    pieces = -(-config.accumulate // count) * count
    piece = -(-config.batch_size // pieces)
    still = (copies(config) - (device.type == "cpu")) * weights
    free = max(room(device) - still, 0)
    if not kept * piece > free:
        return
    most = int(free // kept)
    accumulate = -(-config.batch_size // max(most, 1) // count) * count
    fits = most >= 1 and accumulate <= config.batch_size
    instead = f"training.accumulate={accumulate} would fit" if fits else "take smaller samples or a smaller network"
    what = f"training.batch_size={config.batch_size} is {piece:,} samples at a time, of which the loss keeps"
    must_fit(what, kept * piece, free, instead)
