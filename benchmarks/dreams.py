"""Do optimised pictures show what their texts say? Methods of score distillation, by the matcher of `emoji.py`.

    export ORNSTEIN_DATA=...                    # with emoji32.npz
    ornstein train emoji training.steps=3500 --out runs/emoji
    python benchmarks/dreams.py runs/emoji

A picture is optimised for each of some captions of training, by every method with the same start, guidance and number
of steps. The matcher, which has learned from real pictures, ranks its caption among 100. *Edges* are the mean absolute
difference of neighbouring pixels, as a multiple of that in real pictures of the same captions: below 1 is blurred,
above 1 is grainy. Beside them are real pictures, and samples that the model draws with the same guidance. Seconds are
of one processor, for each picture. The picture has a row for each of these, real ones first.
"""

import tempfile
import time
from pathlib import Path

import common
import torch
from emoji import matched, retrieval
from torch import Tensor

from ornstein.distill import SCORE_DISTILLATIONS
from ornstein.experiment.config import Experiment
from ornstein.experiment.dream import dreamed
from ornstein.experiment.guide import guided
from ornstein.experiment.pictures import image_grid
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

#: captions of training to show; others are drawn at random
SHOWN = ("blue heart", "smiling face with sunglasses", "tomato", "clock face three oclock", "large red circle",
         "green apple", "cat face", "sun with face", "frog face", "evergreen tree")  # fmt: skip


def edges(x: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels of pictures (B, C, H, W), down and across."""
    return float((x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()) / 2)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/emoji"))
    parser.add_argument("--methods", nargs="+", choices=SCORE_DISTILLATIONS, default=["sds", "controlled", "vsd"])
    parser.add_argument("--count", type=int, default=24, help="pictures")
    parser.add_argument("--scale", type=float, default=3.0, help="of guidance")
    parser.add_argument("--steps", type=int, default=250, help="of each optimisation")
    parser.add_argument("--taught", type=int, default=500, help="steps of the matcher's training")
    parser.add_argument("--out", type=Path, default=Path("dreams.png"))
    asked = parser.parse_args()
    if asked.quick:
        asked.count, asked.steps, asked.taught, asked.run = 2, 2, 2, Path(tempfile.mkdtemp()) / "run"
        tiny = ["training.steps=2", "net.channels=8", "sampling.steps=2", "sampling.preview=1"]
        for _ in train(Experiment.read("emoji", tiny), asked.run):
            pass
    run = Run.load(asked.run).drawing()
    data, known = run.load_data(), run.conditions["text"]
    x, tokens = data.transform.forward(data.train), data.conditions["text"].train
    matcher = matched(x, tokens, len(known.classes), asked.taught)
    every = tokens.unique(dim=0)
    every = every[(every >= 0).any(1)]
    shown = run.condition(len(SHOWN), text=list(SHOWN)).parts["text"]
    several = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]
    given = torch.cat([shown, several])[: asked.count]
    real = x[(tokens[None] == given[:, None]).all(2).int().argmax(1)]
    rows = [real]

    def line(name: str, pictures: Tensor, seconds: str) -> None:
        first, five = retrieval(matcher, pictures, given, every)
        sharp = f"{edges(pictures) / edges(real):.2f}"
        print(common.row(name, f"{first:.0%}", f"{five:.0%}", sharp, seconds), flush=True)

    print(common.heading("pictures", "caption found", "among the first five", "edges", "seconds"))
    line("real, of training", real, "")
    for name in ("drawn", *asked.methods):
        began = time.process_time()
        if name == "drawn":
            found = guided(run, scale=asked.scale).draw(len(given), seed=0, condition={"text": given})
        else:
            how = {"method": name, "scale": asked.scale, "steps": asked.steps, "condition": {"text": given}}
            found = dreamed(run, "pixels", len(given), **how).x
        rows.append(found.clamp(-1, 1))
        line(name, rows[-1], f"{(time.process_time() - began) / len(given):.1f}")
    out = common.place(asked.out, asked.quick)
    out.parent.mkdir(parents=True, exist_ok=True)
    wide = min(len(SHOWN), asked.count)
    image_grid(torch.cat([row[:wide] for row in rows]), columns=wide, side=1000).save(out)


if __name__ == "__main__":
    main()
