"""Gaps in weather series, filled: our model beside interpolation, seasonal means and scikit-learn's iterative imputer.

    export ORNSTEIN_DATA=...                      # with nyc_weather_hourly.csv.gz
    python benchmarks/series.py                   # trains about five CPU-minutes on one core, then fills
    python benchmarks/series.py --run runs/series # an existing run

Hourly weather of three airports in 2013, nine features. The last tenth of the year is held out. There, gaps of 8 hours
and of a day are made in one airport's series, in all features together, with 44 hours before and after known. All
methods see the same: the year before, and the hours around the gap.

The *score* is the continuous ranked probability score of each hidden value that was recorded, E|X - y| - E|X - X'|/2
over draws X (the unbiased form; for a single answer, its absolute error), in units of the feature's mean absolute
deviation in the training part, averaged over features. *Coverage* is how often the range of 19 draws contains the
truth, which is 90 % for draws from the true distribution. A peer that can answer by one value or by draws is listed
both ways. The spread is over gaps: the standard error of the ratio to ours, gap by gap.
"""

import json
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch

from ornstein.data.timeline import Timeline
from ornstein.data.tracks import Track, read
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.series import DRAWS, impute_series, timeline
from ornstein.experiment.train import train

GAPS = (8, 24)
AROUND, DAYS, LAG = 44, 10, 12


