"""Objectives of bridges: training on the pairs of a batch, or on pairs that the model walks itself.

`Matching` joins the rows of each batch by a coupling and regresses (`ornstein.bridge.matching`).

`Fitting` goes on from there: iterative Markovian fitting within one run. Its memory holds an average of the network's
weights, the *walker*, and a pool of pairs that the walker has joined. Every few steps it walks the rows of the current
batch, downward from x_1 and upward from x_0, and puts the resulting pairs into the pool in place of the oldest. It
trains on pairs of the pool: the downward direction on pairs whose x_0 are data, since they were walked up, and the
upward direction on pairs whose x_1 are data. So each direction ends in the distribution that it should, and the pairs
tend to those of the Schrodinger bridge (Shi et al. 2023, 2303.16852; with a walker that moves at every step, De Bortoli
et al. 2024, 2409.09347).

*Reflow* is the same with downward walks alone, on lines without noise, and with a walker that is replaced only once in
many steps: if it were always trained on its own walks, their ends would drift away from the data (Liu et al. 2023,
2209.03003).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ornstein.bridge.coupling import Coupling, Entropic, Independent, Optimal, Paired
from ornstein.bridge.drive import translate
from ornstein.bridge.matching import BridgeMatching
from ornstein.bridge.model import NetBridge
from ornstein.bridge.path import Path
from ornstein.core.condition import SOURCE, Condition, Given
from ornstein.errors import InputError, lookup, must_be_whole

#: how the rows of a batch are joined, by name, for a path
JOINED: dict[str, Callable[[Path], Coupling]] = {
    "paired": lambda path: Paired(),
    "independent": lambda path: Independent(),
    "optimal": lambda path: Optimal(),
    "entropic": lambda path: Entropic(path.stiffness),
}
#: how many pairs are walked at a time when the whole pool is
_AT_ONCE = 1024


def parted(condition: Given) -> tuple[Tensor, Condition]:
    """The rows of the far data set in a condition, and the rest of the condition.

    Raises:
        InputError: there are none, or some are absent.
    """
    given = Condition.of(condition)
    if SOURCE not in given.parts or bool(given.absent(SOURCE).any()):
        raise InputError(
            f"a bridge starts from rows of its {SOURCE}, one for each sample, and none are given: data=between and "
            "ornstein translate provide them."
        )
    return given.parts[SOURCE], given.without(SOURCE)


@dataclass(frozen=True)
class Taught(ABC):
    """An objective of bridges, `(bridge, x0, condition, generator) -> loss (B,)`; the condition brings x1."""

    @abstractmethod
    def joins(self, path: Path) -> Coupling:
        """The coupling that pairs the held-out rows by which a bridge on this path is judged."""

    def settled(self, path: Path, paired: bool) -> "Taught":
        """The objective with the settings decided that depend on the path and the data.

        Raises:
            InputError: settings that do not fit them.
        """
        return self


@dataclass(frozen=True)
class Matching(Taught):
    """Bridge matching: flow matching, OT-CFM, I2SB or simulation-free Schrodinger bridges, by how rows are joined.

    Args:
        coupling: "paired", row by row; "independent"; "optimal", by optimal transport within the batch; "entropic", by
            entropic transport with the stiffness of the path; "auto", paired if the data are, else optimal.
        cut: the share of the clock that is left out at each end.

    Raises:
        InputError: an unknown coupling, or a share outside [0, 1/2).
    """

    coupling: str = "auto"
    cut: float = 1e-3

    def __post_init__(self) -> None:
        lookup({"auto": None, **JOINED}, self.coupling, "objective.coupling")
        BridgeMatching(cut=self.cut)

    def settled(self, path: Path, paired: bool) -> "Matching":
        found = replace(self, coupling="paired" if paired else "optimal") if self.coupling == "auto" else self
        if found.coupling == "paired" and not paired:
            raise InputError(
                "objective.coupling='paired' joins row i to row i, and these data are not paired: set data.paired=true "
                "if they are, or take optimal or entropic."
            )
        found.joins(path)  # raises if the path has no stiffness
        return found

    def joins(self, path: Path) -> Coupling:
        return JOINED[self.coupling](path)

    def __call__(self, bridge: NetBridge, x0: Tensor, condition: Given, generator: torch.Generator) -> Tensor:
        x1, rest = parted(condition)
        return _matching(self.joins(bridge.path), bridge.path, self.cut)(bridge, x0, x1, rest, generator)


@dataclass(frozen=True)
class Fitting(Taught):
    """Iterative Markovian fitting by a pool of walked pairs; see the module.

    Args:
        coupling: of the pairs that the first steps train on.
        first: the number of these steps.
        every: after how many further steps the walker takes the average of the weights; 1: it is that average.
        horizon: over how many steps the weights are averaged, at most a tenth of those so far: early turns have far to
            go and are short, late ones average out the chance errors of their pairs.
        pool: pairs that are kept, in each direction.
        pause: steps from one walk of a batch to the next.
        walk: how many steps a walk takes, by Heun's rule. In few the variance at its end is wrong: for Gaussians, in 8
            steps, by 1 % with noise 1 and by 3 % with noise 2.
        both: whether pairs are also walked up.
        cut: the share of the clock that is left out at each end.

    Raises:
        InputError: numbers that are not positive; an unknown coupling.
    """

    coupling: str = "independent"
    first: int = 1000
    every: int = 1
    horizon: int = 200
    pool: int = 4096
    pause: int = 8
    walk: int = 8
    both: bool = True
    cut: float = 1e-3

    def __post_init__(self) -> None:
        lookup(JOINED, self.coupling, "objective.coupling")
        for name in ("first", "every", "horizon", "pool", "pause", "walk"):
            must_be_whole(f"objective.{name}", getattr(self, name))
        BridgeMatching(cut=self.cut)

    def settled(self, path: Path, paired: bool) -> "Fitting":
        if paired:
            raise InputError("objective: walked pairs would replace those of data.paired=true; take objective=bridge.")
        if self.both and path.noiseless:
            raise InputError(
                f"objective='markovian-fitting' needs noise between the ends, and {path} has none: take "
                "process=brownian, or objective=reflow."
            )
        return self

    def joins(self, path: Path) -> Coupling:
        return Optimal() if path.noiseless else Entropic(path.stiffness)

    def memory(self, bridge: NetBridge, x0: Tensor) -> dict[str, Tensor]:
        """What is kept from step to step: the number of steps so far, the pool, the average and the walker."""
        pairs = [f"{way}.{end}" for way in self._ways for end in ("x0", "x1")]
        kept = {name: x0.new_zeros(self.pool, *x0.shape[1:]) for name in pairs}
        for role in ("average", "walker")[: 1 if self.every == 1 else 2]:
            kept |= {f"{role}.{name}": weight.detach().clone() for name, weight in _weights(bridge.net).items()}
        return {"steps": torch.zeros((), dtype=torch.int64), **kept}

    def __call__(
        self, bridge: NetBridge, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        """The loss of each row, (B,): at first for the batch's own pairs, then for as many from the pool."""
        x1, _ = parted(condition)
        step = int(memory["steps"])
        # if a batch comes in pieces, only the first counts as a step
        begins = getattr(generator, "piece", (0, 1, len(x0)))[0] == 0
        if begins:
            memory["steps"].add_(1)
            self._average(bridge.net, memory, step)
        if step < self.first:
            x1 = x1[JOINED[self.coupling](bridge.path)(x0, x1, generator)]
            for way in self._ways:
                self._keep(memory, way, x0, x1, step * len(x0))
            return _matching(Paired(), bridge.path, self.cut)(bridge, x0, x1, None, generator)
        if begins and not (step - self.first) % self.pause:
            self._walk(bridge, x0, x1, memory, step - self.first, generator)
        losses, filled = [], self._filled(len(x0), step - self.first)
        for way, few in zip(self._ways, _shares(len(x0), len(self._ways)), strict=True):
            rows = torch.randint(filled, (few,), generator=generator, device=generator.device).to(x0.device)
            near, far = (memory[f"{way}.{end}"][rows] for end in ("x0", "x1"))
            # pairs that were walked up have data at x_0, and train the way down to them
            ends = ("x0",) if way == "up" or not self.both else ("x1",)
            taught = BridgeMatching(Paired(), ends, self.cut, even=True, dense=not bridge.path.noiseless)
            losses.append(taught(bridge, near, far, None, generator))
        return torch.cat(losses)

    @property
    def _ways(self) -> tuple[str, ...]:
        return ("up", "down") if self.both else ("down",)

    def _filled(self, rows: int, since: int) -> int:
        """How many pairs the pool holds, with so many rows a step."""
        return min(self.pool, max(self.first, since // self.pause) * rows)

    def _average(self, net: nn.Module, memory: dict[str, Tensor], step: int) -> None:
        own = _weights(net)
        with torch.no_grad():
            torch._foreach_lerp_(
                [memory[f"average.{name}"] for name in own], list(own.values()), 1 / min(self.horizon, 1 + step // 10)
            )

    def _keep(self, memory: dict[str, Tensor], way: str, x0: Tensor, x1: Tensor, first: int) -> None:
        """Put pairs into the pool from place `first` on, wrapping around at its end."""
        places = (first + torch.arange(len(x0))) % self.pool
        for end, x in (("x0", x0), ("x1", x1)):
            memory[f"{way}.{end}"].index_copy_(0, places[-self.pool :].to(x.device), x[-self.pool :].detach())

    @torch.no_grad()
    def _walk(
        self, bridge: NetBridge, x0: Tensor, x1: Tensor, memory: dict[str, Tensor], since: int, dice: torch.Generator
    ) -> None:
        """Walk the rows of the batch; when the walker starts or is replaced, those of the whole pool."""
        again = since == 0 if self.every == 1 else since // self.every > (since - self.pause) // self.every
        if again and self.every > 1:
            for name in _weights(bridge.net):
                memory[f"walker.{name}"].copy_(memory[f"average.{name}"])
        role = "average" if self.every == 1 else "walker"
        with _as(bridge.net, {name: memory[f"{role}.{name}"] for name in _weights(bridge.net)}):
            for way in self._ways:
                data = memory["up.x0" if way == "up" else "down.x1"][: self._filled(len(x0), since)]
                rows = [data.clone()] if again else [x0 if way == "up" else x1]
                first = 0 if again else since // self.pause * len(x0)
                for start in (part for some in rows for part in some.split(_AT_ONCE)):
                    there = bridge.reversed() if way == "up" else bridge
                    found = translate(there, start, steps=self.walk, generator=dice)
                    near, far = (start, found) if way == "up" else (found, start)
                    self._keep(memory, way, near, far, first)
                    first += len(start)


@contextmanager
def _as(net: nn.Module, weights: dict[str, Tensor]) -> Iterator[None]:
    """The network in evaluation mode with other weights than its own, inside this context."""
    own, training = _weights(net), net.training
    kept = {name: weight.data for name, weight in own.items()}
    net.eval()
    try:
        for name, weight in own.items():
            weight.data = weights[name]
        yield
    finally:
        for name, weight in own.items():
            weight.data = kept[name]
        net.train(training)


def _bare(net: nn.Module) -> nn.Module:
    """The network that was compiled."""
    found: nn.Module = getattr(net, "_orig_mod", net)
    return found


def _weights(net: nn.Module) -> dict[str, nn.Parameter]:
    return dict(_bare(net).named_parameters())


def _matching(coupling: Coupling, path: Path, cut: float) -> BridgeMatching:
    """Regression on each end that the network outputs: both, or one where a path without noise fixes the other."""
    return BridgeMatching(coupling, ("x0",) if path.noiseless else ("x0", "x1"), cut, True)


def _shares(count: int, parts: int) -> list[int]:
    return [math.ceil((count - i) / parts) for i in range(parts)]


def markovian(
    coupling: str = "independent",
    first: int = 1000,
    horizon: int = 200,
    pool: int = 4096,
    pause: int = 8,
    walk: int = 8,
    cut: float = 1e-3,
) -> Fitting:
    """Iterative Markovian fitting: the Schrodinger bridge, from pairs that the model walks itself (Shi et al. 2023).

    Args: see `Fitting`.
    """
    return Fitting(coupling, first, 1, horizon, pool, pause, walk, True, cut)


def reflow(
    coupling: str = "independent",
    first: int = 2000,
    every: int = 100_000,
    horizon: int = 200,
    pool: int = 16_384,
    pause: int = 8,
    walk: int = 16,
    cut: float = 1e-3,
) -> Fitting:
    """Reflow: straighter lines, from pairs that the model of the first steps has joined (Liu et al. 2023).

    Args: see `Fitting`; after every `every` steps the walker is replaced by the average of the trained weights.
    """
    return Fitting(coupling, first, every, horizon, pool, pause, walk, False, cut)


#: what teaches a bridge, by name
BRIDGE_OBJECTIVES: dict[str, Callable[..., Taught]] = {
    "bridge": Matching,
    "markovian-fitting": markovian,
    "reflow": reflow,
}
