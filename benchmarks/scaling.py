"""How time and memory grow: with batch, resolution, parameters, steps, samples drawn, and rows of data.

    python benchmarks/scaling.py              all of it: table, scaling.json and the picture
    python benchmarks/scaling.py --quick      a few small points; nothing to quote
    python benchmarks/scaling.py --plot       table and picture again, from the JSON

Every series changes one number and keeps the rest. *Time* is the median over rounds, in one process that goes through
the points of a series in turn, each round in another order. *Memory* is how far the high-water mark of a process
(VmHWM, Linux) rises above what it held before the network was built (and before the data were loaded, where these are
what grows); each point has a process of its own, on one thread. Everything is float32, and goes through the library's
own loops: `fit` with its optimiser and averages of weights for a step, `train` with its log, checkpoints and picture
for a run, `Run.draw` for samples, `open_data` for a file of rows.

*Exponents* are slopes of straight lines fitted by least squares to the logarithms, over the upper half of a range (the
points from its geometric middle on), since constant costs dominate its lower end. The table also has the exponent of
the network's own arithmetic over the same points, counted by torch's flop counter; for loading, that of a pass over the
file instead. A cost that grows no faster has an exponent at most as large, up to the scatter of the measurement.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "pictures" / "scaling.png"
#: columns of the table whose rows grow in number
COLUMNS = 8
#: how much the exponent of a measurement may scatter
SCATTER = 0.05
#: network calls to a series of samples drawn
CALLS = 4


# What is measured -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One setting of one series, built: `run` runs it once and returns seconds; `flops` counts the network's work."""

    run: Callable[[], float]
    flops: Callable[[], float]


def experiment(*words: str) -> Any:
    """A U-Net on pictures: two halvings, attention only on its coarsest level."""
    from ornstein.experiment.config import Experiment

    fixed = ["data=images", "data.path=.", "net.multipliers=[1,2,2]", "net.attention=[1]", "net.channels=32"]
    return Experiment.read("images", [*fixed, "training.precision=float32", "training.cpu=true", *words])


def table_experiment(*words: str) -> Any:
    from ornstein.experiment.config import Experiment

    fixed = ["data.path=.", "net.width=128", "net.depth=3", "training.precision=float32", "training.cpu=true"]
    return Experiment.read("array", [*fixed, *words])


def pictures(side: int, count: int = 256) -> Any:
    """Random bytes: the content of pictures makes no difference to their cost."""
    from ornstein.data import Dataset, WholeNumbers

    dice = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 3, side, side), generator=dice, dtype=torch.uint8) for n in (count, 64))
    return Dataset("random", train, test, {}, "image", WholeNumbers(256))


def built(asked: Any, data: Any) -> Any:
    from ornstein.experiment.build import build

    return build(asked, {**data.fingerprint(), "classes": ()}, data.transform)


