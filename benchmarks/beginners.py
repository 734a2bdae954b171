"""The figures of the beginners' page for 200 photographs and for 5,000 rows, by its own commands.

    export ORNSTEIN_DATA=...                    # with cifar10_jpeg_train.npz and adult.csv.gz
    python benchmarks/beginners.py photos       # 200 horses of CIFAR-10, 32x32
    python benchmarks/beginners.py rows         # 5,000 rows of the census
    python benchmarks/beginners.py rows --most 1000

It writes the data to runs/beginners/, trains on them with default settings, evaluates, runs `ornstein doctor`, and
prints the processor time of each: on a shared machine wall-clock time includes other people's work.
"""

import gzip
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import common
import numpy as np
from PIL import Image

HORSE = 7


def photos(shared: Path, place: Path, most: int) -> Path:
    """A folder of pictures; made up if the data are missing and only a few are needed."""
    place.mkdir(parents=True, exist_ok=True)
    with np.load(shared / "cifar10_jpeg_train.npz") as found:
        blob, offsets, labels = (found[key] for key in ("blob", "offsets", "label"))
    for i in np.flatnonzero(labels == HORSE)[:most]:
        Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).save(place / f"{i:05}.png")
    return place


def rows(shared: Path, place: Path, most: int) -> Path:
    """The first rows of the census, without the column that says which are held out."""
    file = place.with_suffix(".csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(shared / "adult.csv.gz", "rt") as source, file.open("w") as out:
        out.writelines(line.rpartition(",")[0] + "\n" for line, _ in zip(source, range(most + 1), strict=False))
    return file


def asked(*words: str) -> None:
    """Run a command of ornstein, and show its output and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("$ ornstein", *words, flush=True)
    code = subprocess.run([sys.executable, "-m", "ornstein", *words], check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"exit code {code}, {spent:.0f} s of processor time\n", flush=True)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("kind", choices=("photos", "rows"))
    parser.add_argument("--most", type=int, help="how many; 200 photographs or 5,000 rows")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("ORNSTEIN_DATA", "."))
    most = 24 if arguments.quick else arguments.most or {"photos": 200, "rows": 5_000}[arguments.kind]
    most = 200 if arguments.quick and arguments.kind == "rows" else most
    place = Path("runs") / ("quick" if arguments.quick else "beginners") / f"{arguments.kind}-{most}"
    made = (photos if arguments.kind == "photos" else rows)(shared, place / "data", most)
    run = str(place / "run")
    asked("train", str(made), "--out", run, *(["training.steps=5"] if arguments.quick else []))
    asked(
        "sample",
        run,
        "-n",
        "64",
        "--seed",
        "0",
        "--out",
        str(place / ("new.png" if arguments.kind == "photos" else "new.csv")),
        "--force",
    )
    asked("evaluate", run, *(["-n", "40"] if arguments.quick else []))
    asked("doctor", run)


if __name__ == "__main__":
    main()
