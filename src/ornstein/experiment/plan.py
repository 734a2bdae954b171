"""What a training run will cost before it is run: arithmetic, memory, disk, time and money.

*Arithmetic and memory are counted, not estimated.* The experiment's own loss runs forward and backward on two small
batches, on the CPU, while every operation of torch reports here. Its floating-point operations follow from its shapes
(matrix products and convolutions, 2 for a multiplication with its addition, as torch's own counter has it); whatever
the loss asks of the network, several calls, a gradient within a gradient or chains that move, is in the count. What
each operation leaves alive is a straight line in the batch, a_i + b_i n after operation i, since the sequence of
operations does not depend on the batch. So at the batch n of the run the most memory at a time is

    max over i of (a_i + b_i n),

which two small batches determine even where the peak moves: at a small n it lies where gradients of weights pile up,
at a large n where the forward pass has kept all that the backward pass will need. It counts gradients that are passing
through as well, which a count of saved tensors would miss.

*Time* comes from one of two places. On this machine, real training steps of this very network are timed at two batches,
up to the whole one if a few seconds allow; their line gives the step (what does not grow with the batch is the
optimiser, the averages and Python). For a GPU that is not at hand it comes from published peak rates,

    piece = max(F / (u R) + M / W,  K h),        step = pieces + optimiser,

with F operations at the peak rate R of the precision and a utilisation u, M bytes that the other operations read and
write at the bandwidth W, and K operations that take the host h = 10 microseconds each to start. The last is what bounds
small networks: there a larger GPU is no faster. (The roofline of Williams et al. 2009, doi 10.1145/1498765.1498785.)
The sum of gradients over n devices moves 2 (n - 1)/n of them through each link, while the backward pass runs. u, h and
the links' share are assumptions; the text says which.

*Disk* is a sum of file sizes: a checkpoint holds the weights, an average for each length and two moments.
"""

import dataclasses
import math
import os
import re
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from ornstein.core.drive import trajectory
from ornstein.core.grids import times
from ornstein.data import Dataset
from ornstein.errors import InputError, lookup
from ornstein.experiment.build import Parts, build, build_stepper, load_data, settle
from ornstein.experiment.config import CLASSIFIER, Experiment
from ornstein.experiment.run import BATCH
from ornstein.nets import NETS
from ornstein.training import Training, fit
from ornstein.training.config import PRECISIONS


class GPU(NamedTuple):
    """What a datasheet says: dense peak rates in 1e12/s, memory in 1e9 bytes, bandwidth and link in 1e9 bytes/s."""

    half: float  # tensor cores, bfloat16 and float16 with float32 sums, without sparsity
    single: float  # float32 on the ordinary cores
    memory: float
    bandwidth: float
    link: float  # to the other GPUs, one direction
    bfloat16: bool = True


#: NVIDIA's and AMD's datasheets: V100 2020, T4 2019, A100 2021 (SXM4), A10 2021, RTX 3090 and 4090 (GA102 and AD102
#: whitepapers), L4 and L40S 2023, H100 2023 and H200 2024 (SXM), Blackwell (HGX B200) 2025, MI300X 2023. Where sheets
#: quote rates with sparsity, half of them.
GPUS: dict[str, GPU] = {
    "t4": GPU(65, 8.1, 16, 320, 16, bfloat16=False),
    "v100": GPU(125, 15.7, 32, 900, 150, bfloat16=False),
    "a10": GPU(125, 31.2, 24, 600, 32),
    "a100-40gb": GPU(312, 19.5, 40, 1555, 300),
    "a100": GPU(312, 19.5, 80, 2039, 300),
    "rtx-3090": GPU(71, 35.6, 24, 936, 32),
    "rtx-4090": GPU(165, 82.6, 24, 1008, 32),
    "l4": GPU(121, 30.3, 24, 300, 32),
    "l40s": GPU(362, 91.6, 48, 864, 32),
    "h100": GPU(989, 67, 80, 3350, 450),
    "h200": GPU(989, 67, 141, 4800, 450),
    "b200": GPU(2250, 75, 180, 7700, 900),
    "mi300x": GPU(1307, 163.4, 192, 5300, 448),
}
#: share of the peak rate that convolutions and matrix products reach, where nothing is measured
UTILISATION = 0.4
#: share of a device's memory that tensors can fill: the rest is lost between them
FILLED = 0.92
#: seconds that the host takes to start one operation
_HOST = 10e-6
#: bytes taken before the first tensor: Python, torch and what training imports; a GPU's context and workspaces
_PROGRAM, _CONTEXT = 0.5e9, 1e9
#: seconds for which a calibration may run at its larger batch; steps timed, after two that warm up
_PATIENCE, _TIMED = 8.0, 5
#: seconds that the plots and the picture of a validation take, measured on one core
_PLOTTED = 0.5
#: samples on which the held-out error costs a network call each at every validation
_HELD_OUT = 16 * 256


