"""The files of a run folder and their hashes: `manifest.json`, updated by every writer and checked at opening.

    {"format": 1, "files": {"experiment.yaml": ["9f2c..."], "model.safetensors": ["31d0..."], ...}, "seal": "..."}

So a flipped bit, a file cut short, a deleted average or an edit by hand is found before anything is drawn from it, at
the cost of one SHA-256. The manifest has a seal of its own.

*Files change while others read, and writers die.* Before new files take their places the manifest lists the new hashes
beside the old ones, and afterwards the new ones alone. So at every moment, and whenever the machine dies, each file is
one that the manifest knows. A reader that meets an unknown file reads the manifest once more, since it may have
changed.

Folders of older versions have no manifest, and open unchecked. So does a file that the manifest does not name.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ornstein.errors import InputError, shown
from ornstein.files import Unreadable, digest, read_text, replacing, replacing_all, sealed, sync

NAME = "manifest.json"
FORMAT = 1


def read(folder: Path) -> dict[str, list[str]] | None:
    """File name -> the hashes it may have; None for a folder that has no manifest.

    Raises:
        InputError: the manifest is damaged, or of a newer version.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content = json.loads(read_text(path))
        version, files, seal = content["format"], content["files"], content["seal"]
        known = {name: list(hashes) for name, hashes in files.items()}
    except Unreadable:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(_damaged(path)) from None
    if isinstance(version, int) and version > FORMAT:
        raise InputError(f"{shown(path)} was written by a newer version of ornstein; update ornstein to open the run.")
    if sealed(content)["seal"] != seal:
        raise InputError(_damaged(path))
    return known


def _damaged(path: Path) -> str:
    return f"{shown(path)} is damaged; if all else is as it should be, renew it with `ornstein info RUN --accept`."


def knows(folder: Path, name: str) -> bool:
    """Whether the manifest names the file."""
    return name in (read(folder) or {})


def check(folder: Path, name: str) -> None:
    """Check that a file of a run folder is one that the manifest knows; a file that it does not name is not checked.

    Raises:
        InputError: the content differs, or the file cannot be read.
    """
    known = read(folder)
    while known is not None and name in known:
        if digest(folder / name, "sha256") in known[name]:
            return
        before, known = known, read(folder)
        if known == before:
            raise InputError(
                f"{shown(folder / name)} is damaged or was changed: it is not what {NAME} says was written; put it "
                f"back, or take it as it is with: ornstein info {shown(folder)} --accept."
            )


@contextmanager
def publishing(folder: Path, *names: str) -> Iterator[list[Path]]:
    """Places to write files of a run folder to, which replace them atomically, on the disk and in the manifest.

    Raises:
        InputError: the disk is full or refuses; what was there before stays.
    """
    paths = [folder / name for name in names]
    with replacing_all(*paths) as parts:
        yield parts
        for part in parts:
            sync(part)
        new = {name: [digest(part, "sha256")] for name, part in zip(names, parts, strict=True)}
        known = read(folder) or {}
        _write(folder, {**known, **{name: hashes + known.get(name, []) for name, hashes in new.items()}})
    for place in {path.parent for path in paths}:
        sync(place)
    _write(folder, {**known, **new})


def accept(folder: Path, names: Iterable[str]) -> list[str]:
    """Accept files as they are now; returns the names of those that differed from the manifest."""
    try:
        known = read(folder) or {}
    except InputError:
        known = {}
    found = {name: digest(folder / name, "sha256") for name in names}
    changed = [name for name, hash_ in found.items() if known.get(name) != [hash_]]
    _write(folder, {name: [hash_] for name, hash_ in found.items()})
    return changed


def forget(folder: Path, names: Iterable[str]) -> None:
    """Remove files that are about to be deleted from the manifest."""
    known, gone = read(folder), set(names)
    if known is not None and gone & known.keys():
        _write(folder, {name: hashes for name, hashes in known.items() if name not in gone})


def _write(folder: Path, files: dict[str, list[str]]) -> None:
    text = json.dumps(sealed({"format": FORMAT, "files": files}), indent=1) + "\n"
    with replacing(folder / NAME) as part:
        part.write_text(text, "utf-8")
        sync(part)
    sync(folder)
