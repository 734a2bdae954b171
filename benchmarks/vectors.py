"""What a small network for vectors costs, beside the same layers in plain torch.

    OMP_NUM_THREADS=1 python benchmarks/vectors.py

*Step*: forward, backward and the fused AdamW of an MLP with dropout, of the size that `ornstein train` gives a table of
a dozen columns: 655 inputs and outputs, and 300 numbers more that are only read, of which a part needs a gradient.
*Draw*: a call of an MLP with all rows at one noise level, as in every step of a sampler.

*Plain* has the same number of parameters in the same order: `nn.Linear`, `F.layer_norm`, `nn.Dropout`, one product for
the whole input, and an embedding of the level for each row. The two are called in turn, and the ratio is the median of
that of neighbouring calls: below 1, ours takes less time.
"""

import statistics
from functools import partial

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ornstein.nets import MLP, Picture
from ornstein.nets.embedding import Embedding

ROWS, OWN, READ, LEARNT = 512, 655, 300, 192
DROPOUT = 0.2


class Plain(nn.Module):
    """The MLP's layers as torch has them."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embedding = Embedding(64, {})
        self.modulation = nn.Linear(64, 2 * depth * width)
        self.inp, self.out = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.first, self.second = (nn.ModuleList(nn.Linear(width, width) for _ in range(depth)) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        level = level.clone()  # an entry for each row
        scales, shifts = self.modulation(self.embedding(level, {})).chunk(2, 1)
        h, depth = self.inp(x), len(self.first)
        for scale, shift, first, second in zip(
            scales.chunk(depth, 1), shifts.chunk(depth, 1), self.first, self.second, strict=True
        ):
            branch = F.layer_norm(h, h.shape[1:]) * (1 + scale) + shift
            h = h + second(self.dropout(F.silu(first(branch))))
        found: Tensor = self.out(self.dropout(F.silu(F.layer_norm(h, h.shape[1:]))))
        return found


def step(net: nn.Module, adam: torch.optim.Optimizer, ours: bool) -> None:
    """One step of training on random rows."""
    x, read = torch.randn(ROWS, OWN), torch.randn(ROWS, READ - LEARNT)
    learnt, level = torch.randn(ROWS, LEARNT, requires_grad=True), torch.randn(ROWS)
    beside = torch.cat([read, learnt], 1)
    out = net(x, level, {"read": beside}) if ours else net(torch.cat([x, beside], 1), level)
    adam.zero_grad()
    out.square().mean().backward()
    adam.step()


@torch.no_grad()
def draw(net: nn.Module, width: int) -> None:
    """One call with all rows at one level."""
    net(torch.randn(4096, width), torch.zeros(()).expand(4096))


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    rounds = 2 if asked.quick else asked.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(common.heading("case", "ours, ms", "plain, ms", "ratio"))
    for width in (128, 256):
        ours = MLP(width=width, depth=2, dropout=DROPOUT).build((OWN,), {"read": Picture(READ, ())})
        plain = Plain(OWN + READ, OWN, width, 2, DROPOUT)
        works = {
            name: partial(step, net, torch.optim.AdamW(net.parameters(), fused=True), name == "ours")
            for name, net in (("ours", ours), ("plain", plain))
        }
        show(f"step, {width} wide", common.in_turn(works, rounds))
    for width in (64, 128, 256):
        nets = {"ours": MLP(width=width, depth=3).build((2,)), "plain": Plain(2, 2, width, 3, 0.0)}
        works = {name: partial(draw, net.eval(), 2) for name, net in nets.items()}
        show(f"draw, {width} wide", common.in_turn(works, rounds))


def show(case: str, found: dict[str, list[float]]) -> None:
    """A line of the table."""
    ratio = statistics.median(a / b for a, b in zip(found["ours"], found["plain"], strict=True))
    print(common.row(case, *(f"{1000 * statistics.median(found[n]):.1f}" for n in ("ours", "plain")), f"{ratio:.2f}"))


if __name__ == "__main__":
    main()
