"""How far are the pictures of several runs from held-out ones, as a network trained on photographs sees them?

    pip install 'ornstein[images]'
    python benchmarks/pictures.py runs/single runs/cascade runs/codec runs/latent

As many pictures of each run as are held out: samples, given what is known of the held-out ones; or, if the run is a
codec, training pictures that were encoded and decoded. The first row is of real training pictures in their place. The
Fréchet distance is that of EfficientNet-lite0's features (`ornstein.metrics.lite`); PSNR and SSIM are a codec's own.
"""

import warnings
from pathlib import Path

import common
import torch
from torch import Tensor

from ornstein.experiment.evidence import photographed
from ornstein.experiment.folder import read_measured
from ornstein.experiment.run import Run
from ornstein.metrics import METRICS


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    asked = parser.parse_args()
    runs = [Run.load(place).drawing() for place in asked.runs]
    data = runs[0].load_data()
    n = 20 if asked.quick else len(data.test)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    one, other = data.train[rows[:n]], data.train[rows[n : 2 * n]]
    frechet, wasserstein = METRICS["frechet"](), METRICS["sliced-wasserstein"]()
    held_out = data.test[:n].float()
    seen = photographed(runs[0], held_out)

    def line(name: str, pictures: Tensor, *more: str) -> None:
        x = pictures.float()
        far = frechet(photographed(runs[0], x), seen, torch.Generator().manual_seed(0))
        apart = wasserstein(x, held_out, torch.Generator().manual_seed(0))
        print(common.row(name, f"{far:.2f}", f"{apart:.1f}", *more, *[""] * (2 - len(more))), flush=True)

    print(common.heading("pictures", "Fréchet distance", "sliced Wasserstein", "PSNR, dB", "SSIM"))
    line("real, of training", other)
    for run in runs:
        if run.learner.draws:
            z = run.draw(n, seed=0, condition=run.examples(n, data.test_condition))
            line(run.folder.name, run.transform.inverse(z, quantise=True))
        else:
            back = run.model.decode(run.model.encode(run.transform.forward(one)).mean)
            measured = read_measured(run.folder)
            assert measured is not None  # of a codec whose training has ended
            figures = f"{measured['psnr']:.1f}", f"{measured['ssim']:.3f}"
            line(run.folder.name, run.transform.inverse(back, quantise=True), *figures)


if __name__ == "__main__":
    warnings.simplefilter("ignore", UserWarning)  # few points in many dimensions: all rows have equally many
    with torch.no_grad():
        main()
