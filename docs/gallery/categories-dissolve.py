"""Categories that dissolve under four kernels, and a text that unmasks itself."""

from typing import Any

import matplotlib.pyplot as plt
import torch
from style import BLUE, GREY, ORANGE, save

from ornstein.core.numerics import uniform
from ornstein.core.walk import end
from ornstein.data.classes import Classes
from ornstein.data.standard import Digits
from ornstein.discrete import KERNELS, TOKEN_STEPPERS, TokenTable, draw_tokens
from ornstein.discrete.bounds import MaskedBound, measured
from ornstein.discrete.drive import drawn as at_places
from ornstein.discrete.kernels import Absorbing, at_share, share
from ornstein.discrete.tokens import TokenNet
from ornstein.nets import Transformer

torch.set_num_threads(1)
LEVELS, LEFT = 17, (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
digit = Digits().load().train[3].reshape(1, 64).long()
figure = plt.figure(figsize=(8.6, 8.2))
parts: Any = figure.subfigures(2, 1, height_ratios=[5, 3.6])
upper, lower = parts

# above: one digit with 17 levels; each place uses the same random number at every share, so that rows can be compared
axes = upper.subplots(4, len(LEFT))
for row, name in zip(axes, ("absorbing", "uniform", "ordered", "neighbours"), strict=True):
    first = name == "absorbing"
    made = KERNELS[name]()
    for panel, left in zip(row, LEFT, strict=True):
        level = at_share(made, torch.tensor([left]))
        log_p = made.log_rows(digit, LEVELS, share(level))
        codes = at_places(log_p, uniform(torch.tensor([1]), 64, 0)).reshape(8, 8)
        shown = codes.float().masked_fill(codes == LEVELS, float("nan"))
        colours = plt.get_cmap("gray").with_extremes(bad=ORANGE)
        panel.imshow(shown, cmap=colours, vmin=0, vmax=LEVELS - 1)
        panel.set(xticks=[], yticks=[])
        if first:
            panel.set_title(f"{left:.0%} left", size=10)
    row[0].set_ylabel(name, size=10)

# below: four sentences that a small network has learned by heart; one of them, drawn from pure masks
SENTENCES = """Noise is easy to make, and hard to undo by any single step.
A chain of many small steps forgets the place it began at.
What is masked can be told by all that stands beside it.
Every letter comes alone, at a moment that is its own."""
rows = [line.ljust(60) for line in SENTENCES.split("\n")]
letters = "".join(sorted(set("".join(rows))))
classes = Classes(len(letters), (60,), letters)
pieces = torch.cat([classes.read(line) for line in rows])
net = Transformer(width=64, depth=2, heads_width=32).build(TokenNet.shown(len(letters), (60,)), seed=0)
model = TokenNet(net, Absorbing(), classes.categories, (60,))
adam, dice, steps = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99)), torch.Generator().manual_seed(0), 2000
x0 = classes.forward(pieces.repeat(4, 1))
for step in range(steps):
    adam.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 50) * (1 - step / steps)
    adam.zero_grad()
    MaskedBound()(model, x0, None, dice).mean().backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    adam.step()
nats = measured(model, classes.forward(pieces.repeat(16, 1)), 0, draws=16).nats.value
print(f"sentences: {nats / 0.6931:.1f} bits each after {steps} steps; 2 are needed to tell four apart")
lines: list[str] = []
with torch.no_grad():
    for state in draw_tokens(model, 1, TOKEN_STEPPERS["first-hitting"](), steps=8, seed=0):
        lines.append(classes.texts(state.x)[0])
panel = lower.subplots()
panel.axis("off")
for number, line in enumerate(lines):
    place = 1 - number / (len(lines) - 1)
    known = "".join(c if c != "_" else " " for c in line)
    gone = "".join("·" if c == "_" else " " for c in line)
    for text, colour in ((known, BLUE), (gone, GREY)):
        panel.text(0, place, text, family="monospace", size=14, color=colour, transform=panel.transAxes)
panel.set_title("A sentence of 60 characters, unmasked in eight steps", size=10, pad=16)

# how far each sampler is from the exact distribution of two tokens, printed beside the picture
table = torch.tensor([[0.30, 0.02, 0.03], [0.05, 0.20, 0.02], [0.02, 0.08, 0.28]], dtype=torch.float64)
for name in ("token-ancestral", "token-euler", "first-hitting"):
    law, found = TokenTable(table, Absorbing()), []
    for count in (1, 4, 16, 64):
        drawn = law.codes(end(draw_tokens(law, 20_000, TOKEN_STEPPERS[name](), steps=count, seed=0)).x)
        shares = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / len(drawn)
        found.append(f"{float((shares - table.flatten()).abs().sum()) / 2:.3f}")
    print(f"{name}: total variation in 1, 4, 16, 64 steps {', '.join(found)}")

save(figure)
