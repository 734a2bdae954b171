"""Do samples show what their captions say? Retrieval of the caption among 100, and a picture of prompts.

    export ORNSTEIN_DATA=...                    # with emoji32.npz
    ornstein train emoji --out runs/emoji
    python benchmarks/emoji.py runs/emoji --scales 1 3

A matcher of pictures and captions is trained on the run's training part alone: two small networks whose outputs are
trained to be alike for a pair, and unlike for other pairs of a batch (Radford et al. 2021, 2103.00020). For each
picture it ranks the right caption and 99 others, drawn at random from all captions. The row of real held-out
pictures shows how good the matcher is at captions that it has not seen; samples cannot be expected to do better there.
Held-out captions are those whose words all occur in training.
"""

import tempfile
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.data import open_data
from ornstein.data.condition import pieces
from ornstein.experiment.config import Experiment
from ornstein.experiment.guide import guided
from ornstein.experiment.pictures import image_grid
from ornstein.experiment.run import Run
from ornstein.experiment.train import train

AMONG = 100
#: captions of training; those on the second line combine words as no caption does
PROMPTS = (
    "blue heart", "smiling face with sunglasses", "cat face", "clock face three oclock", "green apple",
    "large red circle",
    "red heart", "blue apple", "green cat face", "purple moon", "blue face with sunglasses", "large yellow heart",
)  # fmt: skip


class Matcher(nn.Module):
    """Pictures (B, 3, 32, 32) and tokens (B, L), -1 beyond their end -> unit vectors."""

    def __init__(self, vocabulary: int, width: int = 96) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inp, out in ((3, 32), (32, 64), (64, 128), (128, 128)):
            layers += [nn.Conv2d(inp, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU(), nn.AvgPool2d(2)]
        self.picture = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 4, width))
        self.words = nn.Embedding(vocabulary + 1, width, padding_idx=0)
        self.warmth = nn.Parameter(torch.tensor(2.3))

    def seen(self, x: Tensor) -> Tensor:
        return F.normalize(self.picture(x), dim=1)

    def said(self, tokens: Tensor, drop: float = 0.0) -> Tensor:
        there = (tokens >= 0) & (torch.rand(tokens.shape) >= drop)
        return F.normalize(self.words((tokens + 1) * there).sum(1) + 1e-6, dim=1)


def matched(x: Tensor, tokens: Tensor, vocabulary: int, steps: int) -> Matcher:
    """A matcher of pictures in model space and their tokens."""
    torch.manual_seed(0)
    model = Matcher(vocabulary)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    warm = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,))
        across, down = torch.randint(-2, 3, (2,)).tolist()
        pictures = x[rows].roll((across, down), (2, 3)) + 0.05 * torch.randn(len(rows), *x.shape[1:])
        like = model.warmth.exp() * model.seen(pictures) @ model.said(tokens[rows], 0.1).T
        same = (tokens[rows][:, None] == tokens[rows][None]).all(2).float()  # two vendors may draw the same caption
        right = same / same.sum(1, keepdim=True)
        loss = F.cross_entropy(like, right) + F.cross_entropy(like.T, right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        warm.step()
    return model.eval()


@torch.no_grad()
def retrieval(model: Matcher, x: Tensor, tokens: Tensor, every: Tensor) -> tuple[float, float]:
    """How often the right caption ranks first, and how often among the first five, of 100."""
    dice, places = torch.Generator().manual_seed(1), []
    seen, said, others = model.seen(x), model.said(tokens), model.said(every)
    for i in range(len(x)):
        wrong = (every != tokens[i]).any(1).nonzero().flatten()
        wrong = wrong[torch.randperm(len(wrong), generator=dice)[: AMONG - 1]]
        places.append(int((others[wrong] @ seen[i] > said[i] @ seen[i]).sum()))
    found = torch.tensor(places)
    return float((found < 1).double().mean()), float((found < 5).double().mean())


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/emoji"))
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--each", type=int, default=2, help="samples of a caption")
    parser.add_argument("--steps", type=int, default=500, help="of the matcher")
    parser.add_argument("--out", type=Path, default=Path("prompts.png"))
    asked = parser.parse_args()
    if asked.quick:
        asked.scales, asked.each, asked.steps, asked.run = asked.scales[:1], 1, 2, Path(tempfile.mkdtemp()) / "run"
        tiny = ["training.steps=2", "net.channels=8", "sampling.steps=2", "sampling.preview=1"]
        for _ in train(Experiment.read("emoji", tiny), asked.run):
            pass
    out = common.place(asked.out, asked.quick)
    run = Run.load(asked.run).drawing()
    data, known = run.load_data(), run.conditions["text"]
    real = [data.transform.forward(part) for part in (data.train, data.test)]
    tokens = [data.conditions["text"].train, data.conditions["text"].test]
    model = matched(real[0], tokens[0], len(known.classes), asked.steps)
    every = torch.cat(tokens).unique(dim=0)
    every = every[(every >= 0).any(1)]

    def line(name: str, x: Tensor, given: Tensor) -> None:
        first, five = retrieval(model, x, given, every)
        print(common.row(name, len(x), f"{first:.1%}", f"{five:.1%}"), flush=True)

    print(common.heading("pictures", "how many", "caption found", "among the first five"))
    print(common.row("chance", "", f"{1 / AMONG:.1%}", f"{5 / AMONG:.1%}"))
    in_full = known_in_full(run)
    line("real, of training", real[0][:1000], tokens[0][:1000])
    line("real, held out", real[1][in_full], tokens[1][in_full])
    held_out = tokens[1][in_full].unique(dim=0)
    dice = torch.Generator().manual_seed(0)
    several = tokens[0].unique(dim=0)
    several = several[torch.randperm(len(several), generator=dice)[: len(held_out)]]
    for scale in asked.scales:
        drawing = run if scale == 1 else guided(run, scale=scale)
        for name, given in (("captions of training", several), ("held-out captions", held_out)):
            given = given.repeat(asked.each, 1)
            line(f"drawn, {name}, scale {scale:g}", drawing.draw(len(given), seed=0, condition={"text": given}), given)
    drawn = [guided(run, scale=asked.scales[-1]).draw(len(PROMPTS), text=list(PROMPTS), seed=seed) for seed in (0, 1)]
    shown = torch.cat([row[half] for half in (slice(0, 6), slice(6, 12)) for row in drawn])  # two of each, one above
    out.parent.mkdir(parents=True, exist_ok=True)
    image_grid(shown, columns=6).save(out)


def known_in_full(run: Run) -> Tensor:
    """The rows of held-out pictures with captions that training does not have, but all of whose words it has."""
    asked = {key: value for key, value in run.experiment.data.items() if key != "name"}
    column = open_data("emoji", **{**asked, "text": "characters"}).load().conditions["text"]
    trained, held_out = ([pieces(text, "words") for text in column.about.texts(t)] for t in (column.train, column.test))
    words = {word for text in trained for word in text}
    new = [bool(text) and text not in trained and words.issuperset(text) for text in held_out]
    return torch.tensor(new).nonzero().flatten()


if __name__ == "__main__":
    main()
