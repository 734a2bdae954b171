"""Training of any network on any loss: one loop, checkpoints that survive a kill, and averages of the weights.

    config.py      how long, how fast, how precisely; the learning rate
    loop.py        the loop itself, as a generator of `Progress`
    ema.py         power-function averages of the weights, and other lengths of them afterwards
    checkpoint.py  whole or not at all
    log.py         metrics.jsonl and TensorBoard

This room knows no diffusion: a loss is `(net, batch, generator) -> (B,)`.
"""

from ornstein.training.checkpoint import Checkpoint, latest
from ornstein.training.config import DECAYS, PRECISIONS, Training, learning_rate
from ornstein.training.ema import PowerEMA, reconstruct
from ornstein.training.log import Log
from ornstein.training.loop import Diverged, Progress, fit

__all__ = [
    "DECAYS",
    "PRECISIONS",
    "Checkpoint",
    "Diverged",
    "Log",
    "PowerEMA",
    "Progress",
    "Training",
    "fit",
    "latest",
    "learning_rate",
    "reconstruct",
]
