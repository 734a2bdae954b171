"""Checkpoints that are either complete or absent, whenever the machine dies.

A run folder holds

    model.safetensors, ema-0.050.safetensors, ...    the newest weights, for people and for sampling
    checkpoints/step-00001000/                       everything that continuing needs
        model.safetensors, ema-*.safetensors, optimizer.safetensors, memory.safetensors (if any), state.json

A checkpoint is written into a hidden sibling, `checkpoints/.step-00001000`, each file is flushed to the disk (fsync),
and so is the directory; one rename then gives it its name. Renaming is atomic, so a process killed at any moment, or a
machine that loses power, leaves the older checkpoints as they were and at most a hidden directory to sweep up. Older
ones are deleted only once the new one is complete.

`state.json` records the size and SHA-256 of every file and seals itself, so that damage is found before it is loaded.
A damaged newest checkpoint is an error, not a reason to fall back silently to an older one: the message says which
file it is and what to delete in order to continue from the one before. Nothing is pickled.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ornstein.errors import InputError, shown
from ornstein.files import Unreadable, digest, opened, read_text, sealed, sweep_parts, sync
from ornstein.training import manifest

FORMAT = 1
#: folders of a run folder that are written to
PLACES = ("checkpoints", "snapshots", "samples", "tensorboard")
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
        keep: number of checkpoints to keep.

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
            content = sealed({**state, "format": FORMAT, "step": step, "files": files})
            with open(part / "state.json", "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            sync(part)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(home)
        checkpoint = Checkpoint(path, content)
        publish(folder, checkpoint)
        _prune(folder, keep)
    return checkpoint


def _prune(folder: Path, keep: int) -> None:
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(old)


def publish(folder: Path, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's weights into the run folder, replacing each file that differs atomically.

    They are copies, not links, so that changing them cannot damage the checkpoint.
    """
    known = manifest.read(folder) or {}
    names = [
        name
        for name, recorded in checkpoint.state["files"].items()
        if name not in _PRIVATE
        and not (
            known.get(name) == [recorded["sha256"]]
            and (folder / name).is_file()
            and digest(folder / name, "sha256") == recorded["sha256"]
        )
    ]
    if names:
        with manifest.publishing(folder, *names) as parts:
            for name, part in zip(names, parts, strict=True):
                shutil.copyfile(checkpoint.path / name, part)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run folder, checked; None if there is none. Reads only.

    Leftovers of a killed write have hidden names and do not count.

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


def sweep(folder: Path, keep: int | None = None) -> None:
    """Delete what killed writes left behind, and all but the newest `keep` checkpoints. For the holder of the lock.

    Raises:
        InputError: a path that is written to is a link to somewhere else.
    """
    for place in (folder, *(folder / name for name in PLACES)):
        if place != folder and place.is_symlink():
            raise InputError(f"{shown(place)} is a link: what a run writes there would land elsewhere; remove it.")
        # .tmp?????? is what safetensors writes before it renames; .model and .ema-* what older versions wrote
        names = (".step-*", ".tmp??????", ".model.safetensors", ".ema-*.safetensors")
        for left in [found for name in names for found in place.glob(name)]:
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        sweep_parts(place)
    if keep is not None:
        _prune(folder, keep)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file and flush it to the disk. Tensors that share memory are each written in full.

    `about` goes into the header as one line of JSON; several entries would be in random order and change the file.
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


def read_about(path: Path) -> dict[str, Any]:
    """The `about` that `write_tensors` put into the file."""
    try:
        with opened(path), safe_open(path, "pt") as file:
            told: dict[str, Any] = json.loads(file.metadata()["ornstein"])
            return told
    except Unreadable:
        raise
    except (SafetensorError, OSError, TypeError, KeyError, ValueError):
        raise InputError(f"{shown(path)} is damaged, or was not written by ornstein; delete it.") from None


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into one sentence that says why."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} could not be written ({reason}); what was saved before is untouched.") from error


def _read(path: Path) -> Checkpoint:
    try:
        state = json.loads(read_text(path / "state.json"))
        seal, version = state["seal"], state["format"]
    except Unreadable:
        raise
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        raise _Damaged(f"{path / 'state.json'} is damaged or missing") from None
    if isinstance(version, int) and version > FORMAT:
        raise InputError(
            f"{path} was written by a newer version of ornstein (checkpoint format {version}, this one reads up to "
            f"{FORMAT}); update ornstein to continue it."
        )
    if sealed(state)["seal"] != seal:
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


def _steps(folder: Path) -> list[Path]:
    """The checkpoints, oldest first; other names are not ours."""
    places = (folder / "checkpoints").glob("step-*")
    ours = (place for place in places if re.fullmatch(r"step-\d{8,12}", place.name) and place.is_dir())
    return sorted(ours, key=lambda place: int(place.name[5:]))


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, unchecked; None if there is none."""
    found = _steps(folder)
    return int(found[-1].name[5:]) if found else None
