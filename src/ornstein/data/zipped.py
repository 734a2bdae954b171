"""Pictures in a zip, read in place: nothing is ever unpacked to disk.

So names that point elsewhere (`../../etc/passwd`, `/root/x.png`) and links have no effect: a name is only a label, and
a link, whose content is the name of another file, is not a picture and is skipped. The size that a member declares is
checked against its size in the file *before* memory is allocated, and for all members together too: a zip bomb is
refused by its declared size, and a member that understates its size is cut off there.
"""

import stat
import zipfile
from pathlib import Path, PurePosixPath

from ornstein.data.reading import MOST_EXPANDED, MOST_TIMES, half_of_memory
from ornstein.errors import InputError, shown
from ornstein.files import regular

#: members of an archive, and of a picture the bytes
MOST_MEMBERS, MOST_BYTES = 2_000_000, 2**28


def is_zip(path: "str | Path") -> bool:
    """Whether a name says that it is a zip."""
    return str(path).lower().endswith(".zip")


def members(path: "str | Path", noun: str = "data.path") -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """The files in a zip by their places, sorted; without hidden ones, links, and a folder that all of them lie in.

    Raises:
        InputError: no such file, no zip, or an encrypted one; more files than are read; one name twice.
    """
    place = regular(path, noun, "a folder of images, or a zip of one")
    try:
        with zipfile.ZipFile(place) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises a dozen kinds over damaged directories
        raise InputError(f"{noun}={str(path)!r} is damaged or no zip file.") from error
    if len(infos) > MOST_MEMBERS:
        raise InputError(f"{noun}={str(path)!r} has {len(infos):,} files, more than {MOST_MEMBERS:,}; split it.")
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in infos:
        name = PurePosixPath(*(part for part in info.filename.replace("\\", "/").split("/") if part not in ("", ".")))
        if info.is_dir() or not name.parts or stat.S_ISLNK(info.external_attr >> 16):
            continue
        if any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.parts):
            continue
        if info.flag_bits & 1:
            raise InputError(f"{noun}={str(path)!r} is encrypted; save it without a password.")
        if name in found:
            raise InputError(f"{noun}={str(path)!r} has {shown(name)!r} twice.")
        found[name] = info
    tops = {name.parts[0] for name in found if len(name.parts) > 1}
    if len(tops) == 1 and all(len(name.parts) > 1 for name in found):
        found = {PurePosixPath(*name.parts[1:]): info for name, info in found.items()}
    return sorted(found.items())


def contents(path: Path, chosen: "list[zipfile.ZipInfo]", noun: str = "data.path") -> list[bytes]:
    """The bytes of some members, in their order; b"" of one that is damaged, which no reader takes for a picture.

    Raises:
        InputError: members that would grow beyond measure, or more of them than half of this machine's memory.
    """
    for info in chosen:
        large = info.file_size > 2**20 and info.file_size > MOST_TIMES * max(info.compress_size, 1)
        if large or info.file_size > MOST_BYTES:
            raise InputError(
                f"{noun}={str(path)!r}: {shown(info.filename)!r} would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; no picture does."
            )
    total, stored = sum(info.file_size for info in chosen), path.stat().st_size
    # members may share their bytes in the file: together they say more than each
    if total > half_of_memory() or (total > MOST_EXPANDED and total > MOST_TIMES * stored):
        raise InputError(f"{noun}={str(path)!r} would grow from {stored:,} to {total:,} bytes; unpack it yourself.")
    found = []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in chosen:
                try:
                    with archive.open(info) as stream:
                        found.append(stream.read(info.file_size))
                except Exception:  # as above, and what the methods of compression raise
                    found.append(b"")
    except Exception as error:
        raise InputError(f"{noun}={str(path)!r} is damaged or no zip file.") from error
    return found