def arithmetic(work: Callable[[], Any]) -> float:
    """Floating-point operations, attention written out as matrix products, which the counter sees."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


class Enough(Exception):
    """Ends training between two steps."""


def training_step(asked: Any, data: Any, least: int = 3) -> Point:
    """Seconds of a step: the median of a burst, forward, backward, optimiser, averages, the batch read and mapped."""
    from ornstein.training import fit

    parts, config = built(asked, data), asked.training
    x0, _ = data.batch(0, config.batch_size, 0)

    def loss(net: Any, batch: Any, dice: torch.Generator) -> torch.Tensor:
        found: torch.Tensor = parts.loss({})(net, batch, dice)
        return found

    def burst() -> float:
        stamps: list[float] = []

        def batches(step: int) -> Any:  # asked for once a step, so these are the times between steps
            stamps.append(time.perf_counter())
            if len(stamps) > least + 2 and (len(stamps) > 100 or stamps[-1] - stamps[0] > 0.5):
                raise Enough
            return data.batch(step, config.batch_size, 0)

        with tempfile.TemporaryDirectory() as folder, suppress(Enough):
            for _ in fit(parts.net, loss, batches, config, folder):
                pass
        return float(np.median(np.diff(stamps)[2:]))

    def once() -> None:
        loss(parts.net, (x0[:1], None), torch.Generator().manual_seed(0)).sum().backward()
        parts.net.zero_grad()

    return Point(burst, lambda: config.batch_size * arithmetic(once))


def training_run(asked: Any, data: Any) -> Point:
    """Seconds of a whole run as by `ornstein train`, from its first report to its last."""
    from ornstein.experiment.train import train

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            for _ in train(asked, Path(folder) / "run", data):
                pass
            return time.perf_counter() - start

    return Point(run, lambda: asked.training.steps * training_step(asked, data).flops())


def drawing(asked: Any, data: Any, samples: int, steps: int) -> Point:
    from ornstein.experiment.run import Run

    parts = built(asked, data)
    parts.net.eval().requires_grad_(False)
    drawn = Run(Path(), asked, {"data": data.fingerprint()}, parts.model, data.transform, parts.learner)

    def run() -> float:
        start = time.perf_counter()
        drawn.draw(samples, seed=0, steps=steps, stepper="ddim")
        return time.perf_counter() - start

    def flops() -> float:
        x, level = torch.randn(1, *data.shape), parts.process.at(0.5 * parts.process.t_max)
        return samples * steps * arithmetic(lambda: parts.model(x, level))

    return Point(run, flops)


def loading(file: Path) -> Point:
    """Seconds until the first batch is ready: reading, split, transform, fingerprint, order of the first epoch."""
    from ornstein.data import open_data

    def run() -> float:
        start = time.perf_counter()
        data = open_data(file).load()
        data.fingerprint()
        data.batch(0, 256, 0)
        return time.perf_counter() - start

    return Point(run, lambda: 0.0)


def one_pass(file: Path) -> float:
    """Seconds to read a file once, by whole blocks, and add its numbers up."""
    start = time.perf_counter()
    rows = np.load(file, mmap_mode="r")
    for first in range(0, len(rows), 1 << 16):
        rows[first : first + (1 << 16)].sum()
    return time.perf_counter() - start


# The series -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """What is changed, where, and how a point is made of it.

    Attributes:
        title: for the picture. held: what stays. values: where it is measured. quick: where in a short run.
        make: the point at a value, and the file of so many rows where that is what grows.
        of: what a memory or time is of, for the axis. rounds: at most.
    """

    title: str
    held: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    make: Callable[[int, Path], Point]
    of: str = "a step"
    rounds: int = 5


def _rows_step(value: int, file: Path) -> Point:
    from ornstein.data import open_data

    return training_step(table_experiment("training.batch_size=256"), open_data(file).load(), least=40)


SERIES: dict[str, Series] = {
    "batch": Series(
        "samples in a batch", "U-Net, 32 channels, 32x32", (2, 4, 8, 16, 32, 64), (2, 4, 8),
        lambda n, _: training_step(experiment(f"training.batch_size={n}", "net.attention=[8]"), pictures(32)),
    ),
    "side": Series(
        "side of a picture", "U-Net, 32 channels, batch 8, coarsest level attends", (16, 24, 32, 48, 64, 96, 128),
        (16, 24, 32),
        lambda n, _: training_step(experiment("training.batch_size=8", f"net.attention=[{n // 4}]"), pictures(n)),
    ),
    "channels": Series(
        "channels of the finest level", "U-Net, 16x16, batch 16", (16, 32, 48, 64, 96, 128), (8, 16, 32),
        lambda n, _: training_step(
            experiment("training.batch_size=16", f"net.channels={n}", "net.attention=[4]"), pictures(16)
        ),
    ),
    "steps": Series(
        "training steps", "U-Net, 16 channels, 16x16, batch 8, whole runs", (50, 100, 200, 400, 800), (10, 20, 40),
        lambda n, _: training_run(
            experiment(
                f"training.steps={n}", "training.batch_size=8", "net.channels=16", "training.checkpoint_every=100",
                "training.validate_every=1000", "sampling.preview=4", "sampling.steps=2", "sampling.precision=float32",
            ),
            pictures(16),
        ),
        of="a run", rounds=3,
    ),
    "calls": Series(
        "sampling steps", "U-Net, 32 channels, 32x32, 16 samples", (2, 4, 8, 16, 32), (2, 4, 8),
        lambda n, _: drawing(experiment(), pictures(32), 16, n), of="drawing",
    ),
    "samples": Series(
        "samples drawn", f"U-Net, 16 channels, 16x16, {CALLS} steps", (64, 128, 256, 512, 1024, 2048), (16, 32, 64),
        lambda n, _: drawing(experiment("net.channels=16"), pictures(16), n, CALLS), of="drawing",
    ),
    "load": Series(
        "rows of data, loaded", f"{COLUMNS} columns of float32 in an .npy", (10**3, 10**4, 10**5, 10**6, 10**7),
        (10**3, 10**4, 10**5), lambda n, file: loading(file), of="loading", rounds=3,
    ),
    "rows": Series(
        "rows of data, trained on", "perceptron, width 128, batch 256", (10**3, 10**4, 10**5, 10**6, 10**7),
        (10**3, 10**4, 10**5), _rows_step,
    ),
}  # fmt: skip


# Measuring ------------------------------------------------------------------------------------------------------------


def own(field: str) -> float:
    """Bytes of this process: VmRSS now, VmHWM at most since `forget`; NaN where the system is not Linux."""
    try:
        return 1024.0 * int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])
    except (OSError, IndexError):
        return math.nan


def forget() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def warm() -> None:
    """Import all that training and drawing need, and fill torch's caches, so that no point pays for it."""
    torch.set_num_threads(1)
    training_run(
        experiment(
            "training.steps=2", "training.batch_size=2", "net.channels=8", "sampling.preview=4", "sampling.steps=2"
        ),
        pictures(8, 16),
    ).run()


