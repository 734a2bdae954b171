"""Freed memory is kept where the command line says so, and nowhere else: in processes of their own, by page faults."""

import os
import subprocess
import sys
from typing import Any

import pytest

WORK = """
import resource, sys
{made}

def faults():
    found = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [made() for _ in range(3)]
        del kept
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # a round may find the heap in pieces, and make it longer once more; what is given back costs every round anew
    return min(found)

first, told = faults(), -1
{work}
faults()
print()
print(first, int(told), faults())
"""
#: 64 MB, as a tensor; and as Python's own bytes, from the same C library without torch's two seconds of loading
TENSOR = "import torch\nmade = lambda: torch.zeros(2**24)"
BYTES = "made = lambda: b'x' * 2**26"
TOLD = """
from ornstein.memory import keep_freed_memory
told = keep_freed_memory()
assert told == keep_freed_memory()
"""
LIBRARY = """
import os, tempfile, ornstein
from ornstein.core.exact import Gaussian
from ornstein.training import Training, fit, quickest_training
torch.set_num_threads(2)
before = dict(os.environ), torch.get_num_threads()
denoiser = Gaussian(torch.zeros(2), 1.0).denoiser(ornstein.VP())
ornstein.sample(denoiser, (2, 2), steps=3)
ornstein.log_likelihood(denoiser, torch.zeros(1, 2))
loss = lambda net, batch, generator: net(batch).square().mean(1)
with tempfile.TemporaryDirectory() as folder:
    how, net = Training(steps=40, cpu=True), torch.nn.Linear(2, 2)
    quickest_training(net, loss, torch.ones(4, 2), torch.device("cpu"), 0)
    list(fit(net, loss, lambda step: torch.ones(4, 2), how, folder))
assert before == (dict(os.environ), torch.get_num_threads())
"""
COMMAND = """
from ornstein.cli import main
sys.argv = ["ornstein", "--version"]
try:
    main()
except SystemExit:
    pass
"""


def gnu() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (AttributeError, ValueError, OSError):
        return False


pytestmark = pytest.mark.skipif(not gnu(), reason="the C library is not GNU's")


def faults(work: str, made: str, **environment: str) -> tuple[int, bool, int]:
    """Page faults of a round of three times 64 MB, before and after some work, and what it set `told` to.

    The fewest of four rounds.
    """
    code = WORK.replace("{work}", work).replace("{made}", made)
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    first, told, after = map(int, found.stdout.splitlines()[-1].split())
    return first, bool(told), after


@pytest.mark.parametrize(("work", "made"), [(TOLD, TENSOR), (COMMAND, BYTES)], ids=["asked", "command line"])
def test_freed_memory_is_kept_and_asked_for_once(work: str, made: str) -> None:
    first, told, after = faults(work, made)
    assert told
    # 49 thousand pages of 4 kB; where pages are huge there are fewer to begin with
    assert after <= 50 or after < first / 100, (first, after)
    assert after < first


def test_the_library_leaves_a_program_its_memory() -> None:
    """Sampling, a likelihood and training leave as they are how the process gives memory back, its environment, and how
    many threads it has."""
    first, _, after = faults(LIBRARY, TENSOR)
    assert after > first / 2


@pytest.mark.parametrize(
    "said",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}],
    ids=lambda said: next(iter(said)),
)
def test_what_the_environment_says_stays(said: Any) -> None:
    first, told, after = faults(TOLD, BYTES, **said)
    assert not told
    assert after > first / 2
