"""How fast networks are trained and called: ours and other libraries' (`peers.py`), on one machine in one run.

    python benchmarks/throughput.py                       both sizes, all entries; about half an hour
    python benchmarks/throughput.py --quick --only ornstein,azula --sizes grey
    python benchmarks/throughput.py --ours "" --ours "training.precision=float32"      several variants of our own

Timed are whole training steps (forward, backward, the entry's own optimiser and average of weights; ours through its
training loop with its input pipeline and log), calls of the network as in sampling, and a sample of 64 images in 20
calls, whose time over that of 20 bare calls shows what the sampling loop adds.

*Useful rate.* The arithmetic of each network is counted by torch's flop counter on one float32 pass forward and
backward (with attention written out as matrix products, which is all that the counter sees), the same for every entry;
optimiser, normalisations and lower precision do not count. The rate is that count over the measured time. The machine's
own limit is measured in the same rounds: the best matrix product and the best 3x3 convolution forward and backward,
over sizes and layouts, in float32 and in bfloat16; "of limit" is the share of the best convolution's rate.

*Interleaved.* Each entry runs in a process of its own, so that its peak memory is its own; the parent asks one after
another for a short burst, in a new order each round, so that the machine's other work affects all of them. The table
has medians and quartiles over rounds. Every figure, the rounds' bursts and the machine go to throughput.json.
"""

import argparse
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import peers
import torch
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "pictures" / "throughput.png"
#: images in a training step, and in a call
BATCH = {"colour": (32, 64), "grey": (64, 64)}
CALLS = 20
LIMITS = "limits"


# One entry, in a process of its own -----------------------------------------------------------------------------------


def peak() -> float:
    """The most memory this process has had since `forget`, in MB; 0 if the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def forget() -> None:
    """Reset the peak of memory to what is held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def release() -> None:
    """Return free memory to the system, since a dozen entries run side by side."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        return


def counted(peer: peers.Peer, shape: tuple[int, ...]) -> tuple[float, float]:
    """GFLOP of one call and of forward and backward of a training step, for one image."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(2, *shape)
    peer.net.train()
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            peer.network(x)
        with FlopCounterMode(display=False) as both:
            peer.network(x).square().sum().backward()
    peer.net.zero_grad(set_to_none=True)
    return forward.get_total_flops() / 2e9, both.get_total_flops() / 2e9