def timed(name: str, values: list[int], folder: Path, rounds: int) -> dict[str, Any]:
    """Of every value: seconds of each round, the network's arithmetic and, of rows, seconds of a pass over the file."""
    series, dice = SERIES[name], random.Random(0)
    points = {value: series.make(value, folder / f"{value}.npy") for value in values}
    seconds: dict[int, list[float]] = {value: [] for value in values}
    passes: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(rounds):
        for value in dice.sample(values, len(values)):
            seconds[value].append(points[value].run())
            if name == "load":
                passes[value].append(one_pass(folder / f"{value}.npy"))
    return {
        str(value): {"seconds": seconds[value], "flops": points[value].flops(), "pass": passes[value]}
        for value in values
    }


def apart(work: Callable[[], float]) -> float:
    """What `work` returns in a process of its own: a copy of this one, with everything loaded, made at this moment.

    Both use a single thread: torch's thread pool is not copied, and waiting for it would never end.
    """
    come, go = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.write(go, repr(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(go)
    with os.fdopen(come) as told:
        said = told.read()
    if os.waitpid(child, 0)[1] or not said:
        raise SystemExit("a point could not be measured; see above")
    return float(said)


def remembered(name: str, folder: Path, value: int) -> float:
    """Bytes that one point takes at most, above what the process held before it was built."""
    file = folder / f"{value}.npy"
    if name == "rows":  # the data themselves are the series before
        from ornstein.data import open_data

        data = open_data(file).load()
        data.batch(0, 256, 0)
        asked = table_experiment("training.batch_size=256")
        before = own("VmRSS")
        forget()
        training_step(asked, data, least=40).run()
    else:
        before = own("VmRSS")
        forget()
        SERIES[name].make(value, file).run()
    return own("VmHWM") - before


def asked_of(words: list[str], threads: int) -> Any:
    # freed blocks of 64 kB and more return to the system, or memory would include what the allocator keeps; time is
    # measured with the allocator's defaults
    kept = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"} if words[0] == "memory" else {}
    done = subprocess.run(
        [sys.executable, __file__, "--threads", str(threads), "--worker", *words],
        check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **kept},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def made(folder: Path, rows: int) -> None:
    """A table of so many rows, written in blocks."""
    file = np.lib.format.open_memmap(folder / f"{rows}.npy", "w+", np.float32, (rows, COLUMNS))
    dice = np.random.default_rng(rows)
    for first in range(0, rows, 1 << 18):
        file[first : first + (1 << 18)] = dice.standard_normal((min(1 << 18, rows - first), COLUMNS), np.float32)
    file.flush()


def measured(names: list[str], quick: bool, threads: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The series of some names, one after another."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in names:
            series, began = SERIES[name], time.perf_counter()
            values = series.quick if quick else series.values
            if name in ("load", "rows"):
                for value in values:
                    if not (folder / f"{value}.npy").exists():
                        made(folder, value)
            rounds = 2 if quick else series.rounds
            words = [name, ",".join(map(str, values)), place, str(rounds)]
            points = asked_of(["time", *words], threads)
            for value, most in asked_of(["memory", *words], threads).items():
                points[value]["bytes"] = most
            took = time.perf_counter() - began
            print(f"{series.title}: {took:.0f} s", file=sys.stderr, flush=True)
            # as JSON would give it back
            yield name, json.loads(json.dumps({"values": list(values), "points": points, "took": took}))


# What is made of it ---------------------------------------------------------------------------------------------------


def slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """Exponent and factor of y = factor x^exponent, by least squares of the logarithms."""
    if min(y) <= 0 or not all(map(math.isfinite, y)):
        return math.nan, math.nan
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    return float(exponent), float(np.exp(offset))


def fitted(found: dict[str, Any]) -> dict[str, Any]:
    """Of time, memory and arithmetic (or a pass over the file): values, and the line over the upper half."""
    values, points = found["values"], [found["points"][str(value)] for value in found["values"]]
    middle = math.sqrt(values[0] * values[-1])
    upper = [index for index, value in enumerate(values) if value >= middle * 0.999][-max(3, len(values) // 2 + 1) :]
    if len(upper) < 2:
        upper = list(range(len(values)))
    own_work = [statistics.median(p["pass"]) if p["pass"] else p["flops"] for p in points]
    columns = {
        "seconds": [statistics.median(p["seconds"]) for p in points],
        "bytes": [p["bytes"] for p in points],
        "work": own_work,
    }
    lines = {}
    for key, column in columns.items():
        exponent, factor = slope([values[i] for i in upper], [column[i] for i in upper])
        lines[key] = {"values": column, "exponent": exponent, "factor": factor}
    return {"x": values, "upper": [values[i] for i in upper], **lines}


def table(result: dict[str, Any]) -> str:
    columns = ("from", "to", "time", "memory", "arithmetic", "faster than the arithmetic")
    rows = [common.heading("grows", "the rest", *columns, words=2)]
    for name, found in result["series"].items():
        series, lines = SERIES[name], fitted(found)
        exponents = {key: lines[key]["exponent"] for key in ("seconds", "bytes", "work")}
        faster = [
            word
            for word, key in (("time", "seconds"), ("memory", "bytes"))
            if exponents[key] > exponents["work"] + SCATTER
        ]
        work = f"{exponents['work']:.2f}" + (" (a pass over the file)" if name == "load" else "")
        exponents = {key: round(value, 2) + 0.0 for key, value in exponents.items()}  # no minus before 0.00
        rows.append(
            f"| {series.title} | {series.held} | {lines['x'][0]:,} | {lines['x'][-1]:,} | {exponents['seconds']:.2f} "
            f"| {exponents['bytes']:.2f} | {work} | {' and '.join(faster) or 'nothing'} |"
        )
    headed = tuple(f"{what}, first and last" for what in ("seconds", "memory", "arithmetic"))
    rows += ["", common.heading("grows", *headed)]
    for name, found in result["series"].items():
        lines = fitted(found)
        spoken: list[tuple[str, Callable[[float], str]]] = [
            ("seconds", lambda v: f"{v:.3g} s"),
            ("bytes", lambda v: f"{v / 1e6:.3g} MB"),
            ("work", (lambda v: f"{v:.3g} s") if name == "load" else (lambda v: f"{v / 1e9:.3g} GFLOP")),
        ]
        ends = [" to ".join(said(lines[key]["values"][i]) for i in (0, -1)) for key, said in spoken]
        rows.append(f"| {SERIES[name].title} | {' | '.join(ends)} |")
    return "\n".join(rows)


def picture(result: dict[str, Any], path: Path) -> None:
    plt = common.pyplot()
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    names = list(result["series"])
    across = min(4, len(names))
    banks = math.ceil(len(names) / across)
    figure, axes = plt.subplots(
        2 * banks, across, figsize=(3.3 * across, 5.4 * banks + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_visible(False)
    dark, grey = {"seconds": "#c44e21", "bytes": "#3f6d9e"}, "#666666"
    for place, name in enumerate(names):
        bank, column = divmod(place, across)
        lines = fitted(result["series"][name])
        slopes = {k: round(lines[k]["exponent"], 2) + 0.0 for k in ("seconds", "bytes", "work")}
        x = np.array(lines["x"], float)
        for row, (key, scale, unit) in enumerate((("seconds", 1.0, "s"), ("bytes", 1e-6, "MB"))):
            axis = axes[2 * bank + row, column]
            axis.set_visible(True)
            y = scale * np.array(lines[key]["values"])
            axis.loglog(x, y, "o", color=dark[key], ms=5, zorder=3)
            upper = np.array(lines["upper"], float)
            if math.isfinite(lines[key]["factor"]):
                line = scale * lines[key]["factor"] * upper ** lines[key]["exponent"]
                axis.loglog(upper, line, color=dark[key], lw=2)
                # the arithmetic's own line, through the middle of the measured one
                own_line = upper ** lines["work"]["exponent"]
                axis.loglog(upper, own_line * np.exp(np.mean(np.log(line / own_line))), "--", color=grey, lw=1.6)
            low, high = y[y > 0].min(), y.max()
            if high < 10 * low:  # a decade at least, or noise would look like growth
                centre = math.sqrt(low * high)
                axis.set_ylim(centre / 4, centre * 4)
            span = math.log10(axis.get_ylim()[1] / axis.get_ylim()[0])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 2 else (1,)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_ylabel(f"{unit}, {SERIES[name].of}", fontsize=9.5)
            what = "a pass" if name == "load" else "arithmetic"
            title = f"exponent {slopes[key]:.2f}, {what} {slopes['work']:.2f}"
            axis.set_title(title, fontsize=10)
            axis.grid(alpha=0.25, which="major")
            common.plain([axis])
            if x[-1] / x[0] < 200:
                axis.set_xticks(x, [f"{int(v)}" for v in x], fontsize=9)
                axis.xaxis.minorticks_off()
            axis.tick_params(labelsize=9)
            if row:
                axis.set_xlabel(f"{SERIES[name].title}\n", fontsize=11)
    handles = [
        Line2D([], [], color=dark["seconds"], marker="o", lw=2, label="time, and its line over the upper half"),
        Line2D([], [], color=dark["bytes"], marker="o", lw=2, label="memory above the program's own"),
        Line2D([], [], color=grey, ls="--", lw=1.6, label="slope of the network's arithmetic (loading: of a pass)"),
    ]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=3 if across > 2 else 1, frameon=False, fontsize=10.5
    )
    common.save_picture(figure, path, dpi=110)


def main() -> None:
    parser = common.arguments(__doc__, "three small points of each series")
    parser.add_argument("--only", default=",".join(SERIES), help=f"series, separated by commas: {', '.join(SERIES)}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=HERE / "scaling.json")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--plot", action="store_true", help="only table and picture again, from the JSON")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        what, name, listed, folder, rounds = given.worker
        values = [int(value) for value in listed.split(",")]
        warm()
        if what == "time":
            torch.set_num_threads(given.threads)
            print(json.dumps(timed(name, values, Path(folder), int(rounds))))
        else:
            print(json.dumps({value: apart(partial(remembered, name, Path(folder), value)) for value in values}))
        return
    out = common.place(given.out, given.quick)
    if given.plot:
        result = common.kept(out)
    else:
        machine = {key: value for key, value in common.machine(given.threads).items() if key != "bfloat16"}
        result = {"machine": machine, "quick": given.quick, "series": {}}
        before = common.kept(out, {})
        if all(before.get(key) == result[key] for key in ("machine", "quick")):
            result["series"] = before["series"]
        for name, found in measured(given.only.split(","), given.quick, given.threads):
            series = {**result["series"], name: found}
            result["series"] = {key: series[key] for key in SERIES if key in series}
            common.keep(out, result)
    machine = result["machine"]
    took = sum(found["took"] for found in result["series"].values())
    print(
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, float32; {took / 60:.1f} minutes\n"
    )
    print(table(result))
    picture(result, common.place(given.picture, given.quick))


if __name__ == "__main__":
    main()
