"""Files that are complete or absent, and files that are safe to read.

*Writing.* Output goes to a new file in the same folder, whose name cannot be guessed and which follows no link. One
rename then puts it in place: a reader never sees a partial file, and the old file stays until the new one is complete.
Files that belong together appear together or not at all. The name of the new file contains the number of the process
that writes it, so that leftovers of a killed process can be told from files about to be renamed (`sweep_parts`).

*Reading.* Only *regular files* of a bounded size are read whole: a pipe would block until it is written to, a device
may never end.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from ornstein.errors import InputError, shown

#: the name of a file that is being written, with the number of the writing process
_PART = re.compile(r"\.ornstein-(\d+)-[0-9a-f]{16}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
#: the most bytes of a text file that are read: settings and facts have a thousandth of it
MOST_TEXT = 2**24


class Unreadable(InputError):
    """A file exists but cannot be read, for lack of permission or a disk error, whatever its content."""


# Reading --------------------------------------------------------------------------------------------------------------


def named(path: "str | Path", noun: str) -> Path:
    """The path with ~ expanded.

    Raises:
        InputError: the home of a user who does not exist; a character that no path can have; no name at all.
    """
    if str(path) == "":  # as a path it would be the current folder
        raise InputError(f"{noun}='' is empty; give a name.")
    if "\0" in str(path):
        raise InputError(f"{noun}='{shown(path)}' has a zero character, which no file's name can have.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{noun}='{shown(path)}' names the home of a user that is not known here.") from None


def regular(path: "str | Path", noun: str, expected: str = "a file") -> Path:
    """The path with ~ expanded, if it leads to a regular file: the check of every file that a person names.

    Args:
        path: as the person gave it.
        noun: what to call it in an error, such as "input".
        expected: what to give instead, such as "an .npy file".

    Raises:
        InputError: nothing at the path, or a folder, a pipe, a device; a place that cannot be reached.
    """
    if not str(path):
        raise InputError(f"{noun} is empty; give {expected}.")
    place, said = named(path, noun), f"{noun}='{shown(path)}'"
    try:
        mode = os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{said} is not a file; give {expected}.") from None
    except OSError as error:  # such as a link to itself, a name too long, a folder without permission
        raise InputError(f"{said} cannot be reached ({error.strerror}); give {expected}.") from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(f"{said} is {kind} and not a file; give {expected}.")
    return place


def utf8(folder: Path, noun: str) -> None:
    """Raise unless a folder's name is UTF-8, as the paths of safetensors files must be.

    Raises:
        InputError: it is not.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{noun}='{shown(folder)}' is not UTF-8, which a run folder's name must be; rename it."
        ) from None


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading, without waiting if it has meanwhile become a pipe or a device.

    Raises:
        InputError: the file is missing, or not a regular one; `Unreadable`: it cannot be read.
    """
    try:
        # so as not to block on a pipe; it makes no difference to a regular file
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as stream:
            if not stat.S_ISREG(mode := os.fstat(stream.fileno()).st_mode):
                raise InputError(f"{shown(path)} is {_KINDS.get(stat.S_IFMT(mode), 'something else')} and not a file.")
            yield stream
    except OSError as error:
        kind = InputError if isinstance(error, FileNotFoundError) else Unreadable
        raise kind(f"{shown(path)} cannot be read: {error.strerror or error}.") from None


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        InputError: not a regular file, more than `most` bytes, not text (an archive, a picture), or not UTF-8.
    """
    with opened(path) as stream:
        content = stream.read(most + 1)
    # the most helpful message first: an archive is also too large and not UTF-8; UTF-16 is text, but has zero bytes
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{shown(path)} is not text: it has a zero byte, as archives, arrays and pictures do.")
    if len(content) > most:
        raise InputError(f"{shown(path)} has more than {most:,} bytes, which is too much for a file of its kind.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{shown(path)} is not UTF-8 (byte 0x{content[error.start]:02x} in line {line}); save it as UTF-8."
        ) from None


def digest(path: Path, method: str) -> str:
    """The hash of a file's content, in hexadecimal: "sha256", or "md5" if that is what was published.

    Raises:
        InputError: the file cannot be read, or is not a regular one.
    """
    with opened(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(method, usedforsecurity=False)).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with the SHA-256 of all its other entries under "seal"."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


