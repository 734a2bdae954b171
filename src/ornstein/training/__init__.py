"""Training of any network on any loss: one loop, checkpoints that survive a kill, and averages of the weights.

    config.py      how long, how fast; the learning rate
    precision.py   the type of number, chosen by measurement
    loop.py        the loop itself, as a generator of `Progress`
    threads.py     the number of threads, chosen by measurement
    pieces.py      batches in pieces, each with its rows and its noise
    parallel.py    the network spread over processes
    tally.py       what a run counts and reports
    interrupt.py   Ctrl-C, after the step
    saving.py      the state of a run, into a checkpoint and back
    checkpoint.py  checkpoints, whole or not at all
    lock.py        one writer in a run folder
    manifest.py    the files of a run folder, checked by their hashes
    ema.py         power-function averages of the weights, and other lengths of them afterwards
    log.py         metrics.jsonl and TensorBoard
    trackers.py    Weights & Biases, MLflow and trackio
    count.py       what a piece of work computes, moves and keeps alive

Nothing here depends on diffusion: a loss is `(net, batch, generator) -> (B,)`.
"""

from ornstein.training.checkpoint import Checkpoint, latest, newest_step
from ornstein.training.config import DECAYS, Training, learning_rate
from ornstein.training.ema import PowerEMA, average_file, reconstruct
from ornstein.training.lock import Lock, held_by, holding
from ornstein.training.log import Log, read_lines
from ornstein.training.loop import Diverged, fit
from ornstein.training.precision import AUTO, PRECISIONS, half, quickest, quickest_training
from ornstein.training.tally import Progress
from ornstein.training.threads import Pace, pace_of, threads

__all__ = [
    "AUTO",
    "DECAYS",
    "PRECISIONS",
    "Checkpoint",
    "Diverged",
    "Lock",
    "Log",
    "Pace",
    "PowerEMA",
    "Progress",
    "Training",
    "average_file",
    "fit",
    "half",
    "held_by",
    "holding",
    "latest",
    "learning_rate",
    "newest_step",
    "pace_of",
    "quickest",
    "quickest_training",
    "read_lines",
    "reconstruct",
    "threads",
]
