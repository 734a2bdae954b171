"""What a training run will cost before it is run: arithmetic, memory, disk, time and money.

*Arithmetic and memory are counted* on two small batches, on the CPU (see `ornstein.experiment.count`): whatever the
loss asks of the network, several calls, a gradient within a gradient, chains that move, is in the count.

*Time* comes from one of two places. On this machine, real training steps of this very network are timed at two batches,
up to the whole one if a few seconds allow; the line through them gives the step. For a GPU that is not at hand it
comes from published peak rates,

    step = max(F / (u R) + M / W,  K h,  G / L),

with F operations at the peak rate R of the precision and a utilisation u; M bytes that other operations read and write
at the bandwidth W (the roofline of Williams et al. 2009, doi 10.1145/1498765.1498785, for each kind of operation);
K operations that take the host h to start, which bounds small networks on any GPU; and G = 2 (n - 1)/n bytes for each
byte of gradients through the link L of each of n devices, while the backward pass runs. u and h are assumptions.
"""

import dataclasses
import math
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ornstein.core.drive import trajectory
from ornstein.core.grids import times
from ornstein.data import Dataset
from ornstein.errors import InputError, lookup
from ornstein.experiment.build import Parts, build, build_stepper, load_data, measured_precision, needs_float32, settle
from ornstein.experiment.config import CLASSIFIER, ENERGY, Experiment
from ornstein.experiment.count import Counted, Line, counted
from ornstein.experiment.run import BATCH, Run
from ornstein.nets import MLP
from ornstein.training import AUTO, PRECISIONS, Training, fit, half


class GPU(NamedTuple):
    """What a datasheet says: dense peak rates in 1e12/s, memory in 1e9 bytes, bandwidth and link in 1e9 bytes/s."""

    half: float  # tensor cores, bfloat16 and float16 with float32 sums, without sparsity
    single: float  # float32 on the ordinary cores
    memory: float
    bandwidth: float
    link: float  # to the other GPUs, one direction
    bfloat16: bool = True


#: NVIDIA's and AMD's datasheets: V100 (SXM2) 2020, T4 2019, A100 (SXM4) 2021, A10 2021, RTX 3090 and 4090 (GA102 and
#: AD102 whitepapers), L4 and L40S 2023, H100 and H200 (SXM) 2024, Blackwell (HGX B200) 2025, MI300X 2023. Where sheets
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
#: seconds that the host takes to start one operation; that a validation's plots and picture take
_HOST, _PLOTTED = 10e-6, 0.5
#: bytes of a program that has loaded this module, where the system does not say; that training imports beyond it,
#: measured, and of this the plots; that a GPU's context and workspaces take, assumed
_USUAL, _IMPORTED, _PLOTTING, _CONTEXT = 0.3e9, 0.16e9, 0.06e9, 1e9
#: seconds that a calibration may take at its larger batch; what it times, after two that warm up
_PATIENCE, _TIMED = 20.0, 5
#: network calls, a sample each, that the held-out error of a validation takes
_HELD_OUT = 16 * 256


