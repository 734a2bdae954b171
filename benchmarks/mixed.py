"""What a model of numbers and their class, drawn together, knows of each given the other, on real digits.

    OMP_NUM_THREADS=1 python benchmarks/mixed.py

One run of the preset `labelled-digits` answers three questions. *Together*: 1,000 rows of 64 pixels and a class are
drawn; a judge that has seen the training digits says which digit the pixels are, and whether that is the class that was
drawn with them. *The picture given the class*: 100 rows of each class. *The class given the picture*: for each held-out
digit the model gives the probabilities of its class, with the pixels clean and the class masked. The judge is the
nearest training digit; how often it is right on held-out digits is about the most that the first two can show.
"""

import tempfile
import time
from pathlib import Path

import common
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.mixed.learner import LABEL, NUMBERS


def nearest(known: Tensor, asked: Tensor) -> Tensor:
    """For each row asked, the class (last column) of the known row whose other columns are nearest to its own."""
    found: Tensor = known[torch.cdist(asked[:, :-1].float(), known[:, :-1].float()).argmin(1), -1]
    return found


@torch.no_grad()
def classes_given(run: Run, rows: Tensor) -> Tensor:
    """log p(class given the numbers) of rows in their own units, (N, K): the numbers clean, the class masked."""
    model = run.model
    parts = dict(model.layout.unpacked(run.transform.forward(rows)))
    parts[LABEL] = torch.zeros_like(parts[LABEL])
    levels = {NUMBERS: model.parts[NUMBERS].process.at(0.0), LABEL: model.parts[LABEL].process.at(1.0)}
    found: Tensor = model.predict(parts, levels, Condition.of(None))[LABEL][:, 0]
    return found


def main() -> None:
    parser = common.arguments(__doc__)
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    changes = ["training.validate_every=1000000", *["training.steps=20"] * quick]
    with tempfile.TemporaryDirectory() as place:
        began = time.process_time()
        for _ in train(Experiment.read("labelled-digits", changes), Path(place) / "run", draws=False):
            pass
        print(f"trained in {time.process_time() - began:.0f} s of processor time\n")
        told(Run.load(Path(place) / "run"), 20 if quick else 100)


def told(run: Run, n: int) -> None:
    """Print the figures of a run, n rows of each class."""
    data = run.load_data()
    known, test = data.train, data.test
    classes = len(run.classes)
    drawn = run.sample(10 * n, seed=0, raw=True)
    given = run.sample(classes * n, label=torch.arange(classes).repeat_interleave(n), seed=1, raw=True)
    log_p, truth = classes_given(run, test), test[:, -1].long()
    shares = [torch.bincount(rows[:, -1].long(), minlength=classes) / len(rows) for rows in (drawn, known)]
    print(common.heading("", "share"))
    right = {
        "drawn together, and the judge agrees": (nearest(known, drawn) == drawn[:, -1]).float().mean(),
        "drawn given the class, and the judge agrees": (nearest(known, given) == given[:, -1]).float().mean(),
        "the judge itself, held-out digits": (nearest(known, test) == test[:, -1]).float().mean(),
        "the class given the picture, held-out digits": (log_p.argmax(1) == truth).float().mean(),
        "total variation of the classes drawn": 0.5 * (shares[0] - shares[1]).abs().sum(),
    }
    for name, value in right.items():
        print(common.row(name, f"{100 * float(value):.1f} %"))
    nats = -log_p.gather(1, truth[:, None]).mean()
    print(common.row("nats of the class given the picture", f"{float(nats):.3f}"))


if __name__ == "__main__":
    main()
