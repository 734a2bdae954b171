"""Memory that one step frees is kept for the next, and how much there is.

A step of training or sampling on a CPU asks for the same large tensors as the step before. Linux' C library gives what
is freed at the top of its heap back to the system and maps what is large anew each time, and the system hands out every
page zeroed, at its first touch: tens of thousands of page faults a step, 6 to 20 % of a U-Net's time, in which no
arithmetic is done. Told to keep up to 2 GiB, it asks the system once. Peak memory is what it was; only between steps
does the process hold on to it. GPUs have torch's own caching allocator, which does the same.

It is a setting of the whole process, so the command line makes it, whose process is its own, and nothing else does: a
program that uses the library may want its memory back. It says `keep_freed_memory()` itself where it does not.
"""

import ctypes
import math
import os
from functools import cache
from pathlib import Path

#: the numbers of its options in malloc.h, and what they are set to, in bytes: an int each
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _MAPPED = 2**31 - 1, 2**30
#: where older versions of the library end
_MOST_MAPPED = 2**25
#: where control groups of either version say what is given, what is held, and what of that are files kept for speed
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "\ninactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "\ntotal_inactive_file"),
)


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed memory of this process for what comes next; says whether it does.

    False, with nothing changed, where the library is not GNU's (macOS, Windows, musl), and where the environment
    already says what is wanted (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_, GLIBC_TUNABLES).
    """
    said = " ".join([*os.environ, os.environ.get("GLIBC_TUNABLES", "")])
    if any(word in said for word in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "glibc.malloc.")):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  others have a mallopt that does nothing
        option = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # both or neither: setting one alone stops the other from growing by itself
    mapped = option(_MMAP_THRESHOLD, _MAPPED) or option(_MMAP_THRESHOLD, _MOST_MAPPED)
    return bool(mapped and option(_TRIM_THRESHOLD, _KEPT))


def machine_bytes() -> float:
    """Main memory of this machine, or the part that this process may use; infinite if unknown."""
    try:
        whole = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        whole = math.inf
    return min([whole, *(limit for limit, _ in _shares())])


def free_bytes() -> float:
    """The free part of `machine_bytes`; files cached in memory count as free."""
    try:
        said = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        whole = 1024.0 * int(said)
    except (OSError, IndexError, ValueError):
        whole = machine_bytes()
    return min([whole, *(max(limit - held, 0.0) for limit, held in _shares())])


def _shares() -> list[tuple[float, float]]:
    """(bytes given, bytes held) by Linux' control groups, as containers have them; none elsewhere."""
    found = []
    for folder, limit, held, files in _GROUPS:
        try:
            given, taken = (float((folder / name).read_text()) for name in (limit, held))  # "max" is no number
            cached = float((folder / "memory.stat").read_text().split(files + " ")[1].split()[0])
        except (OSError, IndexError, ValueError):
            continue
        found.append((given, taken - cached))
    return found
