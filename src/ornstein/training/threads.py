"""How many threads take a step: measured on the steps themselves, since the best number depends on the machine's load.

All threads wait for the last one many times a step. On an idle machine more threads are faster, if the work is worth
sharing; on a busy one they wait for a thread whose processor is doing something else, and a single thread, which waits
for no other, may be several times as fast. Neither is known beforehand, and both change while a run lasts.

*In turns.* At first every number of threads takes a few steps in turn; training goes on with the largest number within
a tenth of the fastest. When a step takes twice as long as it did then, the turns are repeated. With fewer than all
threads they are also repeated when steps become faster by a fifth, since the other load may have gone, and now and then
in any case, since one thread on a processor of its own would not notice that.

*Another number of threads rounds sums differently*, in the last bits. So a run with a fixed number is the same every
time; with a measured one, two runs are the same as long as they make the same choice, which each `Progress` tells, and
measure nothing again. The first turns depend only on the number of the step, and a checkpoint keeps the choice.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from ornstein import ranks
from ornstein.training.config import Training
from ornstein.training.precision import AUTO

#: steps before the first turn; turns of each number; steps of a turn, the first of which is not counted
_WARM, _TURNS, _TURN = 3, 2, 3
#: as many times the fastest's seconds may be taken by more threads that are chosen all the same
_NEAR = 1.1
#: how much the seconds of a step must change before turns are taken again
_CHANGED = 2.0
#: how much faster steps of fewer than all threads must come
_FASTER = 1.2
#: seconds after which fewer than all threads are measured anew in any case; and how many times longer than turns take
_AGAIN, _RARELY = 300.0, 50
#: steps and seconds over which such a change is looked for, at least; the seconds double while the choice stays
_STEPS, _SECONDS, _MOST_SECONDS = 16, 2.0, 600.0
#: by which a person says how many threads there are
_SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Pace:
    """The number of threads for the next step, from the seconds that earlier steps took. It reads no clock itself.

    Arguments:
        numbers: to choose from, the largest first; with only one nothing is measured.
    """

    def __init__(self, numbers: Sequence[int]):
        self.numbers = tuple(numbers)
        self.chosen, self.usual = self.numbers[0], 0.0
        self._seconds: list[float] = []
        self._patience = _SECONDS
        self._why = ""
        self._since = 0.0  # seconds of steps since the last turns
        self._turns = [(self.chosen, False)] * _WARM + self._each()

    def go_on(self, known: Mapping[str, Any] | None) -> None:
        """Continue with what `facts` gave, if there are as many threads here."""
        if known and known["chosen"] in self.numbers:
            self.chosen, self.usual, self._turns = known["chosen"], known["usual"], []
            self._cost = known.get("cost", 0.0)

    @property
    def number(self) -> int:
        """The number of threads for the next step."""
        return self._turns[0][0] if self._turns else self.chosen

    def facts(self) -> dict[str, Any] | None:
        """The choice, the seconds of a step with it and those of all turns; None if there is none yet."""
        if self._turns or len(self.numbers) == 1:
            return None
        return {"chosen": self.chosen, "usual": self.usual, "cost": self._cost}

    def took(self, seconds: float) -> str:
        """Note the seconds that a step took; returns a sentence if that changed the choice or might have, else ""."""
        if len(self.numbers) == 1:
            return ""
        if self._turns:
            number, counts = self._turns.pop(0)
            self._cost += seconds
            if counts:
                self._found[number].append(seconds)
            return "" if self._turns else self._choose()
        self._seconds.append(seconds)
        self._since += seconds
        if len(self._seconds) >= _STEPS and sum(self._seconds) >= self._patience:
            self._look(median(self._seconds))
            self._seconds = []
        return ""

    def _look(self, now: float) -> None:
        """Have turns taken again where a step that takes so many seconds, or the time that has passed, asks for it."""
        fewer = self.chosen < self.numbers[0]
        if now > _CHANGED * self.usual or (fewer and now < self.usual / _FASTER):
            self._why = f"A step came to take {now:.2g} s instead of {self.usual:.2g} s"
        elif fewer and self._since >= max(_AGAIN, _RARELY * self._cost):
            self._why = f"{self.chosen} of {self.numbers[0]} threads had taken the steps for {self._since:.0f} s"
        else:
            if not fewer:  # nothing more to gain: the machine is freer than it was, and may be less so again
                self.usual = min(self.usual, now)
            return
        self._turns = self._each()

    def _each(self) -> list[tuple[int, bool]]:
        """Whose turn it is at each of the next steps, and whether the step counts."""
        self._cost = 0.0
        self._found: dict[int, list[float]] = {number: [] for number in self.numbers}
        turn = [(number, step > 0) for number in self.numbers for step in range(_TURN)]
        return turn * _TURNS

    def _choose(self) -> str:
        took = {number: median(seconds) for number, seconds in self._found.items()}
        before, first, fastest = self.chosen, not self.usual, min(took.values())
        self.chosen = next(number for number in self.numbers if took[number] <= _NEAR * fastest)
        self.usual, self._since = took[self.chosen], 0.0
        if first:
            return ""
        self._patience = min(2 * self._patience, _MOST_SECONDS) if self.chosen == before else _SECONDS
        each = ", ".join(f"{number} take{'s' * (number == 1)} {seconds:.2g} s" for number, seconds in took.items())
        return f"{self._why}, so threads were measured anew: {each}; {self.chosen} from here on."


def pace_of(config: Training, device: torch.device) -> Pace:
    """The `Pace` of a run with this configuration.

    Nothing is measured if the configuration or the environment gives a number, on a GPU, or in several processes, whose
    number already divides the machine.
    """
    if config.threads != AUTO:
        return Pace([int(config.threads)])
    most = torch.get_num_threads()
    if device.type != "cpu" or ranks.count() > 1 or any(name in os.environ for name in _SAID):
        return Pace([most])
    return Pace([most // 2**k for k in range(most.bit_length())])


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with this number of threads; afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def paced(by: Pace, said: list[str]) -> Iterator[None]:
    """A step with the number of threads whose turn it is; remarks on the choice are added to `said`."""
    with threads(by.number):
        start = time.perf_counter()
        yield
        sentence = by.took(time.perf_counter() - start)
    if sentence:
        said.append(sentence)