# Writing --------------------------------------------------------------------------------------------------------------


#: folders that were opened: if one was deleted since, it is not made again
_OPENED: set[Path] = set()


def opened_folder(folder: Path) -> Path:
    """A folder in use: if it is deleted meanwhile, nothing is written where it was."""
    if folder.is_dir():
        _OPENED.add(folder.absolute())
    return folder


def _with_parents(path: Path) -> None:
    """Make the folders above a file."""
    for above in path.absolute().parents:
        if above in _OPENED and not above.is_dir():
            raise InputError(f"{shown(above)} was deleted or moved meanwhile: nothing is written there.")
        if above.exists() and not above.is_dir():
            raise InputError(f"{shown(path)} cannot be written: {shown(above)} is a file, not a folder.")
    path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing_all(*paths: Path) -> Iterator[list[Path]]:
    """Names to write to, one for each path; if all goes well, these files replace the paths together.

    If one of them cannot be replaced, by a folder of its name or an error of the disk, all stay as they were.

    Raises:
        InputError: a file cannot be written, or the folder in use is gone.
    """
    parts: list[Path] = []
    try:
        for path in paths:
            _with_parents(path)
            parts.append(_part(path.parent))
        yield parts
        _exchange(parts, paths)
    except OSError as error:
        if any(_PART.fullmatch(path.name) for path in paths):
            raise  # inside another call, which knows the name that a person gave
        names = " and ".join(shown(path) for path in paths)
        raise InputError(f"{names} cannot be written: {error.strerror or error}.") from None
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; if all goes well, this file replaces `path`.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing_all(path) as (part,):
        yield part


def _part(place: Path) -> Path:
    """A new empty file in a folder, which nobody else has made and which is not a link, with default permissions."""
    part = place / f".ornstein-{os.getpid()}-{secrets.token_hex(8)}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return part


def _exchange(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename all, or restore what was there."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for part, path in zip(parts, paths, strict=True):
            before = None
            if len(paths) > 1 and os.path.lexists(path):
                before = part.with_name(f"{part.name[:-16]}{secrets.token_hex(8)}")
                with suppress(OSError):  # some file systems have no hard links
                    os.link(path, before, follow_symlinks=False)
            done.append((path, before))
            os.replace(part, path)
    except OSError:
        for path, before in reversed(done[:-1]):
            with suppress(OSError):
                if before is None:
                    path.unlink()
                else:
                    os.replace(before, path)
        raise
    finally:
        for _, before in done:
            if before is not None:
                with suppress(OSError):
                    before.unlink(missing_ok=True)


def sweep_parts(place: Path) -> None:
    """Delete the partial files in a folder whose processes no longer exist."""
    for left in place.glob(".ornstein-*"):
        found = _PART.fullmatch(left.name)
        if found and not _alive(int(found[1])):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether another process has this number; ours does not count, since a dead process may have had it before."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, "utf-8")


def sync(path: Path) -> None:
    """Make sure that a file, or the names in a directory, are on the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache() -> Path:
    """Where downloads are kept: ~/.cache/ornstein, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ornstein"


class _Refused(Exception):
    """A URL does not answer, or its content is not what was published."""


def fetch(urls: Sequence[str], target: Path, md5: str, timeout: float = 30.0) -> None:
    """Download the file to `target` from the first URL that answers, and keep it only if its MD5 is the known one.

    Raises:
        InputError: no URL answers, the content differs from what was published, or the target cannot be written.
    """
    import urllib.request  # slow to load, and rarely needed

    if target.is_file() and digest(target, "md5") == md5:
        return
    reasons = []
    opener = urllib.request.build_opener()  # reads the proxies anew, while urlopen keeps those of its first call
    for url in urls:
        try:
            with replacing(target) as partial:
                _download(opener, url, partial, md5, timeout)
            return
        except _Refused as error:
            reasons.append(str(error))
    raise InputError("; ".join(reasons) + ".")


def _download(opener: Any, url: str, target: Path, md5: str, timeout: float) -> None:
    try:
        with opener.open(url, timeout=timeout) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except OSError as error:  # urllib's errors, time-outs and a full disk alike
        raise _Refused(f"{url}: {getattr(error, 'reason', None) or error}") from None
    if (found := digest(target, "md5")) != md5:
        raise _Refused(f"{url} has md5 {found}, not {md5}")