@dataclass(frozen=True)
class Plan:
    """The cost of an experiment on one kind of device; made by `plan`. Times in seconds, sizes in bytes.

    Attributes:
        experiment: what is to be trained, what it leaves open decided. where: the devices in words. devices: their
            number.
        parameters: of the network.
        step_flops: floating-point operations of a training step, over all devices.
        call_flops: of a network call for one sample, in drawing. calls: network calls that a sample takes.
        memory: by part, on each device. room: that it has. advice: one sentence where that is too little, or "".
        data: in the memory of each process. stored: on disk, 0 where data are made or fetched.
        disk: what the run will have written, by part.
        step, previews, draw: a training step; all pictures and held-out errors; drawing 1,000 samples.
        processor: processor time of all steps and previews, 0 where it is not measured.
        basis: in words what times rest on.
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
    for section, precision in (("training", config.precision), ("sampling", experiment.sampling.precision)):
        if gpu and precision == "bfloat16" and not gpu.bfloat16:
            raise InputError(
                f"{section}.precision='bfloat16' is not to be had on a {name}; plan with float16 or float32."
            )
    if config.batch_size < count:
        raise InputError(f"training.batch_size={config.batch_size} is less than a sample for each of {count} GPUs.")
    data = data or load_data(experiment)
    loaded = _nbytes(data.train, data.test, data.train_labels, data.test_labels)
    resident = _own("VmRSS")
    program = _IMPORTED + (_USUAL if math.isnan(resident) else max(resident - loaded, 0))
    experiment, _ = settle(experiment, data)
    parts = _built(experiment, data)
    asked, experiment = experiment, decide_precisions(experiment, parts, data, gpu)
    config, how = experiment.training, experiment.sampling
    training = count_training(experiment, parts, data)
    trial = None  # of float32, which is tried before it is left
    if asked.training.precision == AUTO and config.precision != "float32":
        wide = dataclasses.replace(config, precision="float32")
        trial = count_training(dataclasses.replace(experiment, training=wide), parts, data)
    draws = experiment.objective["name"] != CLASSIFIER
    calls = network_calls(experiment, parts) if draws else 0
    # pictures and held-out errors are in training's precision
    shows = "float32" if experiment.predicts == ENERGY else config.precision
    drawing = count_call(experiment, parts, data, shows) if draws else None

    weights = _nbytes(*parts.net.parameters())
    shared = config.shard == "fsdp"
    own = weights / count if shared else weights
    x0, labels = data.batch(0, config.batch_size, config.seed)
    remembered = _nbytes(*_memory(parts, x0).values())
    on_gpu = gpu is not None or _device(config).type == "cuda"

    reached: Line | None = None  # bytes of the whole, by the samples of a piece, where that can be measured

    def pieces(accumulate: int) -> tuple[int, int]:
        each = -(-accumulate // count)
        return each, -(-config.batch_size // (each * count))

    def memory(accumulate: int) -> dict[str, float]:
        each, piece = pieces(accumulate)
        # in one piece, activations go as the gradients of weights come; of several, those are there all the time
        activations = {f"activations of {piece:,} samples at a time": training.peak(piece) - (each == 1) * weights}
        if drawing:
            activations[f"activations of {BATCH} samples, in previews"] = drawing.peak(BATCH)
        if trial:  # on a copy of the network, before there are moments and averages
            before = (2 + len(config.ema)) * own
            activations[f"activations of {piece:,} samples, where float32 is tried"] = trial.peak(piece) - before
        most = max(activations, key=lambda name: activations[name])
        found = {
            "weights": own,
            "gradients": own,
            "gradients on their way between processes": own if count > 1 and not shared else 0,
            "Adam's two moments": 2 * own,
            f"averages of the weights, {len(config.ema)}": len(config.ema) * own,
            "the average that previews are drawn by": weights,
            most: max(activations[most], 0),
            "the batch, and what the loss remembers": _nbytes(x0, labels) / count + remembered,
            "data": 0 if on_gpu else loaded,
            "CUDA, its libraries and workspaces" if on_gpu else "Python, torch, other libraries": (
                _CONTEXT if on_gpu else program
            ),
        }
        if reached:
            found["scratch memory of operations, and gaps"] = max(reached.at(piece) - sum(found.values()), 0)
        return found

    showing, drawn = np.zeros(2), np.zeros(2)  # seconds, processor seconds of a network call for a sample
    if gpu:
        where, room = f"{count} x {name}" if count > 1 else name, gpu.memory * 1e9
        each, piece = pieces(config.accumulate)
        rate = gpu.half if PRECISIONS[config.precision] else gpu.single
        # of a weight, Adam reads and writes 7 numbers, clipping 3, an average 3
        moved = each * training.moved(piece) + own * (10 + 3 * len(config.ema))
        sent = 2 * (count - 1) / count * weights
        kernels = each * training.kernels
        step, bound = _roofline(gpu, rate * utilisation, each * training.flops(piece), moved, kernels, sent)
        spent = np.array([step, 0.0])
        for call, precision in ((showing, shows), (drawn, how.precision)):
            if drawing:
                counts = drawing if precision == shows else count_call(experiment, parts, data, precision)
                rate = gpu.half if PRECISIONS[precision] else gpu.single
                flops, moved = counts.flops(BATCH), counts.moved(BATCH)
                call[0] = _roofline(gpu, rate * utilisation, flops, moved, counts.kernels)[0] / BATCH
        basis = (
            f"from published peak rates, of which {utilisation:.0%} are assumed to be reached, and {_HOST * 1e6:.0f} "
            f"us to start an operation; bounded by {bound}"
        )
    else:
        where, room = _here(on_gpu)
        line = calibrate(experiment, data)
        spent = line.at(config.batch_size)
        if draws:
            showing = calibrate_call(experiment, data, shows)
            drawn = showing if how.precision == shows else calibrate_call(experiment, data, how.precision)
        # training at `many` and then network calls have left this behind, as training and then previews will
        whole = _own("VmHWM") + weights + _PLOTTING
        if not (on_gpu or math.isnan(whole)):
            reached = Line(line.few, line.many, whole - (line.high - line.low)[2], whole)
        basis = (
            f"measured: {_TIMED} steps each at batches of {line.few:,} and {line.many:,}, on a machine as busy as now"
        )
    shown = calls * how.preview / count + _HELD_OUT if draws else 0
    previews = math.ceil(config.steps / config.validate_every) * (shown * showing + (0 if gpu else _PLOTTED))
    found = memory(config.accumulate)
    return Plan(
        experiment=experiment,
        where=where,
        devices=count,
        parameters=sum(p.numel() for p in parts.net.parameters()),
        step_flops=training.flops(config.batch_size),
        call_flops=drawing.flops(BATCH) / BATCH if drawing else 0.0,
        calls=calls,
        memory=found,
        room=room,
        advice="" if sum(found.values()) <= room * FILLED else _advice(config, memory, room, count),
        data=loaded + 8.0 * len(data.train),  # and the order of an epoch
        stored=_stored(experiment.data.get("path")),
        disk=_disk(config, weights + _nbytes(*parts.net.buffers()), remembered),
        step=float(spent[0]),
        previews=float(previews[0]),
        draw=float(1000 * calls * drawn[0]),
        processor=0.0 if gpu else float(config.steps * spent[1] + previews[1]),
        basis=basis,
        price=price,
    )


def decide_precisions(experiment: Experiment, parts: Parts, data: Dataset, gpu: GPU | None = None) -> Experiment:
    """The experiment with its precisions, where they are "auto", decided.

    For this machine they are measured, as training and drawing will; for a GPU that is not at hand they are bfloat16
    where it has that, and float32 where not.
    """
    config, how = experiment.training, experiment.sampling
    training, sampling = config.precision, how.precision
    has = "bfloat16" if gpu and gpu.bfloat16 else "float32"
    energy = experiment.predicts == ENERGY
    if training == AUTO:
        piece = data.batch(0, -(-config.batch_size // config.accumulate), config.seed)
        if gpu:
            training = "float32" if needs_float32(experiment, parts, piece[0]) else has
        else:
            training, _ = measured_precision(experiment, parts, *piece, _device(config))
    if energy:
        sampling = "float32"
    elif sampling == AUTO and gpu:
        sampling = has
    elif sampling == AUTO:
        apart = _built(experiment, data)
        apart.net.eval().to(_device(config))
        found = Run(Path(), experiment, {"data": data.fingerprint()}, apart.denoiser, data.transform).drawing().denoiser
        sampling = next(name for name, dtype in PRECISIONS.items() if dtype == getattr(found, "precision", None))
    return dataclasses.replace(
        experiment,
        training=dataclasses.replace(config, precision=training),
        sampling=dataclasses.replace(how, precision=sampling),
    )


def count_training(experiment: Experiment, parts: Parts, data: Dataset) -> Counted:
    """The experiment's loss, forward and backward, counted on the CPU."""
    net, config = parts.net.train(), experiment.training

    def work(batch: int) -> None:
        x0, labels = data.batch(0, batch, config.seed)
        memory = _memory(parts, x0)
        remembering: dict[str, Any] = {"memory": memory} if memory else {}
        net.zero_grad()
        with torch.random.fork_rng([]), half(torch.device("cpu"), config.precision):
            dice = torch.Generator().manual_seed(config.seed)
            loss = parts.objective(parts.denoiser, x0, labels, dice, **remembering)
        loss.float().sum().backward()

    found = counted(work, net)
    net.zero_grad()
    return found


