"""Checkpoints that are either whole or not there, whenever the machine dies.

A run folder holds

    model.safetensors, ema-0.050.safetensors, ...    the newest weights, for people and for sampling
    checkpoints/step-00001000/                       everything that continuing needs
        model.safetensors, ema-*.safetensors, optimizer.safetensors, memory.safetensors (if any), state.json

A checkpoint is written into a hidden sibling, `checkpoints/.step-00001000`, each file is flushed to the disk (fsync),
and so is the directory; one rename then gives it its name. Renaming is atomic, so a process killed at any moment, or a
machine that loses power, leaves the older checkpoints as they were and at most a hidden directory to sweep up. Older
ones are deleted only after the new one stands.

`state.json` records the size and SHA-256 of every file and seals itself, so that damage is found before it is loaded.
A damaged newest checkpoint is an error, not a reason to fall back to an older one in silence: the sentence says which
file it is and what to delete in order to go on from the one before. Nothing is pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ornstein.errors import InputError
from ornstein.files import digest, renaming, sync

FORMAT = 1
#: what the loss remembers, where it remembers anything
MEMORY = "memory.safetensors"
#: files of a checkpoint that only continuing needs
_PRIVATE = ("optimizer.safetensors", MEMORY)


class _Damaged(InputError):
    """A checkpoint that cannot be trusted; the one before it may be."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been checked: its directory and the content of its state.json."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return int(self.state["step"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of its files, on the CPU."""
        return load_file(self.path / name)


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    keep: int = 2,
) -> Checkpoint:
    """Write the checkpoint of `step`, publish its weights in the run folder and delete all but the newest `keep`.

    Arguments:
        folder: the run folder.
        step: optimiser steps taken.
        tensors: file name -> name -> tensor, on any device.
        state: whatever else continuing needs; JSON.
        keep: number of checkpoints left standing.

    Raises:
        InputError: the disk is full or refuses; what was there before is untouched.
    """
    home = folder / "checkpoints"
    path = home / f"step-{step:08d}"
    part = home / f".{path.name}"
    with on_disk(path):
        home.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        try:
            for name, content in tensors.items():
                write_tensors(part / name, content, {"step": step})
            files = {
                name: {"size": (part / name).stat().st_size, "sha256": digest(part / name, "sha256")}
                for name in tensors
            }
            sealed = _seal({**state, "format": FORMAT, "step": step, "files": files})
            with open(part / "state.json", "w", encoding="utf-8") as file:
                json.dump(sealed, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            sync(part)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(home)
        checkpoint = Checkpoint(path, sealed)
        publish(folder, checkpoint)
        for old in _steps(folder)[:-keep]:
            shutil.rmtree(old)
    return checkpoint


def publish(folder: Path, checkpoint: Checkpoint) -> None:
    """Lay the checkpoint's weights open in the run folder, each file that differs replaced in one stroke.

    They are copies, not links, so that whatever a person does to them cannot reach the checkpoint.
    """
    for name, recorded in checkpoint.state["files"].items():
        path, part = folder / name, folder / f".{name}"
        if name in _PRIVATE or (path.is_file() and digest(path, "sha256") == recorded["sha256"]):
            continue
        with on_disk(path), renaming(part, path):
            shutil.copyfile(checkpoint.path / name, part)
            sync(part)
    sync(folder)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run folder, checked; None where there is none. Reads only.

    What a killed write left behind has a hidden name and does not count.

    Raises:
        InputError: the newest checkpoint is damaged, or was written by a newer version.
    """
    found = _steps(Path(folder))
    if not found:
        return None
    try:
        return _read(found[-1])
    except _Damaged as error:
        for older in reversed(found[:-1]):
            try:
                way = f"delete {found[-1]} to continue from step {_read(older).step}"
                break
            except _Damaged:
                continue
        else:
            way = "there is no older checkpoint to continue from"
        raise InputError(f"{error}; {way}.") from None


def sweep(folder: Path) -> None:
    """Delete what killed writes left behind. For the one process that is about to write there."""
    for place in (folder, folder / "checkpoints", folder / "snapshots"):
        for left in [*place.glob(".step-*"), *place.glob(".model.safetensors"), *place.glob(".ema-*.safetensors")]:
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file and see it onto the disk. Tensors that share memory are written out one by one.

    `about` goes into the header as one line of JSON; as several entries their order would be random, and so the file.
    """
    content: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.data_ptr())
        content[name] = tensor
    save_file(content, path, {"ornstein": json.dumps(about)})
    sync(path)


def replace_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file that appears, or takes the place of an older one, in one stroke."""
    part = path.with_name(f".{path.name}")
    with on_disk(path):
        path.parent.mkdir(exist_ok=True)
        with renaming(part, path):
            write_tensors(part, tensors, about)
        sync(path.parent)


def read_about(path: Path) -> dict[str, Any]:
    """What `write_tensors` was told about the file."""
    with safe_open(path, "pt") as file:
        told: dict[str, Any] = json.loads(file.metadata()["ornstein"])
    return told


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Say in one sentence that `path` could not be written, and why."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} could not be written ({reason}); what was saved before is untouched.") from error


def _read(path: Path) -> Checkpoint:
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        seal, version = state["seal"], state["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise _Damaged(f"{path / 'state.json'} is damaged or missing") from None
    if isinstance(version, int) and version > FORMAT:
        raise InputError(
            f"{path} was written by a newer version of ornstein (checkpoint format {version}, this one reads up to "
            f"{FORMAT}); update ornstein to continue it."
        )
    if _seal(state)["seal"] != seal:
        raise _Damaged(f"{path / 'state.json'} is damaged (its SHA-256 is not the one recorded)")
    for name, recorded in state["files"].items():
        file = path / name
        if not file.is_file():
            raise _Damaged(f"{file} is missing")
        if file.stat().st_size != recorded["size"]:
            raise _Damaged(f"{file} is damaged ({file.stat().st_size} bytes where {recorded['size']} were written)")
        if digest(file, "sha256") != recorded["sha256"]:
            raise _Damaged(f"{file} is damaged (its SHA-256 is not the one recorded)")
    return Checkpoint(path, state)


def _seal(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with the SHA-256 of everything else in it under "seal"."""
    rest = {key: value for key, value in state.items() if key != "seal"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "seal": hashlib.sha256(text.encode()).hexdigest()}


def _steps(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))