def repeated(run: Any, seconds: float, least: int = 1) -> tuple[float, int]:
    """Seconds and number of runs, as many as fit into `seconds` judging by the first, which is not counted."""
    start = time.perf_counter()
    run()
    count = max(least, round(seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(count):
        run()
    return time.perf_counter() - start, count


class Entry:
    """What a worker can measure for one entry."""

    def __init__(self, name: str, size: str, seconds: float) -> None:
        torch.manual_seed(0)
        self.peer, self.seconds = peers.make(name, size), seconds
        train, call = BATCH[size]
        self.images = torch.rand(train, *peers.SHAPES[size]) * 2 - 1
        self.x = torch.randn(call, *peers.SHAPES[size])
        self.gflop = counted(self.peer, peers.SHAPES[size])
        self.peer.train(self.images, peers.BURST)
        self.burst = 0

    def about(self) -> dict[str, Any]:
        return {
            "version": self.peer.version,
            "parameters": self.peer.parameters,
            "gflop_call": self.gflop[0],
            "gflop_step": self.gflop[1],
        }

    def train(self) -> dict[str, float]:
        forget()
        start = time.perf_counter()
        self.peer.train(self.images, peers.BURST)  # after the others' turns, memory and caches must be filled again
        if not self.burst:  # once, so that every round measures the same
            self.burst = peers.BURST * max(1, round(self.seconds / (time.perf_counter() - start)))
        start = time.perf_counter()
        self.peer.train(self.images, self.burst)
        return {"seconds": (time.perf_counter() - start) / self.burst, "peak": peak()}

    def call(self) -> dict[str, float]:
        self.peer.call(self.x)
        forget()
        seconds, count = repeated(lambda: self.peer.call(self.x), self.seconds, least=2)
        return {"seconds": seconds / count, "peak": peak()}

    def sample(self) -> dict[str, float]:
        self.peer.call(self.x)
        bare, count = repeated(lambda: self.peer.call(self.x), 0.5 * self.seconds, least=2)
        start = time.perf_counter()
        self.peer.sample(len(self.x), CALLS, seed=0)
        seconds = time.perf_counter() - start
        after, more = repeated(lambda: self.peer.call(self.x), 0.5 * self.seconds, least=2)
        return {"seconds": seconds, "ratio": seconds / CALLS / ((bare + after) / (count + more))}

    def end(self) -> dict[str, float]:
        if isinstance(self.peer, peers.Ornstein):
            self.peer.close()
        return {}


class Limits:
    """The machine's own limits: useful GFLOP/s of single operations."""

    def about(self) -> dict[str, Any]:
        return {}

    def limits(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for precision in (torch.float32, torch.bfloat16):
            kind = str(precision).removeprefix("torch.")
            for side in (1024, 2048):
                a, b = torch.randn(side, side, dtype=precision), torch.randn(side, side, dtype=precision)
                seconds, count = repeated(lambda a=a, b=b: a @ b, 0.1)
                found[f"matmul {kind} {side}"] = 2e-9 * side**3 * count / seconds
            for channels, side in ((64, 32), (128, 32), (128, 16), (256, 16), (256, 8)):
                for layout in (torch.contiguous_format, torch.channels_last):
                    x = torch.randn(32, channels, side, side, dtype=precision).to(memory_format=layout)
                    weight = torch.randn(channels, channels, 3, 3, dtype=precision).to(memory_format=layout)
                    x.requires_grad_()
                    weight.requires_grad_()
                    grad = torch.randn_like(x)

                    def run(x: Tensor = x, weight: Tensor = weight, grad: Tensor = grad) -> None:
                        torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), grad)

                    seconds, count = repeated(run, 0.1)
                    where = "channels-last" if layout is torch.channels_last else "contiguous"
                    flop = 3 * 2 * 9 * 32 * side**2 * channels**2
                    found[f"conv {kind} {channels}x{side}x{side} {where}"] = 1e-9 * flop * count / seconds
        return found

    def end(self) -> dict[str, float]:
        return {}


def worker(name: str, size: str, seconds: float, threads: int) -> None:
    """Answer each JSON line with a request by one with the result, until told to end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    torch.set_num_threads(threads)
    entry: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if entry is None:
                entry = Limits() if name == LIMITS else Entry(name, size, seconds)
            answer = getattr(entry, asked)()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
        if asked == "end":
            return
        release()


# The parent, who asks -------------------------------------------------------------------------------------------------


class Worker:
    """A process that stays alive and measures one burst after another."""

    def __init__(self, name: str, size: str, seconds: float, threads: int) -> None:
        self.name, self.failed = name, False
        command = [sys.executable, __file__, "--worker", name, "--sizes", size]
        command += ["--seconds", str(seconds), "--threads", str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.about = self.ask("about")

    def ask(self, what: str) -> dict[str, Any]:
        if self.failed:
            return {}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps(what), file=self.process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "the process has died"}')
        except BrokenPipeError:
            answer = {"error": "the process has died"}
        if "error" in answer:
            self.failed = True
            print(f"{self.name} is left out: {answer['error']}", flush=True)
            return {}
        return answer

    def end(self) -> None:
        self.ask("end")
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measured(size: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Every entry at one size, over rounds."""
    workers = [Worker(name, size, options.seconds, options.threads) for name in names]
    machine = Worker(LIMITS, size, options.seconds, options.threads)
    bursts: dict[str, dict[str, list[dict[str, float]]]] = {w.name: {} for w in workers}
    rates: dict[str, list[float]] = {}
    shuffled = random.Random(0)
    for number in range(options.rounds):
        for what in ("train", "call", "sample"):
            if what == "sample" and number % max(1, options.rounds // 3):
                continue
            for entry in shuffled.sample(workers, len(workers)):
                if answer := entry.ask(what):
                    bursts[entry.name].setdefault(what, []).append(answer)
        for operation, rate in machine.ask("limits").items():
            rates.setdefault(operation, []).append(rate)
        print(f"{size}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    for entry in [*workers, machine]:
        entry.end()

    limits: dict[str, Any] = {}
    for kind in ("matmul float32", "matmul bfloat16", "conv float32", "conv bfloat16"):
        best = max((name for name in rates if name.startswith(kind)), key=lambda name: statistics.median(rates[name]))
        limits[kind] = {"gflops": quartiles(rates[best]), "where": best.removeprefix(kind).strip()}
    ceiling = max(limits["conv float32"]["gflops"][1], limits["conv bfloat16"]["gflops"][1])
    train, call = BATCH[size]
    entries = {}
    for entry in workers:
        if entry.failed:
            continue
        found: dict[str, Any] = dict(entry.about)
        for what, batch, gflop in (("train", train, found["gflop_step"]), ("call", call, found["gflop_call"])):
            seconds = quartiles([burst["seconds"] for burst in bursts[entry.name][what]])
            rate = batch * gflop / seconds[1]
            found[what] = {
                "batch": batch,
                "ms": [1e3 * s for s in seconds],
                "images_s": batch / seconds[1],
                "gflops": rate,
                "gflops_quartiles": [batch * gflop / seconds[2], batch * gflop / seconds[0]],
                "of_limit": rate / ceiling,
                "peak_mb": max(burst["peak"] for burst in bursts[entry.name][what]),
                "rounds_ms": [1e3 * burst["seconds"] for burst in bursts[entry.name][what]],
            }
        found["sample"] = {
            "calls": CALLS,
            "images": call,
            "seconds": quartiles([burst["seconds"] for burst in bursts[entry.name]["sample"]]),
            "over_bare_calls": quartiles([burst["ratio"] for burst in bursts[entry.name]["sample"]]),
        }
        entries[entry.name] = found
    return {"limits": limits, "entries": entries}


# What is said ---------------------------------------------------------------------------------------------------------


def table(size: str, found: dict[str, Any]) -> str:
    """One size as a markdown table, the fastest to train first, and a sentence about ours."""
    channels, height, width = peers.SHAPES[size]
    train, call = BATCH[size]
    lines = [
        f"**{size}**: {height}x{width}x{channels}; training by {train}, calls by {call} images; median (quartiles)",
        "",
        "| entry | parameters, million | GFLOP an image: step, call | training step, ms | images/s | GFLOP/s | of limit"
        " | peak, MB | call, ms | images/s | GFLOP/s | of limit | peak, MB | sampler over bare calls |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    ordered = sorted(found["entries"].items(), key=lambda item: -item[1]["train"]["gflops"])
    for name, entry in ordered:
        cells = [f"{name} ({entry['version']})"]
        cells += [f"{entry['parameters'] / 1e6:.2f}", f"{entry['gflop_step']:.2f}, {entry['gflop_call']:.2f}"]
        for what in ("train", "call"):
            part = entry[what]
            low, middle, high = part["ms"]
            cells += [f"{middle:.0f} ({low:.0f}-{high:.0f})", f"{part['images_s']:.1f}", f"{part['gflops']:.0f}"]
            cells += [f"{part['of_limit']:.0%}", f"{part['peak_mb']:.0f}"]
        cells.append(f"{entry['sample']['over_bare_calls'][1]:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    limits = ", ".join(f"{k} {v['gflops'][1]:.0f} ({v['where']})" for k, v in found["limits"].items())
    lines += ["", f"The machine's limits in the same rounds, GFLOP/s: {limits}."]
    ours = [name for name in found["entries"] if name.startswith(peers.OURS)]
    theirs = [name for name in found["entries"] if name not in ours]
    if ours and theirs:
        for what, word in (("train", "training"), ("call", "calls")):
            for unit, said in (("gflops", "GFLOP/s"), ("images_s", "images/s")):
                best = max(theirs, key=lambda name: found["entries"][name][what][unit])
                for name in ours:
                    ratio = found["entries"][name][what][unit] / found["entries"][best][what][unit]
                    lines.append(f"{name}, {word}: {ratio:.2f} times the {said} of the best other entry, {best}.")
    return "\n".join(lines)


def picture(result: dict[str, Any], path: Path) -> None:
    """Useful rates as bars with quartiles, images per second beside them, and the machine's limits as lines."""
    plt = common.pyplot()
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sizes = list(result["sizes"])
    rows = {size: len(result["sizes"][size]["entries"]) for size in sizes}
    figure, axes = plt.subplots(
        len(sizes),
        2,
        figsize=(12, 1.6 * len(sizes) + 0.3 * sum(rows.values())),
        squeeze=False,
        gridspec_kw={"height_ratios": [rows[size] + 1 for size in sizes]},
        layout="constrained",
    )
    colours = {"ours": common.OURS_COLOUR, "float32": "#8fa9c4", "bfloat16": "#3f6d9e"}
    used = set()
    for row, size in zip(axes, sizes, strict=True):
        found = result["sizes"][size]
        order = sorted(found["entries"], key=lambda name: found["entries"][name]["train"]["gflops"])
        limits = {kind: found["limits"][kind]["gflops"][1] for kind in ("conv float32", "conv bfloat16")}
        widest = max(
            [*limits.values(), *(e[w]["gflops"] for e in found["entries"].values() for w in ("train", "call"))]
        )
        for axis, what, title in zip(row, ("train", "call"), ("training step", "network call"), strict=True):
            for place, name in enumerate(order):
                part = found["entries"][name][what]
                kind = "bfloat16" if name.endswith(peers.BFLOAT16) else "float32"
                kind = "ours" if name.startswith(peers.OURS) else kind
                used.add(kind)
                rate = part["gflops"]
                low, high = part["gflops_quartiles"]
                error = [[max(0.0, rate - low)], [max(0.0, high - rate)]]
                axis.barh(place, rate, 0.72, color=colours[kind], xerr=error, error_kw={"lw": 1, "ecolor": "#333333"})
                axis.text(
                    max(rate, high) + 0.012 * widest,
                    place,
                    f"{part['images_s']:.0f} images/s",
                    va="center",
                    fontsize=8.5,
                    color="#333333",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
                )
            for kind, style in (("conv float32", ":"), ("conv bfloat16", "--")):
                axis.axvline(limits[kind], color="#555555", ls=style, lw=1.1, zorder=0)
            height, width = peers.SHAPES[size][1:]
            axis.set_title(f"{title}, {height}x{width}x{peers.SHAPES[size][0]}, batch {part['batch']}", fontsize=10.5)
            axis.set_xlim(0, 1.18 * widest)
            axis.set_yticks(range(len(order)), order if what == "train" else [""] * len(order), fontsize=9)
            common.plain([axis])
            axis.tick_params(axis="y", length=0)
    for axis in axes[-1]:
        axis.set_xlabel("useful GFLOP/s")
    words = {"ours": "this library", "float32": "others, float32 as documented", "bfloat16": "others under autocast"}
    handles: list[Any] = [Patch(color=colours[kind], label=words[kind]) for kind in words if kind in used]
    handles += [
        Line2D([], [], color="#555555", ls=":", label="3x3 convolutions alone, float32"),
        Line2D([], [], color="#555555", ls="--", label="the same, bfloat16"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=9)
    common.save_picture(figure, path)


def main() -> None:
    parser = common.arguments(__doc__, "two rounds of short bursts")
    parser.add_argument("--sizes", default="colour,grey", help="colour, grey or both, separated by a comma")
    parser.add_argument("--only", help="entries, separated by commas, such as: ornstein,azula,azula + bfloat16")
    parser.add_argument(
        "--ours", action="append", default=[], help="preset and overrides of our entry; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a burst")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=HERE / "throughput.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--plot", action="store_true", help="only table and picture again, from the JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.sizes, options.seconds, options.threads)
        return
    out = common.place(options.out, options.quick)
    if options.plot:
        result = common.kept(out)
    else:
        if options.quick:
            options.rounds, options.seconds = 2, 0.3
        names = peers.chosen(options.only, options.ours, halves=True)
        began = time.strftime("%Y-%m-%d %H:%M")
        sizes = {size: measured(size, names, options) for size in options.sizes.split(",")}
        result = {
            "machine": common.machine(options.threads),
            "began": began,
            "rounds": options.rounds,
            "seconds_a_burst": options.seconds,
            "sizes": sizes,
        }
        common.keep(out, result)
    machine = result["machine"]
    print(
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, bfloat16 instructions: "
        f"{', '.join(machine['bfloat16']) or 'none'}; {result['rounds']} rounds\n"
    )
    print("\n\n".join(table(size, found) for size, found in result["sizes"].items()))
    picture(result, common.place(options.picture, options.quick))


if __name__ == "__main__":
    main()