def count_call(experiment: Experiment, parts: Parts, data: Dataset, precision: str) -> Counted:
    """One network call as samplers make it, counted on the CPU."""
    return counted(_caller(experiment, parts, data, precision), parts.net)


def network_calls(experiment: Experiment, parts: Parts) -> int:
    """Network calls that one sample takes: counted by drawing one with a tiny network in the other's place."""
    wide = 2 if getattr(parts.objective, "learns_variance", False) else 1
    tiny = MLP(width=4, depth=1).build((2,), classes=0, out_multiple=wide, seed=0).eval()
    denoiser = dataclasses.replace(parts.denoiser, net=tiny)  # type: ignore[arg-type]
    how = experiment.sampling
    steps = how.steps or parts.process.chain or 30
    for state in trajectory(denoiser, (1, 2), build_stepper(how.stepper), steps=steps, grid=how.grid, seed=0):
        calls = state.calls
    return calls


class _Enough(Exception):
    """Ends a calibration between two steps, before anything is saved."""


def calibrate(experiment: Experiment, data: Dataset) -> Line:
    """(seconds, processor seconds, most bytes in memory) of real training steps at two batches, on this machine.

    The larger is that of the run, or of a piece of it, unless a few such steps would take too long. Bytes are the
    whole process's, NaN where the system does not say.
    """
    config = experiment.training

    def at(batch: int) -> np.ndarray:
        parts = _built(experiment, data)
        memory = _memory(parts, data.batch(0, batch, config.seed)[0])
        remembering: dict[str, Any] = {"memory": memory} if memory else {}
        _own("VmHWM", since_now=True)
        stamps: list[tuple[float, float]] = []

        def batches(step: int) -> Any:  # asked for once a step, so these are the times between steps
            stamps.append((time.perf_counter(), time.process_time()))
            if len(stamps) > _TIMED + 2:
                raise _Enough
            return data.batch(step, batch, config.seed)

        def loss(net: nn.Module, given: tuple[Tensor, Tensor | None], dice: torch.Generator) -> Tensor:
            denoiser = dataclasses.replace(parts.denoiser, net=net)  # type: ignore[arg-type]
            return parts.objective(denoiser, *given, dice, **remembering)

        short = dataclasses.replace(config, accumulate=1, steps=10**6, checkpoint_every=10**6, snapshot_every=0)
        with tempfile.TemporaryDirectory() as folder:
            try:
                for _ in fit(parts.net, loss, batches, short, folder, memory=memory):
                    pass
            except _Enough:
                pass
        return np.array([*np.median(np.diff(stamps, axis=0)[2:], axis=0), _own("VmHWM")])

    return _calibrated(at, config.batch_size // config.accumulate)


def calibrate_call(experiment: Experiment, data: Dataset, precision: str) -> np.ndarray:
    """(seconds, processor seconds) of a network call for one sample, in batches as drawing has them, measured here."""
    parts = _built(experiment, data)
    parts.net.to(_device(experiment.training))
    call = _caller(experiment, parts, data, precision)

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
    affordable = int(few * _PATIENCE / (_TIMED * float(np.max(low[:2]))))
    many = min(most, max(2 * few, affordable))
    return Line(few, many, low, at(many) if many > few else low)


def _caller(experiment: Experiment, parts: Parts, data: Dataset, precision: str) -> Callable[[int], None]:
    parts.net.eval()
    steps = experiment.sampling.steps or parts.process.chain or 30
    level = parts.process.levels(times(parts.process, steps, experiment.sampling.grid))[0]

    def call(batch: int) -> None:
        x, labels = data.batch(0, batch, 0)
        there = parts.denoiser.device
        with torch.no_grad(), half(there, precision):
            found = parts.denoiser.predict(x.to(there), level, None if labels is None else labels.to(there))
            found.x0.cpu()  # waits for the device

    return call


def _built(experiment: Experiment, data: Dataset) -> Parts:
    return build(experiment, data.shape, len(data.classes), data.sigma_data, data.transform.levels)


def _device(config: Training) -> torch.device:
    """Where a run on this machine would be."""
    return torch.device("cuda" if torch.cuda.is_available() and not config.cpu else "cpu")


def _memory(parts: Parts, x0: Tensor) -> dict[str, Tensor]:
    return parts.objective.memory(parts.denoiser, x0) if hasattr(parts.objective, "memory") else {}


def _roofline(gpu: GPU, rate: float, flops: float, moved: float, kernels: int, sent: float = 0.0) -> tuple[float, str]:
    """Seconds, and what they are bounded by."""
    arithmetic, traffic = flops / (1e12 * rate), moved / (1e9 * gpu.bandwidth)
    return max(
        (arithmetic + traffic, "arithmetic" if arithmetic > traffic else "the memory's bandwidth"),
        (kernels * _HOST, "starting operations: a larger GPU would be no faster"),
        (sent / (1e9 * gpu.link), "the exchange of gradients"),
    )


def _advice(config: Training, memory: Callable[[int], dict[str, float]], room: float, count: int) -> str:
    short = f"it does not fit, as {FILLED:.0%} of it can be filled; "
    for each in range(-(-config.accumulate // count) + 1, config.batch_size // count + 1):
        if sum(memory(each * count).values()) <= room * FILLED:
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


def _parsed(text: str) -> tuple[int, GPU, str]:
    """ "8xH100" as 8, the GPU and its name."""
    found = re.fullmatch(r"(?:(\d+) ?[x*] ?)?([a-z][\w -]*)", text.strip().lower())
    if not found or found[1] == "0":
        raise InputError(f"gpus={text!r} must be a GPU, with their number before it, such as 8xH100 or L4.")
    name = re.sub(r"[\s_]+", "-", found[2])
    return int(found[1] or 1), lookup(GPUS, name, "gpus"), name.upper()


def _here(on_gpu: bool) -> tuple[str, float]:
    """This machine in words, and its memory."""
    if on_gpu:
        return f"this machine's {torch.cuda.get_device_name()}", torch.cuda.get_device_properties(0).total_memory
    threads = torch.get_num_threads()
    words = f"this machine's CPU, {threads} thread{'s' * (threads > 1)}"
    return words, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _own(field: str, since_now: bool = False) -> float:
    """VmRSS, bytes of this process in memory, or VmHWM, the most at a time; NaN where the system is not Linux."""
    try:
        if since_now:
            Path("/proc/self/clear_refs").write_text("5")
        return 1024.0 * int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])
    except (OSError, IndexError):
        return math.nan


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