@dataclass(frozen=True)
class Plan:
    """The cost of an experiment on one kind of device; made by `plan`.

    Attributes:
        experiment: what is to be trained.
        where: the devices in words. devices: their number.
        parameters: of the network.
        step_flops: floating-point operations of one training step, over all devices.
        call_flops: of one network call for one sample, in drawing. calls: network calls that a sample takes.
        memory: bytes by part, on each device. room: bytes that it has.
        host: bytes of the data in the memory of each process, and on disk (0 where they are made or unknown).
        disk: bytes by part, at the end of the run.
        step: seconds of a training step.
        previews: seconds that all pictures and held-out errors take.
        draw: seconds of drawing 1,000 samples.
        processor: seconds of processor time of all steps and previews, 0 where it is not measured.
        basis: in words what the times rest on.
        advice: one sentence on memory that does not suffice; empty where it does.
        price: of a device for an hour, or None.
    """

    experiment: Experiment
    where: str
    devices: int
    parameters: int
    step_flops: float
    call_flops: float
    calls: int
    memory: dict[str, float]
    room: float
    host: tuple[float, float]
    disk: dict[str, float]
    step: float
    previews: float
    draw: float
    processor: float
    basis: str
    advice: str
    price: float | None

    @property
    def needed(self) -> float:
        """Bytes on each device, the most at a time."""
        return sum(self.memory.values())

    @property
    def seconds(self) -> float:
        """From the first step to the last, with pictures."""
        return self.step * self.experiment.training.steps + self.previews

    @property
    def cost(self) -> float | None:
        """In the currency of `price`."""
        return None if self.price is None else self.price * self.devices * self.seconds / 3600

    def text(self) -> str:
        """A line for each thing, its parts below it."""
        config = self.experiment.training
        lines = [
            ("plan", f"{self.experiment.data['name']} on {self.where}, {config.precision}"),
            ("network", f"{self.experiment.net['name']}, {self.parameters:,} parameters"),
            (
                "training",
                f"{config.steps:,} steps of {config.batch_size:,} samples: {_flop(self.step_flops)} a step, "
                f"{_flop(self.step_flops * config.steps)} in all",
            ),
            ("time", f"{_time(self.step)} a step, {_time(self.seconds)} in all, {_time(self.previews)} of it pictures"),
            ("", self.basis),
        ]
        if self.processor:
            lines.append(("", f"{_time(self.processor)} of processor time"))
        if self.cost is not None:
            lines.append(("price", f"{self.cost:,.2f}, at {self.price:g} an hour for each of {self.devices}"))
        if self.calls:
            what = f"{self.calls:,} network calls, {_flop(self.calls * self.call_flops)} a sample"
            lines.append(("drawing", f"{what}; 1,000 samples in {_time(self.draw)}, in float32, on one device"))
        lines.append(("memory", f"{_size(self.needed)} of {_size(self.room)}{' each' * (self.devices > 1)}"))
        lines += [("", f"{_size(size):>9}  {part}") for part, size in self.memory.items() if size]
        if self.advice:
            lines.append(("too much", self.advice))
        kept, stored = self.host
        lines.append(("data", f"{_size(kept)} in main memory" + (f", {_size(stored)} on disk" if stored else "")))
        lines.append(("disk", f"{_size(sum(self.disk.values()))} written"))
        lines += [("", f"{_size(size):>9}  {part}") for part, size in self.disk.items() if size]
        return "\n".join(f"{name:<10} {line}" for name, line in lines)


