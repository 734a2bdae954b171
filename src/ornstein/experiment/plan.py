"""What a training run will cost before it is run: arithmetic, memory, disk, time and money.

*Arithmetic and memory are counted* on two small batches, on the CPU (see `ornstein.training.count`). The count includes
whatever the loss does with the network: several calls, a gradient within a gradient, chains that move.

*Time* comes from one of two places. On this machine, real training steps of this very network are timed at two batches
(`ornstein.experiment.calibrate`); the line through them gives the step. For a GPU that this machine does not have it
comes from published peak rates (`ornstein.experiment.devices`).
"""

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ornstein import ranks
from ornstein.core.learner import JUDGED_BY, LEVELS
from ornstein.data import Dataset
from ornstein.errors import InputError
from ornstein.experiment.afford import network_parts
from ornstein.experiment.build import Built, load_data
from ornstein.experiment.calibrate import TIMED, calibrate, calibrate_call, calibrate_critic, within
from ornstein.experiment.config import Experiment
from ornstein.experiment.critics import rows_drawn
from ornstein.experiment.devices import GPU, HOST, parse_gpus, process_bytes, roofline, this_machine
from ornstein.experiment.run import BATCH
from ornstein.experiment.settle import Settled, settle, settle_drawing
from ornstein.experiment.workload import Workload, count_call, count_work
from ornstein.training import AUTO, PRECISIONS, Training, threads
from ornstein.training.count import Line

#: share of the peak rate that convolutions and matrix products reach, where nothing is measured
UTILISATION = 0.4
#: share of a device's memory that tensors can fill: the rest is lost between them
FILLED = 0.92
#: seconds that a validation's plots and picture take
_PLOTTED = 0.5
#: bytes of a program that has loaded this module, where the system does not say; that training imports beyond it,
#: measured, and of this the plots; that a GPU's context and workspaces take, assumed
_USUAL, _IMPORTED, _PLOTTING, _CONTEXT = 0.3e9, 0.16e9, 0.06e9, 1e9
#: network calls, a sample each, that the held-out error of a validation takes
_HELD_OUT = LEVELS * JUDGED_BY


