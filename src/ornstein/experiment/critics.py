"""Teaching a critic when training has ended: rows are drawn, and trees learn what tells them from the data's.

The theory is in `ornstein.discrete.critic`. Its draws take about a tenth of the time of training, and are fewer where
training was short. It is taught from training rows alone, and only where there are enough of them, for a critic that
knows a few rows by heart would let nothing pass but what is like them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ornstein.core.drive import another_seed
from ornstein.core.learner import Learner
from ornstein.data import Dataset
from ornstein.experiment.folder import CRITIC, read_critic, write_critic
from ornstein.experiment.run import Run
from ornstein.experiment.watch import Moment
from ornstein.training import Lock, Training

#: draws for each training row; rows of either kind at most, and at least; draws that are enough for any number of rows
_DRAWS, MOST_SEEN, _LEAST, _ENOUGH = 2, 40_000, 5_000, 20_000
#: questions to the network for a draw, for each row that it was trained on: a question takes a third of the time
_SHARE = 0.15
#: the number of the seed, among those of a run, of the rows that a critic sees
_SEED = 1_000_000


def rows_drawn(learner: Learner, config: Training, count: int) -> int:
    """How many rows are drawn to teach a critic, for so many training rows; 0 if none is taught."""
    affordable = int(_SHARE * config.steps * config.batch_size / max(learner.steps, 1))
    drawn = min(_DRAWS * count, MOST_SEEN, affordable)
    # of fewer draws than rows a critic learns as much by heart as it learns of the law
    return drawn if learner.criticised and count >= _LEAST and drawn >= min(count, _ENOUGH) else 0


def criticise(folder: Path, data: Dataset, last: Moment, lock: Lock | None = None) -> Iterator[Moment]:
    """Teach a critic to the run in a folder, if it wants one and has none. For the holder of the lock.

    Args:
        last: the last moment of training, of which each moment here is a copy with a note.
        lock: the folder's, which says the same to whoever asks; None for nobody to be told.
    """

    def at(note: str) -> Moment:
        if lock is not None:
            lock.tell(note)
        return replace(last, note=note)

    run = Run.load(folder).drawing()
    learner, ema = run.learner, run.experiment.sampling.ema
    wanted = rows_drawn(learner, run.experiment.training, len(data.train))
    if not wanted or read_critic(folder, ema) is not None:
        return
    size, drawn = learner.at_once, []
    for number, start in enumerate(range(0, wanted, size)):
        yield at(f"teaching a critic: {start:,} of {wanted:,} rows drawn")
        seed = another_seed(run.experiment.training.seed, _SEED + number)
        drawn.append(learner.seen_by_critic(run.draw(min(size, wanted - start), seed=seed)))
    yield at(f"teaching a critic: trees learn from {wanted:,} rows drawn")
    some = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:MOST_SEEN]
    real = [learner.seen_by_critic(data.transform.forward(data.train[part])) for part in some.split(size)]
    critic = learner.critic(torch.cat(real), torch.cat(drawn), torch.Generator().manual_seed(0))
    write_critic(folder, ema, critic)
    yield at(f"{CRITIC}: draws that it finds odd are made again")
