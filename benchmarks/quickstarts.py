"""The pictures of the README's quick starts for a folder of pictures and for a series, made by the README's commands.

    export ORNSTEIN_DATA=...                          # with emoji32.npz and nyc_weather_hourly.csv.gz
    python benchmarks/quickstarts.py photos           # docs/pictures/photos.png
    python benchmarks/quickstarts.py series           # docs/pictures/weather.png
    python benchmarks/quickstarts.py series --run runs/series-benchmark     # with an existing run
    python benchmarks/quickstarts.py photos --steps 5000     # with this number of steps on any machine

The commands are `ornstein train photos.zip`, then `ornstein sample`; and `ornstein train weather.csv data=series`, then
`ornstein forecast`. *photos* are Noto's emoji (Apache-2.0), 32x32, in a zip with a folder for each category; the first
drawn ones are shown under real ones. *series* is the hourly weather of three airports: the forecast begins in the
held-out tenth of the year, and the actual weather is shown beside it. Nothing is hand-picked.
"""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image

from ornstein.data.tracks import Track, read
from ornstein.experiment.config import Experiment
from ornstein.experiment.pictures import image_grid
from ornstein.experiment.run import Run
from ornstein.experiment.series import forecast, timeline
from ornstein.experiment.train import train

#: features that are shown of a forecast, as they are called there and here; hours before it and of it
SHOWN = {"temp": "temperature, °F", "humid": "humidity, %", "wind_speed": "wind, mph"}
BEFORE, AFTER = 72, 48
#: pictures across, rows of real and of drawn ones
ACROSS, REAL, DRAWN = 16, 2, 4


def trained(folder: Path, source: str, changes: list[str]) -> Run:
    """The run in a folder; trained if it is not there."""
    if not (folder / "run.yaml").exists():
        for moment in train(Experiment.read(source, changes), folder):
            if moment.held_out is not None:
                print(f"step {moment.progress.step:,}  held-out error {moment.held_out:.4f}", flush=True)
    return Run.load(folder)


def zipped(file: Path, place: Path, most: int) -> Path:
    """The emoji of one vendor as a zip of PNGs, their categories its folders."""
    with np.load(file) as found:
        blob, offsets, kinds, vendors = (found[key] for key in ("blob", "offsets", "category", "vendor"))
    rows = np.random.default_rng(0).permutation(np.flatnonzero(vendors == "noto"))[:most]
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w") as archive:
        for i in sorted(rows):
            archive.writestr(f"{kinds[i]}/{i:05}.png", blob[offsets[i] : offsets[i + 1]].tobytes())
    return place


def made_up(place: Path) -> Path:
    """A few pictures without a meaning, for a quick run."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w") as archive:
        for i in range(24):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), (10 * i, 255 - 10 * i, 99)).save(stream, "PNG")
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", stream.getvalue())
    return place


def photos(run: Run, path: Path) -> None:
    """Real pictures above drawn ones."""
    data = run.load_data()
    dice = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(data.train), generator=dice)[: ACROSS * REAL]
    real = data.transform.forward(data.train[rows])
    drawn = run.draw(ACROSS * DRAWN, seed=0, condition=run.examples(ACROSS * DRAWN))
    drawn = drawn[torch.randperm(len(drawn), generator=dice)]  # not sorted by their classes
    plt = common.pyplot()
    figure, axes = plt.subplots(2, 1, figsize=(8, 3.6), height_ratios=(REAL, DRAWN), layout="constrained")
    for axis, title, some in zip(axes, ("real", "drawn"), (real, drawn), strict=True):
        axis.imshow(image_grid(some, ACROSS, 1600))
        axis.set_title(title, loc="left", fontsize=10)
        axis.axis("off")
    common.save_picture(figure, path, dpi=150)


def weather(run: Run, file: Path, path: Path) -> None:
    """A forecast of one series, with what came before it and what came."""
    line = timeline(run)
    whole = read(line, file)[-1]
    names = [feature.name for feature in line.features]
    begin = int(0.95 * len(whole.values)) // 24 * 24
    known = Track(whole.name, whole.first, whole.values[:begin])
    found = forecast(run, known, after=AFTER, draws=19, seed=0)
    low, high = found.interval
    shown = [name for name in SHOWN if name in names] or names[:3]
    plt = common.pyplot()
    figure, axes = plt.subplots(len(shown), 1, figsize=(8, 1.7 * len(shown) + 0.4), sharex=True, layout="constrained")
    hours = np.arange(-BEFORE, AFTER)
    for axis, name in zip(np.atleast_1d(axes), shown, strict=True):
        k = names.index(name)
        truth = whole.values[begin - BEFORE : begin + AFTER, k]
        axis.fill_between(hours[BEFORE:], low[:, k], high[:, k], color=common.OURS_COLOUR, alpha=0.2, lw=0)
        axis.plot(
            hours[BEFORE:], found.centre[:, k], color=common.OURS_COLOUR, lw=1.8, label="forecast, range of 19 draws"
        )
        axis.plot(hours[: BEFORE + 1], truth[: BEFORE + 1], color="#222222", lw=1.2)
        axis.plot(hours[BEFORE:], truth[BEFORE:], color="#222222", lw=1.2, ls=(0, (2, 2)), label="what came")
        axis.axvline(0, color=common.GREY, lw=0.6)
        axis.set_ylabel(SHOWN.get(name, name), fontsize=9)
        axis.tick_params(labelsize=9)
    common.plain(np.atleast_1d(axes))
    np.atleast_1d(axes)[0].legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    np.atleast_1d(axes)[-1].set_xlabel(f"hours from {line.time.render(line.seconds(whole.first + begin, 1).numpy())[0]}"
                                       if line.time else "steps", fontsize=9)  # fmt: skip
    common.save_picture(figure, path, dpi=150)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("picture", choices=("photos", "series"))
    parser.add_argument("--run", type=Path, help="where the run lies, or is to; runs/quickstart-PICTURE")
    parser.add_argument("--minutes", type=float, default=60, help="of training")
    parser.add_argument("--steps", type=int, help="of training, in the place of minutes")
    parser.add_argument("--most", type=int, default=10_000, help="pictures in the zip")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    place = common.place(arguments.run or Path(f"runs/quickstart-{arguments.picture}"), arguments.quick)
    shared = Path(os.environ.get("ORNSTEIN_DATA", "."))
    quick = [
        "net.channels=8",
        "training.steps=4",
        "training.validate_every=4",
        "sampling.preview=4",
        "sampling.steps=3",
    ]
    length = f"steps={arguments.steps}" if arguments.steps else f"minutes={arguments.minutes:g}"
    changes: list[Any] = quick if arguments.quick else [f"training.{length}"]
    out = common.place(
        common.PICTURES / f"{'photos' if arguments.picture == 'photos' else 'weather'}.png", arguments.quick
    )
    if arguments.picture == "photos":
        file = place.with_name("photos.zip")
        made = made_up(file) if arguments.quick else zipped(shared / "emoji32.npz", file, arguments.most)
        photos(trained(place, str(made), changes), out)
    else:
        if arguments.quick:
            import series

            file = series.made(Path("runs/quick"))
        else:
            file = shared / "nyc_weather_hourly.csv.gz"
        weather(trained(place, "series", [f"data.path={file}", *changes]), file, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
