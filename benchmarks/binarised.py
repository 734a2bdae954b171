"""Bits of pictures of few levels: a model of categories beside a Gaussian one of the same pictures, each by its bound.

    ornstein train binarised-mnist data.labels=false training.steps=1500 --out runs/binarised
    python benchmarks/binarised.py write runs/binarised runs/binarised.npz
    ornstein train mnist "data={name: array, path: runs/binarised.npz}" net.channels=48 training.batch_size=32 \\
        training.lr=2e-3 training.steps=1500 "objective={name: likelihood, least: 0.3}" --out runs/gaussian
    python benchmarks/binarised.py compare runs/binarised runs/gaussian

`write` puts the pictures of the first run into a file, from which the second learns them as numbers. Both bounds are in
continuous time and on the same held-out pictures. The Gaussian's ends with the probability of the levels given the
picture at the noise ratio `--least`, where they can be told apart (Kingma et al. 2021), so both are of probabilities
and not of densities. Beside them stand pixels that are independent of each other, with the training part's shares of
each place, and bzip2 on the held-out pictures, each row of a picture filled up to whole bytes, which here takes fewer
bits than lzma and PNG.
"""

import bz2
import math
from pathlib import Path

import common
import numpy as np
import torch

from ornstein.core.numerics import Estimate
from ornstein.experiment.run import Run
from ornstein.experiment.texts import bits, must_be_tokens
from ornstein.objectives.bound import Bins
from ornstein.objectives.continuous import continuous_bound


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("work", choices=("write", "compare"))
    parser.add_argument("run", type=Path, help="of categories")
    parser.add_argument("other", type=Path, help="the file to write, or the Gaussian run")
    parser.add_argument("-n", type=int, default=10_000, help="held-out pictures")
    parser.add_argument("--draws", type=int, default=4, help="noise levels at which each is looked at")
    parser.add_argument("--least", type=float, default=0.3, help="noise at which the Gaussian's levels are read off")
    asked = parser.parse_args()
    run = Run.load(asked.run)
    data = run.load_data()
    if asked.work == "write":
        np.savez_compressed(asked.other, allow_pickle=False, x_train=data.train.numpy(), x_test=data.test.numpy())
        print(f"{len(data.train):,} and {len(data.test):,} pictures: {asked.other}")
        return
    classes, gaussian, count = must_be_tokens(run), Run.load(asked.other), 8 if asked.quick else asked.n
    test = data.test[:count]
    assert gaussian.transform.levels is not None, "a run of pictures of so many levels"
    assert torch.equal(gaussian.load_data().test[:count], test), "both runs are of the same pictures"

    place = torch.nn.functional.one_hot(data.train.long(), classes.count).double().mean(0)
    place = place.clamp_min(1 / len(data.train))  # a level that was never met at a place
    alone = -(place / place.sum(-1, keepdim=True)).log()
    independent = alone.expand(len(test), *alone.shape).gather(-1, test.long()[..., None]).flatten(1).sum(1)
    packed = np.packbits(test.numpy(), axis=-1) if classes.count == 2 else test.numpy()
    z = gaussian.transform.forward(test)
    bins = Bins(gaussian.transform.levels.count)
    found = {
        "categories": bits(run, test, draws=asked.draws).each,
        "Gaussian": continuous_bound(
            gaussian.denoiser, z, least=asked.least, bins=bins, draws=asked.draws, seed=0
        ).total,
    }

    def said(nats: Estimate) -> tuple[str, str]:
        each = math.log(2) * test[0].numel()
        return str(nats), str(Estimate(nats.value / each, nats.standard_error / each))

    print(common.heading(f"{len(test):,} held-out pictures", "nats a picture", "bits per dimension"))
    for name, nats in found.items():
        print(common.row(f"ornstein, {name}", *said(Estimate.of(nats))))
    print(common.row("the first minus the second", *said(Estimate.of(found["categories"] - found["Gaussian"]))))
    print(common.row("independent pixels", *said(Estimate.of(independent))))
    shrunk = 8 * math.log(2) * len(bz2.compress(packed.tobytes())) / len(test)
    print(common.row("bzip2", *said(Estimate(shrunk, math.nan))))


if __name__ == "__main__":
    main()
