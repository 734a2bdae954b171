"""Freed memory is kept: measured in processes of their own, by page faults."""

import os
import subprocess
import sys

import pytest

WORK = """
import resource, sys, torch
from ornstein.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        {torch.zeros}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
told = keep_freed_memory(torch.device("cpu"))
assert told == keep_freed_memory(torch.device("cpu")) and not keep_freed_memory(torch.device("meta"))
faults()
print(first, int(told), faults())
"""


def gnu() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):
        return False


def faults(**environment: str) -> tuple[int, bool, int]:
    """Page faults of ten rounds of three tensors of 64 MB, before and after, and whether it was told."""
    code = WORK.replace("{torch.zeros}", "kept = [torch.zeros(2**24) for _ in range(3)]; del kept")
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    first, told, after = map(int, found.stdout.split())
    return first, bool(told), after


@pytest.mark.skipif(not gnu(), reason="the C library is not GNU's")
def test_freed_memory_is_kept_and_asked_for_once():
    first, told, after = faults()
    assert told
    # 480 thousand pages of 4 kB; where pages are huge there are fewer to begin with
    assert after <= 200 or after < first / 100, (first, after)
    assert after < first


@pytest.mark.skipif(not gnu(), reason="the C library is not GNU's")
@pytest.mark.parametrize(
    "said",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}],
    ids=lambda said: next(iter(said)),
)
def test_what_the_environment_says_stays(said):
    first, told, after = faults(**said)
    assert not told
    assert after > first / 2
