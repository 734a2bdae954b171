"""Files that are whole or not there: written beside their place and renamed, or fetched and known by their hash.

Renaming is atomic, so that a reader never sees half of one, and what was there before stays until the new one is whole.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ornstein.errors import InputError


@contextmanager
def renaming(beside: Path, path: Path) -> Iterator[Path]:
    """What is written to `beside` becomes `path` in one stroke when all went well, and is deleted otherwise."""
    try:
        yield beside
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to that takes the place of `path` when all went well."""
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with renaming(beside, path):
            yield beside
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


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


def digest(path: Path, method: str) -> str:
    """The hash of a file's content, in hexadecimal: "sha256", or "md5" where that is what was published."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(method, usedforsecurity=False)).hexdigest()


def cache() -> Path:
    """Where downloads are kept: ~/.cache/ornstein, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ornstein"


class _Altered(Exception):
    """What a url gave is not what was published."""


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
        partial = target.with_name(f"{target.name}.{os.getpid()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with renaming(partial, target):
                with opener.open(url, timeout=timeout) as response, partial.open("wb") as file:
                    shutil.copyfileobj(response, file)
                if (found := digest(partial, "md5")) != md5:
                    raise _Altered(f"{url} has md5 {found}, not {md5}")
            return
        except _Altered as error:
            reasons.append(str(error))
        except OSError as error:  # urllib's errors, time-outs and a full disk alike
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
    raise InputError("; ".join(reasons) + ".")