@dataclass(frozen=True)
class Plan:
    """The cost of an experiment on one kind of device; made by `plan`. Times in seconds, sizes in bytes.

    Attributes:
        experiment: what is to be trained, with everything decided. where: the devices in words. devices: their
            number.
        parameters: of the network.
        step_flops: floating-point operations of a training step, over all devices.
        call_flops: of a network call for one sample, in drawing. calls: network calls that a sample takes.
        memory: by part, on each device. room: that it has. advice: one sentence if that is too little, or "".
        data: in the memory of each process. stored: on disk, 0 where data are made or fetched.
        disk: what the run will have written, by part.
        step, previews, draw: a step; all pictures, held-out errors and what a critic sees; drawing 1,000 samples.
        processor: processor time of steps and previews, 0 where it is not measured. basis: what times rest on.
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
    advice: str
    data: float
    stored: float
    disk: dict[str, float]
    step: float
    previews: float
    draw: float
    processor: float
    basis: str
    price: float | None

    @property
    def needed(self) -> float:
        """Peak bytes on each device."""
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
        config, flops = self.experiment.training, self.step_flops
        lines = [
            ("plan", f"{self.experiment.data['name']} on {self.where}, {config.precision}"),
            ("network", f"{self.experiment.net['name']}, {self.parameters:,} parameters"),
            ("training", f"{config.steps:,} steps of {config.batch_size:,} samples"),
            ("", f"{_scaled(flops)}FLOP a step, {_scaled(flops * config.steps)}FLOP in all"),
            ("time", f"{_time(self.seconds)}, {_time(self.step)} a step; {_time(self.previews)} of it for previews"),
            ("", self.basis),
        ]
        if self.processor:
            lines.append(("", f"{_time(self.processor)} of processor time"))
        if self.cost is not None:
            lines.append(("price", f"{self.cost:,.2f}, at {self.price:g} an hour for each of {self.devices}"))
        if self.calls:
            each = f"{self.calls:,} network calls and {_scaled(self.calls * self.call_flops)}FLOP a sample"
            how = f"in {self.experiment.sampling.precision}, on one device"
            lines.append(("drawing", f"{each}; 1,000 samples in {_time(self.draw)}, {how}"))
        short = f": {self.advice}" if self.advice else ""
        for name, said, parts in (
            ("memory", f"of {_scaled(self.room)}B{' each' * (self.devices > 1)}{short}", self.memory),
            ("disk", "written", self.disk),
        ):
            lines.append((name, f"{_scaled(sum(parts.values()))}B {said}"))
            lines += [("", f"{_scaled(size) + 'B':>9}  {part}") for part, size in parts.items() if size]
        on_disk = f", {_scaled(self.stored)}B on disk" if self.stored else ""
        lines.append(("data", f"{_scaled(self.data)}B in main memory{on_disk}"))
        return "\n".join(f"{name:<10} {line}" for name, line in lines)


def plan(  # long: a third of it is the docstring, a third the result's fields
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
        InputError: unknown GPUs, or ones without the precision asked for; numbers out of range; parts that do not fit.
    """
    count, gpu, name = parse_gpus(gpus) if gpus is not None else (1, None, "")
    _check(experiment, count, gpu, name, utilisation, price)
    data = data or load_data(experiment)
    loaded = _nbytes(data.train, data.test, *data.train_condition.parts.values(), *data.test_condition.parts.values())
    program = _program(loaded)
    narrow = None if gpu is None else "bfloat16" if gpu.bfloat16 else "float32"
    settled = settle(experiment, data, narrow, trains=False)
    tries, built = experiment.training.precision == AUTO, settled.built
    experiment = settle_drawing(settled, narrow)
    config = experiment.training
    work = count_work(experiment, built, data, tries)
    on_gpu = gpu is not None or ranks.device(config.cpu).type != "cpu"
    memory = _Memory(config, work, count, on_gpu, *_sizes(settled, data), loaded, program)
    published = gpu and _published(experiment, built, data, memory, gpu, name, utilisation)
    times = published or _measured(experiment, data, memory)
    memory = dataclasses.replace(memory, reached=times.reached)
    shown = work.calls * experiment.sampling.preview / count + _HELD_OUT if work.drawing else 0
    validation = shown * times.showing + (_PLOTTED if experiment.sampling.preview and not gpu else 0)
    experiment = within(experiment, float(times.step[0]), float(validation[0]))
    config = experiment.training
    taught = rows_drawn(built.learner, config, len(data.train))
    after = calibrate_critic(experiment, data, taught) if taught and not gpu else work.calls * taught * times.drawn
    previews = math.ceil(config.steps / config.validate_every) * validation + after
    found = memory.parts(config.accumulate)
    return Plan(
        experiment=experiment,
        where=times.where,
        devices=count,
        parameters=sum(p.numel() for p in built.net.parameters()),
        step_flops=work.training.flops(config.batch_size),
        call_flops=work.drawing.flops(BATCH) / BATCH if work.drawing else 0.0,
        calls=work.calls,
        memory=found,
        room=times.room,
        advice="" if sum(found.values()) <= times.room * FILLED else _advice(memory, times.room),
        data=loaded + 8.0 * len(data.train),  # and the order of an epoch
        stored=_stored(experiment.data.get("path")),
        disk=_disk(config, memory.weights + _nbytes(*built.net.buffers()), memory.kept),
        step=float(times.step[0]),
        previews=float(previews[0]),
        draw=float(1000 * work.calls * times.drawn[0]),
        processor=0.0 if gpu else float(config.steps * times.step[1] + previews[1]),
        basis=times.basis,
        price=price,
    )


def _check(
    experiment: Experiment, count: int, gpu: GPU | None, name: str, utilisation: float, price: float | None
) -> None:
    config = experiment.training
    if not 0 < utilisation <= 1:
        raise InputError(f"utilisation={utilisation!r} must be a share of the peak rate, in (0, 1].")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise InputError(f"price={price!r} must be a number, at least 0: of one device for an hour.")
    for section, precision in (("training", config.precision), ("sampling", experiment.sampling.precision)):
        if gpu and precision == "bfloat16" and not gpu.bfloat16:
            raise InputError(
                f"{section}.precision='bfloat16' is not available on a {name}; plan with float16 or float32."
            )
    if config.batch_size < count:
        raise InputError(f"training.batch_size={config.batch_size} is less than a sample for each of {count} GPUs.")


