"""Files that are complete or absent, and files that are safe to read.

*Writing.* Output goes to a new file beside its place, whose name cannot be guessed and which follows no link, and takes
that place in one rename: a reader never sees a partial file, and the old file stays until the new one is complete.
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

#: a file that is being written, by which process
_PART = re.compile(r"\.ornstein-(\d+)-[0-9a-f]{16}")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
#: bytes of a text file that are read at most: settings and facts are a thousandth of it
MOST_TEXT = 2**24


class Unreadable(InputError):
    """A file exists but cannot be read, for lack of permission or a disk error, which says nothing of its content."""


# Reading --------------------------------------------------------------------------------------------------------------


def named(path: "str | Path", noun: str) -> Path:
    """The path with ~ spelled out.

    Raises:
        InputError: the home of a user who does not exist; a character that no path can have; no name at all.
    """
    if str(path) == "":  # which would be the folder that one is in
        raise InputError(f"{noun}='' is empty; give a name.")
    if "\0" in str(path):
        raise InputError(f"{noun}='{shown(path)}' has a zero character, which no file's name can have.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{noun}='{shown(path)}' names the home of a user that is not known here.") from None


def regular(path: "str | Path", noun: str, expected: str = "a file") -> Path:
    """The path with ~ spelled out, if it leads to a regular file: the guard before every file that a person names.

    Args:
        path: see above.
        noun: what to call it in an error, such as "input".
        expected: what to give instead, such as "an .npy file".

    Raises:
        InputError: nothing there, or a folder, a pipe, a device; a place that cannot be reached.
    """
    if not str(path):
        raise InputError(f"{noun} is empty; give {expected}.")
    place, said = named(path, noun), f"{noun}='{shown(path)}'"
    try:
        mode = os.stat(place).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{said} is not a file; give {expected}.") from None
    except OSError as error:  # a link to itself, a name too long, a folder that may not be entered
        raise InputError(f"{said} cannot be reached ({error.strerror}); give {expected}.") from None
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise InputError(f"{said} is {kind} and not a file; give {expected}.")
    return place


def utf8(folder: Path, noun: str) -> None:
    """Refuse a folder whose name is no UTF-8: safetensors files cannot lie in it.

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
    """A regular file, open for reading; what has become a pipe or a device meanwhile is not waited for.

    Raises:
        InputError: it is not one, or not there; `Unreadable`: it cannot be read.
    """
    try:
        # not to block on a pipe; a regular file does not mind
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as stream:
            if not stat.S_ISREG(mode := os.fstat(stream.fileno()).st_mode):
                raise InputError(f"{shown(path)} is {_KINDS.get(stat.S_IFMT(mode), 'something else')} and not a file.")
            yield stream
    except OSError as error:
        kind = InputError if isinstance(error, FileNotFoundError) else Unreadable
        raise kind(f"{shown(path)} cannot be read: {error.strerror or error}.") from None


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a regular file of UTF-8.

    Raises:
        InputError: it is not one, of more than `most` bytes, no text (an archive, a picture), or not UTF-8.
    """
    with opened(path) as stream:
        content = stream.read(most + 1)
    # what is told first is what helps: an archive is also too large and no UTF-8; UTF-16 has zeros, and is text
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
    """The hash of a file's content, in hexadecimal: "sha256", or "md5" where that is what was published.

    Raises:
        InputError: it cannot be read, or is no regular file.
    """
    with opened(path) as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(method, usedforsecurity=False)).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with the SHA-256 of everything else in it under "seal"."""
    rest = {key: value for key, value in content.items() if key != "seal"}
    return {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


# Writing --------------------------------------------------------------------------------------------------------------


#: folders that were opened, each of which is there or was deleted since: none is made anew
_OPENED: set[Path] = set()


def opened_folder(folder: Path) -> Path:
    """A folder that is worked from: should it be deleted meanwhile, nothing is written where it was."""
    if folder.is_dir():
        _OPENED.add(folder.absolute())
    return folder


def _with_parents(path: Path) -> None:
    """Make the folders that a file is to lie in."""
    for above in path.absolute().parents:
        if above in _OPENED and not above.is_dir():
            raise InputError(f"{shown(above)} was deleted or moved meanwhile: nothing is written there.")
        if above.exists() and not above.is_dir():
            raise InputError(f"{shown(path)} cannot be written: {shown(above)} is a file, and no folder.")
    path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing_all(*paths: Path) -> Iterator[list[Path]]:
    """Names to write to, as many as paths, which take the paths' places together when all went well.

    A folder in the way of one of them, or a disk that refuses, leaves all of them as they were.

    Raises:
        InputError: a file cannot be written, or the folder that is worked from is gone.
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
            raise  # within another's, who knows the name that a person gave it
        names = " and ".join(shown(path) for path in paths)
        raise InputError(f"{names} cannot be written: {error.strerror or error}.") from None
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to that takes the place of `path` when all went well.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing_all(path) as (part,):
        yield part


def _part(place: Path) -> Path:
    """A new empty file in a folder, which is nobody's but ours and no link; as readable as any that we make."""
    part = place / f".ornstein-{os.getpid()}-{secrets.token_hex(8)}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
    return part


def _exchange(parts: Sequence[Path], paths: Sequence[Path]) -> None:
    """Rename all, or put back what was there."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for part, path in zip(parts, paths, strict=True):
            before = None
            if len(paths) > 1 and os.path.lexists(path):
                before = part.with_name(f"{part.name[:-16]}{secrets.token_hex(8)}")
                with suppress(OSError):  # a file system without links has no second name to give
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
    """Delete what processes that are no more left half written in a folder."""
    for left in place.glob(".ornstein-*"):
        found = _PART.fullmatch(left.name)
        if found and not _alive(int(found[1])):
            left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether another process of this machine has that number; our own is no other, and may be one of a dead one."""
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
    """See a file, or the names in a directory, onto the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache() -> Path:
    """Where downloads are kept: ~/.cache/ornstein, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ornstein"


class _Refused(Exception):
    """A url does not answer, or what it gave is not what was published."""


def fetch(urls: Sequence[str], target: Path, md5: str, timeout: float = 30.0) -> None:
    """Download the file to `target` from the first url that answers, and keep it only if its MD5 is the known one.

    Raises:
        InputError: no url answers, the content differs from what was published, or the target cannot be written.
    """
    import urllib.request  # slow to load, and rarely needed

    if target.is_file() and digest(target, "md5") == md5:
        return
    reasons = []
    opener = urllib.request.build_opener()  # knows the proxies of now, where urlopen keeps those of its first call
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
