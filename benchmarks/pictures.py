"""How far are the pictures of several runs from held-out ones, as a network trained on photographs sees them?

    pip install 'ornstein[images]'
    python benchmarks/pictures.py runs/single runs/cascade runs/codec runs/latent

As many pictures of each run as are held out: samples, given what is known of the held-out ones; or, if the run is a
codec, training pictures that were encoded and decoded. The first row is of real training pictures in their place. The
Fréchet distance is that of EfficientNet-lite0's features (`ornstein.metrics.lite`); seconds are of one processor, for
each sample; PSNR and SSIM are a codec's own, of held-out pictures. The picture has some of these, and below them the
same as a codec decodes them, or what a model draws given the same. With `--sides`, how long a call of each model's
network takes for pictures of other sizes, and in which ratio.
"""

import time
import warnings
from pathlib import Path

import common
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.data import Dataset
from ornstein.experiment.evidence import looks
from ornstein.experiment.folder import read_measured
from ornstein.experiment.pictures import image_grid
from ornstein.experiment.run import Run
from ornstein.metrics import METRICS, lite


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=None, help="where to draw what the codecs decode")
    parser.add_argument("--sides", type=int, nargs="+", default=[], help="of pictures, to time the networks for")
    asked = parser.parse_args()
    runs = [Run.load(place).drawing() for place in asked.runs]
    data = runs[0].load_data()
    n = 20 if asked.quick else len(data.test)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    one, other = data.train[rows[:n]], data.train[rows[n : 2 * n]]
    frechet, wasserstein = METRICS["frechet"](), METRICS["sliced-wasserstein"]()
    held_out = data.test[:n].float()
    eyes = looks(runs[0])[lite.NAME]
    seen = eyes(held_out)

    def line(name: str, pictures: Tensor, *more: str) -> None:
        x = pictures.float()
        far = frechet(eyes(x), seen, torch.Generator().manual_seed(0))
        apart = wasserstein(x, held_out, torch.Generator().manual_seed(0))
        print(common.row(name, f"{far:.2f}", f"{apart:.1f}", *more, *[""] * (3 - len(more))), flush=True)

    print(common.heading("pictures", "Fréchet distance", "sliced Wasserstein", "seconds a sample", "PSNR, dB", "SSIM"))
    line("real, of training", other)
    for run in runs:
        if run.learner.draws:
            began = time.process_time()
            drawn = sampled(run, n, run.examples(n, data.test_condition))
            line(run.folder.name, drawn, f"{(time.process_time() - began) / n:.3f}")
        else:
            measured = read_measured(run.folder)
            assert measured is not None  # of a codec whose training has ended
            line(run.folder.name, decoded(run, one), "", f"{measured['psnr']:.1f}", f"{measured['ssim']:.3f}")
    if asked.out is not None:
        draw(runs, data, common.place(asked.out, asked.quick))
    drawing = [run for run in runs if run.learner.draws]
    if asked.sides:
        print()
        print(common.heading("side", *(f"{run.folder.name}, ms a call" for run in drawing), "ratio"))
    for side in asked.sides:
        took = [call_of(run, side) for run in drawing]
        print(common.row(side, *(f"{1000 * one:.1f}" for one in took), f"{took[0] / took[-1]:.1f}"), flush=True)


def call_of(run: Run, side: int, rows: int = 8, rounds: int = 3) -> float:
    """Seconds of a processor that a call of a run's network takes for a picture of that side, without a condition."""
    channels, *space = run.learner.problem.shape
    x = torch.randn(rows, channels, *(side * size // run.shape[-1] for size in space))
    run.model(x, 0.5)
    return common.seconds(lambda: [run.model(x, 0.5) for _ in range(rounds)], time.process_time) / rounds / rows


def decoded(run: Run, x: Tensor) -> Tensor:
    """Pictures in bytes, encoded and decoded by a codec's run."""
    return run.transform.inverse(run.model.decode(run.model.encode(run.transform.forward(x)).mean), quantise=True)


def sampled(run: Run, n: int, condition: Condition) -> Tensor:
    """n pictures in bytes, drawn given a condition."""
    return run.transform.inverse(run.draw(n, seed=0, condition=condition), quantise=True)


def draw(runs: list[Run], data: Dataset, path: Path) -> None:
    """Ten held-out pictures, and below them the same as codecs decode them, and as models draw them."""
    rows = torch.linspace(5, len(data.test) - 30, 10).long()
    x, given = data.test[rows], data.test_condition[rows]
    shown = torch.cat([x, *(sampled(run, len(rows), given) if run.learner.draws else decoded(run, x) for run in runs)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(data.transform.forward(shown), columns=10, side=1000).save(path)


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # few points in many dimensions: all rows have equally many
    with torch.no_grad():
        main()