def _program(loaded: float) -> float:
    """Bytes of Python and its libraries once training has begun, of a process that has only loaded the data."""
    resident = process_bytes("VmRSS")
    return _IMPORTED + (_USUAL if math.isnan(resident) else max(resident - loaded, 0))


def _sizes(settled: Settled, data: Dataset) -> tuple[float, float, float]:
    """Bytes of the weights, of a batch, and of what the loss remembers."""
    config = settled.experiment.training
    x0, condition = data.batch(0, config.batch_size, config.seed)
    return (
        _nbytes(*settled.built.net.parameters()),
        _nbytes(x0, *condition.parts.values()),
        _nbytes(*settled.memory.values()),
    )


@dataclass(frozen=True)
class _Memory:
    """What lies in the memory of each device, in bytes.

    Attributes:
        config, work: of the run. count: of the devices. on_gpu: whether they are GPUs.
        weights: all of the network's. batch: samples and labels of a step. kept: what the loss remembers.
        loaded: the data. program: Python and its libraries.
        reached: of the whole, by the samples of a piece, where that can be measured.
    """

    config: Training
    work: Workload
    count: int
    on_gpu: bool
    weights: float
    batch: float
    kept: float
    loaded: float
    program: float
    reached: Line | None = None

    @property
    def own(self) -> float:
        """Of the weights, those that one device keeps."""
        return self.weights / self.count if self.config.shard == "fsdp" else self.weights

    def pieces(self, accumulate: int) -> tuple[int, int]:
        """How many pieces a device takes a batch of `accumulate` in, and the samples of one."""
        each = -(-accumulate // self.count)
        return each, -(-self.config.batch_size // (each * self.count))

    def parts(self, accumulate: int) -> dict[str, float]:
        """By part, with a batch in so many pieces."""
        work, kept = self.work, network_parts(self.weights, self.config, self.count)
        each, piece = self.pieces(accumulate)
        # in one piece, activations go as the gradients of weights come; of several, those are there all the time
        held = (each == 1) * self.weights
        activations = {f"activations of {piece:,} samples at a time": work.training.peak(piece) - held}
        if work.drawing:
            activations[f"activations of {BATCH} samples, in previews"] = work.drawing.peak(BATCH)
        if work.trial:  # on a copy of the network, before there are moments and averages
            before = (2 + len(self.config.ema)) * self.own
            activations[f"activations of {piece:,} samples, where float32 is tried"] = work.trial.peak(piece) - before
        most = max(activations, key=lambda name: activations[name])
        found = {
            **kept,
            most: max(activations[most], 0),
            "the batch, and what the loss remembers": self.batch / self.count + self.kept,
            "data": 0 if self.on_gpu else self.loaded,
            "CUDA, its libraries and workspaces" if self.on_gpu else "Python, torch, other libraries": (
                _CONTEXT if self.on_gpu else self.program
            ),
        }
        if self.reached:
            found["scratch memory of operations, and gaps"] = max(self.reached.at(piece) - sum(found.values()), 0)
        return found


class _Times(NamedTuple):
    """How long things take on a device, each as (seconds, processor seconds), these 0 where they are not measured."""

    where: str  # the device in words
    room: float  # bytes of its memory
    step: np.ndarray
    showing: np.ndarray  # a network call for a sample, in previews
    drawn: np.ndarray  # the same in drawing
    basis: str  # in words what they rest on
    reached: Line | None = None  # bytes of the whole, by the samples of a piece


def _published(
    experiment: Experiment, built: Built, data: Dataset, memory: _Memory, gpu: GPU, name: str, utilisation: float
) -> _Times:
    """From the peak rates of GPUs that are not at hand."""
    config, how, work, count = experiment.training, experiment.sampling, memory.work, memory.count
    each, piece = memory.pieces(config.accumulate)
    rate = gpu.half if PRECISIONS[config.precision] else gpu.single
    # of a weight, Adam reads and writes 7 numbers, clipping 3, an average 3
    moved = each * work.training.moved(piece) + memory.own * (10 + 3 * len(config.ema))
    sent = 2 * (count - 1) / count * memory.weights
    kernels = each * work.training.kernels
    step, bound = roofline(gpu, rate * utilisation, each * work.training.flops(piece), moved, kernels, sent)
    showing, drawn = np.zeros(2), np.zeros(2)
    if work.drawing:
        for call, precision in ((showing, work.shows), (drawn, how.precision)):
            counts = work.drawing if precision == work.shows else count_call(experiment, built, data, precision)
            rate = gpu.half if PRECISIONS[precision] else gpu.single
            flops, moved = counts.flops(BATCH), counts.moved(BATCH)
            call[0] = roofline(gpu, rate * utilisation, flops, moved, counts.kernels)[0] / BATCH
    basis = (
        f"from published peak rates, of which {utilisation:.0%} are assumed to be reached, and {HOST * 1e6:.0f} "
        f"us to start an operation; bounded by {bound}"
    )
    where = f"{count} x {name}" if count > 1 else name
    return _Times(where, gpu.memory * 1e9, np.array([step, 0.0]), showing, drawn, basis)


def _measured(experiment: Experiment, data: Dataset, memory: _Memory) -> _Times:
    """On this machine."""
    how, work = experiment.sampling, memory.work
    number = experiment.training.threads
    with nullcontext() if number == AUTO else threads(int(number)):
        where, room = this_machine(memory.on_gpu)
        line = calibrate(experiment, data)
        showing, drawn = np.zeros(2), np.zeros(2)
        if work.drawing:
            showing = calibrate_call(experiment, data, work.shows)
            drawn = showing if how.precision == work.shows else calibrate_call(experiment, data, how.precision)
    # training at `many` and then network calls have left this behind, as training and then previews will
    whole = process_bytes("VmHWM") + memory.weights + _PLOTTING
    known = not (memory.on_gpu or math.isnan(whole))
    reached = Line(line.few, line.many, whole - (line.high - line.low)[2], whole) if known else None
    basis = f"measured: {TIMED} steps each at batches of {line.few:,} and {line.many:,}, on a machine as busy as now"
    return _Times(where, room, line.at(experiment.training.batch_size), showing, drawn, basis, reached)


def _advice(memory: _Memory, room: float) -> str:
    config, count = memory.config, memory.count
    short = f"it does not fit, as {FILLED:.0%} of it can be filled; "
    for each in range(-(-config.accumulate // count) + 1, config.batch_size // count + 1):
        if sum(memory.parts(each * count).values()) <= room * FILLED:
            return short + f"set training.accumulate={each * count}, which does."
    ways = ["smaller samples", "a device with more memory"]
    if count > 1 and config.shard == "none":
        ways.insert(0, "training.shard=fsdp")
    return f"{short}nor would smaller pieces; take a smaller network, {', '.join(ways[:-1])} or {ways[-1]}."


def _disk(config: Training, weights: float, remembered: float) -> dict[str, float]:
    averages = len(config.ema) * weights
    made = math.ceil(config.steps / config.checkpoint_every)
    kept = min(config.keep, made)
    snapshots = config.steps // config.snapshot_every if config.snapshot_every else 0
    return {
        "the newest weights and their averages": weights + averages,
        f"checkpoints, {kept} of {made} kept": kept * (3 * weights + averages + remembered),
        f"snapshots of the averages at half precision, {snapshots}": snapshots * averages / 2,
    }


def _stored(path: Any) -> float:
    place = Path(str(path)).expanduser()
    files = [place] if place.is_file() else place.rglob("*") if path else []
    return float(sum(file.stat().st_size for file in files if file.is_file()))


def _nbytes(*tensors: Tensor | None) -> float:
    return float(sum(tensor.nbytes for tensor in tensors if tensor is not None))


def _scaled(value: float) -> str:
    """A number to three digits with its prefix: "12.3 G"."""
    power = min(int(math.log10(value) // 3), 6) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTPE'[power].strip()}"


def _time(seconds: float) -> str:
    """A length of time in at most two units: 4.2 ms, 31 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
    units = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    large, size, small, part = next(row for row in units if seconds >= row[1])
    whole, rest = divmod(round(seconds / part), size // part)
    return f"{whole} {large} {rest} {small}"