def plan(
    experiment: Experiment,
    gpus: str | None = None,
    *,
    utilisation: float = UTILISATION,
    price: float | None = None,
    data: Dataset | None = None,
) -> Plan:
    """What an experiment will cost.

    Args:
        experiment: what to train.
        gpus: such as "8xH100" or "a100", a key of `GPUS` in any case; None for this machine, measured: on its GPU, or
            on the CPU where there is none or `training.cpu` is set.
        utilisation: share of a GPU's peak rate that is reached, in (0, 1]; not used where times are measured.
        price: of one device for an hour.
        data: the experiment's data, if already loaded.

    Raises:
        InputError: GPUs that are not known or cannot compute in the precision asked for, numbers out of range,
            an experiment that does not fit together.
    """
    count, gpu, name = _parsed(gpus) if gpus is not None else (1, None, "")
    config = experiment.training
    if not 0 < utilisation <= 1:
        raise InputError(f"utilisation={utilisation!r} must be a share of the peak rate, in (0, 1].")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise InputError(f"price={price!r} must be a number, at least 0: of one device for an hour.")
    if gpu and config.precision == "bfloat16" and not gpu.bfloat16:
        raise InputError(f"training.precision='bfloat16' is not to be had on a {name}; plan with float16 or float32.")
    if config.batch_size < count:
        raise InputError(f"training.batch_size={config.batch_size} is less than a sample for each of {count} GPUs.")
    data = data or load_data(experiment)
    experiment, _ = settle(experiment, data)
    parts = _built(experiment, data)
    draws = experiment.objective["name"] != CLASSIFIER
    calls = network_calls(experiment, parts) if draws else 0
    training = count_training(experiment, parts, data)
    drawing = count_call(experiment, parts, data) if draws else None

    weights = 4.0 * sum(p.numel() for p in parts.net.parameters())
    sharded = count > 1 and config.shard == "fsdp"
    own = weights / count if sharded else weights
    x0, labels = data.batch(0, config.batch_size, config.seed)
    remembered = _nbytes(*_memory(parts, x0).values())
    kept = _nbytes(data.train, data.test, data.train_labels, data.test_labels) + 8.0 * len(data.train)
    on_cuda = gpu is not None or (torch.cuda.is_available() and not config.cpu)

    def memory(accumulate: int) -> dict[str, float]:
        each = -(-accumulate // count)
        piece = -(-config.batch_size // (each * count))
        peak = training.peak(piece)
        return {
            "weights": own,
            "gradients": own,
            "gradients, in the buckets that processes exchange": own if count > 1 and not sharded else 0.0,
            "Adam's two moments": 2 * own,
            f"averages of the weights ({len(config.ema)})": len(config.ema) * own,
            "the average that draws pictures": weights,
            # of one piece, the gradients of weights are there when activations are gone; of several, all the time
            f"activations, {piece:,} samples at a time": max(peak - weights, 0.0) if each == 1 else peak,
            "the batch, and what the loss remembers": _nbytes(x0, labels) / (count if gpu else 1) + remembered,
            "data": 0.0 if on_cuda else kept,
            "CUDA, its libraries and workspaces" if on_cuda else "Python, torch and other libraries": (
                _CONTEXT if on_cuda else _PROGRAM
            ),
        }

    if gpu:
        room, where = gpu.memory * 1e9, f"{count} x {name}" if count > 1 else name
        each = -(-config.accumulate // count)
        piece = -(-config.batch_size // (each * count))
        rate = 1e12 * (gpu.half if PRECISIONS[config.precision] else gpu.single) * utilisation
        traffic = own * (10 + 3 * len(config.ema)) / (1e9 * gpu.bandwidth)  # Adam 7, clipping 3, an average 3
        terms = {
            "arithmetic": each * training.flops(piece) / rate,
            "memory traffic": each * training.moved(piece) / (1e9 * gpu.bandwidth) + traffic,
            "starting operations": each * training.kernels * _HOST,
            "exchange of gradients": 2 * (count - 1) / count * weights / (1e9 * gpu.link),
        }
        most = max(terms, key=lambda term: terms[term])
        step = max(
            terms["arithmetic"] + terms["memory traffic"],
            terms["starting operations"],
            terms["exchange of gradients"] + traffic,
        )
        processor = call = busy = plotted = 0.0
        if drawing:
            spent = drawing.flops(BATCH) / (1e12 * gpu.single * utilisation)
            call = max(spent + drawing.moved(BATCH) / (1e9 * gpu.bandwidth), drawing.kernels * _HOST) / BATCH
        basis = (
            f"not measured: published peak rates, {utilisation:.0%} of them assumed to be reached, full bandwidth, "
            f"{_HOST * 1e6:.0f} us to start an operation; bounded by {most}"
        )
    else:
        room, where = _here(on_cuda)
        timed = calibrate(experiment, data)
        step, processor = timed.at(config.batch_size)
        call, busy = calibrate_call(experiment, data) if draws else (0.0, 0.0)
        plotted = _PLOTTED
        basis = (
            f"measured: {_TIMED} training steps at batches of {timed.batches[0]:,} and {timed.batches[1]:,}, as busy "
            "as this machine is now"
        )
    validations = math.ceil(config.steps / config.validate_every)
    shown = calls * experiment.sampling.preview / count + _HELD_OUT if draws else 0
    stored, room = Path(str(experiment.data.get("path", ""))).expanduser(), room * FILLED
    files = [stored] if stored.is_file() else stored.rglob("*") if experiment.data.get("path") else []
    found = memory(config.accumulate)
    return Plan(
        experiment=experiment,
        where=where,
        devices=count,
        parameters=int(weights / 4),
        step_flops=training.flops(config.batch_size),
        call_flops=drawing.flops(BATCH) / BATCH if drawing else 0.0,
        calls=calls,
        memory=found,
        room=room / FILLED,
        host=(kept, float(sum(file.stat().st_size for file in files if file.is_file()))),
        disk=_disk(config, weights + _nbytes(*parts.net.buffers()), remembered),
        step=step,
        previews=validations * (shown * call + plotted),
        draw=1000 * calls * call,
        processor=config.steps * processor + validations * (shown * busy + plotted),
        basis=basis,
        advice="" if sum(found.values()) <= room else _advice(config, memory, room, count, on_cuda),
        price=price,
    )


class Line(NamedTuple):
    """What was measured at two batches, and the straight line through it."""

    batches: tuple[int, int]
    values: tuple[Any, Any]

    def at(self, n: int) -> Any:
        """The value at a batch of n."""
        (few, many), (low, high) = self.batches, self.values
        return high if n == many or few == many else low + (high - low) * ((n - few) / (many - few))


class Counted(NamedTuple):
    """What the operations of one pass do, as functions of the batch."""

    line: Line  # of (flops, bytes moved)
    alive: Line  # of bytes alive after each operation
    kernels: int

    def flops(self, n: int) -> float:
        """Floating-point operations of a batch of n."""
        return float(self.line.at(n)[0])

    def moved(self, n: int) -> float:
        """Bytes that operations without such arithmetic read and write."""
        return float(self.line.at(n)[1])

    def peak(self, n: int) -> float:
        """Bytes alive, the most at a time."""
        return float(np.max(self.alive.at(n)))


class _Meter(TorchDispatchMode):
    """Reads off every operation what it computes, moves and leaves alive, apart from what was there before."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.flops = self.moved = self.live = 0
        self.trace: list[int] = []
        self._there = {tensor.untyped_storage()._cdata for tensor in there}
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in made:
            self._watch(tensor.untyped_storage())
        if func._overloadpacket in _FLOPS:
            self.flops += _FLOPS[func._overloadpacket](*args, **kwargs, out_val=out)
        elif func.is_view or not made:
            return out
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


#: torch's formulas, and those of the CPU's own attention, which its table lacks
_FLOPS: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, out_val, **__: sdpa_flop(
        q.shape, k.shape, v.shape
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, out_val, **__: (
        sdpa_backward_flop(g.shape, q.shape, k.shape, v.shape)
    ),
    **flop_registry,
}


def _counted(work: Callable[[int], None], *there: Tensor) -> Counted:
    """`work(batch)` read at two batches."""
    meters = []
    for batch in (2, 4):
        work(batch)  # caches fill
        with _Meter(*there) as meter:
            work(batch)
        meters.append(meter)
    low, high = meters
    alive = [np.array(meter.trace, float) for meter in meters]
    if len(alive[0]) != len(alive[1]):  # operations that depend on the data
        alive = [trace.max(keepdims=True) for trace in alive]
    sums = [np.array([meter.flops, meter.moved], float) for meter in meters]
    kernels = max(len(low.trace), len(high.trace))
    return Counted(Line((2, 4), (sums[0], sums[1])), Line((2, 4), (alive[0], alive[1])), kernels)


def count_training(experiment: Experiment, parts: Parts, data: Dataset) -> Counted:
    """The experiment's loss, forward and backward, counted on the CPU."""
    config, net = experiment.training, parts.net.train()
    half = PRECISIONS[config.precision]

    def work(batch: int) -> None:
        x0, labels = data.batch(0, batch, config.seed)
        memory = _memory(parts, x0)
        remembering: dict[str, Any] = {"memory": memory} if memory else {}
        net.zero_grad()
        with torch.random.fork_rng([]):
            with torch.autocast("cpu", half) if half else nullcontext():
                dice = torch.Generator().manual_seed(config.seed)
                loss = parts.objective(parts.denoiser, x0, labels, dice, **remembering)
            loss.float().sum().backward()

    found = _counted(work, *net.parameters(), *net.buffers())
    net.zero_grad()
    return found


def count_call(experiment: Experiment, parts: Parts, data: Dataset) -> Counted:
    """One network call as samplers make it, counted on the CPU."""
    call = _caller(experiment, parts, data)
    return _counted(lambda batch: call(batch), *parts.net.parameters(), *parts.net.buffers())


def network_calls(experiment: Experiment, parts: Parts) -> int:
    """Network calls that one sample takes: counted by drawing one with a tiny network in the other's place."""
    wide = 2 if getattr(parts.objective, "learns_variance", False) else 1
    tiny = NETS["mlp"](width=4, depth=1).build((2,), classes=0, out_multiple=wide, seed=0).eval()
    sampling, process = experiment.sampling, parts.process
    walk = trajectory(
        dataclasses.replace(parts.denoiser, net=tiny),  # type: ignore[arg-type]
        (1, 2),
        build_stepper(sampling.stepper),
        steps=sampling.steps or process.chain or 30,
        grid=sampling.grid,
        seed=0,
    )
    return [state.calls for state in walk][-1]


class _Enough(Exception):
    """Ends a calibration between two steps, before anything is saved."""


def calibrate(experiment: Experiment, data: Dataset) -> Line:
    """(seconds, processor seconds) of a real training step at two batches, on this machine.

    The larger is that of the run, cut into its pieces, unless a few such steps would take too long.
    """
    config = experiment.training
    most = config.batch_size // config.accumulate

    def at(batch: int) -> np.ndarray:
        parts = _built(experiment, data)
        memory = _memory(parts, data.batch(0, batch, config.seed)[0])
        remembering: dict[str, Any] = {"memory": memory} if memory else {}
        stamps: list[tuple[float, float]] = []

        def batches(step: int) -> Any:  # asked once a step, so these are the times between steps
            stamps.append((time.perf_counter(), time.process_time()))
            if len(stamps) > _TIMED + 2:
                raise _Enough
            return data.batch(step, batch, config.seed)

        def loss(net: nn.Module, given: Any, dice: torch.Generator) -> Tensor:
            denoiser = dataclasses.replace(parts.denoiser, net=net)  # type: ignore[arg-type]
            return parts.objective(denoiser, *given, dice, **remembering)

        short = dataclasses.replace(config, accumulate=1, steps=10**6, checkpoint_every=10**6, snapshot_every=0)
        with tempfile.TemporaryDirectory() as folder:
            try:
                for _ in fit(parts.net, loss, batches, short, folder, memory=memory):
                    pass
            except _Enough:
                pass
        return np.median(np.diff(stamps, axis=0)[2:], axis=0)

    return _calibrated(at, most)


def calibrate_call(experiment: Experiment, data: Dataset) -> np.ndarray:
    """(seconds, processor seconds) of one network call for one sample, in batches as drawing has them, on this machine."""
    parts = _built(experiment, data)
    if torch.cuda.is_available() and not experiment.training.cpu:
        parts.net.to("cuda")
    call = _caller(experiment, parts, data)

    def at(batch: int) -> np.ndarray:
        stamps = []
        for _ in range(_TIMED + 2):
            stamps.append((time.perf_counter(), time.process_time()))
            call(batch)
        return np.median(np.diff(stamps, axis=0)[1:], axis=0)

    return _calibrated(at, BATCH).at(BATCH) / BATCH


def _calibrated(at: Callable[[int], np.ndarray], most: int) -> Line:
    few = max(1, most // 8)
    low = at(few)
    affordable = int(few * _PATIENCE / max(_TIMED * float(np.max(low)), 1e-9))
    many = min(most, max(2 * few, affordable))
    return Line((few, many), (low, at(many) if many > few else low))


def _caller(experiment: Experiment, parts: Parts, data: Dataset) -> Callable[[int], None]:
    parts.net.eval()
    steps = experiment.sampling.steps or parts.process.chain or 30
    level = parts.process.levels(times(parts.process, steps, experiment.sampling.grid))[0]

    def call(batch: int) -> None:
        x, labels = (None if part is None else part.to(parts.denoiser.device) for part in data.batch(0, batch, 0))
        assert x is not None
        with torch.no_grad():
            float(parts.denoiser.predict(x, level, labels).x0.flatten()[0])  # waits for the device

    return call


def _built(experiment: Experiment, data: Dataset) -> Parts:
    return build(experiment, data.shape, len(data.classes), data.sigma_data, data.transform.levels)


def _memory(parts: Parts, x0: Tensor) -> dict[str, Tensor]:
    return parts.objective.memory(parts.denoiser, x0) if hasattr(parts.objective, "memory") else {}


def _nbytes(*tensors: Tensor | None) -> float:
    return float(sum(tensor.nbytes for tensor in tensors if tensor is not None))


def _disk(config: Training, weights: float, remembered: float) -> dict[str, float]:
    averages, moments = len(config.ema) * weights, 2 * weights
    whole = weights + averages + moments + remembered
    made = math.ceil(config.steps / config.checkpoint_every)
    snapshots = config.steps // config.snapshot_every if config.snapshot_every else 0
    return {
        "the newest weights and averages": weights + averages,
        f"checkpoints, the last {min(config.keep, made)} of {made}": min(config.keep, made) * whole,
        f"{snapshots} snapshots of the averages at half precision": snapshots * averages / 2,
    }


def _parsed(text: str) -> tuple[int, GPU, str]:
    """ "8xH100" as 8, the GPU and its name."""
    found = re.fullmatch(r"\s*(?:(\d+)\s*[xX*]\s*)?([A-Za-z][\w \-]*?)\s*", text)
    if not found or (found[1] and int(found[1]) < 1):
        raise InputError(f"gpus={text!r} must be a GPU with their number before it, such as 8xH100 or L4.")
    name = re.sub(r"[\s_]+", "-", found[2].lower())
    return int(found[1] or 1), lookup(GPUS, name, "gpus"), name.upper()


def _here(on_cuda: bool) -> tuple[float, str]:
    if on_cuda:
        return float(torch.cuda.get_device_properties(0).total_memory), f"this machine's {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return memory, f"this machine's CPU, {threads} thread{'s' * (threads > 1)}"


def _advice(config: Training, memory: Callable[[int], dict[str, float]], room: float, count: int, on_cuda: bool) -> str:
    needed = sum(memory(config.accumulate).values())
    short = f"It does not fit: {_size(needed)} where {FILLED:.0%} of the memory, {_size(room)}, can be filled; "
    most = config.batch_size // count
    for each in range(-(-config.accumulate // count) + 1, most + 1):
        if sum(memory(each * count).values()) <= room:
            return short + f"training.accumulate={each * count} takes {-(-most // each):,} samples at a time and fits."
    ways = ["a smaller network", "smaller samples"]
    ways += [f"{len(config.ema) - 1} lengths in training.ema"] if len(config.ema) > 1 else []
    ways += ["training.shard=fsdp"] if count > 1 and config.shard == "none" else []
    ways += ["GPUs with more memory"] if on_cuda else ["a machine with more memory"]
    return short + f"not even a sample at a time would; take {', '.join(ways[:-1])} or {ways[-1]}."


def _scaled(value: float, unit: str, names: str) -> str:
    power = min(max(int(math.log10(value) // 3), 0), len(names)) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {(' ' + names)[power].strip()}{unit}"


def _flop(value: float) -> str:
    return _scaled(value, "FLOP", "kMGTPEZ")


def _size(value: float) -> str:
    return _scaled(value, "B", "kMGTP")


def _time(seconds: float) -> str:
    """A length of time to about three digits: 4.2 ms, 31 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    for large, small, per, size in (("d", "h", 24, 86400), ("h", "min", 60, 3600), ("min", "s", 60, 60)):
        if seconds >= size:
            whole, rest = divmod(round(seconds * per / size), per)
            return f"{whole} {large} {rest} {small}"
    return f"{seconds:.3g} s"