def score(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CRPS of draws (m, ...) at the truth (...), the unbiased form."""
    error = np.abs(draws - truth).mean(0)
    m = len(draws)
    if m == 1:
        return np.asarray(error)
    order = np.sort(draws, 0)
    weights = (2 * np.arange(1, m + 1) - m - 1).reshape(-1, *[1] * truth.ndim)
    return np.asarray(error - (weights * order).sum(0) / (m * (m - 1)))


def interpolated(values: np.ndarray) -> np.ndarray:
    """Gaps of each feature (T, F) by straight lines; beyond the ends the nearest value."""
    out, places = values.copy(), np.arange(len(values))
    for k in range(values.shape[1]):
        seen = ~np.isnan(values[:, k])
        if seen.any():
            out[:, k] = np.interp(places, places[seen], values[seen, k])
    return out


def seasonal(whole: np.ndarray, begin: int, gap: int) -> np.ndarray:
    """The values at the same hour on the days around, gap left out: (draws, gap, F), NaN where not recorded."""
    hidden = whole.copy()
    hidden[begin : begin + gap] = np.nan
    days = [d for d in range(-DAYS, DAYS + 1) if d]
    rows = [np.arange(begin, begin + gap) + 24 * d for d in days]
    return np.stack([hidden[np.clip(row, 0, len(hidden) - 1)] for row in rows])


class Iterative:
    """scikit-learn's IterativeImputer on windows laid out as rows: the gap, and LAG hours to either side."""

    def __init__(self, tracks: list[np.ndarray], gap: int, rows: int, seed: int) -> None:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer

        dice = np.random.default_rng(seed)
        self.gap, length = gap, gap + 2 * LAG
        windows = [track[s : s + length] for track in tracks for s in range(0, len(track) - length, 6)]
        chosen = dice.permutation(len(windows))[:rows]
        table = np.stack([windows[i].ravel() for i in chosen])
        self.mean, self.scale = np.nanmean(table, 0), np.nanstd(table, 0) + 1e-9
        table = (table - self.mean) / self.scale
        # as many rows again with the gap, so that what fills it is fitted too
        few = table[: min(200, len(table))].copy()
        few.reshape(len(few), length, -1)[:, LAG : LAG + gap] = np.nan
        self.imputer = IterativeImputer(
            sample_posterior=True, max_iter=3, n_nearest_features=40, random_state=seed, keep_empty_features=True
        )
        self.imputer.fit(np.concatenate([table, few]))

    def draws(self, around: np.ndarray, count: int) -> np.ndarray:
        """(count, gap, F) for rows (2 LAG + gap, F) with a gap."""
        row = ((around.ravel() - self.mean) / self.scale)[None]
        found = self.imputer.transform(np.repeat(row, count, 0))  # each row is drawn by itself
        wide = found * self.scale + self.mean
        return np.asarray(wide.reshape(count, -1, around.shape[1])[:, LAG : LAG + self.gap])


def places(lengths: list[int], cut: int, gap: int, count: int, seed: int) -> list[tuple[int, int]]:
    """(series, first hour of a gap) in the held-out part, drawn at random."""
    dice = np.random.default_rng(seed + gap)
    first, last = cut + AROUND, min(lengths) - AROUND - gap
    return [(int(dice.integers(len(lengths))), int(dice.integers(first, last))) for _ in range(count)]


def made(folder: Path) -> Path:
    """A small file of two stations, for a quick run."""
    folder.mkdir(parents=True, exist_ok=True)
    dice, path = np.random.default_rng(0), folder / "stations.csv"
    start = np.datetime64("2013-01-01T00:00:00")
    with path.open("w") as file:
        file.write("station,time,warmth,wind\n")
        for name in ("A", "B"):
            for hour in range(2400):
                warmth = 10 + 5 * math.sin(2 * math.pi * hour / 24) + dice.normal()
                file.write(f"{name},{start + np.timedelta64(hour, 'h')},{warmth:.2f},{abs(dice.normal()):.2f}\n")
    return path


def trained(folder: Path, data: Path, steps: int | None, quick: bool) -> tuple[Run, float]:
    """The run in a folder, trained if it does not exist, and the CPU-seconds that this took."""
    began = time.process_time()
    if not (folder / "run.yaml").exists():
        small = (
            ["net.channels=8", "training.batch_size=8", "training.validate_every=20", "sampling.preview=4"]
            if quick
            else []
        )
        changes = [f"data.path={data}", *([f"training.steps={steps}"] if steps else []), *small]
        for _ in train(Experiment.read("series", changes), folder):
            pass
    return Run.load(folder), time.process_time() - began


def measured(
    run: Run, line: Timeline, tracks: list[Track], gap: int, count: int, rows: int, seed: int
) -> dict[str, Any]:
    """Scores by method: (gaps, F) each, mean over the gap's hours; and coverage of ours."""
    longest = max(track.first + len(track.values) for track in tracks)
    cut = min(math.ceil(0.9 * longest), longest - line.window)
    wholes = [track.values.numpy() for track in tracks]
    before = [whole[: cut - track.first] for whole, track in zip(wholes, tracks, strict=True)]
    past = np.concatenate(before)
    unit = np.nanmean(np.abs(past - np.nanmedian(past, 0)), 0)
    imputer = Iterative(before, gap, rows, seed)
    found: dict[str, list[np.ndarray]] = {}
    inside: list[np.ndarray] = []
    for series, begin in places([len(whole) for whole in wholes], cut, gap, count, seed):
        whole, track = wholes[series], tracks[series]
        truth = whole[begin : begin + gap]
        hidden = whole[begin - AROUND : begin + gap + AROUND].copy()
        hidden[AROUND : AROUND + gap] = np.nan
        given = Track(track.name, track.first + begin - AROUND, torch.from_numpy(hidden))
        ours = impute_series(run, given, draws=DRAWS, seed=seed + begin).draws.numpy()[:, AROUND : AROUND + gap]
        days = seasonal(whole, begin, gap)
        other = imputer.draws(hidden[AROUND - LAG : AROUND + gap + LAG], DRAWS)
        answers = {
            "ours": ours,
            "linear interpolation": interpolated(hidden)[None, AROUND : AROUND + gap],
            "seasonal mean": np.nanmean(days, 0)[None],
            "seasonal, the days as draws": days,
            "iterative imputer, mean of draws": other.mean(0)[None],
            "iterative imputer, draws": other,
        }
        for name, draws in answers.items():
            whole_draws = np.where(np.isnan(draws), np.nanmean(draws, 0, keepdims=True), draws)
            found.setdefault(name, []).append(np.nanmean(score(whole_draws, truth) / unit, 0))
        seen = ~np.isnan(truth)
        inside.append(((ours.min(0) <= truth) & (truth <= ours.max(0)))[seen])
    scores = {name: np.stack(each) for name, each in found.items()}
    return {"scores": scores, "coverage": float(np.concatenate(inside).mean())}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", type=Path, help="the file, instead of ORNSTEIN_DATA/nyc_weather_hourly.csv.gz")
    parser.add_argument("--run", type=Path, default=Path("runs/series-benchmark"))
    parser.add_argument("--steps", type=int, help="of training, instead of the preset's")
    parser.add_argument("--gaps", type=int, default=60, help="of each length")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # means of features that a gap has none of
    warnings.filterwarnings("ignore", message=".*convergence.*|.*Skipping features.*")
    data = arguments.data or Path(os.environ.get("ORNSTEIN_DATA", ".")) / "nyc_weather_hourly.csv.gz"
    if arguments.quick:
        data = made(Path("runs/quick"))
    count, rows, steps = (2, 60, 20) if arguments.quick else (arguments.gaps, 1500, arguments.steps)
    run, seconds = trained(common.place(arguments.run, arguments.quick), data, steps, arguments.quick)
    line = timeline(run)
    tracks = read(line, data)
    print(f"trained in {seconds:,.0f} CPU-seconds" if seconds > 5 else f"run {run.folder}")
    for gap in GAPS:
        found = measured(run, line, tracks, gap, count, rows, arguments.seed)
        ours = np.nanmean(found["scores"]["ours"], 1)
        print(f"\ngaps of {gap} hours, {count} of them; the range of {DRAWS} draws holds {found['coverage']:.1%}")
        print(f"{'':36} CRPS   ours/it")
        for name, each in found["scores"].items():
            mine = np.nanmean(each, 1)
            ratio = ours.mean() / mine.mean()
            error = (ours - ratio * mine).std() / math.sqrt(len(ours)) / mine.mean()
            print(f"{name:36} {mine.mean():.3f}  {ratio:.3f} ± {error:.3f}")
        table = {name: np.nanmean(each, 0).round(3).tolist() for name, each in found["scores"].items()}
        print("by feature", json.dumps({"features": [f.name for f in line.features], **table}))


if __name__ == "__main__":
    main()
