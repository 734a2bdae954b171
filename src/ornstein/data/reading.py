"""Safe opening of files that the user names: no code in them runs, and none blocks or exhausts memory.

- Only *regular files* are opened. A pipe would block until it is written to, a device may never end.
- What a header declares is checked against the file *before* memory is allocated: an array whose numbers are not all in
  the file is damaged, and a small file that would expand to more than `MOST_EXPANDED` bytes is refused.
- Of an archive, only the members that are asked for are read; nothing is ever unpickled.
"""

import ast
import io
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, final

import torch
from torch import Tensor

from ornstein.errors import InputError, shown
from ornstein.files import named, regular
from ornstein.memory import machine_bytes

if TYPE_CHECKING:
    import numpy as np

#: bytes that a file may grow to when it is unpacked, if that is also more than `MOST_TIMES` of its own
MOST_EXPANDED, MOST_TIMES = 2**28, 100
#: bytes of an array's header, which NumPy itself holds to 10,000 characters
_HEADER = 2**14


def folder(path: "str | Path", noun: str = "data.path", expected: str = "a folder") -> Path:
    """The path with ~ spelled out, if it leads to a folder. Raises `InputError` as `regular` does."""
    if not str(path):
        raise InputError(f"{noun} is empty; give {expected}.")
    place = named(path, noun)
    try:
        found = stat.S_ISDIR(os.stat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        found = False
    except OSError as error:
        raise InputError(f"{noun}={str(path)!r} cannot be reached ({error.strerror}); give {expected}.") from None
    if not found:
        raise InputError(f"{noun}={str(path)!r} is not a folder; give {expected}.")
    return place


def absolute(path: "str | Path", noun: str = "data.path") -> str:
    """The same place named from the root, so that a run finds its data whatever folder it is opened from."""
    return os.path.abspath(named(path, noun)) if str(path) else ""  # not given yet, which is no place


def half_of_memory() -> float:
    """Half of this machine's memory in bytes; infinite if the system does not say."""
    return machine_bytes() / 2


def read_arrays(file: Path) -> "Mapping[str, np.ndarray]":
    """The arrays of an .npz by name, each read when it is asked for, or the one of an .npy under the name "".

    An .npy stays in its file, mapped privately: nothing done to the array gets back there.

    Raises:
        InputError: no regular file, not such a file, damaged, holding Python objects, or far larger than its file.
    """
    place = regular(file, "data.path", "an .npy or .npz file")
    try:
        with place.open("rb") as stream:
            start = stream.read(4)
            if start == b"\x93NUM":
                stream.seek(0)
                return {"": _mapped(place, stream)}
        if start[:2] != b"PK":
            raise _damaged(file)
        return Archive(place)
    except OSError as error:
        raise InputError(f"{shown(file)} cannot be read ({error.strerror or error}).") from error


@final
class Archive(Mapping[str, "np.ndarray"]):
    """The arrays of an .npz, each read, and checked, when it is asked for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except Exception as error:  # zipfile raises a dozen kinds over damaged directories
            raise _damaged(file) from error
        self.members = {m.filename.removesuffix(".npy"): m for m in members if m.filename.endswith(".npy")}

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, key: object) -> bool:
        return key in self.members

    def __getitem__(self, key: str) -> "np.ndarray":
        import numpy as np

        member = self.members[key]
        if member.flag_bits & 1:
            raise InputError(f"{shown(self.file)} is encrypted; save plain arrays with numpy.savez.")
        what = f"array {key!r} of {shown(self.file)}"
        _bounded(member.file_size, member.compress_size, what)
        try:
            with zipfile.ZipFile(self.file) as archive:
                with archive.open(member) as stream:
                    _header(stream.read(_HEADER), member.file_size, self.file, what)
                with archive.open(member) as stream:
                    return np.lib.format.read_array(stream, allow_pickle=False)
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(f"{what} does not fit into this machine's memory; save it as .npy.") from error
        except Exception as error:  # as above, and what the methods of compression raise
            raise _damaged(self.file) from error


def _mapped(file: Path, stream: BinaryIO) -> "np.ndarray":
    import numpy as np

    facts = os.fstat(stream.fileno())
    shape, fortran, dtype, start = _header(stream.read(_HEADER), facts.st_size, file, shown(file))
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    # a file of holes takes no disk; where the system does not count blocks it says 0
    blocks = getattr(facts, "st_blocks", 0) * 512
    _bounded(math.prod(shape) * dtype.itemsize, blocks or facts.st_size, shown(file))
    order: Literal["F", "C"] = "F" if fortran else "C"
    try:
        return np.memmap(file, dtype, "c", start, shape, order)
    except OSError:  # a file system without maps
        stream.seek(start)
        return np.fromfile(stream, dtype, math.prod(shape)).reshape(shape, order=order)


def _header(head: bytes, size: int, file: Path, what: str) -> "tuple[tuple[int, ...], bool, np.dtype, int]":
    """Shape, order, type and place of the numbers in an .npy file of `size` bytes that starts with `head`."""
    import numpy as np

    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):  # the third is for records with names in Unicode
            raise ValueError(version)
        old = version == (1, 0)
        _literal(head, old)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        sides = [int(side) for side in shape]
    except Exception as error:  # the header is a Python literal, and NumPy passes on what its parser raises
        raise _damaged(file) from error
    if dtype.hasobject:
        raise InputError(
            f"{shown(file)} holds Python objects, which are not read; save arrays of numbers with numpy.save or "
            "numpy.savez."
        )
    if any(side < 0 for side in sides):
        raise _damaged(file)
    count = math.prod(sides)
    needed = count * dtype.itemsize
    if needed > size - stream.tell() or (dtype.itemsize == 0 and count):
        declared = f"{needed:,}" if needed < 1e18 else "more than 1e18"
        raise InputError(
            f"{what} is damaged or not a NumPy file: it declares {declared} bytes of {dtype} and holds "
            f"{max(size - stream.tell(), 0):,}."
        )
    return tuple(sides), fortran, dtype, stream.tell()


def _literal(head: bytes, old: bool) -> None:
    """Refuse a header that is no plain literal, without the warnings that NumPy has for those of Python 2."""
    first = 10 if old else 12
    length = int.from_bytes(head[8:first], "little")
    if length > len(head) - first:
        raise ValueError(length)
    ast.literal_eval(head[first : first + length].decode("latin1"))


def _bounded(declared: int, stored: int, what: str) -> None:
    if declared > MOST_EXPANDED and declared > MOST_TIMES * stored:
        raise InputError(
            f"{what} would grow from {stored:,} to {declared:,} bytes, more than {MOST_TIMES} times; "
            "if that is meant, save it with numpy.save."
        )


def _damaged(file: Path) -> InputError:
    return InputError(
        f"{shown(file)} is damaged or not a NumPy file; save arrays of numbers with numpy.save or numpy.savez."
    )


def as_tensor(raw: "np.ndarray", name: str, missing: bool = False) -> Tensor:
    """Real numbers as a tensor of a type that torch computes with, values kept; `missing` lets NaN pass.

    Raises:
        InputError: text, times, records or complex numbers; nothing at all; NaN or infinite values.
    """
    import numpy as np

    if raw.dtype.kind not in "buif":
        half = "; split real and imaginary parts into two channels" if raw.dtype.kind == "c" else ""
        raise InputError(f"array {name!r} is of type {raw.dtype}; expected whole or floating-point numbers{half}.")
    if raw.ndim == 0:
        raise InputError(f"array {name!r} is a single number; give one with an axis of examples.")
    if raw.size == 0:
        raise InputError(f"array {name!r} is empty (shape {raw.shape}).")
    kind, bytes_each = raw.dtype.kind, raw.dtype.itemsize
    if kind == "b":
        raw = raw.astype(np.uint8)
    elif kind == "u" and bytes_each > 1:  # torch knows few operations on these
        raw = raw.astype(np.int64 if bytes_each < 8 else np.float64)
    elif kind == "f":
        with np.errstate(over="ignore"):
            raw = raw.astype(np.float32 if bytes_each <= 4 else np.float64, copy=False)
    else:
        raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    # the two ends are finite only if all is, and are found without an array of as many truth values
    ends = (np.fmin.reduce(raw, None), np.fmax.reduce(raw, None)) if missing else (raw.min(), raw.max())
    if kind == "f" and not all(np.isfinite(end) or (missing and np.isnan(end)) for end in ends):
        bad = np.isinf(raw) if missing else ~np.isfinite(raw)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        what = "infinite" if missing else "NaN or infinite"
        raise InputError(f"array {name!r} has {int(bad.sum()):,} values that are {what}, first at {first}.")
    return torch.from_numpy(np.ascontiguousarray(raw))


@cache
def digits() -> "np.ndarray":
    """Scikit-learn's digits, (1797, 65) uint8: 64 pixels and which it is.

    Read from its file, since to import it takes two seconds of a processor.
    """
    import numpy as np

    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        if (file := Path(folder, "datasets", "data", "digits.csv.gz")).is_file():
            return np.loadtxt(file, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits

    return np.column_stack(load_digits(return_X_y=True)).astype(np.uint8)
