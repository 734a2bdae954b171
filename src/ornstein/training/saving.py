"""The state of a run in its checkpoints: into a file, and back bit for bit.

Weights, averages, moments and the counts of a `Tally` are the whole state, with what a loss remembers, if anything. No
random number is stored, since each is a function of the seed and the step. So a killed run continues bit for bit on the
CPU. A checkpoint does not depend on the number of processes: sharded tensors are gathered before they are written, and
sharded again over as many processes as there are when they are read.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import ranks
from ornstein._version import __version__
from ornstein.errors import InputError
from ornstein.training import checkpoint
from ornstein.training.config import Training
from ornstein.training.ema import PowerEMA, average_file
from ornstein.training.tally import Tally, Window


@dataclass(frozen=True, eq=False)
class Saving:
    """The state of a run between two steps, but for its `Tally`: how it goes into a checkpoint and comes back.

    Arguments:
        folder: the run folder.
        config, net, optimizer, scaler, ema: of the run.
        named: the parameters that it trains, by name.
        memory: the tensors that its loss reads and changes; see `fit`.
        meta: facts that must be the same to continue; JSON.
        device: where this process works.
        sharded: whether the network is spread over processes.
    """

    folder: Path
    config: Training
    net: nn.Module
    named: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: PowerEMA
    memory: dict[str, Tensor]
    meta: Mapping[str, Any]
    device: torch.device
    sharded: bool

    def write(self, tally: Tally, threads: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint: the first process writes, and of a sharded network all bring their parts.

        `threads` records what was measured about the number of threads, which is not part of the state.
        """
        if not (ranks.rank() == 0 or self.sharded):
            return
        moments = {
            f"{key}/{name}": self._collected(value)
            for name, p in self.named.items()
            for key, value in self.optimizer.state.get(p, {}).items()
        }
        weights = {name: self._collected(value) for name, value in self.net.state_dict().items()}
        averages = {
            average_file(length): {name: self._collected(value) for name, value in self.ema.state(length).items()}
            for length in self.config.ema
        }
        if ranks.rank():
            return
        remembered = {checkpoint.MEMORY: self.memory} if self.memory else {}
        checkpoint.save(
            self.folder,
            tally.step,
            {"model.safetensors": weights, **averages, "optimizer.safetensors": moments, **remembered},
            {
                "updates": tally.updates,
                "strikes": tally.strikes,
                "skipped": tally.skipped,
                "window": asdict(tally.window),
                "scaler": self.scaler.state_dict(),
                "threads": threads,
                "training": asdict(self.config),
                "meta": self.meta,
                "versions": {"ornstein": __version__, "torch": torch.__version__},
            },
            self.config.keep,
        )

    def restore(self, found: checkpoint.Checkpoint) -> Tally:
        """Take over the state of a checkpoint, bit for bit.

        Raises:
            InputError: it has another network, other averages or other facts, or its loss remembered other things.
        """
        state = found.state
        self._check_facts(state)
        weights = found.tensors("model.safetensors")
        ours = self.net.state_dict()
        for name in [*ours, *weights]:
            now, then = (_kind(tensors.get(name)) for tensors in (ours, weights))
            if now != then:
                raise InputError(f"net has {name} {now} where the checkpoint of step {found.step} has {name} {then}.")
        self.net.load_state_dict({name: ranks.spread(value, ours[name]) for name, value in weights.items()})
        for length in self.config.ema:
            self.ema.load(length, found.tensors(average_file(length)))
        for flat, value in found.tensors("optimizer.safetensors").items():
            key, name = flat.split("/", 1)
            p = self.named[name]
            place = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value, device=self.device)
            self.optimizer.state[p][key] = place.detach().copy_(ranks.spread(value, place))
        if self.memory:
            self._remember(found)
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        counts = {name: state[name] for name in ("updates", "strikes", "skipped")}
        tally = Tally(found.step, **counts, window=Window(**state["window"]))
        if ranks.rank() == 0:
            checkpoint.publish(self.folder, found)
        return tally

    def _check_facts(self, state: Mapping[str, Any]) -> None:
        if list(self.config.ema) != state["training"]["ema"]:
            raise InputError(
                f"training.ema={list(self.config.ema)} cannot be resumed; the run tracks {state['training']['ema']}."
            )
        for key in sorted(self.meta.keys() | state["meta"].keys()):
            now, then = self.meta.get(key), state["meta"].get(key)
            if now != then:
                raise InputError(f"{key}={now!r} cannot be resumed; the run was started with {then!r}.")

    def _remember(self, found: checkpoint.Checkpoint) -> None:
        if checkpoint.MEMORY not in found.state["files"]:
            raise InputError(f"the checkpoint of step {found.step} is of a loss that remembered nothing.")
        kept = found.tensors(checkpoint.MEMORY)
        for name in {**self.memory, **kept}:
            now, then = _kind(self.memory.get(name)), _kind(kept.get(name))
            if now != then:
                raise InputError(f"the loss remembers {name} {now} where the checkpoint has {name} {then}.")
            self.memory[name].copy_(kept[name])

    def _collected(self, tensor: Tensor) -> Tensor:
        """A tensor as the checkpoint has it: what is spread over processes whole, where it will be written."""
        if not self.sharded:
            return tensor
        tensor = ranks.whole(tensor)
        return tensor.new_empty(0) if ranks.rank() else tensor.cpu()


def _kind(tensor: Tensor | None) -> str:
    return "(missing)" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
